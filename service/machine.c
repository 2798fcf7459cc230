/* machine.c - one machine of a service: its network, its life, whether its port answers.
 *
 * With a tap the gateway's kernel answers for the guest's readiness: an attempt to connect succeeds
 * when the port is open. With QEMU's user network every connection is taken at once, by QEMU, which
 * holds it until the guest's TCP answers; so QEMU is asked whether it has, and no attempt is made before
 * the guest's card is up, as its first packet would be lost. Where QEMU cannot tell, time after time, such
 * a machine gets one request at a time until it has answered one. A guest may say on its console instead
 * that it is ready: then its port is not asked.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "hypervisor/flavor.h"
#include "service/service_impl.h"

enum {
    PROBE_FIRST_US = 4000,
    PROBE_MOST_US = 50000,
    ASK_MOST_US = 25000,
    PROBE_STALE_US = 20000, /* on the user network: its first packet may be lost, or refused */
    LINE_MAX_BYTES = 1024,
    BOOT_LOG_BYTES = 16 * 1024,
    STEADY_US = 5000000, /* ready for so long it is no crash loop */
    UNHEARD_MOST = 5,    /* one command of the monitor may fail */
    MISSES_MOST = 5
};

static void on_timer(void *arg);

/* --- states ------------------------------------------------------------------------------------- */

const char *machine_state_name(enum machine_state state)
{
    static const char *const names[] = {"making", "paused", "starting", "ready", "ending"};
    return names[state];
}

static void set_state(struct machine *mc, enum machine_state state)
{
    mc->state = state;
    mc->state_us = un_loop_now_us(mc->sv->drv->loop);
    service_tell_machine(mc, false);
}

/* --- the end ------------------------------------------------------------------------------------ */

static void tell_console(struct machine *mc, const void *data, size_t len)
{
    const struct hv_driver *drv = mc->sv->drv;
    if (drv->events && drv->events->on_console && len > 0) {
        drv->events->on_console(drv->events_arg, mc->sv->name, data, len);
    }
}

static void tell_line(struct machine *mc);

static void machine_free(struct machine *mc)
{
    struct service *sv = mc->sv;
    struct hv_driver *drv = sv->drv;
    tell_line(mc);
    tell_console(mc, mc->boot.data, mc->boot.len); /* it came to no request */
    service_tell_machine(mc, true);
    un_list_remove(&mc->node);
    un_timer_cancel(&mc->timer);
    un_buf_done(&mc->line);
    un_buf_done(&mc->boot);
    free(mc);
    service_volumes_changed(sv);
    service_changed(sv);
    service_machine_gone(drv);
}

static void close_probe(struct machine *mc)
{
    if (mc->probe) {
        bufferevent_free(mc->probe);
        mc->probe = NULL;
        mc->probe_open = false;
    }
}

void machine_end(struct machine *mc, enum hv_exit_kind kind, const char *why)
{
    if (mc->state == MACHINE_ENDING) {
        return;
    }
    set_state(mc, MACHINE_ENDING);
    un_timer_cancel(&mc->timer);
    close_probe(mc);
    if (mc->opened) {
        mc->sv->drv->on_end(mc->sv->drv->arg, mc);
    }
    keep_drop_all(mc);
    while (!un_list_empty(&mc->connections)) {
        connection_lost(un_list_first(&mc->connections, struct hv_vm, node), kind, why);
    }
    if (mc->m) {
        hv_machine_ops(mc->m)->free(mc->m); /* on_gone follows */
    } else if (!mc->linking) {
        machine_free(mc);
    }
}

static void on_gone(void *arg)
{
    struct machine *mc = arg;
    mc->m = NULL;
    if (mc->linking) {
        return; /* on_change follows */
    }
    if (mc->link) {
        net_detach(mc->link); /* QEMU has closed the tap */
    }
    machine_free(mc);
}

static bool steady(const struct machine *mc)
{
    return mc->state == MACHINE_READY &&
           (mc->served || un_loop_now_us(mc->sv->drv->loop) - mc->state_us >= STEADY_US);
}

/* It has ended, or is of no use. */
static void fail(struct machine *mc, enum hv_exit_kind kind, const char *why)
{
    struct service *sv = mc->sv;
    bool counts = mc->state != MACHINE_READY || !mc->spent;
    bool clean = kind == HV_EXIT_DONE && steady(mc) && mc->in_flight == 0;
    sv->failures = steady(mc) ? 0 : sv->failures;
    machine_end(mc, kind, why);
    if (clean) {
        un_log(UN_LOG_INFO, "machine shut itself down", "service", sv->name);
    } else if (counts) {
        service_failed(sv, why);
    }
}

/* It cannot be made, and its image has no part in that. */
static void hinder(struct machine *mc, const char *why)
{
    struct service *sv = mc->sv;
    machine_end(mc, HV_EXIT_LOST, why);
    service_hindered(sv, why);
}

/* --- readiness ---------------------------------------------------------------------------------- */

/* `proven`: its guest itself has said so, or taken a connection. */
static void ready(struct machine *mc, bool proven)
{
    mc->proven = proven;
    mc->idle_us = un_loop_now_us(mc->sv->drv->loop);
    un_timer_cancel(&mc->timer);
    if (mc->sv->waiting_count == 0) {
        close_probe(mc); /* its guest may close it just when a request comes at last */
    }
    set_state(mc, MACHINE_READY);
    if (proven) {
        service_proved(mc->sv);
    }
    service_changed(mc->sv);
}

/* Whether QEMU takes connections for the guest, and tells how it is with them. */
static bool must_ask(const struct machine *mc)
{
    return !mc->link && hv_machine_ops(mc->m)->ask && mc->unheard < UNHEARD_MOST;
}

static void on_probe(struct bufferevent *bev, short what, void *arg)
{
    struct machine *mc = arg;
    if (what & BEV_EVENT_CONNECTED) {
        mc->probe_open = true;
        if (mc->state == MACHINE_STARTING && (!must_ask(mc) || mc->heard == HV_HEARD_LISTENS)) {
            ready(mc, mc->link || mc->heard == HV_HEARD_LISTENS);
        }
    } else {
        close_probe(mc); /* the timer tries again */
    }
}

struct bufferevent *machine_socket(const struct machine *mc)
{
    struct hv_driver *drv = mc->sv->drv;
    un_autoclose int fd = net_guest_socket(drv->net);
    struct bufferevent *bev =
        fd < 0 ? NULL : bufferevent_socket_new(un_loop_base(drv->loop), fd, BEV_OPT_CLOSE_ON_FREE);
    fd = bev ? -1 : fd;
    return bev;
}

/* Each attempt has a socket of its own: a SYN that was lost is repeated by the kernel after a second
 * only. */
static void try_connect(struct machine *mc)
{
    close_probe(mc);
    mc->probe = machine_socket(mc);
    if (!mc->probe) {
        return;
    }
    mc->probe_us = un_loop_now_us(mc->sv->drv->loop);
    bufferevent_setcb(mc->probe, NULL, NULL, on_probe, mc);
    if (bufferevent_socket_connect(mc->probe, (struct sockaddr *)&mc->addr, sizeof(mc->addr)) < 0) {
        close_probe(mc);
    }
}

/* What it has not done within `us`, and the last that it said. */
static void say_late(struct machine *mc, uint64_t us, char *ret, size_t size)
{
    const struct service *sv = mc->sv;
    unsigned long long ms = us / 1000;
    char what[160];
    tell_line(mc);
    if (sv->ready_console && !mc->proven) {
        snprintf(what, sizeof(what), "its console did not say \"%.80s\" within %llu ms",
                 sv->ready_console, ms);
    } else {
        snprintf(what, sizeof(what), "port %u did not answer within %llu ms", sv->port, ms);
    }
    snprintf(ret, size, "%s%s%.60s", what, mc->words[0] ? "; its last words: " : "", mc->words);
}

static void fail_late(struct machine *mc)
{
    char why[256];
    say_late(mc, mc->sv->ready_timeout_us, why, sizeof(why));
    fail(mc, HV_EXIT_LOST, why);
}

void machine_wants(struct machine *mc, char *ret, size_t size)
{
    if (mc->state == MACHINE_STARTING) {
        say_late(mc, un_loop_now_us(mc->sv->drv->loop) - mc->started_us, ret, size);
    } else {
        snprintf(ret, size, "its machine was still being made");
    }
}

/* The answer of a guest on the user network. An attempt whose packet was lost is given up for another; the
 * connection that the guest has answered may be an earlier one than `probe`, which is answered then too. */
static void on_heard(void *arg, enum hv_machine_heard heard)
{
    struct machine *mc = arg;
    bool stale = un_loop_now_us(mc->sv->drv->loop) - mc->probe_us >= PROBE_STALE_US;
    mc->asking = false;
    mc->heard = heard;
    mc->unheard = heard == HV_HEARD_UNKNOWN ? mc->unheard + 1 : 0;
    if (mc->state != MACHINE_STARTING || (heard == HV_HEARD_UNKNOWN && must_ask(mc))) {
        return; /* the timer asks again */
    }
    if (heard == HV_HEARD_LISTENS && mc->probe_open) {
        ready(mc, true);
    } else if (heard != HV_HEARD_NOTHING && (!mc->probe || stale)) {
        try_connect(mc);
    }
}

static void attempt(struct machine *mc)
{
    if (!must_ask(mc)) {
        try_connect(mc);
    } else if (!mc->asking) {
        mc->asking = true;
        hv_machine_ops(mc->m)->ask(mc->m);
    }
}

static uint64_t pause_us(const struct machine *mc, uint64_t age)
{
    bool asks = must_ask(mc);
    uint64_t us = asks ? age / 16 : age / 4, most = asks ? ASK_MOST_US : PROBE_MOST_US;
    return us < PROBE_FIRST_US ? PROBE_FIRST_US : us > most ? most : us;
}

static void on_timer(void *arg)
{
    struct machine *mc = arg;
    struct un_loop *loop = mc->sv->drv->loop;
    uint64_t age = un_loop_now_us(loop) - mc->started_us;
    if (age >= mc->sv->ready_timeout_us) {
        fail_late(mc);
        return;
    }
    if (mc->sv->ready_console && !mc->proven) {
        if (un_timer_arm_in(&mc->timer, mc->sv->ready_timeout_us - age) < 0) {
            fail(mc, HV_EXIT_LOST, "out of memory");
        }
        return;
    }
    attempt(mc);
    if (un_timer_arm_in(&mc->timer, pause_us(mc, age)) < 0) {
        fail(mc, HV_EXIT_LOST, "out of memory");
    }
}

void machine_start(struct machine *mc)
{
    set_state(mc, MACHINE_STARTING);
    mc->started_us = un_loop_now_us(mc->sv->drv->loop);
    mc->sv->drv->started++;
    mc->heard = HV_HEARD_NOTHING;
    mc->unheard = 0;
    hv_machine_ops(mc->m)->start(mc->m);
    on_timer(mc);
}

void machine_doubt(struct machine *mc)
{
    if (mc->state == MACHINE_READY) {
        if (mc->proven) {
            un_log(UN_LOG_INFO, "machine does not answer; its port is asked until it does",
                   "service", mc->sv->name);
            mc->started_us = un_loop_now_us(mc->sv->drv->loop);
            keep_drop_all(mc);
        }
        set_state(mc, MACHINE_STARTING);
        if (un_timer_arm_in(&mc->timer, PROBE_FIRST_US) < 0) {
            fail(mc, HV_EXIT_LOST, "out of memory");
        }
    }
}

void machine_release(struct machine *mc)
{
    mc->in_flight--;
    mc->idle_us = mc->sv->used_us = un_loop_now_us(mc->sv->drv->loop);
    if (mc->sv->limits.per_request) {
        mc->spent = true;
        machine_end(mc, HV_EXIT_DONE, "");
    }
    service_changed(mc->sv);
}

/* --- its own connections ------------------------------------------------------------------------ */

/* Which of its requests has a connection opened it alone knows: so it is taken for that of the one whose
 * chain of calls is the longest. */
static unsigned greatest_depth(const struct machine *mc)
{
    unsigned depth = 0;
    un_list_for_each (it, &mc->connections) {
        const struct hv_vm *vm = un_list_entry(it, struct hv_vm, node);
        depth = vm->depth > depth ? vm->depth : depth;
    }
    return depth;
}

void service_on_open(void *arg, const struct un_endpoint *to, int fd)
{
    struct machine *mc = arg;
    struct hv_driver *drv = mc->sv->drv;
    if (!drv->on_open || mc->state == MACHINE_ENDING) {
        close(fd);
        return;
    }
    const struct service_opening opening = {.machine = mc,
                                            .function = mc->sv->name,
                                            .egress = mc->sv->egress,
                                            .to = to,
                                            .depth = greatest_depth(mc),
                                            .fd = fd,
                                            .count = &mc->egress};
    mc->opened = true;
    drv->on_open(drv->arg, &opening);
}

/* --- making ------------------------------------------------------------------------------------- */

static void paused(struct machine *mc)
{
    mc->sv->hindrances = 0;
    set_state(mc, MACHINE_PAUSED);
    service_changed(mc->sv);
}

/* What was a shell has not become this machine: another is made in the ordinary way. `rc` says whether that
 * is because of its image. */
static void fail_injected(struct machine *mc, int rc, const char *why)
{
    struct service *sv = mc->sv;
    sv->injectable = rc == -EPIPE; /* QEMU went away: a chance */
    shells_failed(sv->drv, why);
    machine_end(mc, HV_EXIT_LOST, why);
    service_changed(sv);
}

/* Its port was free a moment ago: another is made, at another. False: that has been tried often enough. */
static bool miss(struct machine *mc, int rc)
{
    struct service *sv = mc->sv;
    if (rc != -EADDRINUSE || sv->misses == MISSES_MOST) {
        sv->misses = 0;
        return false;
    }
    sv->misses++;
    un_log(UN_LOG_INFO, "a machine's port was taken by somebody else: another is made", "service",
           sv->name);
    machine_end(mc, HV_EXIT_LOST, "its port was taken");
    service_changed(sv);
    return true;
}

static void on_made(void *arg, int rc, const struct un_error *err)
{
    struct machine *mc = arg;
    if (miss(mc, rc)) {
        return;
    }
    if (rc < 0) {
        char why[160]; /* `err` goes with the machine */
        snprintf(why, sizeof(why), "%.159s", err->text);
        if (mc->injected) {
            fail_injected(mc, rc, why);
        } else {
            fail(mc, HV_EXIT_LOST, why);
        }
    } else if (mc->linking) {
        mc->made = true; /* on_change follows */
    } else {
        paused(mc);
    }
}

/* Whether what has come of the line says that the guest is ready. */
static void look_for_ready(struct machine *mc)
{
    const char *text = mc->sv->ready_console;
    if (text && mc->state == MACHINE_STARTING && mc->line.len >= strlen(text) &&
        memmem(mc->line.data, mc->line.len, text, strlen(text))) {
        ready(mc, true);
    }
}

static void tell_line(struct machine *mc)
{
    struct hv_driver *drv = mc->sv->drv;
    look_for_ready(mc);
    if (mc->line.len > 0) {
        snprintf(mc->words, sizeof(mc->words), "%.*s",
                 (int)(mc->line.len < sizeof(mc->words) ? mc->line.len : sizeof(mc->words) - 1),
                 (const char *)mc->line.data);
        if (drv->on_console) {
            drv->on_console(drv->arg, mc->sv->name, (const char *)mc->line.data, mc->line.len);
        }
        if (!mc->sv->limits.per_request && un_buf_append(&mc->line, "\n", 1) == 0) {
            tell_console(mc, mc->line.data, mc->line.len); /* whole lines: others write as well */
        }
    }
    un_buf_reset(&mc->line);
}

/* Of a machine for one request: to that one, once it is there. */
static void log_bytes(struct machine *mc, const void *data, size_t len)
{
    if (!mc->sv->limits.per_request) {
        return;
    }
    if (!un_list_empty(&mc->connections)) {
        connection_log(un_list_first(&mc->connections, struct hv_vm, node), data, len);
    } else if (mc->boot.len + len <= BOOT_LOG_BYTES) {
        (void)un_buf_append(&mc->boot, data, len);
    }
}

void machine_give_boot_log(struct machine *mc, struct hv_vm *vm)
{
    if (mc->boot.len > 0) {
        connection_log(vm, mc->boot.data, mc->boot.len);
        un_buf_done(&mc->boot);
    }
}

static void on_log(void *arg, const void *data, size_t len)
{
    struct machine *mc = arg;
    const char *text = data;
    log_bytes(mc, data, len);
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '\n' || mc->line.len == LINE_MAX_BYTES) {
            tell_line(mc);
        }
        if (text[i] != '\n' && text[i] != '\r') {
            (void)un_buf_append(&mc->line, &text[i], 1); /* a log may have gaps */
        }
    }
    look_for_ready(mc);
}

void machine_read_log(struct machine *mc)
{
    if (mc->m && hv_machine_ops(mc->m)->read_log) {
        hv_machine_ops(mc->m)->read_log(mc->m);
    }
}

static void on_exit_(void *arg, const struct hv_exit *why)
{
    struct machine *mc = arg;
    char text[320];
    if (mc->injected && mc->state == MACHINE_MAKING) {
        fail_injected(mc, -EPIPE, why->detail);
        return;
    }
    tell_line(mc);
    snprintf(text, sizeof(text), "%s%s%.60s", why->detail, mc->words[0] ? "; its last words: " : "",
             mc->words);
    fail(mc, why->kind, text);
}

static const struct hv_machine_events events = {.on_made = on_made,
                                                .on_log = on_log,
                                                .on_exit = on_exit_,
                                                .on_heard = on_heard,
                                                .on_gone = on_gone};

/* A port of loopback that was free a moment ago. */
static int free_port(uint16_t *ret)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    un_autoclose int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, len) < 0 ||
        getsockname(fd, (struct sockaddr *)&a, &len) < 0) {
        return -errno;
    }
    *ret = ntohs(a.sin_port);
    return 0;
}

int machine_reach(struct hv_machine_spec *spec, const struct net_link *link, uint16_t port,
                  struct un_error *err)
{
    if (link) {
        spec->net = HV_NET_TAP;
        spec->tap = link->tap;
        spec->mac = link->mac;
        return 0;
    }
    spec->net = HV_NET_USER;
    spec->guest_port = port;
    int rc = spec->host_port ? 0 : free_port(&spec->host_port);
    return rc < 0 ? un_error_errno(err, rc, "find a free port") : 0;
}

/* With `sh`, of a shell, whose network it has: that is taken on success. */
static int make(struct machine *mc, struct shell *sh, struct un_error *err)
{
    struct service *sv = mc->sv;
    char prefix[4] = "24", port[8], tsc_khz[24];
    struct hv_net_words words = {.ip = "10.0.2.15", /* QEMU's user network, as it always is */
                                 .prefix = prefix,
                                 .netmask = "255.255.255.0",
                                 .gateway = "10.0.2.2",
                                 .dns = "10.0.2.3",
                                 .port = port};
    struct hv_machine_spec spec = sv->spec;
    spec.name = sv->name;
    spec.guard = sv->flavor->guard && sv->spec.type != HV_MACHINE_MICROVM;
    spec.events = &events;
    spec.arg = mc;
    spec.host_port = sh ? shell_host_port(sh) : 0;
    int rc = machine_reach(&spec, mc->link, sv->port, err);
    if (rc < 0) {
        return rc;
    }
    mc->addr = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(sv->port)};
    snprintf(port, sizeof(port), "%u", sv->port);
    snprintf(tsc_khz, sizeof(tsc_khz), "%" PRIu64, un_clock_tsc_hz() / 1000);
    if (mc->link) {
        snprintf(prefix, sizeof(prefix), "%u", mc->link->prefix);
        words = (struct hv_net_words){.ip = mc->link->ip,
                                      .prefix = prefix,
                                      .netmask = mc->link->netmask,
                                      .gateway = mc->link->gateway,
                                      .dns = mc->link->dns,
                                      .mac = mc->link->mac,
                                      .port = port};
        inet_pton(AF_INET, mc->link->ip, &mc->addr.sin_addr);
    } else {
        mc->addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        mc->addr.sin_port = htons(spec.host_port);
    }
    words.tsc_khz = tsc_khz;
    un_autobuf struct un_buf cmdline = {0};
    rc = hv_cmdline_expand(sv->flavor, sv->append, &words, &cmdline, err);
    if (rc < 0) {
        return rc;
    }
    spec.cmdline = cmdline.len ? (const char *)cmdline.data : "";
    if (sh) {
        mc->injected = true;
        mc->m = shells_take(sh);
        hv_machine_ops(mc->m)->load(mc->m, &spec);
        return 0;
    }
    return hv_driver_ops(sv->drv->machines)->machine->new (sv->drv->machines, &spec, &mc->m, err);
}

static void on_attach(void *arg, int rc, struct net_link *link, const struct un_error *err)
{
    struct machine *mc = arg;
    struct un_error mine = UN_ERROR_INIT;
    mc->linking = false;
    mc->link = link;
    if (mc->state == MACHINE_ENDING) {
        if (link) {
            net_detach(link);
        }
        machine_free(mc);
        return;
    }
    if (rc < 0) {
        hinder(mc, err->text);
        return;
    }
    if (make(mc, NULL, &mine) < 0) {
        net_detach(link);
        mc->link = NULL;
        fail(mc, HV_EXIT_LOST, mine.text);
    }
}

/* The shell's link lets through what this machine may. */
static void on_change(void *arg, int rc, struct net_link *link, const struct un_error *err)
{
    struct machine *mc = arg;
    mc->linking = false;
    if (mc->state == MACHINE_ENDING && !mc->m) {
        on_gone(mc);
    } else if (mc->state == MACHINE_ENDING) {
        return; /* on_gone follows */
    } else if (rc < 0) {
        fail_injected(mc, rc, err->text);
    } else if (mc->made) {
        paused(mc);
    }
}

/* False: another way is to be taken. */
static bool make_of_shell(struct machine *mc, struct shell *sh, const struct net_wish *wish)
{
    struct un_error err = UN_ERROR_INIT;
    mc->link = shell_link(sh);
    if (make(mc, sh, &err) < 0) {
        mc->link = NULL; /* it is the shell's still */
        return false;
    }
    mc->linking = mc->link != NULL;
    if (mc->linking && net_change(mc->link, wish, on_change, mc, &err) < 0) {
        mc->linking = false;
        fail(mc, HV_EXIT_LOST, err.text);
    }
    return true;
}

int machine_begin(struct service *sv)
{
    struct machine *mc = calloc(1, sizeof(*mc));
    struct un_error err = UN_ERROR_INIT;
    if (!mc) {
        return -ENOMEM;
    }
    mc->sv = sv;
    un_id_new(mc->id);
    mc->begun_us = un_loop_now_us(sv->drv->loop);
    un_list_init(&mc->connections);
    un_list_init(&mc->kept);
    un_timer_init(&mc->timer, sv->drv->loop, on_timer, mc);
    un_list_push(&sv->machines, &mc->node);
    sv->drv->machine_count++;
    set_state(mc, MACHINE_MAKING);
    const struct net_wish wish = {.key = sv->key, .egress = sv->egress};
    struct shell *sh = shells_find(sv);
    if (sh && make_of_shell(mc, sh, &wish)) {
        return 0;
    }
    if (!sv->drv->net) {
        if (make(mc, NULL, &err) < 0) {
            fail(mc, HV_EXIT_LOST, err.text);
        }
        return 0;
    }
    mc->linking = true;
    int rc = net_attach(sv->drv->net, &wish, on_attach, mc, &err);
    if (rc < 0) {
        mc->linking = false;
        if (rc == -EINVAL) { /* its egress, which is the version's */
            fail(mc, HV_EXIT_LOST, err.text);
        } else {
            hinder(mc, err.text);
        }
    }
    return 0;
}
