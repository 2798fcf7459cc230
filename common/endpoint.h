/* endpoint.h - "host:port" as people and programs write it, and rules about such endpoints.
 *
 * Host: a DNS name (letters, digits, '-', '_' and dots; at most 253 bytes), an IPv4 address, or an
 * IPv6 address in brackets. Names are kept in lower case without a final dot, addresses in the form
 * of inet_ntop(3), so that equal endpoints have equal bytes. In a rule the host may be "*.domain"
 * (every name below the domain, not the domain itself), the port "*".
 *
 * Pure functions; any thread.
 */
#ifndef UNID_COMMON_ENDPOINT_H
#define UNID_COMMON_ENDPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

enum { UN_ENDPOINT_HOST_SIZE = 256, UN_ENDPOINT_TEXT_SIZE = 272 };

struct un_endpoint {
    char host[UN_ENDPOINT_HOST_SIZE]; /* without brackets; without "*." when `below` */
    uint16_t port;                    /* 0 when `any_port` */
    bool is_address;                  /* host is an IP address */
    bool below;                       /* rules: every name below `host` */
    bool any_port;                    /* rules */
};

/* Reads an endpoint, or a rule when `rule`. -EINVAL with the reason. */
int un_endpoint_parse(const char *text, size_t len, bool rule, struct un_endpoint *ret,
                      struct un_error *err);

/* Reads a host alone, as un_endpoint_parse would with a port; IPv6 with or without brackets. */
int un_endpoint_parse_host(const char *text, size_t len, struct un_endpoint *ret,
                           struct un_error *err);

/* Reads "[ADDR:]PORT", where something is to listen: ADDR an IP address, an IPv6 one in brackets;
 * without one, or "localhost", 127.0.0.1. PORT 0: the kernel chooses. -EINVAL with the reason. */
int un_endpoint_parse_listen(const char *text, size_t len, struct un_endpoint *ret,
                             struct un_error *err);

/* Whether the rule allows the endpoint; or, with `host_only`, allows it with some port. */
bool un_endpoint_matches(const struct un_endpoint *rule, const struct un_endpoint *to,
                         bool host_only);

/* How long "http://" or "https://" is, with which the text begins; 0: it begins with neither. */
size_t un_url_scheme(const char *text);

/* As un_endpoint_parse reads it back. Returns `buf`. */
const char *un_endpoint_text(const struct un_endpoint *e, char buf[UN_ENDPOINT_TEXT_SIZE]);

#endif
