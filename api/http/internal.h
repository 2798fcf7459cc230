/* internal.h - what server.c, conn.c and respond.c share. Not for others.
 *
 * The connection's state (conn.c writes it, nobody else):
 *
 *      +--------- keep-alive: answered, request read ----------+
 *      v                                                       |
 *    IDLE --first byte--> HEAD --head whole--> EXCHANGE -------+
 *      |                   |                      |
 *      |                   +--- malformed, late --+-- answered, close wanted --> FLUSH --sent-->
 * LINGER
 *      +--- drained, late, client left ---> closed
 * <-----------------------------------------------+
 *
 * FLUSH: the last answer is on its way. LINGER: our side is shut down; what the client still sends
 * is dropped for a short while, so that it can read the answer (RFC 9112 section 9.6). Invariant:
 * `ex.active` only in EXCHANGE.
 *
 * Beside its state, a connection has a place among http_limits.connections, or is over the limit
 * and has none. Without a place it has little time for its request's head, and when that is whole
 * it needs a place to be served (server_admit), else it is told 503. A place is given up when the
 * last answer has left. An IDLE connection with a place is in one of the server's two lists. */
#ifndef UNID_API_HTTP_INTERNAL_H
#define UNID_API_HTTP_INTERNAL_H

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>

#include "api/http/server.h"
#include "common/bytes.h"
#include "common/list.h"

enum conn_state { CONN_IDLE, CONN_HEAD, CONN_EXCHANGE, CONN_FLUSH, CONN_LINGER };

struct http_exchange {
    struct http_conn *conn;
    struct http_request req;
    char *head; /* what req borrows */
    const struct http_handler *handler;
    void *arg;
    struct un_buf fields; /* of the answer, as they will be sent */
    struct http_chunks *chunks;
    int64_t body_left; /* of a body with Content-Length */
    int64_t out_left;  /* bytes of the answer still to come; -1: not known */
    uint64_t dropped;  /* body bytes read after the answer was complete */
    bool active;       /* the handler owns it */
    bool has_body, body_done, body_flows, continue_sent;
    bool begun, chunked_out, no_body_out, want_writable, answered;
    bool broken; /* the answer cannot be completed as its head promised */
    bool leave_on_eof;
    bool close_after; /* no further request on this connection */
};

struct http_conn {
    struct un_list node; /* server->conns */
    struct un_list idle; /* server->idle or server->fresh, while IDLE with a place */
    struct http_server *server;
    struct bufferevent *bev;
    int fd;
    enum conn_state state;
    bool is_unix, eof, in_process;
    bool has_place; /* counts as one of http_limits.connections */
    bool served;    /* has had an answer: idle, it is only being kept warm */
    bool kill;      /* cut the connection at the next look */
    struct http_scan scan;
    struct http_pin *pin; /* NULL: none */
    struct http_exchange ex;
    struct un_timer timer; /* the state's time limit */
    struct un_timer probe; /* after a half-close: is the client still there? */
    uint64_t probe_us;     /* the next interval */
    uint64_t moved_us;     /* when a byte was last read or written */
    uint64_t lingered;     /* bytes dropped in LINGER */
    struct un_post post;   /* conn_process, from the loop */
};

struct http_listener {
    struct un_list node;
    struct http_server *server;
    struct evconnlistener *lev;
    char *path;           /* of a Unix socket */
    struct http_pin *pin; /* of its connections; NULL: none */
};

struct http_server {
    struct un_loop *loop;
    struct http_limits limits;
    void (*on_head)(void *arg, struct http_exchange *ex);
    void *arg;
    struct un_list conns, listeners;
    struct un_list idle, fresh;  /* IDLE with a place, served or not yet; the oldest first */
    unsigned conn_count, places; /* all connections; those with a place */
    uint64_t refused;            /* connections that were told 503, since the opening */
    bool draining, accept_paused;
    struct un_timer accept_timer;
    char date[32]; /* of the second `date_s` */
    uint64_t date_s;
};

/* conn.c */
/* Copies a pin; true when there is none, or it is in `*to`. */
bool pin_copy(const struct http_pin *from, struct http_pin **to);
/* Takes the socket, also when it fails. `has_place`: see above. */
struct conn_spec {
    int fd;
    bool is_unix, has_place;
    const struct http_pin *pin; /* copied; NULL: none */
};
int conn_open(struct http_server *s, const struct conn_spec *spec, struct un_error *err);
/* on_gone for a running exchange; frees the connection. */
void conn_close(struct http_conn *c);
/* Hands to the kernel what it takes of an answer that is complete, without waiting. */
void conn_flush(struct http_conn *c);
/* Closes an idle connection, once what it has been sent has left. */
void conn_retire(struct http_conn *c);
/* Gives or takes the place; an IDLE connection begins to wait anew, as long as befits it. */
void conn_place(struct http_conn *c, bool has_place);
/* Draining has begun, and the connection is IDLE: closes it, unless a request may be coming. */
void conn_drain(struct http_conn *c);
/* Whether bytes of a request are here, read or still in the kernel. */
bool conn_has_unread(const struct http_conn *c);
/* Looks again at what is to be done, from the loop. */
void conn_wake(struct http_conn *c);
/* The answer is complete (`whole`) or will never be. Ends the handler's ownership. */
void conn_exchange_end(struct http_conn *c, bool whole);
/* Bytes are to move, in or out: starts watching that they do. */
void conn_watch(struct http_conn *c);

/* server.c */
/* Finds a place for a connection whose request is here: a free one, that of a connection that is
 * only being kept warm, or of one that has not said anything yet. False: there is none. */
bool server_admit(struct http_server *s);
bool server_has_place(const struct http_server *s);
void server_conn_closed(struct http_server *s);
const char *server_date(struct http_server *s);

/* respond.c */
void exchange_reset(struct http_exchange *ex);
void exchange_send_continue(struct http_exchange *ex);

#endif
