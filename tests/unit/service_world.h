/* service_world.h - what the tests of services share: a driver of fake machines, which are listeners in this
 * process, the driver of services on it, and requests. */
#ifndef UNID_TESTS_SERVICE_WORLD_H
#define UNID_TESTS_SERVICE_WORLD_H

#include "common/bytes.h"
#include "service/service.h"

/* What the next machines do, and what became of all. */
struct fake_machines {
    bool fail_made, crash, deaf; /* ends when started; never listens */
    unsigned ports_taken;        /* of so many machines the port is somebody else's */
    uint64_t boot_us;
    /* Connections that are taken and closed at first, as QEMU's user network does. */
    unsigned drops;
    unsigned made, started, gone, accepted, open_volumes, most_volumes;
    enum hv_exit_kind end; /* how machines that are told to end do */
    const char *says;      /* when they have booted */
    const char *unread;    /* stands on their console, and is told when it is asked for only */
    /* As behind QEMU's user network: connections are taken from the start on and answered when the guest
     * has booted; halfway it has its card. `mute`: what is asked cannot be told. */
    bool forwards, mute;
    unsigned mute_first;   /* `mute`, so many times */
    unsigned early, taken; /* connections before there was a card; in all */
    const char *answer;    /* to a request with KEEP in it, over a connection that stays open */
    bool answers_once;     /* ... and is closed when another request comes */
    char disks[256];       /* of the machine made last */
    /* Shells: cannot be; cannot be loaded; end while they are. And what became of them. */
    bool no_shells, fail_load, die_loading;
    unsigned shells, loaded;
    char cmdline[128];           /* of the machine started last */
    struct hv_machine_spec spec; /* likewise; its pointers are no longer good */
};
extern struct fake_machines fake;

struct hv_driver {
    struct hv_driver_base base;
    struct un_loop *loop;
};

/* Of fake machines that can be asked what they have heard of the guest. */
extern const struct hv_driver_ops asked_ops;

extern struct hv_machine *last_started, *last_shell;
uint64_t age_us(const struct hv_machine *m); /* since it was started */
/* Its server is gone: connections are refused; then it is there again. */
void stop_listening(struct hv_machine *m);
void listen_again(struct hv_machine *m);
/* A machine ends as `fake.end` says, with last words. */
void end_now(struct hv_machine *m);
void end_soon(struct hv_machine *m); /* when the loop runs */
/* It opens a connection to somewhere: counted in `opened`, with its depth. */
void open_out(struct hv_machine *m);

struct world {
    struct un_loop *loop; /* virtual */
    int echo;             /* see run_for */
    struct hv_driver machines;
    struct hv_driver *drv;
    struct hv_machine_config config;
    char console[256];
    bool drained, no_memory;
    uint64_t memory_mib; /* for all machines; 0: as many as like */
    /* what the driver tells of versions */
    char proven[64], failing[256], log[256], states[512];
    unsigned failings;
    unsigned opened, depth; /* connections of machines, and of the last one */
};

struct request {
    struct world *w;
    struct hv_vm *vm;
    bool ready, started, exited, gone, hold_output;
    bool raw, silent; /* a connection without requests; whose client says no more */
    unsigned ends;    /* of the machine's direction */
    unsigned depth;   /* hv_run_spec.depth */
    struct un_buf answer;
    struct hv_exit why;
    size_t more; /* body bytes to come */
    char log[256];
};

/* Set-up and tear-down of a test. */
int open_world(void **state);
int open_world_with_shells(void **state); /* kept for an hour */
int close_world(void **state);

/* Lets the world's time, which stands still otherwise, go on for a while. */
void run_for(struct world *w, unsigned ms);
struct service_stats stats_of(struct world *w);
const struct hv_service_ops *services(struct world *w);

/* A request of the function in w->config. A fake machine answers with all that came when it has read END:
 * but not with HOLD in it; with DROP it closes; with KEEP it is `fake.answer`, byte by byte with SLOW. */
void begin(struct world *w, struct request *r, const char *text);
void wait_exit(struct request *r);
void finish(struct request *r);
/* Until it has its answer, as the scheduler does that knows its end. */
void ask(struct world *w, struct request *r, const char *text);

#endif
