/* hello.c - answers with a line of text. */
#include <unid/unid.h>

int main(int argc, char **argv)
{
    unid_response_header("content-type", "text/plain");
    unid_printf("hello from %s\n", argc > 0 ? argv[0] : "nobody");
    return 0;
}
