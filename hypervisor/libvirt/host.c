/* host.c - see host.h. libvirt's C API as of 9.0; libvirt.org/drvqemu.html, "Embedded driver". */
#include "hypervisor/libvirt/host.h"

#include <errno.h>
#include <fcntl.h>
#include <libvirt/libvirt-qemu.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <pthread.h>
#include <pwd.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fault.h"
#include "common/log.h"
#include "hypervisor/libvirt/inject.h"
#include "hypervisor/libvirt/loader/loader.h"
#include "hypervisor/libvirt/overlay.h"
#include "hypervisor/libvirt/proc.h"
#include "hypervisor/libvirt/qemucaps.h"
#include "hypervisor/libvirt/usernet.h"
#include "hypervisor/libvirt/waiter.h"
#include "hypervisor/libvirt/xml.h"

#define QEMU_NAME "qemu-system-x86_64"

enum { REAP_MS = 10, END_TIMEOUT_MS = 10000, CLEAR_MS = 1000, CLEAR_STEP_MS = 5 };

/* libvirt's part that is the process's own; never undone, as libvirt has no way to. */
static pthread_once_t library_once = PTHREAD_ONCE_INIT;
static int library_rc;
static atomic_uint domain_serial; /* the library knows the domains of the whole process */

static void ignore_error(void *arg, virErrorPtr error)
{
}

static int virt_error(struct un_error *err, int code, const char *what)
{
    virErrorPtr e = virGetLastError();
    return un_error_set(err, code, "%s: %s", what, e && e->message ? e->message : "unknown error");
}

static void *run_events(void *arg)
{
    for (;;) {
        virEventRunDefaultImpl();
    }
    return NULL;
}

static void library_init(void)
{
    virSetErrorFunc(NULL, ignore_error);
    library_rc = virInitialize() < 0 || virEventRegisterDefaultImpl() < 0 ? -EIO : 0;
    /* QEMU processes become ours when libvirt lets go of them; then they can be waited for. Where
     * process 1 reaps no orphans, libvirt would wait in vain for each that it ends. */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    if (library_rc == 0 && pthread_create(&thread, NULL, run_events, NULL) == 0) {
        pthread_detach(thread);
    } else {
        library_rc = -EAGAIN;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Finds QEMU in $PATH and the usual place. */
static int find_emulator(struct lv_host *h, struct un_error *err)
{
    const char *path = getenv("PATH");
    char dirs[4096];
    snprintf(dirs, sizeof(dirs), "/usr/bin:/usr/local/bin:%s", path ? path : "");
    char *save = NULL;
    for (char *dir = strtok_r(dirs, ":", &save); dir; dir = strtok_r(NULL, ":", &save)) {
        if ((size_t)snprintf(h->emulator, sizeof(h->emulator), "%s/%s", dir, QEMU_NAME) <
                sizeof(h->emulator) &&
            access(h->emulator, X_OK) == 0) {
            return 0;
        }
    }
    return un_error_set(err, -ENOENT, "%s is not installed: install qemu-system-x86", QEMU_NAME);
}

/* While libvirt may be waiting for a QEMU that has ended (one that it probed, one that failed to
 * start, one that was killed here), somebody must take the exit status: libvirt lets go of QEMU by a
 * double fork, so it is this process as subreaper, and libvirt's wait would end by its timeout of
 * 15 s, twice, with the domain locked. A thread that lives as long as such calls do, and from a
 * shell's kill until it is destroyed: a loaded machine may need many seconds to end a process, and a
 * worker that would wait for it may not have come to it. */
static pthread_mutex_t reaper_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned reaper_users;
static bool reaper_runs;

static void *run_reaper(void *arg)
{
    pthread_mutex_lock(&reaper_lock);
    while (reaper_users > 0) {
        pthread_mutex_unlock(&reaper_lock);
        lv_proc_reap_qemu();
        usleep(REAP_MS * 1000);
        pthread_mutex_lock(&reaper_lock);
    }
    reaper_runs = false;
    pthread_mutex_unlock(&reaper_lock);
    lv_proc_reap_qemu();
    return NULL;
}

static void reaper_get(void)
{
    pthread_t thread;
    pthread_mutex_lock(&reaper_lock);
    reaper_users++;
    if (!reaper_runs && pthread_create(&thread, NULL, run_reaper, NULL) == 0) {
        pthread_detach(thread);
        reaper_runs = true;
    }
    pthread_mutex_unlock(&reaper_lock);
}

static void reaper_put(void)
{
    pthread_mutex_lock(&reaper_lock);
    reaper_users--;
    pthread_mutex_unlock(&reaper_lock);
}

/* Has libvirt look at a QEMU; what it finds it keeps in its cache. False: it cannot make a microvm. */
static bool look_at(virConnectPtr conn, const char *emulator)
{
    char *caps = virConnectGetDomainCapabilities(conn, emulator, "x86_64", "microvm", "qemu", 0);
    free(caps);
    return caps;
}

/* Domains are run by a second path of the same QEMU, of which libvirt asks less: see qemucaps.h. Where
 * that cannot be, by the first. */
static void choose_path(struct lv_host *h, virConnectPtr conn)
{
    char cache[LV_PATH_SIZE + 16], alias[LV_PATH_SIZE];
    struct un_error why = UN_ERROR_INIT;
    snprintf(cache, sizeof(cache), "%s/cache", h->place->state);
    if ((size_t)snprintf(alias, sizeof(alias), "%s/%s", h->place->work, QEMU_NAME) <
            sizeof(alias) &&
        symlink(h->emulator, alias) == 0 &&
        lv_qemucaps_lighten(cache, h->emulator, alias, &why) == 0 && look_at(conn, alias)) {
        memcpy(h->run, alias, sizeof(alias));
    } else {
        un_log(UN_LOG_DEBUG, "libvirt's domains are made slowly", "reason", why.text);
    }
}

static virConnectPtr connect_embedded(struct lv_host *h, struct un_error *err)
{
    char uri[LV_PATH_SIZE + 32];
    snprintf(uri, sizeof(uri), "qemu:///embed?root=%s/root", h->place->work);
    reaper_get();
    virConnectPtr conn = virConnectOpen(uri);
    if (!conn) {
        virt_error(err, -ENOENT,
                   "libvirt's embedded QEMU driver does not start (install "
                   "libvirt-daemon-driver-qemu)");
    } else if (!look_at(conn, h->emulator)) {
        virt_error(err, -ENOENT, "QEMU cannot make a microvm");
        virConnectClose(conn);
        conn = NULL;
    } else {
        choose_path(h, conn);
    }
    reaper_put();
    return conn;
}

int lv_host_open(struct lv_host *h, struct un_error *err)
{
    pthread_once(&library_once, library_init);
    if (library_rc < 0) {
        return un_error_errno(err, library_rc, "libvirt does not initialise");
    }
    int rc = un_fault("libvirt.open");
    if (rc < 0) {
        return un_error_errno(err, rc, "open libvirt");
    }
    rc = find_emulator(h, err);
    if (rc < 0) {
        return rc;
    }
    if (!h->uri && geteuid() == 0 && !getpwnam("libvirt-qemu")) {
        return un_error_set(
            err, -ENOENT,
            "the user libvirt-qemu is missing, without which libvirt's QEMU driver "
            "does not start: install libvirt-daemon-system, or run adduser --system "
            "--group --no-create-home libvirt-qemu");
    }
    memcpy(h->run, h->emulator, sizeof(h->run));
    lv_tree_remove(h->place->work); /* of an attempt that failed */
    rc = lv_place_prepare(h->place, err);
    if (rc < 0) {
        return rc;
    }
    if (h->uri) {
        h->conn = virConnectOpen(h->uri);
        return h->conn ? 0 : virt_error(err, -ECONNREFUSED, h->uri);
    }
    h->conn = connect_embedded(h, err);
    return h->conn ? 0 : -ENOENT;
}

void lv_host_close(struct lv_host *h)
{
    if (h->conn) {
        virConnectClose(h->conn);
        h->conn = NULL;
    }
}

bool lv_host_alive(struct lv_host *h)
{
    return h->conn && virConnectIsAlive(h->conn) == 1;
}

enum { FILE_SIZE = LV_PATH_SIZE + 128 };

static const char *const disk_suffixes[LV_MACHINE_DISKS] = {".0", ".1", ".2", ".3"};

/* <work>/<dir>/<domain><suffix>, in FILE_SIZE bytes. */
static void file_path(const struct lv_shell *s, const char *dir, const char *suffix, char *out)
{
    snprintf(out, FILE_SIZE, "%s/%s/%s%s", s->host->place->work, dir, s->name, suffix);
}

static int create_domain(struct lv_shell *s, const struct un_buf *xml, struct un_error *err)
{
    /* The embedded driver knows no automatic destruction; leftovers are found by name. */
    unsigned flags = VIR_DOMAIN_START_PAUSED | (s->host->uri ? VIR_DOMAIN_START_AUTODESTROY : 0);
    reaper_get();
    s->domain = virDomainCreateXML(s->host->conn, (const char *)xml->data, flags);
    reaper_put();
    if (s->domain) {
        return 0;
    }
    const char *said = virGetLastErrorMessage();
    return virt_error(err, said && lv_usernet_port_is_taken(said) ? -EADDRINUSE : -EIO,
                      "create domain");
}

static int start_domain(struct lv_shell *s, const char *accelerator, struct un_error *err)
{
    char rom[LV_PATH_SIZE + 16], socket_path[FILE_SIZE];
    snprintf(rom, sizeof(rom), "%s/rom.bin", s->host->place->work);
    file_path(s, "s", "", socket_path);
    struct lv_xml_spec spec = {.name = s->name,
                               .accelerator = accelerator,
                               .mem_bytes = s->mem_bytes,
                               .rom_path = rom,
                               .socket_path = socket_path,
                               .emulator = s->host->run};
    un_autobuf struct un_buf xml = {0};
    int rc = lv_xml_build(&spec, &xml);
    if (rc == 0) {
        rc = un_fault("libvirt.create");
    }
    return rc < 0 ? un_error_errno(err, rc, "describe domain") : create_domain(s, &xml, err);
}

static bool found_one(void *arg, pid_t pid)
{
    *(pid_t *)arg = pid;
    return false;
}

static int find_process(struct lv_shell *s, struct un_error *err)
{
    char path[FILE_SIZE], text[32] = "";
    file_path(s, "root/run/qemu", ".pid", path);
    un_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    pid_t pid = fd >= 0 && read(fd, text, sizeof(text) - 1) > 0 ? (pid_t)atoi(text) : 0;
    if (pid <= 0 || !lv_proc_matches(pid, s->name)) {
        char prefix[sizeof(s->name) + 1];
        pid = 0;
        snprintf(prefix, sizeof(prefix), "%s,", s->name);
        lv_proc_each(prefix, found_one, &pid);
    }
    int pidfd = pid > 0 ? lv_proc_open(pid) : -ESRCH;
    if (pidfd < 0) {
        return un_error_errno(err, pidfd, "the QEMU process of %s", s->name);
    }
    s->pid = pid;
    s->pidfd = pidfd;
    return 0;
}

static int map_memory(struct lv_shell *s, struct un_error *err)
{
    un_autoclose int fd = lv_proc_open_memory(s->pid, s->mem_bytes, err);
    if (fd < 0) {
        return fd;
    }
    void *mem = mmap(NULL, s->mem_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mem == MAP_FAILED) {
        return un_error_errno(err, -errno, "map guest memory");
    }
    madvise(mem, s->mem_bytes, MADV_DONTDUMP);
    s->mem = mem;
    return 0;
}

static int connect_doorbell(struct lv_shell *s, struct un_error *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    char path[FILE_SIZE];
    file_path(s, "s", "", path);
    if (strlen(path) >= sizeof(addr.sun_path)) {
        return un_error_set(err, -ENAMETOOLONG, "socket path %s", path);
    }
    memcpy(addr.sun_path, path, strlen(path) + 1);
    s->sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s->sock < 0 || connect(s->sock, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
        return un_error_errno(err, -errno, "connect %s", path);
    }
    unlink(path); /* it has its one client */
    return 0;
}

int lv_shell_create(struct lv_host *h, const char *accelerator, uint64_t mem_bytes,
                    struct lv_shell *ret, struct un_error *err)
{
    struct lv_shell s = {.host = h, .pidfd = -1, .sock = -1, .mem_bytes = mem_bytes};
    snprintf(s.name, sizeof(s.name), "%s%u", h->place->prefix, atomic_fetch_add(&domain_serial, 1));
    int rc = start_domain(&s, accelerator, err);
    rc = rc < 0 ? rc : find_process(&s, err);
    rc = rc < 0 ? rc : map_memory(&s, err);
    rc = rc < 0 ? rc : connect_doorbell(&s, err);
    if (rc < 0) {
        lv_shell_destroy(&s);
        return rc;
    }
    s.base_cpu_us = lv_proc_cpu_us(s.pid);
    *ret = s;
    return 0;
}

/* A copy of `from` that QEMU's user can read, as <work>/s/<domain><suffix>; hard links would need the
 * same file system. */
static int copy_for_qemu(const struct lv_shell *s, const char *from, const char *suffix, char *out,
                         struct un_error *err)
{
    file_path(s, "s", suffix, out);
    un_autoclose int in = open(from, O_RDONLY | O_CLOEXEC);
    if (in < 0) {
        return un_error_errno(err, -errno, "open %s", from);
    }
    un_autoclose int to = open(out, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (to < 0 || fchmod(to, 0644) < 0) {
        return un_error_errno(err, -errno, "create %s", out);
    }
    for (;;) {
        ssize_t n = sendfile(to, in, NULL, 1 << 30);
        if (n < 0) {
            return un_error_errno(err, -errno, "copy %s", from);
        }
        if (n == 0) {
            return 0;
        }
    }
}

/* One over each disk that is an image. */
static int make_overlays(const struct lv_shell *s, const struct hv_machine_spec *spec,
                         char paths[LV_MACHINE_DISKS][FILE_SIZE], const char *ret[LV_MACHINE_DISKS],
                         struct un_error *err)
{
    const char *name = lv_qemu_user();
    const struct passwd *user = name ? getpwnam(name) : NULL;
    for (size_t i = 0; i < spec->disk_count; i++) {
        const struct hv_machine_disk *d = &spec->disks[i];
        ret[i] = NULL;
        if (!d->read_only) {
            continue;
        }
        file_path(s, "d", disk_suffixes[i], paths[i]);
        int rc = lv_overlay_create(paths[i], d->path, d->format, err);
        if (rc < 0) {
            return rc;
        }
        if (user && chown(paths[i], user->pw_uid, user->pw_gid) < 0) {
            return un_error_errno(err, -errno, "chown %s", paths[i]);
        }
        ret[i] = paths[i];
    }
    return 0;
}

/* One of QEMU's multiboot modules, as in a list of them: "FILE[ WORDS]", with commas between. */
static int append_module(struct un_buf *modules, const char *path, struct un_error *err)
{
    if (strchr(path, ' ')) {
        return un_error_set(err, -EINVAL, "multiboot: QEMU takes no path with spaces: %s", path);
    }
    int rc = modules->len > 0 ? un_buf_append_str(modules, ",") : 0;
    for (; *path && rc == 0; path++) {
        rc = un_buf_append_str(modules, *path == ',' ? ",," : (char[]){*path, '\0'});
    }
    return rc < 0 ? un_error_set(err, rc, "out of memory") : 0;
}

struct boot_files {
    char kernel[FILE_SIZE], initrd[FILE_SIZE], loader[FILE_SIZE];
    struct un_buf *modules; /* empty; the caller's */
};

/* What the guest boots from, where QEMU can read it. */
static int place_boot_files(const struct lv_shell *s, struct hv_machine_spec *seen,
                            struct boot_files *files, struct un_error *err)
{
    int rc = 0;
    if (seen->boot == HV_BOOT_SHELL) {
        snprintf(files->kernel, FILE_SIZE, "%s/" LV_WAITER_FILE, s->host->place->work);
        seen->kernel = files->kernel;
        return 0;
    }
    if (seen->kernel) {
        rc = copy_for_qemu(s, seen->kernel, ".kernel", files->kernel, err);
        seen->kernel = files->kernel;
    }
    if (rc == 0 && seen->initrd) {
        rc = copy_for_qemu(s, seen->initrd, ".initrd", files->initrd, err);
        seen->initrd = files->initrd;
    }
    if (rc < 0 || seen->boot != HV_BOOT_LOADER) {
        return rc;
    }
    rc = append_module(files->modules, seen->kernel, err);
    if (rc == 0 && seen->initrd) {
        rc = append_module(files->modules, seen->initrd, err);
    }
    snprintf(files->loader, FILE_SIZE, "%s/" LV_LOADER_FILE, s->host->place->work);
    seen->kernel = files->loader;
    seen->initrd = (const char *)files->modules->data;
    return rc;
}

static int start_machine(struct lv_shell *s, const char *accelerator,
                         const struct hv_machine_spec *spec, struct un_error *err)
{
    char console[FILE_SIZE];
    char disks[LV_MACHINE_DISKS][FILE_SIZE];
    const char *overlays[LV_MACHINE_DISKS];
    struct hv_machine_spec seen = *spec;
    un_autobuf struct un_buf xml = {0}, modules = {0};
    struct boot_files files = {.modules = &modules};
    int rc = make_overlays(s, spec, disks, overlays, err);
    rc = rc < 0 ? rc : place_boot_files(s, &seen, &files, err);
    if (rc < 0) {
        return rc;
    }
    file_path(s, "s", "", console);
    struct lv_machine_xml_spec xml_spec = {.name = s->name,
                                           .accelerator = accelerator,
                                           .emulator = s->host->run,
                                           .console_path = console,
                                           .overlays = overlays,
                                           .machine = &seen};
    rc = lv_xml_build_machine(&xml_spec, &xml);
    if (rc == 0) {
        rc = un_fault("libvirt.create");
    }
    return rc < 0 ? un_error_errno(err, rc, "describe machine") : create_domain(s, &xml, err);
}

static int park(struct lv_shell *s, uint64_t mem_bytes, struct un_error *err)
{
    s->mem_bytes = mem_bytes;
    int rc = map_memory(s, err);
    rc = rc < 0 ? rc : lv_shell_resume(s, err);
    return rc < 0 ? rc : lv_inject_park(s, err);
}

/* libvirt opens the tap, and starts QEMU, on the thread that asks it to. */
static int join_net(struct lv_host *h, const struct hv_machine_spec *spec, struct un_error *err)
{
    int rc = spec->net == HV_NET_TAP && h->join_net ? h->join_net(h->join_arg) : 0;
    return rc < 0 ? un_error_errno(err, rc, "join the network of taps") : 0;
}

int lv_shell_create_machine(struct lv_host *h, const char *accelerator,
                            const struct hv_machine_spec *spec, struct lv_shell *ret,
                            struct un_error *err)
{
    struct lv_shell s = {.host = h, .pidfd = -1, .sock = -1};
    int rc = join_net(h, spec, err);
    if (rc < 0) {
        return rc;
    }
    snprintf(s.name, sizeof(s.name), "%s%u", h->place->prefix, atomic_fetch_add(&domain_serial, 1));
    rc = start_machine(&s, accelerator, spec, err);
    rc = rc < 0 ? rc : find_process(&s, err);
    rc = rc < 0 ? rc : connect_doorbell(&s, err);
    rc = rc < 0 || spec->boot != HV_BOOT_SHELL ? rc : park(&s, spec->mem_bytes, err);
    if (rc < 0) {
        lv_shell_destroy(&s);
        return rc;
    }
    s.base_cpu_us = lv_proc_cpu_us(s.pid);
    *ret = s;
    return 0;
}

int lv_shell_resume(struct lv_shell *s, struct un_error *err)
{
    int rc = un_fault("libvirt.resume");
    if (rc < 0) {
        return un_error_errno(err, rc, "resume domain");
    }
    return virDomainResume(s->domain) < 0 ? virt_error(err, -EIO, "resume domain") : 0;
}

/* What QEMU's monitor answers to a command for people (free); NULL: nothing. */
static char *ask_monitor(struct lv_shell *s, const char *command)
{
    char *answer = NULL;
    int rc = virDomainQemuMonitorCommand(s->domain, command, &answer,
                                         VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP);
    return rc < 0 ? NULL : answer;
}

enum hv_machine_heard lv_shell_hear(struct lv_shell *s, const struct hv_machine_spec *spec)
{
    char *card =
        ask_monitor(s, spec->type == HV_MACHINE_MICROVM ? LV_USER_CARD_STATUS
                                                        : LV_USER_CARD_STATUS LV_USER_CARD_ON_PCI);
    char *connections = card && lv_usernet_card_is_up(card) ? ask_monitor(s, "info usernet") : NULL;
    enum hv_machine_heard heard = HV_HEARD_UNKNOWN;
    if (connections) {
        heard = lv_usernet_listens(connections, spec->host_port) ? HV_HEARD_LISTENS : HV_HEARD_CARD;
    } else if (card && !lv_usernet_card_is_up(card)) {
        heard = HV_HEARD_NOTHING;
    }
    free(card);
    free(connections);
    return heard;
}

void lv_shell_kill(struct lv_shell *s)
{
    if (s->pidfd >= 0 && !__atomic_exchange_n(&s->killed, true, __ATOMIC_ACQ_REL)) {
        reaper_get(); /* until lv_shell_destroy */
    }
    lv_proc_signal(s->pidfd, SIGKILL);
}

void lv_shell_reap(struct lv_shell *s)
{
    if (s->pidfd >= 0) {
        lv_shell_kill(s);
        if (un_fault("libvirt.reap") == 0) {
            lv_proc_wait(s->pid, s->pidfd, END_TIMEOUT_MS);
        }
    }
}

/* libvirt has seen QEMU's end by itself and clears up, up to 200 ms, with the domain locked. Whoever
 * looks the domain up meanwhile waits for that with the list of domains locked, and so does everybody
 * who makes one. Until the file of its process id is gone, then. */
static void wait_cleared(const struct lv_shell *s)
{
    char path[FILE_SIZE];
    file_path(s, "root/run/qemu", ".pid", path);
    for (int ms = 0; ms < CLEAR_MS && access(path, F_OK) == 0; ms += CLEAR_STEP_MS) {
        usleep(CLEAR_STEP_MS * 1000);
    }
}

void lv_shell_destroy(struct lv_shell *s)
{
    char path[FILE_SIZE];
    lv_shell_reap(s);
    if (s->domain && s->killed && !s->host->uri) {
        wait_cleared(s);
    }
    if (s->domain) {
        reaper_get();                /* one whose process was not found is ended by libvirt */
        virDomainDestroy(s->domain); /* that it has ended already is no error */
        virDomainFree(s->domain);
        reaper_put();
    }
    if (s->killed) {
        reaper_put();
    }
    if (s->sock >= 0) {
        close(s->sock);
    }
    if (s->pidfd >= 0) {
        close(s->pidfd);
    }
    if (s->mem) {
        munmap(s->mem, s->mem_bytes);
    }
    if (s->host) {
        file_path(s, "root/log/qemu", ".log", path);
        unlink(path);
        static const char *const suffixes[] = {"", ".kernel", ".initrd"};
        for (size_t i = 0; i < UN_ARRAY_SIZE(suffixes); i++) {
            file_path(s, "s", suffixes[i], path);
            unlink(path);
        }
        for (size_t i = 0; i < LV_MACHINE_DISKS; i++) {
            file_path(s, "d", disk_suffixes[i], path);
            unlink(path);
        }
    }
    *s = (struct lv_shell){.pidfd = -1, .sock = -1};
}
