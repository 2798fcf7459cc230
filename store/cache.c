/* cache.c - the writer's prepared statements: kept from job to job, since a small statement takes
 * longer to prepare than to run.
 *
 * A thread that has a cache is the only one that uses its connection, so the cache is found by the
 * thread. One without (a reader, or the thread that opens the store) prepares and finalizes.
 */
#include <string.h>

#include "store/private.h"

static _Thread_local struct store_cache *own;

void store_cache_use(struct store_cache *cache)
{
    own = cache;
}

void store_cache_drop(void)
{
    for (unsigned i = 0; own && i < own->count; i++) {
        sqlite3_finalize(own->entries[i].stmt);
    }
    own = NULL;
}

/* The oldest that nobody uses makes room. NULL: there is none. */
static struct store_cache_entry *free_entry(struct store_cache *c)
{
    struct store_cache_entry *oldest = NULL;
    if (c->count < STORE_CACHE_MAX) {
        return &c->entries[c->count++];
    }
    for (unsigned i = 0; i < c->count; i++) {
        struct store_cache_entry *e = &c->entries[i];
        if (!e->taken && (!oldest || e->used < oldest->used)) {
            oldest = e;
        }
    }
    if (oldest) {
        sqlite3_finalize(oldest->stmt);
    }
    return oldest;
}

sqlite3_stmt *store_cache_take(sqlite3 *db, const char *sql)
{
    for (unsigned i = 0; own && i < own->count; i++) {
        struct store_cache_entry *e = &own->entries[i];
        if (!e->taken && e->stmt && sqlite3_db_handle(e->stmt) == db &&
            strcmp(sqlite3_sql(e->stmt), sql) == 0) {
            e->taken = true;
            e->used = ++own->clock;
            return e->stmt;
        }
    }
    return NULL;
}

void store_cache_add(sqlite3_stmt *stmt)
{
    struct store_cache_entry *e = own ? free_entry(own) : NULL;
    if (e) {
        *e = (struct store_cache_entry){.stmt = stmt, .taken = true, .used = ++own->clock};
    }
}

void store_release(sqlite3_stmt *stmt)
{
    for (unsigned i = 0; stmt && own && i < own->count; i++) {
        if (own->entries[i].stmt == stmt) {
            sqlite3_reset(stmt);
            sqlite3_clear_bindings(stmt);
            own->entries[i].taken = false;
            return;
        }
    }
    sqlite3_finalize(stmt);
}
