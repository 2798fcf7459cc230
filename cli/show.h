/* show.h - what several verbs show in the same way: listings, ages, durations out of JSON. */
#ifndef UNID_CLI_SHOW_H
#define UNID_CLI_SHOW_H

#include "cli/api.h"
#include "cli/table.h"

enum { SHOW_CELLS_MAX = TABLE_COLUMNS_MAX, SHOW_SHORT_DIGEST = 12 };

/* One row's cells: `cell[i]` may point into `text[i]` or borrow from the item. */
struct show_row {
    const char *cell[SHOW_CELLS_MAX];
    char text[SHOW_CELLS_MAX][TABLE_CELL_SIZE];
};

/* Fills one item's cells. */
typedef void (*show_item_fn)(const json_t *item, struct show_row *row);

/* Prints {"items": [...]} as JSON, or as a table. An exit status. */
int show_list(const struct cli_call *call, const json_t *list, const char *const *heads,
              show_item_fn fill);
/* Appends the table of a JSON array. 0, -ENOMEM. */
int show_items(const json_t *items, const char *const *heads, show_item_fn fill,
               struct un_buf *out);

/* One line of a description: the label, then the value made fit for a terminal, or "-" without one (NULL, ""). 0, -ENOMEM. */
int show_line(struct un_buf *out, const char *label, const char *value);
/* The same of what is left out when it is not known (""). */
int show_known(struct un_buf *out, const char *label, const char *value);

/* Warns of the functions that `item` names and that are not there ("missing"). */
void show_missing(const json_t *item);

/* "3 hours ago" for an RFC 3339 time; the text itself when it is none. All write to and return
 * `buf` (TABLE_CELL_SIZE bytes). */
const char *show_ago(const char *time, char *buf);
const char *show_number(const json_t *obj, const char *key, char *buf);
/* The first twelve digits of a digest, as docker shows an image's id. */
const char *show_digest(const char *digest, char *buf);

/* The columns of receipts, shared by `receipts` and `describe`. */
extern const char *const show_receipt_heads[];
void show_receipt_row(const json_t *receipt, struct show_row *row);

/* Appends system calls, [{"name", "times"}], as "read 40, mmap 33": as they stand, or the most frequent
 * first. 0, -ENOMEM. */
int show_calls(const json_t *list, bool by_times, struct un_buf *out);

/* The phases of a receipt in their order, ended by an entry without a key. */
struct show_phase {
    const char *key, *name, *meaning;
};
extern const struct show_phase show_phases[];

/* All phases of a receipt in microseconds, from admission to the VM's end. */
uint64_t show_total_us(const json_t *receipt);

#endif
