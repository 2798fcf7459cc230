/* guest_log.c - see guest_log.h. */
#include "scheduler/record/guest_log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

/* Length of the well-formed UTF-8 sequence at `p` (Unicode 15, table 3-7), or 0. */
static size_t utf8_len(const uint8_t *p, size_t left)
{
    uint8_t least = 0x80, most = 0xbf;
    size_t len;

    if (p[0] < 0x80) {
        return 1;
    } else if (p[0] >= 0xc2 && p[0] <= 0xdf) {
        len = 2;
    } else if ((p[0] & 0xf0) == 0xe0) {
        len = 3;
        least = p[0] == 0xe0 ? 0xa0 : least;
        most = p[0] == 0xed ? 0x9f : most; /* no surrogates */
    } else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
        len = 4;
        least = p[0] == 0xf0 ? 0x90 : least;
        most = p[0] == 0xf4 ? 0x8f : most;
    } else {
        return 0;
    }
    if (left < len || p[1] < least || p[1] > most) {
        return 0;
    }
    for (size_t i = 2; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return len;
}

/* C0 (but tab), DEL, and C1, which is U+0080 to U+009F. */
static bool is_control(const uint8_t *p, size_t len)
{
    if (len == 1) {
        return (p[0] < 0x20 && p[0] != '\t') || p[0] == 0x7f;
    }
    return len == 2 && p[0] == 0xc2 && p[1] < 0xa0;
}

int guest_log_sanitise(struct un_buf *out, const uint8_t *data, size_t len)
{
    size_t clean = 0; /* start of the run that can be copied as it is */

    for (size_t i = 0; i < len;) {
        size_t n = utf8_len(data + i, len - i);

        if (n > 0 && !is_control(data + i, n)) {
            i += n;
            continue;
        }
        if (un_buf_append(out, data + clean, i - clean) < 0 ||
            un_buf_append(out, REPLACEMENT, strlen(REPLACEMENT)) < 0) {
            return -ENOMEM;
        }
        i += n > 0 ? n : 1;
        clean = i;
    }
    return un_buf_append(out, data + clean, len - clean);
}

/* Makes a line of raw bytes. Out of memory it is left out: a log is not worth a failed request. */
static void add_line(struct guest_log *log, const uint8_t *data, size_t len,
                     const struct guest_log_sink *sink)
{
    size_t before = log->lines.len, text;

    if (len > 0 && data[len - 1] == '\r') {
        len--;
    }
    if (un_buf_printf(&log->lines, "%llu ", (unsigned long long)sink->at_us) < 0) {
        return;
    }
    text = log->lines.len;
    if (guest_log_sanitise(&log->lines, data, len) < 0) {
        log->lines.len = before;
        return;
    }
    if (sink->fn) {
        sink->fn(sink->arg, sink->at_us, (const char *)log->lines.data + text);
    }
    if (un_buf_append(&log->lines, "\n", 1) < 0) {
        log->lines.len = before;
    }
}

/* Where to break a line that is too long: not within a UTF-8 sequence. */
static size_t break_at(const uint8_t *data, size_t len)
{
    size_t at = len;

    for (unsigned i = 0; i < 3 && at > 1 && (data[at] & 0xc0) == 0x80; i++) {
        at--;
    }
    return at;
}

static void flush_partial(struct guest_log *log, const struct guest_log_sink *sink)
{
    add_line(log, log->partial.data, log->partial.len, sink);
    un_buf_reset(&log->partial);
}

/* Lines out of `data`; the rest goes to the partial line. */
static void split(struct guest_log *log, const uint8_t *data, size_t len,
                  const struct guest_log_sink *sink)
{
    while (len > 0) {
        const uint8_t *end = memchr(data, '\n', len);
        size_t take = end ? (size_t)(end - data) : len;
        size_t room = GUEST_LOG_LINE_BYTES - log->partial.len;
        bool broken = take > room;

        if (broken) {
            take = break_at(data, room);
        }
        (void)un_buf_append(&log->partial, data, take);
        if (broken || end) {
            flush_partial(log, sink);
        }
        take += !broken && end ? 1 : 0;
        data += take;
        len -= take;
    }
}

/* What comes behind the cut: the last whole lines of it may be why the guest failed. */
static void keep_end(struct guest_log *log, const uint8_t *data, size_t len, uint64_t max_bytes)
{
    size_t most = max_bytes < GUEST_LOG_END_BYTES ? (size_t)max_bytes : GUEST_LOG_END_BYTES;
    size_t drop = len > most ? len - most : 0;

    if (un_buf_append(&log->end, data + drop, len - drop) < 0) {
        drop = len;
    }
    log->left_out += drop;
    if (log->end.len > most) {
        drop = log->end.len - most;
        un_buf_consume(&log->end, drop);
        log->left_out += drop;
    }
}

void guest_log_add(struct guest_log *log, const void *data, size_t len,
                   const struct guest_log_sink *sink)
{
    uint64_t room = log->taken < sink->max_bytes ? sink->max_bytes - log->taken : 0;
    size_t take = len < room ? len : (size_t)room;
    char text[80];

    if (log->cut) {
        keep_end(log, data, len, sink->max_bytes);
        return;
    }
    log->taken += take;
    split(log, data, take, sink);
    if (take == len) {
        return;
    }
    log->cut = true;
    if (log->partial.len > 0) {
        flush_partial(log, sink);
    }
    int n = snprintf(text, sizeof(text), "[the log is cut here: it has reached %llu bytes]",
                     (unsigned long long)sink->max_bytes);
    add_line(log, (const uint8_t *)text, (size_t)n, sink);
    keep_end(log, (const uint8_t *)data + take, len - take, sink->max_bytes);
}

void guest_log_resume(struct guest_log *log)
{
    log->taken = log->left_out = 0;
    log->cut = false;
    un_buf_done(&log->end);
}

/* Of a line that is not whole nothing is shown, unless there is no other. */
static void add_end(struct guest_log *log, const struct guest_log_sink *sink)
{
    const uint8_t *newline = log->end.len ? memchr(log->end.data, '\n', log->end.len) : NULL;
    size_t skip = newline ? (size_t)(newline - log->end.data) + 1 : 0;
    char text[80];

    if (log->left_out > 0 && skip < log->end.len) {
        int n = snprintf(text, sizeof(text), "[%llu bytes are left out here]",
                         (unsigned long long)(log->left_out + skip));
        add_line(log, (const uint8_t *)text, (size_t)n, sink);
        un_buf_consume(&log->end, skip);
    } else if (skip == 1) { /* the cut line's own */
        un_buf_consume(&log->end, 1);
    }
    split(log, log->end.data, log->end.len, sink);
}

void guest_log_finish(struct guest_log *log, const struct guest_log_sink *sink)
{
    if (log->end.len > 0) {
        add_end(log, sink);
    }
    if (log->partial.len > 0) {
        flush_partial(log, sink);
    }
    un_buf_done(&log->partial);
    un_buf_done(&log->end);
}

void guest_log_done(struct guest_log *log)
{
    un_buf_done(&log->end);
    un_buf_done(&log->lines);
    un_buf_done(&log->partial);
}

/* Start of the packed line that ends before `from`. */
static const char *line_before(const char *start, const char *from)
{
    const char *line = from - 1;

    while (line > start && line[-1] != '\n') {
        line--;
    }
    return line;
}

/* The text of a packed line, which ends with a newline at `stop`. */
static const char *text_of(const char *line, const char *stop)
{
    const char *space = memchr(line, ' ', (size_t)(stop - line));

    return space ? space + 1 : line;
}

void guest_log_tail(const struct guest_log *log, char *buf, size_t size)
{
    const char *start = (const char *)log->lines.data, *end, *from;
    size_t need = 0, at = 0;

    buf[0] = '\0';
    if (log->lines.len == 0) {
        return;
    }
    from = end = start + log->lines.len;
    while (from > start) {
        const char *line = line_before(start, from);

        need += (size_t)(from - text_of(line, from - 1));
        if (need >= size && from != end) {
            break;
        }
        from = line;
        if (need >= size) {
            break; /* the last line alone is too long: its end is shown */
        }
    }
    for (const char *line = from; line < end;) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        const char *text = text_of(line, stop);

        while ((size_t)(stop + 1 - text) >= size || ((uint8_t)*text & 0xc0) == 0x80) {
            text++;
        }
        memcpy(buf + at, text, (size_t)(stop + 1 - text));
        at += (size_t)(stop + 1 - text);
        line = stop + 1;
    }
    buf[at] = '\0';
}

bool guest_log_next(char **at, uint64_t *ret_at_us, const char **ret_text)
{
    char *end, *newline = *at ? strchr(*at, '\n') : NULL;
    unsigned long long at_us;

    if (!newline) {
        return false;
    }
    at_us = strtoull(*at, &end, 10);
    if (end == *at || *end != ' ') {
        return false;
    }
    *newline = '\0';
    *ret_at_us = at_us;
    *ret_text = end + 1;
    *at = newline + 1;
    return true;
}
