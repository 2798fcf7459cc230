/* replay_diff.c - see replay_diff.h. Lines are compared by their longest common subsequence, the
 * textbook's table, behind what is the same at both ends; its size is bounded. */
#include "api/replay_diff.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/bytes.h"
#include "common/cleanup.h"

enum { LINES_MAX = 4096, TABLE_MAX = 1 << 20, CONTEXT = 3 };

/* --- texts ------------------------------------------------------------------------------------ */

static json_t *text_of(const struct un_buf *b)
{
    const char *data = b->len ? (const char *)b->data : "";

    return memchr(data, '\0', b->len) ? NULL : json_stringn(data, b->len); /* NULL: no UTF-8 */
}

static bool is_text(const struct replay_answer *a)
{
    json_t *j = replay_answer_whole(a) ? text_of(&a->body) : NULL;
    bool text = j != NULL;

    json_decref(j);
    return text;
}

/* --- lines ------------------------------------------------------------------------------------ */

struct line {
    const char *at;
    size_t len; /* without its newline */
    bool ends;  /* with a newline */
};
struct lines {
    struct line *items;
    size_t count;
};

static int split(const struct un_buf *b, struct lines *ret)
{
    const char *at = (const char *)b->data, *end = b->len ? at + b->len : at;

    ret->items = calloc(LINES_MAX, sizeof(*ret->items));
    if (!ret->items) {
        return -1;
    }
    while (at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t len = (size_t)((newline ? newline : end) - at);

        if (ret->count == LINES_MAX) {
            return -1;
        }
        ret->items[ret->count++] = (struct line){at, len, newline != NULL};
        at += len + (newline ? 1 : 0);
    }
    return 0;
}

static bool same_line(const struct line *a, const struct line *b)
{
    return a->len == b->len && a->ends == b->ends && memcmp(a->at, b->at, a->len) == 0;
}

static int add_line(struct un_buf *out, char mark, const struct line *l)
{
    int rc = un_buf_append(out, &mark, 1);

    rc = rc ? rc : un_buf_append(out, l->at, l->len);
    rc = rc ? rc : un_buf_append_str(out, "\n");
    return rc || l->ends ? rc : un_buf_append_str(out, "\\ No newline at end of file\n");
}

/* The part of both that differs, [from, a_to) and [from, b_to), by the table of common lengths. */
static int add_changes(struct un_buf *out, const struct lines *a, const struct lines *b,
                       size_t from, size_t a_to, size_t b_to)
{
    size_t n = a_to - from, m = b_to - from, i = 0, j = 0;
    un_autofree uint16_t *table = NULL;
    int rc = 0;

    if ((n + 1) * (m + 1) <= TABLE_MAX) {
        table = calloc((n + 1) * (m + 1), sizeof(*table));
    }
#define COMMON(i, j) table[(i) * (m + 1) + (j)]
    for (size_t x = n; table && x-- > 0;) {
        for (size_t y = m; y-- > 0;) {
            COMMON(x, y) = same_line(&a->items[from + x], &b->items[from + y])
                               ? (uint16_t)(COMMON(x + 1, y + 1) + 1)
                           : COMMON(x + 1, y) > COMMON(x, y + 1) ? COMMON(x + 1, y)
                                                                 : COMMON(x, y + 1);
        }
    }
    while (rc == 0 && (i < n || j < m)) {
        if (table && i < n && j < m && same_line(&a->items[from + i], &b->items[from + j])) {
            rc = add_line(out, ' ', &a->items[from + i]);
            i++;
            j++;
        } else if (i < n && (!table || j == m || COMMON(i + 1, j) >= COMMON(i, j + 1))) {
            rc = add_line(out, '-', &a->items[from + i++]);
        } else {
            rc = add_line(out, '+', &b->items[from + j++]);
        }
    }
#undef COMMON
    return rc;
}

/* One hunk around all that differs. */
static int unified(struct un_buf *out, const struct lines *a, const struct lines *b)
{
    size_t from = 0, a_to = a->count, b_to = b->count, begin, behind;
    int rc;

    while (from < a_to && from < b_to && same_line(&a->items[from], &b->items[from])) {
        from++;
    }
    while (a_to > from && b_to > from && same_line(&a->items[a_to - 1], &b->items[b_to - 1])) {
        a_to--;
        b_to--;
    }
    begin = from > CONTEXT ? from - CONTEXT : 0;
    behind = a->count - a_to < CONTEXT ? a->count - a_to : CONTEXT;
    rc = un_buf_printf(out, "@@ -%zu,%zu +%zu,%zu @@\n", begin + (a_to + behind > begin),
                       a_to + behind - begin, begin + (b_to + behind > begin),
                       b_to + behind - begin);
    for (size_t i = begin; rc == 0 && i < from; i++) {
        rc = add_line(out, ' ', &a->items[i]);
    }
    rc = rc ? rc : add_changes(out, a, b, from, a_to, b_to);
    for (size_t i = a_to; rc == 0 && i < a_to + behind; i++) {
        rc = add_line(out, ' ', &a->items[i]);
    }
    return rc;
}

static json_t *diff_text(const struct replay_answer *x, const struct replay_answer *y)
{
    struct lines a = {0}, b = {0};
    un_autobuf struct un_buf out = {0};
    json_t *ret = NULL;

    if (split(&x->body, &a) == 0 && split(&y->body, &b) == 0 && unified(&out, &a, &b) == 0) {
        ret = json_pack("{s:s, s:o}", "kind", "text", "diff", text_of(&out));
    }
    free(a.items);
    free(b.items);
    return ret;
}

/* --- bodies and heads ------------------------------------------------------------------------- */

static bool same_body(const struct replay_answer *a, const struct replay_answer *b)
{
    if (replay_answer_whole(a) && replay_answer_whole(b)) {
        return a->body.len == b->body.len &&
               (a->body.len == 0 || memcmp(a->body.data, b->body.data, a->body.len) == 0);
    }
    return a->total == b->total && a->sha256[0] && strcmp(a->sha256, b->sha256) == 0;
}

static json_t *diff_body(const struct replay_answer *a, const struct replay_answer *b)
{
    json_t *j = is_text(a) && is_text(b) ? diff_text(a, b) : NULL;

    return j ? j : json_pack("{s:s}", "kind", "binary");
}

/* {"name": "value"} in the order they came; of several of one name the values with ", " between. */
static json_t *headers_json(const struct un_buf *fields)
{
    un_autofree char *text = strndup(fields->len ? (const char *)fields->data : "", fields->len);
    char *rest = text, *line, *colon;
    json_t *all = json_object();

    while (text && all && (line = strsep(&rest, "\n")) != NULL) {
        line[strcspn(line, "\r")] = '\0';
        colon = strstr(line, ": ");
        if (!colon) {
            continue;
        }
        *colon = '\0';
        for (char *p = line; *p; p++) {
            *p = *p >= 'A' && *p <= 'Z' ? (char)(*p + 'a' - 'A') : *p;
        }
        const json_t *old = json_object_get(all, line);
        json_t *value = old ? json_sprintf("%s, %s", json_string_value(old), colon + 2)
                            : json_string(colon + 2);
        /* What is no UTF-8 is shown as that. */
        json_object_set_new(all, line, value ? value : json_string("(not UTF-8)"));
    }
    return text ? all : (json_decref(all), NULL);
}

static void add_header(json_t *list, const char *name, const json_t *before, const json_t *after)
{
    json_array_append_new(
        list, json_pack("{s:s, s:O?, s:O?}", "name", name, "before", before, "after", after));
}

/* What every answer has anew, and so says nothing. */
static bool always_differs(const char *name)
{
    return strcmp(name, "date") == 0;
}

static json_t *diff_headers(const struct replay_answer *a, const struct replay_answer *b)
{
    json_t *before = headers_json(&a->fields), *after = headers_json(&b->fields);
    json_t *list = before && after ? json_array() : NULL, *value;
    const char *name;

    json_object_foreach(before, name, value)
    {
        const json_t *other = json_object_get(after, name);
        if (list && !always_differs(name) && !json_equal(value, other)) {
            add_header(list, name, value, other);
        }
    }
    json_object_foreach(after, name, value)
    {
        if (list && !always_differs(name) && !json_object_get(before, name)) {
            add_header(list, name, NULL, value);
        }
    }
    json_decref(before);
    json_decref(after);
    return list;
}

json_t *replay_diff(const struct replay_answer *before, const struct replay_answer *after)
{
    bool body = same_body(before, after);
    json_t *headers = diff_headers(before, after);
    bool same = body && before->status == after->status && json_array_size(headers) == 0 &&
                strcmp(before->outcome, after->outcome) == 0;
    json_t *j = json_pack("{s:b, s:o, s:o}", "same", same, "headers", headers, "body",
                          body ? json_pack("{s:s}", "kind", "same") : diff_body(before, after));

    if (j && before->status != after->status) {
        json_object_set_new(j, "status", json_pack("[i, i]", before->status, after->status));
    }
    if (j && strcmp(before->outcome, after->outcome) != 0) {
        json_object_set_new(j, "outcome", json_pack("[s, s]", before->outcome, after->outcome));
    }
    return j;
}

json_t *replay_answer_json(const struct replay_answer *a)
{
    json_t *text = text_of(&a->body);

    return json_pack("{s:I, s:s, s:o, s:o, s:{s:I, s:I, s:s, s:o?}}", "status",
                     (json_int_t)a->status, "outcome", a->outcome, "error",
                     json_string(a->error) ?: json_string(""), "headers", headers_json(&a->fields),
                     "body", "size", (json_int_t)a->total, "kept", (json_int_t)a->body.len,
                     "sha256", a->sha256, "text", text);
}
