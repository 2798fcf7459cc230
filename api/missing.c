/* missing.c - see missing.h. */
#include "api/missing.h"

#include <stdlib.h>
#include <string.h>

#include "api/reply.h"
#include "common/endpoint.h"

struct missing {
    struct api_call *call;
    unsigned status;
    json_t *body;
    json_t *places; /* of each target: the objects that name it */
    const char **targets;
    bool failed; /* memory ran out meanwhile */
};

static void missing_free(struct missing *m)
{
    if (m) {
        json_decref(m->places);
        json_decref(m->body);
        free(m->targets);
        free(m);
    }
}

struct missing *missing_new(void)
{
    struct missing *m = calloc(1, sizeof(*m));
    if (m && !(m->places = json_object())) {
        free(m);
        return NULL;
    }
    return m;
}

void missing_add(struct missing *m, json_t *named, const char *target)
{
    if (!m || !target || un_url_scheme(target)) {
        return;
    }
    json_t *list = json_object_get(m->places, target);
    if (!list) {
        list = json_array();
        m->failed |= json_object_set_new(m->places, target, list) < 0;
    }
    m->failed = m->failed || json_array_append(list, named) < 0;
}

/* Notes in each object of the list that the target is not there. */
static int note(json_t *list, const char *target)
{
    size_t i;
    json_t *named;
    json_array_foreach(list, i, named)
    {
        json_t *missing = json_object_get(named, "missing");
        if (!missing) {
            missing = json_array();
            if (json_object_set_new(named, "missing", missing) < 0) {
                return -1;
            }
        }
        size_t n = json_array_size(missing);
        const char *last = n ? json_string_value(json_array_get(missing, n - 1)) : NULL;
        if ((!last || strcmp(last, target) != 0) &&
            json_array_append_new(missing, json_string(target)) < 0) {
            return -1;
        }
    }
    return 0;
}

static void on_missing(void *arg, int rc, const bool *missing, const struct un_error *err)
{
    struct missing *m = arg;
    struct api_call *call = m->call;
    const char *target;
    json_t *list;
    size_t i = 0;
    if (call_given_up(call)) {
        missing_free(m);
        return;
    }
    if (rc < 0) {
        missing_free(m);
        reply_error(call, rc, err);
        return;
    }
    json_object_foreach(m->places, target, list)
    {
        m->failed = (missing[i++] && note(list, target) < 0) || m->failed;
    }
    reply_json(call, m->status, m->failed ? NULL : un_steal(&m->body));
    missing_free(m);
}

void missing_reply(struct missing *m, struct api_call *call, unsigned status, json_t *body)
{
    size_t count = m ? json_object_size(m->places) : 0, i = 0;
    const char *target;
    json_t *list;
    bool ok = m && body && !m->failed;
    if (ok && count > 0) {
        ok = (m->targets = calloc(count, sizeof(*m->targets))) != NULL;
    }
    if (!ok || count == 0) {
        reply_json(call, status, ok ? json_incref(body) : NULL);
        json_decref(body);
        missing_free(m);
        return;
    }
    json_object_foreach(m->places, target, list)
    {
        m->targets[i++] = target;
    }
    m->call = call;
    m->status = status;
    m->body = body;
    function_find_missing(call->api->registry, m->targets, count, on_missing, m);
}
