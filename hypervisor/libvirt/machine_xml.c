/* machine_xml.c - the domain of a machine image (see xml.h).
 *
 * Where the guest says nothing against it: no devices but a serial console, its disks and its network
 * card; for guests that know them a watchdog, which powers off, and a panic device. Disks and network card are virtio: on microvm over virtio-mmio, else over PCI. The processor
 * is the most capable that the accelerator can give but for KVM, where a named model keeps to what
 * every host's KVM can do.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "hypervisor/libvirt/usernet.h"
#include "hypervisor/libvirt/xml.h"

enum { DISKS_MAX = 4 };

/* The card of the user network is none of libvirt's devices, and has a slot that libvirt, which counts from
 * the lowest, does not come to. */
static const struct {
    const char *machine, *address, *user_card;
} types[] = {
    [HV_MACHINE_MICROVM] = {"microvm", "<address type='virtio-mmio'/>", "virtio-net-device"},
    [HV_MACHINE_Q35] = {"q35", "", "virtio-net-pci,bus=pcie.0,addr=0x10"},
    [HV_MACHINE_PC] = {"pc", "", "virtio-net-pci,bus=pci.0,addr=0x10"},
};

/* "<tag>escaped</tag>", or nothing for NULL. */
static int element(struct un_buf *out, const char *tag, const char *text)
{
    if (!text) {
        return 0;
    }
    int rc = un_buf_printf(out, "<%s>", tag);
    rc = rc < 0 ? rc : lv_xml_append_escaped(out, text);
    return rc < 0 ? rc : un_buf_printf(out, "</%s>", tag);
}

/* " name='escaped'" */
static int attribute(struct un_buf *out, const char *name, const char *value)
{
    int rc = un_buf_printf(out, " %s='", name);
    rc = rc < 0 ? rc : lv_xml_append_escaped(out, value);
    return rc < 0 ? rc : un_buf_append_str(out, "'");
}

static int append_os(const struct hv_machine_spec *m, const char *machine, bool xen,
                     struct un_buf *out)
{
    bool disk = m->boot == HV_BOOT_DISK;
    int rc = xen ? un_buf_printf(out, "<os><type>%s</type>", disk ? "hvm" : "xenpvh")
                 : un_buf_printf(out, "<os><type arch='x86_64' machine='%s'>hvm</type>", machine);
    if (disk) {
        return rc < 0 ? rc : un_buf_append_str(out, "<boot dev='hd'/></os>");
    }
    rc = rc < 0 ? rc : element(out, "kernel", m->kernel);
    rc = rc < 0 ? rc : element(out, "initrd", m->initrd);
    if (m->cmdline && *m->cmdline) {
        rc = rc < 0 ? rc : element(out, "cmdline", m->cmdline);
    }
    return rc < 0 ? rc : un_buf_append_str(out, "</os>");
}

static int append_cpu(const char *accelerator, struct un_buf *out)
{
    if (strcmp(accelerator, "tcg") == 0) {
        return un_buf_append_str(out, "<cpu mode='maximum'/>");
    }
    if (strcmp(accelerator, "kvm") == 0) {
        return un_buf_append_str(out, "<cpu mode='custom' match='exact' check='none'>"
                                      "<model fallback='forbid'>qemu64</model></cpu>");
    }
    return 0;
}

/* The file of a disk. `overlay`, over it, is what the machine has; NULL: itself. */
static int append_source(const struct hv_machine_disk *d, const char *overlay, struct un_buf *out)
{
    int rc = un_buf_append_str(out, "<source");
    rc = rc < 0 ? rc : attribute(out, "file", overlay ? overlay : d->path);
    rc = rc < 0 ? rc : un_buf_append_str(out, "/>");
    if (overlay) {
        rc = rc < 0 ? rc : un_buf_append_str(out, "<backingStore type='file'><format");
        rc = rc < 0 ? rc : attribute(out, "type", d->format);
        rc = rc < 0 ? rc : un_buf_append_str(out, "/><source");
        rc = rc < 0 ? rc : attribute(out, "file", d->path);
        rc = rc < 0 ? rc : un_buf_append_str(out, "/><backingStore/></backingStore>");
    }
    return rc;
}

/* `number`: where it stands among the guest's disks. */
static int append_disk(const struct hv_machine_disk *d, const char *overlay, unsigned number,
                       const char *address, struct un_buf *out)
{
    bool xen = !address;
    int rc = un_buf_append_str(out, "<disk type='file' device='disk'><driver name='qemu'");
    rc = rc < 0 ? rc : attribute(out, "type", overlay ? "qcow2" : d->format);
    /* A volume's bytes are on the disk when the guest's flush has ended; an image's are lost anyway. The
     * guest is told when there is no room: QEMU would stop it, and nobody set it going again. */
    rc = rc < 0 ? rc
                : un_buf_printf(out, " cache='%s' error_policy='report'/>",
                                d->read_only ? "unsafe" : "writeback");
    rc = rc < 0 ? rc : append_source(d, overlay, out);
    rc = rc < 0 ? rc
                : un_buf_printf(out, "<target dev='%s%c' bus='%s'/>%s%s</disk>", xen ? "xvd" : "vd",
                                'a' + (int)number, xen ? "xen" : "virtio", xen ? "" : address,
                                d->read_only && !overlay ? "<transient/>" : "");
    return rc;
}

static int append_net(const struct hv_machine_spec *m, const char *address, bool xen,
                      struct un_buf *out)
{
    if (m->net != HV_NET_TAP) {
        return 0;
    }
    int rc = un_buf_append_str(out, "<interface type='ethernet'><target");
    rc = rc < 0 ? rc : attribute(out, "dev", m->tap);
    rc = rc < 0 ? rc : un_buf_append_str(out, " managed='no'/>");
    if (m->mac) {
        rc = rc < 0 ? rc : un_buf_append_str(out, "<mac");
        rc = rc < 0 ? rc : attribute(out, "address", m->mac);
        rc = rc < 0 ? rc : un_buf_append_str(out, "/>");
    }
    return rc < 0 ? rc
                  : un_buf_printf(out, "%s%s</interface>", xen ? "" : "<model type='virtio'/>",
                                  address);
}

static int append_console(const char *path, bool xen, struct un_buf *out)
{
    if (xen || !path) {
        return un_buf_append_str(out, "<console type='pty'/>");
    }
    int rc = un_buf_append_str(out, "<serial type='unix'><source mode='bind'");
    rc = rc < 0 ? rc : attribute(out, "path", path);
    return rc < 0 ? rc : un_buf_append_str(out, "/><target type='isa-serial' port='0'/></serial>");
}

static int append_devices(const struct lv_machine_xml_spec *spec, bool xen, struct un_buf *out)
{
    const struct hv_machine_spec *m = spec->machine;
    const char *address = xen ? "" : types[m->type].address;
    int rc = un_buf_append_str(out, "<devices>");
    if (!xen) {
        rc = rc < 0 ? rc : element(out, "emulator", spec->emulator);
        rc = rc < 0
                 ? rc
                 : un_buf_append_str(out, "<controller type='usb' model='none'/>"
                                          "<memballoon model='none'/><audio id='1' type='none'/>");
    }
    /* QEMU's microvm gives its transports away from the highest address down, in which order its ACPI tables,
     * and the words that it has for a command line, name them; other guests look for them from the lowest up: what
     * is to be found first comes last. */
    bool backwards = !xen && m->type == HV_MACHINE_MICROVM && !m->acpi && !m->by_words;
    for (unsigned i = 0; i < m->disk_count; i++) {
        size_t at = backwards ? m->disk_count - 1 - i : i;
        const char *overlay = spec->overlays && !xen ? spec->overlays[at] : NULL;
        rc = rc < 0 ? rc : append_disk(&m->disks[at], overlay, i, xen ? NULL : address, out);
    }
    rc = rc < 0 ? rc : append_net(m, address, xen, out);
    rc = rc < 0 ? rc : append_console(spec->console_path, xen, out);
    if (m->guard && !xen && m->type != HV_MACHINE_MICROVM) {
        rc = rc < 0 ? rc
                    : un_buf_append_str(out, "<watchdog model='i6300esb' action='poweroff'/>"
                                             "<panic model='isa'/>");
    }
    return rc < 0 ? rc : un_buf_append_str(out, "</devices>");
}

/* libvirt has no words for a port that QEMU's user network forwards, so that card is made by QEMU's. */
static int append_user_net(const struct hv_machine_spec *m, struct un_buf *out)
{
    if (m->net != HV_NET_USER) {
        return 0;
    }
    int rc =
        un_buf_printf(out,
                      "<qemu:arg value='-netdev'/>"
                      "<qemu:arg value='user,id=user0,restrict=on,"
                      "hostfwd=tcp:127.0.0.1:%u-:%u'/><qemu:arg value='-device'/>"
                      "<qemu:arg value='%s,id=" LV_USER_CARD ",netdev=user0%s",
                      m->host_port, m->guest_port, types[m->type].user_card, m->mac ? ",mac=" : "");
    rc = rc < 0 || !m->mac ? rc : lv_xml_append_escaped(out, m->mac);
    return rc < 0 ? rc : un_buf_append_str(out, "'/>");
}

/* What QEMU has and libvirt 9.0 has no words for. A further -machine adds to libvirt's own (measured with QEMU
 * 7.2). */
static int append_qemu_words(const struct hv_machine_spec *m, struct un_buf *out)
{
    bool microvm = m->type == HV_MACHINE_MICROVM;
    bool virtio1 = microvm && m->virtio1, one = microvm && m->one_ioapic;
    bool keyboard = microvm && m->by_words;
    if (m->net != HV_NET_USER && !virtio1 && !one && !keyboard) {
        return 0;
    }
    int rc = un_buf_append_str(out, "<qemu:commandline>");
    if (virtio1) {
        rc = rc < 0 ? rc
                    : un_buf_append_str(out, "<qemu:arg value='-global'/>"
                                             "<qemu:arg value='virtio-mmio.force-legacy=false'/>");
    }
    if (one) {
        rc = rc < 0 ? rc
                    : un_buf_append_str(out, "<qemu:arg value='-machine'/>"
                                             "<qemu:arg value='ioapic2=off'/>");
    }
    if (keyboard) {
        rc = rc < 0 ? rc
                    : un_buf_append_str(out, "<qemu:arg value='-device'/>"
                                             "<qemu:arg value='i8042'/>");
    }
    rc = rc < 0 ? rc : append_user_net(m, out);
    return rc < 0 ? rc : un_buf_append_str(out, "</qemu:commandline>");
}

static int check(const struct hv_machine_spec *m)
{
    bool whole =
        (m->boot == HV_BOOT_DISK ? m->disk_count > 0 : m->kernel != NULL) &&
        m->disk_count <= DISKS_MAX && (m->net != HV_NET_TAP || m->tap) &&
        (unsigned)m->type < sizeof(types) / sizeof(types[0]) &&
        (m->type != HV_MACHINE_MICROVM || m->boot != HV_BOOT_DISK) &&
        (m->boot != HV_BOOT_SHELL || (m->type == HV_MACHINE_MICROVM && m->disk_count == 0));
    return whole ? 0 : -EINVAL;
}

int lv_xml_build_machine(const struct lv_machine_xml_spec *spec, struct un_buf *out)
{
    const struct hv_machine_spec *m = spec->machine;
    bool kvm = strcmp(spec->accelerator, "kvm") == 0, xen = strcmp(spec->accelerator, "xen") == 0;
    if (check(m) < 0 || (xen && m->boot == HV_BOOT_SHELL) ||
        (!kvm && !xen && strcmp(spec->accelerator, "tcg") != 0)) {
        return -EINVAL;
    }
    int rc = un_buf_printf(out, "<domain type='%s'%s>",
                           kvm   ? "kvm"
                           : xen ? "xen"
                                 : "qemu",
                           xen ? "" : " xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'");
    rc = rc < 0 ? rc : element(out, "name", spec->name);
    rc = rc < 0 ? rc
                : un_buf_printf(out, "<memory unit='KiB'>%" PRIu64 "</memory><vcpu>1</vcpu>",
                                m->mem_bytes / 1024);
    if (m->boot == HV_BOOT_SHELL) { /* its memory is written to from here */
        rc = rc < 0 ? rc
                    : un_buf_append_str(out, "<memoryBacking><source type='memfd'/>"
                                             "<access mode='shared'/></memoryBacking>");
    }
    rc = rc < 0 ? rc : append_os(m, types[m->type].machine, xen, out);
    bool bare = !xen && m->type == HV_MACHINE_MICROVM && m->by_words;
    rc = rc < 0 ? rc : un_buf_printf(out, "<features>%s<apic/></features>", bare ? "" : "<acpi/>");
    rc = rc < 0 ? rc : append_cpu(spec->accelerator, out);
    rc = rc < 0 ? rc
                : un_buf_append_str(out, "<on_poweroff>destroy</on_poweroff>"
                                         "<on_reboot>destroy</on_reboot>"
                                         "<on_crash>destroy</on_crash>");
    rc = rc < 0 ? rc : append_devices(spec, xen, out);
    rc = rc < 0 || xen ? rc : append_qemu_words(m, out);
    return rc < 0 ? rc : un_buf_append_str(out, "</domain>");
}
