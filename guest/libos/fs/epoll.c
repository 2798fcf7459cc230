/* epoll.c - sets of open files to wait for: level, edge (EPOLLET), and one-shot.
 *
 * A wait looks at every file of the set: there are few, as there is one request. Edge: a file is
 * told of again when a bit is new, or its count of changes went on (file.h, struct readiness),
 * which includes the program's own reads and writes: once too often rather than once too seldom.
 */
#include <linux/eventpoll.h>

#include "fs/wait.h"
#include "mm.h"
#include "sys_file.h"

#define NESTING_MAX 5
#define INPUT_FLAGS (EPOLLET | EPOLLONESHOT | EPOLLWAKEUP | EPOLLEXCLUSIVE)

struct epoll {
    struct list items;
    struct readiness ready; /* the set itself changed */
};

struct item {
    struct list in_epoll, in_file;
    struct epoll *epoll;
    struct file *file; /* borrowed: epoll_forget ends the item */
    int fd;
    bool disabled; /* EPOLLONESHOT, told */
    uint32_t events;
    uint32_t told, told_changes; /* EPOLLET */
    uint64_t data;
};

static const struct file_ops epoll_ops;

bool file_is_epoll(const struct file *f)
{
    return f->ops == &epoll_ops;
}

static void item_free(struct item *i)
{
    list_del(&i->in_epoll);
    list_del(&i->in_file);
    kfree(i);
}

void epoll_forget(struct file *f)
{
    while (!list_empty(&f->epolls)) {
        struct item *i = container_of(f->epolls.next, struct item, in_file);
        readiness_changed(&i->epoll->ready);
        item_free(i);
    }
}

static uint32_t item_ready(const struct item *i)
{
    if (i->disabled) {
        return 0;
    }
    return file_poll(i->file) & ((i->events & ~(uint32_t)INPUT_FLAGS) | EPOLLERR | EPOLLHUP);
}

/* What to tell of the item now, and remembers that it was told. */
static uint32_t item_take(struct item *i)
{
    uint32_t ready = item_ready(i);
    if (i->events & EPOLLET) {
        uint32_t changes = i->file->ops->ready ? i->file->ops->ready(i->file)->changes : 0;
        bool news = (ready & ~i->told) || changes != i->told_changes;
        i->told = ready;
        i->told_changes = changes;
        if (!news) {
            return 0;
        }
    }
    if (ready && (i->events & EPOLLONESHOT)) {
        i->disabled = true;
    }
    return ready;
}

static uint32_t epoll_poll(struct file *f)
{
    struct epoll *e = f->priv;
    list_for (node, &e->items) {
        if (item_ready(container_of(node, struct item, in_epoll))) {
            return POLLIN | POLLRDNORM;
        }
    }
    return 0;
}

static struct readiness *epoll_readiness(struct file *f)
{
    return &((struct epoll *)f->priv)->ready;
}

static uint64_t epoll_deadline(struct file *f)
{
    struct epoll *e = f->priv;
    uint64_t first = NO_DEADLINE;
    list_for (node, &e->items) {
        struct item *i = container_of(node, struct item, in_epoll);
        if (i->file->ops->deadline) {
            uint64_t at = i->file->ops->deadline(i->file);
            first = at < first ? at : first;
        }
    }
    return first;
}

static bool epoll_wants_request(struct file *f)
{
    struct epoll *e = f->priv;
    list_for (node, &e->items) {
        struct item *i = container_of(node, struct item, in_epoll);
        if (!i->disabled && (i->events & EPOLLIN) && file_wants_request(i->file)) {
            return true;
        }
    }
    return false;
}

static void epoll_release(struct file *f)
{
    struct epoll *e = f->priv;
    while (!list_empty(&e->items)) {
        item_free(container_of(e->items.next, struct item, in_epoll));
    }
    kfree(e);
}

static const struct file_ops epoll_ops = {
    .name = "anon_inode:[eventpoll]",
    .poll = epoll_poll,
    .ready = epoll_readiness,
    .deadline = epoll_deadline,
    .wants_request = epoll_wants_request,
    .release = epoll_release,
};

int epoll_pollwait_add(struct pollwait *w, struct file *f)
{
    struct epoll *e = f->priv;
    int r = pollwait_queue(w, &e->ready.q);
    list_for (node, &e->items) {
        struct item *i = container_of(node, struct item, in_epoll);
        if (r < 0) {
            break;
        }
        if (!i->disabled) {
            r = pollwait_add(w, i->file);
        }
    }
    return r;
}

int64_t sys_epoll_create1(int flags)
{
    if (flags & ~EPOLL_CLOEXEC) {
        return -EINVAL;
    }
    struct epoll *e = kalloc(sizeof(*e));
    if (!e) {
        return -ENOMEM;
    }
    list_init(&e->items);
    readiness_init(&e->ready);
    return fd_install_anonymous(&epoll_ops, e, (uint32_t)flags);
}

int64_t sys_epoll_create(int size)
{
    return size <= 0 ? -EINVAL : sys_epoll_create1(0);
}

/* Whether `f`, put into `into`, would make a circle or a chain too long. */
static bool nests_badly(struct file *f, const struct epoll *into, int depth)
{
    if (!file_is_epoll(f)) {
        return false;
    }
    struct epoll *e = f->priv;
    if (e == into || depth >= NESTING_MAX) {
        return true;
    }
    list_for (node, &e->items) {
        if (nests_badly(container_of(node, struct item, in_epoll)->file, into, depth + 1)) {
            return true;
        }
    }
    return false;
}

static struct item *find_item(struct epoll *e, const struct file *f, int fd)
{
    list_for (node, &e->items) {
        struct item *i = container_of(node, struct item, in_epoll);
        if (i->file == f && i->fd == fd) {
            return i;
        }
    }
    return NULL;
}

static int item_add(struct epoll *e, struct file *f, int fd, const struct epoll_event *event)
{
    if (nests_badly(f, e, 1)) {
        return -ELOOP;
    }
    struct item *i = kalloc(sizeof(*i));
    if (!i) {
        return -ENOMEM;
    }
    i->epoll = e;
    i->file = f;
    i->fd = fd;
    i->events = event->events;
    i->data = event->data;
    list_add_tail(&e->items, &i->in_epoll);
    list_add_tail(&f->epolls, &i->in_file);
    return 0;
}

int64_t sys_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    if (op != EPOLL_CTL_DEL && !user_readable(event, sizeof(*event))) {
        return -EFAULT;
    }
    struct file *ef = fd_get(epfd), *f = fd_get(fd);
    if (!ef || !f) {
        return -EBADF;
    }
    if (!f->ops->poll) {
        return -EPERM;
    }
    if (!file_is_epoll(ef) || ef == f) {
        return -EINVAL;
    }
    struct epoll *e = ef->priv;
    struct item *i = find_item(e, f, fd);
    int r = 0;
    switch (op) {
    case EPOLL_CTL_ADD:
        r = i ? -EEXIST : item_add(e, f, fd, event);
        break;
    case EPOLL_CTL_MOD:
        if (!i) {
            return -ENOENT;
        }
        i->events = event->events;
        i->data = event->data;
        i->disabled = false;
        i->told = 0;
        break;
    case EPOLL_CTL_DEL:
        if (!i) {
            return -ENOENT;
        }
        item_free(i);
        break;
    default:
        return -EINVAL;
    }
    if (r == 0) {
        readiness_changed(&e->ready);
    }
    return r;
}

static int64_t take_events(struct epoll *e, struct epoll_event *events, int count)
{
    int64_t found = 0;
    struct list *last = e->items.prev;
    for (struct list *node = e->items.next, *next; node != &e->items && found < count;
         node = next) {
        next = node->next;
        struct item *i = container_of(node, struct item, in_epoll);
        bool was_last = node == last;
        uint32_t ready = item_take(i);
        if (ready) {
            events[found].events = ready;
            events[found].data = i->data;
            found++;
            list_del(node); /* the others come first, next time */
            list_add_tail(&e->items, node);
        }
        if (was_last) {
            break;
        }
    }
    return found;
}

static int64_t do_wait(int epfd, struct epoll_event *events, int count, uint64_t deadline_ns)
{
    if (count <= 0 || count > (int)(INT32_MAX / sizeof(*events))) {
        return -EINVAL;
    }
    if (!user_writable(events, (uint64_t)count * sizeof(*events))) {
        return -EFAULT;
    }
    struct file *f = fd_get(epfd);
    if (!f) {
        return -EBADF;
    }
    if (!file_is_epoll(f)) {
        return -EINVAL;
    }
    file_ref(f);
    int64_t r = 0;
    while (r == 0) {
        r = take_events(f->priv, events, count);
        if (r || clock_monotonic_ns() >= deadline_ns) {
            break;
        }
        struct pollwait w;
        pollwait_init(&w, deadline_ns);
        r = pollwait_add(&w, f);
        if (r == 0) {
            r = pollwait_block(&w, deadline_ns);
        }
        pollwait_done(&w);
        if (r == -ETIMEDOUT) {
            r = take_events(f->priv, events, count);
            break;
        }
    }
    file_unref(f);
    return r;
}

int64_t sys_epoll_wait(int epfd, struct epoll_event *events, int count, int timeout_ms)
{
    uint64_t deadline;
    deadline_of_ms(timeout_ms, &deadline);
    return do_wait(epfd, events, count, timeout_ms == 0 ? 0 : deadline);
}

int64_t sys_epoll_pwait(int epfd, struct epoll_event *events, int count, int timeout_ms,
                        const uint64_t *sigmask, size_t sigset_size)
{
    int r = signal_mask_for_call(sigmask, sigset_size);
    return r < 0 ? r : sys_epoll_wait(epfd, events, count, timeout_ms);
}

int64_t sys_epoll_pwait2(int epfd, struct epoll_event *events, int count,
                         const struct __kernel_timespec *timeout, const uint64_t *sigmask,
                         size_t sigset_size)
{
    uint64_t deadline;
    int r = deadline_of_timespec(timeout, &deadline);
    if (r == 0) {
        r = signal_mask_for_call(sigmask, sigset_size);
    }
    return r < 0 ? r : do_wait(epfd, events, count, deadline);
}
