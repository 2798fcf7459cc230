/* sched_world.h - what the scheduler's tests stand on: a virtual loop, the fake driver, a real
 * database, and a registry and image store of a few lines that answer when told.
 *
 * Time moves only by world_advance. The database has threads of its own; world_until waits for a
 * condition that needs one of their answers, bounded in real time.
 */
#ifndef UNID_TESTS_SCHED_WORLD_H
#define UNID_TESTS_SCHED_WORLD_H

#include "common/bytes.h"
#include "hypervisor/fake/fake.h"
#include "scheduler/async/async.h"
#include "scheduler/record/receipt.h"
#include "scheduler/scheduler.h"

enum { WORLD_FUNCTIONS = 64, WORLD_SHELL_MIB = 64 };

struct world {
    struct un_loop *loop;
    struct store *store;
    struct hv_driver *driver;
    struct hv_driver *drivers[2]; /* for world_open, instead of `driver` alone */
    struct scheduler *sched;
    struct registry *registry;
    struct sched_settings set; /* for world_open */
    char dir[64], path[96];
};

/* Everything but the scheduler; change w->set, then world_open. */
void world_init(struct world *w);
void world_open(struct world *w);
/* Ends what runs, closes the scheduler and the database and opens them again, as a new daemon on
 * the same file. */
void world_reopen(struct world *w);
/* Drains without patience, lets time pass for teardown, closes all, checks that no VM is left. */
void world_done(struct world *w);

void world_run(struct world *w);
void world_advance(struct world *w, uint64_t us);
/* Pumps until cond(arg); fails the test after ten real seconds. */
void world_until(struct world *w, bool (*cond)(void *arg), void *arg);

/* Waits until all writes that were submitted before have been answered. */
void world_barrier(struct world *w);

/* A function; `args` is one string of words for the fake guest. */
struct function_version *world_function(struct world *w, const char *name, const char *args);
/* As if the function had been deployed anew, or its aliases changed. */
void world_change(struct world *w, const char *name);
/* One of several versions of a name is live. */
void world_live(struct world *w, struct function_version *v);
/* Lookups are not in the cache and answered only by world_answer_lookups. */
void world_hold_lookups(struct world *w, bool hold);
void world_answer_lookups(struct world *w);

/* A caller that keeps what it is told. */
struct client {
    struct sched_call *call;
    bool hold; /* does not answer data_done by itself */
    bool cancel_on_response;
    unsigned responses, pieces, rooms, ends;
    unsigned status;
    char fields[256];
    bool last;
    struct un_buf body;
    struct sched_phases at_response;
    struct sched_outcome outcome; /* detail and log_tail are below */
    char detail[512], log_tail[2100], id[UN_ID_SIZE];
    uint64_t ended_at_us;
    struct world *w;
};
/* GET without a body. */
void client_get(struct world *w, struct client *c, const char *function);
/* POST; the body follows by sched_call_body. -1: length not declared. */
void client_post(struct world *w, struct client *c, const char *function, int64_t length);
void client_done(struct client *c);

/* Calls that wait; of functions one by one there are as many. */
unsigned world_waiting(struct world *w);
unsigned world_count(struct world *w, enum instance_state state);
struct fake_stats world_fake(struct world *w);
/* Finds the receipt of an invocation, waiting for the database. False when there is none. */
bool world_receipt(struct world *w, const char *id, struct receipt *ret);

/* In microseconds. */
#define MS     1000ull
#define SECOND 1000000ull

/* The client has been told the end, once, and with this outcome. */
#define assert_ended(c, k)                                                                         \
    do {                                                                                           \
        assert_int_equal((c).ends, 1);                                                             \
        if ((c).outcome.kind != (k)) {                                                             \
            fail_msg("outcome %s: %s", sched_outcome_name((c).outcome.kind), (c).detail);          \
        }                                                                                          \
    } while (0)

#endif
