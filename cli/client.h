/* client.h - HTTP to unid over libcurl: one request at a time, bodies streamed both ways.
 *
 * A request may be sent while its answer is already being received: a body that comes from a pipe
 * is read when it has something, and never holds the answer back. It does not interpret JSON and
 * prints nothing.
 */
#ifndef UNID_CLI_CLIENT_H
#define UNID_CLI_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/error.h"

struct client;
struct progress;

enum {
    CLIENT_CONNECT_MS = 5000,              /* a local daemon answers at once or not at all */
    CLIENT_CONTROL_MS = 120000,            /* the whole of a call that moves no large body */
    CLIENT_HEAD_MAX = 64 * 1024,           /* bytes of an answer's head */
    CLIENT_COLLECT_MAX = 64 * 1024 * 1024, /* bytes of an answer that is kept in memory */
    CLIENT_HOST_SIZE = 512
};

/* Where unid is when nobody says: "unix://" and the socket if there is one, else
 * http://127.0.0.1:7070. `buf` has CLIENT_HOST_SIZE bytes; returns it. */
const char *client_default_host(char *buf);

/* Gives a client (free with client_free). `host` is http://..., https://... or unix:///path;
 * `token` may be NULL. Both copied. -EINVAL for another kind of address or a token with control
 * characters, -ENOMEM. */
int client_new(const char *host, const char *token, struct client **ret, struct un_error *err);
void client_free(struct client *c);

/* The address as given, for messages. */
const char *client_host(const struct client *c);
/* The URL at which people call a function. `url` is what the daemon says: on a Unix socket that is it, or
 * only a path if the daemon listens nowhere else ("... (on unix:///path)" is added then); over TCP it is
 * the path of it at the address that reached the daemon. Gives a string (free); NULL: out of memory. */
char *client_function_url(const struct client *c, const char *url);

/* Percent-encodes one path segment or query value (free with free()); NULL: out of memory. */
char *client_escape(const char *text);

struct client_response {
    long status;        /* 0 until the head has come */
    struct un_buf head; /* as received, of the final answer */
    struct un_buf body; /* of problems, and of everything when there is no on_data */
    uint64_t
        first_byte_us; /* from when the request was about to be sent to the answer's first byte */
};
void client_response_done(struct client_response *r);
#define un_autoresponse __attribute__((cleanup(client_response_done)))

/* A field's value (free with free()), NULL when there is none (or no memory). */
char *client_header(const struct client_response *r, const char *name);
/* Whether the answer is an error that unid describes (status from 400, application/problem+json).
 */
bool client_is_problem(const struct client_response *r);

struct client_request {
    const char *method;
    const char *path;          /* from "/", encoded, with its query */
    const char *const *fields; /* "Name: value", NULL-terminated, or NULL */
    const void *data;          /* the body, or */
    size_t data_len;
    bool has_fd;     /* the body is what `fd` gives until its end */
    int fd;          /* borrowed; a pipe or terminal may be slow */
    int64_t fd_size; /* bytes, -1 when not known (sent chunked) */
    long timeout_ms; /* of the whole; 0: none */
    bool keep_alive; /* on the connection that the last such request has left open, if any */
    struct progress *progress; /* told of sent bytes; may be NULL */
    /* Takes the answer's bytes unless it is a problem; `r` has status and head. NULL: collected in
     * r->body. A negative errno with `err` filled ends the transfer. */
    int (*on_data)(void *arg, const struct client_response *r, const void *data, size_t len,
                   struct un_error *err);
    void *arg;
};

/* 0 when an answer came (of any status). -ECONNREFUSED nobody there; -ECONNRESET it broke off
 * (r->status says whether a head had come); -ETIMEDOUT; -EFBIG more than CLIENT_COLLECT_MAX; what
 * on_data or reading `fd` gave; -EPROTO, -ENOMEM. `r` is zero-initialised by the caller and
 * released by it in any case. */
int client_send(struct client *c, const struct client_request *req, struct client_response *r,
                struct un_error *err);

#endif
