/* migrate.c - brings each component's tables up to date, forward only.
 *
 * `schema_version` says how many of a component's steps the file has seen. A step and the record of
 * it are one transaction, so that a crash in between leaves the file at a step's border.
 */
#include <errno.h>
#include <inttypes.h>

#include "common/fault.h"
#include "store/private.h"

static int recorded_version(sqlite3 *db, const char *component, int64_t *ret, struct un_error *err)
{
    store_autostmt sqlite3_stmt *stmt = NULL;
    int rc = store_prepare(db, &stmt, err, "SELECT version FROM schema_version WHERE component = ?",
                           "t", component);
    if (rc == 0) {
        rc = store_step(stmt, err);
    }
    if (rc < 0) {
        return rc;
    }
    *ret = rc == 1 ? sqlite3_column_int64(stmt, 0) : 0;
    return 0;
}

static int apply_step(sqlite3 *db, const struct store_schema *schema, int64_t index,
                      struct un_error *err)
{
    int rc = store_simple_sql(db, "BEGIN IMMEDIATE", err);
    if (rc < 0) {
        return rc;
    }
    rc = store_simple_sql(db, schema->steps[index], err);
    if (rc == 0) {
        rc = store_exec(db, err, "INSERT OR REPLACE INTO schema_version VALUES(?, ?)", "ti",
                        schema->component, index + 1);
    }
    int fault = un_fault("store.migrate");
    if (rc == 0 && fault) {
        rc = un_error_errno(err, fault, "database");
    }
    if (rc == 0) {
        rc = store_simple_sql(db, "COMMIT", err);
    }
    if (rc < 0) {
        sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    }
    return rc;
}

static int migrate_component(sqlite3 *db, const struct store_schema *schema, struct un_error *err)
{
    int64_t version = 0, known = 0;
    int rc = recorded_version(db, schema->component, &version, err);
    if (rc < 0) {
        return rc;
    }
    while (schema->steps[known]) {
        known++;
    }
    if (version < 0 || version > known) {
        return un_error_set(err, -EPROTO,
                            "the database's %s tables have version %" PRId64
                            ", this unid knows them up to %" PRId64
                            "; use the unid that wrote it, or "
                            "a newer one",
                            schema->component, version, known);
    }
    for (; version < known; version++) {
        rc = apply_step(db, schema, version, err);
        if (rc < 0) {
            return un_error_context(err, "bring the %s tables to version %" PRId64,
                                    schema->component, version + 1);
        }
    }
    return 0;
}

int store_migrate(sqlite3 *db, const struct store_schema *const *schemas, struct un_error *err)
{
    int rc =
        store_simple_sql(db,
                         "CREATE TABLE IF NOT EXISTS schema_version("
                         " component TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID",
                         err);
    for (size_t i = 0; rc == 0 && schemas && schemas[i]; i++) {
        rc = migrate_component(db, schemas[i], err);
    }
    return rc;
}
