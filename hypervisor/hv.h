/* hv.h - the driver contract: what the scheduler asks of a hypervisor, and what it is told.
 *
 * A driver makes virtual machines ahead of time as *shells*, which belong to no function, and binds
 * one to a function's image when a request needs it. A VM runs once and is destroyed, or is put back
 * to where it began for one more run of the same function (vm_recycle: ENDED -> SHELL). A shell may be
 * bound to a function ahead of its run (vm_bind: SHELL -> SHELL).
 *
 *              vm_new            on_ready(0)          vm_run            on_exit
 *     (none) ---------> STARTING -----------> SHELL ---------> RUNNING ---------> ENDED
 *                          |                    |                 |                 |
 *                          +--------------------+---- vm_free ----+-----------------+--> GONE
 *                                                                          (on_gone, memory
 * released)
 *
 * Threads: every function is called on, and every callback comes on, the loop thread. No function
 * blocks: what may wait is done on the driver's own workers. No callback comes from inside the
 * function that caused it. After vm_free only on_gone comes, exactly once.
 *
 * Data: the guest has one call in flight (guest/include/unid/abi.h), so there is one piece of
 * output outstanding at a time: on_output hands it out, and the guest stands still until
 * vm_output_done. That is the whole of back-pressure on this side.
 *
 * To add a driver: fill an hv_driver_ops, and put it into the table in hypervisor/drivers.c. Tests
 * in tests/unit/hv_contract.h run against every driver.
 */
#ifndef UNID_HYPERVISOR_HV_H
#define UNID_HYPERVISOR_HV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "common/loop.h"
#include "unid/abi.h"

struct hv_machine_ops;
struct hv_service_ops;
struct hv_machine_config;
struct hv_driver; /* opaque; the first member of each driver's own struct is struct hv_driver_base
                   */
struct hv_vm;

/* How a VM ended. */
enum hv_exit_kind {
    HV_EXIT_DONE,     /* the guest said DONE; `status` is its exit status */
    HV_EXIT_FAULT,    /* a CPU exception; the fault fields tell */
    HV_EXIT_LIMIT,    /* a limit that the driver enforces was reached; `detail` names it */
    HV_EXIT_PROTOCOL, /* the guest broke the contract of abi.h; `detail` says how */
    HV_EXIT_LOST      /* the hypervisor process went away; `detail` says what is known */
};
const char *hv_exit_name(enum hv_exit_kind kind); /* "done", "fault", ... */

struct hv_exit {
    enum hv_exit_kind kind;
    int32_t status;
    uint32_t fault_vector; /* Intel SDM vol. 3, table 6-1; ~0u when the driver cannot tell */
    uint32_t fault_error;
    uint64_t fault_rip, fault_addr; /* addr: CR2, for page faults */
    bool unbegun; /* LOST: known not to have run an instruction; another VM may take the request */
    bool
        final; /* LOST: others would fare no better, or have been tried; none is to be tried again */
    char detail[160];
};

/* Connections to the outside: made, not allowed or too many, and vain; and their bytes, as the guest sees
 * the directions. */
struct hv_egress {
    uint32_t connections, refused, failed;
    uint64_t bytes_in, bytes_out;
};
static inline void hv_egress_add(struct hv_egress *to, const struct hv_egress *more)
{
    to->connections += more->connections;
    to->refused += more->refused;
    to->failed += more->failed;
    to->bytes_in += more->bytes_in;
    to->bytes_out += more->bytes_out;
}

/* What a VM has used; filled as far as the driver can tell, at on_exit or before vm_free. */
struct hv_usage {
    uint64_t cpu_us, peak_rss_kib, exits;
    struct unid_report report; /* what a library OS counted; the guest's word, bounds checked */
    struct hv_egress egress;   /* of a machine that is for one request; else it is counted above */
};

/* One response head, validated: token names, no CR, LF or NUL in values. Borrowed during the
 * callback. */
struct hv_field {
    const char *name, *value;
};
struct hv_head {
    unsigned status; /* 200..599 */
    size_t field_count;
    const struct hv_field *fields;
};

/* What a library OS asks of the host besides request and response (abi.h, 1.1): time to pass, or
 * something of an outgoing connection. */
struct hv_ask {
    uint32_t op;     /* UNID_OP_WAIT, UNID_OP_NET_* */
    unsigned handle; /* SEND, RECV, SHUT, CLOSE: 0..63, whether it exists or not */
    uint64_t wait_ns;
    const void
        *data;  /* RESOLVE: the name, OPEN: "host:port", SEND: the bytes. Borrowed until answered */
    size_t len; /* of data; RECV: the most that may be given */
};

struct hv_answer {
    int32_t result;   /* as abi.h says */
    const void *data; /* RECV: `result` bytes; copied */
};

struct hv_vm_events {
    /* The shell is there (rc 0), or could not be made; after an error the VM is in ENDED: free it.
     */
    void (*on_ready)(void *arg, int rc, const struct un_error *err);
    /* The guest is about to run: everything of vm_run that the host does has been done. Until then the
     * guest has had no effect on anything, so a VM that is lost earlier may be replaced; later only
     * when its end says `unbegun`. */
    void (*on_started)(void *arg);
    /* The guest waits for body bytes: call vm_input, now or later. `room` is the most it takes. */
    void (*on_input_wanted)(void *arg, size_t room);
    /* The response head; once, before the first output, also when the guest sent none (then 200),
     * and before on_exit of a guest that said DONE without any output. */
    void (*on_head)(void *arg, const struct hv_head *head);
    /* Body bytes, borrowed until vm_output_done, which lets the guest go on. `last` is NULL while
     * more may follow; with the guest's last bytes it is the end that on_exit will report
     * (HV_EXIT_DONE), so that a failure is known before its output is sent on. With
     * UNID_INTERFACE_TCP no bytes and no end say that the guest has shut down its direction, and still
     * reads. */
    void (*on_output)(void *arg, const void *data, size_t len, const struct hv_exit *last);
    /* The guest stands still until vm_answer, now or later (from inside the event is allowed). NULL:
     * WAIT is answered by the driver when the time has passed, everything else by -ENOSYS. */
    void (*on_ask)(void *arg, const struct hv_ask *ask);
    /* Console and log bytes, not NUL-terminated, any bytes; borrowed during the callback. */
    void (*on_log)(void *arg, const void *data, size_t len);
    /* The end; the last callback but on_gone. After the last on_output has been answered by
     * vm_output_done, when the guest ended with output. */
    void (*on_exit)(void *arg, const struct hv_exit *why);
    /* After vm_free: all of the VM's resources are released. */
    void (*on_gone)(void *arg);
};

struct hv_vm_spec {
    uint64_t mem_bytes; /* the most that an image in this shell can be given; a multiple of 2 MiB */
    const struct hv_vm_events *events; /* kept until on_gone */
    void *arg;
};

struct hv_run_spec {
    const uint8_t *image; /* an SDK image (ELF64); kept until on_exit or vm_free */
    size_t image_len;
    uint64_t mem_bytes; /* guest memory, at most the shell's */
    const char *const
        *argv; /* NULL-terminated, argv[0] the function's name; borrowed, as all below */
    const char *const *envp;   /* NULL-terminated */
    const char *workdir;       /* where a Linux program starts; NULL: "/" */
    uint32_t interface;        /* UNID_INTERFACE_*, told to the guest */
    bool ask_first;            /* UNID_BOOT_ASK_FIRST, likewise */
    const char *invocation_id; /* at most 31 bytes */
    uint64_t deadline_us;      /* how long the invocation may take from now; told to the guest */
    const char *request_head;  /* as abi.h says */
    size_t request_head_len;
    int64_t content_length; /* -1: not declared */
    const void *body;       /* the first bytes, at most hv_body_room(request_head_len) */
    size_t body_len;
    bool body_eof; /* no more bytes follow */
    /* Names the state of the guest at its first NEXT, so that it is made once and every run begins
     * there: the same key is only given with the same image, argv, envp, workdir and mem_bytes, and a new one
     * with a new version of the contract. 1..HV_SNAPSHOT_KEY_MAX of [A-Za-z0-9._-], not beginning
     * with a dot. NULL: the run starts from the image. Drivers without snapshots ignore it. */
    const char *snapshot_key;
    const struct hv_machine_config *machine; /* for the driver of services only; else NULL */
    unsigned depth; /* of calls by private names up to this one; for the driver of services */
};

#define HV_SNAPSHOT_KEY_MAX 127

/* Body bytes that fit into vm_run beside a head of this length. */
size_t hv_body_room(size_t request_head_len);

/* A driver's numbers for `doctor` and for choosing. Filled by a measurement. */
struct hv_probe {
    bool usable;
    char accelerator[16];      /* "kvm", "tcg" */
    uint64_t shell_us;         /* to make a shell */
    uint64_t start_us;         /* vm_run to the first call of a trivial guest */
    uint64_t guest_ops_per_ms; /* speed of our guest's code: iterations of a fixed loop */
    char detail[256];          /* in words; when not usable: why, and how to mend it */
};

struct hv_driver_spec {
    struct un_loop *loop;    /* kept until close */
    const char *state_dir;   /* the driver may keep files below <state_dir>/<driver name>; copied */
    const char *runtime_dir; /* short-lived sockets; a short path, private to this unid; copied */
    const char *cache_dir;   /* files that can be deleted at any time; NULL: in state_dir; copied */
    const char *libvirt_uri; /* NULL: qemu:///embed */
    /* Called by a thread before it gives a machine's tap to a VM: the thread is in the network that taps are
     * in from then on. 0 or a negative errno; any thread, kept until close. NULL: they are in this one. */
    int (*join_net)(void *arg);
    void *join_arg;
    const char *accelerator; /* NULL or "auto": measured at first use and remembered in state_dir */
};

typedef void hv_prepare_cb(void *arg, int rc, const struct un_error *err, const void *log,
                           size_t log_len, const struct unid_report *report);

struct hv_driver_ops {
    const char *name; /* "fake", "libvirt", "kvm" */

    const struct hv_machine_ops *machine; /* machine images (machine.h); NULL: it runs none */
    const struct hv_service_ops *service; /* services (machine.h); NULL: it runs none */

    /* Prepares the driver; cheap: no library is loaded and no process started before it is needed.
     * Removes what an earlier unid with this state_dir left behind (VMs, processes, files) - on a
     * worker, before the first VM is made. Gives the driver (close). -ENOENT when the host cannot
     * run it at all. */
    int (*open)(const struct hv_driver_spec *spec, struct hv_driver **ret, struct un_error *err);

    /* All VMs must be freed and gone. Waits for the driver's workers. NULL is allowed. */
    void (*close)(struct hv_driver *drv);

    /* Measures; `cb` comes once, with a borrowed result. Starts VMs of its own. */
    void (*probe)(struct hv_driver *drv, void (*cb)(void *arg, const struct hv_probe *probe),
                  void *arg);

    /* Makes the snapshot that `spec->snapshot_key` names, or finds it made already. NULL when the
     * driver has none. Of `spec` what concerns the request is not looked at, but deadline_us, the
     * time that the guest may take to its first NEXT (0: LIMIT_SNAPSHOT_BUILD_MS); the image is kept
     * until the end, the rest is copied. `cb` comes once: rc 0; -EINVAL, -ENOMEM, -E2BIG as from
     * vm_run; -EPROTO when the guest ended before it asked for a request, -ETIMEDOUT when it did not
     * ask in time, each with what it wrote to its log; else what went wrong with the driver. With it comes
     * what the library OS counted, zeros when no guest ran for it (borrowed; NULL: not known). */
    void (*prepare)(struct hv_driver *drv, const struct hv_run_spec *spec, hv_prepare_cb *cb,
                    void *arg);

    /* Starts making a shell; on_ready follows. Gives the VM (vm_free). -ENOMEM, -EINVAL
     * (mem_bytes). A shell that dies while it waits says so by on_exit(HV_EXIT_LOST). */
    int (*vm_new)(struct hv_driver *drv, const struct hv_vm_spec *spec, struct hv_vm **ret,
                  struct un_error *err);

    /* Binds the shell to an image and starts it; on_started, then the other callbacks follow. The
     * errors of the image itself come from here and leave the shell usable: -EINVAL not an SDK
     * image, -ENOMEM image, heap and stack do not fit into mem_bytes, -E2BIG the strings do not
     * fit. Errors of the hypervisor come as on_exit(HV_EXIT_LOST). Once a VM. */
    int (*vm_run)(struct hv_vm *vm, const struct hv_run_spec *spec, struct un_error *err);

    /* Answers on_input_wanted with 1..room bytes, or with the rest and `eof` (len 0 allowed then).
     * Copied. Ignored when the VM has ended. */
    void (*vm_input)(struct hv_vm *vm, const void *data, size_t len, bool eof);

    /* Answers on_output. Ignored when the VM has ended. */
    void (*vm_output_done)(struct hv_vm *vm);

    /* Answers on_ask. Ignored when the VM has ended or asks nothing. */
    void (*vm_answer)(struct hv_vm *vm, const struct hv_answer *answer);

    /* Which handles can be read and written without -EAGAIN (bit n: handle n); told to the guest with
     * every answer from then on, and ends a WAIT in which it has become more. Any time between vm_run
     * and on_exit. */
    void (*vm_net_ready)(struct hv_vm *vm, uint64_t readable, uint64_t writable);

    /* Puts a VM that ended with HV_EXIT_DONE, and had begun from a snapshot, back there in full:
     * memory, registers, FPU, what was pending. on_ready follows, then vm_run takes one more run of
     * the same snapshot_key, and nothing else. NULL when the driver cannot. After on_exit. -EINVAL
     * when the VM did not end so (it began from the image, or its snapshot was replaced): free it. */
    int (*vm_recycle)(struct hv_vm *vm, struct un_error *err);

    /* Memory that the driver uses for machines of its own, beside VMs: the driver of services. NULL: none. */
    uint64_t (*memory_bytes)(struct hv_driver *drv);

    /* Puts a shell where the snapshot of that key begins, ahead of any request: on_ready follows, then
     * vm_run takes one run of the same key, and nothing else; what is slow about beginning is over by
     * then, or goes on until the run comes. -ENOENT: there is no such snapshot (yet); -EALREADY: beginning there is fast as it is. NULL
     * when the driver cannot. */
    int (*vm_bind)(struct hv_vm *vm, const char *snapshot_key, uint64_t mem_bytes,
                   struct un_error *err);

    /* What the VM has used so far. */
    void (*vm_usage)(struct hv_vm *vm, struct hv_usage *ret);

    /* Why a run has not begun for so long, in words that follow "the function did not end in time: "; empty where
     * there is nothing to say. NULL: the driver never has. */
    void (*vm_wants)(struct hv_vm *vm, char *ret, size_t size);

    /* Host process of the VM, 0 when it has none (yet). For receipts, ps and tests. */
    int (*vm_pid)(struct hv_vm *vm);

    /* Destroys the VM, in any state; guest execution stops at once, the rest is released on a
     * worker; on_gone follows. */
    void (*vm_free)(struct hv_vm *vm);
};

/* Common head of every driver's struct hv_driver and struct hv_vm, so that callers need no table.
 */
struct hv_driver_base {
    const struct hv_driver_ops *ops;
};
struct hv_vm_base {
    const struct hv_driver_ops *ops;
};
static inline const struct hv_driver_ops *hv_driver_ops(const struct hv_driver *drv)
{
    return ((const struct hv_driver_base *)drv)->ops;
}
static inline const struct hv_driver_ops *hv_vm_ops(const struct hv_vm *vm)
{
    return ((const struct hv_vm_base *)vm)->ops;
}

/* Finds a driver by name; NULL when this build has none of that name. A VM's functions are those of
 * hv_vm_ops(vm), which may be others than its driver's (module.h). Any thread. */
const struct hv_driver_ops *hv_driver_find(const char *name, struct un_error *err);

#endif
