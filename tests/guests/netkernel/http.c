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

bool http_begins(const char *s, const char *with)
{
    while (*with) {
        if (*s++ != *with++) {
            return false;
        }
    }
    return true;
}

uint64_t http_number(const char *p)
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

void http_respond(struct response *r, const char *status, const char *body, uint64_t len)
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

/* "/disk/read/D/N" and "/disk/write/D/N" */
static void disk(const char *path, const char *body, size_t body_len, struct response *r)
{
    static uint8_t sector[SECTOR];
    bool write = http_begins(path, "/disk/write/");
    const char *at = path + (write ? 12 : 11);
    uint64_t which = http_number(at);
    while (*at >= '0' && *at <= '9') {
        at++;
    }
    if (write) {
        memset(sector, 0, SECTOR);
        memcpy(sector, body, body_len < SECTOR ? body_len : SECTOR);
    }
    if (*at != '/' || !disk_transfer((unsigned)which, http_number(at + 1), sector, write)) {
        http_respond(r, "404 Not Found", "no such sector\n", 15);
    } else {
        http_respond(r, "200 OK", (const char *)sector, SECTOR);
    }
}

static void answer(const char *path, const char *body, size_t body_len, struct response *r)
{
    if (client_answer && config.next && http_begins(path, "/ ")) {
        client_answer(config.next, r);
    } else if (http_begins(path, "/ ")) {
        http_respond(r, "200 OK", text, hello(text));
    } else if (http_begins(path, "/count ")) {
        size_t n = put_number(text, served);
        text[n++] = '\n';
        http_respond(r, "200 OK", text, n);
    } else if (http_begins(path, "/bytes/")) {
        http_respond(r, "200 OK", NULL, http_number(path + 7));
    } else if (http_begins(path, "/echo ")) {
        http_respond(r, "200 OK", body, body_len);
    } else if (http_begins(path, "/log/")) {
        size_t n = 5;
        while (path[n] != ' ' && path[n] != '\r') {
            n++;
        }
        console_write(path + 5, n - 5);
        console("\n");
        http_respond(r, "200 OK", "logged\n", 7);
    } else if (client_answer && http_begins(path, "/fetch?host=")) {
        client_answer(path + 12, r);
    } else if (http_begins(path, "/disk/")) {
        disk(path, body, body_len, r);
    } else if (http_begins(path, "/initrd ")) {
        http_respond(r, config.initrd ? "200 OK" : "404 Not Found", config.initrd,
                     config.initrd_len);
    } else if (http_begins(path, "/hang ")) {
        r->hang = true;
    } else if (http_begins(path, "/off ")) {
        config.off_at = now_ms() + 200;
        http_respond(r, "200 OK", "off\n", 4);
    } else if (http_begins(path, "/crash ")) {
        console("netkernel: crashes, as it was asked\n");
        cpu_crash();
    } else {
        http_respond(r, "404 Not Found", "no such thing\n", 14);
    }
}

int http_parse(const char *request, size_t len, struct response *ret)
{
    size_t head = 0;
    for (size_t i = 3; i < len && !head; i++) {
        if (http_begins(request + i - 3, "\r\n\r\n")) {
            head = i + 1;
        }
    }
    if (!head) {
        return len == REQUEST_MAX ? -1 : 0;
    }
    const char *v = field(request, head, "content-length:");
    uint64_t body = v ? http_number(v) : 0;
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
