/* scheduler_impl.h - what the scheduler's own files share. Not for other folders.
 *
 * Who writes what: instance.c an instance's state and its lists, call.c a call's state, queue.c the
 * lines and the ring, pool.c the shell classes, warm.c the sets of VMs that were put back, receipt.c and guest_log.c the records, async.c the
 * durable queue.
 */
#ifndef UNID_SCHEDULER_IMPL_H
#define UNID_SCHEDULER_IMPL_H

#include <string.h>

#include "common/bytes.h"
#include "common/limits.h"
#include "common/list.h"
#include "hypervisor/machine.h"
#include "scheduler/admission.h"
#include "scheduler/async/async.h"
#include "scheduler/egress/egress.h"
#include "scheduler/interface/interface.h"
#include "scheduler/pool_policy.h"
#include "scheduler/record/guest_log.h"
#include "scheduler/record/metrics.h"
#include "scheduler/record/news.h"
#include "scheduler/record/receipt.h"
#include "scheduler/record/replay_impl.h"
#include "scheduler/scheduler.h"

enum {
    LINE_BUCKETS = 1024, /* of the table of lines, by name */
    LINES_KEPT = 64,     /* lines without a call, kept for their image and their mean */
    DETAIL_BYTES = 320,
    LOG_TAIL_BYTES = 2048
};

struct instance;

/* --- the durable queue ------------------------------------------------------------------------ */

struct async_recent;
struct un_workers;

/* What becomes of an event with its attempt's receipt, in one transaction; scheduler/async/end.c. */
enum async_action {
    ASYNC_END_NONE, /* the receipt is of no queued event */
    ASYNC_END_REMOVE,
    ASYNC_END_DELAY,
    ASYNC_END_DIE
};
struct async_end {
    enum async_action action;
    int64_t seq;
    uint64_t due_us, delay_us; /* DELAY */
    unsigned failures;
    char reason[256];           /* DIE */
    struct async_event *follow; /* what its destination gets, or NULL; owned */
    bool follow_dead;           /* it has passed too many already */
};

struct async_queue {
    struct un_timer timer;
    bool loading, again, loaded;
    unsigned running, delivering; /* attempts of functions; deliveries to HTTP destinations */
    unsigned ending;              /* attempts over whose records are not on disk */
    uint64_t accepting;           /* bytes that are on their way to the disk */
    uint64_t bytes;               /* what the attempts hold in memory, as async_event_cost says */
    uint64_t rows, dead;          /* not dead, dead; known once `loaded` */
    char *cursor, *url_cursor;    /* the lanes that had the last turns */
    struct un_list entries, lanes;
    struct un_list idle_lanes; /* that hold no place now, the longest idle first */
    unsigned idle_lane_count;
    struct async_recent *recent; /* the writer thread's */
    struct un_workers *deliverers;
    struct async_hooks hooks;
    struct async_stats stats;
};
int async_init(struct scheduler *s, struct un_error *err);
void async_done(struct scheduler *s);
/* The daemon is about to end: deliveries are cut short. */
void async_stop(struct scheduler *s);
void async_wake(struct scheduler *s);
/* Store's writer thread, with the batch that has the receipt. */
int async_end_write(sqlite3 *db, const struct async_end *end, uint64_t now_us, const char *outcome,
                    struct un_error *err);
/* Afterwards, on the loop. */
void async_end_written(struct scheduler *s, const struct async_end *end);
void async_end_free(struct async_end *end);

/* --- records: a receipt on its way to the disk, with its log ---------------------------------- */

struct record {
    struct un_list node; /* in the list of those to be written, then in that of the batch */
    struct receipt receipt;
    struct guest_log log;
    /* Waits for the end of what follows the call; record_submit only notes that it came. */
    bool held, came;
    struct async_end end;     /* of the durable queue; goes together with it */
    struct replay_kept *kept; /* the request, when it is to be kept; or NULL */
};
struct record *record_new(void);
void record_free(struct record *r);
/* Takes the record: it will be written with the next batch. */
void record_submit(struct scheduler *s, struct record *r);

/* The writer of records; receipt.c. */
struct record_writer {
    struct un_list pending; /* oldest first */
    unsigned pending_count;
    size_t pending_bytes;       /* of their logs */
    struct record_batch *batch; /* being written, or NULL */
    struct un_timer timer;
    uint64_t dropped;
    unsigned failures; /* of batches, in a row */
};
void record_writer_init(struct scheduler *s);
void record_writer_done(struct scheduler *s);
void record_writer_flush(struct scheduler *s);
bool record_writer_idle(const struct scheduler *s);

/* --- lines: a function's place in the waiting room -------------------------------------------- */

/* A line is in one of the two rings when it has a call that waits and a free place; in the list of idle lines
 * when no call refers to it; else in neither. */
struct line {
    struct line *hash_next;
    struct un_list node;
    char name[64];
    struct un_list waiting; /* calls, oldest first */
    unsigned waiting_count;
    unsigned running;      /* places taken */
    unsigned reserved;     /* places that others cannot take; reserve.c writes these */
    uint64_t reserved_mib; /* memory of each of them */
    uint64_t unused_mib;   /* of those that are not taken */
    bool in_reserved_ring; /* while it is in a ring: in which */
    unsigned refs;         /* of calls and warm sets */
    struct admission_mean mean;
    struct image_mapping *image; /* of the version that was called last, or NULL */
    struct un_list warm_sets;    /* of the versions that have VMs to be used again */
    uint64_t generation;         /* raised when the function changes */
};
/* Finds or makes; counts a reference (line_put). NULL when out of memory. */
struct line *line_get(struct scheduler *s, const char *name);
/* NULL when there is none. No reference. */
struct line *line_find(struct scheduler *s, const char *name);
void line_put(struct scheduler *s, struct line *l);
void lines_init(struct scheduler *s);
void lines_done(struct scheduler *s);
/* Puts the line where it belongs after a call, a place or a reservation came or went. */
void line_settle(struct scheduler *s, struct line *l);

/* Reserved places; reserve.c. */
void reserve_init(struct scheduler *s);
void reserve_done(struct scheduler *s);
/* After a place of the line was taken or left. */
void reserve_settle(struct scheduler *s, struct line *l);
/* MiB that all functions but this one have reserved. */
uint64_t reserve_of_others(const struct scheduler *s, const char *name);

/* Puts a call at the end of its line, starts what can start, and refuses it when it would have to
 * wait and may not. */
void queue_enter(struct sched_call *c);
/* A call that waited, or had a place, goes. queue_dispatch has to follow. */
void queue_leave_line(struct sched_call *c);
void queue_leave_place(struct sched_call *c);
/* Admits calls as long as places and memory allow, one function after the other. */
void queue_dispatch(struct scheduler *s);
unsigned queue_retry_after_s(const struct sched_call *c);

/* --- shells, by driver and memory size -------------------------------------------------------- */

struct sched_driver {
    struct hv_driver *drv;
    const struct hv_driver_ops *ops;
    struct shell_class *classes; /* SHELL_CLASSES of them, of growing size */
    unsigned instances;
};

struct shell_class {
    struct scheduler *s;
    struct sched_driver *driver;
    uint64_t mib;
    struct pool_policy policy;
    struct un_list idle;   /* instances, newest first */
    struct un_list claims; /* admitted calls without a shell, oldest first */
    unsigned idle_count, starting_count, claim_count;
    struct un_timer timer;
    char why[DETAIL_BYTES]; /* the last failure */
};
void pool_init(struct scheduler *s);
void pool_done(struct scheduler *s);
/* The driver that runs the function; NULL when this daemon has not opened it. */
/* Whether it is the driver of services, which makes machines of its own: its VMs are connections. */
static inline bool driver_runs_machines(const struct sched_driver *d)
{
    return d->ops->memory_bytes != NULL;
}
struct sched_driver *pool_driver(struct scheduler *s, const struct function_config *config);
/* An admitted call gets a VM, now or when one is there. */
void pool_claim(struct sched_call *c);
/* As pool_claim, a shell in any case. */
void pool_claim_shell(struct sched_call *c);
/* Gives idle shells to claims, makes or lets go what the policy says. */
void pool_update(struct shell_class *cls);
void pool_update_all(struct scheduler *s);
void pool_shell_failed(struct shell_class *cls, uint64_t round, const struct un_error *err);
/* Lets idle shells and warm VMs go until `mib` are on their way out. */
void pool_evict(struct scheduler *s, uint64_t mib);
/* Memory of all instances, and of shells that are promised to claims but not begun. */
uint64_t pool_memory_used(const struct scheduler *s);
/* Of it, what drivers use for machines of their own. */
uint64_t pool_machines_mib(const struct scheduler *s);
/* Whether the places that are reserved leave room for so much. */
bool pool_leaves_reserved(const struct scheduler *s, uint64_t mib);

/* --- VMs to be used again, by function version; warm.c ---------------------------------------- */

/* Lives as long as an instance or a call refers to it. */
struct warm_set {
    struct scheduler *s;
    struct un_list node; /* in the line's; not linked: the function has changed since */
    struct line *line;   /* a reference */
    struct function_version *version; /* a reference */
    struct un_list idle;              /* WARM instances, newest first */
    struct un_list expects;           /* calls in EXPECT, oldest first */
    unsigned idle_count, recycling_count, expect_count;
    unsigned refs;
};
void warm_init(struct scheduler *s);
void warm_done(struct scheduler *s);
/* The set of the call's version, with a reference; made when missing. NULL: out of memory, or the
 * VM is not to be kept. */
struct warm_set *warm_set_for(struct sched_call *c);
void warm_set_unref(struct warm_set *set);
/* The call has ended with success in that VM: where each gets one of its own, the next one's is bound
 * ahead. */
void warm_ahead(struct sched_call *c, const struct instance *used);
/* Whether a VM is there for this call, or is being put back and not promised to another. */
bool warm_has(const struct sched_call *c);
/* An admitted call takes a warm VM, or waits for one being put back. False: there is none. */
bool warm_claim(struct sched_call *c);
/* The instance is WARM now: to the oldest call that expects one, else it waits for idle_us at most. */
void warm_ready(struct instance *i);
/* Where calls expect more than there is, those that came last go for a shell. */
void warm_settle(struct warm_set *set);
/* Lets go the longest unused until `mib` are on their way out. */
void warm_evict(struct scheduler *s, uint64_t mib);

/* --- instances -------------------------------------------------------------------------------- */

struct instance {
    struct un_list node;      /* in the list of its state; idle ones in their class's */
    struct un_list warm_node; /* WARM only: in its set's */
    struct warm_set *set;     /* RECYCLING and WARM only; a reference */
    enum instance_state state;
    struct scheduler *s;
    struct shell_class *cls;
    struct hv_vm *vm;
    struct sched_call *call; /* BOUND and RUNNING only */
    struct record *record;   /* ENDING and RECYCLING only: waits for the time that they take */
    char id[UN_ID_SIZE];
    uint64_t born_us, state_us; /* since when it is in its state */
    uint64_t ended_us;          /* when its call ended */
    uint64_t round;             /* the pool policy's when it was begun */
    uint64_t warm_us;           /* WARM: since when */
    bool bound_ahead;           /* of its first call */
    unsigned runs;
    struct hv_usage used_before; /* by earlier runs */
};
/* Begins a shell. A negative errno when the driver refused. */
int instance_start(struct shell_class *cls, struct un_error *err);
/* IDLE or WARM: runs the call in it. On an error the instance is still what it was. */
int instance_run(struct instance *i, struct sched_call *c, const struct hv_run_spec *run,
                 struct un_error *err);
/* Takes the record (may be NULL) and destroys the VM. */
void instance_end(struct instance *i, struct record *record);
/* RUNNING, and its guest has ended with success: puts the VM back for another run of its version.
 * Takes the set's reference and the record. When the driver refuses, it is instance_end. */
void instance_recycle(struct instance *i, struct warm_set *set, struct record *record);
/* IDLE: binds it to the set's version, ahead of a call. Takes the set's reference. When the driver refuses
 * it is as before, the reference is given back, and false is returned. */
bool instance_bind_ahead(struct instance *i, struct warm_set *set);
/* What the run of this call has used. */
void instance_usage(const struct instance *i, struct hv_usage *ret);

/* --- calls ------------------------------------------------------------------------------------ */

/*  LOOKUP --> WAITING --admitted--> CLAIM --shell there--> BOUND --on_started--> RUNNING
 *     |          |                  | ^                     | ^                    |
 *     |          |                  | +-----lost, unbegun---|-|--------------------+
 *     |          |                  | +-none comes-- EXPECT-|-+                    |
 *     |          +--admitted, a VM is being put back-> |    |                      |
 *     +----------+------------------+--- call_finish --+----+----------------------+--> ENDED --> (freed)
 * A call that was not sent, or in vain, goes from CLAIM, BOUND or RUNNING back to LOOKUP when its version is
 * not live any more (call_move). Invariant: WAITING is in its line, CLAIM in its class's claims, EXPECT in its warm set's expects;
 * CLAIM, EXPECT, BOUND and RUNNING hold a place of the line; BOUND, RUNNING and (until it is freed)
 * ENDED have an instance. ENDED has a post on its way that calls on_end and frees. */
enum call_state {
    CALL_LOOKUP,
    CALL_WAITING,
    CALL_CLAIM,
    CALL_EXPECT,
    CALL_BOUND,
    CALL_RUNNING,
    CALL_ENDED
};

enum call_phase {
    PHASE_QUEUE,
    PHASE_SHELL,
    PHASE_BIND,
    PHASE_START,
    PHASE_FIRST_BYTE,
    PHASE_RUN,
    PHASES
};

struct sched_call {
    struct un_list node;       /* all calls of the scheduler */
    struct un_list queue_node; /* the line's waiting, the class's claims, or the set's expects */
    struct scheduler *s;
    enum call_state state;
    const struct sched_call_events *events; /* NULL after sched_call_cancel */
    void *arg;
    char *function, *qualifier;
    int64_t content_length;
    char *uri, *peer;
    bool http10, own_port;
    unsigned depth;
    bool stream;        /* a connection: raw bytes both ways, no head */
    bool length_wanted; /* waits for the end of its body, to know its length; LOOKUP only */
    struct un_buf
        head; /* the request head as abi.h says; once there is a version, by its interface */

    struct function_version *version;    /* a reference, once resolved */
    struct image_mapping *image;         /* a reference, once open */
    struct image_mapping *initrd, *disk; /* likewise, of what a machine gets besides */
    struct line *line;
    uint64_t generation; /* the line's, when the version was found */
    struct shell_class *cls;
    struct warm_set *expects; /* EXPECT only; a reference */
    struct instance *instance;
    bool lookup_pending; /* a callback of the registry or the image store is on its way */
    bool zombie;         /* ended, and only waits for that callback */

    struct un_timer timer; /* end of the wait, then the function's time limit */
    struct un_post post;   /* begin, then end */

    enum call_phase phase;
    uint64_t phase_us[PHASES];
    uint64_t mark_us, began_us, admitted_us, bound_us; /* loop time */

    /* the request's body */
    struct un_buf body;
    size_t body_at;   /* of it, given to the guest already */
    size_t bound_len; /* given to a VM that has shown no sign yet: kept in case it is lost */
    unsigned rebinds; /* VMs lost before their guest ran */
    unsigned moves;   /* to another version, as its own was not live any more */
    uint64_t in_vain; /* id of the version that it could not be sent to, for `exit`; 0: none */
    struct un_buf
        raw_head; /* of a machine image's call until it is sent: as before the interface's work */
    bool body_eof, source_waits;
    size_t input_room; /* what the guest waits for; 0: it does not */

    /* the response */
    struct interface_reader *reader; /* of the program's output; NULL: head and body come apart */
    struct hv_head response_head;
    struct hv_field *response_fields;
    char *response_text;
    struct sched_phases response_phases;
    bool responded, output_held, last_sent;
    struct egress *egress; /* once the guest has asked for time or a connection */
    bool guest_done;       /* it has ended with success; its VM awaits no answer */

    enum sched_outcome_kind kind;
    unsigned retry_after_s;
    struct hv_exit exit;
    char detail[DETAIL_BYTES];
    struct record *record;
    struct replay_kept *kept; /* its request and answer so far, or NULL; replay.c */
};

/* Whether VMs of `memory_mib` can ever be made: 0, or -EINVAL with what to do. check.c */
int sched_check_memory(const struct scheduler *s, uint32_t memory_mib, struct un_error *err);
/* The program's part of what a driver runs. `argv` is run_argv's, freed by the caller with free(); it
 * borrows its words. NULL when out of memory. prepare.c */
const char **run_argv(const char *name, const struct function_config *config);
/* The program's environment, likewise. */
const char **run_envp(const struct function_config *config);
/* The machine of a machine image, for hv_run_spec.machine; `words` holds what it points at, and has to
 * live as long, as has a reference to its `files` (hv_machine_files_unref). */
enum { MACHINE_KEY_SIZE = 96 };
struct machine_words {
    char key[MACHINE_KEY_SIZE], path[4096], initrd[4096];
    char disk_paths[1 + MACHINE_VOLUMES_MAX][4096];
    struct hv_machine_disk disks[1 + MACHINE_VOLUMES_MAX];
};
/* What a machine is made of: images as far as the version names them. */
struct machine_parts {
    struct imagestore *images; /* has the volumes */
    const struct function_version *version;
    /* Borrowed, and referred to by `files`; NULL: none. */
    struct image_mapping *image, *initrd, *disk;
};
/* Whether it can be started: egress, flavor and command line; 0 for a program. machine.c */
int sched_check_machine(const struct function_config *config, struct un_error *err);
int machine_config_of(const struct machine_parts *p, struct machine_words *words,
                      struct hv_machine_config *ret, struct un_error *err);
void machine_key_of(const struct function_version *v, char ret[MACHINE_KEY_SIZE]);
/* Requests of a function at once. */
unsigned config_places(const struct function_config *config);
struct hv_run_spec run_spec_of(const struct image_mapping *image,
                               const struct function_config *config, const char *const *argv,
                               const char *const *envp);

/* Ends a call; on_end comes from the loop. Nothing happens when it has ended already. */
void call_finish(struct sched_call *c, enum sched_outcome_kind kind, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The one place where a call's state is written. */
void call_set_state(struct sched_call *c, enum call_state state);
void call_enter_phase(struct sched_call *c, enum call_phase phase);
/* A VM is there. False when it was not used: then the call has ended, or a WARM instance has, and the
 * call waits on. */
bool call_bind(struct sched_call *c, struct instance *i);
/* The VM was lost before its guest ran: claims another shell. False when that has happened too often. */
bool call_rebind(struct sched_call *c);

/* Whether the call goes to whichever version is live. */
static inline bool call_wants_live(const struct sched_call *c)
{
    return !c->qualifier || strcmp(c->qualifier, "live") == 0;
}
/* Another version has gone live since the call's was found. */
bool call_overtaken(const struct sched_call *c);
/* The call of a machine image, not sent yet, or sent in vain: looks its version up again. False when that
 * has happened too often, or something of the request is not here any more. */
bool call_move(struct sched_call *c); /* call_move.c */
/* Ends a call whose VM came to an end that is no success. call_stream.c */
void call_fail(struct sched_call *c, const struct hv_exit *why);
/* LOOKUP begins; a post's function, `arg` is the call. */
void call_begin(void *arg);
void call_drop_images(struct sched_call *c);

/* The body is whole, and the call waited for that (length_wanted). */
void call_length_known(struct sched_call *c);
/* The body is longer than may be held until its length is known; call_stream.c. */
void call_refuse_length(struct sched_call *c);

/* The instance tells its call; call_stream.c. */
void call_started(struct sched_call *c);
void call_input_wanted(struct sched_call *c, size_t room);
void call_head(struct sched_call *c, const struct hv_head *head);
void call_output(struct sched_call *c, const void *data, size_t len, const struct hv_exit *last);
void call_ask(struct sched_call *c, const struct hv_ask *ask);
void call_log(struct sched_call *c, const void *data, size_t len);
void call_exited(struct sched_call *c, const struct hv_exit *why);
void call_log_finish(struct sched_call *c);
/* The first body bytes for the VM; takes them from the buffer when `taken`. */
void call_body_first(struct sched_call *c, struct hv_run_spec *run);
void call_body_taken(struct sched_call *c, size_t len);
/* The response's first byte is there: notes the phases so far. */
void call_response_begins(struct sched_call *c);

/* --- services: the versions of machine images; services.c, console.c --------------------------- */

struct services;
/* NULL where no driver runs services. */
int services_init(struct scheduler *s, struct un_error *err);
void services_done(struct scheduler *s);
/* Their machines, as instances. */
void services_each(struct scheduler *s,
                   void (*fn)(void *arg, const struct sched_instance_info *info), void *arg);
int services_kill(struct scheduler *s, const char *id, struct un_error *err);
/* Has a machine's shell let go for its memory, which counts no more. False: there is none. */
bool services_yield(struct scheduler *s);
void services_stats(const struct scheduler *s, struct hv_service_stats *ret);

/* What machines of services write to their consoles: logs of their functions, without an invocation. */
struct consoles {
    struct un_list list;  /* struct console; those that wrote last first */
    size_t pending_bytes; /* of all, not on disk yet */
    struct un_timer timer;
    struct console_batch *batch; /* being written, or NULL */
};
void consoles_init(struct scheduler *s);
void consoles_done(struct scheduler *s);
void consoles_flush(struct scheduler *s);
void console_add(struct scheduler *s, const char *function, const void *data, size_t len);
/* Calls `fn` for each piece that is not known to be on disk; `id` as in the table guest_logs. */
void console_each(struct scheduler *s, const char *function,
                  void (*fn)(void *arg, const char *id, const char *text, size_t len), void *arg);
/* Whether the id of a piece is not an invocation's. */
static inline bool console_id(const char *id)
{
    return id[0] == '~';
}

/* --- the scheduler ---------------------------------------------------------------------------- */

struct scheduler {
    struct un_loop *loop;
    struct un_workers *workers;
    struct store *store;
    struct imagestore *images;
    struct registry *registry;
    struct sched_driver drivers[SCHED_DRIVERS_MAX];
    unsigned driver_count;
    struct sched_settings set;
    uint64_t wall_offset_us; /* wall clock minus loop time, at the opening */

    struct un_list calls;
    struct un_list instances[INSTANCE_STATES];
    unsigned instance_count[INSTANCE_STATES];
    uint64_t instances_mib, leaving_mib;
    struct shell_class classes[SCHED_DRIVERS_MAX * SHELL_CLASSES];
    unsigned class_count;       /* of these, so many belong to a driver */
    struct un_timer warm_timer; /* the longest unused warm VM has been so for long enough */
    unsigned expecting;         /* calls that wait for a VM being put back */

    struct line *buckets[LINE_BUCKETS];
    struct un_list ring, reserved_ring, idle_lines;
    uint64_t committed_mib;       /* of all calls that hold a place */
    uint64_t reserved_mib;        /* of all reserved places */
    uint64_t reserved_unused_mib; /* of those that are not taken */
    unsigned idle_line_count, waiting_count;
    size_t kept_bytes; /* of requests and answers that may be kept, of running calls */
    unsigned replays;  /* under way */
    size_t body_bytes; /* request bodies held for calls without a VM, all together */

    struct record_writer records;
    struct services *services; /* or NULL */
    struct consoles consoles;
    struct dialer *dialer;
    struct un_list followers;
    struct async_queue async;

    bool draining, closing;
    void (*drained)(void *arg);
    void *drained_arg;
    struct un_timer drain_timer;
    struct un_post drain_post;

    unsigned outstanding; /* callbacks of store, registry and images that are on their way */
    struct sched_stats stats;
    struct sched_metrics metrics;
    sched_news_cb *observer; /* or NULL */
    void *observer_arg;
};
/* Tells the observer, if there is one. */
void sched_tell(struct scheduler *s, const struct sched_news *news);

/* Brackets whatever calls back later, so that sched_close can wait for it. */
void sched_begin(struct scheduler *s);
void sched_done(struct scheduler *s);
/* Something ended: the drain, or the close that waits, may be complete. */
void sched_check_idle(struct scheduler *s);
/* Wall time as the loop's clock moves it on; for due times, so that tests can move it. */
uint64_t sched_wall_us(const struct scheduler *s);

/* Tells the followers of a function's log. log_store.c */
void log_tell(struct scheduler *s, const char *function, const struct log_line *line);
/* Calls `fn` for each record that is complete and not known to be on disk, newest last. receipt.c
 */
void records_each(struct scheduler *s, void (*fn)(void *arg, struct record *r), void *arg);

#endif
