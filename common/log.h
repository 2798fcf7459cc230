/* log.h - structured log lines on stderr, as text (logfmt) or as JSON, one event a line.
 *
 * Levels: error = an operator must act; warn = degraded, and the line says what is done about it;
 * info = a state changed; debug = for the developer. Lower folders (common, store, imagestore,
 * hypervisor) return errors and log at debug only.
 *
 * The message is a fixed phrase; what varies goes into fields. Foreign strings are always fields:
 * they are quoted and escaped there.
 *
 *     un_log(UN_LOG_INFO, "function deployed", "function", name, "version", version_text);
 */
#ifndef UNID_COMMON_LOG_H
#define UNID_COMMON_LOG_H

enum un_log_level { UN_LOG_DEBUG, UN_LOG_INFO, UN_LOG_WARN, UN_LOG_ERROR };
enum un_log_format { UN_LOG_TEXT, UN_LOG_JSON };

/* Process-wide; called once before threads start. */
void un_log_setup(enum un_log_level least, enum un_log_format format);

/* Text to enum; -1 for an unknown word. */
int un_log_level_parse(const char *word);
int un_log_format_parse(const char *word);

/* Writes one line with one write(2). The variable part is a NULL-terminated list of fields; each is
 * a key (const char *), then a value (const char *; NULL is shown as empty). Any thread. At most 32
 * fields; a line is cut at 8 KiB. More than 20 lines a second from one call site are dropped and
 * counted in that site's next line ("suppressed"). */
#define un_log(level, message, ...)                                                                \
    do {                                                                                           \
        static struct un_log_site site_;                                                           \
        un_log_at(&site_, (level), (message), ##__VA_ARGS__, (const char *)0);                     \
    } while (0)

struct un_log_site {
    unsigned long long window_us;
    unsigned in_window, suppressed;
};

void un_log_at(struct un_log_site *site, enum un_log_level level, const char *message, ...)
    __attribute__((sentinel));

#endif
