/* net_world.h - what the tests of guest networks share: a network namespace of the test's own, guests that
 * are this process with their taps open, and the frames that they send and get.
 */
#ifndef UNID_TESTS_NET_WORLD_H
#define UNID_TESTS_NET_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "netplumb/net.h"

/* Set by enter_namespace; where the process may not make one, the kernel's side is skipped. */
extern bool have_namespace;
/* A group's set-up. In the namespace are things that are others': a bridge, a tap, tables. */
int enter_namespace(void **state);

struct world {
    struct un_loop *loop;
    struct netplumb *np;
    struct net_link *link;
    const struct net_wish *wish; /* of the next attach */
    int waiting, rc;
    struct un_error err;
    int conn; /* what a guest has opened last; -1: nothing */
};
void world_open(struct world *w);
void world_open_with(struct world *w, uint32_t linger_ms, uint32_t segment_ports); /* 0: as usual */
void world_open_as(struct world *w, const char *state_dir); /* another unid */
void world_close(struct world *w);
void world_run(struct world *w, uint64_t us); /* or until something stops the loop */
void world_wait_until_none_is_idle(struct world *w);
void wait_until_mended(struct world *w, uint64_t times); /* what others have removed, so often */
/* What netplumb still looks at, as something had changed, has been looked at: its worker does one thing after another.
 * What the link's guest may connect to is nothing then. */
void world_settle(struct world *w, struct net_link *link);
void wait_for(struct world *w); /* until nothing is waited for */

/* Callbacks of netplumb's; `arg` is the world. */
void on_attach(void *arg, int rc, struct net_link *link, const struct un_error *err);
void on_done(void *arg);
struct net_link *attach(struct world *w);

/* The caller frees it; the command must succeed. */
char *output_of(const char *command);
void command(const char *text);
/* All that others may have configured, without what changes by itself (carrier, counters). */
char *host_state(void);

/* What QEMU does with a tap. */
int tap_open(const char *name);

struct frame {
    uint8_t data[1514];
    size_t len;
};
struct frame arp_request(const char *mac, const char *ip, const char *wanted); /* RFC 826 */
/* An IPv4 packet with `len` bytes of payload; RFC 791. */
struct frame ipv4(const char *to_mac, const struct net_link *from, const char *to, uint8_t proto,
                  const uint8_t *payload, size_t len);
/* A TCP segment without data from port 12345 to port 4444; RFC 9293. */
struct frame tcp_at(const char *to_mac, const struct net_link *from, const char *to, uint8_t flags,
                    const uint32_t seq_ack[2]);
/* The same; number and acknowledgement are 1. */
struct frame tcp(const char *to_mac, const struct net_link *from, const char *to, uint8_t flags);
struct frame echo_request(const char *to_mac, const struct net_link *from, const char *to);
void send_frame(int fd, struct frame f);
/* Whether a frame comes that has `value` at `at` and the EtherType, however busy the machine is; others are passed
 * over. */
bool comes(int fd, uint16_t type, size_t at, uint8_t value, struct frame *ret);
/* The same, of one that comes at once or not at all. */
bool comes_at_once(int fd, uint16_t type, size_t at, uint8_t value, struct frame *ret);
/* Asks by ARP until it is answered. */
void gateway_mac(int fd, const struct net_link *l, char ret[NET_MAC_SIZE]);

#endif
