/* registry_internal.h - what the registry's files share; nobody else includes it. */
#ifndef UNID_IMAGESTORE_REGISTRY_INTERNAL_H
#define UNID_IMAGESTORE_REGISTRY_INTERNAL_H

#include "common/list.h"
#include "imagestore/function.h"

enum { FUNCTION_NAME_SIZE = 64, FUNCTION_LIVE_SIZE = 5, VERSION_BUCKETS = 512 };
#define FUNCTION_LIVE "live"

/* --- version_cache.c: (name, qualifier) -> version, the least recently used leave first ------- */

struct version_cache {
    struct un_list lru; /* most recently used first */
    struct un_list buckets[VERSION_BUCKETS];
    unsigned count, max;
};
void version_cache_init(struct version_cache *vc, unsigned max);
void version_cache_done(struct version_cache *vc);
struct function_version *version_cache_get(struct version_cache *vc, const char *name,
                                           const char *qualifier);
/* Keeps a reference. Without memory nothing is kept. */
void version_cache_put(struct version_cache *vc, const char *qualifier, struct function_version *v);
/* Drops all that is kept of a function. */
void version_cache_drop(struct version_cache *vc, const char *name);

/* --- registry_sql.c: store threads ------------------------------------------------------------ */

/* A growing list of versions, each with a reference. */
struct version_list {
    struct function_version **items;
    size_t count, room;
};
void version_list_done(struct version_list *list);

int registry_sql_resolve(sqlite3 *db, const char *name, const char *qualifier,
                         struct version_list *ret, struct un_error *err);
/* `published`: only those whose configuration seems to publish ports. */
int registry_sql_list(sqlite3 *db, const char *after, unsigned limit, bool published,
                      struct version_list *ret, struct un_error *err);
int registry_sql_versions(sqlite3 *db, const char *name, struct version_list *ret,
                          struct un_error *err);
/* `ret_created`: the name is new. */
int registry_sql_deploy(sqlite3 *db, const char *name, struct function_config *config,
                        bool *ret_created, struct un_error *err);
int registry_sql_set_alias(sqlite3 *db, const char *name, const char *alias, uint32_t version,
                           struct un_error *err);
int registry_sql_remove_alias(sqlite3 *db, const char *name, const char *alias,
                              struct un_error *err);
/* Whether a function (0: one that is new) may attach a volume. -EINVAL there is none of that name, -EBUSY
 * another function's live version attaches it. volume_sql.c */
int registry_sql_check_volume(sqlite3 *db, const char *name, int64_t function_id,
                              struct un_error *err);
int registry_sql_remove(sqlite3 *db, const char *name, struct un_error *err);
/* Before "live" moves to the version: remembers which one it leaves, and forgets what was held against
 * this one. registry_state.c */
int registry_sql_live_moves(sqlite3 *db, int64_t function_id, int64_t version,
                            struct un_error *err);
int registry_sql_note_ready(sqlite3 *db, const char *name, uint32_t version, struct un_error *err);
/* `ret_back`: the version that was live before it is so again. */
int registry_sql_note_failed(sqlite3 *db, const char *name, uint32_t version, const char *why,
                             bool *ret_back, struct un_error *err);
int registry_sql_list_kept(sqlite3 *db, const char *after, unsigned limit, struct version_list *ret,
                           struct un_error *err);
int registry_sql_point_alias(sqlite3 *db, int64_t function_id, const char *alias, int64_t version,
                             struct un_error *err);
/* -ENOENT no such function. */
int registry_sql_function_id(sqlite3 *db, const char *name, int64_t *ret, struct un_error *err);

/* 1 to UINT32_MAX without leading zeros; 0: no version number. */
uint32_t function_version_parse(const char *s);

#endif
