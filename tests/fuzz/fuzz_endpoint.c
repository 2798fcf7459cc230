/* fuzz_endpoint.c - what a guest asks to be connected to: what is taken has one form, and a rule made
 * of it allows it. */
#include <stdlib.h>
#include <string.h>

#include "common/endpoint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void check(const struct un_endpoint *e, bool rule)
{
    struct un_endpoint again;
    struct un_error err = UN_ERROR_INIT;
    char text[UN_ENDPOINT_TEXT_SIZE];

    un_endpoint_text(e, text);
    must(strcspn(text, " \t\r\n/@?#%") == strlen(text));
    must(un_endpoint_parse(text, strlen(text), rule, &again, &err) == 0);
    must(memcmp(e, &again, sizeof(again)) == 0);
    must(e->below || un_endpoint_matches(&again, e, false));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct un_endpoint e;
    struct un_error err = UN_ERROR_INIT;

    if (un_endpoint_parse((const char *)data, size, false, &e, &err) == 0) {
        must(!e.below && !e.any_port && e.port);
        check(&e, false);
    } else {
        must(err.text[0]);
    }
    if (un_endpoint_parse((const char *)data, size, true, &e, &err) == 0) {
        check(&e, true);
    }
    if (un_endpoint_parse_listen((const char *)data, size, &e, &err) == 0) {
        char text[UN_ENDPOINT_TEXT_SIZE];
        struct un_endpoint again;

        must(e.is_address && !e.below && !e.any_port);
        un_endpoint_text(&e, text);
        must(un_endpoint_parse_listen(text, strlen(text), &again, &err) == 0);
        must(memcmp(&e, &again, sizeof(again)) == 0);
    }
    (void)un_endpoint_parse_host((const char *)data, size, &e, &err);
    return 0;
}
