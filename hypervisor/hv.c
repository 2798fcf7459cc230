/* hv.c - what of the driver contract is the same for every driver. The table of drivers is
 * elsewhere (drivers.c). */
#include "hypervisor/hv.h"

#include "common/cleanup.h"
#include "unid/abi.h"

const char *hv_exit_name(enum hv_exit_kind kind)
{
    static const char *const names[] = {
        [HV_EXIT_DONE] = "done",         [HV_EXIT_FAULT] = "fault", [HV_EXIT_LIMIT] = "limit",
        [HV_EXIT_PROTOCOL] = "protocol", [HV_EXIT_LOST] = "lost",
    };
    size_t i = (size_t)kind;
    return i < UN_ARRAY_SIZE(names) ? names[i] : "unknown";
}

size_t hv_body_room(size_t request_head_len)
{
    return request_head_len > UNID_REQUEST_HEAD_MAX ? 0 : UNID_REQUEST_SIZE - request_head_len;
}
