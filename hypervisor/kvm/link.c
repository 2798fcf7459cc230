/* link.c - see link.h. */
#include "hypervisor/kvm/link.h"

#include <errno.h>
#include <event2/event.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "hypervisor/kvm/channel_memory.h"
#include "hypervisor/kvm/driver.h"

enum { KEPT_US = 10000000 };

static void link_free(struct kvm_link *link)
{
    if (link->watched) {
        event_del(&link->event);
    }
    if (link->base) {
        munmap(link->base, VMM_CHANNEL_SIZE);
    }
    un_closep(&link->sock);
    un_closep(&link->peer);
    un_closep(&link->channel_fd);
    free(link);
}

static void on_packet(evutil_socket_t fd, short what, void *arg)
{
    const struct kvm_link *link = arg;
    if (link->vm) {
        kvm_vm_on_packet(link->vm);
    }
}

static int link_new(struct kvm_driver *d, struct kvm_link **ret, struct un_error *err)
{
    int pair[2];
    struct kvm_link *link = calloc(1, sizeof(*link));
    if (!link) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    un_list_init(&link->node);
    link->sock = link->peer = -1;
    link->channel_fd = channel_memory_new();
    if (link->channel_fd < 0) {
        int rc = un_error_errno(err, link->channel_fd, "memory of a guest's channel");
        link_free(link);
        return rc;
    }
    void *p = mmap(NULL, VMM_CHANNEL_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, link->channel_fd, 0);
    if (p == MAP_FAILED) {
        int rc = un_error_errno(err, -errno, "map a guest's channel");
        link_free(link);
        return rc;
    }
    link->base = p;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        int rc = un_error_errno(err, -errno, "socket for a monitor");
        link_free(link);
        return rc;
    }
    link->sock = pair[0];
    link->peer = pair[1];
    event_assign(&link->event, un_loop_base(d->loop), link->sock, EV_READ | EV_PERSIST, on_packet,
                 link);
    event_add(&link->event, NULL);
    link->watched = true;
    *ret = link;
    return 0;
}

int kvm_link_take(struct kvm_driver *d, struct kvm_vm *vm, struct kvm_link **ret,
                  struct un_error *err)
{
    struct kvm_link *link = un_list_first(&d->links, struct kvm_link, node);
    if (link) {
        un_list_remove(&link->node);
    } else {
        int rc = link_new(d, &link, err);
        if (rc < 0) {
            return rc;
        }
    }
    link->vm = vm;
    *ret = link;
    return 0;
}

/* Nothing lies in the socket. */
static bool is_empty(const struct kvm_link *link)
{
    struct pollfd ends[] = {{.fd = link->sock, .events = POLLIN},
                            {.fd = link->peer, .events = POLLIN}};
    return poll(ends, UN_ARRAY_SIZE(ends), 0) == 0;
}

static bool is_small(const struct kvm_link *link)
{
    struct stat st;
    return fstat(link->channel_fd, &st) == 0 && st.st_blocks * 512 <= CHANNEL_WIPE_MAX;
}

void kvm_link_put(struct kvm_driver *d, struct kvm_link *link, bool small)
{
    if (!link) {
        return;
    }
    link->vm = NULL;
    if (!is_empty(link) || !(small || is_small(link))) {
        link_free(link);
        return;
    }
    link->put_us = un_loop_now_us(d->loop);
    un_list_push_front(&d->links, &link->node); /* what was used last is in the CPU's caches */
    if (!un_timer_armed(&d->link_timer)) {
        (void)un_timer_arm_at(&d->link_timer, link->put_us + KEPT_US); /* else the next one's */
    }
}

bool kvm_link_unread(const struct kvm_link *link)
{
    return poll(&(struct pollfd){.fd = link->peer, .events = POLLIN}, 1, 0) == 1;
}

/* The longest unused are at the end of the list. */
static void on_timer(void *arg)
{
    struct kvm_driver *d = arg;
    uint64_t now = un_loop_now_us(d->loop);
    while (!un_list_empty(&d->links)) {
        struct kvm_link *last = un_list_entry(d->links.prev, struct kvm_link, node);
        if (last->put_us + KEPT_US > now) {
            (void)un_timer_arm_at(&d->link_timer, last->put_us + KEPT_US);
            return;
        }
        un_list_remove(&last->node);
        link_free(last);
    }
}

void kvm_links_init(struct kvm_driver *d)
{
    un_list_init(&d->links);
    un_timer_init(&d->link_timer, d->loop, on_timer, d);
}

void kvm_links_free(struct kvm_driver *d)
{
    un_timer_cancel(&d->link_timer);
    un_list_for_each_safe (it, &d->links) {
        struct kvm_link *link = un_list_entry(it, struct kvm_link, node);
        un_list_remove(&link->node);
        link_free(link);
    }
}
