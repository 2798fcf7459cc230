/* endpoint.c - see endpoint.h. */
#include "common/endpoint.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { NAME_MAX_BYTES = 253, LABEL_MAX_BYTES = 63 }; /* RFC 1035, section 2.3.4 */

static bool is_label_char(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

/* RFC 1123, section 2.1, and '_', which DNS itself allows and service names use. */
static bool name_valid(const char *host)
{
    size_t label = 0;

    for (const char *at = host; *at; at++) {
        if (*at == '.') {
            if (label == 0) {
                return false;
            }
            label = 0;
        } else if (!is_label_char((unsigned char)*at) || ++label > LABEL_MAX_BYTES) {
            return false;
        }
    }
    return label > 0;
}

/* Only digits and dots, or "0x7f1": inet_aton(3) would take it for an address, in a form that need
 * not look like the rule that it gets past. */
static bool looks_numeric(const char *host)
{
    const char *last = strrchr(host, '.');

    last = last ? last + 1 : host;
    return last[strspn(last, "0123456789")] == '\0' || (last[0] == '0' && last[1] == 'x');
}

static bool read_address(const char *text, int family, struct un_endpoint *e)
{
    unsigned char bytes[16];

    if (inet_pton(family, text, bytes) != 1) {
        return false;
    }
    inet_ntop(family, bytes, e->host, sizeof(e->host));
    e->is_address = true;
    return true;
}

static int read_name(const char *text, bool rule, struct un_endpoint *e, struct un_error *err)
{
    size_t len;

    if (rule && strncmp(text, "*.", 2) == 0) {
        e->below = true;
        text += 2;
    }
    len = strlen(text);
    if (len > 1 && text[len - 1] == '.') {
        len--;
    }
    if (len > NAME_MAX_BYTES) {
        return un_error_set(err, -EINVAL, "the host's name is longer than %d bytes",
                            NAME_MAX_BYTES);
    }
    for (size_t i = 0; i < len; i++) {
        e->host[i] = (char)(text[i] >= 'A' && text[i] <= 'Z' ? text[i] + 32 : text[i]);
    }
    e->host[len] = '\0';
    if (!name_valid(e->host) || looks_numeric(e->host)) {
        return un_error_set(err, -EINVAL,
                            "the host must be a name%s, an IPv4 address, or an IPv6 address in "
                            "brackets",
                            rule ? " or *.domain" : "");
    }
    return 0;
}

static int read_host(const char *text, size_t len, bool rule, bool bare_v6, struct un_endpoint *e,
                     struct un_error *err)
{
    char host[UN_ENDPOINT_HOST_SIZE];

    if (len >= sizeof(host) || memchr(text, '\0', len)) {
        return un_error_set(err, -EINVAL, "the host's name is longer than %d bytes",
                            NAME_MAX_BYTES);
    }
    memcpy(host, text, len);
    host[len] = '\0';
    if (len > 2 && host[0] == '[' && host[len - 1] == ']') {
        host[len - 1] = '\0';
        return read_address(host + 1, AF_INET6, e)
                   ? 0
                   : un_error_set(err, -EINVAL, "what stands in brackets is no IPv6 address");
    }
    if (read_address(host, AF_INET, e) || (bare_v6 && read_address(host, AF_INET6, e))) {
        return 0;
    }
    return read_name(host, rule, e, err);
}

static int read_port(const char *text, size_t len, bool rule, struct un_endpoint *e,
                     struct un_error *err)
{
    uint32_t port = 0;

    if (rule && len == 1 && *text == '*') {
        e->any_port = true;
        return 0;
    }
    for (size_t i = 0; i < len && port <= UINT16_MAX; i++) {
        if (text[i] < '0' || text[i] > '9') {
            port = 0;
            break;
        }
        port = port * 10 + (uint32_t)(text[i] - '0');
    }
    if (port < 1 || port > UINT16_MAX || len > 5) {
        return un_error_set(err, -EINVAL, "the port must be a number from 1 to 65535%s",
                            rule ? ", or * for any" : "");
    }
    e->port = (uint16_t)port;
    return 0;
}

int un_endpoint_parse(const char *text, size_t len, bool rule, struct un_endpoint *ret,
                      struct un_error *err)
{
    struct un_endpoint e = {0};
    const char *colon = memrchr(text, ':', len);
    int rc;

    if (!colon) {
        return un_error_set(err, -EINVAL, "must be HOST:PORT");
    }
    rc = read_host(text, (size_t)(colon - text), rule, false, &e, err);
    if (rc == 0) {
        rc = read_port(colon + 1, len - (size_t)(colon + 1 - text), rule, &e, err);
    }
    if (rc == 0) {
        *ret = e;
    }
    return rc;
}

int un_endpoint_parse_host(const char *text, size_t len, struct un_endpoint *ret,
                           struct un_error *err)
{
    struct un_endpoint e = {.any_port = true};
    int rc = read_host(text, len, false, true, &e, err);

    if (rc == 0) {
        *ret = e;
    }
    return rc;
}

int un_endpoint_parse_listen(const char *text, size_t len, struct un_endpoint *ret,
                             struct un_error *err)
{
    struct un_endpoint e = {0};
    const char *colon = memrchr(text, ':', len), *port = colon ? colon + 1 : text;
    size_t port_len = len - (size_t)(port - text);
    int rc = 0;

    if (colon) {
        rc = read_host(text, (size_t)(colon - text), false, false, &e, err);
    }
    if (rc == 0 && (!colon || (!e.is_address && strcmp(e.host, "localhost") == 0))) {
        snprintf(e.host, sizeof(e.host), "127.0.0.1");
        e.is_address = true;
    }
    if (rc == 0 && !e.is_address) {
        rc =
            un_error_set(err, -EINVAL, "what listens needs an IP address of this host, not a name");
    }
    if (rc == 0 && !(port_len == 1 && *port == '0')) {
        rc = read_port(port, port_len, false, &e, err);
    }
    if (rc == 0) {
        *ret = e;
    }
    return rc;
}

bool un_endpoint_matches(const struct un_endpoint *rule, const struct un_endpoint *to,
                         bool host_only)
{
    size_t rule_len = strlen(rule->host), len = strlen(to->host);

    if (!host_only && !rule->any_port && rule->port != to->port) {
        return false;
    }
    if (rule->is_address != to->is_address || !rule->below) {
        return rule->is_address == to->is_address && strcmp(rule->host, to->host) == 0;
    }
    return len > rule_len + 1 && to->host[len - rule_len - 1] == '.' &&
           strcmp(to->host + len - rule_len, rule->host) == 0;
}

size_t un_url_scheme(const char *text)
{
    return strncmp(text, "http://", 7) == 0 ? 7 : strncmp(text, "https://", 8) == 0 ? 8 : 0;
}

const char *un_endpoint_text(const struct un_endpoint *e, char buf[UN_ENDPOINT_TEXT_SIZE])
{
    bool v6 = e->is_address && strchr(e->host, ':');
    int n = snprintf(buf, UN_ENDPOINT_TEXT_SIZE, "%s%s%s%s:", e->below ? "*." : "", v6 ? "[" : "",
                     e->host, v6 ? "]" : "");

    if (e->any_port) {
        snprintf(buf + n, UN_ENDPOINT_TEXT_SIZE - (size_t)n, "*");
    } else {
        snprintf(buf + n, UN_ENDPOINT_TEXT_SIZE - (size_t)n, "%u", e->port);
    }
    return buf;
}
