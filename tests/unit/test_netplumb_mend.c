/* test_netplumb_mend.c - what other programs do to the network of guests while these run: a firewall that is
 * flushed, a bridge or a tap that is removed. In a network namespace of the test's own.
 */
#include <linux/if_ether.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "net_world.h"

/* But for the guard, which nobody else can remove. */
#define OUR_TABLES "nft list tables | sed -n 's/^table \\(.* unid-[0-9a-f]*\\)$/\\1/p' | "

enum { HOST_PORT = 7777 };

/* A guest that has its tap open and knows its gateway. */
struct guest {
    struct net_link *link;
    int fd;
    char gw[NET_MAC_SIZE];
};

static struct guest guest_new(struct world *w)
{
    struct guest g = {.link = attach(w)};
    g.fd = tap_open(g.link->tap);
    gateway_mac(g.fd, g.link, g.gw);
    return g;
}

static void guest_end(struct guest *g)
{
    close(g->fd);
    net_detach(g->link);
}

/* It reaches the gateway, and no service of the host. */
static void assert_guarded(const struct guest *g)
{
    send_frame(g->fd, echo_request(g->gw, g->link, g->link->gateway));
    assert_true(comes(g->fd, ETH_P_IP, 23, IPPROTO_ICMP, NULL));
    send_frame(g->fd, tcp(g->gw, g->link, "10.99.0.1", 0x02));
    assert_true(comes(g->fd, ETH_P_IP, 47, 0x14, NULL));
    send_frame(g->fd, echo_request(g->gw, g->link, "10.99.0.1"));
    assert_false(comes_at_once(g->fd, ETH_P_IP, 23, IPPROTO_ICMP, NULL));
}

static void test_a_removed_firewall_is_made_again(void **state)
{
    static const char *const ways[] = {
        OUR_TABLES "while read t; do nft delete table $t; done",
        OUR_TABLES "while read t; do nft flush table $t; done",
        OUR_TABLES "grep bridge | while read t; do nft delete table $t; done",
    };
    if (!have_namespace) {
        skip();
    }
    struct world w;
    world_open(&w);
    struct guest g = guest_new(&w);
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        struct net_stats before;
        net_get_stats(w.np, &before);
        command(ways[i]);
        wait_until_mended(&w, before.mended + 1);
        assert_guarded(&g);
    }
    struct guest other = guest_new(&w);
    assert_guarded(&other);
    guest_end(&other);
    guest_end(&g);
    world_close(&w);
}

/* A service of the host, at all its addresses. */
static int serve_udp(void)
{
    const struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(HOST_PORT)};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&at, sizeof(at)), 0);
    return fd;
}

static void send_udp(const struct guest *g, const char *to)
{
    const uint8_t udp[8] = {7, 7, HOST_PORT >> 8, HOST_PORT & 255, 0, sizeof(udp)}; /* RFC 768 */
    send_frame(g->fd, ipv4(g->gw, g->link, to, IPPROTO_UDP, udp, sizeof(udp)));
}

static void test_while_there_is_no_firewall_guests_reach_nothing(void **state)
{
    /* A table that others cannot remove; it goes with the command. */
    if (!have_namespace || system("nft add table inet probe '{ flags owner; }'") != 0) {
        skip();
    }
    struct world w;
    char byte;
    world_open(&w);
    struct guest g = guest_new(&w);
    int service = serve_udp();
    world_settle(&w, g.link);
    command("nft flush ruleset"); /* nothing is mended before the loop runs */
    send_udp(&g, g.link->gateway);
    send_udp(&g, "10.99.0.1");
    send_frame(g.fd, tcp(g.gw, g.link, "10.99.0.1", 0x02));
    assert_false(comes_at_once(g.fd, ETH_P_IP, 23, IPPROTO_TCP, NULL));
    wait_until_mended(&w, 1);
    assert_guarded(&g);
    assert_int_equal(recv(service, &byte, 1, 0), -1);
    close(service);
    guest_end(&g);
    world_close(&w);
}

static void test_a_removed_bridge_is_made_again(void **state)
{
    if (!have_namespace) {
        skip();
    }
    struct world w;
    world_open(&w);
    struct guest a = guest_new(&w), b = guest_new(&w);
    command("ip -o link show master $(ip -o link | sed -n 's/.*: \\(ub-[0-9a-f]*\\):.*/\\1/p') | "
            "wc -l | "
            "grep -qx 2");
    command("ip link del $(ip -o link | sed -n 's/.*: \\(ub-[0-9a-f]*\\):.*/\\1/p')");
    wait_until_mended(&w, 1);
    assert_guarded(&a);
    assert_guarded(&b);
    send_frame(a.fd, arp_request(a.link->mac, a.link->ip, b.link->ip));
    assert_false(comes_at_once(b.fd, ETH_P_ARP, 21, 1, NULL));
    char *route = output_of("ip route show table all");
    assert_non_null(strstr(route, a.link->ip));
    free(route);
    guest_end(&a);
    guest_end(&b);
    world_close(&w);
}

static void test_a_link_whose_tap_was_removed_serves_nobody_else(void **state)
{
    if (!have_namespace) {
        skip();
    }
    struct world w;
    char text[64], lost[NET_NAME_SIZE];
    world_open(&w);
    struct net_link *l = attach(&w);
    memcpy(lost, l->tap, sizeof(lost));
    net_detach(l); /* idle */
    snprintf(text, sizeof(text), "ip link del %s", lost);
    command(text);
    world_wait_until_none_is_idle(&w);
    struct guest g = guest_new(&w);
    assert_guarded(&g);
    guest_end(&g);
    world_close(&w);
}

static void test_what_netplumb_removes_itself_is_not_mended(void **state)
{
    if (!have_namespace) {
        skip();
    }
    struct world w;
    char *before = host_state();
    world_open_with(&w, 1, 1);
    struct guest a = guest_new(&w), b = guest_new(&w);
    guest_end(&a);
    guest_end(&b);
    world_wait_until_none_is_idle(&w);
    world_run(&w, 50000);
    struct net_stats stats;
    net_get_stats(w.np, &stats);
    assert_int_equal(stats.mended, 0);
    world_close(&w);
    char *after = host_state();
    assert_string_equal(after, before);
    free(before);
    free(after);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_removed_firewall_is_made_again),
        cmocka_unit_test(test_while_there_is_no_firewall_guests_reach_nothing),
        cmocka_unit_test(test_a_removed_bridge_is_made_again),
        cmocka_unit_test(test_a_link_whose_tap_was_removed_serves_nobody_else),
        cmocka_unit_test(test_what_netplumb_removes_itself_is_not_mended),
    };
    return cmocka_run_group_tests(tests, enter_namespace, NULL);
}
