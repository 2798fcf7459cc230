/* env.c - tells what the function was given: arguments, environment, request head. */
#include <stdlib.h>
#include <string.h>
#include <unid/abi.h>
#include <unid/unid.h>

int main(int argc, char **argv)
{
    unid_response_header("content-type", "text/plain");
    for (int i = 0; i < argc; i++) {
        unid_printf("argv[%d]=%s\n", i, argv[i]);
    }
    /* The environment stands behind the arguments (abi.h); getenv() finds one variable. */
    const struct unid_boot *boot = (const struct unid_boot *)UNID_BOOT_ADDR;
    const char *s = (const char *)UNID_STRINGS_ADDR;
    for (uint32_t i = 0; i < boot->argc + boot->envc; i++, s += strlen(s) + 1) {
        if (i >= boot->argc) {
            unid_printf("env %s\n", s);
        }
    }
    unid_printf("id %s\n", unid_invocation_id());
    unid_printf("content-length %lld\n", (long long)unid_content_length());
    unid_printf("%s %s\n", unid_method(), unid_target());
    const char *name, *value;
    for (size_t i = 0; unid_header_at(i, &name, &value); i++) {
        unid_printf("%s: %s\n", name, value);
    }
    return 0;
}
