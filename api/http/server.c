/* server.c - listeners, and the set of connections; see server.h. */
#include "api/http/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "api/http/internal.h"
#include "common/clock.h"
#include "common/fault.h"

enum {
    LISTEN_BACKLOG = 1024,
    ACCEPT_PAUSE_US = 100000, /* after accept(2) has failed for want of descriptors or memory */
    ROOM_TRIES = 32           /* connections looked at, at most, to find one that can go */
};

static void on_accept_timer(void *arg);

void http_limits_init(struct http_limits *l)
{
    *l = (struct http_limits){
        .head_bytes = LIMIT_HTTP_HEAD_BYTES,
        .target_bytes = LIMIT_HTTP_TARGET_BYTES,
        .fields = LIMIT_HTTP_FIELDS,
        .buffer_bytes = LIMIT_HTTP_BUFFER_BYTES,
        .connections = LIMIT_HTTP_CONNECTIONS,
        .idle_us = LIMIT_HTTP_IDLE_MS * 1000ull,
        .head_us = LIMIT_HTTP_HEAD_MS * 1000ull,
        .stall_us = LIMIT_HTTP_STALL_MS * 1000ull,
    };
}

int http_server_open(const struct http_server_spec *spec, struct http_server **ret,
                     struct un_error *err)
{
    struct http_server *s = calloc(1, sizeof(*s));
    if (!s) {
        return un_error_set(err, -ENOMEM, "no memory for the HTTP server");
    }
    s->loop = spec->loop;
    s->limits = spec->limits;
    if (s->limits.fields > LIMIT_HTTP_FIELDS) {
        s->limits.fields = LIMIT_HTTP_FIELDS;
    }
    s->on_head = spec->on_head;
    s->arg = spec->arg;
    un_list_init(&s->conns);
    un_list_init(&s->idle);
    un_list_init(&s->fresh);
    un_list_init(&s->listeners);
    un_timer_init(&s->accept_timer, s->loop, on_accept_timer, s);
    *ret = s;
    return 0;
}

/* --- accepting -------------------------------------------------------------------------------- */

static void set_accepting(struct http_server *s, bool on)
{
    s->accept_paused = !on;
    un_list_for_each (it, &s->listeners) {
        struct http_listener *l = un_list_entry(it, struct http_listener, node);
        if (on) {
            evconnlistener_enable(l->lev);
        } else {
            evconnlistener_disable(l->lev);
        }
    }
}

static void on_accept_timer(void *arg)
{
    set_accepting(arg, true);
}

bool server_has_place(const struct http_server *s)
{
    return s->places < s->limits.connections;
}

/* The oldest of a list without a request on its way; NULL: none, or none soon. */
static struct http_conn *oldest_silent(const struct un_list *list)
{
    unsigned tries = 0;
    un_list_for_each (it, list) {
        struct http_conn *c = un_list_entry(it, struct http_conn, idle);
        if (!conn_has_unread(c)) {
            return c;
        }
        if (++tries == ROOM_TRIES) {
            break;
        }
    }
    return NULL;
}

/* Whoever is only keeping a connection warm makes room. */
static bool make_room(struct http_server *s)
{
    struct http_conn *c = server_has_place(s) ? NULL : oldest_silent(&s->idle);
    if (c) {
        conn_retire(c);
    }
    return server_has_place(s);
}

bool server_admit(struct http_server *s)
{
    struct http_conn *c = make_room(s) ? NULL : oldest_silent(&s->fresh);
    if (c) {
        conn_place(c, false); /* it may still speak, and is then in the same position */
    }
    return server_has_place(s);
}

static void take_connection(struct http_listener *l, int fd)
{
    struct http_server *s = l->server;
    if (!l->path) {
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    }
    const struct conn_spec spec = {
        .fd = fd, .is_unix = l->path != NULL, .has_place = make_room(s), .pin = l->pin};
    conn_open(s, &spec, NULL);
    if (s->conn_count >= s->limits.connections + LIMIT_HTTP_REFUSING) {
        set_accepting(s, false); /* the others wait in the kernel's queue */
    }
}

static void on_accept(struct evconnlistener *lev, evutil_socket_t fd, struct sockaddr *addr,
                      int len, void *arg)
{
    (void)lev;
    (void)addr;
    (void)len;
    take_connection(arg, fd);
}

static void on_accept_error(struct evconnlistener *lev, void *arg)
{
    struct http_listener *l = arg;
    (void)lev;
    set_accepting(l->server, false);
    if (un_timer_arm_in(&l->server->accept_timer, ACCEPT_PAUSE_US) < 0) {
        set_accepting(l->server, true);
    }
}

void server_conn_closed(struct http_server *s)
{
    s->conn_count--;
    if (s->accept_paused && !un_timer_armed(&s->accept_timer)) {
        set_accepting(s, true);
    }
}

static void listener_free(struct http_listener *l)
{
    if (l) {
        free(l->path);
        free(l->pin);
        free(l);
    }
}

static int listen_on(struct http_server *s, int fd, const char *path, const struct http_pin *pin,
                     struct http_listener **ret, struct un_error *err)
{
    struct http_listener *l = calloc(1, sizeof(*l));
    bool ready = l && (!path || (l->path = strdup(path))) && pin_copy(pin, &l->pin);
    if (ready) {
        l->server = s;
        l->lev =
            evconnlistener_new(un_loop_base(s->loop), on_accept, l,
                               LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, LISTEN_BACKLOG, fd);
    }
    if (!ready || !l->lev) {
        int code = ready ? -errno : -ENOMEM;
        listener_free(l);
        close(fd);
        return un_error_errno(err, code ? code : -EIO, "listen");
    }
    evconnlistener_set_error_cb(l->lev, on_accept_error);
    if (s->accept_paused) {
        evconnlistener_disable(l->lev);
    }
    un_list_push(&s->listeners, &l->node);
    if (ret) {
        *ret = l;
    }
    return 0;
}

int http_server_listen_fd(struct http_server *s, int fd, const struct http_pin *pin,
                          struct http_listener **ret, struct un_error *err)
{
    return listen_on(s, fd, NULL, pin, ret, err);
}

void http_listener_close(struct http_listener *l)
{
    un_list_remove(&l->node);
    evconnlistener_free(l->lev);
    listener_free(l);
}

/* A whole number up to 65535, nothing else. */
static bool parse_port(const char *text, uint16_t *ret)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || n > UINT16_MAX) {
        return false;
    }
    *ret = htons((uint16_t)n);
    return true;
}

/* Numeric addresses only: a name would have to be resolved, which blocks. "localhost" is 127.0.0.1.
 */
static int parse_address(const char *text, struct sockaddr_storage *ret, socklen_t *ret_len)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;
    const char *colon = strrchr(text, ':');
    char host[INET6_ADDRSTRLEN + 2];
    size_t len = colon ? (size_t)(colon - text) : sizeof(host);
    memset(ret, 0, sizeof(*ret));
    if (len >= sizeof(host)) {
        return -EINVAL;
    }
    memcpy(host, text, len);
    host[len] = '\0';
    if (host[0] == '[' && host[len - 1] == ']') {
        host[len - 1] = '\0';
        v6->sin6_family = AF_INET6;
        *ret_len = sizeof(*v6);
        return inet_pton(AF_INET6, host + 1, &v6->sin6_addr) == 1 &&
                       parse_port(colon + 1, &v6->sin6_port)
                   ? 0
                   : -EINVAL;
    }
    v4->sin_family = AF_INET;
    *ret_len = sizeof(*v4);
    const char *numeric = strcmp(host, "localhost") == 0 ? "127.0.0.1" : host;
    return inet_pton(AF_INET, numeric, &v4->sin_addr) == 1 && parse_port(colon + 1, &v4->sin_port)
               ? 0
               : -EINVAL;
}

int http_socket_listen(const char *address, int *ret_fd, uint16_t *ret_port, struct un_error *err)
{
    struct sockaddr_storage addr;
    socklen_t len;
    if (parse_address(address, &addr, &len) < 0) {
        return un_error_set(err, -EINVAL, "%.100s: not a numeric address:port", address);
    }
    int one = 1;
    int fd = socket(addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
        bind(fd, (struct sockaddr *)&addr, len) < 0 || listen(fd, LISTEN_BACKLOG) < 0) {
        int code = -errno;
        if (fd >= 0) {
            close(fd);
        }
        return un_error_errno(err, code, "listen on %.100s", address);
    }
    len = sizeof(addr);
    getsockname(fd, (struct sockaddr *)&addr, &len);
    if (ret_port) {
        *ret_port = addr.ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *)&addr)->sin6_port)
                                               : ntohs(((struct sockaddr_in *)&addr)->sin_port);
    }
    *ret_fd = fd;
    return 0;
}

int http_server_listen_tcp(struct http_server *s, const char *address, uint16_t *ret_port,
                           struct un_error *err)
{
    int fd;
    int rc = http_socket_listen(address, &fd, ret_port, err);
    return rc < 0 ? rc : listen_on(s, fd, NULL, NULL, NULL, err);
}

/* Removes a socket file that no process listens on. */
static int clear_socket_file(const struct sockaddr_un *addr, struct un_error *err)
{
    struct stat st;
    if (lstat(addr->sun_path, &st) < 0) {
        return 0;
    }
    if (!S_ISSOCK(st.st_mode)) {
        return un_error_set(err, -EEXIST, "%s exists and is not a socket", addr->sun_path);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return un_error_errno(err, -errno, "socket");
    }
    bool alive = connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0 || errno == EAGAIN;
    close(fd);
    if (alive) {
        return un_error_set(err, -EADDRINUSE, "another process listens on %s", addr->sun_path);
    }
    unlink(addr->sun_path);
    return 0;
}

int http_server_listen_unix(struct http_server *s, const char *path, unsigned mode,
                            struct un_error *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(addr.sun_path)) {
        return un_error_set(err, -ENAMETOOLONG, "socket path: at most %zu bytes",
                            sizeof(addr.sun_path) - 1);
    }
    memcpy(addr.sun_path, path, strlen(path));
    int rc = clear_socket_file(&addr, err);
    if (rc < 0) {
        return rc;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    /* bind(2) makes the file with the descriptor's mode: it is never open to more than `mode` says.
     */
    if (fd < 0 || fchmod(fd, mode) < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
        chmod(path, mode) < 0) {
        int code = -errno;
        if (fd >= 0) {
            close(fd);
        }
        return un_error_errno(err, code, "listen on %s", path);
    }
    return listen_on(s, fd, path, NULL, NULL, err);
}

int http_server_adopt(struct http_server *s, int fd, const struct http_pin *pin,
                      struct un_error *err)
{
    const struct conn_spec spec = {.fd = fd, .is_unix = true, .has_place = true, .pin = pin};
    return conn_open(s, &spec, err);
}

/* --- ending ----------------------------------------------------------------------------------- */

void http_server_stop_accepting(struct http_server *s)
{
    un_timer_cancel(&s->accept_timer);
    un_list_for_each_safe (it, &s->listeners) {
        struct http_listener *l = un_list_entry(it, struct http_listener, node);
        if (l->path) {
            unlink(l->path);
        }
        http_listener_close(l);
    }
    s->accept_paused = false;
}

/* Who has connected before is there before what follows looks at the connections. */
static void accept_waiting(struct http_listener *l)
{
    int fd = 0;
    while (fd >= 0 && !l->server->accept_paused) {
        fd = accept4(evconnlistener_get_fd(l->lev), NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            take_connection(l, fd);
        }
    }
}

void http_server_drain(struct http_server *s)
{
    un_list_for_each (it, &s->listeners) {
        accept_waiting(un_list_entry(it, struct http_listener, node));
    }
    s->draining = true;
    un_list_for_each_safe (it, &s->idle) {
        conn_drain(un_list_entry(it, struct http_conn, idle));
    }
    un_list_for_each_safe (it, &s->fresh) {
        conn_drain(un_list_entry(it, struct http_conn, idle));
    }
}

uint64_t http_server_refused(const struct http_server *s)
{
    return s->refused;
}

unsigned http_server_connections(const struct http_server *s)
{
    return s->conn_count;
}

void http_server_close(struct http_server *s)
{
    if (!s) {
        return;
    }
    http_server_stop_accepting(s);
    s->draining = true;
    while (!un_list_empty(&s->conns)) {
        struct http_conn *c = un_list_first(&s->conns, struct http_conn, node);
        conn_flush(c);
        conn_close(c);
    }
    free(s);
}

const char *server_date(struct http_server *s)
{
    uint64_t now_s = un_clock_wall_us() / 1000000;
    if (now_s != s->date_s) {
        time_t t = (time_t)now_s;
        struct tm tm;
        gmtime_r(&t, &tm);
        /* IMF-fixdate, RFC 9110 section 5.6.7; the daemon runs in the C locale. */
        strftime(s->date, sizeof(s->date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
        s->date_s = now_s;
    }
    return s->date;
}
