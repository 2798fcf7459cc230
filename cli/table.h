/* table.h - aligned columns for people, and numbers as people read them.
 *
 * Cells may hold foreign text: control characters are shown as '?' so that nothing a function wrote
 * can steer the terminal. It knows nothing of what is in the cells, and does not colour.
 */
#ifndef UNID_CLI_TABLE_H
#define UNID_CLI_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bytes.h"

struct table;

enum { TABLE_COLUMNS_MAX = 16, TABLE_CELL_SIZE = 48 };

/* Gives a table (free with table_free). `heads` is NULL-terminated, at most TABLE_COLUMNS_MAX,
 * borrowed until table_free; a head that starts with '>' makes its column right-aligned. NULL: out
 * of memory. */
struct table *table_new(const char *const *heads);
void table_free(struct table *t);

/* Adds a row of as many cells as there are heads, copied; a NULL cell is shown as "-". After a
 * failure to allocate, table_render reports it. */
void table_row(struct table *t, const char *const *cells);

/* Appends the whole table to `out`, lines ending with a newline and without trailing blanks. 0,
 * -ENOMEM. */
int table_render(const struct table *t, struct un_buf *out);

/* Columns that a UTF-8 text takes on a terminal; invalid bytes count one each. */
size_t table_text_width(const char *s);

/* Appends `s` with control characters (C0 but tab, DEL, C1) shown as '?'; newlines are kept on
 * wish. Invalid UTF-8 becomes '?' too. 0, -ENOMEM. */
int table_append_clean(struct un_buf *out, const char *s, bool keep_newlines);

/* Each writes into `buf` (TABLE_CELL_SIZE bytes) and returns it. */

/* Decimal units with up to four digits, as docker shows images: "812B", "1.84kB", "72.8MB". */
const char *table_size(uint64_t bytes, char *buf);
/* "3 seconds", "About a minute", "5 hours", "2 weeks": docker's words for an age. */
const char *table_age(uint64_t seconds, char *buf);
/* "850us", "1.23ms", "2.50s". */
const char *table_us(uint64_t us, char *buf);
/* A timeout in its shortest exact form: "500ms", "30s", "2m". */
const char *table_ms(uint64_t ms, char *buf);

/* RFC 3339 in UTC, with or without a fraction, to seconds since 1970; -1 when it is nothing of the
 * kind. */
int64_t table_parse_time(const char *text);

#endif
