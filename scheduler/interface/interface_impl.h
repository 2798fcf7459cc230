/* interface_impl.h - what the interface files share. Not for others. */
#ifndef UNID_SCHEDULER_INTERFACE_INTERFACE_IMPL_H
#define UNID_SCHEDULER_INTERFACE_INTERFACE_IMPL_H

#include "common/limits.h"
#include "scheduler/interface/interface.h"

/* --- requests --------------------------------------------------------------------------------- */

/* The request head of abi.h, taken apart in place. */
struct request_parts {
    const char *method, *target;
    const char *path, *query; /* of target; query is NULL without a '?' */
    size_t path_len;
    size_t field_count;
    struct hv_field fields[LIMIT_HTTP_FIELDS];
};

const char *request_field(const struct request_parts *p, const char *name);
/* "/fn/NAME" or "/fn/NAME:QUALIFIER"; nothing at a port of the function's own. */
int request_prefix(const struct interface_request *r, struct un_buf *ret);
const char *request_peer(const struct interface_request *r);

int cgi_render(const struct interface_request *r, const struct request_parts *p,
               struct un_buf *ret);
int http_render(const struct interface_request *r, const struct request_parts *p,
                struct un_buf *ret);

/* --- answers ---------------------------------------------------------------------------------- */

/* A head that grows: names and values are offsets into `text` until it is closed. */
struct answer_head {
    struct un_buf text;
    size_t name_at[LIMIT_HTTP_FIELDS], value_at[LIMIT_HTTP_FIELDS];
    size_t count;
    struct hv_field fields[LIMIT_HTTP_FIELDS];
    struct hv_head head; /* status 0: not closed yet */
};
/* Adds a field. -EBADMSG: too many, too long, or one of its bytes may not stand there. */
int answer_add(struct answer_head *h, const char *name, size_t name_len, const char *value,
               size_t value_len, struct un_error *err);
/* No more fields: `head` is valid from now on. */
void answer_close(struct answer_head *h, unsigned status);
void answer_reset(struct answer_head *h);
void answer_done(struct answer_head *h);

struct interface_reader {
    enum function_interface interface;
    bool head_only;
    struct answer_head answer;
};

int cgi_reader_new(struct interface_reader **ret);
void cgi_reader_free(struct interface_reader *r);
int cgi_feed(struct interface_reader *r, const char *data, size_t len, struct interface_piece *ret,
             struct un_error *err);
int cgi_finish(struct interface_reader *r, struct interface_piece *ret, struct un_error *err);

int http_reader_new(struct interface_reader **ret);
void http_reader_free(struct interface_reader *r);
int http_feed(struct interface_reader *r, const char *data, size_t len, struct interface_piece *ret,
              struct un_error *err);
int http_finish(struct interface_reader *r, struct interface_piece *ret, struct un_error *err);

#endif
