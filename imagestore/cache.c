/* cache.c - flat files of images, and their mappings (see image.h, "running").
 *
 *            image_open                          (Linux program)
 *     (none) ----------> LOOKUP -> CHECK -> UNPACK -> PREPARE
 *                                   ^  |      |          |
 *                        image_open |  v      v          v
 *                                 COLD <---- MAPPED (idle, for ten seconds)
 *
 * LOOKUP asks the database for kind and size; CHECK (worker) opens the flat file, or the prepared image
 * of a Linux program, and compares its length and, once in the daemon's life, its digest; UNPACK
 * (store's threads, in steps, so that no reader is held for long) writes the flat file anew under a
 * temporary name and renames it; PREPARE (worker, prepared.c) makes the prepared image of it. COLD
 * entries only know that their file was verified; they are small and bounded.
 * Any failure tells all waiters and forgets the entry.
 *
 * A flat file needs no fsync: after a crash its digest is checked again. The files are bounded in
 * their sum: after each one made, the least recently opened (by mtime, which opening sets) are
 * unlinked, but for those in use, whose path somebody may have.
 */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/bytes.h"
#include "common/cleanup.h"
#include "common/fault.h"
#include "common/file.h"
#include "common/log.h"
#include "imagestore/internal.h"

enum {
    IDLE_US = 10 * 1000000, /* an unused mapping is kept so long */
    IDLE_MAX = 64,          /* and at most so many */
    COLD_MAX = 256,         /* entries that only know that their file was verified */
    UNPACK_CHUNKS = 16,     /* in one step: 4 MiB */
    FILE_NAME_SIZE = 64 + 1 + 10 + 4 + 1
};

enum entry_state {
    ENTRY_LOOKUP,
    ENTRY_CHECK,
    ENTRY_UNPACK,
    ENTRY_PREPARE,
    ENTRY_MAPPED,
    ENTRY_COLD
};

struct waiter {
    struct un_list node;
    struct un_post post; /* for those who come when it is mapped */
    struct entry *entry;
    image_open_cb cb;
    void *arg;
};

struct entry {
    struct image_mapping mapping; /* data is NULL unless MAPPED */
    struct imagestore *is;
    struct un_list node; /* in imagestore.entries, most recently used first */
    struct un_list idle; /* in imagestore.idle, longest idle first */
    enum entry_state state;
    unsigned refs;
    unsigned serial; /* sets its temporary file apart from a forgotten entry's */
    bool verified, forgotten;
    uint64_t idle_until_us;
    struct un_list waiters;

    struct store_job lookup, unpack;
    struct un_job check;
    struct un_job prepare;
    const uint8_t *raw; /* a Linux program as it was pushed, while it is prepared */
    char *report;       /* why it cannot be */
    int64_t blob;
    uint64_t size, offset; /* of what was pushed */
    size_t mapped_size;    /* of `mapping` or `raw` */
    int fd;                /* the temporary file */
    EVP_MD_CTX *md;
    uint8_t *buf;
};

static const struct un_error no_memory = {.code = -ENOMEM, .text = "out of memory"};

static const char *file_name(const struct entry *e)
{
    return e->mapping.digest + 7;
}

static void temp_name(const struct entry *e, char ret[FILE_NAME_SIZE])
{
    snprintf(ret, FILE_NAME_SIZE, "%.64s.%u.tmp", file_name(e), e->serial);
}

/* --- entries ---------------------------------------------------------------------------------- */

static struct entry *entry_find(struct imagestore *is, const char *digest)
{
    un_list_for_each (it, &is->entries) {
        struct entry *e = un_list_entry(it, struct entry, node);
        if (!e->forgotten && strcmp(e->mapping.digest, digest) == 0) {
            return e;
        }
    }
    return NULL;
}

static void entry_touch(struct entry *e)
{
    un_list_remove(&e->node);
    un_list_push_front(&e->is->entries, &e->node);
}

/* Drops what unpacking used, and the file if it did not get its name. */
static void unpack_release(struct entry *e)
{
    if (e->fd >= 0) {
        char temp[FILE_NAME_SIZE];
        temp_name(e, temp);
        close(e->fd);
        (void)unlinkat(e->is->dir_fd, temp, 0);
        e->fd = -1;
    }
    EVP_MD_CTX_free(e->md);
    e->md = NULL;
    free(e->buf);
    e->buf = NULL;
}

static void entry_unmap(struct entry *e)
{
    if (e->mapping.data) {
        munmap((void *)e->mapping.data, e->mapped_size);
        e->mapping.data = NULL;
        e->mapping.report = NULL;
    }
    if (e->raw) {
        munmap((void *)e->raw, (size_t)e->size);
        e->raw = NULL;
    }
}

static void entry_free(struct entry *e)
{
    struct imagestore *is = e->is;
    un_list_remove(&e->node);
    un_list_remove(&e->idle);
    if (e->state == ENTRY_COLD) {
        is->cold--;
    }
    entry_unmap(e);
    unpack_release(e);
    free(e->report);
    free(e);
    imagestore_release(is);
}

static struct entry *entry_new(struct imagestore *is, const char *digest)
{
    struct entry *e = un_fault("image.entry") ? NULL : calloc(1, sizeof *e);
    if (e) {
        e->is = is;
        e->fd = -1;
        e->serial = is->next_serial++;
        memcpy(e->mapping.digest, digest, IMAGE_DIGEST_SIZE);
        un_list_init(&e->idle);
        un_list_init(&e->waiters);
        un_list_push_front(&is->entries, &e->node);
        imagestore_hold(is);
    }
    return e;
}

/* From MAPPED without users to COLD, and the oldest cold entries away. */
static void entry_cool(struct entry *e)
{
    struct imagestore *is = e->is;
    un_list_remove(&e->idle);
    entry_unmap(e);
    if (e->forgotten || is->closed) {
        entry_free(e);
        return;
    }
    e->state = ENTRY_COLD;
    is->cold++;
    for (struct un_list *it = is->entries.prev; is->cold > COLD_MAX && it != &is->entries;) {
        struct entry *oldest = un_list_entry(it, struct entry, node);
        it = it->prev;
        if (oldest->state == ENTRY_COLD) {
            entry_free(oldest);
        }
    }
}

static void arm_idle_timer(struct imagestore *is)
{
    struct entry *e = un_list_first(&is->idle, struct entry, idle);
    if (!e) {
        un_timer_cancel(&is->idle_timer);
    } else if (un_timer_arm_at(&is->idle_timer, e->idle_until_us) < 0) {
        entry_cool(e); /* no memory for a timer: then now */
    }
}

static void on_idle_timer(void *arg)
{
    struct imagestore *is = arg;
    struct entry *e;
    while ((e = un_list_first(&is->idle, struct entry, idle)) &&
           e->idle_until_us <= un_loop_now_us(is->loop)) {
        entry_cool(e);
    }
    arm_idle_timer(is);
}

/* --- the end of an opening -------------------------------------------------------------------- */

static void entry_fail(struct entry *e, int rc, const struct un_error *err)
{
    struct un_list waiters;
    struct un_error why = UN_ERROR_INIT;
    un_error_copy(&why, err); /* it may be the entry's own, of a job in it */
    un_list_init(&waiters);
    while (!un_list_empty(&e->waiters)) {
        struct waiter *w = un_list_first(&e->waiters, struct waiter, node);
        un_list_remove(&w->node);
        un_list_push(&waiters, &w->node);
    }
    entry_free(e); /* so that a callback that tries again starts from nothing */
    while (!un_list_empty(&waiters)) {
        struct waiter *w = un_list_first(&waiters, struct waiter, node);
        un_list_remove(&w->node);
        w->cb(w->arg, rc, NULL, &why);
        free(w);
    }
}

static void entry_ready(struct entry *e)
{
    e->state = ENTRY_MAPPED;
    e->verified = true;
    e->refs++; /* ours, while the callbacks come */
    while (!un_list_empty(&e->waiters)) {
        struct waiter *w = un_list_first(&e->waiters, struct waiter, node);
        un_list_remove(&w->node);
        e->refs++;
        w->cb(w->arg, 0, &e->mapping, NULL);
        free(w);
    }
    image_unref(&e->mapping);
}

static int entry_map(struct entry *e, int fd, struct un_error *err)
{
    void *data = un_fault("image.mmap") ? MAP_FAILED
                                        : mmap(NULL, (size_t)e->size, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) {
        return un_error_errno(err, errno ? -errno : -ENOMEM, "map image");
    }
    if (image_kind_is_linux(e->mapping.kind)) {
        e->raw = data;
        return 0;
    }
    e->mapping.data = data;
    e->mapping.size = e->mapped_size = (size_t)e->size;
    e->mapping.needs_loader = image_needs_loader(e->mapping.kind, data, e->mapping.size);
    return 0;
}

/* --- keeping the files bounded (worker) ------------------------------------------------------- */

struct evict {
    struct un_job job;
    struct imagestore *is;
    struct un_buf in_use; /* names of 64 bytes each */
};

struct cached_file {
    char name[64 + 1];
    struct timespec used;
    uint64_t bytes;
};

static int by_use(const void *a, const void *b)
{
    const struct cached_file *x = a, *y = b;
    if (x->used.tv_sec != y->used.tv_sec) {
        return x->used.tv_sec < y->used.tv_sec ? -1 : 1;
    }
    return x->used.tv_nsec < y->used.tv_nsec ? -1 : x->used.tv_nsec > y->used.tv_nsec;
}

/* The finished files of the directory (free with free()). */
static int list_files(struct imagestore *is, struct cached_file **ret, size_t *ret_count)
{
    int fd = openat(is->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir) {
        if (fd >= 0) {
            close(fd);
        }
        return -errno;
    }
    struct cached_file *files = NULL;
    size_t count = 0, room = 0;
    struct dirent *d;
    while ((d = readdir(dir))) {
        struct stat st;
        if (strlen(d->d_name) != 64 ||
            fstatat(is->dir_fd, d->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
            continue;
        }
        if (count == room) {
            room = room ? 2 * room : 64;
            struct cached_file *more = reallocarray(files, room, sizeof *files);
            if (!more) {
                break; /* some are better than none */
            }
            files = more;
        }
        files[count] = (struct cached_file){.used = st.st_mtim, .bytes = (uint64_t)st.st_size};
        memcpy(files[count++].name, d->d_name, 64 + 1);
    }
    closedir(dir);
    *ret = files;
    *ret_count = count;
    return 0;
}

static bool in_use(const struct evict *ev, const char *name)
{
    for (size_t at = 0; at < ev->in_use.len; at += 64) {
        if (memcmp(ev->in_use.data + at, name, 64) == 0) {
            return true;
        }
    }
    return false;
}

static int evict_run(struct un_job *job, struct un_error *err)
{
    struct evict *ev = un_container_of(job, struct evict, job);
    un_autofree struct cached_file *files = NULL;
    size_t count = 0;
    uint64_t sum = 0;
    int rc = list_files(ev->is, &files, &count);
    if (rc < 0) {
        return un_error_errno(err, rc, "list image cache");
    }
    for (size_t i = 0; i < count; i++) {
        sum += files[i].bytes;
    }
    if (count > 0) {
        qsort(files, count, sizeof *files, by_use);
    }
    /* The newest stays, however large. */
    for (size_t i = 0; i + 1 < count && sum > ev->is->max_cache_bytes; i++) {
        if (!in_use(ev, files[i].name) && unlinkat(ev->is->dir_fd, files[i].name, 0) == 0) {
            sum -= files[i].bytes;
        }
    }
    return 0;
}

static void evict_done(struct un_job *job, int rc, const struct un_error *err)
{
    struct evict *ev = un_container_of(job, struct evict, job);
    struct imagestore *is = ev->is;
    if (rc < 0) {
        un_log(UN_LOG_DEBUG, "image cache not bounded", "reason", err->text);
    }
    un_buf_done(&ev->in_use);
    free(ev);
    imagestore_release(is);
}

/* A file whose opening begins after this has the latest mtime of all, and goes last. */
static int note_in_use(struct evict *ev)
{
    un_list_for_each (it, &ev->is->entries) {
        const struct entry *e = un_list_entry(it, struct entry, node);
        bool idle = e->state == ENTRY_COLD || (e->state == ENTRY_MAPPED && e->refs == 0);
        if (!idle && un_buf_append(&ev->in_use, file_name(e), 64) < 0) {
            return -ENOMEM;
        }
    }
    return 0;
}

static void evict_start(struct imagestore *is)
{
    struct evict *ev = calloc(1, sizeof *ev);
    if (ev) {
        ev->is = is;
    }
    if (!ev || note_in_use(ev) < 0) {
        if (ev) {
            un_buf_done(&ev->in_use);
        }
        free(ev);
        return; /* the next file made tries again */
    }
    ev->job = (struct un_job){.run = evict_run, .done = evict_done};
    imagestore_hold(is);
    un_workers_submit(is->workers, &ev->job);
}

/* --- preparing a Linux program (worker) ------------------------------------------------------- */

static int prepare_run(struct un_job *job, struct un_error *err)
{
    struct entry *e = un_container_of(job, struct entry, prepare);
    char name[65], temp[FILE_NAME_SIZE];
    int rc = image_prepared_name(e->mapping.digest, name, err);
    if (rc < 0) {
        return rc;
    }
    temp_name(e, temp);
    const struct image_prepare_spec spec = {
        .data = e->raw, .size = (size_t)e->size, .name = name, .temp_name = temp};
    rc = image_prepare(e->is, &spec, &e->report, &e->mapping, &e->mapped_size, err);
    munmap((void *)e->raw, (size_t)e->size);
    e->raw = NULL;
    (void)unlinkat(e->is->dir_fd, file_name(e), 0); /* not needed any more */
    return rc;
}

static void prepare_done(struct un_job *job, int rc, const struct un_error *err)
{
    struct entry *e = un_container_of(job, struct entry, prepare);
    image_failure_keep(e->is, e->mapping.digest, un_steal(&e->report));
    if (rc < 0) {
        entry_fail(e, rc, err);
    } else {
        evict_start(e->is);
        entry_ready(e);
    }
}

static void prepare_start(struct entry *e)
{
    e->state = ENTRY_PREPARE;
    e->prepare = (struct un_job){.run = prepare_run, .done = prepare_done};
    un_workers_submit(e->is->workers, &e->prepare);
}

/* --- unpacking (store's threads) -------------------------------------------------------------- */

static int unpack_begin(struct entry *e, struct un_error *err)
{
    char temp[FILE_NAME_SIZE];
    temp_name(e, temp);
    (void)unlinkat(e->is->dir_fd, temp, 0);
    e->fd = openat(e->is->dir_fd, temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (e->fd < 0) {
        return un_error_errno(err, -errno, "create %s/%s", e->is->dir, temp);
    }
    e->md = image_digest_new();
    e->buf = malloc(IMAGE_CHUNK_BYTES);
    return e->md && e->buf ? 0 : un_error_set(err, -ENOMEM, "out of memory");
}

static int write_chunk(int fd, const uint8_t *data, size_t len, struct un_error *err)
{
    int rc = un_fault("image.cache_write");
    rc = rc ? rc : un_write_all(fd, data, len);
    return rc < 0 ? un_error_errno(err, rc, "write image cache") : 0;
}

static int unpack_end(struct entry *e, struct un_error *err)
{
    char digest[IMAGE_DIGEST_SIZE], temp[FILE_NAME_SIZE];
    int rc = image_digest_final(e->md, digest, err);
    if (rc < 0) {
        return rc;
    }
    if (strcmp(digest, e->mapping.digest) != 0) {
        return un_error_set(err, -EUCLEAN,
                            "image %s is damaged in the database: its bytes have the digest %s; "
                            "remove it and push it again",
                            e->mapping.digest, digest);
    }
    rc = entry_map(e, e->fd, err);
    if (rc < 0) {
        return rc;
    }
    temp_name(e, temp);
    if (renameat(e->is->dir_fd, temp, e->is->dir_fd, file_name(e)) < 0) {
        return un_error_errno(err, -errno, "rename %s/%s", e->is->dir, temp);
    }
    close(e->fd);
    e->fd = -1;
    return 0;
}

static int unpack_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct entry *e = un_container_of(job, struct entry, unpack);
    int rc = e->fd < 0 ? unpack_begin(e, err) : 0;
    for (int i = 0; rc == 0 && i < UNPACK_CHUNKS && e->offset < e->size; i++) {
        uint64_t left = e->size - e->offset;
        size_t n = left < IMAGE_CHUNK_BYTES ? (size_t)left : IMAGE_CHUNK_BYTES;
        int64_t key = image_chunk_key(e->blob, e->offset / IMAGE_CHUNK_BYTES);
        rc = image_read_chunk(db, key, e->buf, n, err);
        if (rc == 0) {
            rc = write_chunk(e->fd, e->buf, n, err);
        }
        if (rc == 0 && EVP_DigestUpdate(e->md, e->buf, n) != 1) {
            rc = un_error_set(err, -EIO, "SHA-256 failed");
        }
        e->offset += n;
    }
    return rc == 0 && e->offset == e->size ? unpack_end(e, err) : rc;
}

static void unpack_done(struct store_job *job, int rc, const struct un_error *err)
{
    struct entry *e = un_container_of(job, struct entry, unpack);
    if (rc < 0) {
        entry_fail(e, rc, err);
    } else if (!e->mapping.data && !e->raw) {
        store_submit(e->is->store, job); /* the next step */
    } else if (e->raw) {
        unpack_release(e);
        prepare_start(e);
    } else {
        unpack_release(e);
        evict_start(e->is);
        entry_ready(e);
    }
}

static void unpack_start(struct entry *e)
{
    e->state = ENTRY_UNPACK;
    e->offset = 0;
    e->unpack = (struct store_job){.access = STORE_READ, .run = unpack_run, .done = unpack_done};
    store_submit(e->is->store, &e->unpack);
}

/* --- checking a file that is there (worker) --------------------------------------------------- */

static bool file_has_digest(int fd, const char *want)
{
    enum { BUFFER = 256 * 1024 };
    un_autofree uint8_t *buf = malloc(BUFFER);
    EVP_MD_CTX *md = image_digest_new();
    char digest[IMAGE_DIGEST_SIZE] = "";
    ssize_t n = -1;
    while (buf && md && (n = read(fd, buf, BUFFER)) > 0) {
        if (EVP_DigestUpdate(md, buf, (size_t)n) != 1) {
            n = -1;
            break;
        }
    }
    if (n != 0 || image_digest_final(md, digest, NULL) < 0) {
        digest[0] = '\0';
    }
    EVP_MD_CTX_free(md);
    return strcmp(digest, want) == 0;
}

/* 0 with the file mapped, or with no mapping: it must be made. Of a Linux program the prepared image is
 * looked for first; what was pushed is there only when preparing was interrupted. */
static int check_run(struct un_job *job, struct un_error *err)
{
    struct entry *e = un_container_of(job, struct entry, check);
    struct stat st;
    bool linux_kind = image_kind_is_linux(e->mapping.kind);
    char name[65];
    int rc = linux_kind ? image_prepared_name(e->mapping.digest, name, err) : 0;
    if (rc < 0 || (linux_kind &&
                   image_prepared_open(e->is, name, e->verified, &e->mapping, &e->mapped_size))) {
        return rc;
    }
    un_autoclose int fd = openat(e->is->dir_fd, file_name(e), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != e->size) {
        return 0;
    }
    if ((linux_kind || !e->verified) && !file_has_digest(fd, e->mapping.digest)) {
        return 0;
    }
    (void)futimens(fd, NULL); /* the time of use; without it eviction only chooses worse */
    return entry_map(e, fd, err);
}

static void check_done(struct un_job *job, int rc, const struct un_error *err)
{
    struct entry *e = un_container_of(job, struct entry, check);
    if (rc < 0) {
        entry_fail(e, rc, err);
    } else if (e->mapping.data) {
        entry_ready(e);
    } else if (e->raw) {
        prepare_start(e);
    } else {
        unpack_start(e);
    }
}

static void check_start(struct entry *e)
{
    e->state = ENTRY_CHECK;
    e->check = (struct un_job){.run = check_run, .done = check_done};
    un_workers_submit(e->is->workers, &e->check);
}

/* --- looking up ------------------------------------------------------------------------------- */

static int lookup_run(struct store_job *job, sqlite3 *db, struct un_error *err)
{
    struct entry *e = un_container_of(job, struct entry, lookup);
    struct image_info info;
    int rc = image_load(db, e->mapping.digest, &info, &e->blob, err);
    if (rc == 0) {
        e->mapping.kind = info.kind;
        e->size = info.size_bytes;
    }
    return rc;
}

static void lookup_done(struct store_job *job, int rc, const struct un_error *err)
{
    struct entry *e = un_container_of(job, struct entry, lookup);
    if (rc < 0) {
        entry_fail(e, rc, err);
    } else {
        check_start(e);
    }
}

static void lookup_start(struct entry *e)
{
    e->state = ENTRY_LOOKUP;
    e->lookup = (struct store_job){.access = STORE_READ, .run = lookup_run, .done = lookup_done};
    store_submit(e->is->store, &e->lookup);
}

/* --- the interface ---------------------------------------------------------------------------- */

/* An open of what is mapped already; the reference was taken at once. */
static void on_mapped(void *arg)
{
    struct waiter *w = arg;
    w->cb(w->arg, 0, &w->entry->mapping, NULL);
    free(w);
}

void image_open(struct imagestore *is, const char *digest, image_open_cb cb, void *arg)
{
    char wanted[IMAGE_DIGEST_SIZE] = "";
    if (image_digest_valid(digest)) {
        memcpy(wanted, digest, sizeof wanted);
    }
    struct entry *e = entry_find(is, wanted);
    struct waiter *w = un_fault("image.open") ? NULL : calloc(1, sizeof *w);
    bool fresh = !e;
    if (w && fresh) {
        e = entry_new(is, wanted);
    }
    if (!w || !e) {
        free(w);
        cb(arg, -ENOMEM, NULL, &no_memory);
        return;
    }
    entry_touch(e);
    w->cb = cb;
    w->arg = arg;
    w->entry = e;
    if (e->state == ENTRY_MAPPED) {
        image_ref(&e->mapping);
        w->post = (struct un_post){.fn = on_mapped, .arg = w};
        un_loop_post(is->loop, &w->post);
        return;
    }
    un_list_push(&e->waiters, &w->node);
    if (fresh) {
        lookup_start(e);
    } else if (e->state == ENTRY_COLD) {
        is->cold--;
        check_start(e);
    }
}

struct image_mapping *image_peek(struct imagestore *is, const char *digest)
{
    struct entry *e = entry_find(is, digest);
    return e && e->state == ENTRY_MAPPED ? &e->mapping : NULL;
}

struct image_mapping *image_ref(struct image_mapping *m)
{
    struct entry *e = un_container_of(m, struct entry, mapping);
    e->refs++;
    un_list_remove(&e->idle);
    return m;
}

int image_path(const struct image_mapping *m, char *ret, size_t size)
{
    const struct entry *e = un_container_of(m, struct entry, mapping);
    int n = snprintf(ret, size, "%s/%s", e->is->dir, file_name(e));
    return n >= 0 && (size_t)n < size ? 0 : -ENAMETOOLONG;
}

void image_unref(struct image_mapping *m)
{
    if (!m) {
        return;
    }
    struct entry *e = un_container_of(m, struct entry, mapping);
    struct imagestore *is = e->is;
    assert(e->refs > 0);
    if (--e->refs > 0) {
        return;
    }
    if (e->forgotten || is->closed) {
        entry_free(e);
        return;
    }
    e->idle_until_us = un_loop_now_us(is->loop) + IDLE_US;
    un_list_push(&is->idle, &e->idle);
    unsigned idle = 0;
    un_list_for_each (it, &is->idle) {
        idle++;
    }
    if (idle > IDLE_MAX) {
        entry_cool(un_list_first(&is->idle, struct entry, idle));
    }
    arm_idle_timer(is);
}

void image_cache_forget(struct imagestore *is, const char *digest)
{
    struct entry *e = entry_find(is, digest);
    if (!e) {
        return;
    }
    if (e->state == ENTRY_COLD || (e->state == ENTRY_MAPPED && e->refs == 0)) {
        entry_free(e);
        arm_idle_timer(is);
    } else {
        e->forgotten = true; /* freed with its last reference, or by the failure of its opening */
    }
}

/* Files that were being made when the daemon ended, and what QEMU wrote of disks whose changes are lost
 * with the machine (libvirt names it <file>.TRANSIENT-<domain>). */
static void remove_temporary_files(struct imagestore *is)
{
    int fd = openat(is->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *d;
    if (!dir) {
        if (fd >= 0) {
            close(fd);
        }
        return;
    }
    while ((d = readdir(dir))) {
        size_t len = strlen(d->d_name);
        if ((len > 4 && strcmp(d->d_name + len - 4, ".tmp") == 0) ||
            strstr(d->d_name, ".TRANSIENT")) {
            (void)unlinkat(is->dir_fd, d->d_name, 0);
        }
    }
    closedir(dir);
}

static int make_directory(const char *path, struct un_error *err)
{
    return mkdir(path, 0700) == 0 || errno == EEXIST
               ? 0
               : un_error_errno(err, -errno, "create %s", path);
}

int image_cache_open(struct imagestore *is, const char *cache_dir, struct un_error *err)
{
    un_list_init(&is->entries);
    un_list_init(&is->idle);
    un_timer_init(&is->idle_timer, is->loop, on_idle_timer, is);
    int rc = make_directory(cache_dir, err);
    if (rc < 0) {
        return rc;
    }
    if (asprintf(&is->dir, "%s/images", cache_dir) < 0) {
        is->dir = NULL;
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    rc = make_directory(is->dir, err);
    if (rc < 0) {
        return rc;
    }
    is->dir_fd = open(is->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (is->dir_fd < 0) {
        return un_error_errno(err, -errno, "open %s", is->dir);
    }
    remove_temporary_files(is);
    return 0;
}

void image_cache_close(struct imagestore *is)
{
    un_timer_cancel(&is->idle_timer);
    un_list_for_each_safe (it, &is->entries) {
        struct entry *e = un_list_entry(it, struct entry, node);
        if (e->state == ENTRY_COLD || (e->state == ENTRY_MAPPED && e->refs == 0)) {
            entry_free(e);
        }
    }
}
