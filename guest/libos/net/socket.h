/* socket.h - sockets of the library OS: what the parts of net/ share.
 *
 *     kind           a socket that                                     file
 *     plain          was made, perhaps bound, not more                 socket.c
 *     listener       listens                                           listen.c
 *     pair           has another socket of this guest at its end       pair.c
 *     request        is the connection on which the request arrives    request.c
 *     datagram       sends and gets messages (UDP, AF_UNIX)            datagram.c
 *     egress         is connected to the outside, by the host          egress.c
 *
 * A socket of a stream type begins as plain and becomes one of the others; its `kind` is the table
 * of what it does then. There is no network: addresses only say which socket is meant.
 */
#ifndef LIBOS_SOCKET_H
#define LIBOS_SOCKET_H

#include <asm/socket.h>

#include "fs/ring.h"
#include "fs/wait.h"

/* <sys/socket.h> is the C library's; the kernel's ABI has these values. */
enum { AF_UNSPEC = 0, AF_UNIX = 1, AF_INET = 2, AF_INET6 = 10 };
enum {
    SOCK_STREAM = 1,
    SOCK_DGRAM = 2,
    SOCK_SEQPACKET = 5,
    SOCK_TYPE_MASK = 15,
    SOCK_NONBLOCK = O_NONBLOCK,
    SOCK_CLOEXEC = O_CLOEXEC
};
enum {
    MSG_OOB = 1,
    MSG_PEEK = 2,
    MSG_CTRUNC = 8,
    MSG_TRUNC = 0x20,
    MSG_DONTWAIT = 0x40,
    MSG_WAITALL = 0x100,
    MSG_NOSIGNAL = 0x4000
};
enum { SHUT_RD = 0, SHUT_WR = 1, SHUT_RDWR = 2 };
enum { PROTO_TCP = 6, PROTO_UDP = 17 };

#define UNIX_PATH_MAX_ 108
#define EPHEMERAL_MIN  32768
#define EPHEMERAL_MAX  60999

struct user_msghdr {
    void *name;
    uint32_t name_len;
    struct iovec *iov;
    size_t iov_len;
    void *control;
    size_t control_len;
    uint32_t flags;
};
struct user_mmsghdr {
    struct user_msghdr hdr;
    uint32_t len;
};

/* An address without its encoding. IPv4 in IPv6 (::ffff:a.b.c.d) is an IPv6 address here;
 * address_ip4 sees through it. */
struct address {
    uint16_t family; /* AF_UNSPEC: none */
    uint16_t port;
    uint8_t ip[16];
    uint16_t path_len; /* AF_UNIX; an abstract one begins with a zero */
    char path[UNIX_PATH_MAX_ + 1];
};

struct socket;
struct socket_kind {
    /* At most `len` bytes (one message) under MSG_PEEK, MSG_DONTWAIT, MSG_WAITALL. *ret_from is
     * set by datagrams only. */
    int64_t (*recv)(struct socket *s, void *to, size_t len, int flags, struct address *ret_from);
    int64_t (*send)(struct socket *s, const void *from, size_t len, int flags,
                    const struct address *to);
    uint32_t (*poll)(struct socket *s);
    size_t (*readable)(struct socket *s); /* FIONREAD */
    int (*shut)(struct socket *s, bool reading, bool writing);
    void (*close)(struct socket *s);
};
extern const struct socket_kind plain_kind, listener_kind, pair_kind, request_kind, datagram_kind,
    egress_kind;

struct message {
    struct list node;
    struct address from;
    size_t len;
    char data[];
};

struct socket {
    const struct socket_kind *kind;
    uint32_t family, type, protocol;
    struct readiness ready;
    struct list all;       /* socket.c: every socket */
    struct list in_listen; /* listeners in order, or on a listener's `pending` */
    struct address local, peer;
    struct inode *inode; /* AF_UNIX, bound to a path: referenced */
    int error;           /* SO_ERROR, negative */
    bool shut_read, shut_write;
    bool nonblocking_connect;
    /* options that are remembered */
    uint32_t options; /* bits by number, of SOL_SOCKET */
    int tcp[32], ip[32];
    uint32_t send_buffer, receive_buffer;
    int linger[2];
    uint64_t receive_ns, send_ns; /* time-outs; 0: none */
    /* listener */
    struct list pending; /* sockets to accept */
    uint32_t pending_count, backlog;
    /* pair; datagram (connected AF_UNIX) */
    struct socket *other; /* NULL: gone */
    struct ring rx;       /* also egress: read ahead */
    /* datagram */
    struct list messages;
    size_t queued;
    /* egress */
    unsigned handle;
    bool has_handle, connecting, ended;
    uint64_t seen; /* bits of the host that were told: 1 readable, 2 writable */
    uint64_t polled_ns;
};

/* address.c */
int address_get(const void *addr, uint32_t len, struct address *ret); /* the program's */
int address_put(const struct address *a, void *addr, uint32_t *len);  /* truncates as Linux does */
int address_check(const void *addr, const uint32_t *len); /* -EFAULT, before something is done */
bool address_ip4(const struct address *a, uint8_t ret[4]);
bool address_is_loopback(const struct address *a); /* or any: the guest itself is meant */
bool address_is_any(const struct address *a);
bool address_matches(const struct address *bound, const struct address *wanted);
struct address address_loopback(const struct address *like, uint16_t port);

/* socket.c */
struct socket *socket_new(uint32_t family, uint32_t type, uint32_t protocol); /* one owner */
void socket_free(struct socket *s);
struct file *socket_file(struct socket *s, uint32_t flags);            /* takes it on success */
int socket_of_fd(int fd, struct socket **ret, struct file **ret_file); /* referenced file */
struct socket *socket_of_file(const struct file *f);                   /* NULL: is none */
/* The socket of that type which is bound so that `to` means it; NULL. */
struct socket *socket_find(uint32_t type, const struct address *to, bool listening);
int socket_find_unix(const struct address *to, uint32_t type, struct socket **ret);
int socket_bind_ephemeral(struct socket *s);
bool socket_nonblocking(const struct file *f, int flags);
uint64_t socket_deadline(uint64_t span_ns);
/* Waits for a change; -EAGAIN when it must not, or the option's time is over. */
int socket_wait(struct socket *s, int flags, uint64_t deadline_ns);

/* listen.c */
int listener_start(struct socket *s, int backlog);
int listener_accept(struct socket *s, int flags, struct socket **ret); /* takes one */
bool listener_wants_request(const struct socket *s);
#ifdef LIBOS_HOSTED
void request_forget(void); /* for tests: another one may come */
#endif
/* pair.c */
void pair_join(struct socket *a, struct socket *b);
int pair_connect(struct socket *s, struct socket *listener); /* a new socket waits there */
/* request.c */
struct socket *request_accept(const struct socket *listener);
/* egress.c */
int egress_connect(struct socket *s, const struct address *to, bool nonblocking);
/* The outside is there for an invocation only: a program that has not asked for its request, and
 * does not wait for one to arrive, does so now. */
void egress_begin(void);
int egress_progress(struct socket *s); /* 0: connected; -EINPROGRESS; or why it failed */
/* dns.c */
size_t dns_answer(const uint8_t *query, size_t len, uint8_t *reply, size_t size);
/* The name for which an address was made up; NULL: none. */
const char *dns_name_of(const uint8_t ip[4]);
#define DNS_PORT      53
#define DNS_REPLY_MAX 512

#endif
