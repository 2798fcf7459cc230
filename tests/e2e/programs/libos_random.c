/* The bytes at AT_RANDOM, once the request is there, in hexadecimal digits. */
#include <stdio.h>
#include <sys/auxv.h>

int main(void)
{
    const unsigned char *bytes = (const unsigned char *)getauxval(AT_RANDOM);
    (void)getchar();
    for (int i = 0; i < 16; i++) {
        printf("%02x", bytes[i]);
    }
    return 0;
}
