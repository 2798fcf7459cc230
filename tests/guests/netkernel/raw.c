/* raw.c - connections without HTTP: what is sent comes back, but for these, at the beginning of a segment:
 *
 *     bytes N     N letters                 crash       a triple fault
 *     close       the kernel ends its direction, and hears the other to its end
 *     hang        never answered, nor anything after it
 */
#include "netkernel.h"

static bool begins(const char *s, size_t len, const char *with)
{
    for (size_t i = 0; with[i]; i++) {
        if (i == len || s[i] != with[i]) {
            return false;
        }
    }
    return true;
}

int raw_parse(const char *data, size_t len, struct response *ret)
{
    *ret = (struct response){.body = data, .body_len = len};
    if (begins(data, len, "crash")) {
        console("netkernel: crashes, as it was asked\n");
        cpu_crash();
    } else if (begins(data, len, "close")) {
        ret->close = true;
    } else if (begins(data, len, "hang")) {
        ret->hang = true;
    } else if (begins(data, len, "bytes ")) {
        ret->body = NULL;
        ret->body_len = 0;
        for (size_t i = 6; i < len && data[i] >= '0' && data[i] <= '9'; i++) {
            ret->body_len = ret->body_len * 10 + (uint64_t)(data[i] - '0');
        }
    }
    return (int)len;
}

bool raw_greeting(struct response *ret)
{
    static const char text[] = "netkernel greets\n";
    *ret = (struct response){.body = text, .body_len = sizeof(text) - 1};
    return config.greet;
}
