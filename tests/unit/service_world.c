/* service_world.c - see service_world.h. */
#include "service_world.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <sched.h>
#include <unistd.h>

#include "common/cleanup.h"

/* --- a driver of fake machines ------------------------------------------------------------------ */

struct fake_machines fake;

struct hv_machine {
    struct hv_machine_base base;
    struct hv_driver *drv;
    const struct hv_machine_events *events;
    void *arg;
    uint16_t port;
    char cmdline[128];
    bool volume, shell;
    struct evconnlistener *listener;
    struct un_post post, answer;
    struct un_timer boot;
    uint64_t started_us;
    evutil_socket_t unanswered[64];
    unsigned unanswered_count;
};

struct hv_machine *last_started, *last_shell;

static void post(struct hv_machine *m, void (*fn)(void *))
{
    m->post = (struct un_post){.fn = fn, .arg = m};
    un_loop_post(m->drv->loop, &m->post);
}

static void tell_made(void *arg)
{
    struct hv_machine *m = arg;
    struct un_error err = UN_ERROR_INIT;
    if (fake.fail_made) {
        un_error_set(&err, -EIO, "no machine today");
    } else if (fake.ports_taken > 0) {
        fake.ports_taken--;
        un_error_set(&err, -EADDRINUSE, "the port is taken");
    }
    m->events->on_made(m->arg, err.code, &err);
}

static int fake_new(struct hv_driver *drv, const struct hv_machine_spec *spec,
                    struct hv_machine **ret, struct un_error *err)
{
    if (spec->boot == HV_BOOT_SHELL && fake.no_shells) {
        fake.shells++;
        return un_error_set(err, -ENOTSUP, "no shells here");
    }
    struct hv_machine *m = calloc(1, sizeof(*m));
    assert_non_null(m);
    m->shell = spec->boot == HV_BOOT_SHELL;
    last_shell = m->shell ? m : last_shell;
    fake.shells += m->shell;
    m->base.ops = hv_driver_ops(drv)->machine;
    m->drv = drv;
    m->events = spec->events;
    m->arg = spec->arg;
    m->port = spec->host_port;
    snprintf(m->cmdline, sizeof(m->cmdline), "%s", spec->cmdline);
    for (size_t i = 0; i < spec->disk_count; i++) {
        m->volume |= !spec->disks[i].read_only;
    }
    fake.open_volumes += m->volume;
    fake.most_volumes =
        fake.open_volumes > fake.most_volumes ? fake.open_volumes : fake.most_volumes;
    fake.made++;
    fake.spec = *spec;
    fake.disks[0] = '\0';
    for (size_t i = 0; i < spec->disk_count; i++) {
        size_t at = strlen(fake.disks);
        snprintf(fake.disks + at, sizeof(fake.disks) - at, "%s %s %s;", spec->disks[i].path,
                 spec->disks[i].format, spec->disks[i].read_only ? "ro" : "rw");
    }
    post(m, tell_made);
    *ret = m;
    return 0;
}

static void on_written(struct bufferevent *bev, void *arg)
{
    bufferevent_free(bev);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    if ((what & BEV_EVENT_EOF) && evbuffer_get_length(bufferevent_get_output(bev)) > 0) {
        return; /* on_written follows */
    }
    bufferevent_free(bev);
}

/* Of the answer that goes out byte by byte, what is left. */
static const char *slow;
static struct un_timer slow_timer;

static void on_slow(void *arg)
{
    if (*slow) {
        bufferevent_write(arg, slow++, 1);
        assert_int_equal(un_timer_arm_in(&slow_timer, 2000), 0);
    }
}

static void on_next(struct bufferevent *bev, void *arg)
{
    bufferevent_free(bev);
}

/* Answers with the request itself, all of it, and closes: enough to look at what came. */
static void on_read(struct bufferevent *bev, void *arg)
{
    struct evbuffer *in = bufferevent_get_input(bev);
    if (evbuffer_search(in, "KEEP", 4, NULL).pos >= 0) {
        slow = evbuffer_search(in, "SLOW", 4, NULL).pos >= 0 ? fake.answer : NULL;
        evbuffer_drain(in, evbuffer_get_length(in));
        if (slow) {
            un_timer_init(&slow_timer, ((struct hv_machine *)arg)->drv->loop, on_slow, bev);
            on_slow(bev);
            return;
        }
        bufferevent_write(bev, fake.answer, strlen(fake.answer));
        bufferevent_setcb(bev, fake.answers_once ? on_next : on_read, NULL, on_event, arg);
        return;
    }
    struct evbuffer_ptr end = evbuffer_search(in, "END", 3, NULL);
    if (end.pos < 0) {
        return;
    }
    bool close_at_once = evbuffer_search(in, "DROP", 4, NULL).pos >= 0;
    if (close_at_once) {
        bufferevent_free(bev);
    } else if (evbuffer_search(in, "HOLD", 4, NULL).pos < 0) {
        bufferevent_write_buffer(bev, in);
        bufferevent_setcb(bev, NULL, on_written, on_event, arg);
    }
}

uint64_t age_us(const struct hv_machine *m)
{
    return un_loop_now_us(m->drv->loop) - m->started_us;
}

static void serve(struct hv_machine *m, evutil_socket_t fd)
{
    struct bufferevent *bev =
        bufferevent_socket_new(un_loop_base(m->drv->loop), fd, BEV_OPT_CLOSE_ON_FREE);
    bufferevent_setcb(bev, on_read, NULL, on_event, m);
    bufferevent_enable(bev, EV_READ | EV_WRITE);
}

static void on_accept(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *a, int len,
                      void *arg)
{
    struct hv_machine *m = arg;
    fake.accepted++;
    if (fake.drops) {
        fake.drops--;
        evutil_closesocket(fd);
        return;
    }
    fake.taken++;
    fake.early += fake.forwards && age_us(m) < fake.boot_us / 2;
    if (fake.forwards && age_us(m) < fake.boot_us) {
        assert_true(m->unanswered_count < UN_ARRAY_SIZE(m->unanswered));
        m->unanswered[m->unanswered_count++] = fd;
        return;
    }
    serve(m, fd);
}

static enum hv_machine_heard heard_of(const struct hv_machine *m)
{
    if (fake.mute || fake.mute_first > 0) {
        fake.mute_first -= fake.mute_first > 0;
        return HV_HEARD_UNKNOWN;
    }
    if (age_us(m) < fake.boot_us / 2) {
        return HV_HEARD_NOTHING;
    }
    return age_us(m) >= fake.boot_us && fake.taken ? HV_HEARD_LISTENS : HV_HEARD_CARD;
}

static void tell_heard(void *arg)
{
    struct hv_machine *m = arg;
    m->events->on_heard(m->arg, heard_of(m));
}

static void fake_ask(struct hv_machine *m)
{
    m->answer = (struct un_post){.fn = tell_heard, .arg = m};
    un_loop_post(m->drv->loop, &m->answer);
}

static void tell_exit(void *arg)
{
    struct hv_machine *m = arg;
    struct hv_exit why = {.kind = fake.end, .detail = "it crashed"};
    m->events->on_log(m->arg, "panic!\nlast", 11);
    m->events->on_exit(m->arg, &why);
}

void end_now(struct hv_machine *m)
{
    tell_exit(m);
}

void end_soon(struct hv_machine *m)
{
    post(m, tell_exit);
}

void open_out(struct hv_machine *m)
{
    struct un_endpoint to = {.host = "db.internal", .port = 5432};
    service_on_open(m->arg, &to, dup(STDERR_FILENO));
}

static void boot(void *arg)
{
    struct hv_machine *m = arg;
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons(m->port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fake.says) {
        m->events->on_log(m->arg, fake.says, strlen(fake.says));
    }
    while (m->unanswered_count > 0) {
        serve(m, m->unanswered[--m->unanswered_count]);
    }
    if (fake.deaf || m->listener) {
        return;
    }
    m->listener = evconnlistener_new_bind(un_loop_base(m->drv->loop), on_accept, m,
                                          LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE, 64,
                                          (struct sockaddr *)&a, sizeof(a));
    assert_non_null(m->listener);
}

void stop_listening(struct hv_machine *m)
{
    evconnlistener_free(m->listener);
    m->listener = NULL;
}

void listen_again(struct hv_machine *m)
{
    boot(m);
}

static void fake_start(struct hv_machine *m)
{
    assert_false(m->shell);
    fake.started++;
    snprintf(fake.cmdline, sizeof(fake.cmdline), "%s", m->cmdline);
    if (fake.crash) {
        post(m, tell_exit);
        return;
    }
    last_started = m;
    m->started_us = un_loop_now_us(m->drv->loop);
    if (fake.forwards) {
        boot(m);
    }
    un_timer_init(&m->boot, m->drv->loop, boot, m);
    assert_int_equal(un_timer_arm_in(&m->boot, fake.boot_us), 0);
}

static void tell_loaded(void *arg)
{
    struct hv_machine *m = arg;
    struct un_error err = UN_ERROR_INIT;
    struct hv_exit why = {.kind = HV_EXIT_LOST, .detail = "it was killed"};
    if (fake.die_loading) {
        m->events->on_exit(m->arg, &why);
        return;
    }
    if (fake.fail_load) {
        un_error_set(&err, -ENOTSUP, "not this one");
    }
    m->events->on_made(m->arg, err.code, &err);
}

static void fake_load(struct hv_machine *m, const struct hv_machine_spec *spec)
{
    assert_true(m->shell);
    m->shell = false;
    m->events = spec->events;
    m->arg = spec->arg;
    m->port = spec->host_port;
    snprintf(m->cmdline, sizeof(m->cmdline), "%s", spec->cmdline);
    fake.loaded++;
    post(m, tell_loaded);
}

static void fake_usage(struct hv_machine *m, struct hv_usage *ret)
{
    *ret = (struct hv_usage){.cpu_us = 7};
}

static int fake_pid(struct hv_machine *m)
{
    return 4711;
}

static void tell_gone(void *arg)
{
    struct hv_machine *m = arg;
    const struct hv_machine_events *events = m->events;
    void *user = m->arg;
    fake.gone++;
    fake.open_volumes -= m->volume;
    free(m);
    events->on_gone(user);
}

static void fake_free(struct hv_machine *m)
{
    if (m->boot.loop) {
        un_timer_cancel(&m->boot);
    }
    if (m->listener) {
        evconnlistener_free(m->listener);
    }
    while (m->unanswered_count > 0) {
        evutil_closesocket(m->unanswered[--m->unanswered_count]);
    }
    un_loop_unpost(m->drv->loop, &m->post);
    un_loop_unpost(m->drv->loop, &m->answer);
    post(m, tell_gone);
}

static void fake_read_log(struct hv_machine *m)
{
    const char *text = fake.unread;
    fake.unread = NULL;
    if (text) {
        m->events->on_log(m->arg, text, strlen(text));
    }
}

static const struct hv_machine_ops fake_machines = {.new = fake_new,
                                                    .start = fake_start,
                                                    .load = fake_load,
                                                    .read_log = fake_read_log,
                                                    .usage = fake_usage,
                                                    .pid = fake_pid,
                                                    .free = fake_free};
static const struct hv_machine_ops asked_machines = {.new = fake_new,
                                                     .start = fake_start,
                                                     .ask = fake_ask,
                                                     .usage = fake_usage,
                                                     .pid = fake_pid,
                                                     .free = fake_free};
const struct hv_driver_ops asked_ops = {.name = "fake", .machine = &asked_machines};
static const struct hv_driver_ops fake_ops = {.name = "fake", .machine = &fake_machines};

/* --- the world ---------------------------------------------------------------------------------- */

static void on_console(void *arg, const char *service, const char *line, size_t len)
{
    struct world *w = arg;
    snprintf(w->console, sizeof(w->console), "%s: %.*s", service, (int)len, line);
}

static void on_machine(void *arg, const struct hv_service_machine *m, bool gone)
{
    struct world *w = arg;
    size_t at = strlen(w->states);
    if (*m->name) {
        snprintf(w->states + at, sizeof(w->states) - at, "%s ", gone ? "gone" : m->state);
        assert_string_equal(m->name, "web");
    }
}

static void on_function_log(void *arg, const char *name, const void *data, size_t len)
{
    struct world *w = arg;
    size_t at = strlen(w->log);
    snprintf(w->log + at, sizeof(w->log) - at, "%.*s", (int)len, (const char *)data);
}

static void on_proven(void *arg, const char *name, uint32_t version)
{
    struct world *w = arg;
    snprintf(w->proven, sizeof(w->proven), "%s:%u", name, version);
}

static void on_failing(void *arg, const char *name, uint32_t version, const char *why)
{
    struct world *w = arg;
    w->failings++;
    snprintf(w->failing, sizeof(w->failing), "%s:%u %s", name, version, why);
}

static const struct hv_service_events service_events = {.on_machine = on_machine,
                                                        .on_console = on_function_log,
                                                        .on_proven = on_proven,
                                                        .on_failing = on_failing};

static void on_open(void *arg, const struct service_opening *opening)
{
    struct world *w = arg;
    w->opened++;
    w->depth = opening->depth;
    close(opening->fd);
}

static void on_end(void *arg, const void *machine)
{
}

static bool may_use(void *arg, uint64_t bytes)
{
    struct world *w = arg;
    return !w->no_memory &&
           (!w->memory_mib || stats_of(w).memory_mib + (bytes >> 20) <= w->memory_mib);
}

/* A UDP socket that sends to itself. */
static int open_echo(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, len), 0);
    return fd;
}

/* Runs what is ready, and what that makes ready by way of sockets. Packets of loopback wait their turn in the
 * queue of the processor on which they were sent (the test keeps to one), and a busy kernel lets them wait: so what was
 * sent before is there when a packet behind it is. Each round goes one step further, of the few from a connection that
 * is opened to one that is closed. */
static void settle(struct world *w)
{
    enum { ROUNDS = 4 };
    char byte = 0;
    for (int i = 0; i < ROUNDS; i++) {
        un_loop_run_ready(w->loop);
        assert_int_equal(send(w->echo, &byte, 1, 0), 1);
        assert_int_equal(recv(w->echo, &byte, 1, 0), 1);
    }
    un_loop_run_ready(w->loop);
}

/* See settle. */
static void keep_to_one_processor(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(sched_getcpu(), &set);
    assert_int_equal(sched_setaffinity(0, sizeof(set), &set), 0);
}

static int open_with(void **state, uint32_t shells_keep_ms)
{
    struct world *w = calloc(1, sizeof(*w));
    memset(&fake, 0, sizeof(fake));
    fake.boot_us = 20000;
    fake.end = HV_EXIT_LOST;
    assert_int_equal(un_loop_new_virtual(1000000, &w->loop, NULL), 0);
    keep_to_one_processor();
    w->echo = open_echo();
    w->machines = (struct hv_driver){.base = {.ops = &fake_ops}, .loop = w->loop};
    struct service_driver_spec spec = {.loop = w->loop,
                                       .machines = &w->machines,
                                       .may_use = may_use,
                                       .is_free = may_use,
                                       .shells_keep_ms = shells_keep_ms,
                                       .on_open = on_open,
                                       .on_end = on_end,
                                       .on_console = on_console,
                                       .arg = w};

    assert_int_equal(service_driver_open(&spec, &w->drv, NULL), 0);
    hv_driver_ops(w->drv)->service->listen(w->drv, &service_events, w);
    w->config = (struct hv_machine_config){.key = "web:1",
                                           .name = "web",
                                           .version = 1,
                                           .image_path = "/images/web",
                                           .append = "port={port} ip={ip}",
                                           .mem_bytes = 64 << 20,
                                           .port = 80,
                                           .concurrency = 10,
                                           .max_instances = 2,
                                           .idle_timeout_ms = 60000,
                                           .ready_timeout_ms = 2000};
    *state = w;
    return 0;
}

int open_world(void **state)
{
    return open_with(state, 0);
}

int open_world_with_shells(void **state)
{
    return open_with(state, 3600000);
}

static void on_drained(void *arg)
{
    struct world *w = arg;
    w->drained = true;
}

void run_for(struct world *w, unsigned ms)
{
    settle(w);
    for (unsigned i = 0; i < ms; i++) {
        un_loop_advance(w->loop, 1000);
        settle(w);
    }
}

int close_world(void **state)
{
    struct world *w = *state;
    service_driver_drain(w->drv, on_drained, w);
    for (int i = 0; i < 100 && !w->drained; i++) {
        run_for(w, 20);
    }
    assert_true(w->drained);
    run_for(w, 20); /* the fake's ends of connections that were held */
    assert_int_equal(fake.made, fake.gone);
    hv_driver_ops(w->drv)->close(w->drv);
    un_loop_free(w->loop);
    close(w->echo);
    free(w);
    return 0;
}

static void on_ready(void *arg, int rc, const struct un_error *err)
{
    struct request *r = arg;
    r->ready = rc == 0;
}

static void on_started(void *arg)
{
    struct request *r = arg;
    r->started = true;
}

static void on_input_wanted(void *arg, size_t room)
{
    struct request *r = arg;
    if (r->silent) {
        return;
    }
    static const char filler[4096] = {[0 ... 4095] = 'x'};
    size_t n = r->more < room ? r->more : room;
    n = n < sizeof(filler) ? n : sizeof(filler);
    r->more -= n;
    hv_vm_ops(r->vm)->vm_input(r->vm, r->more ? filler : "END", r->more ? n : 3, r->more == 0);
}

static void on_output(void *arg, const void *data, size_t len, const struct hv_exit *last)
{
    struct request *r = arg;
    assert_true(len > 0 || r->raw);
    r->ends += len == 0;
    assert_int_equal(len ? un_buf_append(&r->answer, data, len) : 0, 0);
    if (!r->hold_output) {
        hv_vm_ops(r->vm)->vm_output_done(r->vm);
    }
}

static void on_request_log(void *arg, const void *data, size_t len)
{
    struct request *r = arg;
    size_t at = strlen(r->log);
    snprintf(r->log + at, sizeof(r->log) - at, "%.*s", (int)len, (const char *)data);
}

static void on_exit_(void *arg, const struct hv_exit *why)
{
    struct request *r = arg;
    r->exited = true;
    r->why = *why;
}

static void on_gone(void *arg)
{
    struct request *r = arg;
    r->gone = true;
}

static const struct hv_vm_events vm_events = {.on_ready = on_ready,
                                              .on_started = on_started,
                                              .on_input_wanted = on_input_wanted,
                                              .on_output = on_output,
                                              .on_log = on_request_log,
                                              .on_exit = on_exit_,
                                              .on_gone = on_gone};

void begin(struct world *w, struct request *r, const char *text)
{
    struct hv_vm_spec spec = {.mem_bytes = 2 << 20, .events = &vm_events, .arg = r};
    r->w = w;
    assert_int_equal(hv_driver_ops(w->drv)->vm_new(w->drv, &spec, &r->vm, NULL), 0);
    settle(w);
    assert_true(r->ready);
    struct hv_run_spec run = {.request_head = text,
                              .request_head_len = strlen(text),
                              .content_length = (int64_t)r->more,
                              .body_eof = r->more == 0,
                              .machine = &w->config,
                              .depth = r->depth};
    if (r->raw) {
        run.request_head_len = 0;
        run.interface = UNID_INTERFACE_TCP;
        run.body = text;
        run.body_len = strlen(text);
        run.content_length = -1;
        run.body_eof = false;
    }
    assert_int_equal(hv_vm_ops(r->vm)->vm_run(r->vm, &run, NULL), 0);
}

void finish(struct request *r)
{
    hv_vm_ops(r->vm)->vm_free(r->vm);
    settle(r->w);
    assert_true(r->gone);
    un_buf_done(&r->answer);
}

void wait_exit(struct request *r)
{
    for (int i = 0; i < 500 && !r->exited; i++) {
        run_for(r->w, 10);
    }
    assert_true(r->exited);
}

struct service_stats stats_of(struct world *w)
{
    struct service_stats s;
    service_driver_stats(w->drv, &s);
    return s;
}

void ask(struct world *w, struct request *r, const char *text)
{
    r->hold_output = true;
    begin(w, r, text);
    for (int i = 0; i < 500 && r->answer.len == 0 && !r->exited; i++) {
        run_for(w, 10);
    }
    assert_false(r->exited);
    finish(r);
    *r = (struct request){0};
}

const struct hv_service_ops *services(struct world *w)
{
    return hv_driver_ops(w->drv)->service;
}
