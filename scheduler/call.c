/* call.c - the flow of one invocation, from the request to its receipt. The diagram of its states
 * is in scheduler_impl.h; the streaming between client and guest is in call_stream.c.
 *
 * sched_call_start only posts: the lookup begins in the loop's next round, so that a small body
 * that has come with the request's head goes into the VM with it, and no callback can come from
 * inside start. An end is posted as well: whoever causes it (a timer, the driver, the client) never
 * has the call freed under its feet, and the VM, whose memory the client may still be reading,
 * lives until on_end.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/fault.h"
#include "hypervisor/machine.h"
#include "scheduler/record/counted.h"
#include "scheduler/scheduler_impl.h"

enum { REBINDS_MAX = 3 };

static void end(void *arg);
static void on_timer(void *arg);

/* --- names ------------------------------------------------------------------------------------ */

static const struct {
    const char *name;
    unsigned status;
} outcomes[] = {
    [SCHED_OK] = {"ok", 200},
    [SCHED_NO_FUNCTION] = {"no-function", 404},
    [SCHED_QUEUE_FULL] = {"queue-full", 429},
    [SCHED_WAIT_EXPIRED] = {"wait-expired", 429},
    [SCHED_REQUEST_TOO_LARGE] = {"request-too-large", 413},
    [SCHED_LENGTH_REQUIRED] = {"length-required", 411},
    [SCHED_RESPONSE_TOO_LARGE] = {"response-too-large", 502},
    [SCHED_FAILED] = {"failed", 502},
    [SCHED_TIMED_OUT] = {"timed-out", 504},
    [SCHED_CANNOT_RUN] = {"cannot-run", 503},
    [SCHED_DRAINING] = {"draining", 503},
    [SCHED_CANCELLED] = {"cancelled", 502},
    [SCHED_WRONG_INTERFACE] = {"wrong-interface", 421},
    [SCHED_INTERNAL] = {"internal", 500},
};

const char *sched_outcome_name(enum sched_outcome_kind k)
{
    return (unsigned)k <= SCHED_INTERNAL ? outcomes[k].name : "unknown";
}

bool sched_outcome_known(const char *name)
{
    static const char *const queued[] = {"interrupted", "fetch-failed", "put-failed",
                                         "delivery-failed", "answer-too-large"};
    bool known = false;

    for (size_t i = 0; i < UN_ARRAY_SIZE(outcomes); i++) {
        known = known || strcmp(outcomes[i].name, name) == 0;
    }
    for (size_t i = 0; i < UN_ARRAY_SIZE(queued); i++) {
        known = known || strcmp(queued[i], name) == 0;
    }
    return known;
}

unsigned sched_outcome_status(enum sched_outcome_kind k)
{
    return (unsigned)k <= SCHED_INTERNAL ? outcomes[k].status : 500;
}

const char *sched_trigger_name(enum sched_trigger t)
{
    static const char *const names[] = {"http",        "invoke", "async", "event",
                                        "destination", "replay", "tcp"};

    return (unsigned)t <= SCHED_TCP ? names[t] : "unknown";
}

/* --- start ------------------------------------------------------------------------------------ */

static int build_head(struct sched_call *c, const struct sched_call_spec *spec,
                      struct un_error *err)
{
    int rc = c->stream ? 0 : un_buf_printf(&c->head, "%s %s\r\n", spec->method, spec->target);

    for (size_t i = 0; rc == 0 && i < spec->field_count; i++) {
        rc = un_buf_printf(&c->head, "%s: %s\r\n", spec->fields[i].name, spec->fields[i].value);
    }
    if (rc < 0) {
        return un_error_set(err, -ENOMEM, "start a call: out of memory");
    }
    if (hv_body_room(c->head.len) == 0) {
        return un_error_set(err, -E2BIG,
                            "the request's head has %zu bytes, more than a guest can take",
                            c->head.len);
    }
    return 0;
}

static void fill_receipt(struct sched_call *c, const struct sched_call_spec *spec)
{
    struct receipt *r = &c->record->receipt;

    if (spec->id) {
        snprintf(r->id, sizeof(r->id), "%s", spec->id);
    } else {
        un_id_new(r->id);
    }
    snprintf(r->function, sizeof(r->function), "%s", spec->function);
    snprintf(r->driver, sizeof(r->driver), "%s", c->s->drivers[0].ops->name);
    r->trigger = spec->trigger;
    snprintf(r->trigger_name, sizeof(r->trigger_name), "%s",
             spec->trigger_name ? spec->trigger_name : "");
    snprintf(r->replay_of, sizeof(r->replay_of), "%s", spec->replay_of ? spec->replay_of : "");
    r->attempt = spec->attempt ? spec->attempt : 1;
    r->started_at_us = un_clock_wall_us();
}

static void call_free(struct sched_call *c)
{
    free(c->function);
    free(c->qualifier);
    un_buf_done(&c->head);
    un_buf_done(&c->raw_head);
    un_buf_done(&c->body);
    free(c->uri);
    free(c->peer);
    interface_reader_free(c->reader);
    free(c->response_fields);
    free(c->response_text);
    replay_kept_free(c->kept);
    record_free(c->record);
    free(c);
}

int sched_call_start(struct scheduler *s, const struct sched_call_spec *spec,
                     struct sched_call **ret, struct un_error *err)
{
    struct sched_call *c = un_fault("call.alloc") ? NULL : calloc(1, sizeof(*c));
    int rc;

    if (!c) {
        return un_error_set(err, -ENOMEM, "start a call: out of memory");
    }
    c->s = s;
    c->state = CALL_LOOKUP;
    c->events = spec->events;
    c->arg = spec->arg;
    c->stream = spec->trigger == SCHED_TCP;
    c->content_length = spec->content_length;
    c->body_eof = spec->content_length == 0;
    c->function = strdup(spec->function);
    c->qualifier = spec->qualifier ? strdup(spec->qualifier) : NULL;
    c->uri = spec->uri ? strdup(spec->uri) : NULL;
    c->peer = spec->peer ? strdup(spec->peer) : NULL;
    c->http10 = spec->http10;
    c->own_port = spec->own_port;
    c->depth = spec->depth;
    c->record = record_new();
    if (!c->function || (spec->qualifier && !c->qualifier) || (spec->uri && !c->uri) ||
        (spec->peer && !c->peer) || !c->record) {
        call_free(c);
        return un_error_set(err, -ENOMEM, "start a call: out of memory");
    }
    rc = build_head(c, spec, err);
    if (rc < 0) {
        call_free(c);
        return rc;
    }
    fill_receipt(c, spec);
    replay_begin(c, spec);
    un_list_init(&c->queue_node);
    un_list_push(&s->calls, &c->node);
    s->stats.calls++;
    c->began_us = c->mark_us = un_loop_now_us(s->loop);
    un_timer_init(&c->timer, s->loop, on_timer, c);
    c->post = (struct un_post){.fn = call_begin, .arg = c};
    un_loop_post(s->loop, &c->post);
    sched_tell(s, &(struct sched_news){.kind = NEWS_ACCEPTED,
                                       .id = c->record->receipt.id,
                                       .function = c->function,
                                       .trigger = spec->trigger,
                                       .trigger_name = c->record->receipt.trigger_name,
                                       .attempt = c->record->receipt.attempt});
    *ret = c;
    return 0;
}

const char *sched_call_id(const struct sched_call *c)
{
    return c->record->receipt.id;
}

void sched_call_cancel(struct sched_call *c)
{
    c->events = NULL;
    call_finish(c, SCHED_CANCELLED, "the client went away");
}

/* --- states and phases ------------------------------------------------------------------------ */

void call_set_state(struct sched_call *c, enum call_state state)
{
    enum call_state old = c->state;

    if (old == CALL_WAITING && state != CALL_CLAIM && state != CALL_EXPECT) {
        queue_leave_line(c); /* when admitted queue_dispatch has done it, and taken a place */
    }
    if (old == CALL_CLAIM) {
        un_list_remove(&c->queue_node);
        c->cls->claim_count--;
    }
    if (old == CALL_EXPECT) {
        un_list_remove(&c->queue_node);
        c->expects->expect_count--;
        c->s->expecting--;
        warm_set_unref(un_steal(&c->expects));
    }
    c->state = state;
    switch (state) {
    case CALL_WAITING:
        (void)un_timer_arm_at(&c->timer, c->began_us + c->s->set.queue_wait_us);
        break;
    case CALL_CLAIM:
        un_list_push(&c->cls->claims, &c->queue_node);
        c->cls->claim_count++;
        call_enter_phase(c, PHASE_SHELL);
        break;
    case CALL_EXPECT:
        un_list_push(&c->expects->expects, &c->queue_node);
        c->expects->expect_count++;
        c->s->expecting++;
        call_enter_phase(c, PHASE_SHELL);
        break;
    case CALL_LOOKUP:
        un_timer_cancel(&c->timer);
        if (old == CALL_CLAIM || old == CALL_BOUND || old == CALL_RUNNING) {
            queue_leave_place(c);
        }
        break;
    case CALL_BOUND:
        c->bound_us = un_loop_now_us(c->s->loop);
        (void)un_timer_arm_in(&c->timer, (uint64_t)c->version->config.timeout_ms * 1000);
        break;
    case CALL_ENDED:
        un_timer_cancel(&c->timer);
        if (old == CALL_CLAIM || old == CALL_EXPECT || old == CALL_BOUND || old == CALL_RUNNING) {
            queue_leave_place(c);
        }
        break;
    default:
        break;
    }
}

void call_enter_phase(struct sched_call *c, enum call_phase phase)
{
    uint64_t now = un_loop_now_us(c->s->loop);

    c->phase_us[c->phase] += now - c->mark_us;
    c->mark_us = now;
    c->phase = phase;
}

static struct sched_phases phases_of(const struct sched_call *c)
{
    return (struct sched_phases){
        .queue_us = c->phase_us[PHASE_QUEUE],
        .shell_us = c->phase_us[PHASE_SHELL],
        .bind_us = c->phase_us[PHASE_BIND],
        .start_us = c->phase_us[PHASE_START],
        .first_byte_us = c->phase_us[PHASE_FIRST_BYTE],
        .run_us = c->phase_us[PHASE_RUN],
    };
}

void call_response_begins(struct sched_call *c)
{
    call_enter_phase(c, PHASE_RUN);
    c->response_phases = phases_of(c);
}

/* --- lookup ----------------------------------------------------------------------------------- */

/* True when the call ended while it waited for this callback; it is gone then if it waited only for
 * it. */
static bool lookup_over(struct sched_call *c)
{
    bool ended = c->state == CALL_ENDED;
    struct scheduler *s = c->s;

    c->lookup_pending = false;
    if (c->zombie) {
        call_free(c);
    }
    sched_done(s);
    return ended;
}

/* Puts the request's head as the function's interface wants it, and makes what will read the
 * program's answer. False when that ended the call. */
static bool speak_interface(struct sched_call *c)
{
    const struct function_config *config = &c->version->config;
    bool head_only = c->head.len >= 5 && memcmp(c->head.data, "HEAD ", 5) == 0;
    un_autobuf struct un_buf head = {0};
    struct un_error err = UN_ERROR_INIT;
    int rc;

    if (!interface_reads(config->interface)) {
        return true;
    }
    const struct interface_request r = {
        .function = c->function,
        .qualifier = c->qualifier,
        .id = c->record->receipt.id,
        .uri = c->uri,
        .peer = c->peer,
        .http10 = c->http10,
        .own_port = c->own_port,
        .head = (const char *)c->head.data,
        .head_len = c->head.len,
        .content_length = c->content_length,
        .config = config,
    };
    rc = interface_render(&r, &head, &err);
    if (rc == 0) {
        rc = interface_reader_new(config->interface, head_only, &c->reader, &err);
    }
    if (rc < 0) {
        call_finish(c, rc == -E2BIG ? SCHED_REQUEST_TOO_LARGE : SCHED_INTERNAL, "%.250s", err.text);
        return false;
    }
    if (config->machine.set) {
        c->raw_head = c->head;
    } else {
        un_buf_done(&c->head);
    }
    c->head = head;
    head = (struct un_buf){0};
    return true;
}

/* The image is there; so is the body's length, where the interface needs it. */
static void enter(struct sched_call *c)
{
    if (speak_interface(c)) {
        queue_enter(c);
    }
}

static void body_is_whole(void *arg)
{
    enter(arg);
}

void call_length_known(struct sched_call *c)
{
    c->length_wanted = false;
    un_timer_cancel(&c->timer);
    c->content_length = (int64_t)c->record->receipt.bytes_in;
    c->post = (struct un_post){.fn = body_is_whole, .arg = c};
    un_loop_post(c->s->loop, &c->post);
}

static void have_image(struct sched_call *c)
{
    if (!interface_wants_length(c->version->config.interface) || c->content_length >= 0) {
        enter(c);
    } else if (c->body_eof) {
        c->content_length = (int64_t)c->record->receipt.bytes_in;
        enter(c);
    } else if (c->source_waits) {
        call_refuse_length(c);
    } else {
        c->length_wanted = true;
        (void)un_timer_arm_in(&c->timer, (uint64_t)c->version->config.timeout_ms * 1000);
    }
}

/* Whether an opening that `open_image` began has given the call an image. */
static bool image_came(struct sched_call *c, int rc, struct image_mapping *mapping,
                       const struct un_error *err)
{
    if (lookup_over(c)) {
        if (rc == 0) {
            image_unref(mapping);
        }
        return false;
    }
    if (rc < 0) {
        call_finish(c, SCHED_INTERNAL, "the function's image cannot be read: %.200s", err->text);
    }
    return rc == 0;
}

static void open_image(struct sched_call *c, const char *digest, image_open_cb cb)
{
    c->lookup_pending = true;
    sched_begin(c->s);
    image_open(c->s->images, digest, cb, c);
}

static void on_further(void *arg, int rc, struct image_mapping *mapping,
                       const struct un_error *err);

/* What a machine gets besides its image, one after the other. */
static void open_further(struct sched_call *c)
{
    const struct machine_config *m = &c->version->config.machine;

    if (m->initrd[0] && !c->initrd) {
        open_image(c, m->initrd, on_further);
    } else if (m->disk[0] && !c->disk) {
        open_image(c, m->disk, on_further);
    } else {
        have_image(c);
    }
}

static void on_further(void *arg, int rc, struct image_mapping *mapping, const struct un_error *err)
{
    struct sched_call *c = arg;

    if (!image_came(c, rc, mapping, err)) {
        return;
    }
    if (c->version->config.machine.initrd[0] && !c->initrd) {
        c->initrd = mapping;
    } else {
        c->disk = mapping;
    }
    open_further(c);
}

static void on_image(void *arg, int rc, struct image_mapping *mapping, const struct un_error *err)
{
    struct sched_call *c = arg;

    if (!image_came(c, rc, mapping, err)) {
        return;
    }
    c->image = mapping;
    if (c->line->image) {
        image_unref(c->line->image);
    }
    c->line->image = image_ref(mapping);
    open_further(c);
}

/* The names of the drivers, for people. */
static const char *driver_list(const struct scheduler *s, char *buf, size_t size)
{
    size_t at = 0;

    buf[0] = '\0';
    for (unsigned d = 0; d < s->driver_count && at < size; d++) {
        at += (size_t)snprintf(buf + at, size - at, "%s%s", d ? ", " : "", s->drivers[d].ops->name);
    }
    return buf;
}

/* Finds the driver; says so when it is not there. */
static struct sched_driver *choose_driver(struct sched_call *c)
{
    const struct function_config *config = &c->version->config;
    struct sched_driver *driver = pool_driver(c->s, config);
    struct receipt *r = &c->record->receipt;
    char names[96];

    snprintf(r->driver, sizeof(r->driver), "%s",
             driver ? driver->ops->name : function_driver_name(config->driver));
    if (!driver) {
        call_finish(
            c, SCHED_CANNOT_RUN,
            "the function wants the driver %s, and this daemon has %s; deploy it with another "
            "driver, or with \"auto\"",
            function_driver_name(config->driver), driver_list(c->s, names, sizeof(names)));
    }
    return driver;
}

/* A request at a function that takes connections, or a connection at one that takes requests. */
static bool wrong_interface(struct sched_call *c)
{
    const struct function_config *config = &c->version->config;
    bool takes = config->interface == FUNCTION_TCP;

    if (takes && !c->stream) {
        call_finish(c, SCHED_WRONG_INTERFACE,
                    "the function speaks a protocol of its own, not HTTP; connect to %.100s%s%s",
                    config->publish ? config->publish[0] : "a port that it publishes (--publish)",
                    config->publish ? "" : ", or from functions to NAME.internal",
                    config->publish && config->publish[1] ? " (or another of its ports)" : "");
    } else if (!takes && c->stream) {
        call_finish(c, SCHED_WRONG_INTERFACE, "the function takes requests, not connections");
    }
    return takes != c->stream;
}

/* Says what a function lacks to run; false when it can. A deploy asks the same, but this version may
 * be from a daemon that could run it. */
static bool refuse_version(struct sched_call *c)
{
    struct un_error err = UN_ERROR_INIT;
    const struct function_version *v = c->version;
    const struct sched_settings *set = &c->s->set;
    struct sched_driver *driver;

    if (sched_can_run(c->s, v->kind, &err) < 0 ||
        sched_check_memory(c->s, v->config.memory_mib, &err) < 0) {
        call_finish(c, SCHED_CANNOT_RUN, "%s", err.text);
        return true;
    }
    driver = choose_driver(c);
    if (!driver) {
        return true;
    }
    int cls = admission_class(v->config.memory_mib, set->shell_mib, set->memory_mib);
    c->cls = &driver->classes[driver_runs_machines(driver) ? 0 : cls];
    if (c->cls->mib + reserve_of_others(c->s, v->name) > set->memory_mib) {
        call_finish(
            c, SCHED_CANNOT_RUN,
            "the function wants %llu MiB, and other functions have reserved all but %llu of "
            "the %llu MiB that VMs may have; reserve less, or raise the daemon's memory_mib",
            (unsigned long long)c->cls->mib,
            (unsigned long long)(set->memory_mib - reserve_of_others(c->s, v->name)),
            (unsigned long long)set->memory_mib);
        return true;
    }
    return false;
}

static void have_version(struct sched_call *c, struct function_version *v)
{
    struct scheduler *s = c->s;
    struct receipt *r = &c->record->receipt;

    c->version = function_ref(v);
    r->version = v->version;
    memcpy(r->digest, v->config.image, sizeof(r->digest));
    if (v->id == c->in_vain) {
        call_fail(c, &c->exit);
        return;
    }
    if (wrong_interface(c) || refuse_version(c)) {
        return;
    }
    c->line = line_get(s, v->name);
    if (!c->line) {
        call_finish(c, SCHED_INTERNAL, "out of memory");
        return;
    }
    c->generation = c->line->generation;
    if (c->line->image && strcmp(c->line->image->digest, v->config.image) == 0) {
        c->image = image_ref(c->line->image);
        open_further(c);
        return;
    }
    open_image(c, v->config.image, on_image);
}

static void on_version(void *arg, int rc, struct function_version *v, const struct un_error *err)
{
    struct sched_call *c = arg;

    if (lookup_over(c)) {
        return;
    }
    if (rc == -ENOENT) {
        call_finish(c, SCHED_NO_FUNCTION, "%.250s", err->text);
    } else if (rc < 0) {
        call_finish(c, SCHED_INTERNAL, "look the function up: %.250s", err->text);
    } else {
        have_version(c, v);
    }
}

void call_begin(void *arg)
{
    struct sched_call *c = arg;
    struct scheduler *s = c->s;
    struct function_version *v;

    if (s->draining && (c->depth == 0 || s->closing)) {
        call_finish(c, SCHED_DRAINING, "the daemon is shutting down");
        return;
    }
    if (c->content_length >= 0 && (uint64_t)c->content_length > s->set.max_request_bytes) {
        call_finish(c, SCHED_REQUEST_TOO_LARGE,
                    "the request's body has %lld bytes, the limit is %llu",
                    (long long)c->content_length, (unsigned long long)s->set.max_request_bytes);
        return;
    }
    v = function_peek(s->registry, c->function, c->qualifier);
    if (v) {
        have_version(c, v);
        return;
    }
    c->lookup_pending = true;
    sched_begin(s);
    function_resolve(s->registry, c->function, c->qualifier, on_version, c);
}

/* --- binding ---------------------------------------------------------------------------------- */

bool call_bind(struct sched_call *c, struct instance *i)
{
    const struct function_config *config = &c->version->config;
    un_autofree const char **argv = run_argv(c->version->name, config);
    un_autofree const char **envp = run_envp(config);
    struct un_error err = UN_ERROR_INIT;
    struct hv_run_spec run = run_spec_of(c->image, config, argv, envp);
    struct hv_machine_config machine = {.files = NULL};
    struct machine_words words;
    bool ready = argv && envp;
    int rc = 0;

    if (call_overtaken(c) && call_move(c)) {
        return false;
    }
    run.invocation_id = c->record->receipt.id;
    run.deadline_us = (uint64_t)config->timeout_ms * 1000;
    run.request_head = (const char *)c->head.data;
    run.request_head_len = c->head.len;
    run.content_length = c->content_length;
    run.snapshot_key = i->cls->driver->ops->prepare ? c->version->snapshot_key : NULL;
    call_enter_phase(c, PHASE_BIND);
    call_body_first(c, &run);
    if (config->machine.set) {
        const struct machine_parts parts = {.images = c->s->images,
                                            .version = c->version,
                                            .image = c->image,
                                            .initrd = c->initrd,
                                            .disk = c->disk};
        rc = machine_config_of(&parts, &words, &machine, &err);
        machine.live = call_wants_live(c) && c->generation == c->line->generation;
        run.machine = &machine;
        run.depth = c->depth;
    }
    if (rc == 0) {
        rc = ready ? instance_run(i, c, &run, &err) : un_error_set(&err, -ENOMEM, "out of memory");
    }
    hv_machine_files_unref(machine.files);
    if (rc < 0 && ready && i->state == INSTANCE_WARM) {
        call_enter_phase(c, PHASE_SHELL); /* a shell may take what this one did not */
        instance_end(i, NULL);
        return false;
    }
    if (rc < 0) {
        call_finish(c, ready ? SCHED_CANNOT_RUN : SCHED_INTERNAL, "%.280s", err.text);
        return false;
    }
    c->instance = i;
    c->bound_len = run.body_len;
    call_set_state(c, CALL_BOUND);
    return true;
}

/* --- the end ---------------------------------------------------------------------------------- */

bool call_rebind(struct sched_call *c)
{
    if (c->rebinds == REBINDS_MAX) {
        return false;
    }
    c->rebinds++;
    c->bound_len = 0;
    instance_end(un_steal(&c->instance), NULL);
    call_set_state(c, CALL_CLAIM);
    (void)un_timer_arm_in(&c->timer, c->s->set.queue_wait_us);
    pool_update(c->cls);
    return true;
}

/* Its time limit is over. */
static void time_out(struct sched_call *c)
{
    struct hv_vm *vm = c->instance ? c->instance->vm : NULL;
    char why[200] = "";
    if (vm && hv_vm_ops(vm)->vm_wants) {
        hv_vm_ops(vm)->vm_wants(vm, why, sizeof(why));
    }
    call_finish(c, SCHED_TIMED_OUT, "%s %u ms%s%s",
                c->stream ? "no machine took the connection within"
                          : "the function did not end within its time limit of",
                c->version->config.timeout_ms, why[0] ? ": " : "", why);
}

static void on_timer(void *arg)
{
    struct sched_call *c = arg;

    if (c->state == CALL_WAITING || c->state == CALL_CLAIM || c->state == CALL_EXPECT) {
        c->retry_after_s = queue_retry_after_s(c);
        call_finish(c, SCHED_WAIT_EXPIRED, "no place became free within %llu ms",
                    (unsigned long long)(c->s->set.queue_wait_us / 1000));
    } else if (c->stream || c->state == CALL_BOUND || c->state == CALL_RUNNING) {
        time_out(c);
    } else if (c->length_wanted) {
        call_finish(c, SCHED_LENGTH_REQUIRED,
                    "a cgi program is told the length of its request's body, and this one came "
                    "without Content-Length and did not end within %u ms; send Content-Length",
                    c->version->config.timeout_ms);
    }
}

/* Closes the last phase. A phase that only waited for something that did not come is not reached:
 * its time belongs to the run. */
static void close_phases(struct sched_call *c)
{
    if (c->phase == PHASE_START || c->phase == PHASE_FIRST_BYTE) {
        c->phase = PHASE_RUN;
    }
    call_enter_phase(c, c->phase);
}

void call_finish(struct sched_call *c, enum sched_outcome_kind kind, const char *fmt, ...)
{
    va_list ap;

    if (c->state == CALL_ENDED) {
        return;
    }
    va_start(ap, fmt);
    vsnprintf(c->detail, sizeof(c->detail), fmt, ap);
    va_end(ap);
    c->kind = kind;
    close_phases(c);
    /* How long a connection stays open says nothing of when the next place becomes free. */
    if (c->instance && !c->stream &&
        kind != SCHED_CANCELLED) { /* its place was held so long: start and run */
        admission_mean_add(&c->line->mean, c->mark_us - c->admitted_us);
    }
    call_set_state(c, CALL_ENDED);
    un_loop_unpost(c->s->loop, &c->post); /* begin, when it has not run yet */
    c->post = (struct un_post){.fn = end, .arg = c};
    un_loop_post(c->s->loop, &c->post);
}

/* The receipt's status: what HTTP tells, or would have told. */
static unsigned call_status(const struct sched_call *c)
{
    if (c->kind == SCHED_OK) {
        return c->response_head.status ? c->response_head.status : 200;
    }
    if (c->kind == SCHED_CANCELLED && !c->events) {
        return 499; /* as nginx writes down a client that closed its connection */
    }
    return sched_outcome_status(c->kind);
}

static void complete_receipt(struct sched_call *c)
{
    struct receipt *r = &c->record->receipt;

    r->phases = phases_of(c);
    r->fresh = c->instance && c->instance->runs == 1;
    r->status = call_status(c);
    snprintf(r->outcome, sizeof(r->outcome), "%s", sched_outcome_name(c->kind));
    if (c->kind != SCHED_OK) {
        snprintf(r->error, sizeof(r->error), "%.255s", c->detail);
    }
    if (c->instance) {
        instance_usage(c->instance, &r->usage);
    }
    if (c->egress) {
        egress_get_stats(c->egress, &r->egress);
        metrics_add_egress(&c->s->metrics, c->version->name, &r->egress);
    } else {
        r->egress = r->usage.egress; /* has been counted (sched_count_egress) */
    }
    if (c->kind == SCHED_FAILED && r->usage.report.unsupported_count > 0) {
        counted_name_missing(&r->usage.report, c->detail, sizeof(c->detail));
        snprintf(r->error, sizeof(r->error), "%.255s", c->detail);
    }
    if (c->version && !c->version->config.list_calls) {
        memset(r->usage.report.made, 0, sizeof(r->usage.report.made));
    }
}

static void tell_end(struct sched_call *c)
{
    char tail[LOG_TAIL_BYTES];
    struct sched_outcome outcome = {
        .kind = c->kind,
        .retry_after_s = c->retry_after_s,
        .responded = c->responded,
        .exit = c->exit,
        .detail = c->detail,
        .report = &c->record->receipt.usage.report,
        .log_tail = tail,
        .phases = phases_of(c),
    };

    guest_log_tail(&c->record->log, tail, sizeof(tail));
    c->events->on_end(c->arg, &outcome);
}

/* Destroys the VM, or has it put back for the function's next call. */
static void release_instance(struct sched_call *c, struct record *record)
{
    struct instance *i = un_steal(&c->instance);
    struct warm_set *set = NULL;

    if (c->kind == SCHED_OK) {
        warm_ahead(c, i);
    }
    if (c->kind == SCHED_OK && i->state == INSTANCE_RUNNING && hv_vm_ops(i->vm)->vm_recycle) {
        set = warm_set_for(c);
    }
    if (set) {
        instance_recycle(i, set, record);
    } else {
        instance_end(i, record);
    }
}

/* Lets go of all that the call holds of others; the record goes to the instance or to the writer.
 */
static void release(struct sched_call *c)
{
    struct scheduler *s = c->s;
    struct record *record = un_steal(&c->record);

    egress_free(un_steal(&c->egress));
    s->body_bytes -= c->body.len - c->body_at;
    un_buf_done(&c->body);
    c->body_at = 0;
    if (c->instance) {
        release_instance(c, record);
    } else {
        record_submit(s, record);
    }
    call_drop_images(c);
    if (c->line) {
        line_put(s, un_steal(&c->line));
    }
    if (c->version) {
        function_unref(un_steal(&c->version));
    }
}

static void end(void *arg)
{
    struct sched_call *c = arg;
    struct scheduler *s = c->s;

    call_log_finish(c);
    complete_receipt(c);
    replay_end(c);
    s->stats.calls_by_outcome[c->kind]++;
    if (c->events) {
        tell_end(c);
    }
    un_list_remove(&c->node);
    release(c);
    if (c->lookup_pending) {
        c->zombie = true;
    } else {
        call_free(c);
    }
    queue_dispatch(s);
    sched_check_idle(s);
}
