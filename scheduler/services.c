/* services.c - which machines of which version are kept: between the registry, which knows versions, and
 * the driver of services, which knows machines.
 *
 *     registry ── another version is live ──> driver: live, keep
 *     driver ── machines of a new version fail in a row ──> registry: which was live before? ──> live again
 *     driver ── the first machine of a version is ready ──> registry: that is known from now on
 *
 * In memory are only the functions with min_instances > 0. They are found by an index at the start, and by
 * their changes afterwards.
 * Calls that wait for a machine of a version that is not live any more, and have not been sent, are
 * looked up again (call_move).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/fault.h"
#include "common/log.h"
#include "hypervisor/machine.h"
#include "scheduler/scheduler_impl.h"

struct services {
    struct scheduler *s;
    struct sched_driver *driver;
    const struct hv_service_ops *ops;
    struct un_list kept;     /* struct kept */
    struct un_list openings; /* struct opening */
};

/* A function whose live version has min_instances. The driver holds its images. */
struct kept {
    struct un_list node;
    struct function_version *version; /* a reference */
};

/* The images of a version of which machines are to be kept, on their way. */
struct opening {
    struct un_list node;
    struct services *sv;
    bool stale;                                  /* the function has changed meanwhile */
    struct function_version *version;            /* a reference */
    struct image_mapping *image, *initrd, *disk; /* of it, as they come */
};

/* --- keeping ---------------------------------------------------------------------------------- */

static struct kept *find_kept(struct services *sv, const char *name)
{
    un_list_for_each (it, &sv->kept) {
        struct kept *k = un_list_entry(it, struct kept, node);

        if (strcmp(k->version->name, name) == 0) {
            return k;
        }
    }
    return NULL;
}

static void kept_free(struct kept *k)
{
    if (k) {
        un_list_remove(&k->node);
        function_unref(k->version);
        free(k);
    }
}

static int keep(struct services *sv, const struct machine_parts *parts, struct function_version *v,
                struct un_error *err)
{
    struct kept *k = un_fault("services.kept") ? NULL : calloc(1, sizeof(*k));
    struct hv_machine_config config = {.files = NULL};
    struct machine_words words;
    int rc = k ? machine_config_of(parts, &words, &config, err)
               : un_error_set(err, -ENOMEM, "out of memory");

    config.live = true;
    rc = rc < 0 ? rc : sv->ops->keep(sv->driver->drv, &config, err);
    hv_machine_files_unref(config.files);
    if (rc < 0) {
        free(k);
        return rc;
    }
    kept_free(find_kept(sv, v->name));
    k->version = function_ref(v);
    un_list_init(&k->node);
    un_list_push(&sv->kept, &k->node);
    return 0;
}

/* --- images ----------------------------------------------------------------------------------- */

static void opening_free(struct opening *o)
{
    struct scheduler *s = o->sv->s;
    struct image_mapping *const images[] = {o->image, o->initrd, o->disk};

    for (size_t i = 0; i < UN_ARRAY_SIZE(images); i++) {
        if (images[i]) {
            image_unref(images[i]);
        }
    }
    un_list_remove(&o->node);
    function_unref(o->version);
    free(o);
    sched_done(s);
}

static void say_not_kept(const char *name, const char *why)
{
    un_log(UN_LOG_WARN, "no machines of a service can be kept until it is called", "function", name,
           "error", why);
}

/* Where the next image of the version goes, and which that is; NULL: all are there. */
static struct image_mapping **next_image(struct opening *o, const char **ret_digest)
{
    const struct function_config *c = &o->version->config;

    *ret_digest = !o->image                            ? c->image
                  : !o->initrd && c->machine.initrd[0] ? c->machine.initrd
                                                       : c->machine.disk;
    return !o->image                            ? &o->image
           : !o->initrd && c->machine.initrd[0] ? &o->initrd
           : !o->disk && c->machine.disk[0]     ? &o->disk
                                                : NULL;
}

static void on_image(void *arg, int rc, struct image_mapping *image, const struct un_error *err)
{
    struct opening *o = arg;
    struct un_error mine = UN_ERROR_INIT;
    const char *digest;

    if (rc == 0) {
        *next_image(o, &digest) = image;
    }
    if (o->stale || o->sv->s->closing) {
        rc = 0;
    } else if (rc == 0 && next_image(o, &digest)) {
        image_open(o->sv->s->images, digest, on_image, o);
        return;
    } else if (rc == 0) {
        const struct machine_parts parts = {.images = o->sv->s->images,
                                            .version = o->version,
                                            .image = o->image,
                                            .initrd = o->initrd,
                                            .disk = o->disk};
        rc = keep(o->sv, &parts, o->version, &mine);
        err = &mine;
    }
    if (rc < 0) {
        say_not_kept(o->version->name, err->text);
    }
    opening_free(o);
}

/* Calls of a version that is not live any more, which wait for a machine of it. */
static void move_calls(struct scheduler *s, const char *name, const struct function_version *live)
{
    un_list_for_each_safe (it, &s->calls) {
        struct sched_call *c = un_list_entry(it, struct sched_call, node);

        if (c->state == CALL_BOUND && c->version->config.machine.set &&
            (!live || c->version->id != live->id) && call_wants_live(c) &&
            strcmp(c->version->name, name) == 0) {
            (void)call_move(c);
        }
    }
}

static bool is_kept(const struct function_version *v)
{
    const struct machine_config *m = &v->config.machine;

    return m->set && m->service && m->min_instances > 0;
}

/* Opens the images of a version of which machines are to be kept. */
static void open_images(struct services *sv, struct function_version *v)
{
    struct opening *o = un_fault("services.opening") ? NULL : calloc(1, sizeof(*o));

    if (!o) {
        say_not_kept(v->name, "out of memory");
        return;
    }
    o->sv = sv;
    o->version = function_ref(v);
    un_list_init(&o->node);
    un_list_push(&sv->openings, &o->node);
    sched_begin(sv->s);
    image_open(sv->s->images, v->config.image, on_image, o);
}

/* `v` is live now; NULL: the function is gone. */
static void follow(struct services *sv, const char *name, struct function_version *v)
{
    struct kept *k = find_kept(sv, name);
    char key[MACHINE_KEY_SIZE];
    bool machine = v && v->config.machine.set;

    un_list_for_each (it, &sv->openings) {
        struct opening *older = un_list_entry(it, struct opening, node);

        older->stale = older->stale || strcmp(older->version->name, name) == 0;
    }
    if (machine) {
        machine_key_of(v, key);
    }
    sv->ops->live(sv->driver->drv, name, machine ? key : NULL);
    if (v) {
        move_calls(sv->s, name, v);
    }
    /* Who asks for a failing version by its number. If it is the live one, on_rolled_back is to come. */
    sv->ops->give_up(sv->driver->drv, name, machine ? key : NULL);
    if (!v || !is_kept(v)) {
        kept_free(k);
    } else if (!k || k->version->id != v->id) {
        open_images(sv, v);
    }
}

static void on_change(void *arg, const char *name, struct function_version *live)
{
    struct services *sv = arg;

    if (!sv->s->closing) {
        follow(sv, name, live);
    }
}

/* --- at the start ----------------------------------------------------------------------------- */

static void read_page(struct services *sv, const char *after);

static void on_page(void *arg, int rc, struct function_version *const *list, size_t count,
                    const struct un_error *err)
{
    struct services *sv = arg;
    struct scheduler *s = sv->s;

    if (rc < 0) {
        un_log(UN_LOG_WARN, "services whose machines are kept cannot be read", "error", err->text);
    }
    for (size_t i = 0; rc == 0 && i < count && !s->closing; i++) {
        follow(sv, list[i]->name, list[i]);
    }
    if (rc == 0 && count == LIMIT_PAGE_ITEMS && !s->closing) {
        read_page(sv, list[count - 1]->name);
    }
    sched_done(s);
}

static void read_page(struct services *sv, const char *after)
{
    sched_begin(sv->s);
    function_list_kept(sv->s->registry, after, LIMIT_PAGE_ITEMS, on_page, sv);
}

/* --- what the driver tells -------------------------------------------------------------------- */

static void describe(const struct services *sv, const struct hv_service_machine *m,
                     struct sched_instance_info *ret)
{
    *ret = (struct sched_instance_info){
        .state_name = m->state,
        .driver = sv->driver->ops->name,
        .mem_mib = m->mem_bytes >> 20,
        .pid = m->pid,
        .age_us = m->age_us,
        .state_us = m->state_us,
        .in_flight = m->in_flight,
        .version = m->version,
    };
    memcpy(ret->id, m->id, sizeof(ret->id));
    snprintf(ret->function, sizeof(ret->function), "%s", m->name);
}

static void on_machine(void *arg, const struct hv_service_machine *m, bool gone)
{
    struct services *sv = arg;
    struct sched_instance_info info;

    if (sv->s->observer) {
        describe(sv, m, &info);
        sched_tell(sv->s, &(struct sched_news){.kind = gone ? NEWS_INSTANCE_GONE : NEWS_INSTANCE,
                                               .instance = &info});
    }
}

static void on_console(void *arg, const char *name, const void *data, size_t len)
{
    struct services *sv = arg;

    console_add(sv->s, name, data, len);
}

struct note {
    struct services *sv;
    char name[64], why[160];
    uint32_t version;
};

static struct note *note_new(struct services *sv, const char *name, uint32_t version)
{
    struct note *n = sv->s->closing || un_fault("services.note") ? NULL : calloc(1, sizeof(*n));

    if (n) {
        n->sv = sv;
        n->version = version;
        snprintf(n->name, sizeof(n->name), "%s", name);
        sched_begin(sv->s);
    }
    return n;
}

static void note_free(struct note *n)
{
    struct scheduler *s = n->sv->s;

    free(n);
    sched_done(s);
}

static void on_noted(void *arg, int rc, const struct un_error *err)
{
    struct note *n = arg;

    if (rc < 0 && rc != -ENOENT) {
        un_log(UN_LOG_WARN, "that a version has been ready could not be written down", "function",
               n->name, "error", err->text);
    }
    note_free(n);
}

static void on_proven(void *arg, const char *name, uint32_t version)
{
    struct services *sv = arg;
    struct note *n = note_new(sv, name, version);

    if (n) {
        function_note_ready(sv->s->registry, name, version, on_noted, n);
    }
}

/* The change itself is heard of as any other; the calls that wait are moved then. */
static void on_rolled_back(void *arg, int rc, struct function_version *back,
                           const struct un_error *err)
{
    struct note *n = arg;
    struct services *sv = n->sv;
    char from[12], to[12];

    if (rc < 0) {
        un_log(UN_LOG_WARN, "a version that never became ready could not be rolled back",
               "function", n->name, "error", err->text);
    }
    if (back) {
        snprintf(from, sizeof(from), "%u", n->version);
        snprintf(to, sizeof(to), "%u", back->version);
        un_log(UN_LOG_WARN, "a version never became ready; the one before it is live again",
               "function", n->name, "version", from, "live", to, "reason", n->why);
        sched_tell(sv->s, &(struct sched_news){.kind = NEWS_ROLLED_BACK,
                                               .function = n->name,
                                               .version = back->version,
                                               .from = n->version,
                                               .why = n->why});
    } else {
        sv->ops->give_up(sv->driver->drv, n->name, NULL);
    }
    note_free(n);
}

static void on_failing(void *arg, const char *name, uint32_t version, const char *why)
{
    struct services *sv = arg;
    struct note *n = note_new(sv, name, version);

    if (n) {
        snprintf(n->why, sizeof(n->why), "%s", why);
        function_note_failed(sv->s->registry, name, version, n->why, on_rolled_back, n);
    } else {
        sv->ops->give_up(sv->driver->drv, name, NULL);
    }
}

static const struct hv_service_events events = {.on_machine = on_machine,
                                                .on_console = on_console,
                                                .on_proven = on_proven,
                                                .on_failing = on_failing};

/* --- opening and closing ---------------------------------------------------------------------- */

int services_init(struct scheduler *s, struct un_error *err)
{
    struct sched_driver *driver = NULL;
    struct services *sv;

    for (unsigned d = 0; d < s->driver_count; d++) {
        driver = s->drivers[d].ops->service ? &s->drivers[d] : driver;
    }
    if (!driver) {
        return 0;
    }
    sv = calloc(1, sizeof(*sv));
    if (!sv) {
        return un_error_set(err, -ENOMEM, "open the scheduler: out of memory");
    }
    sv->s = s;
    sv->driver = driver;
    sv->ops = driver->ops->service;
    un_list_init(&sv->kept);
    un_list_init(&sv->openings);
    s->services = sv;
    sv->ops->listen(driver->drv, &events, sv);
    registry_on_change(s->registry, on_change, sv);
    read_page(sv, NULL);
    return 0;
}

void services_done(struct scheduler *s)
{
    struct services *sv = s->services;

    if (!sv) {
        return;
    }
    registry_off_change(s->registry, on_change, sv);
    sv->ops->listen(sv->driver->drv, NULL, NULL);
    while (!un_list_empty(&sv->kept)) {
        kept_free(un_list_first(&sv->kept, struct kept, node));
    }
    free(sv);
    s->services = NULL;
}

/* --- for people ------------------------------------------------------------------------------- */

struct listing {
    const struct services *sv;
    void (*fn)(void *arg, const struct sched_instance_info *info);
    void *arg;
};

static void list_one(void *arg, const struct hv_service_machine *m)
{
    struct listing *l = arg;
    struct sched_instance_info info;

    describe(l->sv, m, &info);
    l->fn(l->arg, &info);
}

void services_each(struct scheduler *s,
                   void (*fn)(void *arg, const struct sched_instance_info *info), void *arg)
{
    struct listing l = {s->services, fn, arg};

    if (s->services) {
        s->services->ops->each(s->services->driver->drv, list_one, &l);
    }
}

int services_kill(struct scheduler *s, const char *id, struct un_error *err)
{
    struct services *sv = s->services;

    return sv ? sv->ops->end(sv->driver->drv, id, err)
              : un_error_set(err, -ENOENT, "no instance %s", id);
}

bool services_yield(struct scheduler *s)
{
    struct services *sv = s->services;

    return sv && sv->ops->yield && sv->ops->yield(sv->driver->drv);
}

void services_stats(const struct scheduler *s, struct hv_service_stats *ret)
{
    const struct services *sv = s->services;

    *ret = (struct hv_service_stats){0};
    if (sv && sv->ops->stats) {
        sv->ops->stats(sv->driver->drv, ret);
    }
}
