/* images.c - images over HTTP; their tags: tags.c. Uploads and downloads stream; nothing is held whole.
 */
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/call.h"
#include "api/reply.h"
#include "api/watch.h"

enum { SHA256_BYTES = 32, SHA256_BASE64 = 44 };

static json_t *image_json(const struct image_info *info)
{
    return json_pack("{s:s, s:s, s:I, s:o, s:i}", "digest", info->digest, "kind",
                     image_kind_name(info->kind), "size", (json_int_t)info->size_bytes,
                     "created_at", reply_time(info->created_us), "function_versions",
                     (int)info->function_versions);
}

/* --- push ------------------------------------------------------------------------------------- */

struct push {
    struct api_call *call;
    struct image_upload *upload;
    char tag[IMAGE_TAG_SIZE]; /* "" for none */
    json_t *answer;           /* while the tag is set */
    unsigned status;
    bool finished; /* all bytes have been handed over */
};

static void push_free(struct push *p)
{
    json_decref(p->answer);
    free(p);
}

static void push_body(void *arg, const void *data, size_t len)
{
    struct push *p = arg;
    if (p->upload && image_upload_data(p->upload, data, len) == 0 && p->upload && p->call->ex) {
        http_body_pause(p->call->ex);
    }
}

static void push_body_end(void *arg)
{
    struct push *p = arg;
    p->finished = true;
    if (p->upload) {
        image_upload_finish(p->upload);
    }
}

static void push_gone(void *arg)
{
    struct push *p = arg;
    p->call->ex = NULL;
    if (p->upload && !p->finished) {
        image_upload_abort(p->upload);
        call_free(p->call);
        push_free(p);
    } /* else the upload ends in push_done, or the tag in push_tagged */
}

static const struct http_handler push_handler = {
    .on_body = push_body, .on_body_end = push_body_end, .on_gone = push_gone};

static void push_room(void *arg)
{
    struct push *p = arg;
    if (p->call->ex) {
        http_body_resume(p->call->ex);
    }
}

static void push_tagged(void *arg, int rc, const struct un_error *err)
{
    struct push *p = arg;
    if (rc < 0) {
        reply_error(p->call, rc, err);
    } else {
        watch_image(p->call->api, "tagged", json_string_value(json_object_get(p->answer, "digest")),
                    p->tag);
        json_object_set_new(p->answer, "tag", json_string(p->tag));
        tags_reply(p->call, p->status, un_steal(&p->answer));
    }
    push_free(p);
}

static void push_done(void *arg, int rc, const struct image_info *info, bool created,
                      const struct un_error *err)
{
    struct push *p = arg;
    p->upload = NULL;
    p->finished = true;
    if (rc < 0) {
        reply_error(p->call, rc, err);
        push_free(p);
        return;
    }
    if (created) {
        watch_image(p->call->api, "pushed", info->digest, NULL);
    }
    p->status = created ? 201 : 200;
    p->answer = image_json(info);
    if (p->tag[0] && p->answer && (p->call->ex || !p->call->api->closed)) {
        image_tag(p->call->api->images, p->tag, info->digest, push_tagged, p);
        return;
    }
    tags_reply(p->call, p->status, un_steal(&p->answer));
    push_free(p);
}

static const struct image_upload_events push_events = {.on_room = push_room, .on_done = push_done};

/* "sha-256=:<base64>:" out of a Content-Digest field (RFC 9530 section 2). 1 found, 0 none of that
 * algorithm, -EINVAL malformed. */
static int content_digest(const char *field, char out[IMAGE_DIGEST_SIZE])
{
    unsigned char raw[SHA256_BASE64 / 4 * 3];
    const char *at = strstr(field, "sha-256=:");
    if (!at) {
        return 0;
    }
    at += 9;
    if (strcspn(at, ":") != SHA256_BASE64 || at[SHA256_BASE64] != ':' ||
        EVP_DecodeBlock(raw, (const unsigned char *)at, SHA256_BASE64) != (int)sizeof(raw) ||
        at[SHA256_BASE64 - 1] != '=' || at[SHA256_BASE64 - 2] == '=') {
        return -EINVAL;
    }
    memcpy(out, "sha256:", 7);
    un_hex_encode(raw, SHA256_BYTES, out + 7);
    return 1;
}

/* What the client says the digest is. 1, 0 it says nothing, -EINVAL. */
static int declared_digest(struct api_call *call, char out[IMAGE_DIGEST_SIZE])
{
    char query[IMAGE_DIGEST_SIZE], header[IMAGE_DIGEST_SIZE];
    const char *field = http_request_field(http_exchange_request(call->ex), "content-digest");
    int q = route_query(call->match.query, "digest", query, sizeof(query));
    int h = field ? content_digest(field, header) : 0;
    if (q < 0 || h < 0 || (q && !image_digest_valid(query)) || (q && h && strcmp(query, header))) {
        return -EINVAL;
    }
    if (q || h) {
        memcpy(out, q ? query : header, IMAGE_DIGEST_SIZE);
    }
    return q || h;
}

/* Refuses what can be refused from the head. */
static bool push_check(struct api_call *call, char *tag, char *digest, int *ret_declared)
{
    const struct http_request *req = http_exchange_request(call->ex);
    *ret_declared = declared_digest(call, digest);
    if (*ret_declared < 0) {
        reply_problem(call, 400,
                      "the declared digest must be sha256:<64 hex digits>, or a Content-Digest "
                      "of sha-256=:<base64>:");
        return false;
    }
    if (route_query(call->match.query, "tag", tag, IMAGE_TAG_SIZE) < 0) {
        reply_problem(call, 400, "tag: 1 to 128 of A-Z a-z 0-9 _ . - / :");
        return false;
    }
    if (!http_exchange_has_body(call->ex)) {
        reply_problem(call, 400, "the image's bytes are missing");
        return false;
    }
    if (req->content_length > 0 && (uint64_t)req->content_length > call->api->max_image_bytes) {
        reply_problem(call, 413, "the image is larger than images.max_bytes");
        return false;
    }
    return true;
}

void rest_image_push(struct api_call *call)
{
    char tag[IMAGE_TAG_SIZE] = "", digest[IMAGE_DIGEST_SIZE];
    struct un_error err = UN_ERROR_INIT;
    int declared;
    if (!push_check(call, tag, digest, &declared)) {
        return;
    }
    struct push *p = calloc(1, sizeof(*p));
    if (!p) {
        reply_problem(call, 500, "no memory for the upload");
        return;
    }
    p->call = call;
    memcpy(p->tag, tag, sizeof(tag));
    struct image_upload_spec spec = {.declared_size =
                                         http_exchange_request(call->ex)->content_length,
                                     .declared_digest = declared ? digest : NULL,
                                     .events = &push_events,
                                     .arg = p};
    int rc = image_upload_start(call->api->images, &spec, &p->upload, &err);
    if (rc < 0) {
        reply_error(call, rc, &err);
        push_free(p);
        return;
    }
    http_exchange_handle(call->ex, &push_handler, p);
    http_body_resume(call->ex);
}

/* --- pull ------------------------------------------------------------------------------------- */

struct pull {
    struct http_exchange *ex;
    struct image_reader *reader;
    bool held; /* image_read_next is owed */
};

static void pull_writable(void *arg)
{
    struct pull *p = arg;
    if (p->held) {
        p->held = false;
        image_read_next(p->reader);
    }
}

static void pull_gone(void *arg)
{
    struct pull *p = arg;
    image_read_abort(p->reader);
    free(p);
}

static const struct http_handler pull_handler = {.on_writable = pull_writable,
                                                 .on_gone = pull_gone};

static void pull_data(void *arg, const void *data, size_t len)
{
    struct pull *p = arg;
    if (http_respond_data(p->ex, data, len)) {
        image_read_next(p->reader);
    } else {
        p->held = true;
    }
}

static void pull_end(void *arg, int rc, const struct un_error *err)
{
    struct pull *p = arg;
    (void)err;
    if (rc < 0) {
        http_exchange_abort(p->ex); /* the head has promised the whole image */
    } else {
        http_respond_end(p->ex);
    }
    free(p);
}

static const struct image_read_events pull_events = {.on_data = pull_data, .on_end = pull_end};

static void set_content_digest(struct http_exchange *ex, const char *digest)
{
    uint8_t raw[SHA256_BYTES];
    unsigned char base64[SHA256_BASE64 + 1];
    char field[SHA256_BASE64 + 16];
    if (un_hex_decode(digest + 7, 64, raw, sizeof(raw))) {
        EVP_EncodeBlock(base64, raw, sizeof(raw));
        snprintf(field, sizeof(field), "sha-256=:%s:", (char *)base64);
        http_respond_field(ex, "Content-Digest", field);
    }
}

static void pull_start(struct api_call *call, const struct image_info *info)
{
    struct un_error err = UN_ERROR_INIT;
    struct pull *p = calloc(1, sizeof(*p));
    int rc =
        p ? image_read_start(call->api->images, info->digest, &pull_events, p, &p->reader, &err)
          : -ENOMEM;
    if (rc < 0) {
        free(p);
        reply_error(call, rc, &err);
        return;
    }
    struct http_exchange *ex = p->ex = call_take_exchange(call);
    http_exchange_handle(ex, &pull_handler, p);
    http_respond_field(ex, "Content-Type", "application/octet-stream");
    set_content_digest(ex, info->digest);
    http_respond_begin(ex, 200, (int64_t)info->size_bytes);
}

static void pull_info(void *arg, int rc, const struct image_info *info, const struct un_error *err)
{
    struct api_call *call = arg;
    if (reply_if_failed(call, rc, err)) {
        return;
    }
    if (!call->ex) {
        call_free(call);
        return;
    }
    if (strcmp(http_exchange_request(call->ex)->method, "HEAD") != 0) {
        pull_start(call, info);
        return;
    }
    set_content_digest(call->ex, info->digest);
    http_respond_field(call->ex, "Content-Type", "application/octet-stream");
    http_respond_begin(call->ex, 200, (int64_t)info->size_bytes);
    http_respond_end(call_take_exchange(call));
}

void rest_image_pull(struct api_call *call)
{
    image_get(call->api->images, call->match.params[0], pull_info, call);
}

/* --- the rest --------------------------------------------------------------------------------- */

static void on_info(void *arg, int rc, const struct image_info *info, const struct un_error *err)
{
    struct api_call *call = arg;
    if (!reply_if_failed(call, rc, err)) {
        tags_reply(call, 200, image_json(info));
    }
}

void rest_image_get(struct api_call *call)
{
    image_get(call->api->images, call->match.params[0], on_info, call);
}

/* --- check: what preparing a Linux program finds ------------------------------------------------ */

/* {"digest", "kind", "runs", "error", "report"}. `report` is JSON text, NULL: none. */
static json_t *check_json(const char *digest, enum image_kind kind, const char *error,
                          const char *report, size_t report_size)
{
    json_t *found = report ? json_loadb(report, report_size, 0, NULL) : NULL;
    return json_pack("{s:s, s:s, s:b, s:o, s:o}", "digest", digest, "kind", image_kind_name(kind),
                     "runs", error == NULL, "error", un_json_string(error), "report",
                     found ? found : json_null());
}

struct image_check {
    struct api_call *call;
    char digest[IMAGE_DIGEST_SIZE];
    enum image_kind kind;
};

static void on_check_opened(void *arg, int rc, struct image_mapping *mapping,
                            const struct un_error *err)
{
    struct image_check *c = arg;
    if (rc == 0) {
        reply_json(c->call, 200,
                   check_json(c->digest, c->kind, NULL, mapping->report, mapping->report_size));
        image_unref(mapping);
    } else if (rc == -EINVAL || rc == -EFBIG) {
        const char *report = image_failure_report(c->call->api->images, c->digest);
        reply_json(c->call, 200,
                   check_json(c->digest, c->kind, err->text, report, report ? strlen(report) : 0));
    } else {
        reply_error(c->call, rc, err);
    }
    free(c);
}

static void on_judged(void *arg, int rc, const char *report, const struct un_error *err)
{
    struct image_check *c = arg;
    if (rc == 0 || rc == -EINVAL || rc == -EFBIG) {
        reply_json(c->call, 200,
                   check_json(c->digest, c->kind, rc ? err->text : NULL, report,
                              report ? strlen(report) : 0));
    } else {
        reply_error(c->call, rc, err);
    }
    free(c);
}

static void on_check_info(void *arg, int rc, const struct image_info *info,
                          const struct un_error *err)
{
    struct api_call *call = arg;
    struct un_error why = UN_ERROR_INIT;
    if (call_given_up(call)) {
        return;
    }
    if (reply_if_failed(call, rc, err)) {
        return;
    }
    const char *program = call->match.params[1];
    if (*program && info->kind != IMAGE_LINUX_ROOTFS) {
        reply_problem(call, 400, "program: only a root file system has more programs than one");
        return;
    }
    if (!image_kind_is_linux(info->kind)) {
        bool runs = sched_can_run(call->api->scheduler, info->kind, &why) == 0;
        reply_json(call, 200,
                   check_json(info->digest, info->kind, runs ? NULL : why.text, NULL, 0));
        return;
    }
    struct image_check *c = calloc(1, sizeof(*c));
    if (!c) {
        reply_error(call, -ENOMEM, NULL);
        return;
    }
    c->call = call;
    c->kind = info->kind;
    memcpy(c->digest, info->digest, sizeof(c->digest));
    if (*program) {
        image_judge(call->api->images, info->digest, program, on_judged, c);
    } else {
        image_open(call->api->images, info->digest, on_check_opened, c);
    }
}

void rest_image_check(struct api_call *call)
{
    char *program = call->match.params[1];
    int rc = route_query(call->match.query, "program", program, ROUTE_PARAM_SIZE);
    if (rc < 0 || (rc > 0 && *program != '/')) {
        reply_problem(call, 400, "program: must be an absolute path, of at most 255 bytes");
        return;
    }
    image_get(call->api->images, call->match.params[0], on_check_info, call);
}

static void on_list(void *arg, int rc, const struct image_info *list, size_t count,
                    const struct un_error *err)
{
    struct api_call *call = arg;
    if (reply_if_failed(call, rc, err)) {
        return;
    }
    json_t *items = json_array();
    for (size_t i = 0; i < count; i++) {
        reply_add(&items, image_json(&list[i]));
    }
    tags_reply(call, 200, reply_page(items, NULL));
}

void rest_image_list(struct api_call *call)
{
    image_list(call->api->images, on_list, call);
}

static void on_removed(void *arg, int rc, const struct un_error *err)
{
    struct api_call *call = arg;
    if (!reply_if_failed(call, rc, err)) {
        watch_image(call->api, "removed", call->match.params[0], NULL);
        reply_empty(call, 204);
    }
}

void rest_image_remove(struct api_call *call)
{
    if (!image_digest_valid(call->match.params[0])) {
        reply_problem(call, 400, "an image is removed by its digest, sha256:<64 hex digits>");
        return;
    }
    image_remove(call->api->images, call->match.params[0], on_removed, call);
}
