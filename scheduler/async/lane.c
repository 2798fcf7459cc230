/* lane.c - the lanes of the durable queue that hold places, or did lately.
 *
 * A lane is a function, or the host of HTTP destinations. How many places it may hold is its
 * function's concurrency, which the registry is asked for when the lane gets its first place; until
 * it answers there is one. Some lanes are kept when they hold none any more, for what is known of
 * them; one that is not here costs nothing.
 */
#include <stdlib.h>
#include <string.h>

#include "scheduler/async/async_impl.h"

static struct async_lane *find_in(struct un_list *lanes, const char *name)
{
    un_list_for_each (it, lanes) {
        struct async_lane *l = un_list_entry(it, struct async_lane, node);

        if (strcmp(l->name, name) == 0) {
            return l;
        }
    }
    return NULL;
}

static struct async_lane *lane_find(struct scheduler *s, const char *name)
{
    struct async_lane *l = find_in(&s->async.lanes, name);

    return l ? l : find_in(&s->async.idle_lanes, name);
}

struct learning {
    struct scheduler *s;
    char name[ASYNC_LANE_SIZE];
};

/* The function is in the registry's cache now, where the next claim sees it. */
static void on_learned(void *arg, int rc, struct function_version *v, const struct un_error *err)
{
    struct learning *learning = arg;
    struct scheduler *s = learning->s;
    struct async_lane *l = lane_find(s, learning->name);

    if (rc == 0 && l) {
        l->most = v->config.concurrency;
    }
    free(learning);
    async_wake(s);
    sched_done(s);
}

/* Finds out how many places the lane may have. Until then it has one. */
static void lane_learn(struct scheduler *s, struct async_lane *l)
{
    struct learning *learning;

    if (async_lane_delivers(l->name)) {
        l->most = ASYNC_DELIVERIES;
        return;
    }
    learning = malloc(sizeof(*learning));
    if (learning) {
        learning->s = s;
        memcpy(learning->name, l->name, sizeof(learning->name));
        sched_begin(s);
        function_resolve(s->registry, learning->name, NULL, on_learned, learning);
    }
}

/* The event's lane, with a place more. */
struct async_lane *async_lane_get(struct scheduler *s, const struct async_event *e)
{
    char name[ASYNC_LANE_SIZE];
    struct async_lane *l;

    async_event_lane(e, name);
    l = lane_find(s, name);
    if (!l) {
        l = calloc(1, sizeof(*l));
        if (!l) {
            return NULL;
        }
        memcpy(l->name, name, sizeof(l->name));
        l->most = ASYNC_LANE_UNKNOWN;
        un_list_push(&s->async.lanes, &l->node);
        lane_learn(s, l);
    } else if (l->held == 0) {
        s->async.idle_lane_count--;
        un_list_remove(&l->node);
        un_list_push(&s->async.lanes, &l->node);
    }
    l->held++;
    return l;
}

static void lane_forget(struct scheduler *s)
{
    struct async_lane *l = un_list_first(&s->async.idle_lanes, struct async_lane, node);

    un_list_remove(&l->node);
    free(l);
    s->async.idle_lane_count--;
}

void async_lane_put(struct scheduler *s, struct async_lane *l)
{
    if (--l->held > 0) {
        return;
    }
    un_list_remove(&l->node);
    un_list_push(&s->async.idle_lanes, &l->node);
    if (++s->async.idle_lane_count > ASYNC_LANES_KEPT) {
        lane_forget(s);
    }
}

void async_lanes_done(struct scheduler *s)
{
    while (s->async.idle_lane_count > 0) {
        lane_forget(s);
    }
}
