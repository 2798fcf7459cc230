/* flood.c - answers without end. */
#include <string.h>
#include <unid/unid.h>

int main(void)
{
    static char block[64 * 1024];
    memset(block, 'x', sizeof(block));
    block[sizeof(block) - 1] = '\n';
    for (;;) {
        unid_write(block, sizeof(block));
    }
}
