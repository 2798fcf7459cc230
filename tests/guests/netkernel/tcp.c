/* tcp.c - the passive side of TCP (RFC 9293) for a local link: in-order data only, a fixed window,
 * cumulative retransmission by a timer. Connections that do not fit get a reset.
 */
#include "netkernel.h"

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };
enum { CONNECTIONS = 128, MSS = 1460, RETRANSMIT_MS = 200, GIVE_UP = 20, FLIGHT_MAX = 64 * 1024 };
enum state { FREE, SYN_RECEIVED, OPEN, CLOSING };

struct connection {
    enum state state;
    uint32_t ip;
    uint16_t port;
    uint8_t mac[6];
    uint32_t iss;         /* our first sequence number */
    uint32_t next_in;     /* what we expect */
    uint64_t sent, acked; /* of the response, head included, from `start` on */
    uint32_t start;       /* sequence number of the response's first byte */
    uint32_t peer_window;
    unsigned peer_shift;
    uint64_t sent_at_ms;
    unsigned tries;
    bool answering, fin_sent, fin_acked, peer_done;
    struct response response;
    char request[REQUEST_MAX];
    size_t request_len;
};

static struct connection table[CONNECTIONS];

static void send_segment(struct connection *c, uint32_t seq, uint8_t flags, uint64_t at, size_t len)
{
    static uint8_t frame[FRAME_MAX];
    uint8_t *tcp = frame + ETH_HEAD + IP_HEAD;
    size_t head = flags & SYN ? TCP_HEAD + 4 : TCP_HEAD;
    memset(tcp, 0, head);
    put16(tcp, config.port);
    put16(tcp + 2, c->port);
    put32(tcp + 4, seq);
    put32(tcp + 8, c->next_in);
    tcp[12] = (uint8_t)(head << 2);
    tcp[13] = flags;
    put16(tcp + 14, config.raw && c->answering && !c->fin_acked ? 0 : REQUEST_MAX);
    if (flags & SYN) {
        static const uint8_t mss[] = {2, 4, MSS >> 8, MSS & 255};
        memcpy(tcp + TCP_HEAD, mss, sizeof(mss));
    }
    const struct response *r = &c->response;
    for (size_t i = 0; i < len;) {
        uint64_t from = at + i;
        size_t n = len - i;
        if (from < r->head_len) {
            n = n > r->head_len - from ? r->head_len - from : n;
            memcpy(tcp + head + i, r->head + from, n);
        } else if (r->body) {
            memcpy(tcp + head + i, r->body + (from - r->head_len), n);
        } else {
            memset(tcp + head + i, 'x', n);
        }
        i += n;
    }
    uint8_t pseudo[12] = {0};
    put32(pseudo, config.ip);
    put32(pseudo + 4, c->ip);
    pseudo[9] = 6;
    put16(pseudo + 10, (uint16_t)(head + len));
    put16(tcp + 16, checksum(tcp, head + len, (uint16_t)~checksum(pseudo, sizeof(pseudo), 0)));
    ip_send(frame, head + len, c->mac, c->ip, 6);
}

static uint64_t total(const struct connection *c)
{
    return c->response.head_len + c->response.body_len;
}

/* Sends as much of the response as the peer's window takes, then FIN when it is the last. */
static void push(struct connection *c)
{
    if (!c->answering || c->response.hang) {
        return;
    }
    uint64_t window = c->peer_window < FLIGHT_MAX ? c->peer_window : FLIGHT_MAX;
    while (c->sent < total(c) && c->sent - c->acked < window) {
        uint64_t room = window - (c->sent - c->acked), rest = total(c) - c->sent;
        size_t len = (size_t)(rest < room ? rest : room);
        len = len > MSS ? MSS : len;
        uint8_t flags = c->sent + len == total(c) ? ACK | PSH : ACK;
        send_segment(c, c->start + (uint32_t)c->sent, flags, c->sent, len);
        c->sent += len;
        c->sent_at_ms = now_ms();
    }
    if (c->sent == total(c) && c->response.close && !c->fin_sent) {
        send_segment(c, c->start + (uint32_t)c->sent, FIN | ACK, 0, 0);
        c->fin_sent = true;
        c->state = CLOSING;
        c->sent_at_ms = now_ms();
    }
}

/* Looks for a complete request in what has come, unless one is being answered. */
static void serve(struct connection *c)
{
    if (c->answering || c->request_len == 0) {
        return;
    }
    int used = config.raw ? raw_parse(c->request, c->request_len, &c->response)
                          : http_parse(c->request, c->request_len, &c->response);
    if (used == 0) {
        return;
    }
    if (used < 0) {
        send_segment(c, c->start, RST | ACK, 0, 0);
        c->state = FREE;
        return;
    }
    /* A response body may be in the request's bytes: they are dropped when it is done. */
    c->answering = true;
    c->sent = c->acked = 0;
    c->tries = 0;
    push(c);
}

static void finish_response(struct connection *c)
{
    c->answering = false;
    c->start += (uint32_t)total(c);
    c->request_len = 0; /* no pipelining */
    c->sent = c->acked = 0;
    c->response = (struct response){.head_len = 0};
    if (config.raw) {
        send_segment(c, c->start, ACK, 0, 0); /* the window is open again */
    }
}

static void acknowledge(struct connection *c, uint32_t ack)
{
    uint64_t n = (uint32_t)(ack - c->start);
    if (c->state == SYN_RECEIVED && ack == c->iss + 1) {
        c->state = OPEN;
        c->answering = config.raw && raw_greeting(&c->response);
        return;
    }
    if (c->fin_sent && !c->fin_acked && n == c->sent + 1) {
        /* Without HTTP the peer may go on after our end. */
        c->fin_acked = true;
        c->start++;
        c->state = config.raw && !c->peer_done ? OPEN : FREE;
        if (c->state == OPEN) {
            send_segment(c, c->start + (uint32_t)c->sent, ACK, 0, 0);
        } /* no TIME-WAIT: a late segment gets a reset */
        return;
    }
    if (n > c->acked && n <= c->sent) {
        c->acked = n;
        c->tries = 0;
        c->sent_at_ms = now_ms();
        if (c->acked == total(c) && !c->response.close) {
            finish_response(c);
        }
    }
}

static struct connection *find(uint32_t ip, uint16_t port, enum state any)
{
    for (size_t i = 0; i < CONNECTIONS; i++) {
        struct connection *c = &table[i];
        if (any == FREE ? c->state == FREE : c->state != FREE && c->ip == ip && c->port == port) {
            return c;
        }
    }
    return NULL;
}

static void open_connection(struct connection *c, uint32_t ip, uint16_t port, const uint8_t mac[6],
                            uint32_t seq, uint16_t window)
{
    static uint32_t iss = 1000;
    *c = (struct connection){.state = SYN_RECEIVED, .ip = ip, .port = port};
    memcpy(c->mac, mac, 6);
    c->iss = iss += 64000;
    c->start = c->iss + 1;
    c->next_in = seq + 1;
    c->peer_window = window;
    c->sent_at_ms = now_ms();
    send_segment(c, c->iss, SYN | ACK, 0, 0);
}

static void refuse(uint32_t ip, uint16_t port, const uint8_t mac[6], uint32_t seq, uint32_t ack,
                   uint8_t flags)
{
    static struct connection none;
    if (flags & RST) {
        return;
    }
    none = (struct connection){.ip = ip, .port = port, .next_in = seq + (flags & SYN ? 1 : 0)};
    memcpy(none.mac, mac, 6);
    send_segment(&none, ack, RST | ACK, 0, 0);
}

static void take_data(struct connection *c, uint32_t seq, const uint8_t *data, size_t len, bool fin)
{
    bool in_order = seq == c->next_in;
    if (len && in_order && c->fin_acked) {
        c->next_in += (uint32_t)len; /* heard, not answered */
    } else if (len && in_order && len <= REQUEST_MAX - c->request_len && !c->answering) {
        memcpy(c->request + c->request_len, data, len);
        c->request_len += len;
        c->next_in += (uint32_t)len;
    } else if (len) {
        fin = false; /* what does not fit comes again */
    }
    if (fin && in_order) {
        c->next_in++;
        c->peer_done = true;
    }
    if (len || fin) {
        send_segment(c, c->start + (uint32_t)c->sent, ACK, 0, 0);
    }
}

void tcp_input(uint32_t from, const uint8_t from_mac[6], const uint8_t *segment, size_t len)
{
    size_t head;
    if (len < TCP_HEAD || (head = (size_t)(segment[12] >> 4) * 4) < TCP_HEAD || head > len) {
        return;
    }
    uint16_t port = get16(segment), window = get16(segment + 14);
    uint32_t seq = get32(segment + 4), ack = get32(segment + 8);
    uint8_t flags = segment[13];
    struct connection *c = find(from, port, OPEN);
    if (flags & RST) {
        if (c) {
            c->state = FREE;
        }
        return;
    }
    if (flags & SYN) {
        c = c ? c : find(0, 0, FREE);
        if (c && get16(segment + 2) == config.port) {
            open_connection(c, from, port, from_mac, seq, window);
        } else {
            refuse(from, port, from_mac, seq, 0, flags);
        }
        return;
    }
    if (!c) {
        refuse(from, port, from_mac, seq, ack, flags);
        return;
    }
    c->peer_window = window;
    acknowledge(c, ack);
    if (c->state == FREE) {
        return;
    }
    take_data(c, seq, segment + head, len - head, flags & FIN);
    if (c->fin_acked) {
        c->state = c->peer_done ? FREE : OPEN;
        return;
    }
    serve(c);
    if (c->state == FREE) {
        return;
    }
    push(c);
    if (c->peer_done && !c->answering && !c->fin_sent) {
        send_segment(c, c->start, FIN | ACK, 0, 0);
        c->fin_sent = true;
        c->state = CLOSING;
        c->sent_at_ms = now_ms();
    }
}

void tcp_tick(void)
{
    for (size_t i = 0; i < CONNECTIONS; i++) {
        struct connection *c = &table[i];
        bool waits = c->state == SYN_RECEIVED || c->state == CLOSING || c->acked < c->sent;
        if (c->state == FREE || !waits || now_ms() - c->sent_at_ms < RETRANSMIT_MS) {
            continue;
        }
        c->sent_at_ms = now_ms();
        if (++c->tries > GIVE_UP) {
            c->state = FREE;
        } else if (c->state == SYN_RECEIVED) {
            send_segment(c, c->iss, SYN | ACK, 0, 0);
        } else {
            c->sent = c->acked;
            c->fin_sent = c->fin_sent && c->sent == total(c);
            if (c->fin_sent) {
                send_segment(c, c->start + (uint32_t)c->sent, FIN | ACK, 0, 0);
            }
            push(c);
        }
    }
}
