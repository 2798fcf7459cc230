/* tags.c - tags of images over HTTP, and the "tags" of every image that is told. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "api/call.h"
#include "api/reply.h"
#include "api/watch.h"

/* --- the tags of images ----------------------------------------------------------------------- */

struct tags_flow {
    struct api_call *call;
    json_t *answer;
    unsigned status;
};

/* {"<digest>": ["<tag>", ...], ...}, NULL when out of memory. */
static json_t *tags_by_digest(const struct image_tag_info *list, size_t count)
{
    un_autojson json_t *map = json_object();
    for (size_t i = 0; i < count; i++) {
        json_t *tags = json_object_get(map, list[i].digest);
        if (!tags) {
            tags = json_array();
            if (json_object_set_new(map, list[i].digest, tags) < 0) {
                return NULL;
            }
        }
        if (json_array_append_new(tags, json_string(list[i].tag)) < 0) {
            return NULL;
        }
    }
    return un_steal(&map);
}

static int give_tags(json_t *image, const json_t *map)
{
    const char *digest = json_string_value(json_object_get(image, "digest"));
    json_t *tags = json_object_get(map, digest);
    return tags ? json_object_set(image, "tags", tags)
                : json_object_set_new(image, "tags", json_array());
}

static int give_all(json_t *answer, const json_t *map)
{
    json_t *items = json_object_get(answer, "items");
    json_t *image;
    size_t i;
    int rc = items ? 0 : give_tags(answer, map);
    json_array_foreach(items, i, image)
    {
        rc = rc ? rc : give_tags(image, map);
    }
    return rc;
}

static void on_image_tags(void *arg, int rc, const struct image_tag_info *list, size_t count,
                          const struct un_error *err)
{
    struct tags_flow *f = arg;
    if (rc < 0) {
        reply_error(f->call, rc, err);
    } else {
        un_autojson json_t *map = tags_by_digest(list, count);
        bool complete = map && give_all(f->answer, map) == 0;
        reply_json(f->call, f->status, complete ? un_steal(&f->answer) : NULL);
    }
    json_decref(f->answer);
    free(f);
}

void tags_reply(struct api_call *call, unsigned status, json_t *answer)
{
    const char *digest = json_string_value(json_object_get(answer, "digest")); /* NULL: a page */
    struct tags_flow *f = NULL;
    if (!answer || !(f = malloc(sizeof(*f)))) {
        json_decref(answer);
        reply_json(call, status, NULL);
        return;
    }
    if (call_given_up(call)) {
        json_decref(answer);
        free(f);
        return;
    }
    *f = (struct tags_flow){.call = call, .answer = answer, .status = status};
    image_tag_list(call->api->images, digest, on_image_tags, f);
}

/* --- tags as such ----------------------------------------------------------------------------- */

static json_t *tag_json(const char *tag, const char *digest)
{
    return json_pack("{s:s, s:s}", "tag", tag, "digest", digest);
}

static void on_list(void *arg, int rc, const struct image_tag_info *list, size_t count,
                    const struct un_error *err)
{
    struct api_call *call = arg;
    if (reply_if_failed(call, rc, err)) {
        return;
    }
    json_t *items = json_array();
    for (size_t i = 0; i < count; i++) {
        reply_add(&items, tag_json(list[i].tag, list[i].digest));
    }
    reply_json(call, 200, reply_page(items, NULL));
}

void rest_tag_list(struct api_call *call)
{
    image_tag_list(call->api->images, NULL, on_list, call);
}

static void on_tagged(void *arg, int rc, const struct un_error *err)
{
    struct api_call *call = arg;
    if (!reply_if_failed(call, rc, err)) {
        watch_image(call->api, "tagged", call->match.params[1], call->match.params[0]);
        reply_json(call, 200, tag_json(call->match.params[0], call->match.params[1]));
    }
}

void rest_tag_put(struct api_call *call)
{
    static const char *const keys[] = {"digest", NULL};
    struct un_error err = UN_ERROR_INIT;
    const char *digest = NULL;
    un_autojson json_t *j = call_json(call);
    if (!j) {
        return;
    }
    int rc = un_json_only_keys(j, keys, &err);
    rc = rc ? rc : un_json_get_str(j, "digest", &digest, &err);
    if (rc == 0 && (!digest || !image_digest_valid(digest))) {
        rc = un_error_set(&err, -EINVAL, "digest: must be sha256:<64 hex digits>");
    }
    if (reply_if_failed(call, rc, &err)) {
        return;
    }
    snprintf(call->match.params[1], ROUTE_PARAM_SIZE, "%s", digest); /* kept for the answer */
    image_tag(call->api->images, call->match.params[0], digest, on_tagged, call);
}

static void on_removed(void *arg, int rc, const struct un_error *err)
{
    struct api_call *call = arg;
    if (!reply_if_failed(call, rc, err)) {
        watch_image(call->api, "untagged", NULL, call->match.params[0]);
        reply_empty(call, 204);
    }
}

void rest_tag_remove(struct api_call *call)
{
    image_untag(call->api->images, call->match.params[0], on_removed, call);
}
