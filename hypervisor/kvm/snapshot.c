/* snapshot.c - the snapshots of the kvm driver in memory, by key. How one is made: snapshot_build.c.
 *
 * A snapshot in memory is a descriptor of its file, read and found whole, and a copy of its few
 * channel pages. The file is looked at again (fstat) whenever it is used: one that was changed
 * since is dropped, read again, and made anew if it is damaged. One that was deleted goes on to
 * serve.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/limits.h"
#include "hypervisor/kvm/snapshot_impl.h"

struct snapshot {
    struct un_list node; /* of snapshots.known, least recently used first; unlinked once dropped */
    size_t refs;         /* known counts as one */
    char key[HV_SNAPSHOT_KEY_MAX + 1];
    struct snapshot_file file;
    struct stat seen;
    uint16_t used[SNAPSHOT_CHANNEL_PAGES]; /* bytes of each of file.pages up to the last not zero */
    unsigned lessons;                      /* runs that were or are learned from */
    uint8_t *written; /* bitmap of pages, of all lessons; NULL before the first */
    struct vmm_range *ranges;
    size_t range_count;
    uint64_t *touches; /* NULL before the first lesson */
    size_t touch_count;
};

bool snapshot_key_valid(const char *key)
{
    size_t n = strlen(key);
    if (n == 0 || n > HV_SNAPSHOT_KEY_MAX || key[0] == '.') {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (!isalnum((unsigned char)key[i]) && !strchr("._-", key[i])) {
            return false;
        }
    }
    return true;
}

void snapshot_unref(struct snapshot *s)
{
    if (s && --s->refs == 0) {
        snapshot_file_release(&s->file);
        free(s->written);
        free(s->ranges);
        free(s->touches);
        free(s);
    }
}

void snapshot_drop(struct snapshot *s)
{
    if (un_list_linked(&s->node)) {
        un_list_remove(&s->node);
        snapshot_unref(s);
    }
}

bool snapshot_dropped(const struct snapshot *s)
{
    return !un_list_linked(&s->node);
}

bool snapshot_is(const struct snapshot *s, const char *key)
{
    return strcmp(s->key, key) == 0;
}

static bool unchanged(const struct snapshot *s)
{
    struct stat now;
    return fstat(s->file.fd, &now) == 0 && now.st_size == s->seen.st_size &&
           now.st_mtim.tv_sec == s->seen.st_mtim.tv_sec &&
           now.st_mtim.tv_nsec == s->seen.st_mtim.tv_nsec;
}

/* From the last used on. */
static struct snapshot *find(struct snapshots *all, const char *key)
{
    for (struct un_list *it = all->known.prev; it != &all->known; it = it->prev) {
        struct snapshot *s = un_list_entry(it, struct snapshot, node);
        if (strcmp(s->key, key) == 0) {
            if (unchanged(s)) {
                return s;
            }
            snapshot_drop(s);
            return NULL;
        }
    }
    return NULL;
}

static struct failure *find_failure(struct snapshots *all, const char *key)
{
    for (unsigned i = 0; i < FAILURES; i++) {
        if (all->failures[i].until_us > 0 && strcmp(all->failures[i].key, key) == 0) {
            return &all->failures[i];
        }
    }
    return NULL;
}

void snapshot_note_result(struct snapshots *all, const char *key, bool failed)
{
    struct failure *f = find_failure(all, key);
    if (failed && !f) {
        f = &all->failures[all->next_failure];
        all->next_failure = (all->next_failure + 1) % FAILURES;
    }
    if (f) {
        snprintf(f->key, sizeof(f->key), "%s", key);
        f->until_us = failed ? un_loop_now_us(all->drv->loop) + RETRY_US : 0;
    }
}

struct snapshot *snapshot_get(struct snapshots *all, const char *key, uint64_t mem_bytes)
{
    struct snapshot *s = find(all, key);
    if (!s || s->file.mem_bytes != mem_bytes) {
        return NULL;
    }
    un_list_remove(&s->node);
    un_list_push(&all->known, &s->node);
    s->refs++;
    return s;
}

void snapshot_fill_channel(const struct snapshot *s, uint8_t *base)
{
    for (size_t i = 0; i < s->file.page_count; i++) {
        memcpy(base + (size_t)s->file.page_at[i] * 4096, s->file.pages + i * 4096, s->used[i]);
    }
}

static void leave_out_pieces(struct snapshot *s)
{
    const uint64_t per_byte = 8 * 4096, end = s->file.hole_at + s->file.hole_bytes;
    uint64_t at = vmm_pieces_from(s->file.hole_at, s->file.hole_bytes);
    for (at = (at + per_byte - 1) / per_byte * per_byte; at + per_byte <= end; at += per_byte) {
        s->written[at / per_byte] = 0;
    }
}

enum { LESSONS = 2 /* the second tells what differs from run to run */ };

static void learn_touches(struct snapshot *s, const uint8_t *touched, size_t count)
{
    uint64_t both[VMM_TOUCHES_MAX];
    size_t n = vmm_touches_merge(s->touches, s->touch_count, touched, count, both);
    if (n > s->touch_count) {
        uint64_t *more = realloc(s->touches, n * sizeof(*more));
        if (!more) {
            return;
        }
        s->touches = more;
    }
    if (n > 0) {
        memcpy(s->touches, both, n * sizeof(*both));
    }
    s->touch_count = n;
}

void snapshot_learn(struct snapshot *s, const uint8_t *bitmap, size_t len, size_t touched)
{
    size_t size = s->file.mem_bytes / 4096 / 8;
    if (len != size + touched * sizeof(*s->touches)) {
        return;
    }
    learn_touches(s, bitmap + size, touched);
    if (!s->written) {
        s->written = calloc(1, size);
        s->ranges = calloc(VMM_RANGES_MAX, sizeof(*s->ranges));
    }
    if (!s->written || !s->ranges) {
        return;
    }
    for (size_t i = 0; i < size; i++) {
        s->written[i] |= bitmap[i];
    }
    leave_out_pieces(s);
    s->range_count = vmm_ranges_make(s->written, s->file.mem_bytes, s->ranges);
}

/* Touches to make, 1.5 to 3 us each. For fewer it does not pay to run the vCPU once more. */
enum { WORTH_TOUCHING = 128 };

void snapshot_ahead(const struct snapshot *s, struct vmm_order *order, struct vmm_ahead *ret)
{
    bool stands = order->op == VMM_ORDER_RESET || order->flags & VMM_BIND_STAND;
    *ret = (struct vmm_ahead){.ranges = s->ranges, .range_count = s->range_count};
    if (stands && s->touch_count >= WORTH_TOUCHING) {
        ret->touches = s->touches;
        ret->touch_count = s->touch_count;
    }
    order->range_count = (uint32_t)ret->range_count;
    order->touch_count = (uint32_t)ret->touch_count;
}

size_t snapshot_work_ahead(const struct snapshot *s)
{
    size_t pages = s->touch_count;
    for (size_t i = 0; i < s->range_count; i++) {
        pages += s->ranges[i].count;
    }
    return pages;
}

int snapshot_order(struct snapshot *s, struct vmm_order *ret)
{
    ret->flags = VMM_BIND_STATE | (s->file.low ? VMM_BIND_LOW : 0);
    if (s->lessons < LESSONS && s->file.mem_bytes <= VMM_LEARN_MAX) {
        s->lessons++;
        ret->flags |= VMM_BIND_LEARN;
    }
    ret->mem_at = SNAPSHOT_MEM_AT;
    ret->state_at = SNAPSHOT_STATE_AT;
    ret->zero_at = s->file.hole_at;
    ret->zero_bytes = s->file.hole_bytes;
    return s->file.fd;
}

static uint16_t used_of(const uint8_t *page)
{
    uint16_t used = 4096;
    while (used > 0 && page[used - 1] == 0) {
        used--;
    }
    return used;
}

int snapshot_keep(struct snapshots *all, const char *key, struct snapshot_file *file)
{
    struct snapshot *s = calloc(1, sizeof(*s));
    if (!s) {
        return -ENOMEM;
    }
    s->refs = 1;
    s->file = *file;
    *file = (struct snapshot_file){.fd = -1};
    fstat(s->file.fd, &s->seen);
    snprintf(s->key, sizeof(s->key), "%s", key);
    for (size_t i = 0; i < s->file.page_count; i++) {
        s->used[i] = used_of(s->file.pages + i * 4096);
    }
    un_list_push(&all->known, &s->node);
    size_t count = 0;
    un_list_for_each (it, &all->known) {
        count++;
    }
    if (count > LIMIT_SNAPSHOT_OPEN) {
        snapshot_drop(un_list_first(&all->known, struct snapshot, node));
    }
    return 0;
}

bool snapshot_known(struct snapshots *all, const char *key)
{
    return find(all, key) != NULL;
}

bool snapshot_failed_lately(struct snapshots *all, const char *key)
{
    const struct failure *f = find_failure(all, key);
    return f && f->until_us > un_loop_now_us(all->drv->loop);
}

int snapshots_new(struct kvm_driver *d, struct snapshots **ret, struct un_error *err)
{
    struct snapshots *all = calloc(1, sizeof(*all));
    if (!all) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    all->drv = d;
    un_list_init(&all->known);
    un_list_init(&all->builds);
    *ret = all;
    return 0;
}

void snapshots_free(struct snapshots *all)
{
    if (!all) {
        return;
    }
    un_list_for_each_safe (it, &all->known) {
        snapshot_drop(un_list_entry(it, struct snapshot, node));
    }
    snapshot_builds_free(all);
    free(all);
}
