/* machine.h - the second half of the driver contract: machine images, unikernels with a kernel and
 * drivers of their own, which are reached over a network.
 *
 *             hv_machine_new         on_made(0)         start          on_exit
 *     (none) ---------------> MAKING ----------> PAUSED ------> RUNNING -------> ENDED
 *                               |                   |              |               |
 *                               +-------------------+--- free -----+---------------+--> GONE
 *
 * A shell (HV_BOOT_SHELL) is PAUSED without a kernel; `load` leads it back to MAKING, as another machine.
 *
 * A machine is made ahead of time, paused, with its network (the bound pool), and started when the
 * first request is there. It is not known from here when it is ready: its user asks its port, or reads
 * its console.
 *
 * As in hv.h: loop thread, nothing blocks, no callback from inside the function that caused it, after
 * free only on_gone comes, once.
 */
#ifndef UNID_HYPERVISOR_MACHINE_H
#define UNID_HYPERVISOR_MACHINE_H

#include "common/id.h"
#include "hypervisor/hv.h"

enum hv_machine_boot {
    HV_BOOT_KERNEL, /* what QEMU's -kernel takes: PVH, most of multiboot 1, bzImage */
    HV_BOOT_LOADER, /* an ELF kernel that it does not take, by a loader of the driver's */
    HV_BOOT_DISK,   /* the first disk, by firmware */
    HV_BOOT_SHELL   /* nothing yet: hv_machine_ops.load says what. MICROVM without disks */
};

/* What the guest's drivers want to find. */
enum hv_machine_type {
    HV_MACHINE_MICROVM, /* virtio-mmio, no PCI */
    HV_MACHINE_Q35,
    HV_MACHINE_PC
};

struct hv_machine_disk {
    const char *path;
    const char *format; /* "raw", "qcow2" */
    bool read_only;     /* an image: what is written is lost with the machine. Else a volume */
};

/* How the guest is reached. */
enum hv_machine_net {
    HV_NET_NONE,
    HV_NET_TAP, /* a tap that exists: see netplumb/net.h */
    HV_NET_USER /* QEMU's user network; TCP connections to 127.0.0.1:host_port reach the guest */
};

/* What is known of the guest's TCP on the user network, where QEMU takes connections before the guest
 * does. */
enum hv_machine_heard {
    HV_HEARD_UNKNOWN, /* it cannot be told, this time */
    HV_HEARD_NOTHING, /* the guest's driver has not set its card up */
    HV_HEARD_CARD,    /* it has; no connection to guest_port stands */
    HV_HEARD_LISTENS  /* the guest has answered a connection to guest_port, which stands */
};

struct hv_machine_events {
    void (*on_made)(void *arg, int rc, const struct un_error *err);
    void (*on_log)(void *arg, const void *data, size_t len); /* console; any bytes */
    /* DONE: it shut itself down; FAULT: it crashed, panicked, reset itself, or its watchdog fired; LOST:
     * QEMU went away. `detail` says it in words. */
    void (*on_exit)(void *arg, const struct hv_exit *why);
    void (*on_heard)(void *arg,
                     enum hv_machine_heard heard); /* after `ask`; NULL where nobody asks */
    void (*on_gone)(void *arg);
};

/* All borrowed until hv_machine_new returns, but `events`. */
struct hv_machine_spec {
    const char *name; /* for people: [a-z0-9-], at most 40 */
    enum hv_machine_boot boot;
    enum hv_machine_type type;
    /* MICROVM: how the guest finds its devices: by ACPI's tables; by words on its command line, as with Firecracker,
     * and then there is no ACPI, interrupts are a PC's, and it ends by a
     * reset of the keyboard controller's; by neither: by their addresses. */
    bool acpi, by_words;
    /* MICROVM: the guest's drivers know virtio 1 only, not the registers before it (virtio 1.0, section 4.2.4);
     * it knows one I/O APIC, where QEMU's microvm has two: then there are places for 8 devices. */
    bool virtio1, one_ioapic;
    const char *kernel, *initrd; /* paths; NULL: none. Kept unchanged until on_gone */
    const char *cmdline;         /* expanded already; "" for none */
    uint64_t mem_bytes;
    const struct hv_machine_disk *disks; /* at most 4 */
    size_t disk_count;
    enum hv_machine_net net;
    const char *tap, *mac;          /* HV_NET_TAP; mac also for USER, or NULL */
    uint16_t host_port, guest_port; /* HV_NET_USER */
    bool
        guard; /* not MICROVM: a watchdog (i6300esb) and a panic device, for guests that know them */
    const struct hv_machine_events *events; /* kept until on_gone */
    void *arg;
};

struct hv_machine; /* its first member is struct hv_machine_base */

struct hv_machine_ops {
    /* Gives the machine (free). -EINVAL what cannot be put together. What goes wrong later comes by
     * on_made; there too, -ENOTSUP: this host has no shells; -EADDRINUSE: somebody has taken host_port. */
    int (*new)(struct hv_driver *drv, const struct hv_machine_spec *spec, struct hv_machine **ret,
               struct un_error *err);
    void (*start)(struct hv_machine *m); /* after on_made(0); once. Not of a shell */
    /* Makes of a shell, after its on_made(0), the machine that `spec` says, whose type, devices, memory and
     * network are the shell's, with HV_BOOT_KERNEL, a kernel that hv_pvh_check (hypervisor/pvh.h) takes, and no disks.
     * From now on spec->events are told: on_made first, as for `new`. After a failure it is good for nothing.
     * A millisecond, and what it takes to copy the files. NULL: there are no shells, `new` says -ENOTSUP. */
    void (*load)(struct hv_machine *m, const struct hv_machine_spec *spec);
    /* HV_NET_USER, after start: on_heard comes, once for all that ask meanwhile; not when it ends
     * before. A few milliseconds. NULL: nobody can tell. */
    void (*ask)(struct hv_machine *m);
    /* on_log is called with what has been written until now and was not told yet, before this returns:
     * for who is about to let the machine go. NULL: nothing waits anywhere. */
    void (*read_log)(struct hv_machine *m);
    void (*usage)(struct hv_machine *m, struct hv_usage *ret);
    int (*pid)(struct hv_machine *m); /* 0: none yet */
    void (*free)(struct hv_machine *m);
};

struct hv_machine_base {
    const struct hv_machine_ops *ops;
};
/* Those of a machine; of a driver, hv_driver_ops(drv)->machine, NULL when it runs none. */
static inline const struct hv_machine_ops *hv_machine_ops(const struct hv_machine *m)
{
    return ((const struct hv_machine_base *)m)->ops;
}

/* The files that a configuration names stay where they are while this is held. Loop thread. */
struct hv_machine_files {
    unsigned refs;
    void (*free)(struct hv_machine_files *f); /* the last reference is gone */
};
static inline struct hv_machine_files *hv_machine_files_ref(struct hv_machine_files *f)
{
    f->refs++;
    return f;
}
/* NULL is allowed. */
static inline void hv_machine_files_unref(struct hv_machine_files *f)
{
    if (f && --f->refs == 0) {
        f->free(f);
    }
}

/* --- services: machines that are kept for more requests (service/service.h) -------------------- */

/* A function's machine. Borrowed; what it points at is copied. */
struct hv_machine_config {
    const char *key;  /* the same key: the same machine; changes with every version of a function */
    const char *name; /* the function's */
    uint32_t version; /* the function's, for people */
    bool live;        /* it is the version that requests get which name none */
    bool proven;      /* a machine of it is known to have been ready before */
    const char *image_path;
    const void *image; /* its bytes, to see what it says of itself; borrowed during vm_run */
    size_t image_len;
    enum hv_machine_boot boot; /* what the image is */
    const char *format;        /* of a disk image: "raw", "qcow2" */
    const char *initrd_path;   /* or NULL */
    const char *flavor;        /* flavor.h; NULL: what the image says of itself */
    const char *append;        /* for the command line; NULL: nothing */
    uint64_t mem_bytes;
    uint16_t port;        /* that the guest listens on */
    bool per_request;     /* a machine of its own for each request */
    uint32_t concurrency; /* requests at once for one machine */
    uint32_t min_instances, max_instances;
    uint32_t idle_timeout_ms, ready_timeout_ms;
    const char
        *ready_console; /* ready when a console line has it, not when the port answers; or NULL */
    /* What is not read-only is opened by one machine at a time, whosever it is: there is one machine then,
     * whatever max_instances says. */
    const struct hv_machine_disk *volumes;
    size_t volume_count;
    struct hv_machine_files *files; /* held by who may still open what is named here; may be NULL */
    char *const *egress; /* "HOST:PORT" that it may connect to, NULL-terminated; NULL: nothing */
};

/* One machine of a service, as people see it. Borrowed. */
struct hv_service_machine {
    char id[UN_ID_SIZE];
    const char *name; /* the function's; "" of a shell, which is nobody's yet */
    uint32_t version;
    const char *state;                    /* "making", "paused", "starting", "ready", "ending" */
    uint64_t mem_bytes, age_us, state_us; /* since it was begun, and since it is in this state */
    int pid;
    unsigned in_flight; /* requests that it serves now */
};

/* What the driver of services tells; any may be NULL. */
struct hv_service_events {
    void (*on_machine)(void *arg, const struct hv_service_machine *m, bool gone);
    /* Lines of its console, any bytes; what a machine for one request writes comes by that one's on_log,
     * and here only when it came to no request. */
    void (*on_console)(void *arg, const char *name, const void *data, size_t len);
    /* The first machine of a version is ready, that was not `proven`. */
    void (*on_proven)(void *arg, const char *name, uint32_t version);
    /* Machines of the live version failed in a row and none was ever ready. Those who wait for it are
     * kept waiting, and nothing is started, until give_up or until another version is live. Once for a
     * version. */
    void (*on_failing)(void *arg, const char *name, uint32_t version, const char *why);
};

/* Shells of machines: those that stand ready; and since the opening: made, taken for a machine that was
 * wanted, not there when one could have been taken, failed. */
struct hv_service_stats {
    unsigned shells;
    uint64_t shells_made, shells_used, shells_missed, shells_failed;
};

/* Those of a driver are in hv_driver_ops(drv)->service; NULL when it runs none. */
struct hv_service_ops {
    /* `events` is kept until the next call; NULL: nobody listens. */
    void (*listen)(struct hv_driver *drv, const struct hv_service_events *events, void *arg);
    /* config->min_instances machines are kept from now on, as long as the version is live. -ENOMEM,
     * -EINVAL the flavor. */
    int (*keep)(struct hv_driver *drv, const struct hv_machine_config *config,
                struct un_error *err);
    /* This is the function's live version; NULL: it has none of machines any more. The machines of its
     * others end as soon as they have served what they have. */
    void (*live)(struct hv_driver *drv, const char *name, const char *key);
    /* After on_failing: nobody can help. Those who wait for the function's failing versions are lost, but
     * not for the version `but` (its key; NULL: none is left out), of which it is still to be decided. */
    void (*give_up)(struct hv_driver *drv, const char *name, const char *but);
    void (*each)(struct hv_driver *drv, void (*fn)(void *arg, const struct hv_service_machine *m),
                 void *arg);
    /* Ends a machine at once; requests at it are lost. -ENOENT. */
    int (*end)(struct hv_driver *drv, const char *id, struct un_error *err);
    /* Somebody wants memory: lets go of a shell. False: there is none. */
    bool (*yield)(struct hv_driver *drv);
    void (*stats)(const struct hv_driver *drv, struct hv_service_stats *ret);
};

#endif
