/* client.c - what the kernel asks of others, one thing at a time: an address (DHCP, RFC 2131), a name (DNS,
 * RFC 1035), and the answer to "GET / HTTP/1.0" over a TCP connection of its own. While it waits it answers
 * ARP and nothing else; those who ask repeat it.
 */
#include "../netkernel/netkernel.h"

enum {
    WAIT_MS = 1500,
    PATIENCE_MS = 200000,
    TRIES = 6,
    FIRST_PORT = 49152,
    PORTS = 16000,
    UDP = 17,
    TCP = 6
};
enum { FIN = 1, SYN = 2, RST = 4, ACK = 16 };

static uint8_t frame[FRAME_MAX];
static uint8_t *const ip = frame + ETH_HEAD;
static uint8_t *const body = frame + ETH_HEAD + IP_HEAD;
static const uint8_t everybody[6] = {255, 255, 255, 255, 255, 255};
static uint8_t own_mac[6];
static uint16_t local_port;
static uint64_t patience_ms; /* how long an answer may take */

/* Waits for a frame of this kind: an IP packet's length behind its head, 0 when none comes. */
static size_t wait_ip(uint8_t proto, uint16_t to_port, uint64_t until)
{
    while (now_ms() < until) {
        size_t len = net_receive(frame);
        if (len == 0) {
            cpu_wait();
        } else if (get16(frame + 12) == 0x0806) {
            net_input(frame, len, own_mac);
        } else if (len >= ETH_HEAD + IP_HEAD + 8 && ip[0] == 0x45 && ip[9] == proto &&
                   get16(body + 2) == to_port && get16(ip + 2) <= len - ETH_HEAD) {
            return get16(ip + 2) - IP_HEAD;
        }
    }
    return 0;
}

static void send_udp(const uint8_t to_mac[6], uint32_t to, uint16_t from_port, uint16_t port,
                     size_t len)
{
    put16(body, from_port);
    put16(body + 2, port);
    put16(body + 4, (uint16_t)(8 + len));
    put16(body + 6, 0); /* no checksum: RFC 768 */
    ip_send(frame, 8 + len, to_mac, to, UDP);
}

/* --- DHCP -------------------------------------------------------------------------------------- */

static const uint8_t *option(const uint8_t *dhcp, size_t len, uint8_t code)
{
    for (size_t i = 240; i + 1 < len && dhcp[i] != 255; i += dhcp[i] ? 2u + dhcp[i + 1] : 1) {
        if (dhcp[i] == code) {
            return dhcp + i + 2;
        }
    }
    return NULL;
}

static void dhcp_send(uint8_t type, uint32_t address, uint32_t server)
{
    uint8_t *p = body + 8;
    memset(p, 0, 300);
    p[0] = p[1] = 1;
    p[2] = 6;
    memcpy(p + 4, own_mac, 4); /* the transaction's number */
    memcpy(p + 28, own_mac, 6);
    put32(p + 236, 0x63825363);
    p[240] = 53;
    p[241] = 1;
    p[242] = type;
    p[243] = address ? 50 : 0;
    p[244] = address ? 4 : 0;
    put32(p + 245, address);
    p[249] = server ? 54 : 0;
    p[250] = server ? 4 : 0;
    put32(p + 251, server);
    p[255] = 255;
    send_udp(everybody, 0xffffffff, 68, 67, 300);
}

static bool dhcp_wait(uint8_t type, uint64_t until)
{
    size_t len;
    while ((len = wait_ip(UDP, 68, until)) > 0) {
        const uint8_t *t = option(body + 8, len - 8, 53);
        if (t && *t == type && memcmp(body + 12, own_mac, 4) == 0) {
            return true;
        }
    }
    return false;
}

static bool ask_address(const uint8_t mac[6])
{
    memcpy(own_mac, mac, 6);
    config.ip = 0;
    net_input(frame, 0, mac); /* it learns the MAC */
    for (int i = 0; i < TRIES; i++) {
        dhcp_send(1, 0, 0); /* DISCOVER */
        if (!dhcp_wait(2, now_ms() + WAIT_MS)) {
            continue;
        }
        const uint8_t *server = option(body + 8, 300, 54);
        uint32_t address = get32(body + 8 + 16);
        dhcp_send(3, address, server ? get32(server) : 0); /* REQUEST */
        if (dhcp_wait(5, now_ms() + WAIT_MS)) {
            const uint8_t *mask = option(body + 8, 300, 1), *router = option(body + 8, 300, 3),
                          *dns = option(body + 8, 300, 6);
            config.ip = address;
            config.mask = mask ? get32(mask) : 0;
            config.gateway = router ? get32(router) : 0;
            config.dns = dns ? get32(dns) : 0;
            return true;
        }
    }
    return false;
}

/* --- ARP, DNS ---------------------------------------------------------------------------------- */

static bool find_mac(uint32_t address, uint8_t ret[6])
{
    static const uint8_t head[] = {8, 6, 0, 1, 8, 0, 6, 4, 0, 1};
    uint32_t hop = (address ^ config.ip) & config.mask ? config.gateway : address;
    memcpy(frame, everybody, 6);
    memcpy(frame + 6, own_mac, 6);
    memcpy(frame + 12, head, sizeof(head));
    memcpy(frame + 22, own_mac, 6);
    put32(frame + 28, config.ip);
    put32(frame + 38, hop);
    net_send(frame, 60);
    for (uint64_t until = now_ms() + patience_ms; now_ms() < until;) {
        size_t len = net_receive(frame);
        if (len == 0) {
            cpu_wait();
        } else if (get16(frame + 12) == 0x0806 && frame[21] == 2 && get32(frame + 28) == hop) {
            memcpy(ret, frame + 22, 6);
            return true;
        }
    }
    return false;
}

/* An A record; 0: the server says that there is none; 1: it says nothing. */
static uint32_t look_up(const char *name, size_t name_len)
{
    uint8_t mac[6], *p = body + 8;
    if (!find_mac(config.dns, mac)) {
        return 1;
    }
    memset(p, 0, 12);
    put16(p, ++local_port);
    p[2] = 1; /* recursion desired */
    p[5] = 1;
    size_t at = 12, label = 12;
    for (size_t i = 0; i <= name_len; i++) {
        if (i == name_len || name[i] == '.') {
            p[label] = (uint8_t)(at - label);
            label = ++at;
        } else {
            p[++at] = (uint8_t)name[i];
        }
    }
    p[label] = 0;
    put32(p + label + 1, 0x00010001);
    send_udp(mac, config.dns, local_port, 53, label + 5);
    size_t len = wait_ip(UDP, local_port, now_ms() + patience_ms);
    if (len < 8 + 12 + 16) {
        return len ? 0 : 1;
    }
    return get16(p + 6) ? get32(body + len - 4) : 0;
}

/* --- TCP --------------------------------------------------------------------------------------- */

static uint32_t first_seq, seq, next;

static void send_tcp(const uint8_t mac[6], uint32_t to, uint16_t port, uint8_t flags,
                     const char *data)
{
    uint8_t pseudo[12] = {0};
    size_t len = 0;
    while (data[len]) {
        len++;
    }
    memset(body, 0, TCP_HEAD);
    put16(body, local_port);
    put16(body + 2, port);
    put32(body + 4, seq);
    put32(body + 8, next);
    body[12] = TCP_HEAD << 2;
    body[13] = flags;
    put16(body + 14, 1400);
    memcpy(body + TCP_HEAD, data, len);
    put32(pseudo, config.ip);
    put32(pseudo + 4, to);
    pseudo[9] = TCP;
    put16(pseudo + 10, (uint16_t)(TCP_HEAD + len));
    put16(body + 16, checksum(body, TCP_HEAD + len, (uint16_t)~checksum(pseudo, 12, 0)));
    ip_send(frame, TCP_HEAD + len, mac, to, TCP);
}

static bool whole(size_t len)
{
    uint8_t pseudo[12] = {0};
    memcpy(pseudo, ip + 12, 8);
    pseudo[9] = TCP;
    put16(pseudo + 10, (uint16_t)len);
    return checksum(body, len, (uint16_t)~checksum(pseudo, 12, 0)) == 0;
}

/* Takes what comes until an end, or until no more comes, in `ret`; gives its length, or -1 and why. */
static int converse(const uint8_t mac[6], uint32_t to, uint16_t port, char *ret, size_t size,
                    const char **why)
{
    size_t got = 0, len;
    bool open = false;
    *why = "no answer";
    seq = first_seq ? first_seq : (uint32_t)__builtin_ia32_rdtsc();
    next = 0;
    local_port++;
    send_tcp(mac, to, port, SYN, "");
    while ((len = wait_ip(TCP, local_port, now_ms() + (got ? WAIT_MS : patience_ms))) >= TCP_HEAD) {
        uint8_t flags = body[13];
        size_t head = (size_t)(body[12] >> 4) * 4, data = len - head;
        if (!whole(len) || get32(ip + 12) != to || get16(body) != port) {
            *why = "a segment from elsewhere, or with a wrong checksum";
            return -1;
        }
        if (flags & RST) {
            *why = open ? "reset" : "refused";
            return -1;
        }
        if ((flags & SYN) && !open) {
            open = true;
            seq++;
            next = get32(body + 4) + 1;
            send_tcp(mac, to, port, ACK, "GET / HTTP/1.0\r\n\r\n");
            seq += 18;
        } else if (open && get32(body + 4) == next && (data || flags & FIN)) {
            data = data > size - got ? size - got : data;
            memcpy(ret + got, body + head, data);
            got += data;
            next += (uint32_t)data + (flags & FIN ? 1 : 0);
            send_tcp(mac, to, port, flags & FIN ? FIN | ACK : ACK, "");
            if (flags & FIN) {
                return (int)got;
            }
        }
    }
    return got ? (int)got : -1;
}

static int fetch(const char *host, size_t host_len, uint16_t port, uint32_t source, char *ret,
                 size_t size, const char **why)
{
    uint32_t address = 0, own = config.ip;
    uint8_t mac[6];
    const char *p = host;
    for (int i = 0; i < 4 && *p >= '0' && *p <= '9'; i++, p += *p == '.') {
        uint32_t part = 0;
        while (*p >= '0' && *p <= '9') {
            part = part * 10 + (uint32_t)(*p++ - '0');
        }
        address = address << 8 | part;
    }
    if (host[0] < '0' || host[0] > '9') {
        address = look_up(host, host_len);
        *why = address ? "no name server" : "no such name";
        if (address <= 1) {
            return -1;
        }
    }
    *why = "nobody has this address";
    if (!find_mac(address, mac)) {
        return -1;
    }
    config.ip = source ? source : own;
    int len = converse(mac, address, port, ret, size, why);
    config.ip = own;
    return len;
}

static size_t length(const char *s)
{
    size_t n = 0;
    while (s[n]) {
        n++;
    }
    return n;
}

static bool has(const char *query, const char *word)
{
    while (*query && *query != ' ') {
        if (http_begins(query++, word)) {
            return true;
        }
    }
    return false;
}

/* "H&port=N&from=A.B.C.D", the last as a number; or "H&port=N&alike": as the first of each machine. With "&brief" at
 * the end no answer is expected, and none is waited for that comes late. */
void client_answer(const char *query, struct response *r)
{
    static char got[8192];
    const char *why;
    size_t len = 0;
    while (query[len] != '&' && query[len] != ' ') {
        len++;
    }
    const char *p = query + len;
    uint16_t port = http_begins(p, "&port=") ? (uint16_t)http_number(p + 6) : 80;
    do {
        p++;
    } while (*p != '&' && *p != ' ');
    uint32_t from = http_begins(p, "&from=") ? (uint32_t)http_number(p + 6) : 0;
    patience_ms = has(p, "&brief") ? WAIT_MS : PATIENCE_MS;
    if (http_begins(p, "&alike")) {
        local_port = FIRST_PORT;
        first_seq = 1;
    }
    int n = fetch(query, len, port, from, got, sizeof(got), &why);
    if (n < 0) {
        http_respond(r, "502 Bad Gateway", why, length(why));
    } else {
        http_respond(r, "200 OK", got, (uint64_t)n);
    }
}

bool client_init(const uint8_t mac[6])
{
    memcpy(own_mac, mac, 6);
    /* Another than the machine had that was at this address before: kernels before 6.0 keep what waits of
     * that one's connections (TIME_WAIT). */
    local_port = (uint16_t)(FIRST_PORT + __builtin_ia32_rdtsc() % PORTS);
    return !config.dhcp || ask_address(mac);
}
