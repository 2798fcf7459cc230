/* registry_state.c - what becomes of versions: which was live before which, which has had a machine that
 * was ready, which has failed before it had. Store threads only. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "imagestore/internal.h"
#include "imagestore/registry_internal.h"

#define OF_LIVE                                                                                    \
    "(SELECT version FROM function_aliases WHERE function_id = ?1 AND alias = '" FUNCTION_LIVE "'" \
    ")"

int registry_sql_live_moves(sqlite3 *db, int64_t function_id, int64_t version, struct un_error *err)
{
    return store_exec(db, err,
                      "UPDATE function_versions SET live_before = " OF_LIVE ", failure = NULL"
                      " WHERE function_id = ?1 AND version = ?2"
                      " AND version <> coalesce(" OF_LIVE ", 0)",
                      "ii", function_id, version);
}

int registry_sql_note_ready(sqlite3 *db, const char *name, uint32_t version, struct un_error *err)
{
    int64_t id;
    int rc = registry_sql_function_id(db, name, &id, err);
    return rc < 0 ? rc
                  : store_exec(db, err,
                               "UPDATE function_versions SET ready_us = ?3, failure = NULL"
                               " WHERE function_id = ?1 AND version = ?2",
                               "iii", id, (int64_t)version, (int64_t)un_clock_wall_us());
}

/* The version that "live" may go back to; 0: none. */
static int find_before(sqlite3 *db, int64_t function_id, uint32_t version, int64_t *ret,
                       struct un_error *err)
{
    store_autostmt sqlite3_stmt *stmt = NULL;
    *ret = 0;
    int rc = store_prepare(db, &stmt, err,
                           "SELECT b.version FROM function_versions v JOIN function_versions b"
                           " ON b.function_id = v.function_id AND b.version = v.live_before"
                           " WHERE v.function_id = ?1 AND v.version = ?2 AND v.ready_us = 0"
                           " AND v.version = " OF_LIVE " AND b.failure IS NULL"
                           " AND b.version <> v.version",
                           "ii", function_id, (int64_t)version);
    rc = rc < 0 ? rc : store_step(stmt, err);
    if (rc == 1) {
        *ret = sqlite3_column_int64(stmt, 0);
    }
    return rc < 0 ? rc : 0;
}

/* Whether the version may be live again: its volumes may have become another function's. */
static bool may_be_live(sqlite3 *db, const char *name, int64_t function_id, int64_t version)
{
    struct version_list list = {0};
    struct un_error err = UN_ERROR_INIT;
    char number[24];
    snprintf(number, sizeof number, "%lld", (long long)version);
    int rc = registry_sql_resolve(db, name, number, &list, &err);
    const struct machine_config *m = rc == 0 ? &list.items[0]->config.machine : NULL;
    for (size_t i = 0; rc == 0 && i < m->volume_count; i++) {
        rc = registry_sql_check_volume(db, m->volumes[i], function_id, &err);
    }
    version_list_done(&list);
    return rc == 0;
}

int registry_sql_note_failed(sqlite3 *db, const char *name, uint32_t version, const char *why,
                             bool *ret_back, struct un_error *err)
{
    int64_t id, before = 0;
    int rc = registry_sql_function_id(db, name, &id, err);
    rc = rc < 0 ? rc : find_before(db, id, version, &before, err);
    rc = rc < 0 ? rc
                : store_exec(db, err,
                             "UPDATE function_versions SET failure = ?3"
                             " WHERE function_id = ?1 AND version = ?2 AND ready_us = 0",
                             "iit", id, (int64_t)version, why);
    if (rc == 0 && before && may_be_live(db, name, id, before)) {
        rc = registry_sql_point_alias(db, id, FUNCTION_LIVE, before, err);
        *ret_back = rc == 0;
    }
    return rc;
}
