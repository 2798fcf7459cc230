/* cloudevents.h - CloudEvents 1.0 over HTTP, in its three modes (CloudEvents specification 1.0.2,
 * JSON event format, HTTP protocol binding).
 *
 *   binary      attributes in header fields ce-*, the data is the body
 *   structured  Content-Type application/cloudevents+json: one JSON object
 *   batch       Content-Type application/cloudevents-batch+json: a JSON array of them
 *
 * A function gets an event in the mode in which it came; one of a batch, structured.
 */
#ifndef UNID_EVENTS_CLOUDEVENTS_H
#define UNID_EVENTS_CLOUDEVENTS_H

#include "events/event.h"

enum cloudevents_mode {
    CLOUDEVENTS_NONE, /* this is no CloudEvent */
    CLOUDEVENTS_BINARY,
    CLOUDEVENTS_STRUCTURED,
    CLOUDEVENTS_BATCH
};

/* A header field of the request; borrowed. */
struct cloudevents_field {
    const char *name, *value;
};

/* From the Content-Type (may be NULL) and whether there is a ce-specversion. */
enum cloudevents_mode cloudevents_mode_of(const char *content_type,
                                          const struct cloudevents_field *fields, size_t count);

/* -EINVAL with the attribute and what is wrong; -E2BIG more than LIMIT_EVENT_RECORDS; -ENOMEM.
 * `ret` is untouched then, else released with event_list_done. `mode` is not NONE. */
int cloudevents_parse(enum cloudevents_mode mode, const char *content_type,
                      const struct cloudevents_field *fields, size_t count, const void *data,
                      size_t len, struct event_list *ret, struct un_error *err);

#endif
