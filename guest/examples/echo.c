/* echo.c - sends the request's body back, as it comes, with its media type. */
#include <unid/unid.h>

int main(void)
{
    const char *type = unid_header("content-type");
    unid_response_header("content-type", type ? type : "application/octet-stream");
    const void *data;
    for (size_t n; (n = unid_chunk(&data)) > 0;) {
        unid_write(data, n);
    }
    return 0;
}
