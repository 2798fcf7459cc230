/* proto.c - checks the messages between the kvm driver and unid-vmm (see proto.h). Linked into
 * both; uses nothing but memory. */
#include "hypervisor/kvm/proto.h"

#include <string.h>

static const uint64_t page_mask = 4095;

static bool tail_valid(const struct vmm_report *r, size_t len)
{
    switch (r->kind) {
    case VMM_REPORT_SAVED:
        return len == sizeof(struct vmm_state);
    case VMM_REPORT_RING:
        return r->touched <= VMM_TOUCHES_MAX && len >= r->touched * sizeof(uint64_t) &&
               len - r->touched * sizeof(uint64_t) <= VMM_WRITTEN_BYTES;
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
        r.code_len > HV_CODE_MAX || !tail_valid(&r, rest)) {
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

bool vmm_ranges_valid(const struct vmm_range *r, size_t count, uint64_t mem_bytes)
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
                     struct vmm_ahead *ret_ahead)
{
    struct vmm_order o;
    if (len < sizeof(o)) {
        return false;
    }
    memcpy(&o, packet, sizeof(o));
    const uint8_t *at = (const uint8_t *)packet + sizeof(o);
    bool bind = o.op == VMM_ORDER_BIND, may = o.op == VMM_ORDER_RESET;
    may = may || (bind && o.flags & VMM_BIND_STATE);
    if (o.op < VMM_ORDER_BIND || o.op > VMM_ORDER_RESET || o.range_count > VMM_RANGES_MAX ||
        o.touch_count > VMM_TOUCHES_MAX || (!may && (o.range_count > 0 || o.touch_count > 0)) ||
        len - sizeof(o) != o.range_count * sizeof(struct vmm_range) + o.touch_count * 8) {
        return false;
    }
    struct vmm_ahead ahead = {.ranges = (const struct vmm_range *)(const void *)at,
                              .range_count = o.range_count,
                              .touch_count = o.touch_count};
    ahead.touches = (const uint64_t *)(const void *)(ahead.ranges + o.range_count);
    if (bind && (!bind_valid(&o, mem_max) || !zeros_valid(&o) ||
                 !vmm_ranges_valid(ahead.ranges, ahead.range_count, o.mem_bytes))) {
        return false;
    }
    *ret = o;
    *ret_ahead = ahead;
    return true;
}

uint64_t vmm_pieces_from(uint64_t zero_at, uint64_t zero_bytes)
{
    return zero_at + zero_bytes / 3;
}

bool vmm_fill_valid(uint64_t zero_at, uint64_t zero_bytes, uint64_t piece)
{
    return piece % UNID_PIECE_SIZE == 0 && piece >= zero_at && zero_bytes >= UNID_PIECE_SIZE &&
           piece - zero_at <= zero_bytes - UNID_PIECE_SIZE;
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

size_t vmm_touches_merge(const uint64_t *a, size_t a_count, const void *b, size_t b_count,
                         uint64_t *ret)
{
    const uint64_t flags = page_mask;
    size_t n = 0, i = 0, j = 0;
    uint64_t last = 0;
    while (n < VMM_TOUCHES_MAX && (i < a_count || j < b_count)) {
        uint64_t x = UINT64_MAX, y = UINT64_MAX;
        if (i < a_count) {
            x = a[i];
        }
        if (j < b_count) {
            memcpy(&y, (const uint8_t *)b + j * sizeof(y), sizeof(y));
            y &= ~(flags & ~VMM_TOUCH_WRITE);
        }
        bool from_a = i < a_count && (j == b_count || (x & ~flags) <= (y & ~flags));
        uint64_t next = from_a ? x : y;
        i += from_a;
        j += !from_a;
        if (n > 0 && (next & ~flags) == (last & ~flags)) {
            ret[n - 1] |= next & VMM_TOUCH_WRITE;
        } else if (n == 0 || next > last) {
            ret[n++] = last = next;
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
