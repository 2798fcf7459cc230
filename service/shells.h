/* shells.h - shells of machines, made ahead of requests and nobody's yet. Private to service/.
 *
 *     (none) --begin--> MAKING ----> PAUSED ---taken---> a machine's (shells_take)
 *                          |            |
 *                          +---- end ---+----> ENDING ----> (freed)
 *
 * A shell serves any machine of its kind whose image hv_pvh_check takes (hypervisor/pvh.h). There is none
 * until such a machine was made while requests waited for it; then one of its kind stands ready, of at most
 * SHELLS_MOST kinds, for as long as that happens every now and then. It is made when the host has memory that
 * is free, not in the middle of a wake, and is let go for whoever wants its memory.
 */
#ifndef UNID_SERVICE_SHELLS_H
#define UNID_SERVICE_SHELLS_H

#include "common/list.h"
#include "common/loop.h"
#include "hypervisor/machine.h"
#include "netplumb/net.h"

enum {
    SHELLS_MOST = 2,        /* kinds, and so shells */
    SHELLS_CALM_US = 200000 /* after a wake: to make one takes a processor for 100 ms */
};

struct shell_kind {
    uint64_t mem_bytes;
    uint16_t port; /* of the guest, which QEMU's user network forwards; 0: a tap */
};

/* What has been wanted lately. Zero-initialised: nothing. Pure, like all of shell_wishes_*. */
struct shell_wishes {
    struct {
        struct shell_kind kind;
        uint64_t until_us; /* a shell is wanted until then; 0: no entry */
    } items[SHELLS_MOST];
};
/* Such a shell is wanted until then; where there are too many kinds, the one that ends first goes. */
void shell_wishes_add(struct shell_wishes *w, const struct shell_kind *kind, uint64_t until_us);
bool shell_wishes_has(const struct shell_wishes *w, const struct shell_kind *kind, uint64_t now_us);
/* When the next wish ends; 0: there is none. */
uint64_t shell_wishes_end(const struct shell_wishes *w, uint64_t now_us);

/* The driver's. */
struct shells {
    struct un_list list; /* struct shell */
    struct shell_wishes wishes;
    uint64_t keep_us;           /* 0: there are none */
    uint64_t calm_us, retry_us; /* none is begun before */
    unsigned failures;          /* in a row */
    bool off;                   /* they cannot be, here */
    uint64_t made, used, missed, failed;
    struct un_timer timer;
};

struct shell;
struct service;

void shells_init(struct hv_driver *drv, uint32_t keep_ms);
/* Ends all; none is begun any more. */
void shells_drain(struct hv_driver *drv);
void shells_done(struct hv_driver *drv); /* all are gone */

/* A machine of the service is about to be made, for requests that wait. Gives a shell for it, which stays
 * where it is until it is taken; NULL: there is none. */
struct shell *shells_find(struct service *sv);
/* Whether there is one. */
bool shells_fit(const struct service *sv);
struct net_link *shell_link(const struct shell *sh); /* NULL: user network */
uint16_t shell_host_port(const struct shell *sh);
/* Gives the machine, whose hv_machine_ops.load must follow at once, and its link; the shell is no more. */
struct hv_machine *shells_take(struct shell *sh);
/* What was taken came to nothing. */
void shells_failed(struct hv_driver *drv, const char *why);

/* Lets one go, for its memory. False: there is none. */
bool shells_yield(struct hv_driver *drv);

void shells_each(struct hv_driver *drv, void (*fn)(void *arg, const struct hv_service_machine *m),
                 void *arg);
/* Ends it. False: it is none of theirs. */
bool shells_end(struct hv_driver *drv, const char *id);
void shells_stats(const struct hv_driver *drv, struct hv_service_stats *ret);
uint64_t shells_memory(const struct hv_driver *drv); /* bytes */

#endif
