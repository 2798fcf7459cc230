/* test_libos_net.c - sockets inside the guest, the request's connection, egress, DNS. */
#include "libos_fake.h"

#include <asm/ioctls.h>
#include <asm/signal.h>
#include <linux/eventpoll.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/uio.h>
#include <string.h>

#include "net/socket.h"

struct sockaddr_un {
    uint16_t family;
    char path[108];
};

static int server, client, accepted;
static struct file *volatile kept[2]; /* by machines that ended as they were closed */

static int setup(void **state)
{
    (void)state;
    fake_reset();
    request_forget();
    net_set_port(0);
    fake.interface = UNID_INTERFACE_HTTP;
    return 0;
}

static uint16_t net16(uint16_t v)
{
    return (uint16_t)(v << 8 | v >> 8);
}

static struct sockaddr_in at(uint8_t a, uint8_t b, uint8_t c, uint8_t d, uint16_t port)
{
    const uint8_t ip[4] = {a, b, c, d};
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = net16(port)};
    memcpy(&in.sin_addr, ip, 4);
    return in;
}

static int listen_on(uint16_t port, int flags)
{
    struct sockaddr_in any = at(0, 0, 0, 0, port);
    int fd = (int)sys_socket(AF_INET, SOCK_STREAM | flags, 0);
    assert_true(fd >= 0);
    assert_int_equal(sys_bind(fd, &any, sizeof(any)), 0);
    assert_int_equal(sys_listen(fd, 16), 0);
    return fd;
}

static int64_t connect_to(int fd, uint8_t a, uint8_t b, uint8_t c, uint8_t d, uint16_t port)
{
    struct sockaddr_in to = at(a, b, c, d, port);
    return sys_connect(fd, &to, sizeof(to));
}

static int accept_request(int fd)
{
    int got = (int)sys_accept(fd, NULL, NULL);
    assert_true(got >= 0);
    return got;
}

static void the_request_comes_to_who_waits(void **state)
{
    (void)state;
    char buf[256];
    struct sockaddr_in peer;
    uint32_t len = sizeof(peer);
    fake.head = "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n";
    fake.body = "12345";
    fake.content_length = 5;
    server = listen_on(8080, 0);
    assert_int_equal(fake.next_calls, 0); /* the snapshot is taken when nothing else can run */
    accepted = (int)sys_accept4(server, &peer, &len, SOCK_NONBLOCK);
    assert_true(accepted >= 0);
    assert_int_equal(fake.next_calls, 1);
    assert_int_equal(request_waiters, 0);
    assert_int_equal(len, sizeof(peer));
    assert_memory_equal(&peer.sin_addr, "\x7f\0\0\1", 4);
    assert_int_equal(sys_getsockname(accepted, &peer, &len), 0);
    assert_int_equal(net16(peer.sin_port), 8080);
    assert_int_equal(sys_recvfrom(accepted, buf, 4, MSG_PEEK, NULL, NULL), 4);
    int64_t n = sys_read(accepted, buf, sizeof(buf));
    assert_int_equal(n, strlen(fake.head)); /* the body has to be asked for */
    assert_memory_equal(buf, fake.head, (size_t)n);
    struct pollfd p = {accepted, POLLIN | POLLOUT, 0};
    assert_int_equal(sys_poll(&p, 1, 0), 1);
    assert_int_equal(p.revents, POLLIN | POLLOUT);
    assert_int_equal(sys_recvfrom(accepted, buf, 2, MSG_PEEK, NULL, NULL), 2);
    assert_memory_equal(buf, "12", 2);
    assert_int_equal(sys_read(accepted, buf, 3), 3);
    assert_int_equal(sys_read(accepted, buf + 3, 10), 2);
    assert_memory_equal(buf, "12345", 5);
    assert_int_equal(sys_read(accepted, buf, 10), -EAGAIN); /* the client waits for its answer */
    assert_int_equal(sys_poll(&p, 1, 0), 1);
    assert_int_equal(p.revents, POLLOUT);
    assert_int_equal(sys_write(accepted, "HTTP/1.1 200 OK\r\n", 17), 17);
    assert_memory_equal(fake.response, "HTTP/1.1 200 OK\r\n", 17);
    assert_int_equal(sys_fcntl(server, F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(sys_accept(server, NULL, NULL), -EAGAIN); /* there is one only */
    assert_false(listener_wants_request(socket_of_file(fd_get(server))));
}

static void close_fd(void *arg)
{
    sys_close(*(int *)arg);
}

static void shut_fd(void *arg)
{
    sys_shutdown(*(int *)arg, SHUT_WR);
}

static void the_connections_end_is_the_machines(void **state)
{
    (void)state;
    fake.head = "GET / HTTP/1.1\r\n\r\n";
    server = listen_on(80, 0);
    accepted = accept_request(server);
    int twin = (int)sys_dup(accepted);
    assert_false(fake_until_done(close_fd, &twin)); /* not the last */
    fake.done_status = 1;
    kept[1] = fd_get(accepted);
    assert_true(fake_until_done(shut_fd, &accepted));
    assert_int_equal(fake.done_status, 0);
}

static void the_last_close_ends_the_machine(void **state)
{
    (void)state;
    fake.head = "GET / HTTP/1.1\r\n\r\n";
    server = listen_on(80, 0);
    accepted = accept_request(server);
    assert_int_equal(sys_close(server), 0);
    kept[0] = fd_get(accepted);
    assert_true(fake_until_done(close_fd, &accepted));
}

static void bodies_of_unknown_length_come_in_chunks(void **state)
{
    (void)state;
    char buf[512];
    size_t len = 0;
    int64_t n;
    fake.head = "POST / HTTP/1.1\r\nHost: h\r\ntransfer-Encoding:  Chunked\r\n\r\n";
    fake.body = "The quick brown fox jumps over the lazy dog, and then over the next one as well.";
    fake.content_length = -1;
    server = listen_on(80, 0);
    accepted = accept_request(server);
    assert_int_equal(sys_fcntl(accepted, F_SETFL, O_NONBLOCK), 0);
    for (size_t piece = 1; (n = sys_read(accepted, buf + len, piece)) > 0; piece += 7) {
        len += (size_t)n;
    }
    assert_int_equal(n, -EAGAIN);
    const char *p = buf + strlen(fake.head), *end = buf + len;
    char body[256];
    size_t body_len = 0, chunk;
    do { /* RFC 9112, 7.1 */
        chunk = 0;
        while (*p != '\r') {
            chunk = chunk * 16 + (size_t)(*p <= '9' ? *p - '0' : *p - 'a' + 10);
            p++;
        }
        assert_memory_equal(p, "\r\n", 2);
        memcpy(body + body_len, p + 2, chunk);
        body_len += chunk;
        p += 2 + chunk;
        assert_memory_equal(p, "\r\n", 2);
        p += 2;
    } while (chunk);
    assert_ptr_equal(p, end);
    assert_int_equal(body_len, strlen(fake.body));
    assert_memory_equal(body, fake.body, body_len);
}

static void the_request_goes_to_the_port_that_was_given(void **state)
{
    (void)state;
    fake.head = "GET / HTTP/1.1\r\n\r\n";
    net_set_port(9000);
    int other = listen_on(8443, SOCK_NONBLOCK);
    server = listen_on(9000, SOCK_NONBLOCK);
    struct pollfd p[2] = {{other, POLLIN, 0}, {server, POLLIN, 0}};
    assert_int_equal(sys_poll(p, 1, 100), 0); /* that one alone never gets it */
    assert_int_equal(fake.next_calls, 0);
    assert_int_equal(sys_poll(p, 2, -1), 1);
    assert_int_equal(fake.next_calls, 1);
    assert_int_equal(p[1].revents, POLLIN);
    assert_int_equal(sys_accept(other, NULL, NULL), -EAGAIN);
    accept_request(server);
}

static void a_set_that_waits_for_the_listener_waits_for_the_request(void **state)
{
    (void)state;
    struct epoll_event e = {.events = EPOLLIN, .data = 5}, got[2];
    fake.head = "GET / HTTP/1.1\r\n\r\n";
    server = listen_on(80, SOCK_NONBLOCK);
    int set = (int)sys_epoll_create1(0);
    assert_int_equal(sys_epoll_ctl(set, EPOLL_CTL_ADD, server, &e), 0);
    assert_int_equal(sys_epoll_wait(set, got, 2, 0), 0);
    assert_int_equal(fake.next_calls, 0);
    assert_int_equal(sys_epoll_wait(set, got, 2, 500), 1);
    assert_int_equal(fake.next_calls, 1);
    assert_int_equal(got[0].data, 5);
    accept_request(server);
    assert_int_equal(sys_epoll_wait(set, got, 2, 10), 0);
}

static void pairs_are_two_pipes(void **state)
{
    (void)state;
    int fds[2], n;
    char buf[32];
    assert_int_equal(sys_socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    assert_int_equal(sys_write(fds[0], "ping", 4), 4);
    assert_int_equal(sys_ioctl(fds[1], FIONREAD, (uintptr_t)&n), 0);
    assert_int_equal(n, 4);
    assert_int_equal(sys_recvfrom(fds[1], buf, 32, MSG_PEEK, NULL, NULL), 4);
    assert_int_equal(sys_read(fds[1], buf, 32), 4);
    assert_int_equal(sys_read(fds[1], buf, 32), -EAGAIN);
    struct iovec parts[2] = {{(void *)(uintptr_t) "po", 2}, {(void *)(uintptr_t) "ng", 2}};
    struct user_msghdr m = {.iov = parts, .iov_len = 2};
    assert_int_equal(sys_sendmsg(fds[1], &m, 0), 4);
    struct iovec into[2] = {{buf, 1}, {buf + 1, 30}};
    struct user_msghdr in = {.iov = into, .iov_len = 2};
    assert_int_equal(sys_recvmsg(fds[0], &in, 0), 4);
    assert_memory_equal(buf, "pong", 4);
    assert_int_equal(sys_shutdown(fds[0], SHUT_WR), 0);
    assert_int_equal(sys_read(fds[1], buf, 32), 0);
    assert_int_equal(sys_write(fds[0], "x", 1), -EPIPE);
    assert_int_equal(fake.signal, SIGPIPE);
    assert_int_equal(sys_write(fds[1], "back", 4), 4);
    assert_int_equal(sys_close(fds[1]), 0);
    struct pollfd p = {fds[0], POLLIN, 0};
    assert_int_equal(sys_poll(&p, 1, 0), 1);
    assert_int_equal(p.revents, POLLIN | POLLHUP);
    assert_int_equal(sys_read(fds[0], buf, 32), 4);
    assert_int_equal(sys_read(fds[0], buf, 32), 0);
    fake.signal = 0;
    assert_int_equal(sys_sendto(fds[0], "x", 1, MSG_NOSIGNAL, NULL, 0), -EPIPE);
    assert_int_equal(fake.signal, 0);
    assert_int_equal(sys_sendto(fds[0], "x", 1, MSG_OOB, NULL, 0), -EOPNOTSUPP);
    assert_int_equal(sys_socketpair(AF_INET, SOCK_STREAM, 0, fds), -EOPNOTSUPP);
}

static void a_server_can_connect_to_itself(void **state)
{
    (void)state;
    char buf[8];
    struct sockaddr_in name;
    uint32_t len = sizeof(name);
    fake.interface = UNID_INTERFACE_FILTER;
    fake.open_result = -EACCES;
    server = listen_on(0, 0);
    assert_int_equal(sys_getsockname(server, &name, &len), 0);
    uint16_t port = net16(name.sin_port);
    assert_in_range(port, EPHEMERAL_MIN, EPHEMERAL_MAX);
    client = (int)sys_socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect_to(client, 127, 0, 0, 1, port), 0);
    assert_int_equal(connect_to(client, 127, 0, 0, 1, port), -EISCONN);
    accepted = (int)sys_accept(server, &name, &len);
    assert_true(accepted >= 0);
    assert_int_equal(sys_write(client, "hi", 2), 2);
    assert_int_equal(sys_read(accepted, buf, 8), 2);
    assert_int_equal(sys_getpeername(client, &name, &len), 0);
    assert_int_equal(net16(name.sin_port), port);
    struct sockaddr_in again = at(0, 0, 0, 0, port);
    int second = (int)sys_socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(sys_bind(second, &again, sizeof(again)), -EADDRINUSE);
    assert_int_equal(connect_to(second, 127, 0, 0, 1, 1), -ECONNREFUSED);
    assert_string_equal(fake.opened, "127.0.0.1:1"); /* the host was asked, and does not allow it */
    struct sockaddr_in far = at(8, 8, 8, 8, 80);
    assert_int_equal(sys_bind(second, &far, sizeof(far)), -EADDRNOTAVAIL);
    assert_int_equal(sys_socket(16, SOCK_STREAM, 0), -EAFNOSUPPORT);
    assert_int_equal(sys_socket(AF_INET, 3, 0), -EPERM);
}

static void unix_sockets_have_names(void **state)
{
    (void)state;
    char buf[8];
    struct sockaddr_un path = {AF_UNIX, "/tmp/sock"}, abstract = {AF_UNIX, "\0name"};
    server = (int)sys_socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(sys_bind(server, &path, sizeof(path)), 0);
    assert_int_equal(sys_listen(server, 4), 0);
    struct stat st;
    assert_int_equal(sys_stat("/tmp/sock", &st), 0);
    assert_int_equal(st.st_mode & S_IFMT, S_IFSOCK);
    client = (int)sys_socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(sys_connect(client, &path, sizeof(path)), 0);
    accepted = (int)sys_accept(server, NULL, NULL);
    assert_int_equal(sys_write(accepted, "u", 1), 1);
    assert_int_equal(sys_read(client, buf, 8), 1);
    int again = (int)sys_socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(sys_bind(again, &path, sizeof(path)), -EADDRINUSE);
    assert_int_equal(sys_unlink("/tmp/sock"), 0);
    assert_int_equal(sys_connect(again, &path, sizeof(path)), -ENOENT);
    int a = (int)sys_socket(AF_UNIX, SOCK_DGRAM, 0), b = (int)sys_socket(AF_UNIX, SOCK_DGRAM, 0);
    assert_int_equal(sys_bind(a, &abstract, 7), 0);
    assert_int_equal(sys_sendto(b, "d", 1, 0, &abstract, 7), 1);
    assert_int_equal(sys_recvfrom(a, buf, 8, 0, NULL, NULL), 1);
    assert_int_equal(sys_connect(again, &abstract, 7), -EPROTOTYPE);
    assert_int_equal(sys_sendto(b, "d", 1, 0, NULL, 0), -ENOTCONN);
}

static void options_are_remembered(void **state)
{
    (void)state;
    int one = 1, v = 0;
    uint32_t len = sizeof(v);
    server = listen_on(80, 0);
    assert_int_equal(sys_setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, 4), 0);
    assert_int_equal(sys_getsockopt(server, SOL_SOCKET, SO_REUSEADDR, &v, &len), 0);
    assert_int_equal(v, 1);
    assert_int_equal(sys_setsockopt(server, PROTO_TCP, 1, &one, 4), 0);
    assert_int_equal(sys_getsockopt(server, PROTO_TCP, 1, &v, &len), 0);
    assert_int_equal(v, 1);
    assert_int_equal(sys_getsockopt(server, SOL_SOCKET, SO_ACCEPTCONN, &v, &len), 0);
    assert_int_equal(v, 1);
    assert_int_equal(sys_getsockopt(server, SOL_SOCKET, SO_TYPE, &v, &len), 0);
    assert_int_equal(v, SOCK_STREAM);
    assert_int_equal(sys_getsockopt(server, SOL_SOCKET, SO_ERROR, &v, &len), 0);
    assert_int_equal(v, 0);
    assert_int_equal(sys_setsockopt(server, SOL_SOCKET, 999, &one, 4), -ENOPROTOOPT);
    assert_int_equal(sys_setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, 2), -EINVAL);
    assert_int_equal(sys_setsockopt(server, SOL_SOCKET, SO_REUSEADDR, NULL, 4), -EFAULT);
    assert_int_equal(sys_getsockopt(0, SOL_SOCKET, SO_TYPE, &v, &len), 0);
    assert_int_equal(sys_getsockopt((int)sys_eventfd(0), SOL_SOCKET, SO_TYPE, &v, &len), -ENOTSOCK);
}

static void connection_is_made(void)
{
    fake.on_block = NULL;
    fake.net_error = 0;
    fake.writable = 1ull << 3;
}

static void connection_is_refused(void)
{
    fake.on_block = NULL;
    fake.net_error = -ECONNREFUSED;
    fake.writable = fake.readable = 1ull << 3;
}

static void bytes_arrive(void)
{
    fake.on_block = NULL;
    fake.incoming = "some bytes";
    fake.readable = 1ull << 3;
}

static void the_host_connects_to_the_outside(void **state)
{
    (void)state;
    char buf[32];
    fake.open_result = 3;
    fake.net_error = -EAGAIN;
    fake.on_block = connection_is_made;
    client = (int)sys_socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect_to(client, 192, 0, 2, 1, 443), 0);
    assert_string_equal(fake.opened, "192.0.2.1:443");
    assert_int_equal(sys_write(client, "out", 3), 3);
    assert_memory_equal(fake.outgoing, "out", 3);
    fake.on_block = bytes_arrive;
    assert_int_equal(sys_recvfrom(client, buf, 4, MSG_PEEK, NULL, NULL), 4);
    assert_int_equal(sys_read(client, buf, 5), 5);
    assert_memory_equal(buf, "some ", 5);
    assert_int_equal(sys_recvfrom(client, buf, 32, MSG_PEEK, NULL, NULL), 5);
    struct pollfd p = {client, POLLIN | POLLOUT, 0};
    fake.readable = 0; /* what was read ahead is readable still */
    assert_int_equal(sys_poll(&p, 1, 0), 1);
    assert_int_equal(p.revents, POLLIN | POLLOUT);
    assert_int_equal(sys_read(client, buf, 32), 5);
    assert_memory_equal(buf, "bytes", 5);
    fake.incoming_ended = true;
    fake.readable = 1ull << 3;
    assert_int_equal(sys_read(client, buf, 32), 0);
    assert_int_equal(sys_shutdown(client, SHUT_WR), 0);
    assert_true(fake.shut);
    assert_int_equal(sys_write(client, "x", 1), -EPIPE);
    assert_int_equal(sys_close(client), 0);
    assert_true(fake.closed);
}

static void refusals_are_told(void **state)
{
    (void)state;
    int v;
    uint32_t len = sizeof(v);
    fake.open_result = -EACCES;
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = net16(80)};
    memcpy(&six.sin6_addr, "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x1", 16);
    client = (int)sys_socket(AF_INET6, SOCK_STREAM, 0);
    assert_int_equal(sys_connect(client, &six, sizeof(six)), -EACCES);
    assert_string_equal(fake.opened, "[2001:db8:0:0:0:0:0:1]:80");
    client = (int)sys_socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect_to(client, 192, 0, 2, 1, 80), -EACCES);
    fake.open_result = 3;
    fake.net_error = -EAGAIN;
    fake.on_block = connection_is_refused;
    assert_int_equal(connect_to(client, 192, 0, 2, 1, 80), -ECONNREFUSED);
    int other = (int)sys_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    fake.net_error = -EAGAIN;
    fake.readable = fake.writable = 0;
    assert_int_equal(connect_to(other, 192, 0, 2, 1, 80), -EINPROGRESS);
    assert_int_equal(connect_to(other, 192, 0, 2, 1, 80), -EALREADY);
    struct pollfd p = {other, POLLOUT, 0};
    assert_int_equal(sys_poll(&p, 1, 0), 0);
    fake.on_block = connection_is_refused;
    assert_int_equal(sys_poll(&p, 1, -1), 1);
    assert_true(p.revents & POLLERR);
    assert_int_equal(sys_getsockopt(other, SOL_SOCKET, SO_ERROR, &v, &len), 0);
    assert_int_equal(v, ECONNREFUSED);
}

static void a_connection_can_be_made_without_waiting(void **state)
{
    (void)state;
    int v = -1;
    uint32_t len = sizeof(v);
    struct epoll_event e = {.events = EPOLLOUT | EPOLLIN | EPOLLET, .data = 1}, got[2];
    fake.open_result = 3;
    fake.net_error = -EAGAIN;
    client = (int)sys_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_int_equal(connect_to(client, 192, 0, 2, 1, 80), -EINPROGRESS);
    int set = (int)sys_epoll_create1(0);
    assert_int_equal(sys_epoll_ctl(set, EPOLL_CTL_ADD, client, &e), 0);
    fake.on_block = connection_is_made;
    assert_int_equal(sys_epoll_wait(set, got, 2, -1), 1);
    assert_int_equal(got[0].events, EPOLLOUT);
    assert_int_equal(sys_getsockopt(client, SOL_SOCKET, SO_ERROR, &v, &len), 0);
    assert_int_equal(v, 0);
    fake.on_block = bytes_arrive;
    assert_int_equal(sys_epoll_wait(set, got, 2, -1), 1);
    assert_true(got[0].events & EPOLLIN);
}

/* A query as resolvers send it. */
static size_t query(uint8_t *to, const char *name, uint16_t type)
{
    static const uint8_t head[12] = {0x12, 0x34, 1, 0, 0, 1};
    memcpy(to, head, sizeof(head));
    size_t n = sizeof(head);
    while (*name) {
        size_t label = strcspn(name, ".");
        to[n++] = (uint8_t)label;
        memcpy(to + n, name, label);
        n += label;
        name += label + (name[label] == '.');
    }
    const uint8_t tail[5] = {0, (uint8_t)(type >> 8), (uint8_t)type, 0, 1};
    memcpy(to + n, tail, sizeof(tail));
    return n + sizeof(tail);
}

static size_t ask(const char *name, uint16_t type, uint8_t *reply)
{
    uint8_t q[512];
    size_t len = query(q, name, type);
    struct sockaddr_in dns = at(127, 0, 0, 53, 53);
    int fd = (int)sys_socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    assert_int_equal(sys_connect(fd, &dns, sizeof(dns)), 0);
    assert_int_equal(sys_write(fd, q, len), len);
    struct pollfd p = {fd, POLLIN, 0};
    assert_int_equal(sys_poll(&p, 1, 0), 1);
    int n;
    assert_int_equal(sys_ioctl(fd, FIONREAD, (uintptr_t)&n), 0);
    int64_t got = sys_recvfrom(fd, reply, 512, 0, NULL, NULL);
    assert_int_equal(got, n);
    assert_memory_equal(reply, q, 2);
    assert_int_equal(reply[2] & 0x80, 0x80);
    assert_int_equal(sys_close(fd), 0);
    return (size_t)got;
}

static void allowed_names_resolve_and_connect(void **state)
{
    (void)state;
    uint8_t reply[512];
    fake.allowed = "api.example.com";
    fake.open_result = 3;
    fake.writable = 1ull << 3;
    size_t len = ask("API.example.com", 1, reply);
    assert_int_equal(reply[3] & 15, 0);
    assert_int_equal(reply[7], 1);
    const uint8_t *ip = reply + len - 4;
    assert_int_equal(ip[0], 198);
    assert_int_equal(ip[1], 18);
    uint8_t again[512];
    assert_int_equal(ask("api.example.com", 1, again), len);
    assert_memory_equal(again + len - 4, ip, 4);
    client = (int)sys_socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect_to(client, ip[0], ip[1], ip[2], ip[3], 443), 0);
    assert_string_equal(fake.opened, "api.example.com:443");
    int other = (int)sys_socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect_to(other, 198, 19, 255, 1, 443), -EHOSTUNREACH);
    ask("api.example.com", 28, reply); /* no IPv6 address, but the name is there */
    assert_int_equal(reply[3] & 15, 0);
    assert_int_equal(reply[7], 0);
    ask("other.example.com", 1, reply);
    assert_int_equal(reply[3] & 15, 3);
    len = ask("localhost", 1, reply);
    assert_memory_equal(reply + len - 4, "\x7f\0\0\1", 4);
    len = ask("unid", 1, reply); /* its own name */
    assert_memory_equal(reply + len - 4, "\x7f\0\0\1", 4);
}

static void malformed_queries_are_answered_as_such(void **state)
{
    (void)state;
    uint8_t q[64], reply[DNS_REPLY_MAX];
    size_t len = query(q, "a.b", 1);
    for (size_t n = 0; n < len; n++) {
        uint8_t *exact = test_malloc(n ? n : 1); /* the sanitizer sees what is read behind it */
        memcpy(exact, q, n);
        size_t got = dns_answer(exact, n, reply, sizeof(reply));
        test_free(exact);
        assert_int_equal(got, n < 12 ? 0 : 12);
        assert_true(n < 12 || (reply[3] & 15) == 1);
    }
    q[2] |= 0x80;
    assert_int_equal(dns_answer(q, len, reply, sizeof(reply)), 0); /* no query */
    q[2] = 0x10;
    assert_int_equal(dns_answer(q, len, reply, sizeof(reply)), 12);
    assert_int_equal(reply[3] & 15, 4);
    q[2] = 1;
    q[12] = 0xc0; /* a pointer has no business in a question */
    assert_int_equal(dns_answer(q, len, reply, sizeof(reply)), 12);
    assert_int_equal(reply[3] & 15, 1);
}

static void datagrams_stay_in_the_guest(void **state)
{
    (void)state;
    char buf[8];
    struct sockaddr_in from, self = at(127, 0, 0, 1, 5000), far = at(192, 0, 2, 1, 123);
    uint32_t len = sizeof(from);
    int a = (int)sys_socket(AF_INET, SOCK_DGRAM, 0), b = (int)sys_socket(AF_INET, SOCK_DGRAM, 0);
    assert_int_equal(sys_bind(a, &self, sizeof(self)), 0);
    assert_int_equal(sys_sendto(b, "12345", 5, 0, &self, sizeof(self)), 5);
    assert_int_equal(sys_recvfrom(a, buf, 3, MSG_PEEK | MSG_TRUNC, &from, &len), 5);
    assert_int_equal(sys_recvfrom(a, buf, 3, 0, &from, &len), 3);
    assert_int_equal(sys_sendto(a, "r", 1, 0, &from, sizeof(from)), 1);
    assert_int_equal(sys_recvfrom(b, buf, 8, 0, NULL, NULL), 1);
    assert_int_equal(sys_sendto(b, "x", 1, 0, &far, sizeof(far)), -ENETUNREACH);
    assert_int_equal(sys_write(b, "x", 1), -EDESTADDRREQ);
    struct iovec parts[2] = {{(void *)(uintptr_t) "ab", 2}, {(void *)(uintptr_t) "cd", 2}};
    assert_int_equal(sys_connect(b, &self, sizeof(self)), 0);
    assert_int_equal(sys_writev(b, parts, 2), 4); /* one message */
    assert_int_equal(sys_read(a, buf, 8), 4);
    assert_int_equal(sys_recvfrom(a, buf, 8, MSG_DONTWAIT, NULL, NULL), -EAGAIN);
    int fds[2];
    assert_int_equal(sys_socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds), 0);
    assert_int_equal(sys_write(fds[0], "one", 3), 3);
    assert_int_equal(sys_write(fds[0], "two", 3), 3);
    assert_int_equal(sys_read(fds[1], buf, 8), 3);
    assert_int_equal(sys_close(fds[0]), 0);
    assert_int_equal(sys_read(fds[1], buf, 8), 3);
    assert_int_equal(sys_read(fds[1], buf, 8), 0);
}

static void addresses_are_checked(void **state)
{
    (void)state;
    struct sockaddr_in any = at(0, 0, 0, 0, 80);
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = net16(81)}, name;
    uint32_t len = sizeof(name);
    int fd = (int)sys_socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(sys_bind(fd, &any, 3), -EINVAL);
    assert_int_equal(sys_bind(fd, NULL, sizeof(any)), -EFAULT);
    assert_int_equal(sys_bind(fd, &six, sizeof(six)), -EAFNOSUPPORT);
    assert_int_equal(sys_getpeername(fd, &name, &len), -ENOTCONN);
    assert_int_equal(sys_read(fd, &name, 1), -ENOTCONN);
    assert_int_equal(sys_listen(99, 1), -EBADF);
    assert_int_equal(sys_accept(fd, NULL, NULL), -EINVAL);
    int dual = (int)sys_socket(AF_INET6, SOCK_STREAM, 0);
    assert_int_equal(sys_bind(dual, &six, sizeof(six)), 0);
    assert_int_equal(sys_listen(dual, 1), 0);
    assert_int_equal(connect_to(fd, 127, 0, 0, 1, 81), 0); /* [::] hears IPv4 */
    int got = (int)sys_accept(dual, &name, &len);
    assert_true(got >= 0);
    assert_int_equal(len, sizeof(name));
    assert_memory_equal(&name.sin6_addr, "\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\1", 16);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup(name, setup)
    const struct CMUnitTest tests[] = {
        T(pairs_are_two_pipes),
        T(a_server_can_connect_to_itself),
        T(unix_sockets_have_names),
        T(options_are_remembered),
        T(datagrams_stay_in_the_guest),
        T(addresses_are_checked),
        T(the_host_connects_to_the_outside),
        T(refusals_are_told),
        T(a_connection_can_be_made_without_waiting),
        T(allowed_names_resolve_and_connect),
        T(malformed_queries_are_answered_as_such),
        T(the_request_comes_to_who_waits),
        T(the_connections_end_is_the_machines),
        T(the_last_close_ends_the_machine),
        T(bodies_of_unknown_length_come_in_chunks),
        T(the_request_goes_to_the_port_that_was_given),
        T(a_set_that_waits_for_the_listener_waits_for_the_request),
    };
    return cmocka_run_group_tests(tests, fake_group_setup, NULL);
}
