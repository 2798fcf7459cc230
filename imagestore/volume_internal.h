/* volume_internal.h - what the volumes' files share; nobody else includes it. */
#ifndef UNID_IMAGESTORE_VOLUME_INTERNAL_H
#define UNID_IMAGESTORE_VOLUME_INTERNAL_H

#include "common/bytes.h"
#include "imagestore/internal.h"
#include "imagestore/volume.h"

/* --- volume_file.c: any thread ---------------------------------------------------------------- */

struct volume_content {
    uint64_t size_bytes; /* of the file; more than `len`: zeros follow */
    const uint8_t *data; /* NULL: none */
    size_t len;
};
/* Makes the temporary file, on disk when this returns; nothing is left on failure. */
int volume_file_make(int dir_fd, const char *name, const struct volume_content *content,
                     struct un_error *err);
/* The temporary file gets its name, or the file its temporary one; on disk when this returns. */
int volume_file_show(int dir_fd, const char *name, struct un_error *err);
int volume_file_hide(int dir_fd, const char *name, struct un_error *err);
/* Removes the temporary file. */
void volume_file_drop(int dir_fd, const char *name);
/* Bytes that it takes on disk; 0 when it is not there. */
uint64_t volume_file_allocated(int dir_fd, const char *name);
bool volume_file_exists(int dir_fd, const char *name);
/* Calls `fn` for each volume that has a temporary file. */
int volume_file_each_hidden(int dir_fd, void (*fn)(void *arg, const char *name), void *arg,
                            struct un_error *err);

/* --- volume_sql.c: store threads -------------------------------------------------------------- */

int volume_sql_insert(sqlite3 *db, const struct volume_info *info, struct un_error *err);
/* Rows by name, struct volume_info, without allocated_bytes; `name` NULL: all, else one or none. */
int volume_sql_list(sqlite3 *db, const char *name, struct un_buf *ret, struct un_error *err);
/* -EBUSY with the function that attaches it. */
int volume_sql_delete(sqlite3 *db, const char *name, struct un_error *err);

#endif
