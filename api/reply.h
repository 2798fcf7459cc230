/* reply.h - answers: JSON, and errors as problem+json (RFC 9457). The one place where a negative
 * errno becomes an HTTP status. For api/ only. */
#ifndef UNID_API_REPLY_H
#define UNID_API_REPLY_H

#include <jansson.h>

#include "api/call.h"

/* All of these end the call (call_free). They may be called when the client has left. */

/* Takes the reference; NULL (out of memory) becomes a 500. */
void reply_json(struct api_call *call, unsigned status, json_t *body);
void reply_empty(struct api_call *call, unsigned status);
/* `detail` is borrowed. */
void reply_problem(struct api_call *call, unsigned status, const char *detail);
/* As reply_problem, with the end of what a function's program logged, and the system calls that its library
 * OS counted; NULL when that is not known. */
void reply_program_problem(struct api_call *call, unsigned status, const char *detail,
                           const char *log_tail, const struct unid_report *counted);
/* A program that cannot be prepared; `report` is the JSON of what was found, or NULL. */
void reply_report_problem(struct api_call *call, unsigned status, const char *detail,
                          const char *report);
/* What went wrong below. `err` may be NULL. Statuses of the server's own fault are logged here. */
void reply_error(struct api_call *call, int rc, const struct un_error *err);
/* reply_error for a negative rc: true, the call is over. Else false, and nothing is done. */
bool reply_if_failed(struct api_call *call, int rc, const struct un_error *err);

/* The status for an errno: -ENOENT 404, -EINVAL 400, -EBUSY 409, ... */
unsigned reply_status(int rc);

/* Appends to the items of a listing; takes `item`. Without an item (NULL) there is no listing either: `*items`
 * becomes NULL, and its page a 500, as what is missing in a listing nobody sees. */
void reply_add(json_t **items, json_t *item);
/* A listing's {"items": items, "next": next}. Takes `items`. */
json_t *reply_page(json_t *items, const char *next);
/* An RFC 3339 string. */
json_t *reply_time(uint64_t wall_us);

/* The system calls of a report that are not there: [{"name": "fork", "times": 2}]. NULL when out of
 * memory. */
json_t *reply_missing_calls(const struct unid_report *report);
/* Likewise all that were made, by number; null when none is known. */
json_t *reply_calls_made(const struct unid_report *report);

/* A failed call of a function as problem+json. Gives a reference; `*ret_status` is the HTTP status.
 */
json_t *reply_outcome(const struct sched_outcome *outcome, const char *id, unsigned *ret_status);

#endif
