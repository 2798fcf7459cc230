/* lock.c - locks on files: flock(2), and the record locks of fcntl(2).
 *
 * Owners are what a lock keeps out: an open file description (flock, F_OFD_*), or the process, which
 * is the only one (F_SETLK): its record locks never meet each other, but do meet those of open file
 * descriptions. flock and record locks do not know of each other. What has no inode (pipes, sockets)
 * has nobody to share it with: every lock is granted.
 *
 * An inode has its locks in a list. Whoever waits for one waits on one queue for all files, and looks
 * again when any lock was given up.
 */
#include <linux/fs.h>

#include "fs/vfs.h"
#include "mm.h"
#include "sys_file.h"

#define OFFSET_MAX ((uint64_t)INT64_MAX)

struct file_lock {
    struct file_lock *next;
    const struct file *owner; /* NULL: the process */
    bool whole;               /* by flock */
    bool exclusive;
    uint64_t first, last; /* bytes, both included */
};

static struct waitq waiting;

void locks_init(void)
{
    waitq_init(&waiting);
}

static bool overlaps(const struct file_lock *a, const struct file_lock *b)
{
    return a->first <= b->last && b->first <= a->last;
}

/* The lock that is in the way of another one, the first by place; NULL: none. */
static const struct file_lock *conflict(const struct inode *i, const struct file_lock *wanted)
{
    const struct file_lock *found = NULL;
    for (const struct file_lock *l = i->locks; l; l = l->next) {
        if (l->whole == wanted->whole && l->owner != wanted->owner && overlaps(l, wanted) &&
            (l->exclusive || wanted->exclusive) && (!found || l->first < found->first)) {
            found = l;
        }
    }
    return found;
}

static void add(struct inode *i, struct file_lock *at, const struct file_lock *lock)
{
    *at = *lock;
    at->next = i->locks;
    i->locks = at;
}

/* Whether two locks of one owner and kind are one: they touch. */
static bool joins(const struct file_lock *l, const struct file_lock *to)
{
    return l->exclusive == to->exclusive &&
           (overlaps(l, to) || l->last + 1 == to->first || to->last + 1 == l->first);
}

/* Takes [first, last] out of what the owner of `range` has, and joins what touches it to `range` when
 * that is to be added. `spare`: for what is left behind the range; NULL when it was used. */
static void carve(struct inode *i, struct file_lock *range, bool adding, struct file_lock **spare)
{
    const uint64_t first = range->first, last = range->last;
    for (struct file_lock **at = &i->locks; *at;) {
        struct file_lock *l = *at;
        bool same = l->owner == range->owner && l->whole == range->whole;
        bool joined = same && adding && joins(l, range);
        if (joined) {
            range->first = l->first < range->first ? l->first : range->first;
            range->last = l->last > range->last ? l->last : range->last;
        } else if (!same || l->last < first || l->first > last) {
            at = &l->next;
            continue;
        }
        if (!joined && l->last > last && l->first < first) {
            struct file_lock behind = *l;
            behind.first = last + 1;
            l->last = first - 1;
            add(i, *spare, &behind);
            *spare = NULL;
            return; /* nothing else can overlap */
        }
        if (!joined && l->last > last) {
            l->first = last + 1;
            at = &l->next;
        } else if (!joined && l->first < first) {
            l->last = first - 1;
            at = &l->next;
        } else {
            *at = l->next;
            kfree(l);
        }
    }
}

/* Sets or takes away (`adding`) the owner's lock on a range. -ENOLCK: no memory. */
static int set_range(struct inode *i, const struct file_lock *wanted, bool adding)
{
    struct file_lock range = *wanted, *spare = kalloc(sizeof(*spare));
    struct file_lock *lock = adding ? kalloc(sizeof(*lock)) : NULL;
    if (!spare || (adding && !lock)) {
        kfree(spare);
        kfree(lock);
        return -ENOLCK;
    }
    carve(i, &range, adding, &spare);
    if (adding) {
        add(i, lock, &range);
    }
    kfree(spare);
    waitq_wake_all(&waiting);
    return 0;
}

/* Waits until nothing is in the way. */
static int64_t acquire(struct file *f, const struct file_lock *wanted, bool wait)
{
    int64_t r = 0;
    file_ref(f); /* another thread may close its descriptor meanwhile */
    while (r == 0 && conflict(f->inode, wanted)) {
        r = wait ? waitq_wait(&waiting, NO_DEADLINE) : -EAGAIN;
    }
    if (r == 0) {
        r = set_range(f->inode, wanted, true);
    }
    if (f->refs == 1) {
        locks_release_process(f); /* as its descriptor's close did with those before */
    }
    file_unref(f);
    return r;
}

static void drop(struct inode *i, const struct file *owner, bool whole)
{
    const struct file_lock all = {.owner = owner, .whole = whole, .last = UINT64_MAX};
    struct file_lock range = all, *spare = NULL; /* nothing lies behind all */
    carve(i, &range, false, &spare);
    waitq_wake_all(&waiting);
}

void locks_release(const struct file *f)
{
    if (f->inode && f->inode->locks) {
        drop(f->inode, f, true);
        drop(f->inode, f, false);
    }
}

void locks_release_process(const struct file *f)
{
    if (f->inode && f->inode->locks && !(f->flags & O_PATH)) {
        drop(f->inode, NULL, false);
    }
}

int64_t sys_flock(int fd, int operation)
{
    enum { SHARED = 1, EXCLUSIVE = 2, NONBLOCKING = 4, UNLOCK = 8 };
    struct file *f = fd_get(fd);
    int kind = operation & ~NONBLOCKING;
    if (!f || (f->flags & O_PATH)) {
        return -EBADF;
    }
    if (kind != SHARED && kind != EXCLUSIVE && kind != UNLOCK) {
        return -EINVAL;
    }
    if (!f->inode) {
        return 0;
    }
    const struct file_lock wanted = {
        .owner = f, .whole = true, .exclusive = kind == EXCLUSIVE, .last = UINT64_MAX};
    for (const struct file_lock *l = f->inode->locks; l; l = l->next) {
        if (l->whole && l->owner == f && l->exclusive == wanted.exclusive && kind != UNLOCK) {
            return 0;
        }
    }
    drop(f->inode, f, true); /* to change a lock is to give it up first: flock(2) */
    return kind == UNLOCK ? 0 : acquire(f, &wanted, !(operation & NONBLOCKING));
}

/* The bytes that a record lock means. -EINVAL, -EOVERFLOW. */
static int range_of(const struct file *f, const struct flock *l, struct file_lock *ret)
{
    uint64_t size = f->inode ? f->inode->size : 0;
    int64_t first = l->l_whence == SEEK_CUR ? (int64_t)f->pos : (int64_t)size;
    first = l->l_whence == SEEK_SET ? 0 : first;
    if (l->l_whence < 0 || l->l_whence > SEEK_END) {
        return -EINVAL;
    }
    if (__builtin_add_overflow(first, l->l_start, &first)) {
        return -EOVERFLOW;
    }
    if (first < 0 || (l->l_len < 0 && first + l->l_len < 0)) {
        return -EINVAL;
    }
    if (l->l_len > 0 && (uint64_t)l->l_len - 1 > OFFSET_MAX - (uint64_t)first) {
        return -EOVERFLOW;
    }
    ret->first = (uint64_t)(l->l_len < 0 ? first + l->l_len : first);
    ret->last = l->l_len == 0  ? OFFSET_MAX
                : l->l_len > 0 ? (uint64_t)(first + (l->l_len - 1))
                               : (uint64_t)first - 1;
    return 0;
}

static void tell(struct flock *to, const struct file_lock *l)
{
    if (!l) {
        to->l_type = F_UNLCK;
        return;
    }
    to->l_type = l->exclusive ? F_WRLCK : F_RDLCK;
    to->l_whence = SEEK_SET;
    to->l_start = (int64_t)l->first;
    to->l_len = l->last == OFFSET_MAX ? 0 : (int64_t)(l->last - l->first + 1);
    to->l_pid = l->owner ? -1 : process_pid();
}

int64_t file_lock_record(struct file *f, int command, struct flock *l)
{
    bool get = command == F_GETLK || command == F_OFD_GETLK;
    bool description = command == F_OFD_GETLK || command == F_OFD_SETLK || command == F_OFD_SETLKW;
    uint32_t access = f->flags & O_ACCMODE;
    struct file_lock wanted = {.owner = description ? f : NULL};
    if (get ? !user_writable(l, sizeof(*l)) : !user_readable(l, sizeof(*l))) {
        return -EFAULT;
    }
    if (l->l_type != F_RDLCK && l->l_type != F_WRLCK && (l->l_type != F_UNLCK || get)) {
        return -EINVAL;
    }
    int r = range_of(f, l, &wanted);
    if (r < 0) {
        return r;
    }
    wanted.exclusive = l->l_type == F_WRLCK;
    if (!get && ((l->l_type == F_RDLCK && access == O_WRONLY) ||
                 (l->l_type == F_WRLCK && access == O_RDONLY))) {
        return -EBADF;
    }
    if (description && l->l_pid != 0) {
        return -EINVAL;
    }
    if (get) {
        tell(l, f->inode ? conflict(f->inode, &wanted) : NULL);
        return 0;
    }
    if (!f->inode) {
        return 0;
    }
    if (l->l_type == F_UNLCK) {
        return set_range(f->inode, &wanted, false);
    }
    return acquire(f, &wanted, command == F_SETLKW || command == F_OFD_SETLKW);
}
