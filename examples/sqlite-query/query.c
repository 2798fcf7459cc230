/* query - runs SQL over the SQLite database on its standard input; rows come out as CSV (RFC 4180).
 *
 *     query SQL < database
 *
 * The database stays in memory. The first line has the names of the columns.
 */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fail(const char *what, const char *why)
{
    fprintf(stderr, "query: %s: %s\n", what, why);
    return 1;
}

/* Reads all there is into memory of SQLite's. */
static unsigned char *read_all(sqlite3_int64 *ret_len)
{
    sqlite3_int64 len = 0, room = 1 << 20;
    unsigned char *data = sqlite3_malloc64((sqlite3_uint64)room);
    ssize_t n = 0;
    while (data && (n = read(0, data + len, (size_t)(room - len))) > 0) {
        len += n;
        if (len == room) {
            unsigned char *more = sqlite3_realloc64(data, (sqlite3_uint64)(room *= 2));
            if (!more) {
                sqlite3_free(data);
            }
            data = more;
        }
    }
    *ret_len = len;
    return n < 0 ? NULL : data;
}

static void print_field(const char *text, const char *end)
{
    if (!text || !text[strcspn(text, ",\"\r\n")]) {
        printf("%s%s", text ? text : "", end);
        return;
    }
    putchar('"');
    for (; *text; text++) {
        printf(*text == '"' ? "\"\"" : "%c", *text);
    }
    printf("\"%s", end);
}

int main(int argc, char **argv)
{
    sqlite3 *db;
    sqlite3_stmt *st;
    sqlite3_int64 len;
    int rc, columns;
    if (argc != 2) {
        return fail("usage", "query SQL < database");
    }
    unsigned char *data = read_all(&len);
    if (!data || sqlite3_open(":memory:", &db) != SQLITE_OK ||
        sqlite3_deserialize(db, "main", data, len, len,
                            SQLITE_DESERIALIZE_FREEONCLOSE | SQLITE_DESERIALIZE_READONLY) !=
            SQLITE_OK) {
        return fail("database", "no memory for it");
    }
    if (sqlite3_prepare_v2(db, argv[1], -1, &st, NULL) != SQLITE_OK) {
        return fail(argv[1], sqlite3_errmsg(db));
    }
    columns = sqlite3_column_count(st);
    for (int i = 0; i < columns; i++) {
        print_field(sqlite3_column_name(st, i), i + 1 < columns ? "," : "\r\n");
    }
    while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
        for (int i = 0; i < columns; i++) {
            print_field((const char *)sqlite3_column_text(st, i), i + 1 < columns ? "," : "\r\n");
        }
    }
    return rc == SQLITE_DONE ? 0 : fail(argv[1], sqlite3_errmsg(db));
}
