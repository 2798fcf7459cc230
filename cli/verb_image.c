/* verb_image.c - unictl image ls, push, rm. */
#include <stdio.h>

#include "cli/api.h"
#include "cli/push.h"
#include "cli/show.h"
#include "common/cleanup.h"

static const char *const image_heads[] = {"DIGEST", "KIND", ">SIZE", ">VERSIONS", "CREATED", NULL};

static void fill_image(const json_t *i, struct show_row *row)
{
    row->cell[0] = api_str(i, "digest"); /* whole: `image rm` and `deploy` want it whole */
    row->cell[1] = api_str(i, "kind");
    row->cell[2] = table_size(api_uint(i, "size"), row->text[2]);
    row->cell[3] = show_number(i, "function_versions", row->text[3]);
    row->cell[4] = show_ago(api_str(i, "created_at"), row->text[4]);
}

int verb_image_ls(struct cli_call *call)
{
    un_autojson json_t *list = NULL;
    int status = api_call(call, "GET", "/api/v1/images", NULL, &list);
    return status != CLI_DONE ? status : show_list(call, list, image_heads, fill_image);
}

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
        const char *digest = call->args.operands[i];
        un_autojson json_t *answer = NULL;
        un_autofree char *path = api_path("/api/v1/images/%s", digest);
        int status = push_is_digest(digest)
                         ? api_call(call, "DELETE", path, NULL, &answer)
                         : cli_usage(call, "'%s' is no digest: see unictl image ls", digest);
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
