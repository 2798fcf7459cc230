/* netplumb.c - how long it takes to give a guest its network and to take it back, with none, and with
 * many others attached; in a network namespace of its own.
 *
 *     bench/netplumb [OTHERS] [ROUNDS]
 *
 * Prints one line of JSON: medians in microseconds.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/clock.h"
#include "netplumb/net.h"

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

static uint64_t median_us(unsigned rounds)
{
    uint64_t *us = calloc(rounds, sizeof(*us));
    if (!us) {
        exit(1);
    }
    for (unsigned i = 0; i < rounds; i++) {
        uint64_t from = un_clock_mono_us();
        net_detach(attach());
        us[i] = un_clock_mono_us() - from;
    }
    qsort(us, rounds, sizeof(*us), compare);
    uint64_t median = us[rounds / 2];
    free(us);
    return median;
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
                                 .tap_owner = getuid()};
    if (net_open(&spec, &np, &err) < 0) {
        fprintf(stderr, "netplumb: %s\n", err.text);
        return 1;
    }
    net_detach(attach()); /* makes the bridge and the tables */
    uint64_t alone = median_us(rounds);
    uint64_t from = un_clock_mono_us();
    struct net_link **held = calloc(others + 1, sizeof(struct net_link *));
    if (!held) {
        return 1;
    }
    for (unsigned i = 0; i < others; i++) {
        held[i] = attach();
    }
    uint64_t all = un_clock_mono_us() - from;
    uint64_t among = median_us(rounds);
    printf("{\"alone_us\": %llu, \"others\": %u, \"others_attach_us\": %llu, \"among_us\": %llu}\n",
           (unsigned long long)alone, others, (unsigned long long)(others ? all / others : 0),
           (unsigned long long)among);
    for (unsigned i = 0; i < others; i++) {
        net_detach(held[i]);
    }
    free(held);
    net_close(np);
    un_loop_free(loop);
    return 0;
}
