/* fake_impl.h - what fake.c (the life cycle) and fake_guest.c (the behaviours) share. */
#ifndef UNID_HYPERVISOR_FAKE_IMPL_H
#define UNID_HYPERVISOR_FAKE_IMPL_H

#include "common/bytes.h"
#include "common/list.h"
#include "hypervisor/fake/fake.h"

enum {
    FAKE_PIECE_BYTES = 64 * 1024, /* output handed out at a time */
    FAKE_ROOM_BYTES = 64 * 1024   /* input taken at a time */
};

enum fake_state { FAKE_STARTING, FAKE_SHELL, FAKE_RUNNING, FAKE_ENDED, FAKE_GOING };

struct fake_driver {
    struct hv_driver_base base;
    struct un_loop *loop;
    struct fake_script script;
    struct fake_stats stats;
    unsigned failures_left;
    struct un_list vms;
    struct un_list probes, prepares;
    int next_pid;
};

struct fake_vm;
struct fake_behaviour {
    const char *name;
    /* Goes on from vm->at until something is outstanding or the guest has ended. */
    void (*step)(struct fake_vm *vm);
};

struct fake_vm {
    struct hv_vm_base base;
    struct fake_driver *drv;
    struct un_list node;
    const struct hv_vm_events *events;
    void *arg;
    uint64_t mem_bytes;
    int pid;
    enum fake_state state;
    int ready_rc;
    struct un_timer timer; /* the next thing that happens; a VM does one thing at a time */
    struct hv_exit exit;   /* how it ends, once known */
    bool exit_pending;     /* on_exit is what the timer brings */
    bool recycling;        /* SHELL: on_ready is what the timer brings, again */
    char snapshot_key[HV_SNAPSHOT_KEY_MAX + 1]; /* that it began from; "" for none */

    /* the guest */
    const struct fake_behaviour *behaviour;
    char **words; /* the behaviour's arguments behind its name; NULL-terminated */
    char **argv, **envp;
    char *head; /* NUL-terminated behind head_len */
    size_t head_len;
    int64_t content_length;
    unsigned at;    /* the behaviour's own place in its program */
    uint64_t left;  /* bytes it still wants to send */
    uint64_t taken; /* body bytes it has read */
    uint64_t runs;  /* that have started */
    uint64_t calls; /* what would have been exits: input asked for, output handed out */
    bool started, head_sent;
    bool output_held;  /* on_output has not been answered */
    bool input_wanted; /* on_input_wanted has not been answered */
    bool input_eof;
    uint32_t asking; /* UNID_OP_*: on_ask has not been answered; 0 */
    struct hv_ask ask;
    int32_t result;                                            /* of the last answer */
    uint64_t readable, writable, told_readable, told_writable; /* as struct hv_channel's */
    struct unid_report report;
    struct un_buf input;  /* taken, not yet used */
    struct un_buf output; /* the piece that is handed out */
};

/* Finds the guest's program and copies what it needs of `run`. -ENOMEM. */
int fake_guest_load(struct fake_vm *vm, const struct hv_run_spec *run, struct un_error *err);
void fake_guest_done(struct fake_vm *vm);
/* Frees what the last run left, for another. */
void fake_guest_reset(struct fake_vm *vm);
/* Whether this guest would end before it asks for a request; then `log` is what it says before. */
bool fake_guest_stillborn(const struct fake_driver *drv, const struct hv_run_spec *run, char *log,
                          size_t size, struct unid_report *ret);

/* The guest asks (hv.h, on_ask); its step is called again when it was answered: vm->result, and in
 * vm->input what RECV gave. */
void fake_guest_ask(struct fake_vm *vm, const struct hv_ask *ask);

/* Ends the VM; on_exit comes from the timer. */
void fake_vm_end(struct fake_vm *vm, enum hv_exit_kind kind, int32_t status, const char *detail);

#endif
