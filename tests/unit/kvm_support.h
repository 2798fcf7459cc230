/* kvm_support.h - what the tests of the kvm driver share: a driver on a directory of its own, the example
 * guests, runs and snapshots. */
#ifndef UNID_TESTS_KVM_SUPPORT_H
#define UNID_TESTS_KVM_SUPPORT_H

#include "hypervisor/kvm/kvm.h"
#include "tests/unit/hv_contract.h"

#define MIB (UINT64_C(1) << 20)

extern struct contract contract; /* of the driver that is open */
extern char state_dir[];

/* For main: 0, or the exit status (77: no KVM here). */
int kvm_setup(const char *name);
void kvm_teardown(void);

/* Set-up and tear-down of a test. */
int open_driver(void **state);
int close_driver(void **state);

/* Of guest/examples; kept. */
const uint8_t *image(const char *name, size_t *ret_len);

/* $UNID_KVM_ROUNDS, or so many. */
unsigned rounds(unsigned few);

struct run {
    const char *function, *key;
    const char *const *argv;
    uint64_t mem_bytes, deadline_us;
};

int run_start(struct contract_vm *v, struct run r, struct un_error *err);
/* Runs in a new shell to its end. The caller frees. */
void run(struct contract_vm *v, struct run r);

/* Runs to its end in a VM that has ended a run: recycled, and standing for so long before. */
void run_again(struct contract_vm *v, struct run r, unsigned stood_ms);

struct prepared {
    bool done;
    int rc;
    struct un_error err;
    char log[256];
};

/* For hv_driver_ops.prepare, with a struct prepared. */
void on_prepared(void *arg, int rc, const struct un_error *err, const void *log, size_t len,
                 const struct unid_report *report);
struct prepared prepare(struct run r);
void prepare_ok(struct run r);

#endif
