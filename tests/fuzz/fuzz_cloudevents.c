/* fuzz_cloudevents.c - CloudEvents in all modes. The first line of the input is the Content-Type, those
 * up to an empty one are header fields "name:value", the rest is the body. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "events/cloudevents.h"

enum { FIELDS = 80 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1), *at = text;
    struct cloudevents_field fields[FIELDS];
    size_t count = 0;
    memcpy(text, data, size);
    text[size] = '\0';
    char *type = strsep(&at, "\n");
    while (at && *at && count < FIELDS) {
        char *line = strsep(&at, "\n"), *colon = strchr(line, ':');
        if (!*line) {
            break;
        }
        if (colon) {
            *colon = '\0';
            fields[count++] = (struct cloudevents_field){.name = line, .value = colon + 1};
        }
    }
    struct event_list l;
    struct un_error err = UN_ERROR_INIT;
    enum cloudevents_mode mode = cloudevents_mode_of(type, fields, count);
    const char *body = at ? at : "";
    if (mode != CLOUDEVENTS_NONE) {
        int rc = cloudevents_parse(mode, type, fields, count, body, strlen(body), &l, &err);
        if (rc < 0 && !err.text[0]) {
            abort();
        }
        for (size_t i = 0; rc == 0 && i < l.count; i++) {
            const struct event *e = &l.items[i];
            if (!e->type || !e->source || !e->source_id || !e->id[63]) {
                abort();
            }
        }
        if (rc == 0) {
            event_list_done(&l);
        }
    }
    free(text);
    return 0;
}
