/* deadletters.c - the events that were given up (scheduler/async/async.h). */
#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "api/call.h"
#include "api/reply.h"
#include "common/id.h"
#include "scheduler/async/async.h"

/* --- as JSON ---------------------------------------------------------------------------------- */

static json_t *letter_json(const struct deadletter *d)
{
    return json_pack("{s:s, s:s, s:s?, s:s?, s:o, s:o, s:s, s:I, s:o, s:o, s:I, s:o}", "id", d->id,
                     "function", d->function, "qualifier", d->qualifier, "trigger", d->trigger,
                     "url", un_json_string(d->url), "reason", un_json_string(d->reason), "outcome",
                     d->outcome, "attempts", (json_int_t)d->attempts, "accepted_at",
                     reply_time(d->accepted_at_us), "died_at", reply_time(d->died_at_us), "bytes",
                     (json_int_t)d->body_len, "content_type", un_json_string(d->content_type));
}

/* {"name": "value", ...} of "name: value\r\n" lines; of several with one name the last. */
static json_t *fields_json(const char *fields)
{
    json_t *object = json_object();
    un_autofree char *text = strdup(fields);
    char *rest = text, *line;
    while (text && (line = strsep(&rest, "\r\n")) != NULL) {
        char *colon = strstr(line, ": ");
        if (colon) {
            *colon = '\0';
            json_object_set_new(object, line, un_json_string(colon + 2));
        }
    }
    return object;
}

/* "body" when it is UTF-8, else "body_base64". */
static int add_body(json_t *letter, const struct deadletter *d)
{
    json_t *body = json_stringn(d->body_len ? d->body : "", d->body_len);
    if (body) {
        return json_object_set_new(letter, "body", body);
    }
    un_autofree char *text = malloc(d->body_len / 3 * 4 + 8);
    if (!text) {
        return -1;
    }
    EVP_EncodeBlock((unsigned char *)text, d->body, (int)d->body_len);
    return json_object_set_new(letter, "body_base64", json_string(text));
}

/* --- asking ----------------------------------------------------------------------------------- */

static void on_list(void *arg, int rc, const struct deadletter *list, size_t count,
                    const struct un_error *err)
{
    struct api_call *call = arg;
    if (reply_if_failed(call, rc, err)) {
        return;
    }
    json_t *items = json_array();
    for (size_t i = 0; i < count; i++) {
        reply_add(&items, letter_json(&list[i]));
    }
    const char *next = count && count == call->number ? list[count - 1].id : NULL;
    reply_json(call, 200, reply_page(items, next));
}

/* ?function= and ?trigger=; replies 400 and returns false when they are malformed. */
static bool read_filter(struct api_call *call, char function[64], char trigger[64])
{
    if (route_query(call->match.query, "function", function, 64) < 0 ||
        route_query(call->match.query, "trigger", trigger, 64) < 0) {
        reply_problem(call, 400, "function or trigger: malformed");
        return false;
    }
    return true;
}

void rest_deadletter_list(struct api_call *call)
{
    char function[64] = "", trigger[64] = "", cursor[UN_ID_SIZE] = "";
    unsigned limit;
    if (!call_page(call, &limit, cursor, sizeof(cursor)) || !read_filter(call, function, trigger)) {
        return;
    }
    if (*cursor && !un_id_valid(cursor)) {
        reply_problem(call, 400, "cursor: malformed");
        return;
    }
    const struct deadletter_query query = {.function = function,
                                           .trigger = trigger,
                                           .before_id = *cursor ? cursor : NULL,
                                           .limit = limit};
    call->number = limit;
    deadletter_list(call->api->scheduler, &query, on_list, call);
}

static void on_one(void *arg, int rc, const struct deadletter *list, size_t count,
                   const struct un_error *err)
{
    struct api_call *call = arg;
    if (reply_if_failed(call, rc, err)) {
        return;
    }
    un_autojson json_t *letter = letter_json(list);
    bool complete = letter &&
                    json_object_set_new(letter, "headers", fields_json(list->fields)) == 0 &&
                    add_body(letter, list) == 0;
    reply_json(call, 200, complete ? un_steal(&letter) : NULL);
}

/* Replies 404 and returns false when the id can be no dead letter's. */
static bool check_id(struct api_call *call)
{
    if (!un_id_valid(call->match.params[0])) {
        reply_problem(call, 404, "this is no dead letter's id");
        return false;
    }
    return true;
}

void rest_deadletter_get(struct api_call *call)
{
    if (check_id(call)) {
        deadletter_get(call->api->scheduler, call->match.params[0], on_one, call);
    }
}

/* --- changing --------------------------------------------------------------------------------- */

static void tell_count(void *arg, int rc, const char *key, uint64_t count,
                       const struct un_error *err)
{
    struct api_call *call = arg;
    if (!reply_if_failed(call, rc, err)) {
        reply_json(call, 200, json_pack("{s:I}", key, (json_int_t)count));
    }
}

static void on_redriven(void *arg, int rc, uint64_t count, const struct un_error *err)
{
    tell_count(arg, rc, "redriven", count, err);
}

void rest_deadletter_redrive(struct api_call *call)
{
    if (check_id(call)) {
        deadletter_redrive(call->api->scheduler, call->match.params[0], on_redriven, call);
    }
}

/* All that ?function= and ?trigger= leave. */
static void change_all(struct api_call *call, deadletter_cb cb,
                       void (*change)(struct scheduler *s, const struct deadletter_query *query,
                                      deadletter_cb cb, void *arg))
{
    char function[64] = "", trigger[64] = "";
    if (read_filter(call, function, trigger)) {
        const struct deadletter_query query = {.function = function, .trigger = trigger};
        change(call->api->scheduler, &query, cb, call);
    }
}

void rest_deadletter_redrive_all(struct api_call *call)
{
    change_all(call, on_redriven, deadletter_redrive_all);
}

static void on_removed(void *arg, int rc, uint64_t count, const struct un_error *err)
{
    struct api_call *call = arg;
    if (!reply_if_failed(call, rc, err)) {
        reply_empty(call, 204);
    }
}

void rest_deadletter_remove(struct api_call *call)
{
    if (check_id(call)) {
        deadletter_remove(call->api->scheduler, call->match.params[0], on_removed, call);
    }
}

static void on_all_removed(void *arg, int rc, uint64_t count, const struct un_error *err)
{
    tell_count(arg, rc, "removed", count, err);
}

void rest_deadletter_remove_all(struct api_call *call)
{
    change_all(call, on_all_removed, deadletter_remove_all);
}
