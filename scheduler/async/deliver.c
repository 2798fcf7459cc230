/* deliver.c - attempts at an event whose destination is a URL: a POST by libcurl, on a thread.
 *
 * The threads are started when there is something to deliver. A request may take DELIVERY_S seconds
 * in all. Redirects are not followed, and no protocol but HTTP is spoken: a URL is where an operator
 * said, not where a stranger's answer says. The answer's body is not kept.
 */
#include <curl/curl.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/log.h"
#include "common/workers.h"
#include "scheduler/async/async_impl.h"

enum { DELIVERY_S = 30, CONNECT_S = 10, ANSWER_MOST = 1 << 20 };

struct async_delivery {
    struct un_job job;
    struct async_entry *entry;
    const struct async_event *event; /* the entry's, which stands still meanwhile */
    size_t answer_len;
    long status;
    char why[CURL_ERROR_SIZE + 64];
};

static atomic_bool stopping;

/* --- on a thread ------------------------------------------------------------------------------ */

static size_t on_answer(char *data, size_t size, size_t count, void *arg)
{
    struct async_delivery *d = arg;

    d->answer_len += size * count;
    return d->answer_len <= ANSWER_MOST ? size * count : 0;
}

static int on_progress(void *arg, curl_off_t dl_total, curl_off_t dl, curl_off_t ul_total,
                       curl_off_t ul)
{
    return atomic_load(&stopping);
}

static bool is_own_field(const char *line)
{
    static const char *const own[] = {
        "content-length:", "transfer-encoding:", "host:", "connection:", "expect:"};

    for (size_t i = 0; i < UN_ARRAY_SIZE(own); i++) {
        if (strncasecmp(line, own[i], strlen(own[i])) == 0) {
            return true;
        }
    }
    return false;
}

static int add_line(struct curl_slist **list, const char *line)
{
    struct curl_slist *longer = curl_slist_append(*list, line);

    *list = longer ? longer : *list;
    return longer ? 0 : -ENOMEM;
}

/* The request's fields; libcurl's own Content-Type and Expect are left out. */
static int make_fields(const struct async_event *ev, struct curl_slist **list)
{
    un_autofree char *text = strdup(ev->fields ? ev->fields : "");
    un_autobuf struct un_buf type = {0};
    char line[80], *rest = text, *field;
    int rc = text ? 0 : -ENOMEM;

    rc = rc == 0 ? un_buf_printf(&type, "Content-Type:%s%s", ev->content_type ? " " : "",
                                 ev->content_type ? ev->content_type : "")
                 : rc;
    rc = rc == 0 ? add_line(list, (const char *)type.data) : rc;
    rc = rc == 0 ? add_line(list, "Expect:") : rc;
    snprintf(line, sizeof(line), "X-Unid-Invocation-Id: %s", ev->id);
    rc = rc == 0 ? add_line(list, line) : rc;
    snprintf(line, sizeof(line), "X-Unid-Attempt: %u", ev->attempt);
    rc = rc == 0 ? add_line(list, line) : rc;
    snprintf(line, sizeof(line), "X-Unid-Depth: %u", ev->depth);
    rc = rc == 0 ? add_line(list, line) : rc;
    while (rc == 0 && (field = strsep(&rest, "\r\n")) != NULL) {
        rc = *field && !is_own_field(field) ? add_line(list, field) : 0;
    }
    return rc;
}

static void set_options(CURL *curl, struct async_delivery *d, struct curl_slist *fields)
{
    const struct async_event *ev = d->event;

    curl_easy_setopt(curl, CURLOPT_URL, ev->url);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "unid");
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long)DELIVERY_S);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
    curl_easy_setopt(curl, CURLOPT_POST, 1L);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, ev->body_len > 0 ? ev->body : "");
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)ev->body_len);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, fields);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_answer);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, d);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
}

static int run(struct un_job *job, struct un_error *err)
{
    struct async_delivery *d = un_container_of(job, struct async_delivery, job);
    CURL *curl = curl_easy_init();
    struct curl_slist *fields = NULL;
    char detail[CURL_ERROR_SIZE] = "";
    CURLcode code;
    int rc = curl ? make_fields(d->event, &fields) : -ENOMEM;

    if (rc == 0) {
        set_options(curl, d, fields);
        curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail);
        code = curl_easy_perform(curl);
        /* An answer that was only too long has been given all the same. */
        if (code == CURLE_OK || (code == CURLE_WRITE_ERROR && d->answer_len > ANSWER_MOST)) {
            curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &d->status);
            snprintf(d->why, sizeof(d->why), "the destination answered with status %ld", d->status);
        } else {
            snprintf(d->why, sizeof(d->why), "the destination cannot be reached: %s",
                     *detail ? detail : curl_easy_strerror(code));
        }
    }
    curl_slist_free_all(fields);
    curl_easy_cleanup(curl);
    return rc == 0 ? 0 : un_error_set(err, rc, "deliver an event: out of memory");
}

/* --- on the loop ------------------------------------------------------------------------------ */

static void run_done(struct un_job *job, int rc, const struct un_error *err)
{
    struct async_delivery *d = un_container_of(job, struct async_delivery, job);
    struct async_entry *e = d->entry;
    struct scheduler *s = e->s;
    struct async_ending ending = {.judgement = rc < 0 ? ASYNC_DID_NOT_RUN
                                                      : async_judge_status((unsigned)d->status),
                                  .outcome = "delivery-failed",
                                  .status = d->status ? (unsigned)d->status : 502,
                                  .why = rc < 0 ? err->text : d->why};

    if (ending.judgement == ASYNC_DONE) {
        ending.outcome = "ok";
        ending.why = NULL;
    } else if (d->status == 0 && atomic_load(&stopping)) {
        ending = (struct async_ending){ASYNC_DID_NOT_RUN, "draining", 503,
                                       "the daemon is shutting down"};
    }
    e->delivery = NULL;
    async_entry_finish(e, NULL, &ending);
    free(d); /* the ending borrows its sentence */
    sched_done(s);
}

static int start_threads(struct scheduler *s, struct un_error *err)
{
    if (s->async.deliverers) {
        return 0;
    }
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        return un_error_set(err, -ENOMEM, "libcurl does not start");
    }
    atomic_store(&stopping, false);
    return un_workers_new(s->loop, "deliver", ASYNC_DELIVERIES, &s->async.deliverers, err);
}

void async_deliver(struct async_entry *e)
{
    struct async_delivery *d = calloc(1, sizeof(*d));
    struct un_error err = UN_ERROR_INIT;
    int rc = d ? start_threads(e->s, &err)
               : un_error_set(&err, -ENOMEM, "deliver an event: out of memory");

    if (rc < 0) {
        free(d);
        async_entry_finish(e, NULL,
                           &(struct async_ending){ASYNC_DID_NOT_RUN, "internal", 500, err.text});
        return;
    }
    d->entry = e;
    d->event = e->event;
    d->job = (struct un_job){.run = run, .done = run_done};
    e->delivery = d;
    sched_begin(e->s);
    un_workers_submit(e->s->async.deliverers, &d->job);
}

void async_stop(struct scheduler *s)
{
    if (s->async.deliverers) {
        atomic_store(&stopping, true);
    }
}

void async_deliver_done(struct scheduler *s)
{
    if (s->async.deliverers) {
        un_workers_free(s->async.deliverers);
        s->async.deliverers = NULL;
        curl_global_cleanup();
    }
}
