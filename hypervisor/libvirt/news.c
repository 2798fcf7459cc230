/* news.c - see news.h. libvirt's C API as of 9.0.
 *
 * libvirt itself does not tell a guest's power-off from its reset, which is a triple fault more often
 * than a reboot: both are a shutdown "by the guest". QEMU does, so its monitor's own events are heard as
 * well, where the driver is QEMU's.
 */
#include "hypervisor/libvirt/news.h"

#include <errno.h>
#include <libvirt/libvirt-qemu.h>
#include <libvirt/libvirt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/list.h"

struct lv_news {
    struct un_loop *loop;
    lv_news_cb *cb;
    void *arg;
    struct un_post post;
    pthread_mutex_t lock; /* of what follows */
    struct un_list items; /* struct item */
    bool closed;
    unsigned refs; /* the owner's, and one for each registration */
};

struct item {
    struct un_list node;
    char domain[64];
    struct hv_exit why;
};

static void unref(struct lv_news *n)
{
    pthread_mutex_lock(&n->lock);
    bool last = --n->refs == 0;
    pthread_mutex_unlock(&n->lock);
    if (last) {
        pthread_mutex_destroy(&n->lock);
        free(n);
    }
}

static void on_registration_gone(void *arg)
{
    unref(arg);
}

static struct item *take_first(struct lv_news *n)
{
    pthread_mutex_lock(&n->lock);
    struct item *item = un_list_first(&n->items, struct item, node);
    if (item) {
        un_list_remove(&item->node);
    }
    pthread_mutex_unlock(&n->lock);
    return item;
}

static void on_posted(void *arg)
{
    struct lv_news *n = arg;
    struct item *item;
    while ((item = take_first(n))) {
        n->cb(n->arg, item->domain, &item->why);
        free(item);
    }
}

int lv_news_new(struct un_loop *loop, lv_news_cb *cb, void *arg, struct lv_news **ret,
                struct un_error *err)
{
    struct lv_news *n = calloc(1, sizeof(*n));
    if (!n) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    *n = (struct lv_news){.loop = loop, .cb = cb, .arg = arg, .refs = 1};
    n->post = (struct un_post){.fn = on_posted, .arg = n};
    pthread_mutex_init(&n->lock, NULL);
    un_list_init(&n->items);
    *ret = n;
    return 0;
}

void lv_news_free(struct lv_news *n)
{
    struct item *item;
    if (!n) {
        return;
    }
    pthread_mutex_lock(&n->lock);
    n->closed = true;
    pthread_mutex_unlock(&n->lock);
    un_loop_unpost(n->loop, &n->post);
    while ((item = take_first(n))) {
        free(item);
    }
    unref(n);
}

/* --- libvirt's event thread --------------------------------------------------------------------- */

static void tell(struct lv_news *n, virDomainPtr dom, const struct hv_exit *why)
{
    const char *name = virDomainGetName(dom);
    struct item *item = name ? calloc(1, sizeof(*item)) : NULL;
    if (!item) {
        return; /* the domain ends without a reason */
    }
    snprintf(item->domain, sizeof(item->domain), "%s", name);
    item->why = *why;
    pthread_mutex_lock(&n->lock);
    if (n->closed) {
        free(item);
    } else {
        un_list_init(&item->node);
        un_list_push(&n->items, &item->node);
        un_loop_post(n->loop, &n->post);
    }
    pthread_mutex_unlock(&n->lock);
}

static bool exit_is(struct hv_exit *ret, enum hv_exit_kind kind, const char *detail)
{
    *ret = (struct hv_exit){.kind = kind, .fault_vector = ~0u};
    snprintf(ret->detail, sizeof(ret->detail), "%s", detail);
    return true;
}

bool lv_news_better(const struct hv_exit *a, const struct hv_exit *b)
{
    static const unsigned ranks[] = {[HV_EXIT_LOST] = 1, [HV_EXIT_DONE] = 2, [HV_EXIT_FAULT] = 3};
    return ranks[a->kind] > ranks[b->kind];
}

bool lv_news_of_qemu(const char *event, const char *details, struct hv_exit *ret)
{
    const char *text = details ? details : "";
    if (strcmp(event, "GUEST_PANICKED") == 0) {
        return exit_is(ret, HV_EXIT_FAULT, "the machine ended: its kernel panicked");
    }
    if (strcmp(event, "WATCHDOG") == 0) {
        return exit_is(ret, HV_EXIT_FAULT, "the machine ended: it hung, and its watchdog fired");
    }
    if (strcmp(event, "SHUTDOWN") != 0) {
        return false;
    }
    if (strstr(text, "\"guest-shutdown\"")) {
        return exit_is(ret, HV_EXIT_DONE, "the machine ended: it shut itself down");
    }
    if (strstr(text, "\"guest-reset\"") || strstr(text, "\"subsystem-reset\"")) {
        return exit_is(ret, HV_EXIT_FAULT,
                       "the machine ended: it reset itself, by a triple fault or a reboot");
    }
    if (strstr(text, "\"guest-panic\"")) {
        return exit_is(ret, HV_EXIT_FAULT, "the machine ended: its kernel panicked");
    }
    return exit_is(ret, HV_EXIT_LOST, "the machine ended: QEMU was told to end");
}

static void on_qemu(virConnectPtr conn, virDomainPtr dom, const char *event, long long seconds,
                    unsigned int micros, const char *details, void *arg)
{
    struct hv_exit why;
    if (lv_news_of_qemu(event, details, &why)) {
        tell(arg, dom, &why);
    }
}

/* A shutdown is not told from here for QEMU: on_qemu knows more of it. */
static int on_lifecycle(virConnectPtr conn, virDomainPtr dom, int event, int detail, void *arg)
{
    struct hv_exit why;
    if (event == VIR_DOMAIN_EVENT_CRASHED) {
        exit_is(&why, HV_EXIT_FAULT, "the machine ended: its kernel panicked");
    } else if (event != VIR_DOMAIN_EVENT_STOPPED) {
        return 0;
    } else if (detail == VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN) {
        exit_is(&why, HV_EXIT_DONE, "the machine ended: it shut itself down");
    } else {
        exit_is(&why, HV_EXIT_LOST, "the machine ended: QEMU went away");
    }
    tell(arg, dom, &why);
    return 0;
}

static void on_watchdog(virConnectPtr conn, virDomainPtr dom, int action, void *arg)
{
    struct hv_exit why;
    exit_is(&why, HV_EXIT_FAULT, "the machine ended: it hung, and its watchdog fired");
    tell(arg, dom, &why);
}

static void count(struct lv_news *n)
{
    pthread_mutex_lock(&n->lock);
    n->refs++;
    pthread_mutex_unlock(&n->lock);
}

static void listen_to(struct lv_news *n, virConnectPtr conn, int id,
                      virConnectDomainEventGenericCallback cb)
{
    count(n);
    if (virConnectDomainEventRegisterAny(conn, NULL, id, cb, n, on_registration_gone) < 0) {
        unref(n);
    }
}

void lv_news_listen(struct lv_news *n, void *conn)
{
    const char *type = virConnectGetType(conn);
    listen_to(n, conn, VIR_DOMAIN_EVENT_ID_LIFECYCLE, VIR_DOMAIN_EVENT_CALLBACK(on_lifecycle));
    listen_to(n, conn, VIR_DOMAIN_EVENT_ID_WATCHDOG, VIR_DOMAIN_EVENT_CALLBACK(on_watchdog));
    if (type && strcmp(type, "QEMU") == 0) {
        count(n);
        if (virConnectDomainQemuMonitorEventRegister(
                conn, NULL, "^(SHUTDOWN|GUEST_PANICKED|WATCHDOG)$", on_qemu, n,
                on_registration_gone, VIR_CONNECT_DOMAIN_QEMU_MONITOR_EVENT_REGISTER_REGEX) < 0) {
            unref(n);
        }
    }
}
