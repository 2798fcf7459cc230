/* libos_fake.c - memory, tasks, time and host of the library OS's tests. */
#include "libos_fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mm.h"

struct fake fake;
struct task *current;
unsigned request_waiters;
bool request_here;

/* --- memory ----------------------------------------------------------------------------------- */

struct frame_uses {
    uint32_t uses;
};

void *phys_to_virt(uint64_t phys)
{
    return (void *)(uintptr_t)phys;
}

uint64_t virt_to_phys(const void *p)
{
    return (uintptr_t)p;
}

uint64_t frame_alloc(void)
{
    if (!fake.frames_left) {
        return 0;
    }
    fake.frames_left--;
    void *p = aligned_alloc(PAGE_SIZE, PAGE_SIZE);
    assert_non_null(p);
    memset(p, 0, PAGE_SIZE);
    return (uintptr_t)p;
}

void frame_free(uint64_t phys)
{
    fake.frames_left++;
    free((void *)(uintptr_t)phys);
}

uint64_t frames_total(void)
{
    return 65536;
}

uint64_t frames_free(void)
{
    return fake.frames_left;
}

bool user_readable(const void *p, uint64_t len)
{
    return !len || (p && p != fake.bad);
}

bool user_writable(void *p, uint64_t len)
{
    return user_readable(p, len);
}

int64_t user_strlen(const char *p, size_t max)
{
    if (!user_readable(p, 1)) {
        return -EFAULT;
    }
    size_t len = strnlen(p, max);
    return len == max ? -ENAMETOOLONG : (int64_t)len;
}

void mm_for_each_area(void (*line)(void *arg, const struct mm_area_info *area), void *arg)
{
    const struct mm_area_info areas[] = {
        {.from = 0x10000, .to = 0x12000, .prot = 5, .name = "/bin/tool"},
        {.from = 0x7ffff000, .to = 0x80000000, .prot = 3, .name = "[stack]"},
    };
    for (size_t n = 0; n < ARRAY_SIZE(areas); n++) {
        line(arg, &areas[n]);
    }
}

/* --- tasks and time --------------------------------------------------------------------------- */

void waitq_add(struct waitq *q, struct waiter *w)
{
    w->task = (struct task *)&fake;
    w->woken = false;
    list_add_tail(&q->waiters, &w->node);
}

void waitq_remove(struct waiter *w)
{
    if (w->task && !w->woken) {
        list_del(&w->node);
    }
    w->task = NULL;
}

static bool woken;

void waitq_wake_all(struct waitq *q)
{
    while (!list_empty(&q->waiters)) {
        struct waiter *w = container_of(q->waiters.next, struct waiter, node);
        list_del(&w->node);
        w->woken = true;
        woken = true;
    }
}

int task_block(uint64_t deadline_ns)
{
    fake.blocked++;
    net_poll_ready();
    if (!woken && request_waiters && !request_here) {
        host_next();
        request_here = true;
        request_arrived();
    } else if (!woken && fake.on_block) {
        fake.on_block();
        net_poll_ready();
    }
    if (!woken) {
        if (deadline_ns == NO_DEADLINE) {
            fail_msg("the task would block for ever");
        }
        fake.now_ns = deadline_ns;
        return -ETIMEDOUT;
    }
    woken = false;
    return 0;
}

int waitq_wait(struct waitq *q, uint64_t deadline_ns)
{
    struct waiter w;
    waitq_add(q, &w);
    int r = task_block(deadline_ns);
    waitq_remove(&w);
    return r;
}

int signal_raise(int signal)
{
    fake.signal = signal;
    return 0;
}

int signal_mask_for_call(const uint64_t *mask, size_t size)
{
    return mask && size != 8 ? -EINVAL : 0;
}

uint64_t clock_monotonic_ns(void)
{
    return fake.now_ns;
}

uint64_t clock_realtime_ns(void)
{
    return fake.now_ns + 1700000000ull * 1000000000ull;
}

const char *process_exe(void)
{
    return "/bin/tool";
}

const char *process_cmdline(size_t *ret_len)
{
    *ret_len = 9;
    return "tool\0-x\0\0";
}

const char *process_environ(size_t *ret_len)
{
    *ret_len = 6;
    return "A=1\0B";
}

uint64_t process_start_ns(void)
{
    return 0;
}

int32_t process_pid(void)
{
    return 1;
}

void process_for_each_task(void (*each)(void *arg, const struct task *t), void *arg)
{
    each(arg, (struct task *)&fake);
}

/* --- the host --------------------------------------------------------------------------------- */

uint32_t host_interface(void)
{
    return fake.interface;
}

void host_next(void)
{
    fake.next_calls++;
    fake.has_request = true;
}

bool host_has_request(void)
{
    return fake.has_request;
}

const char *host_request_head(size_t *ret_len)
{
    *ret_len = strlen(fake.head);
    return fake.head;
}

int64_t host_content_length(void)
{
    return fake.content_length;
}

int64_t host_body_read(void *to, size_t len, bool block)
{
    if (!fake.body_ready) {
        if (!block) {
            return -EAGAIN;
        }
        fake.body_ready = strlen(fake.body) - fake.body_at;
        fake.has_request = true;
    }
    size_t n = len < fake.body_ready ? len : fake.body_ready;
    memcpy(to, fake.body + fake.body_at, n);
    fake.body_at += n;
    fake.body_ready -= n;
    return (int64_t)n;
}

bool host_body_ready(void)
{
    return fake.body_ready != 0;
}

void host_response_write(const void *data, size_t len)
{
    assert_true(len <= sizeof(fake.response) - fake.response_len);
    memcpy(fake.response + fake.response_len, data, len);
    fake.response_len += len;
}

void host_log_write(const void *data, size_t len)
{
    assert_true(len <= sizeof(fake.log) - fake.log_len);
    memcpy(fake.log + fake.log_len, data, len);
    fake.log_len += len;
}

void host_done(int status)
{
    if (!fake.done_jump_set) {
        fail_msg("the machine ended with %d: %.*s", status, (int)fake.log_len, fake.log);
    }
    fake.done = true;
    fake.done_status = status;
    longjmp(fake.done_jump, 1);
}

bool fake_until_done(void (*f)(void *arg), void *arg)
{
    fake.done = false;
    fake.done_jump_set = true;
    if (setjmp(fake.done_jump) == 0) {
        f(arg);
    }
    fake.done_jump_set = false;
    return fake.done;
}

void host_random(void *to, size_t len)
{
    fake.random_noted++;
    host_random_at_start(to, len);
}

void host_random_at_start(void *to, size_t len)
{
    static uint8_t next;
    for (size_t n = 0; n < len; n++) {
        ((uint8_t *)to)[n] = next += 37;
    }
}

void host_wait(uint64_t ns)
{
    fake.waits++;
    fake.now_ns += ns;
}

int host_net_resolve(const char *name, size_t len)
{
    return fake.allowed && strlen(fake.allowed) == len && !memcmp(fake.allowed, name, len)
               ? 0
               : -EACCES;
}

int host_net_open(const char *where, size_t len)
{
    kformat(fake.opened, sizeof(fake.opened), "%.*s", (int)len, where);
    return fake.open_result;
}

int64_t host_net_send(unsigned handle, const void *data, size_t len)
{
    assert_int_equal(handle, fake.open_result);
    if (fake.net_error) {
        return fake.net_error;
    }
    memcpy(fake.outgoing + fake.outgoing_len, data, len);
    fake.outgoing_len += len;
    return (int64_t)len;
}

int64_t host_net_recv(unsigned handle, void *to, size_t len)
{
    assert_int_equal(handle, fake.open_result);
    if (fake.net_error) {
        return fake.net_error;
    }
    size_t left = strlen(fake.incoming) - fake.incoming_at;
    if (!left) {
        return fake.incoming_ended ? 0 : -EAGAIN;
    }
    len = len < left ? len : left;
    memcpy(to, fake.incoming + fake.incoming_at, len);
    fake.incoming_at += len;
    return (int64_t)len;
}

void host_net_shut(unsigned handle)
{
    (void)handle;
    fake.shut = true;
}

void host_net_close(unsigned handle)
{
    (void)handle;
    fake.closed = true;
}

uint64_t host_net_readable(void)
{
    return fake.readable;
}

uint64_t host_net_writable(void)
{
    return fake.writable;
}

/* --- the root file system --------------------------------------------------------------------- */

struct image {
    struct unid_rootfs head;
    struct unid_rootfs_inode inodes[12];
    struct unid_rootfs_dirent dirents[16];
    char strings[256];
};

static struct image *image;
static uint64_t image_size = 16 * PAGE_SIZE;
static uint32_t strings_used, dirents_used;
static uint64_t data_used = PAGE_SIZE * 2;

static uint64_t put_data(const void *data, size_t len)
{
    uint64_t at = data_used;
    memcpy((char *)image + at, data, len);
    data_used += page_up(len ? len : 1);
    assert_true(data_used <= image_size);
    return at;
}

static void put_inode(uint32_t number, uint32_t mode, const void *data, size_t len, uint32_t links)
{
    image->inodes[number] = (struct unid_rootfs_inode){.mode = mode,
                                                       .links = links,
                                                       .size = len,
                                                       .mtime_s = 1600000000,
                                                       .data = put_data(data, len)};
}

static void put_name(uint32_t dir, const char *name, uint32_t inode)
{
    struct unid_rootfs_inode *d = &image->inodes[dir];
    size_t len = strlen(name);
    if (!d->count) {
        d->mode = S_IFDIR | 0755;
        d->links = 2;
        d->dirents = dirents_used;
    }
    d->count++;
    memcpy(image->strings + strings_used, name, len);
    image->dirents[dirents_used++] = (struct unid_rootfs_dirent){
        .name = strings_used,
        .name_len = (uint16_t)len,
        .type = (uint16_t)((image->inodes[inode].mode & S_IFMT) >> 12),
        .inode = inode,
    };
    strings_used += (uint32_t)len;
}

int fake_mount(void)
{
    image = aligned_alloc(PAGE_SIZE, image_size);
    assert_non_null(image);
    memset(image, 0, image_size);
    char big[10000];
    for (size_t n = 0; n < sizeof(big); n++) {
        big[n] = (char)(n % 251);
    }
    put_inode(1, S_IFREG | 0755, "#!tool\n", 7, 1);
    put_inode(2, S_IFLNK | 0777, "tool", 4, 1);
    put_inode(3, S_IFREG | 0644, big, sizeof(big), 1);
    put_inode(4, S_IFREG | 0644, "hard", 4, 2);
    put_inode(5, S_IFREG | 0644, "deep\n", 5, 1);
    put_inode(6, S_IFLNK | 0777, "loop", 4, 1);
    put_inode(7, S_IFLNK | 0777, "data/../bin", 11, 1);
    put_inode(8, S_IFREG | 0644, "", 0, 1);
    for (uint32_t dir = 9; dir <= 11; dir++) {
        image->inodes[dir].mode = S_IFDIR | 0755;
    }
    image->inodes[0].mode = S_IFDIR | 0755;
    put_name(9, "alias", 2); /* /bin */
    put_name(9, "tool", 1);
    put_name(11, "deep", 5); /* /data/sub */
    put_name(10, "big", 3);  /* /data */
    put_name(10, "hard1", 4);
    put_name(10, "hard2", 4);
    put_name(10, "sub", 11);
    put_name(0, "bin", 9);
    put_name(0, "data", 10);
    put_name(0, "loop", 6);
    put_name(0, "tool", 8);
    put_name(0, "up", 7);
    image->head = (struct unid_rootfs){.magic = UNID_ROOTFS_MAGIC,
                                       .version = UNID_ROOTFS_VERSION,
                                       .inode_count = 12,
                                       .size = image_size,
                                       .inodes = offsetof(struct image, inodes),
                                       .dirents = offsetof(struct image, dirents),
                                       .strings = offsetof(struct image, strings),
                                       .dirent_count = dirents_used,
                                       .program = strings_used + 1};
    memcpy(image->strings + strings_used + 1, "/bin/tool", 10);
    return rootfs_mount((uintptr_t)image, image_size);
}

static void close_one(void *arg)
{
    fd_close(*(int *)arg);
}

void fake_reset(void)
{
    /* A file whose end is the machine's is never freed: kept, so that it is no leak. */
    static struct file *volatile ended[64];
    static size_t ended_count;
    for (int fd = 0; fd < fd_count(); fd++) {
        struct file *f = fd_get(fd);
        if (fake_until_done(close_one, &fd)) {
            assert_true(ended_count < ARRAY_SIZE(ended));
            ended[ended_count++] = f;
        }
    }
    memset(&fake, 0, sizeof(fake));
    request_here = false;
    fake.frames_left = 4096;
    fake.now_ns = 1000000000;
    fake.head = "";
    fake.body = "";
    fake.incoming = "";
    woken = false;
    if (dir_root()) {
        cwd_set(dir_root());
    }
}

int fake_group_setup(void **state)
{
    (void)state;
    fake_reset();
    fake.interface = UNID_INTERFACE_FILTER;
    assert_int_equal(fake_mount(), 0);
    files_init();
    return 0;
}
