/* channel.c - the guest's end of the call channel, and the program's beginning and end. */
#include "sdk.h"

#include <stdlib.h>
#include <string.h>
#include <unid/unid.h>

int main(int argc, char **argv);
void unid_sdk_start(void);

static bool request_taken;

bool sdk_take_request(void)
{
    if (request_taken) {
        return false;
    }
    request_taken = true;
    struct unid_call *c = sdk_call_block();
    if (!(sdk_boot()->flags & UNID_BOOT_REQUEST_READY)) {
        sdk_call(UNID_OP_NEXT);
    }
    sdk_clock_begin(c);
    sdk_random_begin(c);
    sdk_request_begin(c);
    return true;
}

bool unid_next(void)
{
    return sdk_take_request();
}

/* Makes argv of the packed strings; the array is on the heap, whose size bounds it. */
static char **make_argv(const struct unid_boot *b)
{
    static char *none[1];
    if (b->argc == 0) {
        return none;
    }
    char **argv = malloc((b->argc + (size_t)1) * sizeof(*argv));
    if (!argv) {
        unid_log("no memory for %u arguments", b->argc);
        abort();
    }
    char *s = (char *)UNID_STRINGS_ADDR;
    for (uint32_t i = 0; i < b->argc; i++) {
        argv[i] = s;
        s += strlen(s) + 1;
    }
    argv[b->argc] = NULL;
    return argv;
}

static void run_constructors(void)
{
    extern void (*const __init_array_start[])(void) __attribute__((visibility("hidden")));
    extern void (*const __init_array_end[])(void) __attribute__((visibility("hidden")));
    for (void (*const *f)(void) = __init_array_start; f < __init_array_end; f++) {
        (*f)();
    }
}

void unid_sdk_start(void)
{
    const struct unid_boot *b = sdk_boot();
    if (b->magic != UNID_ABI_MAGIC || b->major != UNID_ABI_MAJOR) {
        __builtin_trap();
    }
    if (b->interface == UNID_INTERFACE_CGI || b->interface == UNID_INTERFACE_HTTP) {
        unid_log("this program is linked with the guest SDK; deploy it with --interface sdk");
        __builtin_trap(); /* rather than abort(), which would end with the first request */
    }
    run_constructors();
    exit(main((int)b->argc, make_argv(b)));
}
