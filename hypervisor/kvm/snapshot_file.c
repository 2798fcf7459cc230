/* snapshot_file.c - see snapshot_file.h. */
#include "hypervisor/kvm/snapshot_file.h"

#include <cpuid.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fault.h"
#include "common/file.h"

#define MAGIC UINT64_C(0x31307061736d7675) /* "uvmsap01" */
#define PAGE  UINT64_C(4096)

enum { FORMAT_VERSION = 3, PATH_SIZE = 4096, TEMP_AGE_S = 600 };

struct header {
    uint64_t magic;
    uint16_t version, boot_flags;
    uint32_t abi; /* UNID_ABI_MAJOR << 16 | UNID_ABI_MINOR */
    uint64_t mem_bytes;
    uint32_t cpu; /* CPUID leaf 1, eax: the XSAVE area is that of a model */
    uint32_t tsc_khz;
    uint64_t content_sum; /* of state and pages */
    uint64_t header_sum;  /* of the rest of this struct */
    char key[HV_SNAPSHOT_KEY_MAX + 1];
};

_Static_assert(sizeof(struct header) <= PAGE, "the header is one page");
_Static_assert(SNAPSHOT_STATE_AT + sizeof(struct vmm_state) <= SNAPSHOT_MEM_AT, "state too large");

/* --- checksum --------------------------------------------------------------------------------- */

/* Mixes 64-bit words (the finalizer of MurmurHash3, Appleby 2011, on each). `len` is rounded down
 * to words. */
static uint64_t sum_words(uint64_t sum, const void *data, size_t len)
{
    const uint8_t *p = data;
    for (size_t i = 0; i + sizeof(uint64_t) <= len; i += sizeof(uint64_t)) {
        uint64_t w;
        memcpy(&w, p + i, sizeof(w));
        sum = (sum ^ w) * UINT64_C(0xff51afd7ed558ccd);
        sum ^= sum >> 33;
    }
    return sum;
}

static uint64_t sum_page(uint64_t sum, uint64_t at, const uint8_t *page)
{
    return sum_words(sum_words(sum, &at, sizeof(at)), page, PAGE);
}

static uint64_t sum_header(const struct header *h)
{
    struct header plain = *h;
    plain.header_sum = 0;
    return sum_words(MAGIC, &plain, sizeof(plain));
}

static bool is_zero(const uint8_t *page)
{
    return page[0] == 0 && memcmp(page, page + 1, PAGE - 1) == 0;
}

static uint32_t cpu_model(void)
{
    unsigned a = 0, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) ? a : 0;
}

static bool in_channel(uint64_t at)
{
    return at >= UNID_BOOT_ADDR && at < UNID_CHANNEL_END;
}

/* --- write ------------------------------------------------------------------------------------ */

/* Pages that are to stand in the file one after the other, with a few zeros between them, written in one call. The
 * page cache then has them in large folios, where its file system can, and of such a folio a fault of a clone maps
 * what is around it at once, and its end unmaps it at once: page by page, both take several times as long. `buf` has
 * room for CHUNK bytes. */
struct chunk {
    int fd;
    uint8_t *buf;
    uint64_t at; /* in the file */
    size_t len;
};
enum {
    CHUNK = 2 << 20, /* the largest folio that a file system of x86-64 makes */
    ZEROS_MAX = 64 * 4096
};

static int chunk_flush(struct chunk *c)
{
    int rc = c->len > 0 ? un_pwrite_all(c->fd, c->buf, c->len, c->at) : 0;
    c->len = 0;
    return rc;
}

static int chunk_add(struct chunk *c, const uint8_t *page, uint64_t at)
{
    bool far = at - (c->at + c->len) > ZEROS_MAX || at / CHUNK != c->at / CHUNK;
    int rc = far ? chunk_flush(c) : 0;
    if (c->len == 0) {
        c->at = at;
    }
    size_t end = (size_t)(at - c->at);
    memset(c->buf + c->len, 0, end - c->len);
    memcpy(c->buf + end, page, PAGE);
    c->len = end + PAGE;
    return rc;
}

/* Copies what is not zero of [from, to) of the source's memory. */
static int write_range(struct chunk *c, const struct snapshot_source *s, uint64_t from, uint64_t to,
                       uint64_t *sum)
{
    uint8_t page[PAGE];
    for (uint64_t at = from; at < to; at += PAGE) {
        if (in_channel(at)) {
            memcpy(page, s->channel + (at - UNID_BOOT_ADDR), PAGE);
        } else {
            ssize_t n = pread(s->ram_fd, page, PAGE, (off_t)at);
            if (n != (ssize_t)PAGE) {
                return n < 0 ? -errno : -EIO;
            }
        }
        if (is_zero(page)) {
            continue;
        }
        int rc = chunk_add(c, page, SNAPSHOT_MEM_AT + at);
        if (rc < 0) {
            return rc;
        }
        *sum = sum_page(*sum, at, page);
    }
    return 0;
}

/* Holes of the source are passed over; the channel's part is one there. */
static int write_ranges(struct chunk *c, const struct snapshot_source *s, uint64_t *sum)
{
    uint64_t at = 0;
    bool channel = false;
    while (at < s->mem_bytes) {
        off_t data = lseek(s->ram_fd, (off_t)at, SEEK_DATA);
        if (data < 0 && errno != ENXIO) {
            return -errno;
        }
        uint64_t from = data < 0 ? s->mem_bytes : (uint64_t)data & ~(PAGE - 1);
        if (!channel && from >= UNID_BOOT_ADDR) {
            channel = true;
            int rc = write_range(c, s, UNID_BOOT_ADDR, UNID_CHANNEL_END, sum);
            if (rc < 0) {
                return rc;
            }
        }
        if (data < 0) {
            break;
        }
        off_t hole = lseek(s->ram_fd, data, SEEK_HOLE);
        uint64_t to = hole < 0 ? s->mem_bytes : ((uint64_t)hole + PAGE - 1) & ~(PAGE - 1);
        to = to < s->mem_bytes ? to : s->mem_bytes;
        if (from < UNID_BOOT_ADDR && to > UNID_BOOT_ADDR) {
            to = UNID_BOOT_ADDR;
        } else if (in_channel(from)) {
            from = to < UNID_CHANNEL_END ? to : UNID_CHANNEL_END;
        }
        int rc = write_range(c, s, from, to, sum);
        if (rc < 0) {
            return rc;
        }
        at = to;
    }
    return 0;
}

static int write_memory(int fd, const struct snapshot_source *s, uint64_t *sum)
{
    struct chunk c = {.fd = fd, .buf = malloc(CHUNK)};
    if (!c.buf) {
        return -ENOMEM;
    }
    int rc = write_ranges(&c, s, sum);
    rc = rc < 0 ? rc : chunk_flush(&c);
    free(c.buf);
    return rc;
}

static int write_content(int fd, const char *key, const struct snapshot_source *s)
{
    struct header h = {.magic = MAGIC,
                       .version = FORMAT_VERSION,
                       .abi = UNID_ABI_MAJOR << 16 | UNID_ABI_MINOR,
                       .mem_bytes = s->mem_bytes,
                       .cpu = cpu_model(),
                       .boot_flags = (uint16_t)s->cpu.boot_flags,
                       .tsc_khz = s->cpu.tsc_khz};
    snprintf(h.key, sizeof(h.key), "%s", key);
    h.content_sum = sum_words(MAGIC, s->state, sizeof(struct vmm_state));
    int rc = un_fault("kvm.snapshot.write");
    if (rc == 0 && ftruncate(fd, (off_t)(SNAPSHOT_MEM_AT + s->mem_bytes)) < 0) {
        rc = -errno;
    }
    rc = rc < 0 ? rc : write_memory(fd, s, &h.content_sum);
    rc = rc < 0 ? rc : un_pwrite_all(fd, s->state, sizeof(struct vmm_state), SNAPSHOT_STATE_AT);
    h.header_sum = sum_header(&h);
    return rc < 0 ? rc : un_pwrite_all(fd, &h, sizeof(h), 0);
}

static int make_directories(const char *dir)
{
    char path[PATH_SIZE];
    if (snprintf(path, sizeof(path), "%s", dir) >= (int)sizeof(path)) {
        return -ENAMETOOLONG;
    }
    for (char *p = path + 1; *p; p++) {
        if (*p == '/') {
            *p = '\0';
            mkdir(path, 0700);
            *p = '/';
        }
    }
    return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

int snapshot_file_write(const char *dir, const char *key, const struct snapshot_source *from,
                        struct un_error *err)
{
    char path[PATH_SIZE], temp[PATH_SIZE];
    int rc = make_directories(dir);
    if (rc < 0) {
        return un_error_errno(err, rc, "make %s", dir);
    }
    if (snprintf(path, sizeof(path), "%s/%s.snap", dir, key) >= (int)sizeof(path) ||
        snprintf(temp, sizeof(temp), "%s/.new-XXXXXX", dir) >= (int)sizeof(temp)) {
        return un_error_set(err, -ENAMETOOLONG, "%s: path too long", dir);
    }
    un_autoclose int fd = mkostemp(temp, O_CLOEXEC);
    if (fd < 0) {
        return un_error_errno(err, -errno, "make a snapshot in %s", dir);
    }
    rc = write_content(fd, key, from);
    if (rc == 0 && rename(temp, path) < 0) {
        rc = -errno;
    }
    if (rc < 0) {
        unlink(temp);
        return un_error_errno(err, rc, "write %s", path);
    }
    return 0;
}

/* --- read ------------------------------------------------------------------------------------- */

static int damaged(struct un_error *err, const char *what)
{
    return un_error_set(err, -EBADMSG, "%s", what);
}

static int read_all(int fd, void *data, size_t len, uint64_t at)
{
    uint8_t *p = data;
    while (len > 0) {
        ssize_t n = pread(fd, p, len, (off_t)at);
        if (n == 0) {
            return -ENODATA;
        }
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        n = n < 0 ? 0 : n;
        p += n;
        len -= (size_t)n;
        at += (uint64_t)n;
    }
    return 0;
}

static int keep_page(struct snapshot_file *f, uint64_t at, const uint8_t *page)
{
    uint8_t *more = realloc(f->pages, (f->page_count + 1) * PAGE);
    if (!more) {
        return -ENOMEM;
    }
    memcpy(more + f->page_count * PAGE, page, PAGE);
    f->pages = more;
    f->page_at[f->page_count++] = (uint16_t)((at - UNID_BOOT_ADDR) / PAGE);
    return 0;
}

/* Nothing is in the file from `from` to `to`. */
static void note_hole(struct snapshot_file *f, uint64_t from, uint64_t to)
{
    const uint64_t channel_end = SNAPSHOT_MEM_AT + UNID_CHANNEL_END;
    from = from < channel_end ? channel_end : (from + PAGE - 1) & ~(PAGE - 1);
    if (to > from && to - from > f->hole_bytes) {
        f->hole_at = from - SNAPSHOT_MEM_AT;
        f->hole_bytes = (to - from) & ~(PAGE - 1);
    }
}

/* Reads every page that is not in a hole. A page of zeros counts as a hole, as when writing. */
static int read_memory(struct snapshot_file *f, uint64_t *sum)
{
    uint8_t page[PAGE];
    uint64_t end = SNAPSHOT_MEM_AT + f->mem_bytes, at = SNAPSHOT_MEM_AT;
    f->hole_at = f->hole_bytes = 0;
    f->low = false;
    while (at < end) {
        off_t data = lseek(f->fd, (off_t)at, SEEK_DATA);
        if (data < 0 && errno != ENXIO) {
            return -errno;
        }
        note_hole(f, at, data < 0 || (uint64_t)data > end ? end : (uint64_t)data);
        if (data < 0) {
            return 0;
        }
        off_t hole = lseek(f->fd, data, SEEK_HOLE);
        uint64_t to = hole < 0 ? end : (uint64_t)hole;
        to = to < end ? to : end;
        for (at = (uint64_t)data & ~(PAGE - 1); at < to; at += PAGE) {
            int rc = read_all(f->fd, page, PAGE, at);
            if (rc < 0) {
                return rc;
            }
            if (is_zero(page)) {
                continue;
            }
            uint64_t guest = at - SNAPSHOT_MEM_AT;
            *sum = sum_page(*sum, guest, page);
            f->low |= guest < UNID_BOOT_ADDR;
            if (in_channel(guest) && (rc = keep_page(f, guest, page)) < 0) {
                return rc;
            }
        }
    }
    return 0;
}

static int read_header(int fd, const char *key, const struct snapshot_cpu *cpu, struct header *ret,
                       struct un_error *err)
{
    struct header h = {0};
    struct stat st;
    int rc = read_all(fd, &h, sizeof(h), 0);
    if (rc < 0 || fstat(fd, &st) < 0 || h.magic != MAGIC || h.header_sum != sum_header(&h)) {
        return damaged(err, "damaged header");
    }
    if (h.version != FORMAT_VERSION || h.abi != (UNID_ABI_MAJOR << 16 | UNID_ABI_MINOR) ||
        h.cpu != cpu_model() || h.tsc_khz != cpu->tsc_khz || h.boot_flags != cpu->boot_flags) {
        return damaged(err, "made by another version or on another machine");
    }
    if (strncmp(h.key, key, sizeof(h.key)) != 0 || h.mem_bytes > VMM_MEM_MAX ||
        h.mem_bytes < UNID_IMAGE_MIN || h.mem_bytes % PAGE ||
        (uint64_t)st.st_size != SNAPSHOT_MEM_AT + h.mem_bytes) {
        return damaged(err, "header and file do not agree");
    }
    *ret = h;
    return 0;
}

static int read_content(struct snapshot_file *f, const char *key, const struct snapshot_cpu *cpu,
                        struct un_error *err)
{
    struct header h = {0};
    struct vmm_state state;
    int rc = read_header(f->fd, key, cpu, &h, err);
    if (rc < 0) {
        return rc;
    }
    f->mem_bytes = h.mem_bytes;
    rc = read_all(f->fd, &state, sizeof(state), SNAPSHOT_STATE_AT);
    uint64_t sum = sum_words(MAGIC, &state, sizeof(state));
    rc = rc < 0 ? rc : read_memory(f, &sum);
    if (rc == -ENOMEM) {
        return un_error_set(err, rc, "out of memory");
    }
    return rc < 0 || sum != h.content_sum ? damaged(err, "damaged content") : 0;
}

int snapshot_file_read(const char *dir, const char *key, const struct snapshot_cpu *cpu,
                       struct snapshot_file *ret, struct un_error *err)
{
    char path[PATH_SIZE];
    if (snprintf(path, sizeof(path), "%s/%s.snap", dir, key) >= (int)sizeof(path)) {
        return un_error_set(err, -ENAMETOOLONG, "%s: path too long", dir);
    }
    struct snapshot_file f = {.fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)};
    if (f.fd < 0) {
        return un_error_errno(err, -errno, "open %s", path);
    }
    int rc = read_content(&f, key, cpu, err);
    if (rc < 0) {
        un_error_context(err, "%s", path);
        snapshot_file_release(&f);
        return rc;
    }
    futimens(f.fd, (struct timespec[]){{.tv_nsec = UTIME_NOW}, {.tv_nsec = UTIME_OMIT}});
    *ret = f;
    return 0;
}

void snapshot_file_release(struct snapshot_file *f)
{
    un_closep(&f->fd);
    f->fd = -1;
    free(f->pages);
    f->pages = NULL;
}

/* --- trim ------------------------------------------------------------------------------------- */

struct entry {
    char name[HV_SNAPSHOT_KEY_MAX + 8];
    int64_t used_s; /* last use, as st_atime says */
    uint64_t bytes;
};

static int by_use(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    return (x->used_s > y->used_s) - (x->used_s < y->used_s);
}

/* Lists the snapshots; deletes leftovers of writes. */
static size_t list(DIR *dir, struct entry **ret)
{
    size_t count = 0, cap = 0;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    for (struct dirent *e; (e = readdir(dir));) {
        struct stat st;
        if (fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode)) {
            continue;
        }
        if (strncmp(e->d_name, ".new-", 5) == 0 && st.st_mtime + TEMP_AGE_S < now.tv_sec) {
            unlinkat(dirfd(dir), e->d_name, 0);
        }
        if (e->d_name[0] == '.' || strlen(e->d_name) >= sizeof((*ret)->name)) {
            continue;
        }
        if (count == cap) {
            cap = cap ? cap * 2 : 64;
            struct entry *more = reallocarray(*ret, cap, sizeof(*more));
            if (!more) {
                break;
            }
            *ret = more;
        }
        struct entry *n = &(*ret)[count++];
        *n = (struct entry){.used_s = st.st_atime, .bytes = (uint64_t)st.st_blocks * 512};
        memcpy(n->name, e->d_name, strlen(e->d_name));
    }
    return count;
}

void snapshot_file_trim(const char *path, uint64_t max_bytes)
{
    DIR *dir = opendir(path);
    if (!dir) {
        return;
    }
    struct entry *all = NULL;
    size_t count = list(dir, &all);
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        sum += all[i].bytes;
    }
    if (count > 0) {
        qsort(all, count, sizeof(*all), by_use);
    }
    for (size_t i = 0; i < count && sum > max_bytes; i++) {
        if (unlinkat(dirfd(dir), all[i].name, 0) == 0) {
            sum -= all[i].bytes;
        }
    }
    free(all);
    closedir(dir);
}
