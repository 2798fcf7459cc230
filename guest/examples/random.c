/* random.c - answers with 32 random bytes in hexadecimal. */
#include <unid/unid.h>

int main(void)
{
    unsigned char bytes[32];
    unid_random(bytes, sizeof(bytes));
    unid_response_header("content-type", "text/plain");
    for (size_t i = 0; i < sizeof(bytes); i++) {
        unid_printf("%02x", bytes[i]);
    }
    unid_puts("\n");
    return 0;
}
