/* shells.c - see shells.h. */
#include "service/shells.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "service/service_impl.h"

enum { RETRY_US = 2000000 }; /* when there is no memory for one */

struct shell {
    struct un_list node;
    struct hv_driver *drv;
    struct shell_kind kind;
    enum machine_state state; /* MACHINE_MAKING, MACHINE_PAUSED, MACHINE_ENDING */
    char id[UN_ID_SIZE];
    uint64_t begun_us, state_us;
    struct hv_machine *m; /* NULL: the network comes first */
    struct net_link *link;
    bool linking;
    uint16_t host_port;
};

static void decide(void *arg);

/* --- what is wanted ----------------------------------------------------------------------------- */

static bool same(const struct shell_kind *a, const struct shell_kind *b)
{
    return a->mem_bytes == b->mem_bytes && a->port == b->port;
}

void shell_wishes_add(struct shell_wishes *w, const struct shell_kind *kind, uint64_t until_us)
{
    size_t at = 0;
    for (size_t i = 0; i < SHELLS_MOST; i++) {
        if (w->items[i].until_us && same(&w->items[i].kind, kind)) {
            at = i;
            break;
        }
        at = w->items[i].until_us < w->items[at].until_us ? i : at;
    }
    w->items[at].kind = *kind;
    w->items[at].until_us = until_us;
}

bool shell_wishes_has(const struct shell_wishes *w, const struct shell_kind *kind, uint64_t now_us)
{
    for (size_t i = 0; i < SHELLS_MOST; i++) {
        if (w->items[i].until_us > now_us && same(&w->items[i].kind, kind)) {
            return true;
        }
    }
    return false;
}

uint64_t shell_wishes_end(const struct shell_wishes *w, uint64_t now_us)
{
    uint64_t end = 0;
    for (size_t i = 0; i < SHELLS_MOST; i++) {
        uint64_t until = w->items[i].until_us;
        if (until > now_us && (!end || until < end)) {
            end = until;
        }
    }
    return end;
}

/* --- the life of one ---------------------------------------------------------------------------- */

static void describe(const struct shell *sh, struct hv_service_machine *ret)
{
    uint64_t now = un_loop_now_us(sh->drv->loop);
    *ret = (struct hv_service_machine){
        .name = "",
        .state = machine_state_name(sh->state),
        .mem_bytes = sh->kind.mem_bytes,
        .age_us = now - sh->begun_us,
        .state_us = now - sh->state_us,
        .pid = sh->m ? hv_machine_ops(sh->m)->pid(sh->m) : 0,
    };
    memcpy(ret->id, sh->id, sizeof(ret->id));
}

static void tell(const struct shell *sh, bool gone)
{
    const struct hv_driver *drv = sh->drv;
    struct hv_service_machine m;
    if (drv->events && drv->events->on_machine) {
        describe(sh, &m);
        drv->events->on_machine(drv->events_arg, &m, gone);
    }
}

static void set_state(struct shell *sh, enum machine_state state)
{
    sh->state = state;
    sh->state_us = un_loop_now_us(sh->drv->loop);
    tell(sh, false);
}

/* Soon: not from inside of what has changed it. */
static void changed(struct hv_driver *drv)
{
    /* Out of memory: the next wake decides. */
    (void)un_timer_arm_in(&drv->shells.timer, 0);
}

static void shell_free(struct shell *sh)
{
    un_list_remove(&sh->node);
    free(sh);
}

static void shell_gone(struct shell *sh)
{
    struct hv_driver *drv = sh->drv;
    tell(sh, true);
    shell_free(sh);
    service_machine_gone(drv);
    changed(drv);
}

static void end(struct shell *sh)
{
    if (sh->state == MACHINE_ENDING) {
        return;
    }
    set_state(sh, MACHINE_ENDING);
    if (sh->m) {
        hv_machine_ops(sh->m)->free(sh->m); /* on_gone follows */
    } else if (!sh->linking) {
        shell_gone(sh);
    }
}

void shells_failed(struct hv_driver *drv, const char *why)
{
    struct shells *s = &drv->shells;
    s->failed++;
    s->failures++;
    s->retry_us = un_loop_now_us(drv->loop) + service_backoff_us(s->failures);
    un_log(UN_LOG_INFO, "a machine's shell failed", "reason", why);
    changed(drv);
}

static void fail(struct shell *sh, const char *why)
{
    shells_failed(sh->drv, why);
    end(sh);
}

static void on_made(void *arg, int rc, const struct un_error *err)
{
    struct shell *sh = arg;
    sh->drv->shells.off |= rc == -ENOTSUP;
    if (rc < 0) {
        char why[160]; /* `err` goes with the machine */
        snprintf(why, sizeof(why), "%.159s", err->text);
        fail(sh, why);
        return;
    }
    sh->drv->shells.failures = 0;
    sh->drv->shells.made++;
    set_state(sh, MACHINE_PAUSED);
}

static void on_log(void *arg, const void *data, size_t len)
{
}

static void on_exit_(void *arg, const struct hv_exit *why)
{
    fail(arg, why->detail);
}

static void on_gone(void *arg)
{
    struct shell *sh = arg;
    sh->m = NULL;
    if (sh->link) {
        net_detach(sh->link); /* QEMU has closed the tap */
    }
    shell_gone(sh);
}

static const struct hv_machine_events events = {
    .on_made = on_made, .on_log = on_log, .on_exit = on_exit_, .on_gone = on_gone};

/* --- making ------------------------------------------------------------------------------------- */

static int make(struct shell *sh, struct un_error *err)
{
    struct hv_driver *drv = sh->drv;
    struct hv_machine_spec spec = {.name = "shell",
                                   .boot = HV_BOOT_SHELL,
                                   .type = HV_MACHINE_MICROVM,
                                   .cmdline = "",
                                   .mem_bytes = sh->kind.mem_bytes,
                                   .events = &events,
                                   .arg = sh};
    int rc = machine_reach(&spec, sh->link, sh->kind.port, err);
    if (rc < 0) {
        return rc;
    }
    sh->host_port = spec.host_port;
    rc = hv_driver_ops(drv->machines)->machine->new (drv->machines, &spec, &sh->m, err);
    drv->shells.off |= rc == -ENOTSUP; /* another would be no better */
    return rc;
}

/* Its link, if it has one, goes before it has anything else. */
static void give_up(struct shell *sh, const char *why)
{
    if (sh->link) {
        net_detach(sh->link);
        sh->link = NULL;
    }
    fail(sh, why);
}

static void on_attach(void *arg, int rc, struct net_link *link, const struct un_error *err)
{
    struct shell *sh = arg;
    struct un_error mine = UN_ERROR_INIT;
    sh->linking = false;
    sh->link = link;
    if (sh->state == MACHINE_ENDING) {
        if (link) {
            net_detach(link);
        }
        shell_gone(sh);
    } else if (rc < 0) {
        give_up(sh, err->text);
    } else if (make(sh, &mine) < 0) {
        give_up(sh, mine.text);
    }
}

static void begin(struct hv_driver *drv, const struct shell_kind *kind)
{
    struct un_error err = UN_ERROR_INIT;
    struct shell *sh = calloc(1, sizeof(*sh));
    if (!sh) {
        shells_failed(drv, "out of memory");
        return;
    }
    sh->drv = drv;
    sh->kind = *kind;
    un_id_new(sh->id);
    sh->begun_us = un_loop_now_us(drv->loop);
    un_list_push(&drv->shells.list, &sh->node);
    drv->machine_count++;
    set_state(sh, MACHINE_MAKING);
    if (!drv->net) {
        if (make(sh, &err) < 0) {
            give_up(sh, err.text);
        }
        return;
    }
    sh->linking = true;
    if (net_attach(drv->net, NULL, on_attach, sh, &err) < 0) { /* it may connect to nothing */
        sh->linking = false;
        give_up(sh, err.text);
    }
}

static struct shell *find(const struct hv_driver *drv, const struct shell_kind *kind)
{
    un_list_for_each (it, &drv->shells.list) {
        struct shell *sh = un_list_entry(it, struct shell, node);
        if (sh->state != MACHINE_ENDING && same(&sh->kind, kind)) {
            return sh;
        }
    }
    return NULL;
}

/* Begins what is wanted and not there; says when to try again, 0: there is no need. */
static uint64_t begin_wanted(struct hv_driver *drv, uint64_t now)
{
    struct shells *s = &drv->shells;
    for (size_t i = 0; i < SHELLS_MOST; i++) {
        const struct shell_kind *kind = &s->wishes.items[i].kind;
        if (s->off || s->wishes.items[i].until_us <= now || find(drv, kind)) {
            continue;
        }
        uint64_t from = s->calm_us > s->retry_us ? s->calm_us : s->retry_us;
        if (now < from) {
            return from;
        }
        if (drv->is_free && !drv->is_free(drv->arg, kind->mem_bytes)) {
            return now + RETRY_US;
        }
        begin(drv, kind);
    }
    return 0;
}

static void decide(void *arg)
{
    struct hv_driver *drv = arg;
    struct shells *s = &drv->shells;
    uint64_t now = un_loop_now_us(drv->loop);
    un_list_for_each_safe (it, &s->list) {
        struct shell *sh = un_list_entry(it, struct shell, node);
        if (drv->drained || !shell_wishes_has(&s->wishes, &sh->kind, now)) {
            end(sh);
        }
    }
    if (drv->drained) {
        return;
    }
    uint64_t again = begin_wanted(drv, now), until = shell_wishes_end(&s->wishes, now);
    again = !again || (until && until < again) ? until : again;
    if (again) {
        (void)un_timer_arm_at(&s->timer, again);
    }
}

/* --- for the driver ----------------------------------------------------------------------------- */

void shells_init(struct hv_driver *drv, uint32_t keep_ms)
{
    struct shells *s = &drv->shells;
    un_list_init(&s->list);
    un_timer_init(&s->timer, drv->loop, decide, drv);
    s->keep_us = (uint64_t)keep_ms * 1000;
    s->off = keep_ms == 0;
}

void shells_drain(struct hv_driver *drv)
{
    un_list_for_each_safe (it, &drv->shells.list) {
        end(un_list_entry(it, struct shell, node));
    }
}

void shells_done(struct hv_driver *drv)
{
    un_timer_cancel(&drv->shells.timer);
}

static struct shell_kind kind_of(const struct service *sv)
{
    return (struct shell_kind){.mem_bytes = sv->spec.mem_bytes,
                               .port = sv->drv->net ? 0 : sv->port};
}

static struct shell *find_ready(const struct service *sv)
{
    struct shell_kind kind = kind_of(sv);
    struct shell *sh = sv->injectable && !sv->drv->shells.off ? find(sv->drv, &kind) : NULL;
    return sh && sh->state == MACHINE_PAUSED ? sh : NULL;
}

bool shells_fit(const struct service *sv)
{
    return sv->waiting_count > 0 && find_ready(sv);
}

struct shell *shells_find(struct service *sv)
{
    struct hv_driver *drv = sv->drv;
    struct shells *s = &drv->shells;
    struct shell_kind kind = kind_of(sv);
    uint64_t now = un_loop_now_us(drv->loop);
    if (s->off || !sv->injectable || sv->waiting_count == 0) {
        return NULL;
    }
    struct shell *sh = find_ready(sv);
    shell_wishes_add(&s->wishes, &kind, now + s->keep_us);
    s->calm_us = now + SHELLS_CALM_US;
    s->missed += sh == NULL;
    changed(drv);
    return sh;
}

struct net_link *shell_link(const struct shell *sh)
{
    return sh->link;
}

uint16_t shell_host_port(const struct shell *sh)
{
    return sh->host_port;
}

struct hv_machine *shells_take(struct shell *sh)
{
    struct hv_machine *m = sh->m;
    sh->drv->shells.used++;
    sh->drv->machine_count--; /* the machine's own counts from now on */
    tell(sh, true);
    shell_free(sh);
    return m;
}

bool shells_yield(struct hv_driver *drv)
{
    un_list_for_each (it, &drv->shells.list) {
        struct shell *sh = un_list_entry(it, struct shell, node);
        if (sh->state != MACHINE_ENDING) {
            drv->shells.retry_us = un_loop_now_us(drv->loop) + RETRY_US;
            end(sh);
            return true;
        }
    }
    return false;
}

void shells_each(struct hv_driver *drv, void (*fn)(void *arg, const struct hv_service_machine *m),
                 void *arg)
{
    un_list_for_each (it, &drv->shells.list) {
        struct hv_service_machine m;
        describe(un_list_entry(it, struct shell, node), &m);
        fn(arg, &m);
    }
}

bool shells_end(struct hv_driver *drv, const char *id)
{
    un_list_for_each (it, &drv->shells.list) {
        struct shell *sh = un_list_entry(it, struct shell, node);
        if (strcmp(sh->id, id) == 0) {
            end(sh);
            return true;
        }
    }
    return false;
}

void shells_stats(const struct hv_driver *drv, struct hv_service_stats *ret)
{
    const struct shells *s = &drv->shells;
    *ret = (struct hv_service_stats){.shells_made = s->made,
                                     .shells_used = s->used,
                                     .shells_missed = s->missed,
                                     .shells_failed = s->failed};
    un_list_for_each (it, &s->list) {
        ret->shells += un_list_entry(it, struct shell, node)->state == MACHINE_PAUSED;
    }
}

uint64_t shells_memory(const struct hv_driver *drv)
{
    uint64_t bytes = 0;
    un_list_for_each (it, &drv->shells.list) {
        const struct shell *sh = un_list_entry(it, struct shell, node);
        bytes += sh->state == MACHINE_ENDING ? 0 : sh->kind.mem_bytes;
    }
    return bytes;
}
