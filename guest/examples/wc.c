/* wc.c - counts lines, words and bytes of the body, as wc(1) does. */
#include <ctype.h>
#include <unid/unid.h>

int main(void)
{
    uint64_t lines = 0, words = 0, bytes = 0;
    bool in_word = false;
    const void *data;
    for (size_t n; (n = unid_chunk(&data)) > 0; bytes += n) {
        const unsigned char *p = data;
        for (size_t i = 0; i < n; i++) {
            bool space = isspace(p[i]);
            lines += p[i] == '\n';
            words += in_word & space;
            in_word = !space;
        }
    }
    unid_response_header("content-type", "text/plain");
    unid_printf("%llu %llu %llu\n", (unsigned long long)lines,
                (unsigned long long)(words + in_word), (unsigned long long)bytes);
    return 0;
}
