/* driver.h - what driver.c (the host, opening, probing) and vm.c (one VM) share. Private to them.
 */
#ifndef UNID_HYPERVISOR_LIBVIRT_DRIVER_H
#define UNID_HYPERVISOR_LIBVIRT_DRIVER_H

#include <event2/event.h>
#include <pthread.h>

#include "common/list.h"
#include "common/workers.h"
#include "hypervisor/asks.h"
#include "hypervisor/hv.h"
#include "hypervisor/layout.h"
#include "hypervisor/libvirt/choice.h"
#include "hypervisor/libvirt/host.h"
#include "hypervisor/libvirt/news.h"
#include "hypervisor/machine.h"

/* The way of the host:
 *
 *     CLEANING --clean done--> IDLE --first VM or probe--> OPENING --ok--> READY
 *                                ^                            |              |
 *                                +---------- failed ----------+--- lost -----+
 *
 * VMs and probes that come before READY wait in a list; when opening fails they are told so, and
 * the next one tries again. */

enum lv_host_state { LV_HOST_CLEANING, LV_HOST_IDLE, LV_HOST_OPENING, LV_HOST_READY };

/* Somebody who needs the host READY. */
struct lv_want {
    struct un_list node;
    /* rc 0: it is; else it could not be opened. */
    void (*fn)(struct lv_want *want, int rc, const struct un_error *err);
};

struct hv_driver {
    struct hv_driver_base base;
    struct un_loop *loop;
    char *uri, *wanted_accelerator; /* NULL: embedded; NULL: measured */
    struct lv_place place;
    struct lv_host host; /* workers read it once the state is READY */
    enum lv_host_state state;
    struct lv_choice choice; /* once `chosen`; both under the lock */
    bool chosen;
    pthread_mutex_t choice_lock;
    /* A request's resume must not stand behind a shell's making, nor that behind a removal. */
    struct un_workers *fast, *makers, *removers;
    struct un_job clean_job, open_job;
    struct un_list wants;          /* struct lv_want */
    struct un_list waiting_probes; /* struct lv_probe_request */
    uint64_t tsc_hz;
    struct lv_news *news;
    struct un_list machines; /* struct hv_machine */
    unsigned vms;            /* and machines */
};

/* The way of a VM is in hv.h. At a worker it has at most one `job` (make, resume, remove) and, from
 * its end on, `reap_job`; it is removed when both are back. */
enum lv_vm_state { LV_VM_STARTING, LV_VM_SHELL, LV_VM_RUNNING, LV_VM_ENDED };

struct hv_vm {
    struct hv_vm_base base;
    struct hv_driver *drv;
    const struct hv_vm_events *events;
    void *arg;
    enum lv_vm_state state;
    bool freed;   /* vm_free was called: only on_gone may come */
    bool busy;    /* `job` is at a worker */
    bool reaping; /* `reap_job` is */
    bool started; /* on_started came */
    bool stopped; /* SIGSTOP was sent: the guest waits for an answer */
    uint64_t mem_bytes;
    struct lv_shell shell;
    struct un_job job, reap_job;
    struct lv_want want;
    struct event *bell;
    struct un_timer stop_timer;
    struct un_post exit_post;
    struct hv_channel channel;
    struct hv_asks asks;
    bool channel_open;
    uint64_t guard, cr3;
    struct hv_usage usage; /* as of the last look */
};

/* A connection was lost: open anew for the next VM. */
void lv_driver_check(struct hv_driver *drv);

int lv_vm_new(struct hv_driver *drv, const struct hv_vm_spec *spec, struct hv_vm **ret,
              struct un_error *err);
int lv_vm_run(struct hv_vm *vm, const struct hv_run_spec *spec, struct un_error *err);
void lv_vm_input(struct hv_vm *vm, const void *data, size_t len, bool eof);
void lv_vm_output_done(struct hv_vm *vm);
void lv_vm_answer(struct hv_vm *vm, const struct hv_answer *answer);
void lv_vm_net_ready(struct hv_vm *vm, uint64_t readable, uint64_t writable);
void lv_vm_usage(struct hv_vm *vm, struct hv_usage *ret);
int lv_vm_pid(struct hv_vm *vm);
void lv_vm_free(struct hv_vm *vm);

/* Calls want->fn when the host is READY, now or later, opening it when nobody has. To take it back,
 * remove the node from its list. */
void lv_driver_want(struct hv_driver *drv, struct lv_want *want);

/* What runs our shells best: measured once, by whoever comes first; the others wait. Seconds then. Worker,
 * host READY. */
int lv_driver_choose(struct hv_driver *drv, char ret[LV_ACCELERATOR_SIZE], struct un_error *err);

/* machine.c */
extern const struct hv_machine_ops lv_machine_ops;
void lv_machine_news(void *arg, const char *domain, const struct hv_exit *why); /* lv_news_cb */

#endif
