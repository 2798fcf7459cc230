/* place.h - where the driver keeps files, and the removal of what an earlier life left there.
 *
 *     <state_dir>/libvirt/     kept: tag, lock, accelerator.json, cache/ (libvirt's view of QEMU)
 *     <work>/                  gone with the driver: root/ (libvirt's state and sockets), rom.bin,
 *                              waiter.elf, boot.loader, s/ (doorbell sockets), d/ (what machines write to
 *                              images; or it is <state_dir>/libvirt/scratch), owner (the path of <state_dir>/libvirt)
 *
 * <work> is /dev/shm/unid-<tag>, or beside the other short-lived files: a short path (socket names
 * have room for 107 bytes) that the user whom QEMU runs as can walk through. The tag is random,
 * made once for each state directory, and the beginning of the name of each domain: by it processes
 * and files are known as ours.
 */
#ifndef UNID_HYPERVISOR_LIBVIRT_PLACE_H
#define UNID_HYPERVISOR_LIBVIRT_PLACE_H

#include <stdbool.h>

#include "common/error.h"

enum { LV_PREFIX_SIZE = 32, LV_PATH_SIZE = 256, LV_BASES = 3 };

struct lv_place {
    char prefix[LV_PREFIX_SIZE]; /* "unid-<tag>-" */
    char state[LV_PATH_SIZE];    /* <state_dir>/libvirt */
    char bases[LV_BASES][LV_PATH_SIZE];
    char work[LV_PATH_SIZE];
    int lock;  /* of the state directory */
    int owner; /* <work>/owner, locked; -1 before lv_place_prepare */
};

/* Finds out the places and takes the lock. Cheap. -EBUSY when another unid uses the state
 * directory; errors of the files. Done with lv_place_done. */
int lv_place_init(struct lv_place *p, const char *state_dir, const char *runtime_dir,
                  struct un_error *err);
void lv_place_done(struct lv_place *p);

/* Ends every QEMU of this place and removes its work directories. Worker. -EIO when one does not
 * end. */
int lv_place_clean(struct lv_place *p, struct un_error *err);

/* The same for every other unid of this user that was killed, and whose state directory was deleted
 * since. Worker. */
void lv_place_clean_abandoned(const struct lv_place *p);

/* Makes the work directory with ROM, waiter and configuration. Worker. */
int lv_place_prepare(struct lv_place *p, struct un_error *err);

/* Removes a directory with all that is in it; follows no symbolic link. */
void lv_tree_remove(const char *path);

/* The user whom an embedded QEMU runs as: NULL when that is whoever unid runs as. See place.c. */
const char *lv_qemu_user(void);

#endif
