/* http.c - which answer a request gets. */
#include "netkernel.h"

static uint64_t served;
static char text[64];

static size_t append(char *to, size_t at, const char *what)
{
    while (*what) {
        to[at++] = *what++;
    }
    return at;
}

static bool begins(const char *s, const char *with)
{
    while (*with) {
        if (*s++ != *with++) {
            return false;
        }
    }
    return true;
}

static uint64_t number(const char *p)
{
    uint64_t n = 0;
    while (*p >= '0' && *p <= '9') {
        n = n * 10 + (uint64_t)(*p++ - '0');
    }
    return n;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

/* The value of a field of the head, or NULL. `name` is lower case and ends in ':'. */
static const char *field(const char *head, size_t len, const char *name)
{
    for (size_t i = 0; i + 1 < len; i++) {
        if (head[i] != '\n') {
            continue;
        }
        size_t n = 0;
        while (name[n] && i + 1 + n < len && lower(head[i + 1 + n]) == name[n]) {
            n++;
        }
        if (!name[n]) {
            const char *v = head + i + 1 + n;
            return v + (*v == ' ');
        }
    }
    return NULL;
}

static void respond(struct response *r, const char *status, const char *body, uint64_t len)
{
    size_t n = append(r->head, 0, "HTTP/1.1 ");
    n = append(r->head, n, status);
    n = append(r->head, n, "\r\nContent-Type: text/plain\r\nContent-Length: ");
    n += put_number(r->head + n, len);
    n = append(r->head, n, r->close ? "\r\nConnection: close\r\n\r\n" : "\r\n\r\n");
    r->head_len = n;
    r->body = body;
    r->body_len = len;
}

static size_t hello(char *to)
{
    size_t n = append(to, 0, "hello from ");
    for (int i = 3; i >= 0; i--) {
        n += put_number(to + n, config.ip >> (8 * i) & 255);
        to[n++] = i ? '.' : '\n';
    }
    return n;
}

/* "H&port=N&from=A.B.C.D", the last as a number. */
static void fetch(const char *query, struct response *r)
{
    static char got[1400];
    const char *why;
    size_t len = 0;
    while (query[len] != '&' && query[len] != ' ') {
        len++;
    }
    const char *p = query + len;
    uint16_t port = begins(p, "&port=") ? (uint16_t)number(p + 6) : 80;
    do {
        p++;
    } while (*p != '&' && *p != ' ');
    uint32_t from = begins(p, "&from=") ? (uint32_t)number(p + 6) : 0;
    int n = client_fetch(query, len, port, from, got, sizeof(got), &why);
    if (n < 0) {
        respond(r, "502 Bad Gateway", why, append(text, 0, why));
    } else {
        respond(r, "200 OK", got, (uint64_t)n);
    }
}

/* "/disk/read/D/N" and "/disk/write/D/N" */
static void disk(const char *path, const char *body, size_t body_len, struct response *r)
{
    static uint8_t sector[SECTOR];
    bool write = begins(path, "/disk/write/");
    const char *at = path + (write ? 12 : 11);
    uint64_t which = number(at);
    while (*at >= '0' && *at <= '9') {
        at++;
    }
    if (write) {
        memset(sector, 0, SECTOR);
        memcpy(sector, body, body_len < SECTOR ? body_len : SECTOR);
    }
    if (*at != '/' || !disk_transfer((unsigned)which, number(at + 1), sector, write)) {
        respond(r, "404 Not Found", "no such sector\n", 15);
    } else {
        respond(r, "200 OK", (const char *)sector, SECTOR);
    }
}

static void answer(const char *path, const char *body, size_t body_len, struct response *r)
{
    if (begins(path, "/ ")) {
        size_t n = hello(text);
        respond(r, "200 OK", text, n);
    } else if (begins(path, "/count ")) {
        size_t n = put_number(text, served);
        text[n++] = '\n';
        respond(r, "200 OK", text, n);
    } else if (begins(path, "/bytes/")) {
        respond(r, "200 OK", NULL, number(path + 7));
    } else if (begins(path, "/echo ")) {
        respond(r, "200 OK", body, body_len);
    } else if (begins(path, "/log/")) {
        size_t n = 5;
        while (path[n] != ' ' && path[n] != '\r') {
            n++;
        }
        console_write(path + 5, n - 5);
        console("\n");
        respond(r, "200 OK", "logged\n", 7);
    } else if (begins(path, "/fetch?host=")) {
        fetch(path + 12, r);
    } else if (begins(path, "/disk/")) {
        disk(path, body, body_len, r);
    } else if (begins(path, "/initrd ")) {
        respond(r, config.initrd ? "200 OK" : "404 Not Found", config.initrd, config.initrd_len);
    } else if (begins(path, "/hang ")) {
        r->hang = true;
    } else if (begins(path, "/off ")) {
        config.off_at = now_ms() + 200;
        respond(r, "200 OK", "off\n", 4);
    } else if (begins(path, "/crash ")) {
        console("netkernel: crashes, as it was asked\n");
        cpu_crash();
    } else {
        respond(r, "404 Not Found", "no such thing\n", 14);
    }
}

int http_parse(const char *request, size_t len, struct response *ret)
{
    size_t head = 0;
    for (size_t i = 3; i < len && !head; i++) {
        if (begins(request + i - 3, "\r\n\r\n")) {
            head = i + 1;
        }
    }
    if (!head) {
        return len == REQUEST_MAX ? -1 : 0;
    }
    const char *v = field(request, head, "content-length:");
    uint64_t body = v ? number(v) : 0;
    if (body > REQUEST_MAX - head) {
        return -1;
    }
    if (len < head + body) {
        return 0;
    }
    size_t path = 0;
    while (path < head && request[path] != ' ') {
        path++;
    }
    *ret = (struct response){.head_len = 0};
    v = field(request, head, "connection:");
    ret->close = v && lower(*v) == 'c';
    answer(request + path + 1, request + head, (size_t)body, ret);
    served++;
    return (int)(head + body);
}
