/* test_service.c - services, with machines that are listeners in this process: woken by requests,
 * shared, stopped when idle; crashes, machines that never listen, and what is lost then.
 */
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

#include "common/bytes.h"
#include "common/cleanup.h"
#include "service/service.h"

/* --- a driver of fake machines ------------------------------------------------------------------ */

/* What the next machines do. */
static struct {
    bool fail_made, crash, deaf; /* ends when started; never listens */
    uint64_t boot_us;
    unsigned
        drops; /* connections that are taken and closed at first, as QEMU's user network does */
    unsigned made, started, gone, accepted, open_volumes, most_volumes;
    enum hv_exit_kind end; /* how machines that are told to end do */
    const char *says;      /* when they have booted */
    /* As behind QEMU's user network: connections are taken from the start on and answered when the guest
     * has booted; halfway it has its card. `mute`: what is asked cannot be told. */
    bool forwards, mute;
    unsigned early, taken; /* connections before there was a card; in all */
    const char *answer;    /* to a request with KEEP in it, over a connection that stays open */
    bool answers_once;     /* ... and is closed when another request comes */
    char disks[256];       /* of the machine made last */
} fake;

struct hv_driver {
    struct hv_driver_base base;
    struct un_loop *loop;
};

struct hv_machine {
    struct hv_machine_base base;
    struct hv_driver *drv;
    const struct hv_machine_events *events;
    void *arg;
    uint16_t port;
    char cmdline[128];
    bool volume;
    struct evconnlistener *listener;
    struct un_post post, answer;
    struct un_timer boot;
    uint64_t started_us;
    evutil_socket_t unanswered[64];
    unsigned unanswered_count;
};

static struct hv_machine *last_started; /* that was started */

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
    }
    m->events->on_made(m->arg, err.code, &err);
}

static int fake_new(struct hv_driver *drv, const struct hv_machine_spec *spec,
                    struct hv_machine **ret, struct un_error *err)
{
    struct hv_machine *m = calloc(1, sizeof(*m));
    assert_non_null(m);
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

static uint64_t age_us(const struct hv_machine *m)
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
    if (fake.mute) {
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

static void fake_start(struct hv_machine *m)
{
    fake.started++;
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

static const struct hv_machine_ops fake_machines = {
    .new = fake_new, .start = fake_start, .usage = fake_usage, .pid = fake_pid, .free = fake_free};
static const struct hv_machine_ops asked_machines = {.new = fake_new,
                                                     .start = fake_start,
                                                     .ask = fake_ask,
                                                     .usage = fake_usage,
                                                     .pid = fake_pid,
                                                     .free = fake_free};
static const struct hv_driver_ops asked_ops = {.name = "fake", .machine = &asked_machines};
static const struct hv_driver_ops fake_ops = {.name = "fake", .machine = &fake_machines};

/* --- the world ---------------------------------------------------------------------------------- */

struct world {
    struct un_loop *loop;
    struct hv_driver machines;
    struct hv_driver *drv;
    struct hv_machine_config config;
    char console[256];
    bool drained;
    /* what the driver tells of versions */
    char proven[64], failing[256], log[256], states[512];
    unsigned failings;
};

struct request {
    struct world *w;
    struct hv_vm *vm;
    bool ready, started, exited, gone, hold_output;
    bool raw, silent; /* a connection without requests; whose client says no more */
    unsigned ends;    /* of the machine's direction */
    struct un_buf answer;
    struct hv_exit why;
    size_t more; /* body bytes to come */
    char log[256];
};

static void on_console(void *arg, const char *service, const char *line, size_t len)
{
    struct world *w = arg;
    snprintf(w->console, sizeof(w->console), "%s: %.*s", service, (int)len, line);
}

static void on_machine(void *arg, const struct hv_service_machine *m, bool gone)
{
    struct world *w = arg;
    size_t at = strlen(w->states);
    snprintf(w->states + at, sizeof(w->states) - at, "%s ", gone ? "gone" : m->state);
    assert_string_equal(m->name, "web");
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

static int open_world(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    memset(&fake, 0, sizeof(fake));
    fake.boot_us = 20000;
    fake.end = HV_EXIT_LOST;
    assert_int_equal(un_loop_new(&w->loop, NULL), 0);
    w->machines = (struct hv_driver){.base = {.ops = &fake_ops}, .loop = w->loop};
    struct service_driver_spec spec = {
        .loop = w->loop, .machines = &w->machines, .on_console = on_console, .arg = w};
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

static void on_drained(void *arg)
{
    struct world *w = arg;
    w->drained = true;
    un_loop_stop(w->loop);
}

static void stop(void *arg)
{
    un_loop_stop(arg);
}

/* Lets the loop run for a while. */
static void run_for(struct world *w, unsigned ms)
{
    struct un_timer t;
    un_timer_init(&t, w->loop, stop, w->loop);
    assert_int_equal(un_timer_arm_in(&t, ms * 1000), 0);
    un_loop_run(w->loop);
    un_timer_cancel(&t);
}

static int close_world(void **state)
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
    free(w);
    return 0;
}

static void on_ready(void *arg, int rc, const struct un_error *err)
{
    struct request *r = arg;
    r->ready = rc == 0;
    un_loop_stop(r->w->loop);
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
    un_loop_stop(r->w->loop);
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
    un_loop_stop(r->w->loop);
}

static void on_gone(void *arg)
{
    struct request *r = arg;
    r->gone = true;
    un_loop_stop(r->w->loop);
}

static const struct hv_vm_events vm_events = {.on_ready = on_ready,
                                              .on_started = on_started,
                                              .on_input_wanted = on_input_wanted,
                                              .on_output = on_output,
                                              .on_log = on_request_log,
                                              .on_exit = on_exit_,
                                              .on_gone = on_gone};

static void begin(struct world *w, struct request *r, const char *text)
{
    struct hv_vm_spec spec = {.mem_bytes = 2 << 20, .events = &vm_events, .arg = r};
    r->w = w;
    assert_int_equal(hv_driver_ops(w->drv)->vm_new(w->drv, &spec, &r->vm, NULL), 0);
    while (!r->ready) {
        un_loop_run(w->loop);
    }
    struct hv_run_spec run = {.request_head = text,
                              .request_head_len = strlen(text),
                              .content_length = (int64_t)r->more,
                              .body_eof = r->more == 0,
                              .machine = &w->config};
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

static void finish(struct request *r)
{
    hv_vm_ops(r->vm)->vm_free(r->vm);
    while (!r->gone) {
        un_loop_run(r->w->loop);
    }
    un_buf_done(&r->answer);
}

static void wait_exit(struct request *r)
{
    for (int i = 0; i < 500 && !r->exited; i++) {
        run_for(r->w, 10);
    }
    assert_true(r->exited);
}

static struct service_stats stats_of(struct world *w)
{
    struct service_stats s;
    service_driver_stats(w->drv, &s);
    return s;
}

/* Until it has its answer, as the scheduler does that knows its end. */
static void ask(struct world *w, struct request *r, const char *text)
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

/* --- tests -------------------------------------------------------------------------------------- */

static void a_request_wakes_a_machine(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    begin(w, &r, "GET / END");
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_DONE);
    assert_true(r.started);
    assert_string_equal((const char *)r.answer.data, "GET / END");
    finish(&r);
    assert_int_equal(stats_of(w).machines_ready, 1);
    /* The next one finds it awake. */
    struct request again = {0};
    begin(w, &again, "again END");
    wait_exit(&again);
    assert_string_equal((const char *)again.answer.data, "again END");
    finish(&again);
    assert_int_equal(fake.started, 1);
}

#define ANSWER "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

static void an_open_connection_serves_the_next_request(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    fake.answer = ANSWER;
    ask(w, &r, "GET /KEEP HTTP/1.1\r\n\r\n");
    unsigned first = fake.accepted; /* attempts to connect count too */
    ask(w, &r, "GET /KEEP HTTP/1.1\r\n\r\n");
    ask(w, &r, "HEAD /KEEP HTTP/1.1\r\n\r\n"); /* with a body, against the rules */
    assert_int_equal(fake.accepted, first);
    ask(w, &r, "GET /KEEP HTTP/1.1\r\n\r\n");
    assert_int_equal(fake.accepted, first + 1);
    /* What cannot be repeated goes over a connection of its own. */
    ask(w, &r, "POST /KEEP HTTP/1.1\r\n\r\n");
    assert_int_equal(fake.accepted, first + 2);
}

static void a_connection_that_is_to_be_closed_is(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    static const char *const answers[] = {
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nok", /* more than it said */
        "what is this?",
    };
    for (size_t i = 0; i < UN_ARRAY_SIZE(answers); i++) {
        fake.answer = answers[i];
        ask(w, &r, "GET /KEEP HTTP/1.1\r\n\r\n");
        unsigned before = fake.accepted;
        ask(w, &r, "GET /KEEP HTTP/1.1\r\n\r\n");
        assert_int_equal(fake.accepted, before + 1);
    }
}

/* As the scheduler: until the answer is whole. */
static void answers_are_passed_on_however_they_come(void **state)
{
    struct world *w = *state;
    static const struct {
        const char *request, *answer;
    } cases[] = {
        {"HEAD /KEEP SLOW HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n"},
        {"GET /KEEP SLOW HTTP/1.1\r\n\r\n", "HTTP/1.1 304 OK\r\nContent-Length: 70000\r\n\r\n"},
        {"GET /KEEP SLOW HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"},
    };
    for (size_t i = 0; i < UN_ARRAY_SIZE(cases); i++) {
        struct request r = {0};
        fake.answer = cases[i].answer;
        begin(w, &r, cases[i].request);
        for (int t = 0; t < 300 && r.answer.len < strlen(fake.answer); t++) {
            run_for(w, 10);
        }
        assert_int_equal(r.answer.len, strlen(fake.answer));
        finish(&r);
    }
}

static void a_connection_that_was_closed_meanwhile_is_no_failure(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    fake.answer = ANSWER;
    fake.answers_once = true;
    ask(w, &r, "GET /KEEP HTTP/1.1\r\n\r\n");
    unsigned first = fake.accepted;
    ask(w, &r, "GET /KEEP HTTP/1.1\r\n\r\n");
    assert_int_equal(fake.accepted, first + 1);
    assert_int_equal(fake.started, 1);
}

static unsigned files_freed;

static void count_freed(struct hv_machine_files *f)
{
    (void)f;
    files_freed++;
}

static void files_are_held_as_long_as_a_machine_may_open_them(void **state)
{
    struct world *w = *state;
    struct request r[2] = {{0}};
    const struct hv_machine_disk disks[] = {{"/images/disk", "qcow2", true},
                                            {"/volumes/data", "raw", false}};
    struct hv_machine_files files = {.refs = 1, .free = count_freed};
    files_freed = 0;
    w->config.volumes = disks;
    w->config.volume_count = 2;
    w->config.max_instances = 1;
    w->config.files = &files;
    w->config.idle_timeout_ms = 100;
    for (int i = 0; i < 2; i++) {
        begin(w, &r[i], "END");
        wait_exit(&r[i]);
        finish(&r[i]);
    }
    assert_string_equal(fake.disks, "/images/disk qcow2 ro;/volumes/data raw rw;");
    hv_machine_files_unref(&files); /* ours; the service has its own */
    assert_int_equal(files_freed, 0);
    run_for(w, 400);
    assert_int_equal(fake.gone, fake.made);
    assert_int_equal(files_freed, 1);
    w->config.files = NULL;
}

static void the_herd_gets_one_machine(void **state)
{
    struct world *w = *state;
    struct request r[10] = {{0}};
    for (int i = 0; i < 10; i++) {
        begin(w, &r[i], "herd END");
    }
    for (int i = 0; i < 10; i++) {
        wait_exit(&r[i]);
        assert_int_equal(r[i].why.kind, HV_EXIT_DONE);
        finish(&r[i]);
    }
    assert_int_equal(fake.started, 1);
}

static void behind_a_forwarded_port_the_guest_is_waited_for(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    fake.forwards = true;
    fake.boot_us = 300000;
    w->machines.base.ops = &asked_ops;
    begin(w, &r, "GET / END");
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_DONE);
    assert_string_equal((const char *)r.answer.data, "GET / END"); /* not earlier, and once */
    assert_true(age_us(last_started) >= fake.boot_us);
    assert_int_equal(fake.early, 0);
    assert_true(fake.taken >= 1 && fake.taken < 15);
    finish(&r);
    /* It has proven itself: one at a time is for those that nobody can ask about. */
    struct request two[2] = {{0}};
    begin(w, &two[0], "HOLD END");
    begin(w, &two[1], "second END");
    wait_exit(&two[1]);
    assert_string_equal((const char *)two[1].answer.data, "second END");
    finish(&two[0]);
    finish(&two[1]);
    assert_int_equal(fake.started, 1);
}

static void where_nobody_can_tell_it_is_tried(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    fake.mute = true;
    fake.drops = 2;
    w->machines.base.ops = &asked_ops;
    begin(w, &r, "GET / END");
    wait_exit(&r);
    assert_string_equal((const char *)r.answer.data, "GET / END");
    finish(&r);
}

static void more_than_fit_get_another(void **state)
{
    struct world *w = *state;
    struct request r[3] = {{0}};
    w->config.concurrency = 1;
    begin(w, &r[0], "HOLD END");
    begin(w, &r[1], "HOLD END");
    begin(w, &r[2], "END");
    run_for(w, 300);
    assert_int_equal(fake.started, 2); /* the maximum */
    assert_false(r[2].exited);
    finish(&r[0]);
    wait_exit(&r[2]);
    finish(&r[1]);
    finish(&r[2]);
}

static void per_request_machines_end_with_it(void **state)
{
    struct world *w = *state;
    struct request r[2] = {{0}};
    w->config.per_request = true;
    for (int i = 0; i < 2; i++) {
        begin(w, &r[i], "one END");
        wait_exit(&r[i]);
        finish(&r[i]);
    }
    assert_int_equal(fake.started, 2);
    assert_int_equal(stats_of(w).machines_ready, 0);
}

static void idle_machines_go(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    w->config.idle_timeout_ms = 100;
    begin(w, &r, "END");
    wait_exit(&r);
    finish(&r);
    run_for(w, 300);
    assert_int_equal(stats_of(w).machines_ready, 0);
    assert_int_equal(stats_of(w).machines_paused, 1); /* asleep, ready to be woken */
    assert_int_equal(stats_of(w).services, 1);
    run_for(w, 500);
    assert_int_equal(fake.gone, fake.made);
    assert_int_equal(stats_of(w).services, 0);
}

static void what_is_asleep_wakes_by_its_paused_machine(void **state)
{
    struct world *w = *state;
    struct request r = {0}, again = {0};
    w->config.idle_timeout_ms = 100;
    w->config.max_instances = 1;
    begin(w, &r, "END");
    wait_exit(&r);
    finish(&r);
    run_for(w, 250);
    unsigned made = fake.made;
    assert_int_equal(stats_of(w).machines_ready, 0);
    assert_int_equal(stats_of(w).machines_paused, 1);
    begin(w, &again, "END");
    wait_exit(&again);
    assert_int_equal(again.why.kind, HV_EXIT_DONE);
    assert_int_equal(fake.made, made);
    finish(&again);
}

static void a_body_follows_in_pieces(void **state)
{
    struct world *w = *state;
    struct request r = {.more = 300000};
    begin(w, &r, "POST ");
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_DONE);
    assert_true(r.answer.len > 290000);
    finish(&r);
}

static void output_waits_for_its_reader(void **state)
{
    struct world *w = *state;
    struct request r = {.more = 300000, .hold_output = true};
    begin(w, &r, "POST ");
    run_for(w, 400);
    size_t first = r.answer.len;
    assert_true(first > 0 && first <= 65536);
    run_for(w, 100);
    assert_int_equal(r.answer.len, first);
    r.hold_output = false;
    hv_vm_ops(r.vm)->vm_output_done(r.vm);
    wait_exit(&r);
    assert_true(r.answer.len > 290000);
    finish(&r);
}

static void a_crash_loop_is_told_and_backs_off(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    fake.crash = true;
    begin(w, &r, "END");
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_LOST);
    assert_false(r.started);
    assert_non_null(strstr(r.why.detail, "it crashed"));
    assert_non_null(strstr(r.why.detail, "last"));
    assert_string_equal(w->console, "web: last");
    assert_int_equal(fake.started, 3);
    finish(&r);
}

static void a_machine_that_does_not_listen_yet_is_asked_again(void **state)
{
    struct world *w = *state;
    struct request r = {0}, other = {0};
    w->config.per_request = true; /* one machine has to do */
    fake.drops = 3;
    begin(w, &r, "END");
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_DONE);
    assert_string_equal((const char *)r.answer.data, "END");
    assert_int_equal(fake.started, 1);
    finish(&r);
    fake.drops = 1000000;
    w->config.key = "web:2";
    w->config.ready_timeout_ms = 100;
    begin(w, &other, "END");
    wait_exit(&other);
    assert_int_equal(other.why.kind, HV_EXIT_LOST);
    finish(&other);
    fake.drops = 0;
}

static void one_crash_is_made_good(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    fake.crash = true;
    begin(w, &r, "END");
    while (fake.started == 0) {
        run_for(w, 5);
    }
    fake.crash = false;
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_DONE);
    finish(&r);
}

static void a_deaf_machine_is_given_up(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    fake.deaf = true;
    w->config.ready_timeout_ms = 100;
    begin(w, &r, "END");
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_LOST);
    assert_non_null(strstr(r.why.detail, "port 80 did not answer within 100 ms"));
    finish(&r);
}

static void what_cannot_be_made_is_told(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    fake.fail_made = true;
    begin(w, &r, "END");
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_LOST);
    assert_non_null(strstr(r.why.detail, "no machine today"));
    finish(&r);
}

static void requests_are_lost_with_their_machine(void **state)
{
    struct world *w = *state;
    struct request r[2] = {{0}}, next = {0};
    begin(w, &next, "END"); /* it has proven itself */
    wait_exit(&next);
    finish(&next);
    begin(w, &r[0], "HOLD END");
    begin(w, &r[1], "HOLD END");
    run_for(w, 100);
    post(last_started, tell_exit);
    for (int i = 0; i < 2; i++) {
        wait_exit(&r[i]);
        assert_int_equal(r[i].why.kind, HV_EXIT_LOST);
        assert_string_equal(r[i].why.detail, "it crashed; its last words: last");
        assert_true(r[i].why.final);
        finish(&r[i]);
    }
}

static void a_dropped_request_is_lost_not_repeated(void **state)
{
    struct world *w = *state;
    struct request first = {0}, r = {0};
    begin(w, &first, "END"); /* the machine has proven itself */
    wait_exit(&first);
    finish(&first);
    begin(w, &r, "DROP END");
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_LOST);
    assert_true(r.started);
    finish(&r);
}

static void a_client_may_go_at_any_time(void **state)
{
    struct world *w = *state;
    struct request waiting = {0}, held = {0};
    begin(w, &waiting, "END");
    finish(&waiting); /* before the machine is there */
    begin(w, &held, "HOLD END");
    run_for(w, 200);
    finish(&held); /* while it is served */
    struct request r = {0};
    begin(w, &r, "END");
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_DONE);
    finish(&r);
}

/* --- connections without requests --------------------------------------------------------------- */

static void both_directions_of_a_connection_end_by_themselves(void **state)
{
    struct world *w = *state;
    struct request r = {.raw = true, .silent = true};
    begin(w, &r, "hello END");
    for (int i = 0; i < 200 && r.ends == 0; i++) {
        run_for(w, 10);
    }
    assert_string_equal((const char *)r.answer.data, "hello END"); /* and the machine has ended its own */
    assert_int_equal(r.ends, 1);
    assert_true(r.started);
    assert_false(r.exited);
    hv_vm_ops(r.vm)->vm_input(r.vm, NULL, 0, true);
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_DONE);
    assert_int_equal(r.ends, 1);
    finish(&r);
}

static void a_connection_is_given_back_until_it_is_taken(void **state)
{
    struct world *w = *state;
    struct request r = {.raw = true, .silent = true};
    fake.drops = 3; /* as QEMU's user network does, before the guest listens */
    begin(w, &r, "once END");
    for (int i = 0; i < 300 && r.ends == 0; i++) {
        run_for(w, 10);
    }
    assert_string_equal((const char *)r.answer.data, "once END");
    assert_int_equal(fake.drops, 0);
    assert_false(r.exited);
    finish(&r); /* the client has gone */
    assert_int_equal(stats_of(w).machines_ready, 1);
}

static void what_a_machine_has_taken_is_lost_with_it(void **state)
{
    struct world *w = *state;
    struct request r = {.raw = true, .silent = true}, dropped = {.raw = true, .silent = true};
    begin(w, &r, "HOLD END");
    for (int i = 0; i < 200 && !r.started; i++) {
        run_for(w, 10);
    }
    assert_true(r.started);
    begin(w, &dropped, "DROP END"); /* it closes without a byte: an end like any */
    for (int i = 0; i < 200 && dropped.ends == 0; i++) {
        run_for(w, 10);
    }
    assert_false(dropped.exited);
    assert_int_equal(dropped.answer.len, 0);
    tell_exit(last_started);
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_LOST);
    assert_non_null(strstr(r.why.detail, "it crashed"));
    assert_int_equal(fake.started, 1); /* nothing was sent again */
    finish(&r);
    wait_exit(&dropped);
    finish(&dropped);
}

static void output_of_a_connection_waits_for_its_reader(void **state)
{
    struct world *w = *state;
    struct request r = {.raw = true, .hold_output = true, .more = 300000};
    begin(w, &r, "bytes ");
    for (int i = 0; i < 300 && r.answer.len == 0; i++) {
        run_for(w, 10);
    }
    size_t held = r.answer.len;
    assert_in_range(held, 1, 300000);
    run_for(w, 50);
    assert_int_equal(r.answer.len, held); /* one piece at a time */
    r.hold_output = false;
    hv_vm_ops(r.vm)->vm_output_done(r.vm);
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_DONE);
    assert_int_equal(r.answer.len, 6 + 300000 / 4096 * 4096 + 3);
    finish(&r);
}

/* --- versions ----------------------------------------------------------------------------------- */

static const struct hv_service_ops *services(struct world *w)
{
    return hv_driver_ops(w->drv)->service;
}

static void wait_for(struct world *w, const unsigned *what, unsigned n)
{
    for (int i = 0; i < 500 && *what < n; i++) {
        run_for(w, 10);
    }
    assert_int_equal(*what, n);
}

static void machines_are_kept_without_requests(void **state)
{
    struct world *w = *state;
    w->config.min_instances = 2;
    w->config.live = true;
    w->config.idle_timeout_ms = 50;
    assert_int_equal(services(w)->keep(w->drv, &w->config, NULL), 0);
    run_for(w, 300);
    assert_int_equal(stats_of(w).machines_ready, 2);
    assert_int_equal(fake.made, 2);
    /* Another version is live: it takes over, whole. */
    w->config.key = "web:2";
    w->config.version = 2;
    w->config.min_instances = 1;
    assert_int_equal(services(w)->keep(w->drv, &w->config, NULL), 0);
    run_for(w, 300);
    assert_int_equal(stats_of(w).services, 1);
    assert_int_equal(stats_of(w).machines_ready, 1);
    assert_int_equal(fake.made, 3);
    services(w)->live(w->drv, "web", NULL); /* removed */
    wait_for(w, &fake.gone, 3);
    assert_int_equal(stats_of(w).services, 0);
}

static void the_old_version_serves_what_it_has_and_goes(void **state)
{
    struct world *w = *state;
    struct request old = {0}, next = {0};
    begin(w, &old, "HOLD END");
    run_for(w, 200);
    services(w)->live(w->drv, "web", "web:2");
    run_for(w, 100);
    assert_int_equal(stats_of(w).machines_paused, 0); /* none to spare */
    assert_int_equal(stats_of(w).machines_ready, 1);
    assert_false(old.exited);
    w->config.key = "web:2";
    begin(w, &next, "END");
    wait_exit(&next);
    assert_int_equal(next.why.kind, HV_EXIT_DONE);
    finish(&next);
    finish(&old); /* idle_timeout_ms is a minute */
    run_for(w, 100);
    assert_int_equal(stats_of(w).services, 1);
}

static void two_machines_never_have_one_volume(void **state)
{
    struct world *w = *state;
    const struct hv_machine_disk volumes[] = {{"/volumes/db", "raw", false}};
    struct request old = {0}, next = {0}, late = {0};
    w->config.volumes = volumes;
    w->config.volume_count = 1;
    w->config.live = true;
    w->config.max_instances = 5; /* makes no difference */
    w->config.concurrency = 1;
    begin(w, &old, "HOLD END");
    run_for(w, 200);
    assert_int_equal(fake.made, 1);
    struct hv_machine_config first = w->config;
    services(w)->live(w->drv, "web", "web:2");
    w->config.key = "web:2";
    begin(w, &next, "END");
    run_for(w, 200);
    assert_int_equal(fake.made, 1);
    assert_false(next.exited);
    first.live = false;
    w->config = first;
    begin(w, &late, "END"); /* the old version is asked for by its number */
    finish(&old);
    wait_exit(&next);
    assert_int_equal(next.why.kind, HV_EXIT_DONE);
    finish(&next);
    wait_exit(&late); /* the newer one has gone for it, as it had nothing to do */
    assert_int_equal(late.why.kind, HV_EXIT_DONE);
    finish(&late);
    assert_int_equal(fake.most_volumes, 1);
}

static void a_kept_machine_does_not_take_another_functions_volume(void **state)
{
    struct world *w = *state;
    const struct hv_machine_disk volumes[] = {{"/volumes/db", "raw", false}};
    struct request r = {0};
    w->config.volumes = volumes;
    w->config.volume_count = 1;
    w->config.live = true;
    w->config.min_instances = 1;
    assert_int_equal(services(w)->keep(w->drv, &w->config, NULL), 0);
    run_for(w, 200);
    struct hv_machine_config other = w->config;
    other.key = "web2:1"; /* of another function, for the driver */
    other.name = "web2";
    hv_driver_ops(w->drv)->service->listen(w->drv, NULL, NULL);
    assert_int_equal(services(w)->keep(w->drv, &other, NULL), 0);
    run_for(w, 200);
    assert_int_equal(fake.made, 1);
    w->config = other;
    begin(w, &r, "END"); /* but a request of it does */
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_DONE);
    finish(&r);
    assert_int_equal(fake.most_volumes, 1);
}

static void a_version_that_never_is_ready_is_judged_once(void **state)
{
    struct world *w = *state;
    struct request r = {0}, again = {0};
    fake.crash = true;
    fake.end = HV_EXIT_FAULT;
    w->config.live = true;
    begin(w, &r, "END");
    wait_for(w, &w->failings, 1);
    assert_string_equal(w->failing, "web:1 it crashed; its last words: last");
    assert_int_equal(fake.started, 3);
    run_for(w, 1000); /* those who wait are kept waiting, and nothing is tried */
    assert_false(r.exited);
    assert_int_equal(fake.started, 3);
    services(w)->give_up(w->drv, "web");
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_LOST);
    assert_true(r.why.final);
    assert_false(r.started);
    finish(&r);
    run_for(w, 50);
    assert_int_equal(stats_of(w).services, 1); /* its failures are not forgotten */
    begin(w, &again, "END");
    wait_exit(&again);
    assert_int_equal(fake.started, 4);
    finish(&again);
    assert_int_equal(w->failings, 1);
    services(w)->live(w->drv, "web", "web:2");
    run_for(w, 50);
    assert_int_equal(stats_of(w).services, 0);
    assert_string_equal(w->proven, "");
}

static void a_version_that_was_ready_is_not_judged(void **state)
{
    struct world *w = *state;
    struct request r = {0}, next = {0};
    w->config.live = true;
    begin(w, &r, "END");
    wait_exit(&r);
    finish(&r);
    assert_string_equal(w->proven, "web:1");
    fake.crash = true;
    post(last_started, tell_exit);
    run_for(w, 50);
    begin(w, &next, "END");
    wait_exit(&next);
    assert_int_equal(next.why.kind, HV_EXIT_LOST);
    assert_int_equal(w->failings, 0);
    finish(&next);
}

static void shutting_down_when_idle_is_no_failure(void **state)
{
    struct world *w = *state;
    struct request r = {0}, next = {0};
    begin(w, &r, "END");
    wait_exit(&r);
    finish(&r);
    fake.end = HV_EXIT_DONE;
    post(last_started, tell_exit);
    run_for(w, 30);
    assert_int_equal(stats_of(w).failed, 0);
    begin(w, &next, "HOLD END"); /* with a request it is one, and the request is lost */
    run_for(w, 200);
    post(last_started, tell_exit);
    wait_exit(&next);
    assert_int_equal(next.why.kind, HV_EXIT_LOST);
    assert_int_equal(stats_of(w).failed, 1);
    finish(&next);
}

static void a_crash_is_told_as_one(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    begin(w, &r, "HOLD END");
    run_for(w, 200);
    fake.end = HV_EXIT_FAULT;
    post(last_started, tell_exit);
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_FAULT);
    finish(&r);
}

static void a_console_line_says_ready(void **state)
{
    struct world *w = *state;
    struct request r = {0}, late = {0};
    w->config.ready_console = "serving on";
    fake.says = "booting\nnow serving on port 80"; /* a line that has not ended */
    begin(w, &r, "END");
    wait_exit(&r);
    assert_int_equal(r.why.kind, HV_EXIT_DONE);
    assert_string_equal(w->log, "booting\n"); /* a line is told when it has ended */
    assert_string_equal(r.log, "");
    finish(&r);
    w->config.key = "web:2";
    w->config.ready_timeout_ms = 100;
    fake.says = "booting\n";
    begin(w, &late, "END"); /* its port would answer */
    wait_exit(&late);
    assert_non_null(
        strstr(late.why.detail, "its console did not say \"serving on\" within 100 ms"));
    finish(&late);
}

static void the_console_of_one_request_is_its_log(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    w->config.per_request = true;
    fake.says = "booted\n";
    begin(w, &r, "END");
    wait_exit(&r);
    assert_string_equal(r.log, "booted\n");
    assert_string_equal(w->log, "");
    finish(&r);
    fake.crash = true; /* a machine that came to no request */
    w->config.key = "web:2";
    struct request lost = {0};
    begin(w, &lost, "END");
    wait_exit(&lost);
    finish(&lost);
    run_for(w, 50);
    assert_non_null(strstr(w->log, "panic!\nlast"));
}

static void look(void *arg, const struct hv_service_machine *m)
{
    *(struct hv_service_machine *)arg = *m;
}

static void machines_can_be_seen_and_ended(void **state)
{
    struct world *w = *state;
    struct request r = {0};
    struct hv_service_machine m = {0};
    struct un_error err = UN_ERROR_INIT;
    w->config.max_instances = 1;
    begin(w, &r, "HOLD END");
    run_for(w, 200);
    services(w)->each(w->drv, look, &m);
    assert_string_equal(m.state, "ready");
    assert_int_equal(m.in_flight, 1);
    assert_int_equal(m.pid, 4711);
    assert_int_equal(m.version, 1);
    assert_int_equal(services(w)->end(w->drv, "none", &err), -ENOENT);
    assert_int_equal(services(w)->end(w->drv, m.id, &err), 0);
    wait_exit(&r);
    assert_string_equal(r.why.detail, "the machine was ended by request");
    finish(&r);
    static const char states[] = "making paused starting ready ending ";
    assert_memory_equal(w->states, states, strlen(states)); /* then one to spare */
    assert_int_equal(stats_of(w).failed, 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, open_world, close_world)
    const struct CMUnitTest tests[] = {
        T(a_request_wakes_a_machine),
        T(an_open_connection_serves_the_next_request),
        T(a_connection_that_is_to_be_closed_is),
        T(answers_are_passed_on_however_they_come),
        T(a_connection_that_was_closed_meanwhile_is_no_failure),
        T(files_are_held_as_long_as_a_machine_may_open_them),
        T(the_herd_gets_one_machine),
        T(behind_a_forwarded_port_the_guest_is_waited_for),
        T(where_nobody_can_tell_it_is_tried),
        T(more_than_fit_get_another),
        T(per_request_machines_end_with_it),
        T(idle_machines_go),
        T(what_is_asleep_wakes_by_its_paused_machine),
        T(a_body_follows_in_pieces),
        T(output_waits_for_its_reader),
        T(a_crash_loop_is_told_and_backs_off),
        T(a_machine_that_does_not_listen_yet_is_asked_again),
        T(one_crash_is_made_good),
        T(a_deaf_machine_is_given_up),
        T(what_cannot_be_made_is_told),
        T(requests_are_lost_with_their_machine),
        T(a_dropped_request_is_lost_not_repeated),
        T(a_client_may_go_at_any_time),
        T(both_directions_of_a_connection_end_by_themselves),
        T(a_connection_is_given_back_until_it_is_taken),
        T(what_a_machine_has_taken_is_lost_with_it),
        T(output_of_a_connection_waits_for_its_reader),
        T(machines_are_kept_without_requests),
        T(the_old_version_serves_what_it_has_and_goes),
        T(two_machines_never_have_one_volume),
        T(a_kept_machine_does_not_take_another_functions_volume),
        T(a_version_that_never_is_ready_is_judged_once),
        T(a_version_that_was_ready_is_not_judged),
        T(shutting_down_when_idle_is_no_failure),
        T(a_crash_is_told_as_one),
        T(a_console_line_says_ready),
        T(the_console_of_one_request_is_its_log),
        T(machines_can_be_seen_and_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
