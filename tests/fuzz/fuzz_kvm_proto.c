/* fuzz_kvm_proto.c - the packets between the kvm driver and unid-vmm: what the checks let through
 * holds what its users rely on.
 *
 * Input: a byte that says which (0 report, 1 event, 2 order), then the packet.
 */
#include <stdlib.h>
#include <string.h>

#include "hypervisor/kvm/proto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void report(const uint8_t *data, size_t size)
{
    struct vmm_report r;
    const uint8_t *state;
    if (!vmm_report_parse(data, size, &r, &state)) {
        return;
    }
    must(r.kind >= VMM_REPORT_RING && r.kind <= VMM_REPORT_ERROR && r.error <= 0);
    must(memchr(r.step, '\0', sizeof(r.step)) != NULL);
    must((state != NULL) == (r.kind == VMM_REPORT_SAVED));
    must(!state || state + sizeof(struct vmm_state) == data + size);
}

static void event(const uint8_t *data, size_t size)
{
    struct vmm_event e;
    if (vmm_event_parse(data, size, &e)) {
        must(e.kind >= VMM_EVENT_HELLO && e.kind <= VMM_EVENT_GONE && e.error <= 0);
        must(memchr(e.step, '\0', sizeof(e.step)) != NULL);
    }
}

static void order(const uint8_t *data, size_t size)
{
    const uint64_t mem_max = UINT64_C(64) << 20;
    struct vmm_order o;
    if (vmm_order_parse(data, size, mem_max, &o) && o.op == VMM_ORDER_BIND) {
        must(o.mem_bytes >= UNID_IMAGE_MIN && o.mem_bytes <= mem_max && o.mem_bytes % 4096 == 0);
        must(o.mem_at % 4096 == 0 && o.mem_at + o.mem_bytes > o.mem_at);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    switch (data[0] % 3) {
    case 0:
        report(data + 1, size - 1);
        break;
    case 1:
        event(data + 1, size - 1);
        break;
    default:
        order(data + 1, size - 1);
        break;
    }
    return 0;
}
