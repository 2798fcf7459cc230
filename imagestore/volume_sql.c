/* volume_sql.c - the rows of volumes. Store threads only. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "imagestore/registry_internal.h"
#include "imagestore/volume_internal.h"

/* The functions whose live versions attach a volume. */
#define USERS                                                                                      \
    " FROM function_version_volumes u"                                                             \
    " JOIN function_versions v ON v.id = u.version_id"                                             \
    " JOIN function_aliases a ON a.function_id = v.function_id AND a.version = v.version"          \
    "  AND a.alias = '" FUNCTION_LIVE "'"                                                          \
    " JOIN functions f ON f.id = v.function_id"

int volume_sql_insert(sqlite3 *db, const struct volume_info *info, struct un_error *err)
{
    return store_exec(db, err, "INSERT INTO volumes VALUES(?, ?, ?, ?, ?)", "ttiti", info->name,
                      info->format, (int64_t)info->size_bytes, info->image[0] ? info->image : NULL,
                      (int64_t)info->created_us);
}

static void copy_text(sqlite3_stmt *stmt, int column, char *ret, size_t size)
{
    const char *text = (const char *)sqlite3_column_text(stmt, column);
    snprintf(ret, size, "%s", text ? text : "");
}

int volume_sql_list(sqlite3 *db, const char *name, struct un_buf *ret, struct un_error *err)
{
    store_autostmt sqlite3_stmt *stmt = NULL;
    int rc = store_prepare(db, &stmt, err,
                           "SELECT o.name, o.format, o.size, o.image, o.created_us,"
                           " (SELECT f.name" USERS " WHERE u.volume = o.name LIMIT 1)"
                           " FROM volumes o WHERE ?1 IS NULL OR o.name = ?1 ORDER BY o.name",
                           "t", name);
    while (rc == 0 && (rc = store_step(stmt, err)) == 1) {
        struct volume_info info = {.size_bytes = (uint64_t)sqlite3_column_int64(stmt, 2),
                                   .created_us = (uint64_t)sqlite3_column_int64(stmt, 4)};
        copy_text(stmt, 0, info.name, sizeof info.name);
        copy_text(stmt, 1, info.format, sizeof info.format);
        copy_text(stmt, 3, info.image, sizeof info.image);
        copy_text(stmt, 5, info.used_by, sizeof info.used_by);
        if (!volume_name_valid(info.name)) {
            return un_error_set(err, -EUCLEAN,
                                "the database has a volume with a name that cannot be");
        }
        rc = un_buf_append(ret, &info, sizeof info);
        if (rc < 0) {
            return un_error_set(err, rc, "out of memory");
        }
    }
    return rc;
}

/* The name of a function other than `function_id` (0: any) whose live version attaches it. 1: there is
 * one. */
static int find_user(sqlite3 *db, const char *name, int64_t function_id, char *ret, size_t size,
                     struct un_error *err)
{
    store_autostmt sqlite3_stmt *stmt = NULL;
    int rc = store_prepare(db, &stmt, err,
                           "SELECT f.name" USERS " WHERE u.volume = ? AND f.id != ? LIMIT 1", "ti",
                           name, function_id);
    if (rc == 0) {
        rc = store_step(stmt, err);
    }
    if (rc == 1) {
        copy_text(stmt, 0, ret, size);
    }
    return rc;
}

int volume_sql_delete(sqlite3 *db, const char *name, struct un_error *err)
{
    char user[FUNCTION_NAME_SIZE];
    int rc = find_user(db, name, 0, user, sizeof user, err);
    if (rc == 1) {
        return un_error_set(err, -EBUSY, "volume %s is used by function %s", name, user);
    }
    return rc < 0 ? rc : store_exec(db, err, "DELETE FROM volumes WHERE name = ?", "t", name);
}

int registry_sql_check_volume(sqlite3 *db, const char *name, int64_t function_id,
                              struct un_error *err)
{
    char user[FUNCTION_NAME_SIZE];
    store_autostmt sqlite3_stmt *stmt = NULL;
    int rc = store_prepare(db, &stmt, err, "SELECT 1 FROM volumes WHERE name = ?", "t", name);
    if (rc == 0) {
        rc = store_step(stmt, err);
    }
    if (rc == 0) {
        return un_error_set(err, -EINVAL,
                            "machine: volumes: there is no volume %s; make it with `unictl volume "
                            "create %s --size 1G`",
                            name, name);
    }
    rc = rc < 0 ? rc : find_user(db, name, function_id, user, sizeof user, err);
    if (rc == 1) {
        return un_error_set(
            err, -EBUSY,
            "machine: volumes: %s is used by function %s, and one machine at a time "
            "can write to a disk; remove that function, or make another volume",
            name, user);
    }
    return rc;
}
