/* test_netplumb_targets.c - what machines may connect to: virtual addresses, policies, and the texts that
 * firewall and dnsmasq get of them.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/cleanup.h"
#include "netplumb/dnsmasq.h"
#include "netplumb/rules.h"
#include "netplumb/targets.h"

struct world {
    struct net_range range;
    struct net_targets targets;
    unsigned opened, closed, refuse_after;
};

static int open_port(void *arg, struct net_port *port, struct un_error *err)
{
    struct world *w = arg;
    if (w->refuse_after && w->opened >= w->refuse_after) {
        return un_error_set(err, -EMFILE, "no descriptor is left");
    }
    port->listen = (uint16_t)(40000 + w->opened++);
    return 0;
}

static void close_port(void *arg, struct net_port *port)
{
    struct world *w = arg;
    w->closed++;
}

static void world_init(struct world *w, const char *range)
{
    *w = (struct world){.opened = 0};
    const struct net_targets_user user = {.open = open_port, .close = close_port, .arg = w};
    assert_int_equal(net_range_init(&w->range, range, NULL), 0);
    net_targets_init(&w->targets, &w->range, &user);
}

static void world_done(struct world *w)
{
    assert_true(un_list_empty(&w->targets.hosts));
    assert_true(un_list_empty(&w->targets.policies));
    assert_int_equal(w->opened, w->closed);
    net_range_done(&w->range);
}

static struct net_policy *get(struct world *w, const char *key, const char *const *rules)
{
    struct un_error err = UN_ERROR_INIT;
    struct net_policy *p = NULL;
    int rc = net_policy_get(&w->targets, key, (char *const *)rules, &p, &err);
    if (rc < 0) {
        fail_msg("%s", err.text);
    }
    return p;
}

static char *hosts_of(struct world *w)
{
    struct un_buf out = {0};
    assert_int_equal(net_targets_hosts(&w->targets, &out), 0);
    return un_buf_steal_str(&out);
}

/* --- the range ---------------------------------------------------------------------------------- */

static void test_names_have_the_end_of_the_range(void **state)
{
    static const struct {
        const char *range, *first, *guest;
        unsigned names, prefix, guests;
    } cases[] = {
        {"10.87.0.0/16", "10.87.255.0", "10.87.254.255", 255, 24, 65536 - 256 - 2},
        {"10.87.4.0/22", "10.87.7.0", "10.87.6.255", 255, 24, 1024 - 256 - 2},
        {"10.87.0.0/24", "10.87.0.192", "10.87.0.191", 63, 26, 256 - 64 - 2},
        {"10.87.0.0/29", "10.87.0.6", "10.87.0.5", 1, 31, 4},
    };
    for (size_t i = 0; i < UN_ARRAY_SIZE(cases); i++) {
        struct net_range r;
        char ip[NET_IP_SIZE];
        assert_int_equal(net_range_init(&r, cases[i].range, NULL), 0);
        assert_string_equal(net_addr_text(r.names_first, ip), cases[i].first);
        assert_int_equal(r.names_count, cases[i].names);
        assert_int_equal(r.names_prefix, cases[i].prefix);
        assert_int_equal(r.size, cases[i].guests);
        struct in_addr last;
        inet_pton(AF_INET, cases[i].guest, &last);
        assert_int_equal(net_range_guest(&r, ntohl(last.s_addr)), r.size - 1);
        assert_int_equal(net_range_guest(&r, ntohl(last.s_addr) + 1), -1);
        assert_int_equal(net_range_guest(&r, r.base + 1), -1);
        assert_int_equal(net_range_guest(&r, r.base + 2), 0);
        assert_true(net_range_contains(&r, r.base) && net_range_contains(&r, r.names_first));
        assert_false(net_range_contains(&r, r.base - 1));
        net_range_done(&r);
    }
}

/* --- policies ----------------------------------------------------------------------------------- */

static void test_a_host_has_one_address_for_all(void **state)
{
    struct world w;
    world_init(&w, "10.87.0.0/16");
    const char *const one[] = {"db.internal:5432", "example.org:443", NULL};
    const char *const two[] = {"example.org:443", "example.org:80", "example.org:443", NULL};
    struct net_policy *a = get(&w, "a:1", one), *b = get(&w, "b:1", two);
    assert_int_equal(a->count, 2);
    assert_int_equal(b->count, 2); /* the rule that stands there twice counts once */
    assert_ptr_equal(a->ports[1], b->ports[0]);
    assert_ptr_equal(b->ports[0]->host, b->ports[1]->host);
    assert_true(net_policy_allows(a, b->ports[0]));
    assert_false(net_policy_allows(a, b->ports[1]));
    assert_false(net_policy_allows(NULL, b->ports[1]));
    assert_int_equal(w.opened, 3);
    un_autofree char *hosts = hosts_of(&w);
    assert_string_equal(hosts, "10.87.255.0 db.internal\n10.87.255.1 example.org\n");

    /* The same key is the same policy, as long as somebody has it. */
    struct net_policy *again = get(&w, "a:1", one);
    assert_ptr_equal(again, a);
    net_policy_put(&w.targets, again);
    net_policy_put(&w.targets, a);
    un_autofree char *rest = hosts_of(&w);
    assert_string_equal(rest, "10.87.255.1 example.org\n");
    net_policy_put(&w.targets, b);
    world_done(&w);
}

static void test_an_address_rests_and_runs_out(void **state)
{
    struct world w;
    world_init(&w, "10.87.0.0/28"); /* three virtual addresses */
    const char *const a[] = {"a:1", NULL}, *const b[] = {"b:1", NULL},
                      *const c[] = {"c:1", "d:1", NULL};
    struct net_policy *pa = get(&w, "a", a);
    uint32_t addr = pa->ports[0]->host->addr;
    net_policy_put(&w.targets, pa);
    struct net_policy *pb = get(&w, "b", b);
    assert_int_not_equal(pb->ports[0]->host->addr, addr);
    struct net_policy *pc = get(&w, "c", c);
    struct un_error err = UN_ERROR_INIT;
    struct net_policy *none = NULL;
    assert_int_equal(net_policy_get(&w.targets, "a", (char *const *)a, &none, &err), -ENOSPC);
    assert_non_null(strstr(err.text, "larger range"));
    assert_null(none);
    net_policy_put(&w.targets, pb);
    net_policy_put(&w.targets, get(&w, "a", a));
    net_policy_put(&w.targets, pc);
    world_done(&w);
}

static void test_what_cannot_be_served_is_refused(void **state)
{
    static const char *const bad[] = {"*.example.org:443", "example.org:*",  "[2001:db8::1]:80",
                                      "10.87.0.9:80",      "10.87.255.3:80", "nonsense"};
    struct world w;
    world_init(&w, "10.87.0.0/16");
    for (size_t i = 0; i < UN_ARRAY_SIZE(bad); i++) {
        const char *const rules[] = {"good.example:1", bad[i], NULL};
        struct un_error err = UN_ERROR_INIT;
        struct net_policy *p = NULL;
        assert_int_equal(net_policy_get(&w.targets, "x", (char *const *)rules, &p, &err), -EINVAL);
        assert_null(p);
    }
    const char *const none[] = {NULL};
    assert_null(get(&w, "x", none));
    assert_null(get(&w, "x", NULL));
    /* Nor is anything left when a listener cannot be opened. */
    const char *const rules[] = {"a:1", "a:2", "b:1", NULL};
    struct net_policy *p = NULL;
    w.refuse_after = w.opened + 2;
    assert_int_equal(net_policy_get(&w.targets, "x", (char *const *)rules, &p, NULL), -EMFILE);
    world_done(&w);
}

/* --- texts -------------------------------------------------------------------------------------- */

static void test_the_rules_of_a_guest(void **state)
{
    struct world w;
    struct net_names names;
    world_init(&w, "10.87.0.0/16");
    net_names_init(&names, "/state");
    const char *const rules[] = {"db.internal:5432", "203.0.113.5:443", NULL};
    struct net_policy *p = get(&w, "a", rules);
    struct un_buf text = {0};
    assert_int_equal(net_rules_policy_text(&names, true, "10.87.0.2", p, &text), 0);
    static const char expected[] =
        "add element inet unid-%1$s allowed { 10.87.0.2 . 10.87.255.0 . 40000 }\n"
        "add element inet unid-%1$s ports { 10.87.0.2 . 10.87.255.0 . 5432 : 40000 }\n"
        "add element inet unid-%1$s sports { 10.87.0.2 . 10.87.255.0 . 40000 : 5432 }\n"
        "add element inet unid-%1$s allowed { 10.87.0.2 . 10.87.255.1 . 40001 }\n"
        "add element inet unid-%1$s ports { 10.87.0.2 . 203.0.113.5 . 443 : 40001 }\n"
        "add element inet unid-%1$s sports { 10.87.0.2 . 203.0.113.5 . 40001 : 443 }\n"
        "add element inet unid-%1$s there { 10.87.0.2 . 203.0.113.5 . 40001 : 10.87.255.1 }\n"
        "add element inet unid-%1$s back { 10.87.0.2 . 10.87.255.1 . 40001 : 203.0.113.5 }\n"
        "add element inet unid-%1$s named { 10.87.0.2 }\n";
    char wanted[1024];
    snprintf(wanted, sizeof(wanted), expected, names.tag);
    assert_string_equal((char *)text.data, wanted);
    un_buf_reset(&text);
    assert_int_equal(net_rules_policy_text(&names, false, "10.87.0.2", p, &text), 0);
    assert_int_equal(strncmp((char *)text.data, "delete element", 14), 0);
    un_buf_reset(&text);
    assert_int_equal(net_rules_policy_text(&names, true, "10.87.0.2", NULL, &text), 0);
    assert_int_equal(text.len, 0);
    net_policy_put(&w.targets, p);
    /* By address only: there is nothing to ask DNS for. */
    const char *const addresses[] = {"203.0.113.5:443", NULL};
    p = get(&w, "b", addresses);
    assert_int_equal(net_rules_policy_text(&names, true, "10.87.0.2", p, &text), 0);
    assert_null(strstr((char *)text.data, "named"));
    un_buf_done(&text);
    net_policy_put(&w.targets, p);
    world_done(&w);
}

static void test_dnsmasq_is_told_to_keep_to_itself(void **state)
{
    static const char *const lines[] = {"\nexcept-interface=lo\n",
                                        "\nlisten-address=10.87.0.1\n",
                                        "\nbind-interfaces\n",
                                        "\nno-resolv\n",
                                        "\nno-hosts\n",
                                        "\nlocal=/#/\n",
                                        "\npid-file\n",
                                        "\naddn-hosts=/run/x/hosts\n",
                                        "\ndhcp-hostsfile=/run/x/leases\n",
                                        "\ndhcp-range=10.87.0.0,static,255.255.0.0,1h\n",
                                        "\ndhcp-option=option:router,10.87.0.1\n",
                                        "\ndhcp-option=option:dns-server,10.87.0.1\n",
                                        "\ndhcp-ignore-names\n"};
    struct net_range range;
    struct net_names names;
    un_autobuf struct un_buf text = {0};
    assert_int_equal(net_range_init(&range, "10.87.0.0/16", NULL), 0);
    net_names_init(&names, "/state");
    assert_int_equal(net_dnsmasq_config(&names, &range, "/run/x", &text), 0);
    const char *config = (const char *)text.data;
    for (size_t i = 0; i < UN_ARRAY_SIZE(lines); i++) {
        assert_non_null(strstr(config, lines[i]));
    }
    /* On all of our bridges; DHCP where others' servers are not. */
    char bridge[NET_NAME_SIZE], interface[64], port[64];
    net_names_bridge(&names, 0xffff, bridge);
    assert_int_equal(strlen(bridge), NET_NAME_SIZE - 1);
    snprintf(interface, sizeof(interface), "interface=%.*s*\n", NET_NAME_SIZE - 5, bridge);
    snprintf(port, sizeof(port), "\ndhcp-alternate-port=%u,68\n", names.dhcp_port);
    assert_non_null(strstr(config, interface));
    assert_non_null(strstr(config, port));
    assert_in_range(names.dhcp_port, 20000, 29999);
    net_range_done(&range);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_have_the_end_of_the_range),
        cmocka_unit_test(test_a_host_has_one_address_for_all),
        cmocka_unit_test(test_an_address_rests_and_runs_out),
        cmocka_unit_test(test_what_cannot_be_served_is_refused),
        cmocka_unit_test(test_the_rules_of_a_guest),
        cmocka_unit_test(test_dnsmasq_is_told_to_keep_to_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
