/* volumes.c - volumes of machine images over HTTP. */
#include <errno.h>
#include <stdio.h>

#include "api/call.h"
#include "api/reply.h"
#include "common/limits.h"
#include "imagestore/volume.h"

/* NULL: no memory. */
static json_t *volume_json(const struct volume_info *v)
{
    json_t *used_by = json_array();
    if (v->used_by[0]) {
        reply_add(&used_by, json_string(v->used_by));
    }
    return json_pack("{s:s, s:s, s:I, s:I, s:o, s:o, s:o}", "name", v->name, "format", v->format,
                     "size", (json_int_t)v->size_bytes, "allocated", (json_int_t)v->allocated_bytes,
                     "image", v->image[0] ? json_string(v->image) : json_null(), "used_by", used_by,
                     "created_at", reply_time(v->created_us));
}

static void on_made(void *arg, int rc, const struct volume_info *info, bool created,
                    const struct un_error *err)
{
    struct api_call *call = arg;
    if (reply_if_failed(call, rc, err)) {
        return;
    }
    if (created && call->ex) {
        char location[128];
        snprintf(location, sizeof(location), "/api/v1/volumes/%s", info->name);
        http_respond_field(call->ex, "Location", location);
    }
    reply_json(call, created ? 201 : 200, volume_json(info));
}

void rest_volume_put(struct api_call *call)
{
    static const char *const keys[] = {"size_mib", "image", NULL};
    struct un_error err = UN_ERROR_INIT;
    struct volume_spec spec = {.name = call->match.params[0]};
    int64_t mib = 0;
    un_autojson json_t *j = call_json(call);
    if (!j) {
        return;
    }
    int rc = un_json_only_keys(j, keys, &err);
    rc = rc ? rc : un_json_get_int(j, "size_mib", 1, LIMIT_VOLUME_MIB, &mib, &err);
    rc = rc ? rc : un_json_get_str(j, "image", &spec.image, &err);
    if (reply_if_failed(call, rc, &err)) {
        return;
    }
    spec.size_bytes = (uint64_t)mib << 20;
    volume_create(call->api->images, &spec, on_made, call);
}

static void on_volume(void *arg, int rc, const struct volume_info *info, bool created,
                      const struct un_error *err)
{
    struct api_call *call = arg;
    (void)created;
    if (!reply_if_failed(call, rc, err)) {
        reply_json(call, 200, volume_json(info));
    }
}

void rest_volume_get(struct api_call *call)
{
    volume_get(call->api->images, call->match.params[0], on_volume, call);
}

static void on_list(void *arg, int rc, const struct volume_info *list, size_t count,
                    const struct un_error *err)
{
    struct api_call *call = arg;
    if (reply_if_failed(call, rc, err)) {
        return;
    }
    json_t *items = json_array();
    for (size_t i = 0; i < count; i++) {
        reply_add(&items, volume_json(&list[i]));
    }
    reply_json(call, 200, reply_page(items, NULL));
}

void rest_volume_list(struct api_call *call)
{
    volume_list(call->api->images, on_list, call);
}

static void on_removed(void *arg, int rc, const struct un_error *err)
{
    struct api_call *call = arg;
    if (!reply_if_failed(call, rc, err)) {
        reply_empty(call, 204);
    }
}

void rest_volume_remove(struct api_call *call)
{
    volume_remove(call->api->images, call->match.params[0], on_removed, call);
}
