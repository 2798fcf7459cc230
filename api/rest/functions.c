/* functions.c - functions, versions and aliases over HTTP. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/call.h"
#include "api/door.h"
#include "api/reply.h"
#include "api/watch.h"

/* --- JSON ------------------------------------------------------------------------------------- */

static json_t *list_json(char *const *args)
{
    json_t *list = json_array();
    for (; args && *args; args++) {
        reply_add(&list, un_json_string(*args));
    }
    return list;
}

/* NULL when out of memory. */
static json_t *env_json(char *const *env)
{
    json_t *map = json_object();
    for (; env && *env; env++) {
        const char *eq = strchr(*env, '=');
        un_autofree char *key = eq ? strndup(*env, (size_t)(eq - *env)) : NULL;
        if (eq && (!key || json_object_set_new(map, key, un_json_string(eq + 1)) < 0)) {
            json_decref(map);
            return NULL;
        }
    }
    return map;
}

static json_t *function_json(const struct api *a, const struct function_version *v)
{
    char url[160];
    const struct function_config *c = &v->config;
    snprintf(url, sizeof(url), "%s/fn/%s", a->base_url, v->name);
    return json_pack(
        "{s:s, s:I, s:s, s:s, s:s, s:I, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:b, s:o, s:o, "
        "s:o, "
        "s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
        "name", v->name, "version", (json_int_t)v->version, "url", url, "image", c->image, "kind",
        image_kind_name(v->kind), "image_size", (json_int_t)v->image_size, "interface",
        function_interface_name(c->interface), "driver", function_driver_name(c->driver),
        "isolation", function_isolation_name(c->isolation), "snapshot",
        function_snapshot_name(c->snapshot), "memory_mib", (json_int_t)c->memory_mib, "timeout_ms",
        (json_int_t)c->timeout_ms, "concurrency", (json_int_t)c->concurrency,
        "reserved_concurrency", (json_int_t)c->reserved_concurrency, "list_calls", c->list_calls,
        "args", list_json(c->args), "env", env_json(c->env), "egress", list_json(c->egress),
        "program", un_json_string(c->program), "machine",
        c->machine.set ? machine_config_to_json(&c->machine) : json_null(), "publish",
        list_json(c->publish), "ports", door_ports_json(a->door, v->name), "created_at",
        reply_time(v->created_us), "ready_at", v->ready_us ? reply_time(v->ready_us) : json_null(),
        "failure", un_json_string(v->failure));
}

static json_t *functions_json(const struct api *a, struct function_version *const *list,
                              size_t count)
{
    json_t *items = json_array();
    for (size_t i = 0; i < count; i++) {
        reply_add(&items, function_json(a, list[i]));
    }
    return items;
}

/* Replies 404 for what cannot be a function's name. */
static bool name_ok(struct api_call *call)
{
    if (function_name_valid(call->match.params[0])) {
        return true;
    }
    reply_problem(call, 404, "no such function");
    return false;
}

/* --- deploy: find the image, let the driver prepare it, make the version ---------------------- */

struct deploy {
    struct api_call *call;
    struct function_config config;
    json_t *publish;    /* a copy of the list, whose ports are reserved; NULL: none */
    bool shares_random; /* the program drew random bytes before its snapshot */
};

static void deploy_free(struct deploy *d)
{
    function_config_done(&d->config);
    json_decref(d->publish);
    free(d);
}

/* The ports that have been reserved are the live version's, or nobody's. */
static void settle_ports(struct deploy *d)
{
    const char *list[LIMIT_FUNCTION_PUBLISH + 1] = {NULL};
    for (size_t i = 0; i < json_array_size(d->publish); i++) {
        list[i] = json_string_value(json_array_get(d->publish, i));
    }
    if (d->call->api->door && d->publish) {
        door_settle(d->call->api->door, d->call->match.params[0], (char *const *)list);
    }
}

static void on_deployed(void *arg, int rc, struct function_version *v, bool created,
                        const struct un_error *err)
{
    struct deploy *d = arg;
    struct api_call *call = d->call;
    bool shares_random = d->shares_random;
    settle_ports(d);
    deploy_free(d);
    if (reply_if_failed(call, rc, err)) {
        return;
    }
    watch_function(call->api, "deployed", v->name, v->version, NULL);
    if (created && call->ex) {
        char location[96];
        snprintf(location, sizeof(location), "/api/v1/functions/%s", v->name);
        http_respond_field(call->ex, "Location", location);
    }
    json_t *function = function_json(call->api, v);
    if (shares_random) {
        (void)json_object_set_new(function, "shares_random", json_true());
    }
    reply_json(call, created ? 201 : 200, function);
}

/* Ports first: a version whose ports cannot be opened is not made. */
static void open_ports(struct deploy *d)
{
    struct api_call *call = d->call;
    struct un_error err = UN_ERROR_INIT;
    int rc = 0;
    if (d->config.publish) {
        d->publish = list_json(d->config.publish);
        rc = d->publish
                 ? door_reserve(call->api->door, call->match.params[0], d->config.publish, &err)
                 : un_error_set(&err, -ENOMEM, "no memory");
    }
    if (rc == 0) {
        function_deploy(call->api->registry, call->match.params[0], &d->config, on_deployed, d);
        return;
    }
    deploy_free(d);
    if (rc == -ENOMEM) {
        reply_error(call, rc, &err);
    } else {
        reply_problem(call, 409, err.text);
    }
}

/* What fails before it asks for a request is not deployed. */
static void on_prepared(void *arg, int rc, const struct un_error *err, const char *log_tail,
                        const struct unid_report *counted)
{
    struct deploy *d = arg;
    struct api_call *call = d->call;
    if (call_given_up(call)) {
        deploy_free(d);
        return;
    }
    struct un_error own_err = UN_ERROR_INIT;
    if (rc == 0 && sched_check_reserved(call->api->scheduler, call->match.params[0], &d->config,
                                        &own_err) < 0) {
        reply_error(call, own_err.code, &own_err);
    } else if (rc == 0) {
        d->shares_random = counted && counted->flags & UNID_REPORT_RANDOM;
        open_ports(d);
        return;
    } else if (log_tail) {
        reply_program_problem(call, 422, err->text, log_tail, counted);
    } else {
        reply_error(call, rc, err);
    }
    deploy_free(d);
}

/* The image of a Linux program is prepared, or cannot be. */
static void on_opened(void *arg, int rc, struct image_mapping *mapping, const struct un_error *err)
{
    struct deploy *d = arg;
    struct api_call *call = d->call;
    struct un_error own_err = UN_ERROR_INIT;
    if (rc == 0) {
        rc = function_settle_image(&d->config, mapping, &own_err);
        image_unref(mapping);
        err = &own_err;
    } else if (rc == -EINVAL || rc == -EFBIG) {
        char digest[IMAGE_DIGEST_SIZE];
        memcpy(digest, d->config.image, sizeof(digest));
        deploy_free(d);
        reply_report_problem(call, 422, err->text, image_failure_report(call->api->images, digest));
        return;
    }
    if (rc < 0 || call_given_up(call)) {
        deploy_free(d);
        if (rc < 0) {
            reply_error(call, rc, err);
        }
        return;
    }
    sched_prepare(call->api->scheduler, call->match.params[0], &d->config, on_prepared, d);
}

/* The image is there: is it of a kind that can run, and what is its digest, when the client gave a
 * tag. */
static void on_image(void *arg, int rc, const struct image_info *info, const struct un_error *err)
{
    struct api_call *call = arg;
    struct un_error own_err = UN_ERROR_INIT;
    if (call_given_up(call)) {
        return;
    }
    if (reply_if_failed(call, rc, err)) {
        return;
    }
    rc = sched_can_run(call->api->scheduler, info->kind, &own_err);
    if (rc < 0) {
        reply_error(call, rc, &own_err);
        return;
    }
    struct deploy *d = calloc(1, sizeof(*d));
    rc = d ? function_config_parse(call->body.data, call->body.len, &d->config, &own_err)
           : un_error_set(&own_err, -ENOMEM, "no memory");
    if (rc < 0) {
        free(d);
        reply_error(call, rc, &own_err);
        return;
    }
    rc = function_settle_interface(&d->config, info->kind, &own_err);
    rc = rc < 0 ? rc : sched_check_config(call->api->scheduler, &d->config, &own_err);
    if (rc < 0) {
        deploy_free(d);
        reply_error(call, rc, &own_err);
        return;
    }
    d->call = call;
    memcpy(d->config.image, info->digest, sizeof(d->config.image));
    if (image_kind_is_linux(info->kind)) {
        image_open(call->api->images, info->digest, on_opened, d);
        return;
    }
    sched_prepare(call->api->scheduler, call->match.params[0], &d->config, on_prepared, d);
}

/* Puts `digest` in place of a tag, in the body, so that the registry's own reader gets what it
 * knows. */
static int replace_image(struct api_call *call, json_t *j, const char *digest)
{
    un_autofree char *text = NULL;
    if (json_object_set_new(j, "image", json_string(digest)) < 0 || !(text = un_json_text(j))) {
        return -ENOMEM;
    }
    un_buf_reset(&call->body);
    return un_buf_append_str(&call->body, text);
}

void rest_function_put(struct api_call *call)
{
    struct un_error err = UN_ERROR_INIT;
    const char *image = NULL;
    char check[8];
    if (!function_name_valid(call->match.params[0])) {
        reply_problem(call, 400,
                      "name: 1 to 63 of a-z 0-9 -, beginning with a letter, not ending with -");
        return;
    }
    un_autojson json_t *j = call_json(call);
    if (!j) {
        return;
    }
    int rc = un_json_get_str(j, "image", &image, &err);
    if (rc == 0 && !image) {
        rc = un_error_set(&err, -EINVAL, "image: is missing; give an image's digest or a tag");
    }
    if (rc == 0 && (!*image || strlen(image) >= ROUTE_PARAM_SIZE)) {
        rc = un_error_set(&err, -EINVAL, "image: must be an image's digest or a tag");
    }
    un_autofree char *ref = rc == 0 ? strdup(image) : NULL;
    /* The rest is checked before the image is looked for: a placeholder stands for a tag. */
    static const char placeholder[] =
        "sha256:0000000000000000000000000000000000000000000000000000000000000000";
    struct function_config config;
    if (rc == 0 &&
        (!ref || (!image_digest_valid(ref) && replace_image(call, j, placeholder) < 0))) {
        rc = un_error_set(&err, -ENOMEM, "no memory");
    }
    rc = rc ? rc : function_config_parse(call->body.data, call->body.len, &config, &err);
    if (reply_if_failed(call, rc, &err)) {
        return;
    }
    rc = sched_check_config(call->api->scheduler, &config, &err);
    function_config_done(&config);
    if (reply_if_failed(call, rc, &err)) {
        return;
    }
    if (route_query(call->match.query, "check", check, sizeof(check)) > 0) {
        reply_empty(call, 204); /* the image need not be there yet */
        return;
    }
    image_get(call->api->images, ref, on_image, call);
}

/* --- reading ---------------------------------------------------------------------------------- */

static void on_function(void *arg, int rc, struct function_version *v, const struct un_error *err)
{
    struct api_call *call = arg;
    if (!reply_if_failed(call, rc, err)) {
        reply_json(call, 200, function_json(call->api, v));
    }
}

void rest_function_get(struct api_call *call)
{
    char qualifier[64];
    if (!name_ok(call)) {
        return;
    }
    int rc = route_query(call->match.query, "qualifier", qualifier, sizeof(qualifier));
    if (rc < 0) {
        reply_problem(call, 404, "no such version or alias");
        return;
    }
    function_resolve(call->api->registry, call->match.params[0], rc ? qualifier : NULL, on_function,
                     call);
}

static void on_list(void *arg, int rc, struct function_version *const *list, size_t count,
                    const struct un_error *err)
{
    struct api_call *call = arg;
    if (reply_if_failed(call, rc, err)) {
        return;
    }
    const char *next = count && count == call->number ? list[count - 1]->name : NULL;
    reply_json(call, 200, reply_page(functions_json(call->api, list, count), next));
}

void rest_function_list(struct api_call *call)
{
    unsigned limit;
    char *cursor = call->match.params[0];
    if (!call_page(call, &limit, cursor, ROUTE_PARAM_SIZE)) {
        return;
    }
    call->number = limit;
    function_list(call->api->registry, *cursor ? cursor : NULL, limit, on_list, call);
}

void rest_function_versions(struct api_call *call)
{
    if (name_ok(call)) {
        call->number = 0; /* all come at once */
        function_versions(call->api->registry, call->match.params[0], on_list, call);
    }
}

static void on_removed(void *arg, int rc, const struct un_error *err)
{
    struct api_call *call = arg;
    if (!reply_if_failed(call, rc, err)) {
        watch_function(call->api, "removed", call->match.params[0], 0, NULL);
        reply_empty(call, 204);
    }
}

void rest_function_remove(struct api_call *call)
{
    if (name_ok(call)) {
        function_remove(call->api->registry, call->match.params[0], on_removed, call);
    }
}

/* --- aliases ---------------------------------------------------------------------------------- */

static json_t *alias_json(const char *alias, uint32_t version)
{
    return json_pack("{s:s, s:I}", "alias", alias, "version", (json_int_t)version);
}

static void on_aliases(void *arg, int rc, const struct function_alias *list, size_t count,
                       const struct un_error *err)
{
    struct api_call *call = arg;
    if (reply_if_failed(call, rc, err)) {
        return;
    }
    json_t *items = json_array();
    for (size_t i = 0; i < count; i++) {
        reply_add(&items, alias_json(list[i].alias, list[i].version));
    }
    reply_json(call, 200, reply_page(items, NULL));
}

void rest_alias_list(struct api_call *call)
{
    if (name_ok(call)) {
        function_aliases(call->api->registry, call->match.params[0], on_aliases, call);
    }
}

/* Reads {"version": N} into call->number; 0 when absent. Replies and returns false if it is wrong.
 */
static bool read_version(struct api_call *call)
{
    static const char *const keys[] = {"version", NULL};
    struct un_error err = UN_ERROR_INIT;
    int64_t version = 0;
    un_autojson json_t *j = call_json(call);
    if (!j) {
        return false;
    }
    int rc = un_json_only_keys(j, keys, &err);
    rc = rc ? rc : un_json_get_int(j, "version", 1, UINT32_MAX, &version, &err);
    if (rc < 0) {
        reply_error(call, rc, &err);
        return false;
    }
    call->number = (uint32_t)version;
    return true;
}

static void on_alias_set(void *arg, int rc, const struct un_error *err)
{
    struct api_call *call = arg;
    if (!reply_if_failed(call, rc, err)) {
        watch_function(call->api, "alias", call->match.params[0], call->number,
                       call->match.params[1]);
        reply_json(call, 200, alias_json(call->match.params[1], call->number));
    }
}

void rest_alias_put(struct api_call *call)
{
    if (!name_ok(call)) {
        return;
    }
    if (!function_alias_valid(call->match.params[1])) {
        reply_problem(call, 400,
                      "alias: 1 to 63 of a-z 0-9 -, beginning with a letter, not ending with -");
        return;
    }
    if (!read_version(call)) {
        return;
    }
    if (call->number == 0) {
        reply_problem(call, 400, "version: is missing");
        return;
    }
    function_set_alias(call->api->registry, call->match.params[0], call->match.params[1],
                       call->number, on_alias_set, call);
}

static void on_alias_removed(void *arg, int rc, const struct un_error *err)
{
    struct api_call *call = arg;
    if (!reply_if_failed(call, rc, err)) {
        watch_function(call->api, "alias-removed", call->match.params[0], 0, call->match.params[1]);
        reply_empty(call, 204);
    }
}

void rest_alias_remove(struct api_call *call)
{
    if (name_ok(call)) {
        function_remove_alias(call->api->registry, call->match.params[0], call->match.params[1],
                              on_alias_removed, call);
    }
}

/* --- rollback: find the version, move the alias, tell what is live now ------------------------ */

static void on_rolled_back(void *arg, int rc, const struct un_error *err)
{
    struct api_call *call = arg;
    if (rc == 0) {
        watch_function(call->api, "alias", call->match.params[0], call->number, "live");
    }
    if (call_given_up(call)) {
        return;
    }
    if (!reply_if_failed(call, rc, err)) {
        function_resolve(call->api->registry, call->match.params[0], NULL, on_function, call);
    }
}

static void roll_back(struct api_call *call)
{
    function_set_alias(call->api->registry, call->match.params[0], "live", call->number,
                       on_rolled_back, call);
}

static void on_older(void *arg, int rc, struct function_version *const *list, size_t count,
                     const struct un_error *err)
{
    struct api_call *call = arg;
    uint32_t live = call->number, best = 0;
    if (call_given_up(call)) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        if (list[i]->version < live && list[i]->version > best) {
            best = list[i]->version;
        }
    }
    if (rc < 0) {
        reply_error(call, rc, err);
    } else if (best == 0) {
        reply_problem(call, 409, "there is no version older than the live one");
    } else {
        call->number = best;
        roll_back(call);
    }
}

static void on_live(void *arg, int rc, struct function_version *v, const struct un_error *err)
{
    struct api_call *call = arg;
    if (call_given_up(call)) {
        return;
    }
    if (reply_if_failed(call, rc, err)) {
        return;
    }
    call->number = v->version;
    function_versions(call->api->registry, call->match.params[0], on_older, call);
}

void rest_function_rollback(struct api_call *call)
{
    if (!name_ok(call) || !read_version(call)) {
        return;
    }
    if (call->number) {
        roll_back(call);
    } else {
        function_resolve(call->api->registry, call->match.params[0], NULL, on_live, call);
    }
}
