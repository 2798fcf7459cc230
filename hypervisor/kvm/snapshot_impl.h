/* snapshot_impl.h - what snapshot.c and snapshot_build.c share. Loop thread. */
#ifndef UNID_HYPERVISOR_KVM_SNAPSHOT_IMPL_H
#define UNID_HYPERVISOR_KVM_SNAPSHOT_IMPL_H

#include "hypervisor/kvm/driver.h"
#include "hypervisor/kvm/snapshot_file.h"

/* Keys whose build failed lately: a request does not try again before RETRY_US have passed. */
enum { FAILURES = 64, RETRY_US = 60000000 };
struct failure {
    char key[HV_SNAPSHOT_KEY_MAX + 1];
    uint64_t until_us;
};

struct snapshots {
    struct kvm_driver *drv;
    struct un_list known, builds;
    struct failure failures[FAILURES]; /* a ring */
    unsigned next_failure;
};
/* Puts a snapshot that was read into memory. Takes `file`. -ENOMEM. */
int snapshot_keep(struct snapshots *all, const char *key, struct snapshot_file *file);
bool snapshot_known(struct snapshots *all, const char *key);

/* How the build of a key ended; and whether it failed so lately that a request need not try. */
void snapshot_note_result(struct snapshots *all, const char *key, bool failed);
bool snapshot_failed_lately(struct snapshots *all, const char *key);

/* Releases the builds that are left, without a word. */
void snapshot_builds_free(struct snapshots *all);

#endif
