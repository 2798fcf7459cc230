/* inject.c - see inject.h.
 *
 * Why memory that the firmware has touched is left alone: under QEMU's translation what is written from
 * outside is not seen by code that has been translated already, and it is not zeros. Which pages those are
 * the memfd says (lseek(2), SEEK_DATA): all others are holes.
 */
#include "hypervisor/libvirt/inject.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fault.h"
#include "hypervisor/libvirt/proc.h"
#include "hypervisor/libvirt/waiter.h"
#include "hypervisor/pvh.h"

enum { PARK_MS = 10000 };

static int await_ready(const struct lv_shell *s, struct un_error *err)
{
    struct pollfd p = {.fd = s->sock, .events = POLLIN};
    for (;;) {
        char byte;
        int n = poll(&p, 1, PARK_MS);
        if (n == 0) {
            return un_error_errno(err, -ETIMEDOUT, "a shell's firmware");
        }
        ssize_t got = n < 0 ? -1 : recv(s->sock, &byte, 1, MSG_DONTWAIT);
        if (got == 1 && byte == LV_WAITER_READY) {
            return 0;
        }
        if (got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN)) {
            return un_error_set(err, -EPIPE, "a shell has ended before it was one");
        }
    }
}

/* Where the next page with contents is, from `at` on; the end of memory when there is none. */
static int next_data(int fd, uint64_t at, uint64_t end, uint64_t *ret, struct un_error *err)
{
    off_t found = lseek(fd, (off_t)at, SEEK_DATA);
    if (found < 0 && errno != ENXIO) {
        return un_error_errno(err, -errno, "look at guest memory");
    }
    *ret = found < 0 || (uint64_t)found > end ? end : (uint64_t)found;
    return 0;
}

static int find_clean(struct lv_shell *s, struct un_error *err)
{
    uint64_t info, clean;
    un_autoclose int fd = lv_proc_open_memory(s->pid, s->mem_bytes, err);
    int rc = fd < 0 ? fd : next_data(fd, HV_PVH_INFO, s->mem_bytes, &info, err);
    rc = rc < 0 ? rc : next_data(fd, HV_PVH_LOW_END, s->mem_bytes, &clean, err);
    if (rc < 0) {
        return rc;
    }
    if (info < HV_PVH_INFO + HV_PVH_INFO_SIZE || clean <= HV_PVH_LOW_END) {
        return un_error_set(err, -ENOTSUP, "the firmware has been where a kernel is to go");
    }
    s->clean_end = clean;
    return 0;
}

int lv_inject_park(struct lv_shell *s, struct un_error *err)
{
    int rc = await_ready(s, err);
    if (rc == 0) {
        lv_proc_signal(s->pidfd, SIGSTOP);
        rc = find_clean(s, err);
    }
    return rc;
}

/* A file's bytes; NULL: it is empty, or there is none. */
struct bytes {
    void *data;
    size_t len;
};

static void unmap(struct bytes *b)
{
    if (b->data) {
        munmap(b->data, b->len);
    }
}

/* The store's files stay as they are while they are held (hypervisor/machine.h). */
static int map_file(const char *path, struct bytes *ret, struct un_error *err)
{
    struct stat st;
    un_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0) {
        return un_error_errno(err, -errno, "open %s", path);
    }
    if (st.st_size == 0) {
        return 0;
    }
    void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) {
        return un_error_errno(err, -errno, "map %s", path);
    }
    *ret = (struct bytes){.data = data, .len = (size_t)st.st_size};
    return 0;
}

static void write_mail(uint8_t *mem, const struct hv_pvh_entry *to)
{
    memcpy(mem + LV_WAITER_PAGE + LV_WAITER_INFO, &to->info, sizeof(to->info));
    uint32_t *entry = (uint32_t *)(void *)(mem + LV_WAITER_PAGE + LV_WAITER_ENTRY);
    __atomic_store_n(entry, to->rip, __ATOMIC_RELEASE);
}

int lv_inject_load(struct lv_shell *s, const struct hv_machine_spec *spec, struct un_error *err)
{
    __attribute__((cleanup(unmap))) struct bytes kernel = {0}, initrd = {0};
    struct hv_pvh_entry entry;
    int rc = un_fault("libvirt.load");
    if (rc < 0) {
        return un_error_errno(err, rc, "load a kernel");
    }
    rc = map_file(spec->kernel, &kernel, err);
    rc = rc < 0 || !spec->initrd ? rc : map_file(spec->initrd, &initrd, err);
    if (rc < 0) {
        return rc;
    }
    const struct hv_pvh_spec what = {.mem = s->mem,
                                     .clean_end = s->clean_end,
                                     .kernel = kernel.data,
                                     .kernel_len = kernel.len,
                                     .initrd = initrd.data,
                                     .initrd_len = initrd.len,
                                     .cmdline = spec->cmdline,
                                     .start = s->mem + LV_WAITER_PAGE + LV_WAITER_START,
                                     .memmap = s->mem + LV_WAITER_PAGE + LV_WAITER_MEMMAP};
    rc = hv_pvh_load(&what, &entry, err);
    if (rc < 0) {
        return rc;
    }
    write_mail(s->mem, &entry);
    munmap(s->mem, s->mem_bytes);
    s->mem = NULL;
    return 0;
}

void lv_inject_start(struct lv_shell *s)
{
    lv_proc_signal(s->pidfd, SIGCONT);
}
