/* log.c - see log.h. */
#include "common/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"

enum { LINE_MAX_BYTES = 8192, FIELDS_MAX = 32, LINES_PER_SECOND = 20 };

static enum un_log_level least_level = UN_LOG_INFO;
static enum un_log_format line_format = UN_LOG_TEXT;
static pthread_mutex_t site_lock = PTHREAD_MUTEX_INITIALIZER;

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void un_log_setup(enum un_log_level least, enum un_log_format format)
{
    least_level = least;
    line_format = format;
}

static int word_index(const char *word, const char *const *words, int count)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(words[i], word) == 0) {
            return i;
        }
    }
    return -1;
}

int un_log_level_parse(const char *word)
{
    return word_index(word, level_names, 4);
}

int un_log_format_parse(const char *word)
{
    static const char *const names[] = {"text", "json"};
    return word_index(word, names, 2);
}

/* A line under construction; what does not fit is left out, room for the end is kept. */
struct line {
    char text[LINE_MAX_BYTES];
    size_t len;
};

static void put(struct line *l, const char *s, size_t n)
{
    if (n > sizeof l->text - 8 - l->len) {
        n = sizeof l->text - 8 - l->len;
    }
    memcpy(l->text + l->len, s, n);
    l->len += n;
}

static void put_str(struct line *l, const char *s)
{
    put(l, s, strlen(s));
}

/* A JSON string; also the quoted form of the text format. Bytes that are no ASCII pass as they are.
 */
static void put_quoted(struct line *l, const char *s)
{
    put(l, "\"", 1);
    /* Six bytes an escape at most: stop early, so that no escape is cut in two. */
    for (; *s && l->len < sizeof l->text - 32; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') {
            char esc[2] = {'\\', (char)c};
            put(l, esc, 2);
        } else if (c < 0x20 || c == 0x7f) {
            char esc[8];
            snprintf(esc, sizeof esc, "\\u%04x", c);
            put(l, esc, 6);
        } else {
            put(l, s, 1);
        }
    }
    put(l, "\"", 1);
}

static bool is_plain(const char *s)
{
    if (!*s) {
        return false;
    }
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c <= ' ' || c == '"' || c == '=' || c == '\\' || c >= 0x7f) {
            return false;
        }
    }
    return true;
}

static void put_field(struct line *l, const char *key, const char *value)
{
    if (line_format == UN_LOG_JSON) {
        put_str(l, ",");
        put_quoted(l, key);
        put_str(l, ":");
        put_quoted(l, value);
        return;
    }
    put_str(l, " ");
    put_str(l, key);
    put_str(l, "=");
    if (is_plain(value)) {
        put_str(l, value);
    } else {
        put_quoted(l, value);
    }
}

static void put_head(struct line *l, enum un_log_level level, const char *message)
{
    char time[UN_CLOCK_TEXT_SIZE];
    un_clock_format(un_clock_wall_us(), time);
    if (line_format == UN_LOG_JSON) {
        put_str(l, "{\"time\":");
        put_quoted(l, time);
        put_field(l, "level", level_names[level]);
        put_field(l, "message", message);
    } else {
        put_str(l, time);
        put_str(l, " ");
        put_str(l, level_names[level]);
        put_str(l, " ");
        put_str(l, message);
    }
}

/* False when the site has used up its lines of this second; else how many were dropped before. */
static bool site_admits(struct un_log_site *site, unsigned *ret_suppressed)
{
    bool admitted = true;
    uint64_t now = un_clock_mono_us();
    pthread_mutex_lock(&site_lock);
    if (now - site->window_us >= 1000000) {
        site->window_us = now;
        site->in_window = 0;
    }
    if (site->in_window >= LINES_PER_SECOND) {
        site->suppressed++;
        admitted = false;
    } else {
        site->in_window++;
        *ret_suppressed = site->suppressed;
        site->suppressed = 0;
    }
    pthread_mutex_unlock(&site_lock);
    return admitted;
}

void un_log_at(struct un_log_site *site, enum un_log_level level, const char *message, ...)
{
    unsigned suppressed = 0;
    if (level < least_level || !site_admits(site, &suppressed)) {
        return;
    }
    struct line l;
    l.len = 0;
    put_head(&l, level, message);
    va_list ap;
    va_start(ap, message);
    for (int i = 0; i < FIELDS_MAX; i++) {
        const char *key = va_arg(ap, const char *);
        if (!key) {
            break;
        }
        const char *value = va_arg(ap, const char *);
        put_field(&l, key, value ? value : "");
    }
    va_end(ap);
    if (suppressed) {
        char count[16];
        snprintf(count, sizeof count, "%u", suppressed);
        put_field(&l, "suppressed", count);
    }
    if (line_format == UN_LOG_JSON) {
        put_str(&l, "}");
    }
    l.text[l.len++] = '\n';
    ssize_t written = write(STDERR_FILENO, l.text, l.len);
    (void)written; /* nowhere to report to */
}
