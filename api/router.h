/* router.h - from a method and a request target to a row of the table of routes. Pure functions on
 * untrusted strings; no I/O, no HTTP connection.
 *
 * A pattern is a path whose segments are literal or "{param}"; a last segment "{param...}" takes
 * the rest. Segments are percent-decoded once, one by one, after the path has been split: an
 * encoded slash is part of its segment. Dot segments are refused rather than resolved, so that
 * nothing in front of unid can see another path than unid does. */
#ifndef UNID_API_ROUTER_H
#define UNID_API_ROUTER_H

#include <stdbool.h>
#include <stddef.h>

enum {
    ROUTE_PARAMS_MAX = 3,
    ROUTE_PARAM_SIZE = 256, /* decoded, with its NUL; every name is shorter */
    ROUTE_ALLOW_SIZE = 96
};

/* Who may use a route. Enforced in one place, api_authorize (auth.c), but for AUTH_EVENT. */
enum route_auth {
    AUTH_NONE,  /* anybody who reaches the listener */
    AUTH_EVENT, /* a trigger's token, or what AUTH_TOKEN asks for: the handler looks (events.c) */
    AUTH_TOKEN  /* REST: the Unix socket's file mode, or the token over TCP; no foreign web pages */
};

enum route_body {
    BODY_NONE,  /* dropped */
    BODY_JSON,  /* collected, at most LIMIT_HTTP_JSON_BYTES, before the handler runs */
    BODY_STREAM /* the handler's own business */
};

struct api_call;

struct route {
    const char *method; /* "*": any */
    const char *pattern;
    const char *operation; /* operationId in docs/openapi.yaml; for "*" what they begin with */
    const char *query;     /* the parameters that it knows, as "cursor, limit"; NULL: any */
    enum route_auth auth;
    enum route_body body;
    void (*run)(struct api_call *call);
};

struct route_match {
    const struct route *route;
    char params[ROUTE_PARAMS_MAX][ROUTE_PARAM_SIZE]; /* decoded, in the pattern's order */
    const char *rest;  /* of "{param...}": into the target, from its slash on, not decoded, with the
                        * query;  or NULL */
    const char *query; /* into the target, behind '?'; or NULL */
    char allow[ROUTE_ALLOW_SIZE]; /* for ROUTE_BAD_METHOD: the Allow field */
};

enum route_result {
    ROUTE_OK,
    ROUTE_NOT_FOUND,
    ROUTE_BAD_METHOD, /* the path is known, with other methods */
    ROUTE_MALFORMED   /* a broken percent-encoding, a control character, or a dot segment */
};

/* HEAD is served by a GET row. The first matching row of the table wins. */
enum route_result route_find(const struct route *table, size_t count, const char *method,
                             const char *target, struct route_match *ret);

/* Whether a request's target has a path, and that is none of ROUTE_MALFORMED. */
bool route_target_clean(const char *target);

/* The name of the query's first parameter that the route does not know, `*ret_len` bytes at it (they
 * are compared as they were sent); NULL when it knows all. */
const char *route_unknown_param(const struct route_match *m, size_t *ret_len);

/* The decoded value of the first parameter `key` of a query ('+' is a space). 1: written to `out`;
 * 0: there is none; -EINVAL malformed; -E2BIG longer than `size` - 1. `query` may be NULL. */
int route_query(const char *query, const char *key, char *out, size_t size);

/* The table, in routes.c. */
extern const struct route api_routes[];
extern const size_t api_route_count;

#endif
