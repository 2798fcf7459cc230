/* xml.h - domain XML of shells and of machines (libvirt's formatdomain). Pure. */
#ifndef UNID_HYPERVISOR_LIBVIRT_XML_H
#define UNID_HYPERVISOR_LIBVIRT_XML_H

#include <stdint.h>

#include "common/bytes.h"
#include "hypervisor/machine.h"

struct lv_xml_spec {
    const char *name;        /* of the domain */
    const char *accelerator; /* "kvm" or "tcg" */
    uint64_t mem_bytes;      /* a multiple of 1 KiB */
    const char *rom_path, *socket_path, *emulator;
};

/* Appends the XML to `out`. Foreign strings are escaped. -EINVAL for an unknown accelerator or a
 * string with control characters, which XML 1.0 cannot hold; -ENOMEM. Any thread. */
int lv_xml_build(const struct lv_xml_spec *spec, struct un_buf *out);

/* Appends a string as XML text or attribute value. -EINVAL, -ENOMEM. */
int lv_xml_append_escaped(struct un_buf *out, const char *s);

/* What a machine's domain is made of beside its spec, whose paths are those that QEMU's user can read. */
struct lv_machine_xml_spec {
    const char *name; /* of the domain */
    const char
        *accelerator; /* "kvm", "tcg"; "xen" for a paravirtualised host (then: no emulator) */
    const char *emulator;
    const char *console_path; /* unix socket, bound by QEMU; NULL: a pty */
    /* A qcow2 over each read-only disk, which gets what is written; NULL, or NULL for a disk: libvirt makes
     * one itself, but then no two machines can have the image. */
    const char *const *overlays;
    const struct hv_machine_spec *machine;
};
int lv_xml_build_machine(const struct lv_machine_xml_spec *spec, struct un_buf *out);

#endif
