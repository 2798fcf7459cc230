/* test_netplumb.c - guest networks, in a network namespace of the test's own: what is made, what a guest
 * can reach, what is left afterwards. Where the process may not make a namespace the tests of the
 * kernel's side say so and are skipped.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/bytes.h"
#include "common/cleanup.h"
#include "netplumb/addr.h"
#include "netplumb/net.h"

#define STATE_DIR "/nonexistent/unid-netplumb-test"

static bool have_namespace;

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
    static const char *const bad[] = {"",           "10.87.0.0",     "10.87.0.1/16", "10.87.0.0/30",
                                      "10.0.0.0/7", "10.87.0.0/16x", "1.2.3/24",     "::1/16"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct net_range r;
        struct un_error err = UN_ERROR_INIT;
        assert_int_equal(net_range_init(&r, bad[i], &err), -EINVAL);
        assert_non_null(strstr(err.text, "range of guest addresses"));
    }
}

/* --- the kernel's side ------------------------------------------------------------------------ */

struct world {
    struct un_loop *loop;
    struct netplumb *np;
    struct net_link *link;
    const struct net_wish *wish;
    int waiting, rc;
    struct un_error err;
};

static void on_attach(void *arg, int rc, struct net_link *link, const struct un_error *err)
{
    struct world *w = arg;
    w->link = link;
    w->rc = rc;
    un_error_copy(&w->err, err);
    w->waiting--;
    un_loop_stop(w->loop);
}

static void on_done(void *arg)
{
    struct world *w = arg;
    w->waiting--;
    un_loop_stop(w->loop);
}

static void wait_for(struct world *w)
{
    while (w->waiting) {
        un_loop_run(w->loop);
    }
}

static struct net_link *attach(struct world *w)
{
    w->waiting++;
    assert_int_equal(net_attach(w->np, w->wish, on_attach, w, &w->err), 0);
    wait_for(w);
    if (w->rc < 0) {
        print_error("attach: %s\n", w->err.text);
    }
    assert_int_equal(w->rc, 0);
    return w->link;
}

static void world_open_linger(struct world *w, uint32_t linger_ms)
{
    *w = (struct world){.rc = 0};
    struct netplumb_spec spec = {.state_dir = STATE_DIR,
                                 .range = "10.87.0.0/24",
                                 .tap_owner = getuid(),
                                 .linger_ms = linger_ms};
    assert_int_equal(un_loop_new(&w->loop, NULL), 0);
    spec.loop = w->loop;
    assert_int_equal(net_open(&spec, &w->np, NULL), 0);
}

static void world_open(struct world *w)
{
    world_open_linger(w, 0);
}

static void world_close(struct world *w)
{
    net_close(w->np);
    un_loop_free(w->loop);
}

static char *output_of(const char *command)
{
    FILE *f = popen(command, "r");
    assert_non_null(f);
    struct un_buf text = {0};
    char piece[4096];
    size_t n;
    while ((n = fread(piece, 1, sizeof(piece), f)) > 0) {
        un_buf_append(&text, piece, n);
    }
    assert_int_equal(pclose(f), 0);
    return un_buf_steal_str(&text);
}

/* All that others may have configured, without what changes by itself (carrier, counters). */
static char *host_state(void)
{
    return output_of("ip -o link | sed 's/<.*//'; ip -o addr; ip route show table all | sed 's/ "
                     "linkdown//'; ip rule;"
                     " nft list ruleset; find /proc/sys/net -type f ! -name '*secret' ! -name"
                     " '*fastopen_key' ! -path '*/conf/u[bt]*' ! -path '*/neigh/u[bt]*' | sort |"
                     " xargs grep -H . 2>/dev/null || true");
}

static void command(const char *text)
{
    assert_int_equal(system(text), 0);
}

/* What QEMU does with a tap. */
static int tap_open(const char *name)
{
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    struct ifreq req = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    snprintf(req.ifr_name, sizeof(req.ifr_name), "%s", name);
    assert_true(fd >= 0);
    assert_int_equal(ioctl(fd, TUNSETIFF, &req), 0);
    return fd;
}

struct frame {
    uint8_t data[1514];
    size_t len;
};

static void put_ethernet(struct frame *f, const char *to, const char *from, uint16_t type)
{
    const char *const macs[] = {to, from};
    for (int m = 0; m < 2; m++) {
        unsigned b[6];
        assert_int_equal(sscanf(macs[m], "%x:%x:%x:%x:%x:%x", b, b + 1, b + 2, b + 3, b + 4, b + 5),
                         6);
        for (int i = 0; i < 6; i++) {
            f->data[6 * m + i] = (uint8_t)b[i];
        }
    }
    f->data[12] = (uint8_t)(type >> 8);
    f->data[13] = (uint8_t)type;
    f->len = 14;
}

/* RFC 826. */
static struct frame arp_request(const char *mac, const char *ip, const char *wanted)
{
    struct frame f = {.len = 0};
    put_ethernet(&f, "ff:ff:ff:ff:ff:ff", mac, ETH_P_ARP);
    static const uint8_t head[] = {0, 1, 8, 0, 6, 4, 0, 1};
    memcpy(f.data + 14, head, sizeof(head));
    memcpy(f.data + 22, f.data + 6, 6);
    inet_pton(AF_INET, ip, f.data + 28);
    inet_pton(AF_INET, wanted, f.data + 38);
    f.len = 60;
    return f;
}

static uint16_t checksum(const uint8_t *p, size_t len, uint32_t sum)
{
    for (size_t i = 0; i < len; i += 2) {
        sum += (uint32_t)p[i] << 8 | (i + 1 < len ? p[i + 1] : 0);
    }
    while (sum >> 16) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return (uint16_t)~sum;
}

/* An IPv4 packet with `len` bytes of payload; RFC 791. */
static struct frame ipv4(const char *to_mac, const struct net_link *from, const char *to,
                         uint8_t proto, const uint8_t *payload, size_t len)
{
    struct frame f = {.len = 0};
    put_ethernet(&f, to_mac, from->mac, ETH_P_IP);
    uint8_t *ip = f.data + 14;
    ip[0] = 0x45;
    ip[3] = (uint8_t)(20 + len);
    ip[8] = 64;
    ip[9] = proto;
    inet_pton(AF_INET, from->ip, ip + 12);
    inet_pton(AF_INET, to, ip + 16);
    uint16_t sum = checksum(ip, 20, 0);
    ip[10] = (uint8_t)(sum >> 8);
    ip[11] = (uint8_t)sum;
    memcpy(ip + 20, payload, len);
    f.len = 34 + len;
    return f;
}

/* A TCP segment without data to port 4444 (RFC 9293). */
static struct frame tcp(const char *to_mac, const struct net_link *from, const char *to,
                        uint8_t flags)
{
    uint8_t seg[20] = {0x30, 0x39, 4444 >> 8, 4444 & 255, 0,    0,     0, 1,
                       0,    0,    0,         1,          0x50, flags, 4, 0};
    uint8_t pseudo[12] = {0};
    inet_pton(AF_INET, from->ip, pseudo);
    inet_pton(AF_INET, to, pseudo + 4);
    pseudo[9] = IPPROTO_TCP;
    pseudo[11] = sizeof(seg);
    uint16_t sum = checksum(seg, sizeof(seg), (uint16_t)~checksum(pseudo, sizeof(pseudo), 0));
    seg[16] = (uint8_t)(sum >> 8);
    seg[17] = (uint8_t)sum;
    return ipv4(to_mac, from, to, IPPROTO_TCP, seg, sizeof(seg));
}

static struct frame echo_request(const char *to_mac, const struct net_link *from, const char *to)
{
    uint8_t icmp[8] = {8, 0, 0xf7, 0xfd, 0, 1, 0, 1}; /* RFC 792 */
    return ipv4(to_mac, from, to, IPPROTO_ICMP, icmp, sizeof(icmp));
}

static void send_frame(int fd, struct frame f)
{
    assert_int_equal(write(fd, f.data, f.len), (ssize_t)f.len);
}

/* Whether a frame comes that has `value` at `at` and the EtherType; others are passed over. */
static bool comes(int fd, uint16_t type, size_t at, uint8_t value, struct frame *ret)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    while (poll(&p, 1, 300) > 0) {
        struct frame f;
        ssize_t n = read(fd, f.data, sizeof(f.data));
        if (n > (ssize_t)at && f.data[12] == type >> 8 && f.data[13] == (type & 255) &&
            f.data[at] == value) {
            f.len = (size_t)n;
            if (ret) {
                *ret = f;
            }
            return true;
        }
    }
    return false;
}

static void gateway_mac(int fd, const struct net_link *l, char ret[NET_MAC_SIZE])
{
    struct frame f;
    /* A new port begins to forward some moments after its carrier came. */
    for (int i = 0; i < 20; i++) {
        send_frame(fd, arp_request(l->mac, l->ip, l->gateway));
        if (comes(fd, ETH_P_ARP, 21, 2, &f)) {
            snprintf(ret, NET_MAC_SIZE, "%02x:%02x:%02x:%02x:%02x:%02x", f.data[6], f.data[7],
                     f.data[8], f.data[9], f.data[10], f.data[11]);
            return;
        }
    }
    fail_msg("the gateway does not answer ARP");
}

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
    assert_false(comes(fb, ETH_P_ARP, 21, 1, NULL));
    send_frame(fa, echo_request(b->mac, a, b->ip));
    send_frame(fa, echo_request(gw, a, b->ip));
    assert_false(comes(fb, ETH_P_IP, 23, IPPROTO_ICMP, NULL));
    send_frame(fa, echo_request(gw, a, "10.99.0.2"));
    assert_false(comes(fa, ETH_P_IP, 23, IPPROTO_ICMP, NULL));
    /* Nor another address of the host. */
    send_frame(fa, echo_request(gw, a, "10.99.0.1"));
    assert_false(comes(fa, ETH_P_IP, 23, IPPROTO_ICMP, NULL));

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
    assert_false(comes(fa, ETH_P_ARP, 21, 2, NULL));
    struct net_link lie = *a;
    memcpy(lie.ip, b->ip, sizeof(lie.ip));
    send_frame(fa, echo_request(gw, &lie, a->gateway));
    memcpy(lie.mac, b->mac, sizeof(lie.mac));
    send_frame(fa, echo_request(gw, &lie, a->gateway));
    lie = *a;
    memcpy(lie.mac, b->mac, sizeof(lie.mac));
    send_frame(fa, echo_request(gw, &lie, a->gateway));
    assert_false(comes(fa, ETH_P_IP, 23, IPPROTO_ICMP, NULL));
    close(fa);
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

static void stop(void *arg)
{
    un_loop_stop(arg);
}

static void test_idle_links_go_away(void **state)
{
    if (!have_namespace) {
        skip();
    }
    un_autofree char *before = host_state();
    struct world w;
    world_open_linger(&w, 100);
    struct net_link *a = attach(&w), *b = attach(&w);
    net_detach(a);
    net_detach(b);
    struct net_stats stats = {.idle = 2};
    struct un_timer tick;
    un_timer_init(&tick, w.loop, stop, w.loop);
    /* Until all are gone, and a moment more for bridge and tables. */
    for (int i = 0; i < 100 && stats.idle; i++) {
        un_timer_arm_in(&tick, 50000);
        un_loop_run(w.loop);
        net_get_stats(w.np, &stats);
    }
    assert_int_equal(stats.idle, 0);
    un_autofree char *after = NULL;
    for (int i = 0; i < 100 && (!after || strcmp(before, after) != 0); i++) {
        free(after);
        after = host_state();
        un_timer_arm_in(&tick, 50000);
        un_loop_run(w.loop);
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
    world_open_linger(&w, 50);
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
    struct net_stats stats = {.idle = 1};
    struct un_timer tick;
    un_timer_init(&tick, w.loop, stop, w.loop);
    for (int i = 0; i < 100 && stats.idle; i++) {
        un_timer_arm_in(&tick, 50000);
        un_loop_run(w.loop);
        net_get_stats(w.np, &stats);
    }
    assert_int_equal(stats.idle, 0);
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
    command("nft flush ruleset");
    change(&w, &none, -ENOENT);
    net_detach(a);
    world_close(&w);
    command("nft add table inet filter"
            " && nft add chain inet filter input '{ type filter hook input priority 0; }'"
            " && nft add table bridge theirs");
    un_autofree char *after = host_state();
    assert_string_equal(before, after);
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
        world_open(&w);
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

static void test_a_foreign_bridge_of_our_name_is_an_error(void **state)
{
    if (!have_namespace) {
        skip();
    }
    struct world w;
    world_open(&w);
    struct net_link *l = attach(&w);
    char *bridge = output_of("ip -o link show type bridge | grep -o 'ub-[0-9a-f]*' | head -n 1");
    bridge[strcspn(bridge, "\n")] = '\0';
    net_detach(l);
    world_close(&w);

    un_autofree char *make = NULL, *drop = NULL;
    assert_true(asprintf(&make, "ip link add %s type bridge && ip link set %s alias theirs", bridge,
                         bridge) > 0);
    assert_true(asprintf(&drop, "ip link del %s", bridge) > 0);
    free(bridge);
    command(make);
    world_open(&w);
    w.waiting++;
    assert_int_equal(net_attach(w.np, NULL, on_attach, &w, &w.err), 0);
    wait_for(&w);
    assert_int_equal(w.rc, -EEXIST);
    world_close(&w);
    command(drop); /* it is still there */
}

static void test_opening_refuses_a_bad_range(void **state)
{
    struct un_loop *loop;
    struct netplumb *np;
    struct un_error err = UN_ERROR_INIT;
    assert_int_equal(un_loop_new(&loop, NULL), 0);
    struct netplumb_spec spec = {.loop = loop, .state_dir = STATE_DIR, .range = "10.87.0.0/8"};
    assert_int_equal(net_open(&spec, &np, &err), -EINVAL);
    un_loop_free(loop);
}

/* A namespace of our own, with things in it that are others': a bridge, a tap, a table. */
static int enter_namespace(void **state)
{
    struct un_error err = UN_ERROR_INIT;
    if (unshare(CLONE_NEWNET) < 0) {
        print_message("no network namespace (%s): the kernel's side is skipped\n", strerror(errno));
        return 0;
    }
    if (!net_available(&err)) {
        print_message("%s: the kernel's side is skipped\n", err.text);
        return 0;
    }
    command("ip link set lo up && ip link add br0 type bridge && ip addr add 10.99.0.1/24 dev br0"
            " && ip link set br0 up && ip tuntap add utap0 mode tap && ip link set utap0 master br0"
            " && nft add table inet filter"
            " && nft add chain inet filter input '{ type filter hook input priority 0; }'"
            " && nft add table bridge theirs");
    have_namespace = true;
    return 0;
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
        cmocka_unit_test(test_host_is_as_before),
        cmocka_unit_test(test_idle_links_go_away),
        cmocka_unit_test(test_guests_stay_known_when_others_come_and_go),
        cmocka_unit_test(test_an_idle_link_serves_the_same_wish_or_is_changed),
        cmocka_unit_test(test_a_guest_that_has_opened_nothing_may_be_allowed_something_else),
        cmocka_unit_test(test_leftovers_are_removed_and_foreign_things_stay),
        cmocka_unit_test(test_a_foreign_bridge_of_our_name_is_an_error),
    };
    return cmocka_run_group_tests(tests, enter_namespace, NULL);
}
