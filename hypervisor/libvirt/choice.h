/* choice.h - measures what shells cost with each accelerator, and chooses one. Worker threads.
 *
 * Whether KVM or QEMU's translation (TCG) runs our guests better depends on the machine: nested or
 * emulated virtualisation may run ring 0 a thousand times slower than ring 3. So both are measured
 * with a guest of our own kind, once for a machine; the result is kept in accelerator.json.
 */
#ifndef UNID_HYPERVISOR_LIBVIRT_CHOICE_H
#define UNID_HYPERVISOR_LIBVIRT_CHOICE_H

#include "hypervisor/hv.h"
#include "hypervisor/libvirt/host.h"

struct lv_figures {
    bool measured;
    uint64_t shell_us, start_us, ops_per_ms;
    char why_not[128];
};

enum { LV_ACCELERATOR_SIZE = 16 };

struct lv_choice {
    char accelerator[LV_ACCELERATOR_SIZE];
    struct lv_figures tcg, kvm;
};

/* Makes a shell, runs the measuring guest for at most `limit_ms`, destroys it. Errors of the shell;
 * -ETIMEDOUT. */
int lv_measure(struct lv_host *h, const char *accelerator, unsigned limit_ms,
               struct lv_figures *ret, struct un_error *err);
enum { LV_MEASURE_LIMIT_MS = 10000 };

/* Measures both, and chooses. KVM gets a small multiple of the time that translation took: if that is
 * not enough it is no choice, and the first request does not wait for it. Remembers the choice, unless that fails. */
int lv_choice_measure(struct lv_host *h, struct lv_choice *ret, struct un_error *err);

/* Reads the remembered choice; false when there is none for this machine, QEMU and libvirt. */
bool lv_choice_load(struct lv_host *h, struct lv_choice *ret);

/* What a request of a typical size costs with these figures, in microseconds. Pure. */
uint64_t lv_figures_cost(const struct lv_figures *f);

#endif
