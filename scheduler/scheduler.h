/* scheduler.h - who runs when, in which VM: admission, the waiting room, the pool of shells, time
 * limits.
 *
 * The way of an invocation ("call"):
 *
 *     sched_call_start -> resolve the version -> admit: memory and the function's concurrency allow
 * it? no  -> wait in the function's queue, bounded in number and time, else refuse with Retry-After
 *         yes -> take a shell from the pool, or make one -> bind and run -> stream -> free ->
 * receipt
 *
 * Where things are: call.c the invocation's flow, instance.c the VM's state machine (the one place
 * where an instance's state changes), pool.c how many shells to keep (policy: pool_policy.c, pure),
 * warm.c VMs that were put back for another run of their function, queue.c the waiting room (policy:
 * admission.c, pure), prepare.c snapshots ahead of the first call, receipt.c what is written down,
 * services.c which machines of which version are kept, console.c what they write, async.c and async_*.c
 * the durable queue, deadletter.c what it gave up, interface.c what programs of each interface see and say
 * (pure), egress.c what they ask of the host, dial.c connections to others.
 *
 * The scheduler serves no HTTP and does not know which hypervisor it drives. Loop thread.
 */
#ifndef UNID_SCHEDULER_SCHEDULER_H
#define UNID_SCHEDULER_SCHEDULER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/id.h"
#include "common/loop.h"
#include "common/workers.h"
#include "hypervisor/hv.h"
#include "hypervisor/machine.h"
#include "imagestore/function.h"
#include "imagestore/image.h"
#include "store/store.h"

/* --- the scheduler ---------------------------------------------------------------------------- */

/* When an event is tried again and when it is given up. A 0 takes the
 * default: that of the settings, and there that of common/limits.h. */
struct async_policy {
    unsigned max_attempts;    /* that failed; those that did not come to run are not counted */
    uint64_t max_age_ms;      /* since it was accepted; looked at when an attempt has failed */
    uint32_t backoff_base_ms; /* the delay behind failure n is random in [0, base * 2^(n-1)] ... */
    uint32_t backoff_max_ms;  /* ... and at most this */
};

struct sched_settings {
    uint64_t memory_mib; /* of all VMs together; 0: half of the host's */
    uint64_t shell_mib;  /* memory of a pool's shell; larger functions get shells of their own */
    /* Of the first driver: shells kept when idle (0 allowed); most while busy. */
    unsigned pool_min, pool_max;
    uint64_t pool_idle_us; /* without a request for so long, one shell more than pool_min is let go,
                         and a VM that waits for another run of its function */
    unsigned queue_per_function, queue_total;
    uint64_t queue_wait_us;
    uint64_t max_request_bytes, max_response_bytes, max_log_bytes;
    uint64_t receipts_max_rows, receipts_max_age_us;
    uint64_t logs_max_bytes, logs_max_age_us;
    unsigned metrics_functions; /* that are counted each for itself */
    /* Requests of failed invocations: bytes of one (0: none are kept), of all, age. */
    uint64_t replay_request_bytes, replay_total_bytes, replay_age_us;
    struct async_policy retry; /* of events whose sender says nothing else */
};
void sched_settings_init(struct sched_settings *s); /* the defaults of common/limits.h */

struct sched_spec {
    struct un_loop *loop; /* all kept until sched_close */
    struct un_workers *workers;
    struct store *store; /* opened with scheduler_schema among its schemas */
    struct imagestore *images;
    struct registry *registry;
    /* What functions may run on; the first is what "auto" means. Or one alone, in `driver`. The list
     * itself is copied. */
    struct hv_driver *const *drivers;
    size_t driver_count; /* at most SCHED_DRIVERS_MAX; 0: `driver` */
    struct hv_driver *driver;
    struct sched_settings settings; /* copied */
};

enum { SCHED_DRIVERS_MAX = 4 };

struct scheduler;
extern const struct store_schema scheduler_schema;

int sched_open(const struct sched_spec *spec, struct scheduler **ret, struct un_error *err);

/* New calls are refused from now on; `cb` comes when nothing runs and nothing waits, at the latest
 * after `limit_us`, by then everything left has been ended (outcome SCHED_DRAINING). Queued async
 * work stays in the database. */
void sched_drain(struct scheduler *s, uint64_t limit_us, void (*cb)(void *arg), void *arg);

/* After draining. Waits (running the loop) until all VMs are gone. NULL is allowed. */
void sched_close(struct scheduler *s);

/* Whether the drivers of this build can run images of a kind: 0, or -ENOTSUP with which kinds they
 * run and what to do. Pure; any thread. */
int sched_can_run(const struct scheduler *s, enum image_kind kind, struct un_error *err);

/* Whether the places that a function wants to reserve fit beside those of the others: 0, or -EINVAL with
 * what to do. */
int sched_check_reserved(const struct scheduler *s, const char *name,
                         const struct function_config *config, struct un_error *err);

/* The flavor of a machine image: what its configuration says, else what the image (may be NULL: ""). Pure. */
const char *sched_machine_flavor(const struct function_config *config,
                                 const struct image_mapping *image);

/* Whether VMs can ever be made as the configuration says: memory; a machine image's flavor, command line and
 * egress. -EINVAL with what to do, -E2BIG. */
int sched_check_config(const struct scheduler *s, const struct function_config *config,
                       struct un_error *err);

/* Whether so much memory is free of what all VMs may have together; idle shells are let go for it, so
 * asking again soon may help. */
bool sched_may_use(struct scheduler *s, uint64_t bytes);
/* The same, but nothing is let go. */
bool sched_is_free(const struct scheduler *s, uint64_t bytes);

/* What makes the connections of programs (dial.h), for others that make some under the same rules.
 * Borrowed until sched_close. */
struct dialer;
struct dialer *sched_dialer(struct scheduler *s);
/* Connections that machines of a function have opened are counted for /metrics. */
void sched_count_egress(struct scheduler *s, const char *function, const struct hv_egress *more);

/* --- a call ----------------------------------------------------------------------------------- */

/* What a call came by: the gateway, REST, REST to be run later, a trigger, another function's
 * destination, a request run again, a connection
 * to a function that speaks a protocol of its own. Stored as numbers: only to be added to. */
enum sched_trigger {
    SCHED_HTTP,
    SCHED_INVOKE,
    SCHED_ASYNC,
    SCHED_EVENT,
    SCHED_DESTINATION,
    SCHED_REPLAY,
    SCHED_TCP
};
const char *sched_trigger_name(enum sched_trigger t); /* "http", "invoke", "async", ... */

enum sched_outcome_kind {
    SCHED_OK,           /* the function answered with success */
    SCHED_NO_FUNCTION,  /* no such function, version or alias */
    SCHED_QUEUE_FULL,   /* too many wait, or the wait would be too long: retry_after_s */
    SCHED_WAIT_EXPIRED, /* waited queue_wait_us in vain: retry_after_s */
    SCHED_REQUEST_TOO_LARGE,
    SCHED_LENGTH_REQUIRED, /* a cgi program needs the body's length, and the body is long */
    SCHED_RESPONSE_TOO_LARGE,
    SCHED_FAILED,     /* exit status not 0, fault, broken contract, lost VM: `exit` tells */
    SCHED_TIMED_OUT,  /* the function's timeout */
    SCHED_CANNOT_RUN, /* no driver can run this image, or no shell can be made */
    SCHED_DRAINING,
    SCHED_CANCELLED,       /* by sched_call_cancel or by killing the instance */
    SCHED_WRONG_INTERFACE, /* a request for a function that takes connections, or the other way round */
    SCHED_INTERNAL         /* our own: database, memory */
};
/* Whether receipts may have this outcome: a kind's name, or one that only queued work has. */
bool sched_outcome_known(const char *name);
const char *sched_outcome_name(enum sched_outcome_kind k); /* "ok", "no-function", ... */
/* The HTTP status that stands for an outcome: 404, 429, 413, 411, 502, 504, 503, 421, 500; 200 for SCHED_OK,
 * whose real status is the function's own. */
unsigned sched_outcome_status(enum sched_outcome_kind k);

/* Phases in microseconds; 0 for a phase that was not reached. They follow each other without gaps:
 * queue (until a shell was there for it), bind (image, request into the VM), start (until the
 * guest's first sign), first_byte (until the first byte of the response), run (until the end),
 * teardown. */
struct sched_phases {
    uint64_t queue_us, shell_us, bind_us, start_us, first_byte_us, run_us, teardown_us;
};

struct sched_outcome {
    enum sched_outcome_kind kind;
    unsigned retry_after_s;
    bool responded;      /* on_response has been called: a status line may be on its way already */
    struct hv_exit exit; /* for SCHED_FAILED */
    const char *detail;  /* one sentence for people */
    const struct unid_report *report; /* what the library OS counted; all zero without one */
    const char *log_tail; /* the end of what the guest logged, at most 2 KiB, valid UTF-8 */
    struct sched_phases phases;
};

struct sched_response {
    struct hv_head head;
    const struct sched_phases *phases; /* so far */
    const void *data;
    size_t len;
    bool last; /* the response is complete with these bytes */
};

struct sched_call_events {
    /* The body's source may go on: less than LIMIT_BODY_BUFFER_BYTES is waiting. */
    void (*on_body_room)(void *arg);
    /* The response's head with its first bytes (len may be 0), then more. Answer each with
     * sched_call_data_done when the bytes have found room; they are borrowed until then. Only a
     * successful function's output comes here, unless it had streamed before it failed. */
    void (*on_response)(void *arg, const struct sched_response *response);
    void (*on_data)(void *arg, const void *data, size_t len, bool last);
    /* Once; the call is gone when this returns. Never inside sched_call_start. */
    void (*on_end)(void *arg, const struct sched_outcome *outcome);
};

struct sched_call_spec {
    const char *function, *qualifier; /* qualifier may be NULL; all borrowed */
    enum sched_trigger trigger;
    const char *trigger_name; /* or NULL */
    const char *replay_of;    /* the invocation whose request is run again, or NULL */
    unsigned attempt;         /* from 1 */
    const char *id;           /* NULL: a new one is made */
    /* Of the request that the function sees. With SCHED_TCP there is none: body and answer are the two
     * directions of a connection. on_data with no bytes that are not the last says that the function has
     * shut its direction down; the body may go on. The time limit of the function ends when its machine
     * has taken the connection. */
    const char *method, *target;
    const struct hv_field *fields;
    size_t field_count;
    int64_t content_length; /* -1: not known */
    const char *uri;        /* the request target as the client sent it; NULL: there was none */
    const char *peer;       /* the client's IP address; NULL: not known */
    bool http10;            /* the client speaks HTTP/1.0 */
    bool own_port;  /* came in at a port of the function's own: no prefix is cut off its path */
    unsigned depth; /* functions that have called each other up to this call: 1, and one more for
                               each; such a call is served while others are drained. 0: not a function's */
    const struct sched_call_events *events; /* kept */
    void *arg;
};

struct sched_call;

/* Starts a call; it is on its way when this returns 0 (everything else comes by on_end). -ENOMEM,
 * -E2BIG the request head is larger than a guest can take. */
int sched_call_start(struct scheduler *s, const struct sched_call_spec *spec,
                     struct sched_call **ret, struct un_error *err);
const char *sched_call_id(const struct sched_call *c);
/* Takes a copy. Returns 1 when the source may go on, 0 when it should wait for on_body_room. */
int sched_call_body(struct sched_call *c, const void *data, size_t len, bool eof);
void sched_call_data_done(struct sched_call *c);
/* The client went away: the VM is destroyed, the receipt says so; on_end is not called. */
void sched_call_cancel(struct sched_call *c);

/* --- before the first call -------------------------------------------------------------------- */

/* 0: the function may be called (also when its driver has no use for preparing, is not there, or
 * could not do it now). With `log_tail`, the program itself is at fault, before it asked for a request:
 * -EPROTO it ended, -ETIMEDOUT it took too long, -EINVAL, -ENOMEM, -E2BIG as from vm_run; it is the
 * end of what the program logged (valid UTF-8, may be empty). Else the image cannot be read: errors of
 * image_open. `report` is what the program's library OS counted up to its snapshot, zeros when that was there
 * already (NULL: not known). Borrowed. */
typedef void sched_prepare_cb(void *arg, int rc, const struct un_error *err, const char *log_tail,
                              const struct unid_report *report);

/* Has the driver make the snapshot of a function that is about to be deployed, from an SDK image.
 * `config->image` is a digest; `name` and `config` are kept until `cb`, which comes once, never inside
 * the call (but -ENOMEM, when the request itself finds no memory), within the function's timeout (from
 * LIMIT_SNAPSHOT_LEAST_MS to LIMIT_SNAPSHOT_BUILD_MS) and what the driver needs itself. */
void sched_prepare(struct scheduler *s, const char *name, const struct function_config *config,
                   sched_prepare_cb *cb, void *arg);

/* --- instances -------------------------------------------------------------------------------- */

/*     STARTING --ready--> IDLE --taken--> BOUND --started--> RUNNING --exit--> ENDING --gone--> (freed)
 *        |                 |               | ^                 |                 ^
 *        |                 |               | |              success,             |
 *        |                 |               | |         isolation "reset"         |
 *        |                 |               | |                 v                 |
 *        |                 |               | +-taken- WARM <- RECYCLING          |
 *        |                 |               |           |          |              |
 *        +-----failed------+---decayed-----+-----------+----------+--------------+
 * IDLE is a shell for any function; WARM has run, was put back to its snapshot, and serves the same
 * function version again. One in RECYCLING may be promised to a call, and then goes to BOUND at once.
 * Invariant: an instance is in exactly one list, that of its state; only BOUND and RUNNING have a
 * call; RECYCLING and WARM belong to a set of their version (warm.c). */
enum instance_state {
    INSTANCE_STARTING,
    INSTANCE_IDLE,
    INSTANCE_BOUND,
    INSTANCE_RUNNING,
    INSTANCE_RECYCLING,
    INSTANCE_WARM,
    INSTANCE_ENDING,
    INSTANCE_STATES
};
const char *instance_state_name(enum instance_state s);

struct sched_instance_info {
    char id[UN_ID_SIZE];
    enum instance_state state;
    const char *driver;
    uint64_t mem_mib;
    int pid;
    uint64_t age_us, state_us; /* since it was begun, and since it is in this state */
    const char *state_name;    /* for people; a machine of a service has others than a VM */
    unsigned in_flight;        /* requests that it serves now */
    char function[64];         /* "" for a shell */
    uint32_t version;
    char invocation_id[UN_ID_SIZE];
};
/* Calls `fn` for each instance, borrowed: VMs, and the machines of services. */
void sched_instances(struct scheduler *s,
                     void (*fn)(void *arg, const struct sched_instance_info *info), void *arg);
/* -ENOENT. Its call ends with SCHED_CANCELLED. */
int sched_instance_kill(struct scheduler *s, const char *id, struct un_error *err);

struct sched_stats {
    unsigned instances[INSTANCE_STATES]; /* of the driver of services its connections */
    unsigned waiting;
    uint64_t memory_mib_used, memory_mib_limit;
    uint64_t calls, calls_by_outcome[SCHED_INTERNAL + 1];
    uint64_t shells_made, shells_failed;
    uint64_t looks;    /* at waiting calls, by admission: what its decisions cost */
    uint64_t recycled; /* VMs that were put back for another run */
    struct hv_service_stats machines;
    struct {
        const char *name; /* NULL behind the last */
        unsigned instances;
    } drivers[SCHED_DRIVERS_MAX + 1];
};
void sched_get_stats(struct scheduler *s, struct sched_stats *ret);
typedef void sched_waiting_fn(void *arg, const char *function, unsigned calls);
/* Calls `fn` with functions and how many of their calls wait for a virtual machine, borrowed; one function
 * may come more than once. All together are sched_stats.waiting. */
void sched_waiting(struct scheduler *s, sched_waiting_fn *fn, void *arg);

#endif
