/* hostile.c - the test kernel as a guest that means harm: it sends whatever frames it is given, as fast as its card
 * takes them, talks without an end on its console, and answers with bytes that are no HTTP. Linked before netkernel
 * (--wrap), which answers all else:
 *
 *     POST /send        the body is frames, each behind its length (2 bytes): they are sent once
 *     POST /flood?N     the same, N times each 10 ms, until there is another flood. Of a frame of UDP or TCP over IPv4 the
 *                       source port is another each time, and of TCP the window, so that the sum stays. What
 *                       others answer to a SYN meanwhile is acknowledged, and never heard of again
 *     POST /shout?N     the body goes to the console, N times each 10 ms
 *     POST /say?N       the answer is the body and N letters behind it, and nothing else; then it closes
 *     POST /repeat?N    the answer is the body N times; then it closes
 */
#include "../netkernel/netkernel.h"

enum { REPEATED_MAX = 1024 * 1024 };

static uint8_t frames[REQUEST_MAX];
static char words[REQUEST_MAX], repeated[REPEATED_MAX];
static size_t frames_len, words_len;
static uint64_t times, shouts;

int __real_http_parse(const char *text, size_t len, struct response *ret);
int __wrap_http_parse(const char *text, size_t len, struct response *ret);
void __real_tcp_tick(void);
void __wrap_tcp_tick(void);
void __real_tcp_input(uint32_t from, const uint8_t mac[6], const uint8_t *segment, size_t len);
void __wrap_tcp_input(uint32_t from, const uint8_t mac[6], const uint8_t *segment, size_t len);

static void add16(uint8_t *p, int by)
{
    put16(p, (uint16_t)(get16(p) + by));
}

static void send_all(bool vary)
{
    for (size_t at = 0; at + 2 <= frames_len;) {
        uint8_t *frame = frames + at + 2;
        size_t len = get16(frames + at);
        if (len > FRAME_MAX || len > frames_len - at - 2) {
            return;
        }
        net_send(frame, len);
        bool ip = vary && len >= ETH_HEAD + IP_HEAD + TCP_HEAD && get16(frame + 12) == 0x0800;
        if (ip && (frame[23] == 6 || frame[23] == 17)) {
            add16(frame + 34, 1);
            add16(frame + 48, frame[23] == 6 ? -1 : 0);
        }
        at += 2 + len;
    }
}

static void keep_frames(const char *body, size_t len)
{
    memcpy(frames, body, len);
    frames_len = len;
}

static void repeat(const char *body, size_t len, uint64_t n, struct response *ret)
{
    size_t at = 0;
    for (; len && n && at + len <= REPEATED_MAX; n--, at += len) {
        memcpy(repeated + at, body, len);
    }
    *ret = (struct response){.body = repeated, .body_len = at, .close = true};
}

/* False: it is none of ours. */
static bool answer(const char *path, const char *body, size_t len, struct response *ret)
{
    const char *query = path;
    while (*query != '?' && *query != ' ') {
        query++;
    }
    uint64_t n = http_number(query + 1);
    *ret = (struct response){.close = true};
    if (http_begins(path, "/send ")) {
        keep_frames(body, len);
        send_all(false);
        times = 0;
    } else if (http_begins(path, "/flood?")) {
        keep_frames(body, len);
        times = n;
    } else if (http_begins(path, "/shout?")) {
        memcpy(words, body, len);
        words_len = len;
        shouts = n;
    } else if (http_begins(path, "/say?")) {
        memcpy(ret->head, body, len < sizeof(ret->head) ? len : sizeof(ret->head));
        ret->head_len = len < sizeof(ret->head) ? len : sizeof(ret->head);
        ret->body_len = n;
        return true;
    } else if (http_begins(path, "/repeat?")) {
        repeat(body, len, n, ret);
        return true;
    } else {
        return false;
    }
    http_respond(ret, "200 OK", "so be it\n", 9);
    return true;
}

int __wrap_http_parse(const char *text, size_t len, struct response *ret)
{
    int used = __real_http_parse(text, len, ret);
    size_t head = 0;
    if (used <= 0 || !http_begins(text, "POST ")) {
        return used;
    }
    while (!http_begins(text + head, "\r\n\r\n")) {
        head++;
    }
    struct response mine;
    if (answer(text + 5, text + head + 4, (size_t)used - head - 4, &mine)) {
        *ret = mine;
    }
    return used;
}

static void acknowledge(uint32_t from, const uint8_t mac[6], const uint8_t *segment)
{
    static uint8_t frame[FRAME_MAX];
    uint8_t *tcp = frame + ETH_HEAD + IP_HEAD, pseudo[12] = {0};
    memset(tcp, 0, TCP_HEAD);
    memcpy(tcp, segment + 2, 2);
    memcpy(tcp + 2, segment, 2);
    memcpy(tcp + 4, segment + 8, 4);
    put32(tcp + 8, get32(segment + 4) + 1);
    tcp[12] = TCP_HEAD << 2;
    tcp[13] = 16;
    put16(tcp + 14, REQUEST_MAX);
    put32(pseudo, config.ip);
    put32(pseudo + 4, from);
    pseudo[9] = 6;
    put16(pseudo + 10, TCP_HEAD);
    put16(tcp + 16, checksum(tcp, TCP_HEAD, (uint16_t)~checksum(pseudo, sizeof(pseudo), 0)));
    ip_send(frame, TCP_HEAD, mac, from, 6);
}

/* What is not for its server is that of a flood. */
void __wrap_tcp_input(uint32_t from, const uint8_t mac[6], const uint8_t *segment, size_t len)
{
    bool flooding = times && len >= TCP_HEAD && get16(segment + 2) != config.port;
    if (!flooding) {
        __real_tcp_input(from, mac, segment, len);
    } else if ((segment[13] & 0x3f) == 0x12) {
        acknowledge(from, mac, segment);
    }
}

void __wrap_tcp_tick(void)
{
    static uint64_t last_ms;
    __real_tcp_tick();
    if (now_ms() == last_ms) {
        return;
    }
    last_ms = now_ms();
    for (uint64_t i = 0; i < times; i++) {
        send_all(true);
    }
    for (uint64_t i = 0; i < shouts; i++) {
        console_write(words, words_len);
    }
}
