/* proto.c - checks the messages between the kvm driver and unid-vmm (see proto.h). Linked into
 * both; uses nothing but memory. */
#include "hypervisor/kvm/proto.h"

#include <string.h>

static const uint64_t page_mask = 4095;

bool vmm_report_parse(const void *packet, size_t len, struct vmm_report *ret,
                      const uint8_t **ret_state)
{
    struct vmm_report r;
    if (len < sizeof(r)) {
        return false;
    }
    memcpy(&r, packet, sizeof(r));
    size_t rest = len - sizeof(r);
    if (r.kind < VMM_REPORT_RING || r.kind > VMM_REPORT_ERROR || r.error > 0 ||
        r.code_len > HV_CODE_MAX || rest != (r.kind == VMM_REPORT_SAVED ? sizeof(struct vmm_state) : 0)) {
        return false;
    }
    r.step[sizeof(r.step) - 1] = '\0';
    *ret = r;
    *ret_state = rest > 0 ? (const uint8_t *)packet + sizeof(r) : NULL;
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
           o->state_at <= INT64_MAX && !(o->flags & ~(uint32_t)(VMM_BIND_SHARED | VMM_BIND_STATE));
}

bool vmm_order_parse(const void *packet, size_t len, uint64_t mem_max, struct vmm_order *ret)
{
    struct vmm_order o;
    if (len != sizeof(o)) {
        return false;
    }
    memcpy(&o, packet, sizeof(o));
    if (o.op < VMM_ORDER_BIND || o.op > VMM_ORDER_RESET ||
        (o.op == VMM_ORDER_BIND && !bind_valid(&o, mem_max))) {
        return false;
    }
    *ret = o;
    return true;
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
