/* service_impl.h - what the files of service/ share. Private to the folder. */
#ifndef UNID_SERVICE_SERVICE_IMPL_H
#define UNID_SERVICE_SERVICE_IMPL_H

#include <event2/bufferevent.h>
#include <netinet/in.h>

#include "common/bytes.h"
#include "common/list.h"
#include "llhttp/llhttp.h"
#include "service/policy.h"
#include "service/service.h"
#include "service/shells.h"

struct hv_driver {
    struct hv_driver_base base;
    struct un_loop *loop;
    struct hv_driver *machines;
    struct netplumb *net;
    bool (*may_use)(void *arg, uint64_t bytes);
    bool (*is_free)(void *arg, uint64_t bytes);
    void (*on_open)(void *arg, const struct service_opening *opening);
    void (*on_end)(void *arg, const void *machine);
    void (*on_console)(void *arg, const char *service, const char *line, size_t len);
    void *arg;
    const struct hv_service_events *events; /* or NULL */
    void *events_arg;
    struct un_list services;
    struct shells shells;
    unsigned machine_count; /* not gone yet, shells among them */
    uint64_t started, failed;
    void (*drained)(void *arg);
    void *drained_arg;
    struct un_post drained_post;
};

struct machine;

/* Whether a machine is wanted that cannot be begun, as another has its volumes: for requests that wait, or
 * for none. */
enum service_blocked { SERVICE_FREE, SERVICE_BLOCKED_AHEAD, SERVICE_BLOCKED };

/* One version of a function. Lives as long as it has machines or connections, is kept, or has failed
 * lately. */
struct service {
    struct un_list node;
    struct hv_driver *drv;
    char *key, *name;
    struct hv_machine_spec spec; /* what all its machines have in common; its strings are ours */
    struct hv_machine_disk *disks;
    struct hv_machine_files *files; /* what the paths in `spec` name stays */
    const struct hv_flavor *flavor;
    bool injectable; /* its machines can be made of shells */
    char *append;
    char **egress; /* NULL: nothing */
    uint16_t port;
    struct service_limits limits;
    uint32_t version;
    bool live;       /* as far as one was told: limits.min_machines counts */
    bool superseded; /* another version is live */
    bool proven;     /* a machine of it has been ready */
    bool judged;     /* on_failing was told; `judging`: and nothing has come of it yet */
    bool judging;
    enum service_blocked blocked;
    uint64_t claimed_us; /* since when another waits for its volumes; 0: none does */
    char *ready_console; /* or NULL: its port says it */
    uint64_t ready_timeout_us;
    struct un_list machines;
    struct un_list waiting; /* struct hv_vm, oldest first */
    unsigned waiting_count, connections;
    uint64_t used_us, retry_us;
    unsigned failures;   /* in a row */
    unsigned hindrances; /* in a row: machines that the host had no network for */
    unsigned misses;     /* in a row: machines that were not made as their port was taken */
    char why[160];       /* the last */
    struct un_timer timer;
    struct un_post post; /* a decision is due */
};
/* Finds it, or makes it. -ENOMEM, -EINVAL the flavor. service.c */
int service_get(struct hv_driver *drv, const struct hv_machine_config *config, struct service **ret,
                struct un_error *err);
/* Something changed: decides, soon, and frees the service when nothing is left of it. */
void service_changed(struct service *sv);
/* A machine failed. Tells those who wait when there have been too many in a row. */
void service_failed(struct service *sv, const char *why);
/* The same, but nothing that its version is to blame for. */
void service_hindered(struct service *sv, const char *why);
/* A machine has been ready beyond doubt. */
void service_proved(struct service *sv);
/* A machine, or a shell, is gone, and not in machine_count any more. */
void service_machine_gone(struct hv_driver *drv);
/* Those who wait for a machine are lost. */
void service_lose_waiting(struct service *sv);

/* versions.c: the version is live, as a request or the registry says; where another was, that is a fresh
 * chance. */
void service_live(struct service *sv);
extern const struct hv_service_ops service_version_ops;
void service_tell_machine(const struct machine *mc, bool gone);

/* volume.c: whether no machine has what the service would open; whether another service waits for what a
 * machine of this one has; somebody should look again. */
bool service_volumes_free(const struct service *sv);
bool service_volumes_claimed(const struct service *sv);
void service_volumes_changed(struct service *sv);
bool service_has_volumes(const struct service *sv);

enum machine_state {
    MACHINE_MAKING,
    MACHINE_PAUSED,
    MACHINE_STARTING,
    MACHINE_READY,
    MACHINE_ENDING
};

struct machine {
    struct un_list node;
    struct service *sv;
    enum machine_state state;
    char id[UN_ID_SIZE];
    uint64_t begun_us, state_us;
    struct hv_machine *m; /* NULL before it is begun: the network comes first */
    struct net_link *link;
    bool linking;  /* net_attach, or net_change, is under way */
    bool injected; /* it was a shell: before it is PAUSED nothing is a failure of the service */
    bool made;     /* it is, but for `linking` */
    struct sockaddr_in addr;
    unsigned in_flight;
    struct un_list connections; /* struct hv_vm, as many as in_flight */
    bool opened;                /* it has opened a connection: its end is told */
    struct hv_egress egress;    /* of all that it opened */
    bool proven;      /* it has answered once: a connection that is taken means that it listens */
    bool served;      /* it has answered a request */
    bool spent;       /* per request: it has served its one */
    uint64_t idle_us; /* READY and nothing in flight: since when */
    uint64_t started_us;
    struct un_timer timer; /* the next attempt, or the end of patience */
    struct bufferevent
        *probe; /* an attempt to connect; READY: a connection for the first request */
    bool probe_open;
    struct hv_vm *connecting; /* over QEMU's user network, where one does at a time; or NULL */
    struct un_list kept;      /* keep.c: open connections without a request */
    unsigned kept_count;
    uint64_t probe_us;           /* when it was begun */
    bool asking;                 /* hv_machine_ops.ask is under way */
    enum hv_machine_heard heard; /* the last answer */
    unsigned unheard;            /* answers in a row that told nothing */
    struct un_buf line;          /* of the console */
    char words[96];              /* its last line before that */
    struct un_buf boot;          /* per request: console bytes from before its request, bounded */
};
/* Says in `spec` how a guest is reached: over its link, or, where that is NULL, by QEMU's user network, whose
 * spec->host_port is found unless there is one. Negative errno: no port. machine.c */
int machine_reach(struct hv_machine_spec *spec, const struct net_link *link, uint16_t port,
                  struct un_error *err);
/* Begins a machine, of a shell if there is one for it. Its failures come by service_failed and service_hindered. -ENOMEM.
 * machine.c */
int machine_begin(struct service *sv);
void machine_start(struct machine *mc);
/* Ends it in any state; it is freed when all of it is gone. Requests at it are lost: FAULT where it crashed,
 * else LOST. */
void machine_end(struct machine *mc, enum hv_exit_kind kind, const char *why);
const char *machine_state_name(enum machine_state state);
/* A socket with which the machine can be reached, not connected. NULL: out of memory or descriptors. */
struct bufferevent *machine_socket(const struct machine *mc);
/* It does not listen after all, or not any more: back to STARTING, where its port is asked. */
void machine_doubt(struct machine *mc);
/* What it is that one waits for who waits for this machine, in words. */
void machine_wants(struct machine *mc, char *ret, size_t size);
/* Its connection is broken off or was closed: one request less. */
void machine_release(struct machine *mc);

/* keep.c. Watches one answer for its end. `reusable`: it was whole, nothing stood behind it, and the
 * connection may serve another request. */
struct answer_watch {
    llhttp_t parser;
    bool head_only, watching, in_body, reusable;
};
void answer_watch_begin(struct answer_watch *w, bool head_only);
void answer_watch_feed(struct answer_watch *w, const void *data, size_t len);
/* How many bytes of it are to come, by its length; 0: not known, or none. */
uint64_t answer_watch_rest(const struct answer_watch *w);
/* Takes an open connection that waits for nothing; it is closed after a while, or with the machine. */
void keep_give(struct machine *mc, struct bufferevent *bev);
/* Gives the one that was used last; NULL: there is none. */
struct bufferevent *keep_take(struct machine *mc);
void keep_drop_all(struct machine *mc);

/* What its console has said until now is told. */
void machine_read_log(struct machine *mc);
/* It serves the connection from now on: what it wrote before is that one's log too. */
void machine_give_boot_log(struct machine *mc, struct hv_vm *vm);

/* The way of a connection (struct hv_vm): connection.c */
void connection_assign(struct hv_vm *vm, struct machine *mc);
void connection_lost(struct hv_vm *vm, enum hv_exit_kind kind, const char *why);
void connection_log(struct hv_vm *vm, const void *data, size_t len);
/* It leaves its machine and its service, and on_exit follows. Once. */
void connection_end(struct hv_vm *vm, enum hv_exit_kind kind, const char *detail);
/* An attempt to connect has been begun: the only one of its machine, and repeated soon, over QEMU's user network. */
void connection_attempted(struct hv_vm *vm);
/* The machine, or QEMU for it, has taken the connection. */
void connection_reached(struct hv_vm *vm);
/* The machine did not take it: it waits again, in front of the others. */
void connection_requeue(struct hv_vm *vm);
int connection_new(struct hv_driver *drv, const struct hv_vm_spec *spec, struct hv_vm **ret,
                   struct un_error *err);
int connection_run(struct hv_vm *vm, const struct hv_run_spec *spec, struct un_error *err);
void connection_input(struct hv_vm *vm, const void *data, size_t len, bool eof);
void connection_output_done(struct hv_vm *vm);
void connection_usage(struct hv_vm *vm, struct hv_usage *ret);
void connection_wants(struct hv_vm *vm, char *ret, size_t size);
int connection_pid(struct hv_vm *vm);
void connection_free(struct hv_vm *vm);

/* The same of a connection without requests: stream.c. `is_connected`: its socket is. */
void stream_assign(struct hv_vm *vm, bool is_connected);
void stream_input(struct hv_vm *vm, const void *data, size_t len, bool eof);
void stream_output_done(struct hv_vm *vm);
/* Before its socket is closed. */
void stream_leave(struct hv_vm *vm);

struct hv_vm {
    struct hv_vm_base base;
    struct hv_driver *drv;
    const struct hv_vm_events *events;
    void *arg;
    struct un_list node; /* in the service's waiting, or the machine's connections */
    struct service *sv;
    struct machine *mc;
    struct bufferevent *bev;
    unsigned depth;          /* hv_run_spec.depth */
    bool per_request;        /* its machine serves nothing else */
    struct hv_egress egress; /* then: of its machine, that it has left */
    struct un_buf request; /* head and first body bytes, kept until the machine has shown a sign */
    bool chunked, eof;     /* the body's framing; its last byte is in */
    bool started, input_wanted, peer_closed, answered, ended, freed;
    struct evbuffer *piece; /* of the answer, taken from bev; its first output_len bytes are out */
    size_t output_len;
    int read_least;  /* SO_RCVLOWAT; 0: as it was made */
    bool repeatable; /* the request may be sent again: over a connection that may be closing */
    bool reused;     /* that has served another request */
    struct answer_watch watch;
    struct hv_exit why;
    /* UNID_INTERFACE_TCP: the machine has taken it, the client's end has been passed on, the machine's has
     * been told, a piece is out */
    bool raw, taken, shut, output_ended, output_out;
    bool reached;                     /* the machine, or QEMU for it, has taken the connection */
    uint64_t assigned_us, reached_us; /* since when it is asked to; since when it has */
    struct un_timer again;            /* over QEMU's user network: the next attempt */
    unsigned attempts;                /* in vain */
    bool spoke;             /* UNID_INTERFACE_TCP: a byte of the machine's has come, or its end */
    struct un_timer settle; /* connected, not counted as taken yet */
    struct un_post post;    /* on_ready, on_exit, on_gone */
};

#endif
