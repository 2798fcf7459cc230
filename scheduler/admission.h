/* admission.h - whether a request may start, must wait, or is refused: a policy of pure functions.
 *
 * queue.c keeps the lists and asks; nothing here has a clock, allocates or does I/O.
 *
 * Memory. Every VM that exists counts with the whole size of its shell, from the call that makes it
 * until the driver says that it is gone: shells being started and idle ones, and VMs being torn
 * down too. What a request needs is the memory of a shell that must still be made for it.
 *
 * Concurrency. A function has `concurrency` places. A request holds one from the moment when it is
 * admitted (a shell is ready or is being made for it) until its end.
 */
#ifndef UNID_SCHEDULER_ADMISSION_H
#define UNID_SCHEDULER_ADMISSION_H

#include <stdbool.h>
#include <stdint.h>

enum {
    ADMISSION_RETRY_LEAST_S = 1,
    ADMISSION_RETRY_MOST_S = 300, /* beyond, the estimate says nothing any more */
    ADMISSION_SAMPLES = 8         /* before a mean is trusted enough to refuse by it */
};

/* --- size classes of shells ------------------------------------------------------------------- */

enum { SHELL_CLASSES = 18 }; /* from 1 MiB to 65536 MiB by doubling, and one */

/* The class of a function of `memory_mib`: 0 for pool shells of `shell_mib`, k for 2^k times that.
 * -1 when it can never run within `limit_mib`. */
int admission_class(uint64_t memory_mib, uint64_t shell_mib, uint64_t limit_mib);
/* The size of a class's shells: even, and never above the limit. */
uint64_t admission_class_mib(unsigned cls, uint64_t shell_mib, uint64_t limit_mib);

/* --- memory ----------------------------------------------------------------------------------- */

struct admission_memory {
    uint64_t limit_mib, used_mib;
    uint64_t leaving_mib; /* of `used`: VMs that are being torn down */
};
enum admission_verdict {
    ADMIT,       /* it fits */
    ADMIT_LATER, /* it will fit when what is leaving is gone, or when a request ends */
    ADMIT_EVICT /* idle shells should be let go, `ret_evict_mib` of them, as far as there are any */
};
enum admission_verdict admission_memory_check(const struct admission_memory *m, uint64_t need_mib,
                                              uint64_t *ret_evict_mib);

/* Whether a call may be admitted so that the places that others have reserved still fit: beside
 * `committed_mib` of admitted calls and the `need_mib` of this one. */
bool admission_leaves_reserved(uint64_t limit_mib, uint64_t committed_mib, uint64_t need_mib,
                               uint64_t reserved_mib);

/* --- the waiting room ------------------------------------------------------------------------- */

struct admission_queue {
    unsigned waiting_function, waiting_total; /* with the request in question */
    unsigned limit_function, limit_total;
    unsigned concurrency;
    unsigned
        memory_places; /* so many of its VMs fit into the memory that it may have; 0: not known */
    uint64_t mean_us;  /* how long a call holds its place: start and run; 0 when not known yet */
    uint64_t wait_us;  /* the longest that a request may wait */
};
/* Whether the last request in the queue is one too many, or would wait longer than it may. */
bool admission_refuse(const struct admission_queue *q);
/* When it is worth to come back: the time until a queue of this length has been worked off. */
unsigned admission_retry_after_s(const struct admission_queue *q);

/* An exponentially weighted mean with weight 1/8 for the newest, as RFC 6298 smooths round-trip
 * times. */
struct admission_mean {
    uint64_t us;
    unsigned samples;
};
void admission_mean_add(struct admission_mean *m, uint64_t us);
/* 0 until there are ADMISSION_SAMPLES. */
uint64_t admission_mean_get(const struct admission_mean *m);

#endif
