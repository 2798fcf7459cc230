/* fuzz_shebang.c - whatever stands behind `env -S`, its words lie in their buffer and have an end. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cli/collect/shebang.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct shebang s;
    struct un_error err = UN_ERROR_INIT;
    char *text = malloc(size + 1);
    if (!text) {
        return 0;
    }
    memcpy(text, data, size);
    text[size] = '\0';
    if (shebang_split(text, &s, &err) == 0) {
        size_t bytes = 0;
        for (size_t i = 0; i < s.count; i++) {
            if (s.words[i] < s.text || s.words[i] >= s.text + sizeof(s.text)) {
                abort();
            }
            bytes += strlen(s.words[i]) + 1;
        }
        if (s.words[s.count] || bytes > size + 1) {
            abort();
        }
    }
    free(text);
    return 0;
}
