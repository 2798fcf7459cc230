/* auth.c - who may use which route. The one place that decides.
 *
 * The Unix socket is guarded by its file's mode. Over TCP, which is the loopback interface by
 * default, three things are checked for REST:
 *   - the Host names an address, localhost, or a configured name. A web page that has its own name
 * point to 127.0.0.1 (DNS rebinding) sends that name.
 *   - an Origin field, which browsers send with what pages do, must be that Host's.
 *   - the token, when one is configured. Where none is, pages of that Host are refused as well: unid has none,
 *     so they are functions', whose authors are not to be trusted with REST.
 * Functions under /fn are public to whoever reaches the listener; what they let in is theirs to
 * decide. */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "api/call.h"

/* The host of "host:port" or "[v6]:port", without the brackets. False when it is neither, or does not fit. */
static bool split_host(const char *authority, char *out, size_t size)
{
    bool v6 = authority[0] == '[';
    size_t len = strcspn(authority + v6, v6 ? "]" : ":");
    const char *rest = authority + v6 + len;
    if (len >= size || (v6 && *rest++ != ']') || (*rest && *rest != ':')) {
        return false;
    }
    memcpy(out, authority + v6, len);
    out[len] = '\0';
    return true;
}

static bool host_is_ours(const struct api *a, const char *authority)
{
    char host[256];
    struct in6_addr addr;
    if (!authority || !split_host(authority, host, sizeof(host))) {
        return false;
    }
    if (inet_pton(AF_INET, host, &addr) == 1 || inet_pton(AF_INET6, host, &addr) == 1 ||
        strcasecmp(host, "localhost") == 0) {
        return true;
    }
    for (char **h = a->hosts; h && *h; h++) {
        if (strcasecmp(host, *h) == 0) {
            return true;
        }
    }
    return false;
}

static bool origin_is_ours(const char *origin, const char *host)
{
    return host && strncasecmp(origin, "http://", 7) == 0 && strcasecmp(origin + 7, host) == 0;
}

/* Whether a browser says that a page has sent it. (Fetch Metadata: "none" is what people do themselves.) */
static bool is_of_page(const struct http_request *req)
{
    const char *site = http_request_field(req, "sec-fetch-site");
    return http_request_field(req, "origin") || (site && strcasecmp(site, "none") != 0);
}

/* Takes as long for a wrong token as for the right one. */
static bool token_is(const char *given, const char *right)
{
    size_t given_len = strlen(given), right_len = strlen(right);
    unsigned char differs = given_len != right_len;
    for (size_t i = 0; i < right_len; i++) {
        differs |= (unsigned char)(right[i] ^ given[given_len ? i % given_len : 0]);
    }
    return !differs;
}

bool api_authorize(struct api *a, struct http_exchange *ex, const struct route *route)
{
    const struct http_request *req = http_exchange_request(ex);
    if (route->auth == AUTH_NONE || route->auth == AUTH_EVENT) {
        return true;
    }
    const char *origin = http_request_field(req, "origin");
    if (origin && !origin_is_ours(origin, req->host)) {
        http_respond_problem(ex, 403, "the request comes from a web page of another origin");
        return false;
    }
    if (http_exchange_is_unix(ex)) {
        return true;
    }
    if (req->minor >= 1 && !host_is_ours(a, req->host)) {
        http_respond_problem(ex, 421,
                             "the Host is neither an address nor localhost nor one of api.hosts");
        return false;
    }
    if (!a->token && is_of_page(req)) {
        http_respond_problem(
            ex, 403,
            "the request comes from a web page, as functions may have; for pages of one's "
            "own configure a token");
        return false;
    }
    if (!a->token) {
        return true;
    }
    const char *given = http_request_field(req, "authorization");
    if (!given || strncasecmp(given, "Bearer ", 7) != 0 || !token_is(given + 7, a->token)) {
        http_respond_field(ex, "WWW-Authenticate", "Bearer");
        http_respond_problem(ex, 401,
                             "this needs \"Authorization: Bearer\" with the configured token");
        return false;
    }
    return true;
}
