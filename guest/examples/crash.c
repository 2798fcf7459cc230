/* crash.c - writes through a bad pointer: to address 0x10, or to the one that is its argument;
 * "crash ADDRESS early" does so before it asks for its request. */
#include <stdlib.h>
#include <unid/unid.h>

int main(int argc, char **argv)
{
    unsigned long at = argc > 1 ? strtoul(argv[1], NULL, 0) : 0x10;
    if (argc > 2) {
        unid_log("too early");
        *(volatile int *)at = 1;
    }
    unid_next();
    unid_puts("this answer is never finished\n");
    unid_log("writing to 0x%lx", at);
    *(volatile int *)at = 1;
    return 0;
}
