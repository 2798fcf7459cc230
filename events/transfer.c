/* transfer.c - one HTTP request to somebody else's server, on a thread: objects to and from stores
 * (signed as AWS Signature Version 4 has it, by libcurl), and confirmations of subscriptions.
 *
 * A thread gets copies and gives values back (workers.h). Bodies are in memory and bounded.
 * Redirects are not followed: nobody but the operator says where requests go.
 */
#include <curl/curl.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/cleanup.h"
#include "common/limits.h"
#include "events/events_impl.h"

enum { CONNECT_MS = 10000, SLOW_BYTES_S = 1, SLOW_S = 60 };

static void easy_freep(CURL **h)
{
    curl_easy_cleanup(*h);
}

static void slist_freep(struct curl_slist **l)
{
    curl_slist_free_all(*l);
}

static void transfer_free(struct transfer *t)
{
    for (size_t i = 0; i < UN_ARRAY_SIZE(t->strings); i++) {
        if (t->strings[i]) {
            explicit_bzero(t->strings[i], strlen(t->strings[i]));
            free(t->strings[i]);
        }
    }
    free(t->content_type);
    un_buf_done(&t->answer);
    free(t);
}

struct transfer *transfer_new(struct events *ev, const struct transfer_spec *spec)
{
    struct transfer *t = calloc(1, sizeof(*t));
    if (!t) {
        return NULL;
    }
    t->events = ev;
    t->spec = *spec;
    const char **const from[] = {&t->spec.method,     &t->spec.url,        &t->spec.region,
                                 &t->spec.access_key, &t->spec.secret_key, &t->spec.content_type};
    for (size_t i = 0; i < UN_ARRAY_SIZE(from); i++) {
        if (event_copy(&t->strings[i], *from[i]) < 0) {
            transfer_free(t);
            return NULL;
        }
        *from[i] = t->strings[i];
    }
    return t;
}

char *transfer_encode_path(const char *path)
{
    static const char plain[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/";
    char *out = malloc(strlen(path) * 3 + 1), *at = out;
    for (const unsigned char *c = (const unsigned char *)path; out && *c; c++) {
        at += sprintf(at, strchr(plain, *c) ? "%c" : "%%%02X", *c);
    }
    if (out) {
        *at = '\0';
    }
    return out;
}

/* --- on the thread ---------------------------------------------------------------------------- */

static size_t on_data(char *data, size_t size, size_t n, void *arg)
{
    struct transfer *t = arg;
    t->too_large = size * n > t->spec.answer_most - t->answer.len;
    return t->too_large || un_buf_append(&t->answer, data, size * n) < 0 ? 0 : size * n;
}

static int on_progress(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    const struct transfer *t = arg;
    return __atomic_load_n(&t->events->stop, __ATOMIC_RELAXED);
}

/* S3 wants the body's hash in a field that is signed too ("x-amz-content-sha256"). */
static int sign(CURL *h, const struct transfer_spec *s, struct curl_slist **fields)
{
    unsigned char digest[32];
    char hex[65], line[96];
    un_autofree char *scheme = NULL, *keys = NULL;
    if (!s->access_key) {
        return 0;
    }
    if (asprintf(&scheme, "aws:amz:%s:s3", s->region ? s->region : "us-east-1") < 0 ||
        asprintf(&keys, "%s:%s", s->access_key, s->secret_key) < 0 ||
        EVP_Digest(s->body ? s->body : "", s->body_len, digest, NULL, EVP_sha256(), NULL) != 1) {
        return -ENOMEM;
    }
    un_hex_encode(digest, sizeof(digest), hex);
    snprintf(line, sizeof(line), "x-amz-content-sha256: %s", hex);
    struct curl_slist *more = curl_slist_append(*fields, line);
    *fields = more ? more : *fields;
    bool ok = more && curl_easy_setopt(h, CURLOPT_AWS_SIGV4, scheme) == CURLE_OK &&
              curl_easy_setopt(h, CURLOPT_USERPWD, keys) == CURLE_OK;
    explicit_bzero(keys, strlen(keys));
    return ok ? 0 : -ENOMEM;
}

static void set_options(CURL *h, struct transfer *t, char *why)
{
    const struct transfer_spec *s = &t->spec;
    curl_easy_setopt(h, CURLOPT_URL, s->url);
    curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(h, CURLOPT_PROXY, ""); /* the environment has no say */
    curl_easy_setopt(h, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
    curl_easy_setopt(h, CURLOPT_TIMEOUT_MS, (long)s->limit_ms);
    curl_easy_setopt(h, CURLOPT_LOW_SPEED_LIMIT, (long)SLOW_BYTES_S);
    curl_easy_setopt(h, CURLOPT_LOW_SPEED_TIME, (long)SLOW_S);
    curl_easy_setopt(h, CURLOPT_USERAGENT, "unid");
    curl_easy_setopt(h, CURLOPT_ERRORBUFFER, why);
    curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(h, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(h, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(h, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(h, CURLOPT_XFERINFODATA, t);
    if (s->body) {
        curl_easy_setopt(h, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)s->body_len);
        curl_easy_setopt(h, CURLOPT_POSTFIELDS, s->body);
    }
    curl_easy_setopt(h, CURLOPT_CUSTOMREQUEST, s->method);
}

static int result(struct transfer *t, CURL *h, CURLcode code, const char *why, struct un_error *err)
{
    const char *type = NULL;
    if (t->too_large) {
        return un_error_set(err, -EFBIG, "the answer has more than %zu bytes", t->spec.answer_most);
    }
    if (code == CURLE_ABORTED_BY_CALLBACK) {
        return un_error_set(err, -ECANCELED, "unid is shutting down");
    }
    if (code != CURLE_OK) {
        return un_error_set(err, code == CURLE_OPERATION_TIMEDOUT ? -ETIMEDOUT : -EIO, "%s",
                            *why ? why : curl_easy_strerror(code));
    }
    curl_easy_getinfo(h, CURLINFO_RESPONSE_CODE, &t->status);
    curl_easy_getinfo(h, CURLINFO_CONTENT_TYPE, &type);
    return event_copy(&t->content_type, type) < 0 ? un_error_set(err, -ENOMEM, "out of memory") : 0;
}

static int run(struct un_job *job, struct un_error *err)
{
    struct transfer *t = un_container_of(job, struct transfer, job);
    CURL *h __attribute__((cleanup(easy_freep))) = curl_easy_init();
    struct curl_slist *fields __attribute__((cleanup(slist_freep))) = NULL;
    char why[CURL_ERROR_SIZE] = "";
    if (!h) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    set_options(h, t, why);
    if (t->spec.body) {
        un_autofree char *line = NULL;
        const char *type = t->spec.content_type;
        if (asprintf(&line, "Content-Type: %s", type ? type : "application/octet-stream") < 0) {
            line = NULL;
        }
        struct curl_slist *more = line ? curl_slist_append(fields, line) : NULL;
        if (!more) {
            return un_error_set(err, -ENOMEM, "out of memory");
        }
        fields = more;
    }
    if (sign(h, &t->spec, &fields) < 0) {
        return un_error_set(err, -ENOMEM, "sign the request: out of memory");
    }
    curl_easy_setopt(h, CURLOPT_HTTPHEADER, fields);
    return result(t, h, curl_easy_perform(h), why, err);
}

static void finished(struct un_job *job, int rc, const struct un_error *err)
{
    struct transfer *t = un_container_of(job, struct transfer, job);
    struct events *ev = t->events;
    t->done(t, rc, err);
    transfer_free(t);
    events_release(ev);
}

void transfer_start(struct transfer *t)
{
    t->job.run = run;
    t->job.done = finished;
    events_hold(t->events);
    un_workers_submit(t->events->transfers, &t->job);
}
