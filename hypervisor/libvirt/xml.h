/* xml.h - the domain XML of a shell (libvirt's formatdomain). Pure. */
#ifndef UNID_HYPERVISOR_LIBVIRT_XML_H
#define UNID_HYPERVISOR_LIBVIRT_XML_H

#include <stdint.h>

#include "common/bytes.h"

struct lv_xml_spec {
    const char *name;        /* of the domain */
    const char *accelerator; /* "kvm" or "tcg" */
    uint64_t mem_bytes;      /* a multiple of 1 KiB */
    const char *rom_path, *socket_path, *emulator;
};

/* Appends the XML to `out`. Foreign strings are escaped. -EINVAL for an unknown accelerator or a
 * string with control characters, which XML 1.0 cannot hold; -ENOMEM. Any thread. */
int lv_xml_build(const struct lv_xml_spec *spec, struct un_buf *out);

#endif
