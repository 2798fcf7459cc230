/* status.c - "status exit N" ends with exit status N; "status http N" answers with HTTP status N.
 */
#include <stdlib.h>
#include <string.h>
#include <unid/unid.h>

int main(int argc, char **argv)
{
    unid_next(); /* a program that ends before it asks for a request cannot be deployed */
    if (argc == 3 && strcmp(argv[1], "exit") == 0) {
        unid_log("ending with status %d", atoi(argv[2]));
        return atoi(argv[2]);
    }
    if (argc == 3 && strcmp(argv[1], "http") == 0 &&
        unid_response_status((unsigned)atoi(argv[2])) == 0) {
        unid_printf("status %s\n", argv[2]);
        return 0;
    }
    unid_log("arguments: exit N, or http N with N from 200 to 599");
    return 2;
}
