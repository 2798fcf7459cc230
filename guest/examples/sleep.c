/* sleep.c - answers after as many milliseconds as its argument says (1000 without one). */
#include <stdlib.h>
#include <unid/unid.h>

int main(int argc, char **argv)
{
    unsigned long ms = argc > 1 ? strtoul(argv[1], NULL, 10) : 1000;
    unid_next();
    if (!unid_clock_runs()) {
        unid_log("this host did not tell the rate of its clock");
        return 1;
    }
    while (unid_elapsed_ns() / 1000000 < ms) {
        __asm__ volatile("pause");
    }
    unid_printf("slept %lu ms\n", ms);
    return 0;
}
