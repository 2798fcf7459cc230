/* interface.h - what a request looks like to a program, and how its answer is read, by the function's
 * interface (docs/interfaces.md).
 *
 *     sdk, filter   the request head as abi.h says; head and body of the answer come apart
 *     cgi           the meta-variables of RFC 3875; the answer begins with a CGI header
 *     http          an HTTP/1.1 request head (RFC 9112); the answer is an HTTP/1.x message
 *
 *     tcp           no head: both directions of a connection as they are, see UNID_INTERFACE_TCP
 *
 * For cgi and http the program's bytes are read by a reader: a piece goes in, at most one piece of
 * body comes out, so that the guest stands still while the client has no room.
 *
 * No I/O, no scheduler. To add an interface: its renderer and its reader in a file of their own, and
 * a row in each of the two switches of interface.c.
 */
#ifndef UNID_SCHEDULER_INTERFACE_INTERFACE_H
#define UNID_SCHEDULER_INTERFACE_INTERFACE_H

#include "common/bytes.h"
#include "common/error.h"
#include "hypervisor/hv.h"
#include "imagestore/function.h"

/* UNID_INTERFACE_*; a configuration whose interface is settled and can be run. */
uint32_t interface_number(enum function_interface interface);

/* Whether the program's output is to be read by a reader. */
bool interface_reads(enum function_interface interface);

/* Whether the request's head needs the body's length. */
bool interface_wants_length(enum function_interface interface);

/* --- requests --------------------------------------------------------------------------------- */

/* All borrowed. */
struct interface_request {
    const char *function, *qualifier; /* qualifier may be NULL */
    const char *id;                   /* of the invocation */
    const char *uri;  /* the request target as the client sent it; NULL: made from the head's */
    const char *peer; /* the client's IP address; NULL: 127.0.0.1 */
    bool http10;      /* the client speaks HTTP/1.0 */
    const char *head; /* as abi.h says: "METHOD target CRLF", then the fields */
    size_t head_len;
    int64_t content_length; /* -1: not known */
    bool own_port;          /* it came in at a port of the function's: there is no prefix */
    const struct function_config *config;
};

/* Appends the head that the program's library OS gets. -ENOMEM; -E2BIG it does not fit into the
 * guest's window; -EINVAL `head` is not as abi.h says. */
int interface_render(const struct interface_request *r, struct un_buf *ret, struct un_error *err);

/* --- answers ---------------------------------------------------------------------------------- */

struct interface_reader;

/* What came of a piece. */
struct interface_piece {
    const void *data; /* body bytes: of what was fed, or the reader's; until the next call */
    size_t len;
    bool complete; /* the answer is whole */
};

/* Gives a reader (interface_reader_free). `head_only`: of the answer to a HEAD request, which has no
 * body. -ENOMEM. */
int interface_reader_new(enum function_interface interface, bool head_only,
                         struct interface_reader **ret, struct un_error *err);
void interface_reader_free(struct interface_reader *r); /* NULL is allowed */

/* The next bytes of the program, which may change while they are read: they can lie in memory that a guest has as
 * well. -EBADMSG they are not what the interface asks for, with the reason in
 * words for the function's author; -ENOMEM. After an error, and after `complete`, nothing may be fed. */
int interface_feed(struct interface_reader *r, const void *data, size_t len,
                   struct interface_piece *ret, struct un_error *err);

/* The program has ended, or closed its connection, with success. `ret->complete` is set on success.
 * Errors as above: the answer is not whole. */
int interface_finish(struct interface_reader *r, struct interface_piece *ret, struct un_error *err);

/* The head, once it has been read (before the first body byte is given out); else NULL. Valid as long
 * as the reader. */
const struct hv_head *interface_head(const struct interface_reader *r);

#endif
