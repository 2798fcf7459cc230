/* image.c - unictl image ls, push, rm, tag, untag. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/api.h"
#include "cli/push.h"
#include "cli/show.h"
#include "common/cleanup.h"

/* Shorter beginnings of a digest are more likely a slip than a name. */
enum { PREFIX_LEAST = 8 };

/* --- listing ---------------------------------------------------------------------------------- */

static const char *const image_heads[] = {"DIGEST",  "KIND", ">SIZE", ">VERSIONS",
                                          "CREATED", "TAGS", NULL};

/* What the table shows of an image's tags; next to them, as its text must live as long as the
 * listing. */
#define TAGS_TEXT "tags_text"

static int join_tags(json_t *image)
{
    un_autobuf struct un_buf text = {0};
    const json_t *tags = json_object_get(image, "tags");
    size_t at;
    json_t *tag;
    int rc = 0;
    json_array_foreach(tags, at, tag)
    {
        const char *name = json_string_value(tag);
        rc = rc ? rc : un_buf_printf(&text, "%s%s", at ? ", " : "", name ? name : "");
    }
    if (rc == 0 && text.len &&
        json_object_set_new(image, TAGS_TEXT, json_string((const char *)text.data)) < 0) {
        rc = -ENOMEM;
    }
    return rc;
}

static void fill_image(const json_t *i, struct show_row *row)
{
    row->cell[0] = api_str(i, "digest"); /* whole: `image rm` and `deploy` want it whole */
    row->cell[1] = api_str(i, "kind");
    row->cell[2] = table_size(api_uint(i, "size"), row->text[2]);
    row->cell[3] = show_number(i, "function_versions", row->text[3]);
    row->cell[4] = show_ago(api_str(i, "created_at"), row->text[4]);
    row->cell[5] = json_string_value(json_object_get(i, TAGS_TEXT));
}

int verb_image_ls(struct cli_call *call)
{
    un_autojson json_t *list = NULL;
    int status = api_call(call, "GET", "/api/v1/images", NULL, &list);
    size_t at;
    json_t *image;
    int rc = 0;
    if (status == CLI_DONE && !call->json) {
        json_array_foreach(json_object_get(list, "items"), at, image)
        {
            rc = rc ? rc : join_tags(image);
        }
    }
    if (status != CLI_DONE || rc < 0) {
        return rc < 0 ? cli_fail_output(rc) : status;
    }
    return show_list(call, list, image_heads, fill_image);
}

/* --- naming an image -------------------------------------------------------------------------- */

/* The hexadecimal digits of the beginning of a digest, or NULL when `s` cannot be one. */
static const char *digest_prefix(const char *s)
{
    const char *hex = strncmp(s, "sha256:", 7) == 0 ? s + 7 : s;
    size_t len = strspn(hex, "0123456789abcdef");
    return len >= PREFIX_LEAST && len <= 64 && hex[len] == '\0' ? hex : NULL;
}

static bool has_tag(const json_t *image, const char *tag)
{
    size_t at;
    json_t *t;
    json_array_foreach(json_object_get(image, "tags"), at, t)
    {
        if (json_is_string(t) && strcmp(json_string_value(t), tag) == 0) {
            return true;
        }
    }
    return false;
}

/* Finds the one image that `ref` names in the listing: by tag if `by_tag`, or by the beginning of
 * its digest. */
static int pick_image(const json_t *list, const char *ref, bool by_tag, char ret[PUSH_DIGEST_SIZE])
{
    const char *prefix = digest_prefix(ref);
    size_t at, matches = 0;
    json_t *image;
    json_array_foreach(json_object_get(list, "items"), at, image)
    {
        const char *digest = api_str(image, "digest");
        bool tagged = by_tag && has_tag(image, ref);
        if (!push_is_digest(digest)) {
            continue;
        }
        if (tagged || (prefix && strncmp(digest + 7, prefix, strlen(prefix)) == 0)) {
            memcpy(ret, digest, PUSH_DIGEST_SIZE);
            matches++;
        }
        if (tagged) {
            return CLI_DONE; /* a tag that reads like a digest is a tag */
        }
    }
    if (matches > 1) {
        return cli_fail(CLI_REFUSED, "'%s' is the beginning of %zu images' digests", ref, matches);
    }
    return matches ? CLI_DONE : cli_fail(CLI_REFUSED, "no image %s: see unictl image ls", ref);
}

/* The digest of the image that an operand names. An exit status, reported. */
static int find_image(const struct cli_call *call, const char *ref, bool by_tag,
                      char ret[PUSH_DIGEST_SIZE])
{
    un_autojson json_t *list = NULL;
    if (push_is_digest(ref)) {
        memcpy(ret, ref, PUSH_DIGEST_SIZE);
        return CLI_DONE;
    }
    if (!by_tag && !digest_prefix(ref)) {
        return cli_usage(call, "'%s' is no digest: see unictl image ls", ref);
    }
    int status = api_call(call, "GET", "/api/v1/images", NULL, &list);
    return status == CLI_DONE ? pick_image(list, ref, by_tag, ret) : status;
}

/* --- changing --------------------------------------------------------------------------------- */

int verb_image_push(struct cli_call *call)
{
    un_autojson json_t *image = NULL;
    int status = push_file(call, call->args.operands[0], args_get(&call->args, "tag"), &image);
    if (status != CLI_DONE || call->json) {
        return status != CLI_DONE ? status : cli_print_json(image);
    }
    un_autobuf struct un_buf out = {0};
    int rc = un_buf_printf(&out, "%s\n", api_str(image, "digest"));
    return rc < 0 ? cli_fail_output(rc) : cli_print(&out);
}

int verb_image_rm(struct cli_call *call)
{
    un_autojson json_t *removed = json_pack("{s:[]}", "removed");
    int worst = removed ? CLI_DONE : cli_fail(CLI_REFUSED, "out of memory");
    for (size_t i = 0; removed && i < call->args.operand_count; i++) {
        char digest[PUSH_DIGEST_SIZE] = "";
        int status = find_image(call, call->args.operands[i], false, digest);
        if (status == CLI_DONE) {
            un_autojson json_t *answer = NULL;
            un_autofree char *path = api_path("/api/v1/images/%s", digest);
            status = api_call(call, "DELETE", path, NULL, &answer);
        }
        if (status == CLI_DONE) {
            json_array_append_new(json_object_get(removed, "removed"), json_string(digest));
            if (!call->json) {
                printf("%s\n", digest);
            }
        }
        worst = worst == CLI_DONE ? status : worst;
    }
    return worst == CLI_DONE && call->json ? cli_print_json(removed) : worst;
}

int verb_image_tag(struct cli_call *call)
{
    char digest[PUSH_DIGEST_SIZE];
    const char *tag = call->args.operands[1];
    un_autojson json_t *answer = NULL;
    int status = find_image(call, call->args.operands[0], true, digest);
    if (status == CLI_DONE) {
        status = push_set_tag(call, tag, digest, &answer);
    }
    if (status != CLI_DONE || call->json) {
        return status != CLI_DONE ? status : cli_print_json(answer);
    }
    un_autobuf struct un_buf out = {0};
    int rc = un_buf_printf(&out, "%s -> %s\n", tag, digest);
    return rc < 0 ? cli_fail_output(rc) : cli_print(&out);
}

int verb_image_untag(struct cli_call *call)
{
    const char *tag = call->args.operands[0];
    un_autofree char *path = api_path("/api/v1/tags/%s", tag);
    un_autojson json_t *answer = NULL;
    int status = api_call(call, "DELETE", path, NULL, &answer);
    if (status != CLI_DONE) {
        return status;
    }
    if (call->json) {
        un_autojson json_t *removed = json_pack("{s:[s]}", "removed", tag);
        return removed ? cli_print_json(removed) : cli_fail(CLI_REFUSED, "out of memory");
    }
    un_autobuf struct un_buf out = {0};
    int rc = un_buf_printf(&out, "%s\n", tag);
    return rc < 0 ? cli_fail_output(rc) : cli_print(&out);
}
