/* news.h - what libvirt tells of the ends of domains, in words, brought to the loop.
 *
 * libvirt's event thread hears of a shutdown, a panic, a watchdog while QEMU's process may be there
 * still; who looks at that process alone cannot tell them apart.
 */
#ifndef UNID_HYPERVISOR_LIBVIRT_NEWS_H
#define UNID_HYPERVISOR_LIBVIRT_NEWS_H

#include <stdbool.h>

#include "common/loop.h"
#include "hypervisor/hv.h"

/* A domain ends, or has ended: kind DONE, FAULT, or LOST, and why; more may follow of the same domain,
 * and what says more should be believed (lv_news_better). Loop thread. */
typedef void lv_news_cb(void *arg, const char *domain, const struct hv_exit *why);

struct lv_news;
/* Gives a listener that has not begun (lv_news_free). Kept: loop. */
int lv_news_new(struct un_loop *loop, lv_news_cb *cb, void *arg, struct lv_news **ret,
                struct un_error *err);

/* Listens to a connection (a virConnectPtr) until that is closed. What cannot be listened to is left out:
 * domains then end without a reason. Worker. */
void lv_news_listen(struct lv_news *n, void *conn);

/* `cb` is not called any more. NULL is allowed. Loop thread. */
void lv_news_free(struct lv_news *n);

/* Whether `a` says more than `b`: a fault more than a shutdown, that more than a loss. */
bool lv_news_better(const struct hv_exit *a, const struct hv_exit *b);

/* The meaning of an event of QEMU's monitor (its QAPI schema, run-state.json, as of 7.2): `details` is its
 * JSON. False: it is about no end. Pure. */
bool lv_news_of_qemu(const char *event, const char *details, struct hv_exit *ret);

#endif
