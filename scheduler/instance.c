/* instance.c - the state machine of instances (scheduler.h shows it), and what a driver tells of
 * its VMs.
 *
 * set_state is the one place where an instance's state, its list and the counts of memory change.
 * An instance is freed in on_gone and nowhere else, so that its memory counts as long as the VM
 * exists.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/fault.h"
#include "common/log.h"
#include "scheduler/scheduler_impl.h"

static const char *const state_names[INSTANCE_STATES] = {
    [INSTANCE_STARTING] = "starting",   [INSTANCE_IDLE] = "idle",
    [INSTANCE_BOUND] = "bound",         [INSTANCE_RUNNING] = "running",
    [INSTANCE_RECYCLING] = "recycling", [INSTANCE_WARM] = "warm",
    [INSTANCE_ENDING] = "ending",
};

const char *instance_state_name(enum instance_state s)
{
    return (unsigned)s < INSTANCE_STATES ? state_names[s] : "unknown";
}

static void count_in(struct instance *i, int by)
{
    i->s->instance_count[i->state] += (unsigned)by;
    switch (i->state) {
    case INSTANCE_STARTING:
        i->cls->starting_count += (unsigned)by;
        break;
    case INSTANCE_IDLE:
        i->cls->idle_count += (unsigned)by;
        break;
    case INSTANCE_RECYCLING:
        i->set->recycling_count += (unsigned)by;
        break;
    case INSTANCE_WARM:
        i->set->idle_count += (unsigned)by;
        break;
    default:
        break;
    }
}

static bool kept(enum instance_state state)
{
    return state == INSTANCE_RECYCLING || state == INSTANCE_WARM;
}

static void describe(struct instance *i, struct sched_instance_info *ret);

static void tell(struct instance *i, enum sched_news_kind kind)
{
    struct sched_instance_info info;

    /* What serves machine images tells of its machines; its VMs are connections to them. */
    if (i->s->observer && !driver_runs_machines(i->cls->driver)) {
        describe(i, &info);
        sched_tell(i->s, &(struct sched_news){.kind = kind, .instance = &info});
    }
}

static void set_state(struct instance *i, enum instance_state state)
{
    un_list_remove(&i->node);
    if (i->state == INSTANCE_WARM) {
        un_list_remove(&i->warm_node);
    }
    count_in(i, -1);
    if (kept(i->state) && !kept(state)) {
        warm_set_unref(un_steal(&i->set));
    }
    i->state = state;
    i->state_us = un_loop_now_us(i->s->loop);
    count_in(i, 1);
    if (state == INSTANCE_WARM) {
        if (i->runs > 0) {
            un_list_push_front(&i->set->idle, &i->warm_node);
        } else {
            un_list_push(&i->set->idle, &i->warm_node);
        }
        i->warm_us = un_loop_now_us(i->s->loop);
    }
    if (state == INSTANCE_IDLE) {
        un_list_push_front(&i->cls->idle, &i->node);
    } else {
        un_list_push(&i->s->instances[state], &i->node);
    }
    if (state == INSTANCE_ENDING) {
        i->s->leaving_mib += i->cls->mib;
        i->ended_us = un_loop_now_us(i->s->loop);
        tell(i, NEWS_INSTANCE);
        hv_vm_ops(i->vm)->vm_free(i->vm);
        return;
    }
    tell(i, NEWS_INSTANCE);
}

/* --- what the driver tells -------------------------------------------------------------------- */

/* The record's last phase has ended. */
static void submit_record(struct instance *i)
{
    if (i->record) {
        i->record->receipt.phases.teardown_us = un_loop_now_us(i->s->loop) - i->ended_us;
        record_submit(i->s, un_steal(&i->record));
    }
}

/* The VM was put back, or could not be. */
static void recycled(struct instance *i, int rc, const struct un_error *err)
{
    struct scheduler *s = i->s;

    if (rc < 0) {
        un_log(UN_LOG_DEBUG, "a VM could not be put back to its snapshot", "error", err->text);
        instance_end(i, NULL);
    } else {
        submit_record(i);
        s->stats.recycled += i->runs > 0;
        set_state(i, INSTANCE_WARM);
        warm_ready(i);
    }
    queue_dispatch(s);
}

static void on_ready(void *arg, int rc, const struct un_error *err)
{
    struct instance *i = arg;
    struct shell_class *cls = i->cls;
    struct scheduler *s = i->s;

    if (i->state == INSTANCE_RECYCLING) {
        recycled(i, rc, err);
        return;
    }
    if (i->state != INSTANCE_STARTING) {
        return;
    }
    if (rc < 0) {
        set_state(i, INSTANCE_ENDING);
        pool_shell_failed(cls, i->round, err);
    } else {
        s->stats.shells_made++;
        pool_policy_made(&cls->policy);
        set_state(i, INSTANCE_IDLE);
        pool_update(cls);
    }
    queue_dispatch(s);
}

static void on_started(void *arg)
{
    struct instance *i = arg;

    if (i->state == INSTANCE_BOUND && i->call) {
        set_state(i, INSTANCE_RUNNING);
        call_started(i->call);
    }
}

static void on_input_wanted(void *arg, size_t room)
{
    struct instance *i = arg;

    if (i->call) {
        call_input_wanted(i->call, room);
    }
}

static void on_head(void *arg, const struct hv_head *head)
{
    struct instance *i = arg;

    if (i->call) {
        call_head(i->call, head);
    }
}

static void on_output(void *arg, const void *data, size_t len, const struct hv_exit *last)
{
    struct instance *i = arg;

    if (i->call) {
        call_output(i->call, data, len, last);
    }
}

static void on_ask(void *arg, const struct hv_ask *ask)
{
    struct instance *i = arg;

    if (i->call) {
        call_ask(i->call, ask);
    }
}

static void on_log(void *arg, const void *data, size_t len)
{
    struct instance *i = arg;

    if (i->call) {
        call_log(i->call, data, len);
    }
}

static void on_exit_(void *arg, const struct hv_exit *why)
{
    struct instance *i = arg;
    struct scheduler *s = i->s;

    if (i->call) {
        call_exited(i->call, why);
        return;
    }
    if (i->state == INSTANCE_STARTING || i->state == INSTANCE_IDLE) {
        struct un_error err = UN_ERROR_INIT;

        /* A shell died by itself. It counts as a failure, so that shells which never live long are
         * not made in a circle. */
        un_error_set(&err, -ECHILD, "a shell went away: %s", why->detail);
        set_state(i, INSTANCE_ENDING);
        pool_shell_failed(i->cls, i->round, &err);
        queue_dispatch(s);
    } else if (kept(i->state)) {
        instance_end(i, NULL);
        queue_dispatch(s);
    }
}

static void on_gone(void *arg)
{
    struct instance *i = arg;
    struct scheduler *s = i->s;

    submit_record(i);
    i->vm = NULL; /* the driver's, from here on */
    tell(i, NEWS_INSTANCE_GONE);
    i->cls->driver->instances--;
    s->instances_mib -= i->cls->mib;
    s->leaving_mib -= i->cls->mib;
    count_in(i, -1);
    un_list_remove(&i->node);
    free(i);
    queue_dispatch(s);
    sched_check_idle(s);
}

static const struct hv_vm_events vm_events = {
    .on_ready = on_ready,
    .on_started = on_started,
    .on_input_wanted = on_input_wanted,
    .on_head = on_head,
    .on_output = on_output,
    .on_ask = on_ask,
    .on_log = on_log,
    .on_exit = on_exit_,
    .on_gone = on_gone,
};

/* --- what the scheduler does ------------------------------------------------------------------ */

int instance_start(struct shell_class *cls, struct un_error *err)
{
    struct scheduler *s = cls->s;
    struct hv_vm_spec spec = {.mem_bytes = cls->mib << 20, .events = &vm_events};
    struct instance *i = un_fault("instance.alloc") ? NULL : calloc(1, sizeof(*i));
    int rc;

    if (!i) {
        return un_error_set(err, -ENOMEM, "start a shell: out of memory");
    }
    i->s = s;
    i->cls = cls;
    i->state = INSTANCE_STARTING;
    i->born_us = i->state_us = un_loop_now_us(s->loop);
    i->round = cls->policy.round;
    un_id_new(i->id);
    spec.arg = i;
    rc = cls->driver->ops->vm_new(cls->driver->drv, &spec, &i->vm, err);
    if (rc < 0) {
        free(i);
        return rc;
    }
    s->instances_mib += cls->mib;
    cls->driver->instances++;
    un_list_push(&s->instances[INSTANCE_STARTING], &i->node);
    count_in(i, 1);
    tell(i, NEWS_INSTANCE);
    return 0;
}

int instance_run(struct instance *i, struct sched_call *c, const struct hv_run_spec *run,
                 struct un_error *err)
{
    struct hv_usage used = {0};
    int rc;

    if (i->runs > 0) {
        hv_vm_ops(i->vm)->vm_usage(i->vm, &used);
    }
    rc = hv_vm_ops(i->vm)->vm_run(i->vm, run, err);
    if (rc < 0) {
        return rc;
    }
    i->used_before = used;
    i->runs++;
    i->call = c;
    set_state(i, INSTANCE_BOUND);
    return 0;
}

void instance_end(struct instance *i, struct record *record)
{
    struct warm_set *set = i->set;

    i->call = NULL;
    if (record) {
        i->record = record;
    }
    if (i->state == INSTANCE_ENDING) {
        return;
    }
    if (set) {
        set->refs++;
    }
    set_state(i, INSTANCE_ENDING);
    if (set) {
        warm_settle(set);
        warm_set_unref(set);
    }
}

void instance_recycle(struct instance *i, struct warm_set *set, struct record *record)
{
    struct un_error err = UN_ERROR_INIT;

    if (hv_vm_ops(i->vm)->vm_recycle(i->vm, &err) < 0) {
        warm_set_unref(set);
        instance_end(i, record);
        return;
    }
    i->call = NULL;
    i->record = record;
    i->ended_us = un_loop_now_us(i->s->loop);
    i->set = set;
    set_state(i, INSTANCE_RECYCLING);
}

bool instance_bind_ahead(struct instance *i, struct warm_set *set)
{
    const struct function_version *v = set->version;
    struct un_error err = UN_ERROR_INIT;

    if (hv_vm_ops(i->vm)->vm_bind(i->vm, v->snapshot_key, (uint64_t)v->config.memory_mib << 20,
                                  &err) < 0) {
        warm_set_unref(set);
        return false;
    }
    i->set = set;
    i->bound_ahead = true;
    set_state(i, INSTANCE_RECYCLING);
    return true;
}

void instance_usage(const struct instance *i, struct hv_usage *ret)
{
    hv_vm_ops(i->vm)->vm_usage(i->vm, ret);
    ret->cpu_us -= ret->cpu_us < i->used_before.cpu_us ? ret->cpu_us : i->used_before.cpu_us;
    ret->exits -= ret->exits < i->used_before.exits ? ret->exits : i->used_before.exits;
}

/* --- for people ------------------------------------------------------------------------------- */

static void describe(struct instance *i, struct sched_instance_info *ret)
{
    *ret = (struct sched_instance_info){
        .state = i->state,
        .state_name = instance_state_name(i->state),
        .state_us = un_loop_now_us(i->s->loop) - i->state_us,
        .in_flight = i->call != NULL,
        .driver = i->cls->driver->ops->name,
        .mem_mib = i->cls->mib,
        .pid = i->vm ? hv_vm_ops(i->vm)->vm_pid(i->vm) : 0,
        .age_us = un_loop_now_us(i->s->loop) - i->born_us,
    };
    memcpy(ret->id, i->id, sizeof(ret->id));
    if (i->call) {
        const struct receipt *r = &i->call->record->receipt;

        memcpy(ret->function, r->function, sizeof(ret->function));
        memcpy(ret->invocation_id, r->id, sizeof(ret->invocation_id));
        ret->version = r->version;
    } else if (i->set) {
        memcpy(ret->function, i->set->version->name, sizeof(ret->function));
        ret->version = i->set->version->version;
    }
}

/* Calls fn for each instance until it says true; gives that one. */
static struct instance *each(struct scheduler *s, bool (*fn)(void *arg, struct instance *i),
                             void *arg)
{
    for (unsigned state = 0; state < INSTANCE_STATES; state++) {
        un_list_for_each (it, &s->instances[state]) {
            if (fn(arg, un_list_entry(it, struct instance, node))) {
                return un_list_entry(it, struct instance, node);
            }
        }
    }
    for (unsigned k = 0; k < s->class_count; k++) {
        un_list_for_each (it, &s->classes[k].idle) {
            if (fn(arg, un_list_entry(it, struct instance, node))) {
                return un_list_entry(it, struct instance, node);
            }
        }
    }
    return NULL;
}

struct listing {
    void (*fn)(void *arg, const struct sched_instance_info *info);
    void *arg;
};

static bool list_one(void *arg, struct instance *i)
{
    struct listing *l = arg;
    struct sched_instance_info info;

    if (!driver_runs_machines(i->cls->driver)) {
        describe(i, &info);
        l->fn(l->arg, &info);
    }
    return false;
}

void sched_instances(struct scheduler *s,
                     void (*fn)(void *arg, const struct sched_instance_info *info), void *arg)
{
    struct listing l = {fn, arg};

    each(s, list_one, &l);
    services_each(s, fn, arg);
}

static bool has_id(void *arg, struct instance *i)
{
    return strcmp(i->id, arg) == 0;
}

int sched_instance_kill(struct scheduler *s, const char *id, struct un_error *err)
{
    char copy[UN_ID_SIZE];
    struct instance *i;

    if (!un_id_valid(id)) {
        return un_error_set(err, -ENOENT, "no such instance");
    }
    memcpy(copy, id, sizeof(copy));
    i = each(s, has_id, copy);
    if (!i) {
        return services_kill(s, copy, err);
    }
    if (i->call) {
        call_finish(i->call, SCHED_CANCELLED, "the instance was killed by request");
    } else if (i->state != INSTANCE_ENDING) {
        instance_end(i, NULL);
        queue_dispatch(s);
    }
    return 0;
}
