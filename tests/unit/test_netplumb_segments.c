/* test_netplumb_segments.c - guests on several bridges: each is served as on one, none reaches one of
 * another, and bridges come and go with their guests. In a network namespace of the test's own.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "net_world.h"
#include "netplumb/dnsmasq.h"

static unsigned bridges(void)
{
    un_autofree char *text =
        output_of("ip -o link show type bridge | grep -c ': ub-' || true"); /* as grep counts 0 */
    return (unsigned)atoi(text);
}

/* Which bridge a tap is a port of. The caller frees it. */
static char *bridge_of(const struct net_link *link)
{
    un_autofree char *ask = NULL;
    assert_true(asprintf(&ask, "ip -o link show %s | grep -o 'master [^ ]*'", link->tap) > 0);
    return output_of(ask);
}

static void detach_and_wait(struct world *w, struct net_link *link)
{
    net_detach(link);
    world_wait_until_none_is_idle(w);
}

static void test_guests_of_two_segments_reach_the_gateway_and_not_each_other(void **state)
{
    if (!have_namespace) {
        skip();
    }
    /* A host that forwards, and looks strictly at where packets come from. */
    command(
        "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv4/conf/all/rp_filter");
    un_autofree char *before = host_state();
    struct world w;
    world_open_with(&w, 0, 1);
    struct net_link *a = attach(&w), *b = attach(&w);
    assert_int_equal(bridges(), 2);
    int fds[] = {tap_open(a->tap), tap_open(b->tap)};
    struct net_link *links[] = {a, b};
    char gw[NET_MAC_SIZE];
    for (int i = 0; i < 2; i++) {
        const struct net_link *self = links[i], *other = links[1 - i];
        gateway_mac(fds[i], self, gw);
        assert_string_equal(gw, "02:75:0a:57:00:01");
        send_frame(fds[i], echo_request(gw, self, self->gateway));
        assert_true(comes(fds[i], ETH_P_IP, 34, 0, NULL)); /* echo reply */
        send_frame(fds[i], tcp(gw, self, "203.0.113.5", 0x02));
        assert_true(comes(fds[i], ETH_P_IP, 47, 0x14, NULL)); /* a reset */
        /* Virtual addresses are answered for on each bridge. */
        send_frame(fds[i], arp_request(self->mac, self->ip, "10.87.0.200"));
        assert_true(comes(fds[i], ETH_P_ARP, 21, 2, NULL));
        send_frame(fds[i], arp_request(self->mac, self->ip, other->ip));
        send_frame(fds[i], echo_request(other->mac, self, other->ip));
        send_frame(fds[i], echo_request(gw, self, other->ip));
        send_frame(fds[i], tcp(gw, self, other->ip, 0x10));
        assert_false(comes_at_once(fds[1 - i], ETH_P_IP, 29,
                                   (uint8_t)atoi(strrchr(self->ip, '.') + 1), NULL));
        send_frame(fds[i], arp_request(self->mac, self->ip, other->ip));
        assert_false(comes_at_once(fds[1 - i], ETH_P_ARP, 21, 1, NULL));
    }
    close(fds[0]);
    close(fds[1]);
    net_detach(a);
    net_detach(b);
    world_close(&w);
    un_autofree char *after = host_state();
    assert_string_equal(before, after);
    command(
        "echo 0 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter");
}

/* Else it takes longer to make one beside many: the kernel goes through the ports of a bridge, and through
 * the IPv6 routes that links have which are up. */
static void test_a_tap_is_beside_few_others_and_without_ipv6(void **state)
{
    if (!have_namespace) {
        skip();
    }
    struct world w;
    struct net_link *links[NET_SEGMENT_PORTS + 1];
    world_open(&w);
    for (unsigned i = 0; i <= NET_SEGMENT_PORTS; i++) {
        links[i] = attach(&w);
    }
    assert_int_equal(bridges(), 2);
    un_autofree char *routes = output_of("ip -6 route show table all | grep ' u[bt]' || true");
    assert_string_equal(routes, "");
    for (unsigned i = 0; i <= NET_SEGMENT_PORTS; i++) {
        net_detach(links[i]);
    }
    world_close(&w);
}

static void test_a_segment_is_made_when_all_are_full_and_goes_when_it_is_empty(void **state)
{
    if (!have_namespace) {
        skip();
    }
    un_autofree char *before = host_state();
    struct world w;
    struct net_link *links[5];
    world_open_with(&w, 20, 2);
    for (int i = 0; i < 5; i++) {
        links[i] = attach(&w);
        assert_int_equal(bridges(), i / 2 + 1);
    }
    /* The only one with room stays, though nobody is on it: the next comes to it. */
    un_autofree char *third = bridge_of(links[4]);
    detach_and_wait(&w, links[4]);
    assert_int_equal(bridges(), 3);
    links[4] = attach(&w);
    un_autofree char *again = bridge_of(links[4]);
    assert_string_equal(third, again);
    /* Another has room: it goes. */
    detach_and_wait(&w, links[0]);
    detach_and_wait(&w, links[4]);
    assert_int_equal(bridges(), 2);
    /* The first goes before the second, which serves on and takes the next. */
    detach_and_wait(&w, links[2]);
    detach_and_wait(&w, links[1]);
    assert_int_equal(bridges(), 1);
    int fd = tap_open(links[3]->tap);
    char gw[NET_MAC_SIZE];
    gateway_mac(fd, links[3], gw);
    send_frame(fd, arp_request(links[3]->mac, links[3]->ip, "10.87.0.200"));
    assert_true(comes(fd, ETH_P_ARP, 21, 2, NULL));
    close(fd);
    un_autofree char *second = bridge_of(links[3]);
    struct net_link *next = attach(&w);
    un_autofree char *nexts = bridge_of(next);
    assert_string_equal(second, nexts);
    assert_int_equal(bridges(), 1);
    /* With the last all goes, and there are no more routes than there were. */
    net_detach(next);
    detach_and_wait(&w, links[3]);
    world_close(&w);
    un_autofree char *after = host_state();
    assert_string_equal(before, after);
}

/* RFC 2131 (DHCPDISCOVER), 2132. */
static struct frame dhcp_discover(const struct net_link *link)
{
    static const uint8_t head[] = {0, 68, 0, 67, 1, 8, 0, 0, 1, 1, 6, 0, 0x12, 0x34, 0x56, 0x78};
    static const uint8_t options[] = {99, 130, 83, 99, 53, 1, 1, 255};
    uint8_t udp[8 + 300 - 44] = {0};
    struct net_link nobody = *link;
    memcpy(udp, head, sizeof(head));
    udp[4] = sizeof(udp) >> 8;
    udp[5] = sizeof(udp) & 255;
    unsigned mac[6];
    assert_int_equal(
        sscanf(link->mac, "%x:%x:%x:%x:%x:%x", mac, mac + 1, mac + 2, mac + 3, mac + 4, mac + 5),
        6);
    for (int i = 0; i < 6; i++) {
        udp[8 + 28 + i] = (uint8_t)mac[i];
    }
    memcpy(udp + 8 + 236, options, sizeof(options));
    snprintf(nobody.ip, sizeof(nobody.ip), "0.0.0.0");
    return ipv4("ff:ff:ff:ff:ff:ff", &nobody, "255.255.255.255", IPPROTO_UDP, udp, sizeof(udp));
}

/* RFC 1035: the address of a.example. */
static struct frame dns_query(const char *gw, const struct net_link *link)
{
    uint8_t udp[] = {0x30, 0x39, 0, 53,  0, 35,  0,   0,   0x12, 0x34, 1,   0,   0, 1, 0, 0, 0, 0,
                     0,    0,    1, 'a', 7, 'e', 'x', 'a', 'm',  'p',  'l', 'e', 0, 0, 1, 0, 1};
    return ipv4(gw, link, link->gateway, IPPROTO_UDP, udp, sizeof(udp));
}

/* Sends the question again and again, while the loop runs, until a UDP packet comes from `port` that has
 * these four bytes at `at`, or at its end for 0. */
static void ask(struct world *w, int fd, struct frame question, uint8_t port, size_t at,
                const uint8_t bytes[4])
{
    for (int i = 0; i < 50; i++) {
        struct frame f;
        send_frame(fd, question);
        world_run(w, 20000);
        while (comes_at_once(fd, ETH_P_IP, 23, IPPROTO_UDP, &f)) {
            size_t from = at ? at : f.len - 4;
            if (f.len >= 46 && from + 4 <= f.len && f.data[35] == port &&
                memcmp(f.data + from, bytes, 4) == 0) {
                return;
            }
        }
    }
    fail_msg("no answer from port %u", port);
}

static void assert_has_dhcp_and_names(struct world *w, const struct net_link *link)
{
    static const uint8_t name[] = {10, 87, 0, 192}; /* the first virtual address */
    uint8_t ip[4];
    char gw[NET_MAC_SIZE];
    int fd = tap_open(link->tap);
    gateway_mac(fd, link, gw);
    inet_pton(AF_INET, link->ip, ip);
    ask(w, fd, dhcp_discover(link), 67, 58, ip); /* yiaddr */
    ask(w, fd, dns_query(gw, link), 53, 0, name);
    close(fd);
}

static void test_each_segment_has_dhcp_and_names(void **state)
{
    if (!have_namespace || !net_names_available(NULL)) {
        skip();
    }
    static char rule[] = "a.example:80";
    char *const egress[] = {rule, NULL};
    const struct net_wish wish = {.key = "one", .egress = egress};
    /* Another's DHCP server. */
    struct sockaddr_in theirs = {.sin_family = AF_INET, .sin_port = htons(67)};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&theirs, sizeof(theirs)), 0);
    struct world w;
    world_open_with(&w, 20, 1);
    w.wish = &wish;
    struct net_link *a = attach(&w);
    assert_has_dhcp_and_names(&w, a);
    /* Bridges that come later than dnsmasq, and stay longer than the one that it found. */
    struct net_link *b = attach(&w), *c = attach(&w);
    assert_has_dhcp_and_names(&w, b);
    assert_has_dhcp_and_names(&w, a);
    detach_and_wait(&w, a);
    detach_and_wait(&w, b);
    assert_int_equal(bridges(), 2); /* one of them waits for the next guest */
    assert_has_dhcp_and_names(&w, c);
    net_detach(c);
    world_close(&w);
    uint8_t byte;
    assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), -1); /* it has heard of none */
    close(fd);
}

static void change(struct world *w, struct net_link *link, const struct net_wish *wish)
{
    w->waiting++;
    assert_int_equal(net_change(link, wish, on_attach, w, &w->err), 0);
    wait_for(w);
    assert_int_equal(w->rc, 0);
}

/* DNS is one view: who may connect to no name learns of none. */
static void test_a_guest_that_may_connect_to_no_name_reaches_no_dns(void **state)
{
    if (!have_namespace || !net_names_available(NULL)) {
        skip();
    }
    static const uint8_t address[] = {10, 87, 0, 192};
    static char name[] = "a.example:80", same[] = "a.example:81", literal[] = "203.0.113.5:80";
    char *const names[] = {name, NULL}, *const more[] = {same, literal, NULL},
                *const addresses[] = {literal, NULL};
    const struct net_wish by_name = {.key = "one", .egress = names},
                          by_both = {.key = "two", .egress = more},
                          by_address = {.key = "three", .egress = addresses};
    struct world w;
    world_open(&w);
    w.wish = &by_name;
    struct net_link *a = attach(&w);
    assert_has_dhcp_and_names(&w, a);
    w.wish = NULL;
    struct net_link *b = attach(&w);
    char gw[NET_MAC_SIZE];
    int fd = tap_open(b->tap);
    gateway_mac(fd, b, gw);
    const struct frame question = dns_query(gw, b);
    send_frame(fd, question);
    assert_true(comes(fd, ETH_P_IP, 34, 3, NULL)); /* destination unreachable, RFC 792 */
    change(&w, b, &by_address);
    send_frame(fd, question);
    assert_true(comes(fd, ETH_P_IP, 34, 3, NULL));
    change(&w, b, &by_name);
    ask(&w, fd, question, 53, 0, address);
    change(&w, b, &by_both); /* the same name, another port */
    ask(&w, fd, question, 53, 0, address);
    close(fd);
    net_detach(a);
    net_detach(b);
    world_close(&w);
}

/* Names are given in order. */
static void bridge_name(const char *first, unsigned segment, char ret[NET_NAME_SIZE])
{
    snprintf(ret, NET_NAME_SIZE, "%.11s%x", first, segment);
}

static void fails_beside_a_foreign_bridge(unsigned segment, const char *first)
{
    un_autofree char *make = NULL, *drop = NULL;
    char name[NET_NAME_SIZE];
    bridge_name(first, segment, name);
    assert_true(asprintf(&make, "ip link add %s type bridge && ip link set %s alias theirs", name,
                         name) > 0);
    assert_true(asprintf(&drop, "ip link del %s", name) > 0);
    command(make);
    un_autofree char *before = host_state();
    struct world w;
    struct net_link *links[3];
    world_open_with(&w, 0, 1);
    for (unsigned i = 0; i < segment; i++) {
        links[i] = attach(&w);
    }
    w.waiting++;
    assert_int_equal(net_attach(w.np, NULL, on_attach, &w, &w.err), 0);
    wait_for(&w);
    assert_int_equal(w.rc, -EEXIST);
    assert_non_null(strstr(w.err.text, name));
    /* The rules are not for it. */
    un_autofree char *rules = output_of("nft list ruleset");
    assert_null(strstr(rules, name));
    for (unsigned i = 0; i < segment; i++) {
        net_detach(links[i]);
    }
    world_close(&w);
    un_autofree char *after = host_state();
    assert_string_equal(before, after);
    command(drop); /* it is still there */
}

static void test_a_foreign_bridge_of_our_name_is_left_alone_and_told(void **state)
{
    if (!have_namespace) {
        skip();
    }
    struct world w;
    world_open(&w);
    struct net_link *l = attach(&w);
    un_autofree char *first = output_of("ip -o link show type bridge | grep -o 'ub-[0-9a-f]*' |"
                                        " head -n 1");
    net_detach(l);
    world_close(&w);
    fails_beside_a_foreign_bridge(0, first);
    fails_beside_a_foreign_bridge(1, first);
    fails_beside_a_foreign_bridge(2, first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_guests_of_two_segments_reach_the_gateway_and_not_each_other),
        cmocka_unit_test(test_a_tap_is_beside_few_others_and_without_ipv6),
        cmocka_unit_test(test_a_segment_is_made_when_all_are_full_and_goes_when_it_is_empty),
        cmocka_unit_test(test_each_segment_has_dhcp_and_names),
        cmocka_unit_test(test_a_guest_that_may_connect_to_no_name_reaches_no_dns),
        cmocka_unit_test(test_a_foreign_bridge_of_our_name_is_left_alone_and_told),
    };
    return cmocka_run_group_tests(tests, enter_namespace, NULL);
}
