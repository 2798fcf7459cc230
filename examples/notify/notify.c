/* notify - passes what it reads on to a URL.
 *
 *     notify http://HOST[:PORT]/PATH < event
 *
 * Reads standard input to its end, sends it with POST, and writes the first line of the answer. Status 1
 * when the receiver cannot be reached, or answers with anything but 2xx. No TLS: put a proxy in between,
 * or link a TLS library.
 */
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENT_MAX = 1 << 20 };

static char event[EVENT_MAX];

static int fail(const char *what, const char *why)
{
    fprintf(stderr, "notify: %s: %s\n", what, why);
    return 1;
}

/* Reads all there is. -1: more than EVENT_MAX bytes, or an error. */
static ssize_t read_event(void)
{
    size_t len = 0;
    ssize_t n;
    while ((n = read(0, event + len, sizeof event - len)) > 0) {
        len += (size_t)n;
    }
    return n < 0 || len == sizeof event ? -1 : (ssize_t)len;
}

static int connect_to(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list, *a;
    int rc = getaddrinfo(host, port, &hints, &list), s = -1;
    if (rc != 0) {
        fail(host, gai_strerror(rc));
        return -1;
    }
    for (a = list; a && s < 0; a = a->ai_next) {
        s = socket(a->ai_family, a->ai_socktype, a->ai_protocol);
        if (s >= 0 && connect(s, a->ai_addr, a->ai_addrlen) < 0) {
            close(s);
            s = -1;
        }
    }
    freeaddrinfo(list);
    if (s < 0) {
        fail(host, "cannot be reached; is it allowed (--egress)?");
    }
    return s;
}

int main(int argc, char **argv)
{
    char host[256], port[6] = "80", path[1024] = "/", line[256];
    int at = 0, status = 0;
    if (argc != 2 || sscanf(argv[1], "http://%255[^:/]%n", host, &at) != 1) {
        return fail("usage", "notify http://HOST[:PORT]/PATH");
    }
    if (argv[1][at] == ':') {
        sscanf(argv[1] + at + 1, "%5[0-9]", port);
        at += 1 + (int)strlen(port);
    }
    if (argv[1][at]) {
        snprintf(path, sizeof path, "%s", argv[1] + at);
    }
    ssize_t len = read_event();
    if (len < 0) {
        return fail("event", "cannot be read, or has more than 1 MiB");
    }
    int s = connect_to(host, port);
    FILE *out = s >= 0 ? fdopen(s, "r+") : NULL;
    if (!out) {
        return 1;
    }
    fprintf(out,
            "POST %s HTTP/1.1\r\nHost: %s:%s\r\nContent-Type: application/json\r\n"
            "Content-Length: %zd\r\nConnection: close\r\n\r\n",
            path, host, port, len);
    fwrite(event, 1, (size_t)len, out);
    fflush(out);
    if (!fgets(line, sizeof line, out) || sscanf(line, "HTTP/%*s %d", &status) != 1) {
        return fail(host, "no answer");
    }
    fputs(line, stdout);
    return status / 100 == 2 ? 0 : fail(host, line);
}
