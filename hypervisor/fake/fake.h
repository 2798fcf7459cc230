/* fake.h - the driver `fake`: VMs that exist only in this process, for tests without any
 * hypervisor.
 *
 * It obeys hv.h to the letter, with time taken from the loop's timers, so that on a virtual loop
 * every delay is exact. No guest code runs. What a "guest" does is a small program in words, found
 * in this order:
 *
 *     1. the script's `program`, when a test has set one;
 *     2. argv[1..], the arguments of the function's configuration: ["echo"], ["exit", "3"];
 *     3. the bytes "unid-fake:" in the image, followed by the words up to a NUL;
 *     4. argv[0], when the function is named as one of the behaviours;
 *     5. otherwise "hello".
 *
 * The behaviours:
 *
 *     hello                    answers "hello from a fake VM\n"
 *     echo                     streams the request's body back, a piece at a time
 *     count                    reads the whole body, answers its length in decimal
 *     request                  answers the request head as the guest would see it
 *     args | env               answers argv or envp, a line each
 *     size BYTES               answers so many bytes, streamed
 *     flood                    answers without end
 *     status CODE [HEAD]...    answers that status with those "name: value" fields and an empty
 * body exit STATUS [TEXT]       ends with an exit status and no output; TEXT is logged before
 *     late-exit STATUS         streams "partial\n", then ends with that status
 *     crash | late-crash       a page fault at address 0, at once or after "partial\n"
 *     sleep MS                 waits, then answers "slept\n"
 *     spin                     never does anything
 *     log LINE...              logs the lines, then answers "ok\n"
 *     log-flood BYTES          logs so many bytes, then answers "ok\n"
 *     wait MS                  asks the host for time to pass, then answers "waited\n"
 *     net ADDRESS [TEXT]       asks for a connection, sends TEXT, and answers what comes back; if any
 *                              of it is refused, "error ERRNO\n", also logged, with exit status 1
 *     net-hold ADDRESS         asks for a connection, and does nothing more
 *     unsupported [NUMBER TIMES]...    says in its report that such system calls were made
 *     lost | protocol | limit  ends so
 *     say PIECE...             hands out each piece (\\r, \\n, \\t in it are such bytes) and ends with the
 *                              last; say-exit STATUS PIECE... ends after it, with that status;
 *                              serve PIECE... never ends, nor does serve-size BYTES PIECE, which says
 *                              the piece and then so many bytes
 *     cgi                      a CGI program: answers its meta-variables, a line each, and the body
 *     http                     an HTTP server: answers the request's head and body in chunks, and keeps
 *                              the connection
 *     stillborn [TEXT [NUMBER]] ends with status 1 before it asks for a request, as vm_run and prepare
 *                              tell; TEXT is logged before; prepare tells of one call that is not there
 *
 * To add one: a row in the table of fake_guest.c.
 *
 * Snapshots are names: a VM that is run with a snapshot_key counts as begun from one, and can be put
 * back to it.
 */
#ifndef UNID_HYPERVISOR_FAKE_H
#define UNID_HYPERVISOR_FAKE_H

#include "hypervisor/hv.h"

extern const struct hv_driver_ops fake_driver_ops;

/* How a test steers a driver. Zero-initialised it is a driver that works at once. */
struct fake_script {
    uint64_t shell_us, start_us,
        destroy_us;             /* vm_new to on_ready, vm_run to on_started, vm_free to on_gone */
    int vm_new_rc;              /* not 0: vm_new fails with it */
    int ready_rc;               /* not 0: on_ready reports it */
    unsigned failures;          /* so many VMs fail as above, then none; 0: all */
    const char *const *program; /* NULL-terminated words; kept until replaced */
    bool never_ready;           /* on_ready never comes */
    bool never_started;         /* on_started never comes */
    bool unbegun;               /* those that are lost had not begun */
    uint64_t prepare_us;        /* prepare to its callback */
    int prepare_rc;             /* not 0: prepare fails with it */
    const char *prepare_log;    /* what the guest logs then; kept until replaced */
    uint64_t recycle_us;        /* vm_recycle to on_ready */
    int recycle_rc;             /* not 0: vm_recycle fails with it */
    int recycle_ready_rc;       /* not 0: on_ready reports it, also after vm_bind */
    bool bind;                  /* vm_bind works (in recycle_us); else there is no snapshot */
};

/* Applies to VMs made, run and freed from now on. NULL: back to the start. Loop thread. */
void fake_driver_script(struct hv_driver *drv, const struct fake_script *script);

struct fake_stats {
    unsigned made, failed, ran, gone;          /* since opening */
    unsigned starting, shells, running, ended; /* now; `ended` includes those being destroyed */
    unsigned most_starting, most_live;
    uint64_t inputs, input_bytes; /* vm_input, and the bytes that came with it and with vm_run */
    uint64_t outputs;             /* pieces handed out */
    unsigned prepared, recycled, bound;         /* since opening */
    char prepared_key[HV_SNAPSHOT_KEY_MAX + 1]; /* of the last one */
};
void fake_driver_stats(struct hv_driver *drv, struct fake_stats *ret);

/* As if every hypervisor process that is there had been killed: on_exit(HV_EXIT_LOST) for shells
 * and running VMs. Returns how many. */
unsigned fake_driver_lose_all(struct hv_driver *drv);

#endif
