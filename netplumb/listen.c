/* listen.c - see listen.h. */
#include "netplumb/listen.h"

#include <errno.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "netplumb/namespace.h"

/* There is room for what one machine may open in a second (rules.c), and so for others' meanwhile. */
enum { BACKLOG = 1024, ACCEPTS_A_TURN = 32, REST_US = 100000 };

struct net_listener {
    struct net_listener_user user;
    struct net_port *port;
    int fd;
    struct event *event;
    struct un_timer rest; /* no descriptor was left: again after a while */
};

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct net_listener *l = arg;
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        struct sockaddr_in from = {.sin_family = AF_UNSPEC};
        socklen_t len = sizeof(from);
        int conn = accept4(fd, (struct sockaddr *)&from, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (conn < 0 &&
            (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)) {
            un_log(UN_LOG_WARN, "connections of machines wait: no descriptor or memory is left");
            if (un_timer_arm_in(&l->rest, REST_US) == 0) {
                event_del(l->event);
            }
            return;
        }
        if (conn < 0) {
            return; /* none waits, or it went away while it did */
        }
        l->user.cb(l->user.arg, l->port, ntohl(from.sin_addr.s_addr), conn);
    }
}

static void on_rested(void *arg)
{
    struct net_listener *l = arg;
    if (event_add(l->event, NULL) < 0) {
        (void)un_timer_arm_in(&l->rest, REST_US);
    }
}

/* IP_FREEBIND (ip(7)): the bridge comes with the first guest, and may go meanwhile. */
static int open_socket(struct net_namespace *ns, uint32_t addr, uint16_t *ret_port, int *ret_fd)
{
    int one = 1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(addr)};
    socklen_t len = sizeof(at);
    un_autoclose int fd = net_namespace_socket(ns);
    if (fd < 0) {
        return fd;
    }
    if (setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &one, sizeof(one)) < 0 ||
        bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(fd, BACKLOG) < 0 ||
        getsockname(fd, (struct sockaddr *)&at, &len) < 0) {
        return -errno;
    }
    *ret_port = ntohs(at.sin_port);
    *ret_fd = un_steal_fd(&fd);
    return 0;
}

int net_listener_open(const struct net_listener_user *user, struct net_port *port,
                      struct un_error *err)
{
    char ip[NET_IP_SIZE];
    struct net_listener *l = calloc(1, sizeof(*l));
    if (!l) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    *l = (struct net_listener){.user = *user, .port = port, .fd = -1};
    un_timer_init(&l->rest, user->loop, on_rested, l);
    port->listener = l;
    int rc = open_socket(user->ns, port->host->addr, &port->listen, &l->fd);
    if (rc < 0) {
        net_listener_close(port);
        return un_error_errno(err, rc, "listen at %s for %s", net_addr_text(port->host->addr, ip),
                              port->host->host);
    }
    l->event = event_new(un_loop_base(user->loop), l->fd, EV_READ | EV_PERSIST, on_readable, l);
    if (!l->event || event_add(l->event, NULL) < 0) {
        net_listener_close(port);
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    return 0;
}

void net_listener_close(struct net_port *port)
{
    struct net_listener *l = un_steal(&port->listener);
    if (!l) {
        return;
    }
    un_timer_cancel(&l->rest);
    if (l->event) {
        event_free(l->event);
    }
    if (l->fd >= 0) {
        close(l->fd);
    }
    free(l);
}
