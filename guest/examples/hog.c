/* hog.c - touches memory without end: page after page from the heap's start, and beyond what there
 * is. */
#include <stdlib.h>
#include <unid/unid.h>

int main(void)
{
    unid_next();
    volatile char *p = malloc(1);
    for (unsigned long pages = 1;; pages++, p += 4096) {
        *p = 1;
        if (pages % 4096 == 0) {
            unid_log("%lu MiB", pages / 256);
        }
    }
}
