/* netplumb.c - how long it takes to give a guest its network and to take it back, alone, beside a fifth of
 * the others, and beside all of them; in a network namespace of its own.
 *
 * A link that is given back lingers, for the next guest. "made": attached, as a new one; "removed": from
 * its being given back until nothing is left of it, without the time that it lingers; "again": attached,
 * as one that lingers, and given back. "worst" is the slowest of the others to be attached, one of which
 * in NET_SEGMENT_PORTS makes a bridge.
 *
 *     bench/netplumb [OTHERS] [ROUNDS]
 *
 * Prints one line of JSON: medians in microseconds.
 */
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/clock.h"
#include "netplumb/net.h"

enum { LINGER_MS = 1, LOOK_US = 50 };

static struct un_loop *loop;
static struct netplumb *np;
static struct net_link *got;

static void on_attach(void *arg, int rc, struct net_link *link, const struct un_error *err)
{
    if (rc < 0) {
        fprintf(stderr, "netplumb: %s\n", err->text);
        exit(1);
    }
    got = link;
    un_loop_stop(loop);
}

static struct net_link *attach(void)
{
    struct un_error err = UN_ERROR_INIT;
    if (net_attach(np, NULL, on_attach, NULL, &err) < 0) {
        fprintf(stderr, "netplumb: %s\n", err.text);
        exit(1);
    }
    un_loop_run(loop);
    return got;
}

static int compare(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static struct net_stats stats(void)
{
    struct net_stats now;
    net_get_stats(np, &now);
    return now;
}

static void look(void *arg)
{
    if (stats().idle == 0 || un_timer_arm_in(arg, LOOK_US) < 0) {
        un_loop_stop(loop);
    }
}

/* Takes it back, and waits until nothing is left of it. */
static void detach(struct net_link *link)
{
    struct un_timer timer;
    net_detach(link);
    un_timer_init(&timer, loop, look, &timer);
    look(&timer);
    un_loop_run(loop);
}

/* A link of its own, made and given back, as who asks for it sees that. Its removal is later. */
static uint64_t made_us(void)
{
    uint64_t from = un_clock_mono_us();
    struct net_link *link = attach();
    uint64_t us = un_clock_mono_us() - from;
    detach(link);
    return us;
}

static uint64_t removed_us(void)
{
    struct net_link *link = attach();
    uint64_t from = un_clock_mono_us();
    detach(link);
    return un_clock_mono_us() - from - LINGER_MS * 1000;
}

static uint64_t found_again_us(void)
{
    uint64_t from = un_clock_mono_us();
    net_detach(attach());
    return un_clock_mono_us() - from;
}

static uint64_t median_us(uint64_t (*round)(void), unsigned rounds)
{
    uint64_t *us = calloc(rounds, sizeof(*us));
    if (!us) {
        exit(1);
    }
    for (unsigned i = 0; i < rounds; i++) {
        us[i] = round();
    }
    qsort(us, rounds, sizeof(*us), compare);
    uint64_t median = us[rounds / 2];
    free(us);
    return median;
}

struct figures {
    uint64_t made_us, removed_us, again_us;
};

static struct figures measure(unsigned rounds)
{
    return (struct figures){median_us(made_us, rounds), median_us(removed_us, rounds),
                            median_us(found_again_us, rounds)};
}

static void print(unsigned beside, unsigned rounds)
{
    struct figures f = measure(rounds);
    printf("%s{\"beside\": %u, \"made_us\": %" PRIu64 ", \"removed_us\": %" PRIu64
           ", \"again_us\": %" PRIu64 "}",
           beside ? ", " : "", beside, f.made_us, f.removed_us, f.again_us);
}

/* Measures alone, and beside some and all of the others. */
static void run(unsigned others, unsigned rounds)
{
    struct net_link **held = calloc(others + 1, sizeof(struct net_link *));
    uint64_t worst_us = 0;
    if (!held) {
        exit(1);
    }
    printf("{\"figures\": [");
    print(0, rounds);
    for (unsigned i = 0; i < others; i++) {
        uint64_t from = un_clock_mono_us();
        held[i] = attach();
        uint64_t us = un_clock_mono_us() - from;
        worst_us = us > worst_us ? us : worst_us;
        if (i + 1 == others / 5) {
            print(i + 1, rounds);
        }
    }
    print(others, rounds);
    printf("], \"worst_us\": %" PRIu64 "}\n", worst_us);
    for (unsigned i = 0; i < others; i++) {
        net_detach(held[i]);
    }
    free(held);
}

int main(int argc, char **argv)
{
    unsigned others = argc > 1 ? (unsigned)atoi(argv[1]) : 500;
    unsigned rounds = argc > 2 ? (unsigned)atoi(argv[2]) : 100;
    struct un_error err = UN_ERROR_INIT;
    if (unshare(CLONE_NEWNET) < 0 || !net_available(&err)) {
        fprintf(stderr, "netplumb: needs the right to make a network namespace and taps\n");
        return 77;
    }
    if (un_loop_new(&loop, &err) < 0) {
        fprintf(stderr, "netplumb: %s\n", err.text);
        return 1;
    }
    struct netplumb_spec spec = {.loop = loop,
                                 .state_dir = "/nonexistent/bench",
                                 .range = "10.87.0.0/16",
                                 .linger_ms = LINGER_MS,
                                 .tap_owner = getuid()};
    if (net_open(&spec, &np, &err) < 0) {
        fprintf(stderr, "netplumb: %s\n", err.text);
        return 1;
    }
    struct net_link *first = attach(); /* makes the bridge and the tables, and keeps them */
    run(others, rounds);
    net_detach(first);
    net_close(np);
    un_loop_free(loop);
    return 0;
}
