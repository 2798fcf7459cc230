/* xml.c - see xml.h.
 *
 * Why it is as it is: microvm has neither PCI nor firmware tables, so a shell is small and starts
 * fast; memfd memory is unnamed tmpfs memory which this process maps as well, sealed against
 * shrinking and gone with its last user; the one serial port is the doorbell. Whatever ends the
 * machine destroys the domain. The default CPU is named, so that it does not vary with the host, and
 * gets WRFSBASE and its kin, which TCG and all but old CPUs have; where the host's lacks them, QEMU
 * leaves them out, and the ROM sees it.
 */
#include "hypervisor/libvirt/xml.h"

#include <errno.h>
#include <inttypes.h>

int lv_xml_append_escaped(struct un_buf *out, const char *s)
{
    for (; *s; s++) {
        const char *entity = NULL;
        switch (*s) {
        case '&':
            entity = "&amp;";
            break;
        case '<':
            entity = "&lt;";
            break;
        case '>':
            entity = "&gt;";
            break;
        case '\'':
            entity = "&apos;";
            break;
        case '"':
            entity = "&quot;";
            break;
        default:
            if ((unsigned char)*s < 0x20) {
                return -EINVAL;
            }
        }
        int rc = entity ? un_buf_append_str(out, entity) : un_buf_append(out, s, 1);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

/* Appends text, then a foreign string. */
static int append_pair(struct un_buf *out, const char *text, const char *foreign)
{
    int rc = un_buf_append_str(out, text);
    return rc < 0 ? rc : lv_xml_append_escaped(out, foreign);
}

int lv_xml_build(const struct lv_xml_spec *spec, struct un_buf *out)
{
    bool kvm = strcmp(spec->accelerator, "kvm") == 0;
    if (!kvm && strcmp(spec->accelerator, "tcg") != 0) {
        return -EINVAL;
    }
    int rc = un_buf_printf(out, "<domain type='%s'>", kvm ? "kvm" : "qemu");
    rc = rc < 0 ? rc : append_pair(out, "<name>", spec->name);
    rc = rc < 0
             ? rc
             : un_buf_printf(out,
                             "</name><memory unit='KiB'>%" PRIu64 "</memory><memoryBacking>"
                             "<source type='memfd'/><access mode='shared'/></memoryBacking>"
                             "<vcpu>1</vcpu><os><type arch='x86_64' machine='microvm'>hvm</type>",
                             spec->mem_bytes / 1024);
    rc = rc < 0 ? rc : append_pair(out, "<loader readonly='yes' type='rom'>", spec->rom_path);
    rc = rc < 0 ? rc
                : un_buf_append_str(out, "</loader></os><cpu mode='custom' match='exact' "
                                         "check='none'><model fallback='forbid'>qemu64</model>"
                                         "<feature policy='require' name='fsgsbase'/></cpu>"
                                         "<on_poweroff>destroy</on_poweroff>"
                                         "<on_reboot>destroy</on_reboot>"
                                         "<on_crash>destroy</on_crash><devices>");
    rc = rc < 0 ? rc : append_pair(out, "<emulator>", spec->emulator);
    rc = rc < 0 ? rc
                : append_pair(out,
                              "</emulator><controller type='usb' model='none'/>"
                              "<memballoon model='none'/><audio id='1' type='none'/>"
                              "<serial type='unix'><source mode='bind' path='",
                              spec->socket_path);
    return rc < 0 ? rc
                  : un_buf_append_str(out, "'/><target type='isa-serial' port='0'/></serial>"
                                           "</devices></domain>");
}
