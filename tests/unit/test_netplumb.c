/* test_netplumb.c - guest networks, in a network namespace of the test's own: what is made, what a guest
 * can reach, what is left afterwards. Where the process may not make a namespace the tests of the
 * kernel's side say so and are skipped.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "net_world.h"
#include "netplumb/addr.h"

/* --- addresses -------------------------------------------------------------------------------- */

static void test_range(void **state)
{
    struct net_range r;
    assert_int_equal(net_range_init(&r, "10.87.0.0/29", NULL), 0);
    assert_int_equal(r.size, 4);
    struct net_link l = {.tap = ""};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(net_range_take(&r), i);
    }
    assert_int_equal(net_range_take(&r), -1);
    net_range_give(&r, 3);
    assert_int_equal(net_range_take(&r), 3);
    net_range_describe(&r, 3, &l);
    assert_string_equal(l.ip, "10.87.0.5");
    assert_string_equal(l.gateway, "10.87.0.1");
    assert_string_equal(l.netmask, "255.255.255.248");
    assert_string_equal(l.mac, "02:75:0a:57:00:05");
    net_range_done(&r);
}

static void test_an_address_rests_after_use(void **state)
{
    struct net_range r;
    assert_int_equal(net_range_init(&r, "10.0.0.0/8", NULL), 0);
    assert_int_equal(r.size, NET_GUESTS_MAX);
    int64_t first = net_range_take(&r);
    net_range_give(&r, (uint32_t)first);
    assert_int_not_equal(net_range_take(&r), first);
    net_range_done(&r);
}

static void test_bad_ranges(void **state)
{
    static const char *const bad[] = {
        "",         "10.87.0.0", "10.87.0.1/16", "10.87.0.0/30", "10.0.0.0/7", "10.87.0.0/16x",
        "1.2.3/24", "::1/16",    "127.0.0.0/8",  "224.0.0.0/24", "0.0.0.0/8"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct net_range r;
        struct un_error err = UN_ERROR_INIT;
        assert_int_equal(net_range_init(&r, bad[i], &err), -EINVAL);
        assert_non_null(strstr(err.text, "range of guest addresses"));
    }
}

/* --- the kernel's side ------------------------------------------------------------------------ */

static void test_guest_reaches_its_gateway_only(void **state)
{
    if (!have_namespace) {
        skip();
    }
    struct world w;
    world_open(&w);
    struct net_link *a = attach(&w), *b = attach(&w);
    int fa = tap_open(a->tap), fb = tap_open(b->tap);
    char gw[NET_MAC_SIZE], gw_b[NET_MAC_SIZE];
    gateway_mac(fa, a, gw);
    gateway_mac(fb, b, gw_b);

    send_frame(fa, echo_request(gw, a, a->gateway));
    assert_true(comes(fa, ETH_P_IP, 34, 0, NULL)); /* echo reply */

    /* An answer without a question gets a reset, and so does a connection of the guest's own. */
    send_frame(fa, tcp(gw, a, a->gateway, 0x10));
    assert_true(comes(fa, ETH_P_IP, 47, 0x04, NULL));
    send_frame(fa, tcp(gw, a, a->gateway, 0x02));
    assert_true(comes(fa, ETH_P_IP, 47, 0x14, NULL));
    send_frame(fa, tcp(gw, a, "10.99.0.1", 0x02));
    assert_true(comes(fa, ETH_P_IP, 47, 0x14, NULL));
    send_frame(fa, tcp(gw, a, "203.0.113.5", 0x02));
    assert_true(comes(fa, ETH_P_IP, 47, 0x14, NULL));

    /* Not the other guest, neither directly nor by way of the gateway; nothing behind the host. */
    send_frame(fa, arp_request(a->mac, a->ip, b->ip));
    assert_false(comes_at_once(fb, ETH_P_ARP, 21, 1, NULL));
    send_frame(fa, echo_request(b->mac, a, b->ip));
    send_frame(fa, echo_request(gw, a, b->ip));
    assert_false(comes_at_once(fb, ETH_P_IP, 23, IPPROTO_ICMP, NULL));
    send_frame(fa, echo_request(gw, a, "10.99.0.2"));
    assert_false(comes_at_once(fa, ETH_P_IP, 23, IPPROTO_ICMP, NULL));
    /* Nor another address of the host. */
    send_frame(fa, echo_request(gw, a, "10.99.0.1"));
    assert_false(comes_at_once(fa, ETH_P_IP, 23, IPPROTO_ICMP, NULL));

    close(fa);
    close(fb);
    net_detach(a);
    net_detach(b);
    world_close(&w);
}

static void test_guest_cannot_spoof(void **state)
{
    if (!have_namespace) {
        skip();
    }
    struct world w;
    world_open(&w);
    struct net_link *a = attach(&w), *b = attach(&w);
    int fa = tap_open(a->tap);
    char gw[NET_MAC_SIZE];
    gateway_mac(fa, a, gw);
    send_frame(fa, arp_request(a->mac, b->ip, a->gateway));
    send_frame(fa, arp_request(b->mac, a->ip, a->gateway));
    send_frame(fa, arp_request(b->mac, b->ip, a->gateway));
    assert_false(comes_at_once(fa, ETH_P_ARP, 21, 2, NULL));
    struct net_link lie = *a;
    memcpy(lie.ip, b->ip, sizeof(lie.ip));
    send_frame(fa, echo_request(gw, &lie, a->gateway));
    memcpy(lie.mac, b->mac, sizeof(lie.mac));
    send_frame(fa, echo_request(gw, &lie, a->gateway));
    lie = *a;
    memcpy(lie.mac, b->mac, sizeof(lie.mac));
    send_frame(fa, echo_request(gw, &lie, a->gateway));
    assert_false(comes_at_once(fa, ETH_P_IP, 23, IPPROTO_ICMP, NULL));
    close(fa);
    net_detach(a);
    net_detach(b);
    world_close(&w);
}

/* Asks for an address, as whoever has that MAC, for whoever has the other (RFC 2131, chaddr). */
static struct frame discover(const struct net_link *link, const struct net_link *client)
{
    uint8_t udp[8 + 236] = {0, 68, 0, 67, 0, sizeof(udp)};
    struct net_link lie = *link;
    snprintf(lie.ip, sizeof(lie.ip), "0.0.0.0");
    assert_int_equal(sscanf(client->mac, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &udp[36], &udp[37],
                            &udp[38], &udp[39], &udp[40], &udp[41]),
                     6);
    return ipv4("ff:ff:ff:ff:ff:ff", &lie, "255.255.255.255", IPPROTO_UDP, udp, sizeof(udp));
}

/* A socket that gets what comes out of the first bridge, as it was. */
static int listen_to_bridge(void)
{
    un_autofree char *index =
        output_of("ip -o link show type bridge | sed -n 's/^\\([0-9]*\\): ub-.*/\\1/p'");
    struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP)};
    int fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, htons(ETH_P_IP));
    at.sll_ifindex = atoi(index);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    return fd;
}

/* How many questions for an address have come. */
static int count_discovers(int fd)
{
    uint8_t packet[512];
    ssize_t n;
    int count = 0;
    while ((n = recv(fd, packet, sizeof(packet), 0)) > 0) {
        count += n > 23 && packet[9] == IPPROTO_UDP && packet[21] == 68; /* to a port of unid's */
    }
    return count;
}

static void test_a_guest_asks_for_its_own_address_and_not_too_often(void **state)
{
    enum { SENT = 300, TURN = 20 }; /* as many as the socket has room for */
    if (!have_namespace) {
        skip();
    }
    struct world w;
    world_open(&w);
    struct net_link *a = attach(&w), *b = attach(&w);
    int fd = tap_open(a->tap), bridge = listen_to_bridge(), passed = 0;
    send_frame(fd, discover(b, b));
    send_frame(fd, discover(b, a));
    send_frame(fd, discover(a, b));
    assert_int_equal(count_discovers(bridge), 0);
    for (int i = 0; i < SENT; i++) {
        send_frame(fd, discover(a, a));
        passed += i % TURN ? 0 : count_discovers(bridge);
    }
    passed += count_discovers(bridge);
    assert_in_range(passed, 1, SENT - 1);
    close(bridge);
    close(fd);
    net_detach(a);
    net_detach(b);
    world_close(&w);
}

static void send_to(const struct net_link *link)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    inet_pton(AF_INET, link->ip, &to.sin_addr);
    assert_int_equal(sendto(fd, "x", 1, 0, (struct sockaddr *)&to, sizeof(to)), 1);
    close(fd);
}

static void test_what_is_sent_to_a_guest_no_other_gets(void **state)
{
    if (!have_namespace) {
        skip();
    }
    struct world w;
    world_open(&w);
    struct net_link *a = attach(&w), *b = attach(&w);
    int fa = tap_open(a->tap), fb = tap_open(b->tap);
    /* It has said nothing yet. */
    send_to(b);
    assert_true(comes(fb, ETH_P_IP, 23, IPPROTO_UDP, NULL));
    assert_false(comes_at_once(fa, ETH_P_IP, 23, IPPROTO_UDP, NULL));
    send_frame(fa, discover(b, b));
    send_to(b);
    assert_true(comes(fb, ETH_P_IP, 23, IPPROTO_UDP, NULL));
    assert_false(comes_at_once(fa, ETH_P_IP, 23, IPPROTO_UDP, NULL));
    /* Nor while the firewall is gone. */
    command("nft list tables | sed -n 's/^table \\(.* unid-[0-9a-f]*\\)$/\\1/p' |"
            " while read t; do nft delete table $t; done");
    send_frame(fa, arp_request(b->mac, b->ip, b->gateway));
    send_to(b);
    assert_true(comes(fb, ETH_P_IP, 23, IPPROTO_UDP, NULL));
    wait_until_mended(&w, 1);
    command("ip link del $(ip -o link | sed -n 's/.*: \\(ub-[0-9a-f]*\\):.*/\\1/p')");
    wait_until_mended(&w, 2);
    send_to(b);
    assert_true(comes(fb, ETH_P_IP, 23, IPPROTO_UDP, NULL));
    assert_false(comes_at_once(fa, ETH_P_IP, 23, IPPROTO_UDP, NULL));
    close(fa);
    close(fb);
    net_detach(a);
    net_detach(b);
    world_close(&w);
}

static void test_host_is_as_before(void **state)
{
    if (!have_namespace) {
        skip();
    }
    un_autofree char *before = host_state();
    struct world w;
    world_open(&w);
    struct net_link *links[20];
    for (int i = 0; i < 20; i++) {
        links[i] = attach(&w);
    }
    un_autofree char *during = host_state();
    assert_string_not_equal(before, during);
    for (int i = 0; i < 10; i++) {
        net_detach(links[i]);
    }
    /* Idle links serve again, as they are. */
    struct net_stats stats;
    net_get_stats(w.np, &stats);
    assert_int_equal(stats.attached, 10);
    assert_int_equal(stats.idle, 10);
    struct net_link *again = attach(&w);
    assert_ptr_equal(again, links[9]);
    un_autofree char *second = host_state();
    assert_string_equal(during, second);
    net_detach(again);
    for (int i = 10; i < 20; i++) {
        net_detach(links[i]);
    }
    world_close(&w);
    un_autofree char *after = host_state();
    assert_string_equal(before, after);
}

static void test_idle_links_go_away(void **state)
{
    if (!have_namespace) {
        skip();
    }
    un_autofree char *before = host_state();
    struct world w;
    world_open_with(&w, 100, 0);
    struct net_link *a = attach(&w), *b = attach(&w);
    net_detach(a);
    net_detach(b);
    world_wait_until_none_is_idle(&w);
    /* And a moment more for bridge and tables. */
    un_autofree char *after = NULL;
    for (int i = 0; i < 100 && (!after || strcmp(before, after) != 0); i++) {
        free(after);
        after = host_state();
        world_run(&w, 50000);
    }
    assert_string_equal(before, after);
    /* And it all comes back when it is needed. */
    net_detach(attach(&w));
    world_close(&w);
    un_autofree char *closed = host_state();
    assert_string_equal(before, closed);
}

static void test_guests_stay_known_when_others_come_and_go(void **state)
{
    if (!have_namespace) {
        skip();
    }
    struct world w;
    struct net_link *links[6];
    world_open_with(&w, 50, 0);
    for (int i = 0; i < 6; i++) {
        links[i] = attach(&w);
    }
    int fd = tap_open(links[3]->tap);
    char gw[NET_MAC_SIZE];
    gateway_mac(fd, links[3], gw);
    assert_string_equal(gw, "02:75:0a:57:00:01");
    for (int i = 0; i < 6; i++) {
        if (i != 3) {
            net_detach(links[i]);
        }
    }
    world_wait_until_none_is_idle(&w);
    gateway_mac(fd, links[3], gw);
    assert_string_equal(gw, "02:75:0a:57:00:01");
    un_autofree char *known = output_of("ip neigh show nud permanent");
    assert_non_null(strstr(known, links[3]->ip));
    close(fd);
    net_detach(links[3]);
    world_close(&w);
}

static char *elements(void)
{
    return output_of("nft list ruleset | grep -A3 -E '(set|map) (allowed|ports|there|back|sports) '"
                     " | grep -o 'elements.*' || true");
}

static void test_an_idle_link_serves_the_same_wish_or_is_changed(void **state)
{
    if (!have_namespace) {
        skip();
    }
    static char name[] = "a.example:80", literal[] = "203.0.113.5:443",
                other_name[] = "b.example:81";
    char *const one[] = {name, literal, NULL}, *const two[] = {other_name, NULL};
    const struct net_wish first = {.key = "one", .egress = one};
    const struct net_wish second = {.key = "two", .egress = two};
    un_autofree char *before = host_state();
    struct world w;
    world_open(&w);
    w.wish = &first;
    struct net_link *a = attach(&w);
    un_autofree char *rules = elements();
    assert_non_null(strstr(rules, "203.0.113.5"));
    net_detach(a);
    assert_ptr_equal(attach(&w), a);
    un_autofree char *same = elements();
    assert_string_equal(rules, same);
    /* Another wish, on the same link: nothing of the first is left. */
    net_detach(a);
    w.wish = &second;
    assert_ptr_equal(attach(&w), a);
    un_autofree char *other = elements();
    assert_null(strstr(other, "203.0.113.5"));
    assert_non_null(strstr(other, ". 81 :"));
    net_detach(a);
    w.wish = NULL;
    assert_ptr_equal(attach(&w), a);
    un_autofree char *none = elements();
    assert_string_equal(none, "");
    /* A link of the wish is taken before a warmer one. */
    w.wish = &first;
    struct net_link *b = attach(&w);
    net_detach(b);
    net_detach(a);
    assert_ptr_equal(attach(&w), b);
    net_detach(b);
    /* What cannot be served is told at once. */
    static char inward[] = "10.87.0.9:80";
    char *const bad[] = {inward, NULL};
    const struct net_wish wrong = {.key = "wrong", .egress = bad};
    assert_int_equal(net_attach(w.np, &wrong, on_attach, &w, &w.err), -EINVAL);
    world_close(&w);
    un_autofree char *after = host_state();
    assert_string_equal(before, after);
}

static void change(struct world *w, const struct net_wish *wish, int rc)
{
    struct net_link *link = w->link;
    w->waiting++;
    assert_int_equal(net_change(link, wish, on_attach, w, &w->err), 0);
    wait_for(w);
    assert_int_equal(w->rc, rc);
    assert_ptr_equal(w->link, link);
}

static void test_a_guest_that_has_opened_nothing_may_be_allowed_something_else(void **state)
{
    if (!have_namespace) {
        skip();
    }
    static char name[] = "a.example:80", literal[] = "203.0.113.5:443", inward[] = "10.87.0.9:80";
    char *const list[] = {name, literal, NULL}, *const bad[] = {inward, NULL};
    const struct net_wish some = {.key = "one", .egress = list}, none = {.key = "none"},
                          wrong = {.key = "wrong", .egress = bad};
    un_autofree char *before = host_state();
    struct world w;
    world_open(&w);
    struct net_link *a = attach(&w);
    change(&w, &none, 0);
    un_autofree char *nothing = elements();
    assert_string_equal(nothing, "");
    change(&w, &some, 0);
    un_autofree char *rules = elements();
    assert_non_null(strstr(rules, "203.0.113.5"));
    assert_non_null(strstr(rules, a->ip));
    change(&w, &some, 0);
    un_autofree char *same = elements();
    assert_string_equal(rules, same);
    assert_int_equal(net_change(a, &wrong, on_attach, &w, &w.err), -EINVAL);
    /* The rules are gone: it fails, and the link goes on as the caller's. */
    world_settle(&w, a);
    change(&w, &some, 0);
    command("nft flush ruleset");
    change(&w, &none, -ENOENT);
    net_detach(a);
    wait_until_mended(&w, 1);
    /* So does it for the next guest, and the link stays idle, with what it had. */
    assert_ptr_equal(attach(&w), a);
    world_settle(&w, a);
    change(&w, &some, 0);
    net_detach(a);
    command("nft flush ruleset");
    w.waiting++;
    assert_int_equal(net_attach(w.np, &none, on_attach, &w, &w.err), 0);
    wait_for(&w);
    assert_int_equal(w.rc, -ENOENT);
    assert_null(w.link);
    struct net_stats stats;
    net_get_stats(w.np, &stats);
    assert_int_equal(stats.attached, 0);
    assert_int_equal(stats.idle, 1);
    wait_until_mended(&w, 2);
    w.wish = &some;
    assert_ptr_equal(attach(&w), a); /* nothing is to be changed */
    net_detach(a);
    world_close(&w);
    command("nft add table inet filter"
            " && nft add chain inet filter input '{ type filter hook input priority 0; }'"
            " && nft add table bridge theirs");
    un_autofree char *after = host_state();
    assert_string_equal(before, after);
}

enum { SYN = 2, RST = 4, ACK = 16, FIN = 1 };

/* What the guest of a link sends, and where to. */
struct guest {
    const struct net_link *link;
    const char *to;
    int fd;
    char gateway[NET_MAC_SIZE];
};

static void send_tcp(const struct guest *g, uint8_t flags, uint32_t seq, uint32_t ack)
{
    const uint32_t seq_ack[] = {seq, ack};
    send_frame(g->fd, tcp_at(g->gateway, g->link, g->to, flags, seq_ack));
}

/* Opens a connection, which always begins alike. Gives the other side's number. */
static uint32_t open_connection(struct world *w, const struct guest *g)
{
    struct frame f;
    uint32_t theirs;
    send_tcp(g, SYN, 1, 0);
    assert_true(comes(g->fd, ETH_P_IP, 47, SYN | ACK, &f));
    memcpy(&theirs, f.data + 38, sizeof(theirs));
    theirs = ntohl(theirs);
    send_tcp(g, ACK, 2, theirs + 1);
    while (w->conn < 0) {
        un_loop_run(w->loop);
    }
    return theirs;
}

static bool kernel_ends_what_waits(void)
{
    struct utsname name;
    return uname(&name) == 0 && atoi(name.release) >= 6;
}

static void test_the_next_guest_does_not_meet_connections_of_the_last(void **state)
{
    if (!have_namespace || !kernel_ends_what_waits()) {
        skip();
    }
    static char literal[] = "203.0.113.5:4444";
    char *const list[] = {literal, NULL};
    const struct net_wish wish = {.key = "one", .egress = list};
    struct world w;
    world_open(&w);
    w.wish = &wish;
    struct net_link *a = attach(&w);
    struct guest g = {.link = a, .to = "203.0.113.5", .fd = tap_open(a->tap)};
    gateway_mac(g.fd, a, g.gateway);
    for (int i = 0; i < 3; i++) {
        uint32_t theirs = open_connection(&w, &g);
        close(un_steal_fd(&w.conn)); /* this side first: it is the one that remembers */
        assert_true(comes(g.fd, ETH_P_IP, 47, FIN | ACK, NULL));
        send_tcp(&g, FIN | ACK, 2, theirs + 2);
        assert_true(comes(g.fd, ETH_P_IP, 47, ACK, NULL));
        net_detach(a);
        assert_ptr_equal(attach(&w), a);
    }
    close(g.fd);
    net_detach(a);
    world_close(&w);
}

static int begin_connecting(const char *from, const char *to)
{
    struct sockaddr_in own = {.sin_family = AF_INET}, other = own;
    inet_pton(AF_INET, from, &own.sin_addr);
    inet_pton(AF_INET, to, &other.sin_addr);
    other.sin_port = htons(80);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&own, sizeof(own)), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&other, sizeof(other)), -1);
    assert_int_equal(errno, EINPROGRESS);
    return fd;
}

static int error_of(int fd)
{
    int error = 0;
    socklen_t len = sizeof(error);
    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len), 0);
    return error;
}

static void test_connections_of_others_and_of_other_guests_stay(void **state)
{
    if (!have_namespace || !kernel_ends_what_waits()) {
        skip();
    }
    static char literal[] = "203.0.113.5:4444";
    char *const list[] = {literal, NULL};
    const struct net_wish wish = {.key = "one", .egress = list};
    struct world w;
    world_open(&w);
    w.wish = &wish;
    struct net_link *a = attach(&w), *b = attach(&w);
    struct guest g = {.link = a, .to = "203.0.113.5", .fd = tap_open(a->tap)};
    gateway_mac(g.fd, a, g.gateway);
    open_connection(&w, &g);
    close(un_steal_fd(&w.conn));
    close(g.fd);
    int ours = begin_connecting(a->gateway, a->ip), theirs = begin_connecting("10.99.0.1", a->ip),
        another = begin_connecting(b->gateway, b->ip);
    net_detach(a);
    assert_ptr_equal(attach(&w), a);
    assert_int_equal(error_of(ours), ECONNABORTED);
    assert_int_equal(error_of(theirs), 0);
    assert_int_equal(error_of(another), 0);
    close(ours);
    close(theirs);
    close(another);
    net_detach(a);
    net_detach(b);
    world_close(&w);
}

static void test_leftovers_are_removed_and_foreign_things_stay(void **state)
{
    if (!have_namespace) {
        skip();
    }
    un_autofree char *before = host_state();
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct world w;
        world_open_with(&w, 0, 1); /* two bridges */
        attach(&w);
        attach(&w);
        _exit(0); /* as by kill -9 */
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    un_autofree char *left = host_state();
    assert_string_not_equal(before, left);

    struct world w;
    world_open(&w);
    w.waiting++;
    net_reconcile(w.np, on_done, &w);
    wait_for(&w);
    un_autofree char *reconciled = host_state();
    assert_string_equal(before, reconciled);
    world_close(&w);
}

static void fails(struct world *w, int rc, const char *word)
{
    w->waiting++;
    assert_int_equal(net_attach(w->np, NULL, on_attach, w, &w->err), 0);
    wait_for(w);
    assert_int_equal(w->rc, rc);
    assert_non_null(strstr(w->err.text, word));
}

static void test_a_range_that_the_host_uses_is_refused(void **state)
{
    if (!have_namespace) {
        skip();
    }
    static const struct {
        const char *make, *drop, *word;
    } cases[] = {
        {"ip addr add 10.87.0.5/32 dev br0", "ip addr del 10.87.0.5/32 dev br0",
         "10.87.0.5/32 by br0"},
        {"ip addr add 10.87.0.5/24 dev br0", "ip addr del 10.87.0.5/24 dev br0",
         "10.87.0.0/24 by br0"},
        {"ip route add 10.87.0.128/25 via 10.99.0.2", "ip route del 10.87.0.128/25",
         "10.87.0.128/25"},
        {"ip route add blackhole 10.87.0.0/24", "ip route del blackhole 10.87.0.0/24",
         "10.87.0.0/24"},
    };
    struct world w;
    world_open(&w);
    for (size_t i = 0; i < UN_ARRAY_SIZE(cases); i++) {
        command(cases[i].make);
        un_autofree char *before = host_state();
        fails(&w, -EADDRINUSE, cases[i].word);
        un_autofree char *after = host_state();
        assert_string_equal(before, after);
        command(cases[i].drop);
    }
    /* It is looked at again the next time. Routes beside it, and one that it is only a part of, do not matter. */
    command("ip route add 10.86.0.0/16 via 10.99.0.2; ip route add 10.0.0.0/8 via 10.99.0.2;"
            " ip route add default via 10.99.0.2");
    net_detach(attach(&w));
    world_close(&w);
    command("ip route del 10.86.0.0/16; ip route del 10.0.0.0/8; ip route del default");
}

static void test_the_range_of_another_unid_is_refused(void **state)
{
    if (!have_namespace) {
        skip();
    }
    struct world w, other;
    world_open(&w);
    world_open_as(&other, "/nonexistent/another");
    struct net_link *a = attach(&w);
    fails(&other, -EADDRINUSE, "by ub-");
    net_detach(a);
    world_close(&w);
    net_detach(attach(&other));
    world_close(&other);
}

static void test_a_foreign_tap_of_our_name_is_left_alone(void **state)
{
    if (!have_namespace) {
        skip();
    }
    struct world w;
    world_open(&w);
    un_autofree char *make = NULL, *drop = NULL;
    struct net_link *a = attach(&w);
    assert_true(asprintf(&make, "ip tuntap add %s mode tap && ip link set %s alias theirs", a->tap,
                         a->tap) > 0);
    assert_true(asprintf(&drop, "ip link del %s", a->tap) > 0);
    net_detach(a);
    world_close(&w);
    command(make);
    un_autofree char *before = host_state();
    world_open(&w);
    fails(&w, -EBUSY, "make the tap");
    net_detach(attach(&w)); /* the next number */
    world_close(&w);
    un_autofree char *after = host_state();
    assert_string_equal(before, after);
    command(drop); /* it is still there */
}

static void test_a_range_that_is_used_up_is_told_and_serves_again(void **state)
{
    if (!have_namespace) {
        skip();
    }
    enum { ALL = 190 }; /* of a /24, without network, gateway and virtual addresses */
    static struct net_link *links[ALL];
    struct world w;
    world_open(&w);
    for (int i = 0; i < ALL; i++) {
        links[i] = attach(&w);
    }
    assert_int_equal(net_attach(w.np, NULL, on_attach, &w, &w.err), -ENOSPC);
    assert_non_null(strstr(w.err.text, "all 190 guest addresses are in use"));
    net_detach(links[7]);
    assert_ptr_equal(attach(&w), links[7]);
    for (int i = 0; i < ALL; i++) {
        net_detach(links[i]);
    }
    world_close(&w);
}

static struct frame of_type(struct frame f, uint16_t type)
{
    f.data[12] = (uint8_t)(type >> 8);
    f.data[13] = (uint8_t)type;
    return f;
}

/* A neighbour solicitation for fe80::1 to all nodes (RFC 4861). Its checksum does not matter: it stops before. */
static struct frame solicitation(const struct net_link *from)
{
    static const uint8_t packet[] = {0x60, 0, 0, 0, 0, 24, 58, 255, 0xfe, 0x80, 0,    0, 0,  0,
                                     0,    0, 0, 0, 0, 0,  0,  0,   0,    2,    0xff, 2, 0,  0,
                                     0,    0, 0, 0, 0, 0,  0,  0,   0,    0,    0,    1, 135};
    struct frame f = arp_request(from->mac, from->ip, from->gateway); /* to everybody */
    memset(f.data + 14, 0, sizeof(f.data) - 14);
    memcpy(f.data + 14, packet, sizeof(packet));
    f.len = 14 + 40 + 24;
    return of_type(f, ETH_P_IPV6);
}

/* The same frame in a VLAN (IEEE 802.1Q). */
static struct frame in_vlan(struct frame f, uint16_t id)
{
    memmove(f.data + 16, f.data + 12, f.len - 12);
    f.data[14] = (uint8_t)(id >> 8);
    f.data[15] = (uint8_t)id;
    f.len += 4;
    return of_type(f, ETH_P_8021Q);
}

static void test_only_arp_and_ipv4_get_past_the_tap(void **state)
{
    if (!have_namespace) {
        skip();
    }
    struct world w;
    world_open(&w);
    struct net_link *a = attach(&w), *b = attach(&w);
    int fa = tap_open(a->tap), fb = tap_open(b->tap);
    char gw[NET_MAC_SIZE];
    gateway_mac(fa, a, gw);
    /* What the bridge itself has received. */
    static const char count[] = "ip -s -o link show type bridge | grep 'ub-' | sed 's/TX:.*//'";
    un_autofree char *before = output_of(count);
    assert_non_null(strstr(before, "RX:"));
    send_frame(fa, solicitation(a));
    send_frame(fa, in_vlan(arp_request(a->mac, a->ip, a->gateway), 0));
    send_frame(fa, in_vlan(arp_request(a->mac, a->ip, a->gateway), 7));
    send_frame(fa, in_vlan(echo_request(gw, a, a->gateway), 0));
    send_frame(fa, in_vlan(echo_request(gw, a, a->gateway), 7));
    send_frame(fa, of_type(echo_request(gw, a, a->gateway), 0x88cc)); /* LLDP */
    assert_false(comes_at_once(fa, ETH_P_IP, 23, IPPROTO_ICMP, NULL));
    assert_false(comes_at_once(fb, ETH_P_IPV6, 20, 58, NULL));
    un_autofree char *after = output_of(count);
    assert_string_equal(before, after);
    close(fa);
    close(fb);
    net_detach(a);
    net_detach(b);
    world_close(&w);
}

static void test_opening_refuses_a_bad_range(void **state)
{
    struct un_loop *loop;
    struct netplumb *np;
    struct un_error err = UN_ERROR_INIT;
    assert_int_equal(un_loop_new(&loop, NULL), 0);
    struct netplumb_spec spec = {.loop = loop, .state_dir = "/nonexistent", .range = "10.87.0.0/8"};
    assert_int_equal(net_open(&spec, &np, &err), -EINVAL);
    un_loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_range),
        cmocka_unit_test(test_an_address_rests_after_use),
        cmocka_unit_test(test_bad_ranges),
        cmocka_unit_test(test_opening_refuses_a_bad_range),
        cmocka_unit_test(test_guest_reaches_its_gateway_only),
        cmocka_unit_test(test_guest_cannot_spoof),
        cmocka_unit_test(test_a_guest_asks_for_its_own_address_and_not_too_often),
        cmocka_unit_test(test_what_is_sent_to_a_guest_no_other_gets),
        cmocka_unit_test(test_host_is_as_before),
        cmocka_unit_test(test_idle_links_go_away),
        cmocka_unit_test(test_guests_stay_known_when_others_come_and_go),
        cmocka_unit_test(test_an_idle_link_serves_the_same_wish_or_is_changed),
        cmocka_unit_test(test_a_guest_that_has_opened_nothing_may_be_allowed_something_else),
        cmocka_unit_test(test_the_next_guest_does_not_meet_connections_of_the_last),
        cmocka_unit_test(test_connections_of_others_and_of_other_guests_stay),
        cmocka_unit_test(test_a_range_that_the_host_uses_is_refused),
        cmocka_unit_test(test_the_range_of_another_unid_is_refused),
        cmocka_unit_test(test_a_foreign_tap_of_our_name_is_left_alone),
        cmocka_unit_test(test_a_range_that_is_used_up_is_told_and_serves_again),
        cmocka_unit_test(test_only_arp_and_ipv4_get_past_the_tap),
        cmocka_unit_test(test_leftovers_are_removed_and_foreign_things_stay),
    };
    return cmocka_run_group_tests(tests, enter_namespace, NULL);
}
