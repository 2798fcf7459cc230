/* spin.c - never ends. */
#include <unid/unid.h>

int main(void)
{
    unid_next();
    for (volatile unsigned long n = 0;; n++) {
    }
}
