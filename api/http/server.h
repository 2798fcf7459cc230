/* server.h - an HTTP/1.1 server on libevent's bufferevents: streams both ways, with back-pressure.
 *
 * A connection serves one exchange (request and answer) at a time; requests that a client has
 * pipelined wait unread in the connection's bounded buffer, so answers are always in order.
 *
 *               on_head                 http_respond_*            http_respond_end
 *    (head read) ------> handler at work ------------> answering ------------------> next request
 *                               |                           |
 *                               +---- on_gone: client left, stalled, or broke the protocol
 *
 * The handler owns the exchange from on_head until it calls http_respond_end (or one of the
 * functions that include it), or http_exchange_abort, or until on_gone returns; afterwards the
 * exchange must not be touched. No callback comes from inside a call of the handler's, but for
 * those of http_body_resume's exchange later, from the loop. Loop thread throughout.
 *
 * A client that has shut down its sending side after a whole request is still answered (RFC 9112
 * section 9.6 lets it). Whether it has really gone cannot be told from that alone on TCP; so a "100
 * Continue" is sent then, which clients must be able to ignore (RFC 9110 section 15.2): one that is
 * gone answers with a reset, which is noticed. On Unix sockets, and once a reset has come, poll(2)
 * tells. What remains unnoticed until a write fails: an HTTP/1.0 client over TCP, and one that
 * leaves in the middle of an answer.
 *
 * This file knows no routes and no functions; api.c hangs those in through on_head.
 */
#ifndef UNID_API_HTTP_SERVER_H
#define UNID_API_HTTP_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/http/head.h"
#include "common/error.h"
#include "common/loop.h"

struct http_server;
struct http_exchange;

struct http_handler {
    /* Body bytes, borrowed. NULL: the body is read and dropped. */
    void (*on_body)(void *arg, const void *data, size_t len);
    /* Once, behind the last of them; not for a request without a body. NULL is allowed. */
    void (*on_body_end)(void *arg);
    /* After http_respond_data gave 0: there is room again. NULL is allowed. */
    void (*on_writable)(void *arg);
    /* The exchange is lost. NULL is allowed. */
    void (*on_gone)(void *arg);
};

struct http_limits {
    size_t head_bytes, target_bytes, fields, buffer_bytes;
    unsigned connections; /* served at once; see http_server_listen_tcp */
    uint64_t idle_us, head_us, stall_us;
};
void http_limits_init(struct http_limits *l); /* the defaults of common/limits.h */

struct http_server_spec {
    struct un_loop *loop;      /* kept until http_server_close */
    struct http_limits limits; /* copied */
    /* A request's head has come. The callee calls http_exchange_handle, or answers at once. */
    void (*on_head)(void *arg, struct http_exchange *ex);
    void *arg;
};
int http_server_open(const struct http_server_spec *spec, struct http_server **ret,
                     struct un_error *err);

/* When http_limits.connections are there, a new one takes the place of the connection that has been
 * idle longest after an answer, without a byte unread. If there is none, it waits for its request's
 * head, for a short while; if there is still no place, it is told 503, with Retry-After. Beyond
 * LIMIT_HTTP_REFUSING of those, connections wait in the kernel's queue.
 *
 * Listens on "address:port" or "[v6]:port"; port 0 lets the kernel choose, *ret_port (may be NULL)
 * says which. -EINVAL a malformed address, or the errno of bind(2). */
int http_server_listen_tcp(struct http_server *s, const char *address, uint16_t *ret_port,
                           struct un_error *err);
/* Listens on a Unix socket with this mode. A socket file that nobody answers on is replaced;
 * -EADDRINUSE when somebody does. The file is removed by http_server_stop_accepting. */
int http_server_listen_unix(struct http_server *s, const char *path, unsigned mode,
                            struct un_error *err);
/* What all requests of a connection belong to. */
struct http_pin {
    char name[64];
    unsigned depth;
};
/* Takes a connected stream socket, also when it fails. `pin` (copied, or NULL) is what
 * http_exchange_pin says of its requests. It has a place in any case. */
int http_server_adopt(struct http_server *s, int fd, const struct http_pin *pin,
                      struct un_error *err);

/* Gives a listening socket for an address as above, on which nothing is accepted yet. */
int http_socket_listen(const char *address, int *ret_fd, uint16_t *ret_port, struct un_error *err);
/* Accepts on a listening socket, which is taken, also when it fails. Requests that come in there have
 * the pin (copied). Gives a listener, which http_listener_close or http_server_stop_accepting ends. */
struct http_listener;
int http_server_listen_fd(struct http_server *s, int fd, const struct http_pin *pin,
                          struct http_listener **ret, struct un_error *err);
void http_listener_close(struct http_listener *l);

void http_server_stop_accepting(struct http_server *s);
/* Connections end after their current exchange, and those that are idle after one now. A request
 * that has come already, if only to the kernel, is still read and handed to on_head; a connection
 * without one yet has a quarter of a second for it. Listeners stay open. */
void http_server_drain(struct http_server *s);
unsigned http_server_connections(const struct http_server *s);
/* Connections that were told 503 because there were too many, since the opening. */
uint64_t http_server_refused(const struct http_server *s);
/* Ends every connection; on_gone comes for running exchanges. NULL is allowed. */
void http_server_close(struct http_server *s);

/* --- the exchange ----------------------------------------------------------------------------- */

const struct http_request *http_exchange_request(const struct http_exchange *ex);
/* The client's IP address; "" over a Unix socket, or when it has gone. Returns `buf`. */
enum { HTTP_PEER_SIZE = 46 };
const char *http_exchange_peer(const struct http_exchange *ex, char buf[HTTP_PEER_SIZE]);
bool http_exchange_is_unix(const struct http_exchange *ex);
/* What the connection was pinned to when it was taken; NULL: nothing. As long as the exchange. */
const struct http_pin *http_exchange_pin(const struct http_exchange *ex);
/* Whether the request has a body at all. */
bool http_exchange_has_body(const struct http_exchange *ex);

/* `handler` is kept, as is `arg`, until the exchange ends. The body does not flow before
 * http_body_resume. */
void http_exchange_handle(struct http_exchange *ex, const struct http_handler *handler, void *arg);

/* For answers without an end of their own: a client that shuts down its sending side has left,
 * also when it could still read (nothing else would tell, as long as there is nothing to send). */
void http_exchange_leave_on_eof(struct http_exchange *ex);

/* Lets the body flow (a client that waits for "100 Continue" gets it the first time), or holds it
 * back. A little may still come after a pause: at most one read. */
void http_body_resume(struct http_exchange *ex);
void http_body_pause(struct http_exchange *ex);

/* Adds a field to the answer, also to one that the server itself makes (408, ...). Replaces a field
 * of the same name when `name` was set before. Both are copied; control characters in the value end
 * it. -ENOMEM, -E2BIG; the answer then goes out without the field. */
int http_respond_field(struct http_exchange *ex, const char *name, const char *value);
/* As above, but for fields that may come several times (Set-Cookie). */
int http_respond_field_add(struct http_exchange *ex, const char *name, const char *value);

/* Sends the head. `content_length` -1: not known; then chunked, or until close for HTTP/1.0. */
void http_respond_begin(struct http_exchange *ex, unsigned status, int64_t content_length);
/* Copies the bytes. 1: go on; 0: wait for on_writable. The bytes of an answer to HEAD are dropped.
 */
int http_respond_data(struct http_exchange *ex, const void *data, size_t len);
/* The answer is complete. If fewer bytes came than were promised the connection is cut. */
void http_respond_end(struct http_exchange *ex);
/* All three at once. `content_type` may be NULL. */
void http_respond_full(struct http_exchange *ex, unsigned status, const char *content_type,
                       const void *body, size_t len);
/* A problem+json of type about:blank (RFC 9457). */
void http_respond_problem(struct http_exchange *ex, unsigned status, const char *detail);
bool http_exchange_begun(const struct http_exchange *ex);
/* Cuts the connection, so that the client sees that the answer is not whole. */
void http_exchange_abort(struct http_exchange *ex);

/* The reason phrase; "Unknown" for a status without one. */
const char *http_status_text(unsigned status);

#endif
