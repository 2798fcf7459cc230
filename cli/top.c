/* top.c - see top.h. */
#include "cli/top.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/api.h"
#include "cli/args.h"
#include "cli/table.h"
#include "common/cleanup.h"

enum { NAME_LEAST = 8 /* letters of a name, however narrow the screen is */ };

UN_DEFINE_CLEANUP(struct table, table_free)

/* --- samples to rows -------------------------------------------------------------------------- */

/* Puts the rows of a sample into a map, by their function's name. 0, -ENOMEM. */
static int add_rows(json_t *map, const json_t *sample)
{
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(sample, "functions"), i, row)
    {
        if (json_object_set(map, api_str(row, "function"), row) < 0) {
            return -ENOMEM;
        }
    }
    return map ? 0 : -ENOMEM;
}

bool top_past_leads_to(const struct top_past *past, const json_t *sample)
{
    const json_t *last = past->sample;
    return last && strcmp(api_str(last, "started_at"), api_str(sample, "started_at")) == 0 &&
           api_uint(sample, "uptime_us") >= api_uint(last, "uptime_us");
}

int top_past_take(struct top_past *past, json_t *sample)
{
    if (!top_past_leads_to(past, sample)) {
        top_past_done(past);
        past->rows = json_object();
    }
    json_decref(past->sample);
    past->sample = json_incref(sample);
    int rc = add_rows(past->rows, sample);
    if (rc < 0) {
        top_past_done(past);
    }
    return rc;
}

void top_past_done(struct top_past *past)
{
    json_decref(past->sample);
    json_decref(past->rows);
    *past = (struct top_past){NULL, NULL};
}

/* How much a count has grown; never negative. */
static uint64_t grown(const json_t *before, const json_t *after, const char *key)
{
    uint64_t was = api_uint(before, key), is = api_uint(after, key);
    return is > was ? is - was : 0;
}

struct sums {
    uint64_t ran, duration_us;
};

static struct sums fill_row(struct top_row *r, const json_t *before, const json_t *after,
                            double seconds)
{
    struct sums s = {grown(before, after, "ran"), grown(before, after, "duration_us")};
    r->running = api_uint(after, "running");
    r->ready = api_uint(after, "ready");
    r->memory_mib = api_uint(after, "memory_mib");
    r->waiting = api_uint(after, "waiting");
    if (seconds > 0) {
        r->requests_s = (double)grown(before, after, "invocations") / seconds;
        r->errors_s = (double)grown(before, after, "failed") / seconds;
        r->ran = s.ran > 0;
        r->mean_us = s.ran > 0 ? s.duration_us / s.ran : 0;
    }
    return s;
}

static int busiest_first(const void *a, const void *b)
{
    const struct top_row *x = a, *y = b;
    uint64_t now_x = x->running + x->waiting, now_y = y->running + y->waiting;
    if (x->requests_s != y->requests_s) {
        return x->requests_s < y->requests_s ? 1 : -1;
    }
    if (now_x != now_y) {
        return now_x < now_y ? 1 : -1;
    }
    if (x->memory_mib != y->memory_mib) {
        return x->memory_mib < y->memory_mib ? 1 : -1;
    }
    return strcmp(x->name, y->name);
}

static bool has_something(const struct top_row *r)
{
    return r->running || r->ready || r->memory_mib || r->waiting || r->requests_s > 0;
}

/* Adds up what is told of each function only. */
static void add_sums(struct top_view *v, const struct top_row *r, struct sums *all,
                     const struct sums *more)
{
    v->all.requests_s += r->requests_s;
    v->all.errors_s += r->errors_s;
    all->ran += more->ran;
    all->duration_us += more->duration_us;
}

int top_view_make(const struct top_past *past, const json_t *now, const json_t *functions,
                  struct top_view *ret)
{
    bool same_run = top_past_leads_to(past, now);
    const json_t *before = same_run ? past->sample : NULL, *was = same_run ? past->rows : NULL;
    un_autojson json_t *is = json_object(), *names = json_object();
    int rc = names ? add_rows(is, now) : -ENOMEM;
    size_t most = json_array_size(functions) + json_object_size(is), i;
    struct top_view v = {.rows = calloc(most + 1, sizeof(*v.rows)),
                         .at = api_str(now, "at"),
                         .rated = past->sample != NULL,
                         .interval_us = past->sample ? grown(before, now, "uptime_us") : 0,
                         .instances = api_uint(now, "instances"),
                         .memory_limit_mib = api_uint(now, "memory_limit_mib")};
    double seconds = (double)v.interval_us / 1e6;
    struct sums all = {0, 0};
    const char *name;
    const json_t *f;
    json_t *row;
    rc = v.rows ? rc : -ENOMEM;
    fill_row(&v.all, NULL, now, 0); /* what it says of all itself */
    v.all.name = "";
    json_array_foreach(functions, i, f)
    {
        name = api_str(f, "name");
        if (rc == 0 && *name && !json_object_get(names, name)) {
            v.rows[v.count++].name = name;
            rc = json_object_set_new(names, name, json_null()) < 0 ? -ENOMEM : 0;
            struct sums s = fill_row(&v.rows[v.count - 1], json_object_get(was, name),
                                     json_object_get(is, name), seconds);
            add_sums(&v, &v.rows[v.count - 1], &all, &s);
        }
    }
    json_object_foreach(is, name, row)
    {
        if (rc == 0 && !json_object_get(names, name)) {
            struct top_row *r = &v.rows[v.count];
            struct sums s = fill_row(r, json_object_get(was, name), row, seconds);
            r->name = api_str(row, "function");
            add_sums(&v, r, &all, &s);
            v.count += has_something(r);
        }
    }
    if (rc < 0) {
        top_view_done(&v);
        return rc;
    }
    v.all.ran = all.ran > 0;
    v.all.mean_us = all.ran > 0 ? all.duration_us / all.ran : 0;
    qsort(v.rows, v.count, sizeof(*v.rows), busiest_first);
    *ret = v;
    return 0;
}

void top_view_done(struct top_view *v)
{
    free(v->rows);
    v->rows = NULL;
    v->count = 0;
}

/* --- for people ------------------------------------------------------------------------------- */

static const char *show_rate(bool known, double rate, char *buf)
{
    if (!known) {
        return NULL;
    }
    snprintf(buf, TABLE_CELL_SIZE, "%.*f", rate >= 1000 ? 0 : 1, rate);
    return buf;
}

static int add_head(const struct top_view *v, struct un_buf *out)
{
    char requests[TABLE_CELL_SIZE], errors[TABLE_CELL_SIZE];
    const char *r = show_rate(v->rated, v->all.requests_s, requests);
    const char *e = show_rate(v->rated, v->all.errors_s, errors);
    return un_buf_printf(out,
                         "VMs: %" PRIu64 ", %" PRIu64 " running, %" PRIu64
                         " ready; memory: %" PRIu64 "MiB of %" PRIu64 "MiB\n"
                         "Requests: %s/s, %s/s failed, %" PRIu64 " waiting\n\n",
                         v->instances, v->all.running, v->all.ready, v->all.memory_mib,
                         v->memory_limit_mib, r ? r : "-", e ? e : "-", v->all.waiting);
}

/* A name of at most `most` letters (0: any); what is cut ends in '+', as in top(1). */
static const char *show_name(const char *name, size_t most, char buf[64])
{
    name = *name ? name : "(others)";
    if (!most || strlen(name) <= most || most >= 64) {
        return name;
    }
    snprintf(buf, 64, "%.*s+", (int)most - 1, name);
    return buf;
}

/* The table of the first `count` rows. */
static int add_table(const struct top_view *v, size_t count, size_t name_most, struct un_buf *out)
{
    static const char *const heads[] = {"FUNCTION", ">RUN",  ">READY", ">MEMORY", ">REQ/S",
                                        ">ERR/S",   ">MEAN", ">QUEUE", NULL};
    __attribute__((cleanup(table_freep))) struct table *t = table_new(heads);
    for (size_t i = 0; t && i < count; i++) {
        const struct top_row *r = &v->rows[i];
        char name[64], text[7][TABLE_CELL_SIZE];
        snprintf(text[0], TABLE_CELL_SIZE, "%" PRIu64, r->running);
        snprintf(text[1], TABLE_CELL_SIZE, "%" PRIu64, r->ready);
        snprintf(text[2], TABLE_CELL_SIZE, "%" PRIu64 "MiB", r->memory_mib);
        snprintf(text[6], TABLE_CELL_SIZE, "%" PRIu64, r->waiting);
        const char *cells[] = {show_name(r->name, name_most, name),
                               text[0],
                               text[1],
                               text[2],
                               show_rate(v->rated, r->requests_s, text[3]),
                               show_rate(v->rated, r->errors_s, text[4]),
                               r->ran ? table_us(r->mean_us, text[5]) : NULL,
                               text[6]};
        table_row(t, cells);
    }
    return t ? table_render(t, out) : -ENOMEM;
}

/* Copies lines, of each at most `columns` (0: any) bytes: but for what a strange daemon says, it is ASCII. */
static int add_cut(const char *text, size_t columns, struct un_buf *out)
{
    int rc = 0;
    while (*text && rc == 0) {
        size_t len = strcspn(text, "\n"), used = len;
        if (columns && len > columns) {
            used = columns;
        }
        rc = un_buf_append(out, text, used);
        rc = rc ? rc : un_buf_append_str(out, "\n");
        text += len + (text[len] == '\n');
    }
    return rc;
}

int top_view_text(const struct top_view *v, const struct top_screen *screen, struct un_buf *out)
{
    enum { AROUND = 5 /* lines that are no rows: two of sums, empty, heads, the last one */ };
    un_autobuf struct un_buf table = {0}, text = {0};
    size_t count = v->count, name_most = 0;
    if (screen->lines && count + AROUND > screen->lines) {
        /* One line less, as it says how many there are not. */
        count = screen->lines > AROUND + 2 ? screen->lines - AROUND - 1 : 1;
    }
    count = count < v->count ? count : v->count;
    int rc = add_table(v, count, 0, &table);
    size_t width = rc == 0 ? strcspn((const char *)table.data, "\n") : 0; /* all lines have it */
    if (screen->columns && width > screen->columns) {
        size_t longest = strlen("FUNCTION"), over = width - screen->columns;
        for (size_t i = 0; i < count; i++) {
            size_t len = strlen(show_name(v->rows[i].name, 0, NULL));
            longest = len > longest ? len : longest;
        }
        name_most = longest > over + NAME_LEAST ? longest - over : NAME_LEAST;
        un_buf_reset(&table);
        rc = rc ? rc : add_table(v, count, name_most, &table);
    }
    rc = rc ? rc : add_head(v, &text);
    rc = rc ? rc : un_buf_append(&text, table.data, table.len);
    if (rc == 0 && count < v->count) {
        rc = un_buf_printf(&text, "(%zu more)\n", v->count - count);
    } else if (rc == 0 && v->count == 0) {
        rc = un_buf_append_str(&text, "(no function does anything)\n");
    }
    return rc ? rc : add_cut((const char *)text.data, screen->columns, out);
}

int top_frame(const char *text, struct un_buf *out)
{
    int rc = un_buf_append_str(out, "\033[H");
    while (*text && rc == 0) {
        size_t len = strcspn(text, "\n");
        rc = un_buf_append(out, text, len);
        rc = rc ? rc : un_buf_append_str(out, "\033[K\n");
        text += len + (text[len] == '\n');
    }
    return rc ? rc : un_buf_append_str(out, "\033[J");
}

/* --- for programs ----------------------------------------------------------------------------- */

/* A rate with as many digits as say something. */
static json_t *rate_json(const struct top_view *v, double rate)
{
    return v->rated ? json_real((double)(uint64_t)(rate * 1000 + 0.5) / 1000) : json_null();
}

static json_t *row_json(const struct top_view *v, const struct top_row *r)
{
    return json_pack("{s:I, s:I, s:I, s:o, s:o, s:o, s:I}", "running", (json_int_t)r->running,
                     "ready", (json_int_t)r->ready, "memory_mib", (json_int_t)r->memory_mib,
                     "requests_per_s", rate_json(v, r->requests_s), "errors_per_s",
                     rate_json(v, r->errors_s), "mean_us",
                     r->ran ? json_integer((json_int_t)r->mean_us) : json_null(), "waiting",
                     (json_int_t)r->waiting);
}

json_t *top_view_json(const struct top_view *v)
{
    un_autojson json_t *all = json_pack(
        "{s:s, s:I, s:I, s:I}", "at", v->at, "interval_us", (json_int_t)v->interval_us, "instances",
        (json_int_t)v->instances, "memory_limit_mib", (json_int_t)v->memory_limit_mib);
    un_autojson json_t *sums = row_json(v, &v->all), *list = json_array();
    if (!all || !sums || !list || json_object_update(all, sums) < 0 ||
        json_object_set(all, "functions", list) < 0) {
        return NULL;
    }
    for (size_t i = 0; i < v->count; i++) {
        const struct top_row *r = &v->rows[i];
        un_autojson json_t *one = json_pack("{s:s?}", "function", *r->name ? r->name : NULL);
        un_autojson json_t *row = row_json(v, r);
        if (!one || !row || json_object_update(one, row) < 0 || json_array_append(list, one) < 0) {
            return NULL;
        }
    }
    return un_steal(&all);
}

/* --- the command line ------------------------------------------------------------------------- */

int top_interval(const char *text, uint64_t *ret_ms, struct un_error *err)
{
    size_t whole = strspn(text, "0123456789"), part = 0;
    uint64_t ms = 0;
    if (text[whole] == '.') {
        part = strspn(text + whole + 1, "0123456789");
    }
    bool plain = whole > 0 && whole <= 6 && part <= 3 &&
                 text[whole + (text[whole] == '.' ? 1 + part : 0)] == '\0' &&
                 (text[whole] == '\0' || part > 0);
    if (plain) {
        ms = strtoull(text, NULL, 10) * 1000;
        for (size_t i = 0, unit = 100; i < part; i++, unit /= 10) {
            ms += (uint64_t)(text[whole + 1 + i] - '0') * unit;
        }
    } else {
        int rc = args_duration(text, &ms, err);
        if (rc < 0) {
            return rc == -ERANGE ? rc
                                 : un_error_set(err, rc,
                                                "'%s' is no time: seconds like 1 or 0.5, or "
                                                "with a unit like 500ms",
                                                text);
        }
    }
    if (ms < TOP_INTERVAL_LEAST_MS || ms > TOP_INTERVAL_MOST_MS) {
        return un_error_set(err, -ERANGE, "%s is not from 0.1 to 3600 seconds", text);
    }
    *ret_ms = ms;
    return 0;
}
