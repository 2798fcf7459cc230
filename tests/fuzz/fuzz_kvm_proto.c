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
    const uint8_t *tail;
    size_t tail_len;
    if (!vmm_report_parse(data, size, &r, &tail, &tail_len)) {
        return;
    }
    must(r.kind >= VMM_REPORT_RING && r.kind <= VMM_REPORT_ERROR && r.error <= 0);
    must(memchr(r.step, '\0', sizeof(r.step)) != NULL);
    must((tail != NULL) == (tail_len > 0));
    must(!tail || tail + tail_len == data + size);
    must(r.kind != VMM_REPORT_SAVED || tail_len == sizeof(struct vmm_state));
    must(tail_len == 0 || r.kind == VMM_REPORT_SAVED ||
         (r.kind == VMM_REPORT_RING && tail_len <= VMM_TAIL_MAX));
    if (r.kind != VMM_REPORT_RING) {
        return;
    }
    must(r.touched * sizeof(uint64_t) <= tail_len);
    if (!tail) {
        return;
    }
    static uint64_t once[VMM_TOUCHES_MAX], both[VMM_TOUCHES_MAX];
    const uint8_t *touched = tail + (tail_len - r.touched * sizeof(uint64_t));
    size_t n = vmm_touches_merge(NULL, 0, touched, r.touched, once);
    n = vmm_touches_merge(once, n, touched, r.touched, both);
    must(n <= r.touched && memcmp(once, both, n * sizeof(*both)) == 0);
    for (size_t i = 1; i < n; i++) {
        must(both[i] >> 12 > both[i - 1] >> 12 && (both[i] & 0xffe) == 0);
    }
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
    static struct {
        struct vmm_order order;
        struct vmm_range ranges[VMM_RANGES_MAX + 1];
        uint64_t touches[VMM_TOUCHES_MAX];
    } packet; /* aligned, as a monitor's is */
    struct vmm_ahead ahead;
    struct vmm_order o;
    size = size < sizeof(packet) ? size : sizeof(packet);
    memcpy(&packet, data, size);
    if (!vmm_order_parse(&packet, size, mem_max, &o, &ahead)) {
        return;
    }
    const struct vmm_range *ranges = ahead.ranges;
    size_t count = o.op == VMM_ORDER_BIND ? ahead.range_count : 0;
    must(ahead.range_count <= VMM_RANGES_MAX && ahead.touch_count <= VMM_TOUCHES_MAX);
    must(ahead.range_count + ahead.touch_count == 0 || o.op == VMM_ORDER_BIND ||
         o.op == VMM_ORDER_RESET);
    must((const uint8_t *)(ahead.touches + ahead.touch_count) == (const uint8_t *)&packet + size);
    for (size_t i = 0; i < count; i++) {
        uint64_t from = (uint64_t)ranges[i].page * 4096, len = (uint64_t)ranges[i].count * 4096;
        must(len > 0 && from >= UNID_CHANNEL_END && from + len <= o.mem_bytes);
        must(i == 0 || ranges[i].page >= ranges[i - 1].page + ranges[i - 1].count);
    }
    if (o.op == VMM_ORDER_BIND) {
        must(o.mem_bytes >= UNID_IMAGE_MIN && o.mem_bytes <= mem_max && o.mem_bytes % 4096 == 0);
        must(o.mem_at % 4096 == 0 && o.mem_at + o.mem_bytes > o.mem_at);
        must(o.zero_bytes == 0 || (o.zero_at >= UNID_CHANNEL_END && o.zero_at < o.mem_bytes &&
                                   o.zero_bytes <= o.mem_bytes - o.zero_at));
        must(o.zero_bytes == 0 || ((o.flags & VMM_BIND_STATE) && !(o.flags & VMM_BIND_SHARED)));
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
