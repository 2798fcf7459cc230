/* test_machine.c - machine images: their domain XML against libvirt's schema, and a real one (the test
 * kernel of tests/guests, under QEMU/TCG) made, started, asked over its network, crashed and removed.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <cmocka.h>

#include "common/cleanup.h"
#include "hypervisor/libvirt/place.h"
#include "hypervisor/libvirt/usernet.h"
#include "hypervisor/libvirt/xml.h"
#include "hypervisor/machine.h"
#include "hypervisor/module.h"
#include "netplumb/net.h"

#define MIB (UINT64_C(1) << 20)

static bool have_namespace;

/* --- XML ---------------------------------------------------------------------------------------- */

static bool has(const struct un_buf *b, const char *text)
{
    return strstr((const char *)b->data, text) != NULL;
}

/* libvirt's own schema. */
static void check_schema(const struct un_buf *xml)
{
    static const char schema[] = "/usr/share/libvirt/schemas/domain.rng";
    if (access(schema, R_OK) < 0 || access("/usr/bin/xmllint", X_OK) < 0) {
        print_message("%s or xmllint is not installed: XML is not held against the schema\n",
                      schema);
        return;
    }
    FILE *f =
        popen("xmllint --noout --relaxng /usr/share/libvirt/schemas/domain.rng - 2>/dev/null", "w");
    assert_non_null(f);
    fwrite(xml->data, 1, xml->len, f);
    if (pclose(f) != 0) {
        fail_msg("libvirt's schema does not accept %s", (const char *)xml->data);
    }
}

static void build(const struct hv_machine_spec *m, const char *accelerator, struct un_buf *out)
{
    struct lv_machine_xml_spec spec = {.name = "unid-x-1",
                                       .accelerator = accelerator,
                                       .emulator = "/usr/bin/qemu-system-x86_64",
                                       .console_path = "/dev/shm/x/s/1",
                                       .machine = m};
    un_buf_reset(out);
    assert_int_equal(lv_xml_build_machine(&spec, out), 0);
    check_schema(out);
}

/* On microvm, over a tap. */
static struct hv_machine_spec microvm(enum hv_machine_boot boot, const char *kernel)
{
    return (struct hv_machine_spec){.boot = boot,
                                    .type = HV_MACHINE_MICROVM,
                                    .kernel = kernel,
                                    .cmdline = "",
                                    .mem_bytes = 64 * MIB,
                                    .net = HV_NET_TAP,
                                    .tap = "ut12345678a",
                                    .mac = "02:75:0a:57:00:02"};
}

static void describes_a_kernel_on_microvm(void **state)
{
    struct hv_machine_spec m = microvm(HV_BOOT_KERNEL, "/k");
    m.initrd = "/i";
    m.cmdline = "a=\"b\" <c>";
    un_autobuf struct un_buf b = {0};
    build(&m, "tcg", &b);
    assert_true(has(&b, "<domain type='qemu'"));
    assert_true(has(&b, "<kernel>/k</kernel><initrd>/i</initrd>"));
    assert_true(has(&b, "<cmdline>a=&quot;b&quot; &lt;c&gt;</cmdline>"));
    assert_true(has(&b, "<target dev='ut12345678a' managed='no'/>"));
    assert_true(has(&b, "<address type='virtio-mmio'/>"));
    build(&m, "kvm", &b);
    assert_true(has(&b, "<domain type='kvm'"));
    build(&m, "xen", &b);
    assert_true(has(&b, "<domain type='xen'>"));
    assert_false(has(&b, "qemu:commandline"));
}

static void describes_a_shell(void **state)
{
    const struct hv_machine_spec m = microvm(HV_BOOT_SHELL, "/waiter.elf");
    un_autobuf struct un_buf b = {0};
    build(&m, "tcg", &b);
    assert_true(has(&b, "<source type='memfd'/><access mode='shared'/>"));
    assert_true(has(&b, "<kernel>/waiter.elf</kernel></os>"));
    struct lv_machine_xml_spec xen = {.name = "n", .accelerator = "xen", .machine = &m};
    assert_int_equal(lv_xml_build_machine(&xen, &b), -EINVAL);
}

static void describes_disks(void **state)
{
    const struct hv_machine_disk disks[] = {{"/images/root.qcow2", "qcow2", true},
                                            {"/volumes/data", "raw", false}};
    struct hv_machine_spec m = {.boot = HV_BOOT_DISK,
                                .type = HV_MACHINE_Q35,
                                .mem_bytes = 128 * MIB,
                                .disks = disks,
                                .disk_count = 2,
                                .net = HV_NET_USER,
                                .host_port = 40000,
                                .guest_port = 80};
    un_autobuf struct un_buf b = {0};
    build(&m, "tcg", &b);
    assert_true(has(&b, "<boot dev='hd'/>"));
    assert_true(has(&b, "<source file='/images/root.qcow2'/><target dev='vda' bus='virtio'/>"
                        "<transient/>"));
    assert_true(has(&b, "<source file='/volumes/data'/><target dev='vdb' bus='virtio'/></disk>"));
    assert_true(has(&b, "hostfwd=tcp:127.0.0.1:40000-:80"));
    const char *const overlays[] = {"/scratch/a&b.0", NULL};
    struct lv_machine_xml_spec over = {
        .name = "n", .accelerator = "tcg", .emulator = "/q", .overlays = overlays, .machine = &m};
    un_autobuf struct un_buf c = {0};
    assert_int_equal(lv_xml_build_machine(&over, &c), 0);
    check_schema(&c);
    assert_true(has(&c, "<source file='/scratch/a&amp;b.0'/><backingStore type='file'>"
                        "<format type='qcow2'/><source file='/images/root.qcow2'/>"
                        "<backingStore/></backingStore><target dev='vda' bus='virtio'/></disk>"));
    assert_true(has(&c, "<source file='/volumes/data'/><target dev='vdb' bus='virtio'/></disk>"));
    m.type = HV_MACHINE_PC;
    build(&m, "tcg", &b);
    assert_true(has(&b, "virtio-net-pci,bus=pci.0,addr=0x10,id=user0-card,netdev=user0'"));
    m.type = HV_MACHINE_MICROVM; /* whose guests find the last one first */
    m.boot = HV_BOOT_KERNEL;
    m.kernel = "/images/kernel";
    build(&m, "tcg", &b);
    assert_true(has(&b, "<source file='/volumes/data'/><target dev='vda' bus='virtio'/>"));
    assert_true(has(&b, "<source file='/images/root.qcow2'/><target dev='vdb' bus='virtio'/>"));
    m.acpi = true;
    build(&m, "tcg", &b);
    assert_true(has(&b, "<source file='/images/root.qcow2'/><target dev='vda' bus='virtio'/>"));
    m.acpi = false;
    m.by_words = true; /* in the order that the words come in */
    build(&m, "tcg", &b);
    assert_true(has(&b, "<source file='/images/root.qcow2'/><target dev='vda' bus='virtio'/>"));
    m.type = HV_MACHINE_PC;
    m.boot = HV_BOOT_DISK;
    build(&m, "xen", &b);
    assert_true(has(&b, "dev='xvda' bus='xen'"));
}

static void a_guest_that_knows_virtio_1_only_gets_it_on_microvm(void **state)
{
    struct hv_machine_spec m = {.boot = HV_BOOT_KERNEL,
                                .type = HV_MACHINE_MICROVM,
                                .kernel = "/k",
                                .mem_bytes = 64 * MIB,
                                .net = HV_NET_TAP,
                                .tap = "ut1"};
    static const char virtio1[] = "<qemu:arg value='-global'/>"
                                  "<qemu:arg value='virtio-mmio.force-legacy=false'/>",
                      one_ioapic[] = "<qemu:arg value='-machine'/>"
                                     "<qemu:arg value='ioapic2=off'/>",
                      user[] = "<qemu:arg value='-netdev'/>";
    un_autobuf struct un_buf b = {0};
    build(&m, "tcg", &b);
    assert_false(has(&b, "qemu:commandline"));
    m.virtio1 = true;
    build(&m, "tcg", &b);
    assert_true(has(&b, virtio1));
    assert_false(has(&b, one_ioapic));
    m.virtio1 = false;
    m.one_ioapic = true;
    build(&m, "kvm", &b);
    assert_false(has(&b, virtio1));
    assert_true(has(&b, one_ioapic));
    m.virtio1 = true;
    m.net = HV_NET_USER; /* all in one element: the schema takes no second */
    build(&m, "tcg", &b);
    assert_true(has(&b, virtio1) && has(&b, one_ioapic) && has(&b, user));
    m.type = HV_MACHINE_PC; /* which has one I/O APIC, and PCI's virtio tells what it is */
    build(&m, "tcg", &b);
    assert_false(has(&b, virtio1) || has(&b, one_ioapic));
    assert_true(has(&b, user));
    m.type = HV_MACHINE_MICROVM;
    build(&m, "xen", &b);
    assert_false(has(&b, "qemu:"));
}

static void a_guest_that_is_told_its_devices_by_words_has_no_acpi(void **state)
{
    struct hv_machine_spec m = {
        .boot = HV_BOOT_LOADER, .type = HV_MACHINE_MICROVM, .kernel = "/k", .mem_bytes = 64 * MIB};
    un_autobuf struct un_buf b = {0};
    build(&m, "tcg", &b);
    assert_true(has(&b, "<features><acpi/><apic/></features>"));
    m.by_words = true;
    build(&m, "tcg", &b);
    assert_true(has(&b, "<features><apic/></features>"));
    assert_true(has(&b, "<qemu:arg value='-device'/><qemu:arg value='i8042'/>"));
    m.type = HV_MACHINE_PC; /* whose guests look on PCI, whatever else they know */
    build(&m, "tcg", &b);
    assert_true(has(&b, "<features><acpi/><apic/></features>"));
    assert_false(has(&b, "i8042"));
}

static void reads_what_the_monitor_tells(void **state)
{
    static const char connections[] =
        "Hub -1 (n):\r\n"
        "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n"
        "  TCP[ESTABLISHED]   14       10.0.2.15 45673        10.0.2.2    80     0     0\r\n"
        "  TCP[SYN_SENT]      13       127.0.0.1 45672       10.0.2.15  8080     0     0\r\n"
        "  TCP[ESTABLISHED]   12       127.0.0.1 45671       10.0.2.15  8080     0     0\r\n"
        "  TCP[HOST_FORWARD]   8       127.0.0.1 45670       10.0.2.15  8080     0     0\r\n";
    assert_true(lv_usernet_listens(connections, 45671));
    for (uint16_t port = 45672; port != 45674; port++) {
        assert_false(lv_usernet_listens(connections, port));
    }
    assert_false(lv_usernet_listens(connections, 45670));
    assert_false(lv_usernet_listens("", 1));
    assert_false(lv_usernet_listens("\n\n  TCP[ESTABLISHED]", 1));
    assert_false(
        lv_usernet_card_is_up("/machine/peripheral/x:\r\n  status:\r\n\tVIRTIO_CONFIG_S_DRIVER: "
                              "Guest OS compatible with device\r\n"));
    assert_true(lv_usernet_card_is_up(
        "/machine/peripheral/x:\r\n  status:\r\n\tVIRTIO_CONFIG_S_DRIVER_OK: Driver ready\r\n"));
    assert_true(
        lv_usernet_port_is_taken("internal error: process exited while connecting to monitor: "
                                 "-netdev user,id=user0,hostfwd=tcp:127.0.0.1:40000-:80: Could "
                                 "not set up host forwarding rule 'tcp:127.0.0.1:40000-:80'"));
    assert_false(lv_usernet_port_is_taken("internal error: process exited"));
    assert_true(lv_usernet_card_is_up("unknown command: 'info virtio-status'\r\n"));
}

static void refuses_what_does_not_fit_together(void **state)
{
    const struct hv_machine_spec bad[] = {
        {.boot = HV_BOOT_KERNEL, .mem_bytes = MIB},                       /* no kernel */
        {.boot = HV_BOOT_DISK, .type = HV_MACHINE_PC, .mem_bytes = MIB},  /* no disk */
        {.boot = HV_BOOT_KERNEL, .kernel = "/k", .net = HV_NET_TAP},      /* no tap */
        {.boot = HV_BOOT_KERNEL, .kernel = "/k", .cmdline = "bad\ntext"}, /* not XML */
        {.boot = HV_BOOT_KERNEL, .kernel = "/k", .disk_count = 5},
        {.boot = HV_BOOT_SHELL, .kernel = "/k", .type = HV_MACHINE_PC},
        {.boot = HV_BOOT_SHELL, .kernel = "/k", .disk_count = 1},
    };
    for (size_t i = 0; i < UN_ARRAY_SIZE(bad); i++) {
        un_autobuf struct un_buf b = {0};
        struct lv_machine_xml_spec spec = {
            .name = "n", .accelerator = "tcg", .emulator = "/q", .machine = &bad[i]};
        assert_int_equal(lv_xml_build_machine(&spec, &b), -EINVAL);
    }
}

/* --- a real one --------------------------------------------------------------------------------- */

struct world {
    struct un_loop *loop;
    struct hv_driver *drv;
    char dir[64], kernel[512];
    bool made, ended, gone;
    enum hv_machine_heard heard;
    unsigned asked;
    int rc;
    struct un_error err;
    struct hv_exit why;
    struct un_buf log;
};

static void on_made(void *arg, int rc, const struct un_error *err)
{
    struct world *w = arg;
    w->made = true;
    w->rc = rc;
    un_error_copy(&w->err, err);
    un_loop_stop(w->loop);
}

static void on_log(void *arg, const void *data, size_t len)
{
    struct world *w = arg;
    assert_int_equal(un_buf_append(&w->log, data, len), 0);
    un_loop_stop(w->loop);
}

static void on_exit_(void *arg, const struct hv_exit *why)
{
    struct world *w = arg;
    w->ended = true;
    w->why = *why;
    un_loop_stop(w->loop);
}

static void on_heard(void *arg, enum hv_machine_heard heard)
{
    struct world *w = arg;
    w->heard = heard;
    w->asked++;
    un_loop_stop(w->loop);
}

static void on_gone(void *arg)
{
    struct world *w = arg;
    w->gone = true;
    un_loop_stop(w->loop);
}

static const struct hv_machine_events events = {.on_made = on_made,
                                                .on_log = on_log,
                                                .on_exit = on_exit_,
                                                .on_heard = on_heard,
                                                .on_gone = on_gone};

static int open_world(void **state)
{
    static struct world w;
    struct un_error err = UN_ERROR_INIT;
    w = (struct world){.dir = "/tmp/unid-machine-XXXXXX"};
    assert_non_null(mkdtemp(w.dir));
    snprintf(w.kernel, sizeof(w.kernel), "%s/tests/guests/netkernel.elf",
             getenv("UNID_BUILD") ?: ".");
    assert_int_equal(un_loop_new(&w.loop, NULL), 0);
    const struct hv_driver_ops *ops = module_load("unid-libvirt.so", &err);
    struct hv_driver_spec spec = {
        .loop = w.loop, .state_dir = w.dir, .runtime_dir = "/tmp", .accelerator = "tcg"};
    if (!ops || ops->open(&spec, &w.drv, &err) < 0) {
        print_error("%s\n", err.text);
        return -1;
    }
    *state = &w;
    return 0;
}

static int close_world(void **state)
{
    struct world *w = *state;
    if (!w) {
        return 0;
    }
    hv_driver_ops(w->drv)->close(w->drv);
    un_loop_free(w->loop);
    un_buf_done(&w->log);
    lv_tree_remove(w->dir);
    return 0;
}

static struct hv_machine *make(struct world *w, struct hv_machine_spec spec)
{
    struct hv_machine *m;
    w->made = w->ended = w->gone = false;
    un_buf_reset(&w->log);
    if (spec.boot != HV_BOOT_SHELL) {
        spec.kernel = spec.kernel ? spec.kernel : w->kernel;
    }
    spec.mem_bytes = 64 * MIB;
    spec.name = "test";
    spec.events = &events;
    spec.arg = w;
    assert_int_equal(hv_driver_ops(w->drv)->machine->new (w->drv, &spec, &m, NULL), 0);
    while (!w->made) {
        un_loop_run(w->loop);
    }
    return m;
}

static void wait_for_log(struct world *w, const char *text)
{
    while (!w->ended && (!w->log.data || !has(&w->log, text))) {
        un_loop_run(w->loop);
    }
    if (w->ended) {
        fail_msg("ended early: %s; log: %s", w->why.detail,
                 w->log.data ? (const char *)w->log.data : "");
    }
}

static void discard(struct world *w, struct hv_machine *m)
{
    hv_machine_ops(m)->free(m);
    while (!w->gone) {
        un_loop_run(w->loop);
    }
}

/* Below those that the kernel gives to who asks for none (Linux, Documentation/networking/ip-sysctl.rst): nobody gets
 * it by chance before it is used. */
static uint16_t free_port(void)
{
    enum { LEAST = 10000, COUNT = 10000 };
    static unsigned next;
    un_autoclose int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    for (unsigned i = 0; i < COUNT; i++) {
        uint16_t port = LEAST + ((unsigned)getpid() * 17 + next++) % COUNT;
        struct sockaddr_in a = {.sin_family = AF_INET,
                                .sin_port = htons(port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        if (bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0) {
            return port;
        }
    }
    fail_msg("no port is free");
    return 0;
}

/* GET over a connection of its own; what came, NUL-terminated. */
static void get(const char *ip, uint16_t port, const char *path, char *out, size_t size)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct timeval patience = {.tv_sec = 60};
    char request[128];
    inet_pton(AF_INET, ip, &a.sin_addr);
    un_autoclose int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    int n =
        snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nConnection: close\r\n\r\n", path);
    out[0] = '\0';
    if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || send(fd, request, (size_t)n, 0) != n) {
        return;
    }
    size_t len = 0;
    ssize_t got;
    while (len < size - 1 && (got = recv(fd, out + len, size - 1 - len, 0)) > 0) {
        len += (size_t)got;
    }
    out[len] = '\0';
}

static enum hv_machine_heard ask(struct world *w, struct hv_machine *m)
{
    unsigned before = w->asked;
    hv_machine_ops(m)->ask(m);
    hv_machine_ops(m)->ask(m); /* one answer for both */
    while (w->asked == before) {
        un_loop_run(w->loop);
    }
    assert_int_equal(w->asked, before + 1);
    return w->heard;
}

static int connect_to(uint16_t port)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

static void user_network_reaches_the_guest(void **state)
{
    struct world *w = *state;
    uint16_t port = free_port();
    struct hv_machine *m = make(
        w, (struct hv_machine_spec){
               .net = HV_NET_USER, .host_port = port, .guest_port = 8080, .cmdline = "port=8080"});
    assert_int_equal(w->rc, 0);
    assert_true(hv_machine_ops(m)->pid(m) > 0);
    hv_machine_ops(m)->start(m);
    enum hv_machine_heard first = ask(w, m);
    assert_true(first == HV_HEARD_NOTHING || first == HV_HEARD_CARD);
    wait_for_log(w, "netkernel: listening");
    char text[512];
    get("127.0.0.1", port, "/", text, sizeof(text));
    assert_non_null(strstr(text, "hello from 10.0.2.15"));
    un_autoclose int probe = connect_to(port);
    while (ask(w, m) != HV_HEARD_LISTENS) { /* the guest, or QEMU, may be slow */
        assert_int_equal(w->heard, HV_HEARD_CARD);
    }
    struct hv_usage usage;
    hv_machine_ops(m)->usage(m, &usage);
    assert_true(usage.cpu_us > 0);
    assert_true(usage.peak_rss_kib > 1024);
    discard(w, m);
}

static void a_port_that_is_taken_meanwhile_is_told(void **state)
{
    struct world *w = *state;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    un_autoclose int theirs = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(theirs, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(theirs, 1), 0);
    assert_int_equal(getsockname(theirs, (struct sockaddr *)&at, &len), 0);
    struct hv_machine *m = make(w, (struct hv_machine_spec){.net = HV_NET_USER,
                                                            .host_port = ntohs(at.sin_port),
                                                            .guest_port = 8080,
                                                            .cmdline = "port=8080"});
    assert_int_equal(w->rc, -EADDRINUSE);
    discard(w, m);
}

static void virtio_1_alone_is_what_the_guest_finds(void **state)
{
    struct world *w = *state;
    uint16_t port = free_port();
    struct hv_machine *m = make(w, (struct hv_machine_spec){.net = HV_NET_USER,
                                                            .host_port = port,
                                                            .guest_port = 8080,
                                                            .virtio1 = true,
                                                            .one_ioapic = true,
                                                            .cmdline = "port=8080"});
    if (w->rc < 0) {
        fail_msg("%s", w->err.text);
    }
    hv_machine_ops(m)->start(m);
    wait_for_log(w, "netkernel: listening");
    assert_true(has(&w->log, "netkernel: virtio 1\n"));
    discard(w, m);
}

static void a_crash_is_told(void **state)
{
    struct world *w = *state;
    struct hv_machine *m = make(w, (struct hv_machine_spec){.cmdline = "crash"});
    assert_int_equal(w->rc, 0);
    hv_machine_ops(m)->start(m);
    while (!w->ended) {
        un_loop_run(w->loop);
    }
    assert_true(has(&w->log, "crashes, as it was told"));
    assert_int_equal(w->why.kind, HV_EXIT_FAULT);
    assert_non_null(strstr(w->why.detail, "triple fault"));
    discard(w, m);
}

static void end_of(struct world *w, struct hv_machine_spec spec)
{
    struct hv_machine *m = make(w, spec);
    if (w->rc < 0) {
        fail_msg("%s", w->err.text);
    }
    hv_machine_ops(m)->start(m);
    while (!w->ended) {
        un_loop_run(w->loop);
    }
    discard(w, m);
}

static void ends_are_told_apart(void **state)
{
    struct world *w = *state;
    end_of(w, (struct hv_machine_spec){.cmdline = "off"});
    assert_int_equal(w->why.kind, HV_EXIT_DONE);
    assert_non_null(strstr(w->why.detail, "shut itself down"));
    struct hv_machine_spec guarded = {.type = HV_MACHINE_PC, .guard = true, .cmdline = "off"};
    end_of(w, guarded);
    assert_int_equal(w->why.kind, HV_EXIT_DONE);
    guarded.cmdline = "panic";
    end_of(w, guarded);
    assert_int_equal(w->why.kind, HV_EXIT_FAULT);
    assert_non_null(strstr(w->why.detail, "panicked"));
    guarded.cmdline = "dog";
    end_of(w, guarded);
    assert_int_equal(w->why.kind, HV_EXIT_FAULT);
    assert_non_null(strstr(w->why.detail, "its watchdog fired"));
    assert_true(has(&w->log, "netkernel: hangs"));
}

static void a_killed_qemu_is_a_loss(void **state)
{
    struct world *w = *state;
    struct hv_machine *m = make(w, (struct hv_machine_spec){.cmdline = "halt"});
    assert_int_equal(w->rc, 0);
    hv_machine_ops(m)->start(m);
    wait_for_log(w, "netkernel: started");
    kill(hv_machine_ops(m)->pid(m), SIGKILL);
    while (!w->ended) {
        un_loop_run(w->loop);
    }
    assert_int_equal(w->why.kind, HV_EXIT_LOST);
    assert_non_null(strstr(w->why.detail, "QEMU went away"));
    discard(w, m);
}

static void a_machine_may_be_freed_at_any_time(void **state)
{
    struct world *w = *state;
    struct hv_machine *m;
    struct hv_machine_spec spec = {.boot = HV_BOOT_KERNEL,
                                   .kernel = w->kernel,
                                   .mem_bytes = 64 * MIB,
                                   .name = "early",
                                   .events = &events,
                                   .arg = w};
    w->gone = false;
    assert_int_equal(hv_driver_ops(w->drv)->machine->new (w->drv, &spec, &m, NULL), 0);
    discard(w, m); /* while it is being made */
    m = make(w, (struct hv_machine_spec){.cmdline = ""});
    discard(w, m); /* paused */
    m = make(w, (struct hv_machine_spec){.cmdline = "halt"});
    hv_machine_ops(m)->start(m);
    discard(w, m); /* while it is being started */
}

static void what_cannot_be_made_says_why(void **state)
{
    struct world *w = *state;
    struct hv_machine *m = make(w, (struct hv_machine_spec){.kernel = "/nonexistent/kernel"});
    assert_int_equal(w->rc, -ENOENT);
    assert_non_null(strstr(w->err.text, "/nonexistent/kernel"));
    discard(w, m);
}

/* Makes a machine of a shell; what becomes of it is told as of any other. */
static void load(struct world *w, struct hv_machine *m, struct hv_machine_spec spec)
{
    w->made = false;
    spec.kernel = spec.kernel ? spec.kernel : w->kernel;
    spec.mem_bytes = 64 * MIB;
    spec.name = "test";
    spec.events = &events;
    spec.arg = w;
    hv_machine_ops(m)->load(m, &spec);
    while (!w->made) {
        un_loop_run(w->loop);
    }
}

static void a_shell_becomes_a_machine(void **state)
{
    struct world *w = *state;
    struct hv_machine_spec spec = {.boot = HV_BOOT_SHELL,
                                   .net = HV_NET_USER,
                                   .host_port = free_port(),
                                   .guest_port = 8080,
                                   .cmdline = ""};
    struct hv_machine *m = make(w, spec);
    assert_int_equal(w->rc, 0);
    spec.boot = HV_BOOT_KERNEL;
    spec.cmdline = "port=8080 delay=50";
    load(w, m, spec);
    assert_int_equal(w->rc, 0);
    assert_int_equal(w->log.len, 0); /* it has not run, and the shell has no words */
    hv_machine_ops(m)->start(m);
    wait_for_log(w, "netkernel: listening");
    char text[512];
    get("127.0.0.1", spec.host_port, "/", text, sizeof(text));
    assert_non_null(strstr(text, "hello from 10.0.2.15"));
    get("127.0.0.1", spec.host_port, "/off", text, sizeof(text));
    while (!w->ended) {
        un_loop_run(w->loop);
    }
    assert_int_equal(w->why.kind, HV_EXIT_DONE);
    discard(w, m);
}

static void what_cannot_be_loaded_says_why(void **state)
{
    struct world *w = *state;
    const struct hv_machine_spec shell = {.boot = HV_BOOT_SHELL, .cmdline = ""};
    struct hv_machine *m = make(w, shell);
    load(w, m, (struct hv_machine_spec){.kernel = "/nonexistent/kernel", .cmdline = ""});
    assert_int_equal(w->rc, -ENOENT);
    assert_non_null(strstr(w->err.text, "/nonexistent/kernel"));
    discard(w, m);
    m = make(w, shell);
    load(w, m, (struct hv_machine_spec){.kernel = "/proc/self/exe", .cmdline = ""});
    assert_int_equal(w->rc, -ENOTSUP);
    discard(w, m);
}

static void a_shell_may_end_or_be_freed_at_any_time(void **state)
{
    struct world *w = *state;
    const struct hv_machine_spec shell = {.boot = HV_BOOT_SHELL, .cmdline = ""};
    struct hv_machine_spec spec = {.kernel = w->kernel,
                                   .cmdline = "",
                                   .mem_bytes = 64 * MIB,
                                   .name = "test",
                                   .events = &events,
                                   .arg = w};
    struct hv_machine *m = make(w, shell);
    discard(w, m);
    m = make(w, shell);
    hv_machine_ops(m)->load(m, &spec);
    discard(w, m); /* while it is loaded */
    m = make(w, shell);
    kill(hv_machine_ops(m)->pid(m), SIGKILL);
    while (!w->ended) {
        un_loop_run(w->loop);
    }
    assert_int_equal(w->why.kind, HV_EXIT_LOST);
    discard(w, m);
    m = make(w, shell);
    kill(hv_machine_ops(m)->pid(m), SIGKILL);
    w->made = false;
    hv_machine_ops(m)->load(m, &spec); /* nobody has seen its end yet */
    while (!w->ended && !(w->made && w->rc < 0)) {
        un_loop_run(w->loop);
    }
    discard(w, m);
}

static struct net_link *link_given;

static void on_attach(void *arg, int rc, struct net_link *link, const struct un_error *err)
{
    struct world *w = arg;
    assert_int_equal(rc, 0);
    link_given = link;
    un_loop_stop(w->loop);
}

static void a_tap_reaches_the_guest(void **state)
{
    struct world *w = *state;
    struct netplumb *np;
    if (!have_namespace) {
        skip();
    }
    const char *user = lv_qemu_user();
    assert_true(!user || strcmp(user, "libvirt-qemu") == 0);
    struct netplumb_spec spec = {
        .loop = w->loop, .state_dir = w->dir, .range = "10.87.0.0/24", .tap_owner = geteuid()};
    assert_int_equal(net_open(&spec, &np, NULL), 0);
    link_given = NULL;
    assert_int_equal(net_attach(np, NULL, on_attach, w, NULL), 0);
    while (!link_given) {
        un_loop_run(w->loop);
    }
    char cmdline[64], expect[64], text[512] = "";
    snprintf(cmdline, sizeof(cmdline), "ip=%s/%u", link_given->ip, link_given->prefix);
    snprintf(expect, sizeof(expect), "hello from %s", link_given->ip);
    struct hv_machine *m = make(w, (struct hv_machine_spec){.net = HV_NET_TAP,
                                                            .tap = link_given->tap,
                                                            .mac = link_given->mac,
                                                            .cmdline = cmdline});
    if (w->rc < 0) {
        fail_msg("%s", w->err.text);
    }
    hv_machine_ops(m)->start(m);
    wait_for_log(w, "netkernel: listening");
    get(link_given->ip, 80, "/", text, sizeof(text));
    assert_non_null(strstr(text, expect));
    static char much[100000];
    get(link_given->ip, 80, "/bytes/65536", much, sizeof(much));
    assert_true(strlen(much) > 65536);
    discard(w, m);
    net_detach(link_given);
    net_close(np);
}

/* Taps are made in a network namespace of our own; QEMU, started by libvirt in this process, is in it
 * as well. */
static void enter_namespace(void)
{
    struct un_error err = UN_ERROR_INIT;
    /* Loopback is for those that need no taps, too. */
    if (unshare(CLONE_NEWNET) < 0 || system("ip link set lo up") != 0 || !net_available(&err)) {
        print_message("no network namespace of our own: taps are not tried\n");
        return;
    }
    have_namespace = true;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(describes_a_kernel_on_microvm),
        cmocka_unit_test(describes_a_shell),
        cmocka_unit_test(describes_disks),
        cmocka_unit_test(refuses_what_does_not_fit_together),
        cmocka_unit_test(a_guest_that_knows_virtio_1_only_gets_it_on_microvm),
        cmocka_unit_test(a_guest_that_is_told_its_devices_by_words_has_no_acpi),
        cmocka_unit_test(reads_what_the_monitor_tells),
    };
    const struct CMUnitTest real[] = {
        cmocka_unit_test(user_network_reaches_the_guest),
        cmocka_unit_test(a_port_that_is_taken_meanwhile_is_told),
        cmocka_unit_test(virtio_1_alone_is_what_the_guest_finds),
        cmocka_unit_test(a_crash_is_told),
        cmocka_unit_test(ends_are_told_apart),
        cmocka_unit_test(a_killed_qemu_is_a_loss),
        cmocka_unit_test(a_machine_may_be_freed_at_any_time),
        cmocka_unit_test(what_cannot_be_made_says_why),
        cmocka_unit_test(a_shell_becomes_a_machine),
        cmocka_unit_test(what_cannot_be_loaded_says_why),
        cmocka_unit_test(a_shell_may_end_or_be_freed_at_any_time),
        cmocka_unit_test(a_tap_reaches_the_guest),
    };
    char modules[512];
    snprintf(modules, sizeof(modules), "%s/lib/unid", getenv("UNID_BUILD") ?: ".");
    setenv("UNID_MODULE_DIR", modules, 0);
    enter_namespace();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed + cmocka_run_group_tests(real, open_world, close_world);
}
