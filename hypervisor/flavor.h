/* flavor.h - how unikernels want to be told about their network, and what machine they expect: a table.
 * Pure.
 */
#ifndef UNID_HYPERVISOR_FLAVOR_H
#define UNID_HYPERVISOR_FLAVOR_H

#include "common/bytes.h"
#include "common/error.h"
#include "hypervisor/machine.h"

struct hv_flavor {
    const char *name;
    enum hv_machine_type type;
    /* The command line: placeholders as below, and {append} for what the user adds. "" where the guest
     * asks DHCP. */
    const char *template;
    bool json;                                /* {append} stands in a JSON string */
    bool guard;                               /* it knows a watchdog and a panic device */
    bool acpi, by_words, virtio1, one_ioapic; /* as in hv_machine_spec */
};

/* "plain", "pc", "q35", "firecracker" (the user's words only, by machine type; the last is a microvm that looks as
 * Firecracker's does), "unikraft", "unikraft-fc" (its images for Firecracker), "solo5", "osv", "rumprun", "nanos",
 * "linux" (microvm), "linux-pc" (one without drivers for virtio-mmio); NULL: unknown. */
const struct hv_flavor *hv_flavor_find(const char *name);
/* All names, comma-separated, for messages. */
const char *hv_flavor_names(void);

/* What an image says of itself: by the words that only one of them has in its binary. "plain" when it
 * says nothing; one of the two for Firecracker when it is a kernel that asks for struct boot_params
 * (common/linux64.h). Looks at the first 8 MiB. */
const struct hv_flavor *hv_flavor_detect(const void *image, size_t len);

/* A guest's network, as text; NULL where there is none. And what its time stamp counter counts in a
 * millisecond, "0" when that is not known. */
struct hv_net_words {
    const char *ip, *prefix, *netmask, *gateway, *dns, *mac, *port;
    const char *tsc_khz;
};

/* Appends the command line: the flavor's template with `append` (whose placeholders are filled in as
 * well; NULL: "") and {ip} {prefix} {netmask} {gateway} {dns} {mac} {port} {tsckhz}. Braces around anything else
 * stay as they are. -EINVAL: {word} of lower-case letters that is no placeholder; -E2BIG: longer than
 * LIMIT_CMDLINE_BYTES; -ENOMEM. */
int hv_cmdline_expand(const struct hv_flavor *flavor, const char *append,
                      const struct hv_net_words *net, struct un_buf *out, struct un_error *err);

#endif
