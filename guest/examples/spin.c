/* spin.c - never ends; "spin early" does not even ask for its request. */
#include <unid/unid.h>

int main(int argc, char **argv)
{
    (void)argv;
    if (argc < 2) {
        unid_next();
    }
    for (volatile unsigned long n = 0;; n++) {
    }
}
