/* table.c - see table.h. */
#include "cli/table.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/cleanup.h"

struct row {
    char *cells[TABLE_COLUMNS_MAX];
};

struct table {
    const char *const *heads;
    size_t columns;
    struct row *rows;
    size_t row_count, row_cap;
    bool failed;
};

struct table *table_new(const char *const *heads)
{
    struct table *t = calloc(1, sizeof(*t));
    if (!t) {
        return NULL;
    }
    t->heads = heads;
    while (t->columns < TABLE_COLUMNS_MAX && heads[t->columns]) {
        t->columns++;
    }
    return t;
}

void table_free(struct table *t)
{
    if (!t) {
        return;
    }
    for (size_t r = 0; r < t->row_count; r++) {
        for (size_t c = 0; c < t->columns; c++) {
            free(t->rows[r].cells[c]);
        }
    }
    free(t->rows);
    free(t);
}

static bool grow(struct table *t)
{
    if (t->row_count < t->row_cap) {
        return true;
    }
    size_t cap = t->row_cap ? 2 * t->row_cap : 16;
    struct row *rows = reallocarray(t->rows, cap, sizeof(*rows));
    if (!rows) {
        return false;
    }
    t->rows = rows;
    t->row_cap = cap;
    return true;
}

void table_row(struct table *t, const char *const *cells)
{
    if (!grow(t)) {
        t->failed = true;
        return;
    }
    struct row *row = &t->rows[t->row_count++];
    *row = (struct row){{NULL}};
    for (size_t c = 0; c < t->columns; c++) {
        un_autobuf struct un_buf clean = {0};
        const char *cell = cells[c] && *cells[c] ? cells[c] : "-";
        if (table_append_clean(&clean, cell, false) < 0 ||
            !(row->cells[c] = un_buf_steal_str(&clean))) {
            t->failed = true;
        }
    }
}

/* Length of the UTF-8 character at `s` (1-4), or 0 when it is malformed; its code point in `*ret`.
 * The well-formed sequences are those of Unicode's table 3-7. */
static size_t utf8_at(const unsigned char *s, uint32_t *ret)
{
    if (s[0] < 0x80) {
        *ret = s[0];
        return 1;
    }
    size_t len = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4) {
        return 0;
    }
    uint32_t c = s[0] & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0; /* also stops at the NUL */
        }
        c = c << 6 | (s[i] & 0x3fu);
    }
    if ((len == 3 && (c < 0x800 || (c >= 0xd800 && c < 0xe000))) ||
        (len == 4 && (c < 0x10000 || c > 0x10ffff))) {
        return 0;
    }
    *ret = c;
    return len;
}

size_t table_text_width(const char *s)
{
    size_t width = 0;
    for (const unsigned char *p = (const unsigned char *)s; *p;) {
        uint32_t c = 0;
        size_t len = utf8_at(p, &c);
        /* Combining marks take no column; everything else counts one. */
        width += !(c >= 0x300 && c < 0x370);
        p += len ? len : 1;
    }
    return width;
}

int table_append_clean(struct un_buf *out, const char *s, bool keep_newlines)
{
    const unsigned char *p = (const unsigned char *)s;
    int rc = un_buf_reserve(out, strlen(s) + 1);
    while (*p && rc == 0) {
        uint32_t c = 0;
        size_t len = utf8_at(p, &c);
        bool control = (c < 0x20 && c != '\t') || (c >= 0x7f && c < 0xa0);
        bool kept = len && (!control || (c == '\n' && keep_newlines));
        if (c == '\t' && !keep_newlines) {
            rc = un_buf_append(out, " ", 1);
        } else {
            rc = kept ? un_buf_append(out, p, len) : un_buf_append(out, "?", 1);
        }
        p += len ? len : 1;
    }
    /* So that even an empty text leaves a string behind. */
    return rc < 0 ? rc : un_buf_append(out, "", 0);
}

static const char *head_text(const struct table *t, size_t c)
{
    return t->heads[c][0] == '>' ? t->heads[c] + 1 : t->heads[c];
}

static int pad(struct un_buf *out, size_t n)
{
    return n ? un_buf_printf(out, "%*s", (int)n, "") : 0;
}

static int render_row(const struct table *t, const size_t *widths, const struct row *row,
                      struct un_buf *out)
{
    int rc = 0;
    for (size_t c = 0; c < t->columns && rc == 0; c++) {
        const char *text = row ? row->cells[c] : head_text(t, c);
        size_t gap = widths[c] - table_text_width(text);
        bool right = t->heads[c][0] == '>';
        bool last = c + 1 == t->columns;
        rc = right ? pad(out, gap) : 0;
        rc = rc ? rc : un_buf_append_str(out, text);
        if (!last) {
            rc = rc ? rc : pad(out, (right ? 0 : gap) + 3);
        }
    }
    return rc ? rc : un_buf_append_str(out, "\n");
}

int table_render(const struct table *t, struct un_buf *out)
{
    if (t->failed) {
        return -ENOMEM;
    }
    size_t widths[TABLE_COLUMNS_MAX];
    for (size_t c = 0; c < t->columns; c++) {
        widths[c] = table_text_width(head_text(t, c));
        for (size_t r = 0; r < t->row_count; r++) {
            size_t w = table_text_width(t->rows[r].cells[c]);
            widths[c] = w > widths[c] ? w : widths[c];
        }
    }
    int rc = render_row(t, widths, NULL, out);
    for (size_t r = 0; r < t->row_count && rc == 0; r++) {
        rc = render_row(t, widths, &t->rows[r], out);
    }
    return rc;
}

const char *table_size(uint64_t bytes, char *buf)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    double n = (double)bytes;
    size_t u = 0;
    while (n >= 1000 && u + 1 < UN_ARRAY_SIZE(units)) {
        n /= 1000;
        u++;
    }
    snprintf(buf, TABLE_CELL_SIZE, "%.*f%s", u == 0 || n >= 100 ? 0 : n >= 10 ? 1 : 2, n, units[u]);
    return buf;
}

const char *table_age(uint64_t seconds, char *buf)
{
    uint64_t minutes = seconds / 60, hours = seconds / 3600, days = hours / 24;
    if (seconds < 1) {
        snprintf(buf, TABLE_CELL_SIZE, "Less than a second");
    } else if (seconds < 60) {
        snprintf(buf, TABLE_CELL_SIZE, "%" PRIu64 " second%s", seconds, seconds == 1 ? "" : "s");
    } else if (minutes < 60) {
        minutes == 1 ? snprintf(buf, TABLE_CELL_SIZE, "About a minute")
                     : snprintf(buf, TABLE_CELL_SIZE, "%" PRIu64 " minutes", minutes);
    } else if (hours < 48) {
        hours == 1 ? snprintf(buf, TABLE_CELL_SIZE, "About an hour")
                   : snprintf(buf, TABLE_CELL_SIZE, "%" PRIu64 " hours", hours);
    } else if (days < 14) {
        snprintf(buf, TABLE_CELL_SIZE, "%" PRIu64 " days", days);
    } else if (days < 60) {
        snprintf(buf, TABLE_CELL_SIZE, "%" PRIu64 " weeks", days / 7);
    } else if (days < 730) {
        snprintf(buf, TABLE_CELL_SIZE, "%" PRIu64 " months", days / 30);
    } else {
        snprintf(buf, TABLE_CELL_SIZE, "%" PRIu64 " years", days / 365);
    }
    return buf;
}

const char *table_us(uint64_t us, char *buf)
{
    if (us < 1000) {
        snprintf(buf, TABLE_CELL_SIZE, "%" PRIu64 "us", us);
    } else if (us < 1000000) {
        snprintf(buf, TABLE_CELL_SIZE, "%.2fms", (double)us / 1e3);
    } else {
        snprintf(buf, TABLE_CELL_SIZE, "%.2fs", (double)us / 1e6);
    }
    return buf;
}

const char *table_ms(uint64_t ms, char *buf)
{
    if (ms == 0 || ms % 1000) {
        snprintf(buf, TABLE_CELL_SIZE, "%" PRIu64 "ms", ms);
    } else if (ms % 60000) {
        snprintf(buf, TABLE_CELL_SIZE, "%" PRIu64 "s", ms / 1000);
    } else {
        snprintf(buf, TABLE_CELL_SIZE, "%" PRIu64 "m", ms / 60000);
    }
    return buf;
}

int64_t table_parse_time(const char *text)
{
    struct tm tm = {0};
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (!end) {
        return -1;
    }
    if (*end == '.') {
        end++;
        end += strspn(end, "0123456789");
    }
    return strcmp(end, "Z") == 0 ? (int64_t)timegm(&tm) : -1;
}
