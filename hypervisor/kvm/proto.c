/* proto.c - checks the messages between the kvm driver and unid-vmm (see proto.h). Linked into
 * both; uses nothing but memory. */
#include "hypervisor/kvm/proto.h"

#include <string.h>

static const uint64_t page_mask = 4095;

static bool tail_valid(uint32_t kind, size_t len)
{
    switch (kind) {
    case VMM_REPORT_SAVED:
        return len == sizeof(struct vmm_state);
    case VMM_REPORT_RING:
        return len <= VMM_WRITTEN_BYTES;
    default:
        return len == 0;
    }
}

bool vmm_report_parse(const void *packet, size_t len, struct vmm_report *ret,
                      const uint8_t **ret_tail, size_t *ret_tail_len)
{
    struct vmm_report r;
    if (len < sizeof(r)) {
        return false;
    }
    memcpy(&r, packet, sizeof(r));
    size_t rest = len - sizeof(r);
    if (r.kind < VMM_REPORT_RING || r.kind > VMM_REPORT_ERROR || r.error > 0 ||
        r.code_len > HV_CODE_MAX || !tail_valid(r.kind, rest)) {
        return false;
    }
    r.step[sizeof(r.step) - 1] = '\0';
    *ret = r;
    *ret_tail = rest > 0 ? (const uint8_t *)packet + sizeof(r) : NULL;
    *ret_tail_len = rest;
    return true;
}

bool vmm_event_parse(const void *packet, size_t len, struct vmm_event *ret)
{
    struct vmm_event e;
    if (len != sizeof(e)) {
        return false;
    }
    memcpy(&e, packet, sizeof(e));
    if (e.kind < VMM_EVENT_HELLO || e.kind > VMM_EVENT_GONE || e.error > 0) {
        return false;
    }
    e.step[sizeof(e.step) - 1] = '\0';
    *ret = e;
    return true;
}

static bool bind_valid(const struct vmm_order *o, uint64_t mem_max)
{
    uint64_t end;
    return o->mem_bytes >= UNID_IMAGE_MIN && o->mem_bytes <= mem_max &&
           !(o->mem_bytes & page_mask) && !(o->mem_at & page_mask) &&
           !__builtin_add_overflow(o->mem_at, o->mem_bytes, &end) && end <= INT64_MAX &&
           o->state_at <= INT64_MAX &&
           !(o->flags & ~(uint32_t)(VMM_BIND_SHARED | VMM_BIND_STATE | VMM_BIND_LEARN |
                                    VMM_BIND_STAND | VMM_BIND_LOW)) &&
           (!(o->flags & (VMM_BIND_LEARN | VMM_BIND_STAND | VMM_BIND_LOW)) ||
            ((o->flags & VMM_BIND_STATE) && !(o->flags & VMM_BIND_SHARED))) &&
           (!(o->flags & VMM_BIND_LEARN) || o->mem_bytes <= VMM_LEARN_MAX);
}

/* In memory, and not in the channel. */
static bool zeros_valid(const struct vmm_order *o)
{
    uint64_t end;
    return o->zero_bytes == 0 ||
           (!(o->zero_at & page_mask) && !(o->zero_bytes & page_mask) &&
            o->flags & VMM_BIND_STATE && !(o->flags & VMM_BIND_SHARED) &&
            o->zero_at >= UNID_CHANNEL_END &&
            !__builtin_add_overflow(o->zero_at, o->zero_bytes, &end) && end <= o->mem_bytes);
}

/* Ascending, in memory, and not in the channel. */
static bool ranges_valid(const struct vmm_range *r, size_t count, uint64_t mem_bytes)
{
    uint64_t from = UNID_CHANNEL_END / 4096, end = mem_bytes / 4096;
    for (size_t i = 0; i < count; i++) {
        if (r[i].page < from || r[i].count == 0 || r[i].page > end ||
            r[i].count > end - r[i].page) {
            return false;
        }
        from = (uint64_t)r[i].page + r[i].count;
    }
    return true;
}

bool vmm_order_parse(const void *packet, size_t len, uint64_t mem_max, struct vmm_order *ret,
                     const struct vmm_range **ret_ranges, size_t *ret_count)
{
    struct vmm_order o;
    if (len < sizeof(o)) {
        return false;
    }
    memcpy(&o, packet, sizeof(o));
    size_t rest = len - sizeof(o), count = rest / sizeof(struct vmm_range);
    const struct vmm_range *ranges =
        (const struct vmm_range *)(const void *)((const uint8_t *)packet + sizeof(o));
    if (rest % sizeof(struct vmm_range) || count > VMM_RANGES_MAX ||
        (count > 0 && (o.op != VMM_ORDER_BIND || !(o.flags & VMM_BIND_STATE)))) {
        return false;
    }
    if (o.op < VMM_ORDER_BIND || o.op > VMM_ORDER_RESET ||
        (o.op == VMM_ORDER_BIND && (!bind_valid(&o, mem_max) || !zeros_valid(&o) ||
                                    !ranges_valid(ranges, count, o.mem_bytes)))) {
        return false;
    }
    *ret = o;
    *ret_ranges = ranges;
    *ret_count = count;
    return true;
}

uint64_t vmm_large_from(uint64_t zero_at, uint64_t zero_bytes)
{
    const uint64_t end = zero_at + zero_bytes;
    uint64_t from = zero_at + zero_bytes / 3 + UNID_LARGE_PAGE - 1;
    from -= from % UNID_LARGE_PAGE;
    return from < end && end - from >= UNID_LARGE_PAGE ? from : end;
}

size_t vmm_ranges_make(const uint8_t *bitmap, uint64_t mem_bytes, struct vmm_range *ret)
{
    enum { PAGES_AHEAD = 16384, GAP_MAX = 1 };
    uint32_t end = (uint32_t)(mem_bytes / 4096), pages = 0;
    size_t n = 0;
    for (uint32_t p = UNID_CHANNEL_END / 4096; p < end && pages < PAGES_AHEAD; p++) {
        if (!(bitmap[p / 8] >> p % 8 & 1)) {
            continue;
        }
        struct vmm_range *last = n ? &ret[n - 1] : NULL;
        if (last && p - (last->page + last->count) <= GAP_MAX) {
            pages += p + 1 - last->page - last->count;
            last->count = p + 1 - last->page;
        } else if (n < VMM_RANGES_MAX) {
            ret[n++] = (struct vmm_range){.page = p, .count = 1};
            pages++;
        } else {
            break;
        }
    }
    return n;
}

const char *vmm_layer_name(enum vmm_layer layer)
{
    static const char *const names[VMM_LAYERS] = {
        [VMM_LAYER_UID] = "own uid",
        [VMM_LAYER_USER_NS] = "user namespace",
        [VMM_LAYER_MOUNT_NS] = "mount namespace",
        [VMM_LAYER_NET_NS] = "network namespace",
        [VMM_LAYER_IPC_NS] = "ipc namespace",
        [VMM_LAYER_UTS_NS] = "uts namespace",
        [VMM_LAYER_CGROUP_NS] = "cgroup namespace",
        [VMM_LAYER_PID_NS] = "pid namespace",
        [VMM_LAYER_ROOT] = "empty root",
        [VMM_LAYER_CAPS] = "no capabilities",
        [VMM_LAYER_NO_NEW_PRIVS] = "no new privileges",
        [VMM_LAYER_RLIMITS] = "resource limits",
        [VMM_LAYER_SECCOMP] = "system call filter",
    };
    return (unsigned)layer < VMM_LAYERS ? names[layer] : "?";
}
