/* missing.h - tells whom it may concern which functions are named and not there. A function that is named as a
 * destination, or by a trigger, may be deployed later, or be removed; so that is no error. */
#ifndef UNID_API_MISSING_H
#define UNID_API_MISSING_H

#include "api/call.h"

struct missing;

/* What is under way for a call; NULL: no memory, which missing_reply takes. */
struct missing *missing_new(void);

/* `named` is an object that names a function: "NAME" or "NAME:QUALIFIER", or a URL or NULL, which is none. A
 * reference to the object is kept. */
void missing_add(struct missing *m, json_t *named, const char *target);

/* Ends the call with `status` and `body` once each object that was added has, as "missing", a list of those of its
 * functions that are not there; without such a function it is left alone. `m` and the reference are
 * taken; NULL becomes a 500. */
void missing_reply(struct missing *m, struct api_call *call, unsigned status, json_t *body);

#endif
