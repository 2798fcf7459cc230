/* client.c - see client.h. */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "cli/client.h"

#include <curl/curl.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/progress.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/endpoint.h"
#include "common/limits.h"

_Static_assert(CLIENT_CONTROL_MS > 2 * LIMIT_SNAPSHOT_BUILD_MS,
               "a deployment waits for a snapshot");

enum { WAIT_MS = 60000, BUFFER_BYTES = 256 * 1024 };

struct client {
    char *host;
    char *base;
    char *socket_path; /* NULL over TCP */
    char *authorization;
    CURLM *multi; /* holds the connection that keep_alive leaves open */
};

/* One request on its way. */
struct transfer {
    const struct client_request *req;
    struct client_response *r;
    struct un_error *err;
    CURL *easy;
    size_t sent;       /* of req->data */
    bool waiting;      /* for fd to have something */
    int failed;        /* negative errno of our own callbacks */
    uint64_t begun_us; /* when there was a connection to send on */
};

static bool is_socket(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISSOCK(st.st_mode);
}

const char *client_default_host(char *buf)
{
    static const char scheme[] = "unix://";
    const char *path = buf + sizeof(scheme) - 1;
    snprintf(buf, CLIENT_HOST_SIZE, "%s/run/unid/unid.sock", scheme);
    if (geteuid() == 0 && is_socket(path)) {
        return buf;
    }
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    if (runtime && *runtime == '/') {
        int n = snprintf(buf, CLIENT_HOST_SIZE, "%s%s/unid.sock", scheme, runtime);
        if (n > 0 && n < CLIENT_HOST_SIZE && is_socket(path)) {
            return buf;
        }
    }
    snprintf(buf, CLIENT_HOST_SIZE, "http://127.0.0.1:7070");
    return buf;
}

static bool has_control(const char *s)
{
    for (; *s; s++) {
        if ((unsigned char)*s < 0x20 || *s == 0x7f) {
            return true;
        }
    }
    return false;
}

static bool is_url(const char *text)
{
    CURLU *url = curl_url();
    bool good = url && curl_url_set(url, CURLUPART_URL, text, 0) == CURLUE_OK;
    curl_url_cleanup(url);
    return good;
}

/* Splits the address into what curl wants. */
static int set_host(struct client *c, const char *host, struct un_error *err)
{
    c->host = strdup(host);
    if (strncmp(host, "unix://", 7) == 0 && host[7] == '/') {
        c->socket_path = strdup(host + 7);
        c->base = strdup("http://localhost");
        return c->socket_path ? 0 : -ENOMEM;
    }
    if (!un_url_scheme(host) || has_control(host) || strpbrk(host, " ?#@") || !is_url(host)) {
        return un_error_set(err, -EINVAL,
                            "'%s' is no address: write it like http://127.0.0.1:7070 or "
                            "unix:///run/unid/unid.sock",
                            host);
    }
    c->base = strdup(host);
    if (c->base) {
        size_t len = strlen(c->base);
        while (len > 0 && c->base[len - 1] == '/') {
            c->base[--len] = '\0';
        }
    }
    return 0;
}

int client_new(const char *host, const char *token, struct client **ret, struct un_error *err)
{
    if (token && (has_control(token) || !*token)) {
        return un_error_set(err, -EINVAL, "the token is empty or has control characters in it");
    }
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        return un_error_set(err, -ENOMEM, "libcurl does not start");
    }
    struct client *c = calloc(1, sizeof(*c));
    if (!c) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    int rc = set_host(c, host, err);
    if (rc == 0 && token && asprintf(&c->authorization, "Authorization: Bearer %s", token) < 0) {
        c->authorization = NULL;
        rc = -ENOMEM;
    }
    c->multi = curl_multi_init();
    if (rc == 0 && (!c->host || !c->base || !c->multi)) {
        rc = -ENOMEM;
    }
    if (rc < 0) {
        client_free(c);
        return rc == -ENOMEM ? un_error_set(err, rc, "out of memory") : rc;
    }
    *ret = c;
    return 0;
}

void client_free(struct client *c)
{
    if (!c) {
        return;
    }
    free(c->host);
    free(c->base);
    free(c->socket_path);
    free(c->authorization);
    curl_multi_cleanup(c->multi);
    free(c);
    curl_global_cleanup();
}

const char *client_host(const struct client *c)
{
    return c->host;
}

char *client_function_url(const struct client *c, const char *url)
{
    const char *path = strncmp(url, "http://", 7) == 0 ? strchr(url + 7, '/') : url;
    char *out;
    int n;
    if (strncmp(c->host, "unix://", 7) != 0) {
        n = asprintf(&out, "%s%s", c->base, path ? path : "");
    } else if (path == url) {
        n = asprintf(&out, "%s%s (on %s)", c->base, url, c->host);
    } else {
        n = asprintf(&out, "%s", url);
    }
    return n < 0 ? NULL : out;
}

char *client_escape(const char *text)
{
    char *escaped = curl_easy_escape(NULL, text, 0);
    char *copy = escaped ? strdup(escaped) : NULL;
    curl_free(escaped);
    return copy;
}

void client_response_done(struct client_response *r)
{
    un_buf_done(&r->head);
    un_buf_done(&r->body);
}

char *client_header(const struct client_response *r, const char *name)
{
    size_t name_len = strlen(name);
    const char *line = r->head.len ? (const char *)r->head.data : "";
    for (const char *end; (end = strstr(line, "\r\n")); line = end + 2) {
        if (strncasecmp(line, name, name_len) == 0 && line[name_len] == ':') {
            const char *value = line + name_len + 1;
            value += strspn(value, " \t");
            return value <= end ? strndup(value, (size_t)(end - value)) : NULL;
        }
    }
    return NULL;
}

bool client_is_problem(const struct client_response *r)
{
    un_autofree char *type = client_header(r, "Content-Type");
    return r->status >= 400 && type && strncasecmp(type, "application/problem+json", 24) == 0;
}

/* There is a connection, and the request is sent next. (curl's own CURLINFO_STARTTRANSFER_TIME_T is no
 * measure: with a body it is when that begins to be sent.) */
static int on_connected(void *arg, char *to, char *from, int to_port, int from_port)
{
    struct transfer *t = arg;
    t->begun_us = un_clock_mono_us();
    return CURL_PREREQFUNC_OK;
}

/* Every head line, those of interim answers (100 Continue) included; the last answer's remain. */
static size_t on_head_line(char *data, size_t size, size_t count, void *arg)
{
    struct transfer *t = arg;
    size_t len = size * count;
    if (len > 5 && strncmp(data, "HTTP/", 5) == 0) {
        un_buf_reset(&t->r->head);
        long status = 0;
        curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
        t->r->status = status >= 200 ? status : 0;
        t->r->first_byte_us = un_clock_mono_us() - t->begun_us;
    }
    if (t->r->head.len + len > CLIENT_HEAD_MAX || memchr(data, '\0', len)) {
        t->failed = un_error_set(t->err, -EPROTO, "the answer's head is malformed or too long");
        return 0;
    }
    if (un_buf_append(&t->r->head, data, len) < 0) {
        t->failed = un_error_set(t->err, -ENOMEM, "out of memory");
        return 0;
    }
    return len;
}

static size_t on_body_data(char *data, size_t size, size_t count, void *arg)
{
    struct transfer *t = arg;
    size_t len = size * count;
    if (t->req->on_data && !client_is_problem(t->r)) {
        t->failed = t->req->on_data(t->req->arg, t->r, data, len, t->err);
    } else if (t->r->body.len + len > CLIENT_COLLECT_MAX) {
        t->failed =
            un_error_set(t->err, -EFBIG, "the answer is larger than %d bytes", CLIENT_COLLECT_MAX);
    } else if (un_buf_append(&t->r->body, data, len) < 0) {
        t->failed = un_error_set(t->err, -ENOMEM, "out of memory");
    }
    return t->failed ? 0 : len;
}

static size_t read_fd(struct transfer *t, char *buf, size_t room)
{
    struct pollfd ready = {.fd = t->req->fd, .events = POLLIN};
    /* A regular file is always ready. */
    if (poll(&ready, 1, 0) == 0) {
        t->waiting = true;
        return CURL_READFUNC_PAUSE;
    }
    ssize_t n = read(t->req->fd, buf, room);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) {
        t->waiting = true;
        return CURL_READFUNC_PAUSE;
    }
    if (n < 0) {
        t->failed = un_error_errno(t->err, -errno, "read the request's body");
        return CURL_READFUNC_ABORT;
    }
    return (size_t)n;
}

static size_t on_body_wanted(char *buf, size_t size, size_t count, void *arg)
{
    struct transfer *t = arg;
    if (t->req->has_fd) {
        return read_fd(t, buf, size * count);
    }
    size_t left = t->req->data_len - t->sent;
    size_t n = left < size * count ? left : size * count;
    if (n) {
        memcpy(buf, (const char *)t->req->data + t->sent, n);
    }
    t->sent += n;
    return n;
}

static int on_progress(void *arg, curl_off_t down_total, curl_off_t down, curl_off_t up_total,
                       curl_off_t up)
{
    struct transfer *t = arg;
    progress_show(t->req->progress, (uint64_t)up);
    return 0;
}

static struct curl_slist *append_field(struct curl_slist *list, const char *field, bool *ok)
{
    struct curl_slist *longer = *ok ? curl_slist_append(list, field) : NULL;
    *ok = longer != NULL;
    return longer ? longer : list;
}

/* Whether a field of this name is among the request's own. */
static bool has_field(const struct client_request *req, const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 0; req->fields && req->fields[i]; i++) {
        if (strncasecmp(req->fields[i], name, len) == 0 && req->fields[i][len] == ':') {
            return true;
        }
    }
    return false;
}

static struct curl_slist *fields_of(const struct client *c, const struct client_request *req,
                                    bool *ok)
{
    struct curl_slist *list = NULL;
    *ok = true;
    for (size_t i = 0; req->fields && req->fields[i]; i++) {
        list = append_field(list, req->fields[i], ok);
    }
    if (!has_field(req, "Content-Type")) {
        /* Else curl claims that it is a form. */
        list = append_field(list,
                            req->has_fd || req->data ? "Content-Type: application/octet-stream"
                                                     : "Content-Type:",
                            ok);
    }
    if (c->authorization) {
        list = append_field(list, c->authorization, ok);
    }
    if (req->has_fd && req->fd_size < 0) {
        list = append_field(list, "Transfer-Encoding: chunked", ok);
    }
    return list;
}

static void set_body(CURL *e, struct transfer *t)
{
    const struct client_request *req = t->req;
    bool body = req->has_fd || req->data;
    if (!body && strcmp(req->method, "GET") == 0) {
        curl_easy_setopt(e, CURLOPT_HTTPGET, 1L);
        return;
    }
    if (!body && strcmp(req->method, "DELETE") == 0) {
        curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, req->method);
        return;
    }
    curl_off_t size = req->has_fd ? (curl_off_t)req->fd_size : (curl_off_t)req->data_len;
    curl_easy_setopt(e, CURLOPT_POST, 1L);
    curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, req->method);
    curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, size);
    curl_easy_setopt(e, CURLOPT_READFUNCTION, on_body_wanted);
    curl_easy_setopt(e, CURLOPT_READDATA, t);
}

static void set_options(const struct client *c, struct transfer *t, const char *url,
                        struct curl_slist *fields)
{
    CURL *e = t->easy;
    curl_easy_setopt(e, CURLOPT_URL, url);
    curl_easy_setopt(e, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(e, CURLOPT_BUFFERSIZE, (long)BUFFER_BYTES);
    curl_easy_setopt(e, CURLOPT_UPLOAD_BUFFERSIZE, (long)BUFFER_BYTES);
    /* A proxy from the environment is never meant for a daemon on this machine. */
    curl_easy_setopt(e, CURLOPT_PROXY, "");
    curl_easy_setopt(e, CURLOPT_USERAGENT, "unictl/" PACKAGE_VERSION);
    curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)CLIENT_CONNECT_MS);
    curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, t->req->timeout_ms);
    curl_easy_setopt(e, CURLOPT_FORBID_REUSE, t->req->keep_alive ? 0L : 1L);
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, fields);
    curl_easy_setopt(e, CURLOPT_PREREQFUNCTION, on_connected);
    curl_easy_setopt(e, CURLOPT_PREREQDATA, t);
    curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_head_line);
    curl_easy_setopt(e, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body_data);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, t);
    if (c->socket_path) {
        curl_easy_setopt(e, CURLOPT_UNIX_SOCKET_PATH, c->socket_path);
    }
    if (t->req->progress) {
        curl_easy_setopt(e, CURLOPT_NOPROGRESS, 0L);
        curl_easy_setopt(e, CURLOPT_XFERINFOFUNCTION, on_progress);
        curl_easy_setopt(e, CURLOPT_XFERINFODATA, t);
    }
    set_body(e, t);
}

/* What curl's verdict means to a caller. */
static int translate(const struct client *c, struct transfer *t, CURLcode code)
{
    if (t->failed) {
        return t->failed;
    }
    long os_errno = 0;
    curl_easy_getinfo(t->easy, CURLINFO_OS_ERRNO, &os_errno);
    switch (code) {
    case CURLE_OK:
        return 0;
    case CURLE_COULDNT_CONNECT:
    case CURLE_COULDNT_RESOLVE_HOST:
        return un_error_set(t->err, -ECONNREFUSED, "%s",
                            os_errno ? strerror((int)os_errno) : curl_easy_strerror(code));
    case CURLE_OPERATION_TIMEDOUT: {
        curl_off_t connected = 0;
        curl_easy_getinfo(t->easy, CURLINFO_CONNECT_TIME_T, &connected);
        return connected ? un_error_set(t->err, -ETIMEDOUT, "no answer in time")
                         : un_error_set(t->err, -ECONNREFUSED, "no connection in time");
    }
    case CURLE_OUT_OF_MEMORY:
        return un_error_set(t->err, -ENOMEM, "out of memory");
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
        /* Refused before it had read the whole body: the refusal is what matters. */
        return client_is_problem(t->r) && t->r->body.len
                   ? 0
                   : un_error_set(t->err, -ECONNRESET, "%s", curl_easy_strerror(code));
    default:
        return un_error_set(t->err, -EPROTO, "%s: %s", c->host, curl_easy_strerror(code));
    }
}

/* Turns the transfer until its end, waiting on the body's descriptor too while it has nothing. */
static CURLcode turn(CURLM *multi, struct transfer *t)
{
    int running = 1;
    while (running) {
        if (curl_multi_perform(multi, &running) != CURLM_OK) {
            return CURLE_OUT_OF_MEMORY;
        }
        if (!running) {
            break;
        }
        struct curl_waitfd extra = {.fd = t->req->fd, .events = CURL_WAIT_POLLIN};
        if (curl_multi_poll(multi, &extra, t->waiting ? 1 : 0, WAIT_MS, NULL) != CURLM_OK) {
            return CURLE_OUT_OF_MEMORY;
        }
        if (t->waiting && extra.revents) {
            t->waiting = false;
            curl_easy_pause(t->easy, CURLPAUSE_CONT);
        }
    }
    int left = 0;
    CURLMsg *message = curl_multi_info_read(multi, &left);
    return message && message->msg == CURLMSG_DONE ? message->data.result : CURLE_OUT_OF_MEMORY;
}

int client_send(struct client *c, const struct client_request *req, struct client_response *r,
                struct un_error *err)
{
    struct transfer t = {.req = req, .r = r, .err = err, .easy = curl_easy_init()};
    un_autofree char *url = NULL;
    bool fields_ok = false;
    struct curl_slist *fields = fields_of(c, req, &fields_ok);
    if (asprintf(&url, "%s%s", c->base, req->path) < 0) {
        url = NULL;
    }
    int rc = un_error_set(err, -ENOMEM, "out of memory");
    if (t.easy && url && fields_ok) {
        set_options(c, &t, url, fields);
        if (curl_multi_add_handle(c->multi, t.easy) == CURLM_OK) {
            rc = translate(c, &t, turn(c->multi, &t));
            curl_multi_remove_handle(c->multi, t.easy);
        }
    }
    if (rc == 0 && err) {
        *err = (struct un_error)UN_ERROR_INIT;
    }
    curl_slist_free_all(fields);
    curl_easy_cleanup(t.easy);
    return rc;
}
