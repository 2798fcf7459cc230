/* spawner.h - the driver's side of one unid-vmm spawner: start, commands, events, end.
 *
 *     start --> (HELLO) --> events ... --> process gone --> on_dead, freed
 *
 * It is gone when its outer process is: that one ends only after every monitor has (vmm.c), so
 * on_dead says at the same time that no VM of it is left. Loop thread.
 */
#ifndef UNID_HYPERVISOR_KVM_SPAWNER_H
#define UNID_HYPERVISOR_KVM_SPAWNER_H

#include "common/error.h"
#include "common/list.h"
#include "common/loop.h"
#include "hypervisor/kvm/proto.h"

struct spawner;

struct spawner_events {
    /* `pid` is the sender's: with READY the monitor's. */
    void (*on_event)(void *arg, const struct vmm_event *e, int pid);
    /* The last callback. */
    void (*on_dead)(void *arg, struct spawner *sp);
};

struct spawner_spec {
    struct un_loop *loop; /* kept, as all here, until on_dead */
    const char *path;     /* of unid-vmm */
    struct un_list *list; /* to be in */
    const struct spawner_events *events;
    void *arg;
};
int spawner_start(const struct spawner_spec *spec, struct spawner **ret, struct un_error *err);

/* Sends a command soon, together with those of the same turn of the loop. A SPAWN has two
 * descriptors (proto.h), kept until the VM's first event; others have none (NULL). */
void spawner_command(struct spawner *sp, const struct vmm_command *command, const int fds[2]);

/* Tells it to end with all its monitors. on_dead follows. */
void spawner_stop(struct spawner *sp);

/* Waits for the end of all in the list and frees them, without on_dead. For the driver's end. */
void spawner_destroy_all(struct un_list *list);

/* Stopped or lost: takes no more commands. */
bool spawner_ending(const struct spawner *sp);
int spawner_pid(const struct spawner *sp);

#endif
