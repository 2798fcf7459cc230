/* router.c - see router.h. */
#include "api/router.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Decodes [in, in + len) into `out`. The decoded length, -EINVAL, or -E2BIG. Control characters are
 * refused: nothing that is named here has any. */
static int decode(const char *in, size_t len, bool plus, char *out, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)in[i];
        if (c == '%') {
            if (len - i < 3 || hex_digit(in[i + 1]) < 0 || hex_digit(in[i + 2]) < 0) {
                return -EINVAL;
            }
            c = (unsigned char)(hex_digit(in[i + 1]) * 16 + hex_digit(in[i + 2]));
            i += 2;
        } else if (c == '+' && plus) {
            c = ' ';
        }
        if (c < 0x20 || c == 0x7f) {
            return -EINVAL;
        }
        if (n + 1 >= size) {
            return -E2BIG;
        }
        out[n++] = (char)c;
    }
    out[n] = '\0';
    return (int)n;
}

/* "." or ".." */
static bool is_dot_segment(size_t length, size_t dots)
{
    return length == dots && (dots == 1 || dots == 2);
}

/* The whole path is looked at before anything is matched, as a program sees it that decodes it: where an encoded
 * slash ends a segment too. */
static bool path_is_clean(const char *path, size_t len)
{
    size_t length = 0, dots = 0; /* of the segment */
    for (size_t at = 1; at < len; at++) {
        int c = (unsigned char)path[at];
        if (c == '%') {
            if (len - at < 3 || hex_digit(path[at + 1]) < 0 || hex_digit(path[at + 2]) < 0) {
                return false;
            }
            c = hex_digit(path[at + 1]) * 16 + hex_digit(path[at + 2]);
            at += 2;
        }
        if (c != '/') {
            length++;
            dots += c == '.';
        } else if (is_dot_segment(length, dots)) {
            return false;
        } else {
            length = dots = 0;
        }
    }
    return !is_dot_segment(length, dots);
}

/* Matches one segment: 1 it does; 0 it does not. */
static bool match_segment(const char *pattern, size_t pattern_len, const char *path,
                          size_t path_len, struct route_match *m, unsigned *params)
{
    if (pattern_len && pattern[0] == '{') {
        if (path_len == 0 || *params == ROUTE_PARAMS_MAX) {
            return false;
        }
        return decode(path, path_len, false, m->params[(*params)++], ROUTE_PARAM_SIZE) >= 0;
    }
    return pattern_len == path_len && memcmp(pattern, path, path_len) == 0;
}

static bool match_path(const char *pattern, const char *path, size_t len, struct route_match *m)
{
    const char *end = path + len;
    unsigned params = 0;
    m->rest = NULL;
    while (*pattern == '/' && path < end && *path == '/') {
        size_t pattern_len = strcspn(pattern + 1, "/");
        const char *slash = memchr(path + 1, '/', (size_t)(end - path) - 1);
        size_t path_len = (size_t)((slash ? slash : end) - path) - 1;
        if (pattern_len > 4 && memcmp(pattern + pattern_len - 3, "...}", 4) == 0) {
            m->rest = path;
            return true;
        }
        if (!match_segment(pattern + 1, pattern_len, path + 1, path_len, m, &params)) {
            return false;
        }
        pattern += pattern_len + 1;
        path += path_len + 1;
    }
    return !*pattern && path == end;
}

static bool match_method(const char *route, const char *method)
{
    return strcmp(route, "*") == 0 || strcmp(route, method) == 0 ||
           (strcmp(method, "HEAD") == 0 && strcmp(route, "GET") == 0);
}

static void add_allow(struct route_match *m, const char *method)
{
    size_t len = strlen(m->allow);
    snprintf(m->allow + len, sizeof(m->allow) - len, "%s%s%s", len ? ", " : "", method,
             strcmp(method, "GET") == 0 ? ", HEAD" : "");
}

bool route_target_clean(const char *target)
{
    return target[0] == '/' && path_is_clean(target, strcspn(target, "?"));
}

enum route_result route_find(const struct route *table, size_t count, const char *method,
                             const char *target, struct route_match *ret)
{
    memset(ret, 0, sizeof(*ret));
    size_t len = strcspn(target, "?");
    if (!route_target_clean(target)) {
        return ROUTE_MALFORMED;
    }
    ret->query = target[len] ? target + len + 1 : NULL;
    for (size_t i = 0; i < count; i++) {
        if (!match_path(table[i].pattern, target, len, ret)) {
            continue;
        }
        if (match_method(table[i].method, method)) {
            ret->route = &table[i];
            return ROUTE_OK;
        }
        add_allow(ret, table[i].method);
    }
    return ret->allow[0] ? ROUTE_BAD_METHOD : ROUTE_NOT_FOUND;
}

int route_query(const char *query, const char *key, char *out, size_t size)
{
    size_t key_len = strlen(key);
    while (query && *query) {
        size_t len = strcspn(query, "&");
        if (len >= key_len && memcmp(query, key, key_len) == 0 &&
            (len == key_len || query[key_len] == '=')) {
            size_t skip = len == key_len ? key_len : key_len + 1;
            int n = decode(query + skip, len - skip, true, out, size);
            return n < 0 ? n : 1;
        }
        query += len + (query[len] == '&');
    }
    return 0;
}
