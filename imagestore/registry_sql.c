/* registry_sql.c - the rows of functions, versions and aliases. Store threads only.
 *
 * A version's configuration is kept as the JSON of function_config_to_json with the image and
 * interface resolved, so that "does this deploy change anything" is a comparison of texts.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/limits.h"
#include "imagestore/internal.h"
#include "imagestore/registry_internal.h"

#define VERSION_COLUMNS                                                                            \
    "f.name, v.id, v.version, v.created_us, v.config, i.kind, i.size, v.ready_us, v.failure"
#define VERSION_TABLES                                                                             \
    " FROM functions f JOIN function_versions v ON v.function_id = f.id"                           \
    " JOIN images i ON i.id = v.image_id"
#define JOIN_LIVE                                                                                  \
    " JOIN function_aliases a ON a.function_id = f.id AND a.alias = '" FUNCTION_LIVE "'"           \
    " AND a.version = v.version"

static int no_memory(struct un_error *err)
{
    return un_error_set(err, -ENOMEM, "out of memory");
}

struct function_version *function_ref(struct function_version *v)
{
    v->refs++;
    return v;
}

void function_unref(struct function_version *v)
{
    if (v && --v->refs == 0) {
        function_config_done(&v->config);
        free(v->failure);
        free(v);
    }
}

void version_list_done(struct version_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        function_unref(list->items[i]);
    }
    free(list->items);
    *list = (struct version_list){0};
}

uint32_t function_version_parse(const char *s)
{
    uint64_t n = 0;
    size_t len = strspn(s, "0123456789");
    if (len == 0 || len > 10 || s[len] != '\0' || s[0] == '0') {
        return 0;
    }
    for (; *s; s++) {
        n = n * 10 + (uint64_t)(*s - '0');
    }
    return n <= UINT32_MAX ? (uint32_t)n : 0;
}

/* Takes the reference in any case. */
static int list_add(struct version_list *list, struct function_version *v, struct un_error *err)
{
    if (list->count == list->room) {
        size_t room = list->room ? 2 * list->room : 1;
        struct function_version **more = reallocarray(list->items, room, sizeof *more);
        if (!more) {
            function_unref(v);
            return no_memory(err);
        }
        list->items = more;
        list->room = room;
    }
    list->items[list->count++] = v;
    return 0;
}

static int version_of_row(sqlite3_stmt *stmt, struct version_list *ret, struct un_error *err)
{
    const char *name = (const char *)sqlite3_column_text(stmt, 0);
    const char *config = (const char *)sqlite3_column_text(stmt, 4);
    int kind = image_kind_parse((const char *)sqlite3_column_text(stmt, 5));
    if (!function_name_valid(name) || !config || kind < 0) {
        return un_error_set(err, -EUCLEAN, "the database has a function version that cannot be");
    }
    struct function_version *v = calloc(1, sizeof *v);
    if (!v) {
        return no_memory(err);
    }
    v->refs = 1;
    strcpy(v->name, name);
    v->id = (uint64_t)sqlite3_column_int64(stmt, 1);
    v->version = (uint32_t)sqlite3_column_int64(stmt, 2);
    v->created_us = (uint64_t)sqlite3_column_int64(stmt, 3);
    v->kind = (enum image_kind)kind;
    v->image_size = (uint64_t)sqlite3_column_int64(stmt, 6);
    v->ready_us = (uint64_t)sqlite3_column_int64(stmt, 7);
    const char *failure = (const char *)sqlite3_column_text(stmt, 8);
    v->failure = failure ? strdup(failure) : NULL;
    int rc = failure && !v->failure
                 ? no_memory(err)
                 : function_config_parse(config, strlen(config), &v->config, err);
    if (rc == 0) {
        rc = function_snapshot_key(v->name, &v->config, v->snapshot_key, err);
    }
    if (rc < 0) {
        un_error_context(err, "function %s, version %u", v->name, v->version);
        function_unref(v);
        return rc;
    }
    return list_add(ret, v, err);
}

static int read_rows(sqlite3_stmt *stmt, struct version_list *ret, struct un_error *err)
{
    int rc;
    while ((rc = store_step(stmt, err)) == 1) {
        rc = version_of_row(stmt, ret, err);
        if (rc < 0) {
            break;
        }
    }
    return rc;
}

int registry_sql_function_id(sqlite3 *db, const char *name, int64_t *ret, struct un_error *err)
{
    store_autostmt sqlite3_stmt *stmt = NULL;
    int rc = store_prepare(db, &stmt, err, "SELECT id FROM functions WHERE name = ?", "t", name);
    if (rc == 0) {
        rc = store_step(stmt, err);
    }
    if (rc == 0) {
        return un_error_set(err, -ENOENT, "no function %s", name);
    }
    if (rc == 1) {
        *ret = sqlite3_column_int64(stmt, 0);
        rc = 0;
    }
    return rc;
}

int registry_sql_resolve(sqlite3 *db, const char *name, const char *qualifier,
                         struct version_list *ret, struct un_error *err)
{
    uint32_t number = function_version_parse(qualifier);
    store_autostmt sqlite3_stmt *stmt = NULL;
    int64_t id;
    int rc = number ? store_prepare(db, &stmt, err,
                                    "SELECT " VERSION_COLUMNS VERSION_TABLES
                                    " WHERE f.name = ? AND v.version = ?",
                                    "ti", name, (int64_t)number)
                    : store_prepare(db, &stmt, err,
                                    "SELECT " VERSION_COLUMNS VERSION_TABLES
                                    " JOIN function_aliases a ON a.function_id = f.id"
                                    " AND a.version = v.version WHERE f.name = ? AND a.alias = ?",
                                    "tt", name, qualifier);
    if (rc == 0) {
        rc = read_rows(stmt, ret, err);
    }
    if (rc < 0 || ret->count > 0) {
        return rc;
    }
    rc = registry_sql_function_id(db, name, &id, err);
    return rc < 0 ? rc
                  : un_error_set(err, -ENOENT, "function %s has no version or alias %s", name,
                                 qualifier);
}

int registry_sql_list(sqlite3 *db, const char *after, unsigned limit, bool published,
                      struct version_list *ret, struct un_error *err)
{
    store_autostmt sqlite3_stmt *stmt = NULL;
    int rc = store_prepare(db, &stmt, err,
                           published ? "SELECT " VERSION_COLUMNS VERSION_TABLES JOIN_LIVE
                                       " WHERE f.name > ? AND v.config LIKE '%\"publish\":%'"
                                       " ORDER BY f.name LIMIT ?"
                                     : "SELECT " VERSION_COLUMNS VERSION_TABLES JOIN_LIVE
                                       " WHERE f.name > ? ORDER BY f.name LIMIT ?",
                           "ti", after ? after : "", (int64_t)limit);
    return rc < 0 ? rc : read_rows(stmt, ret, err);
}

int registry_sql_list_kept(sqlite3 *db, const char *after, unsigned limit, struct version_list *ret,
                           struct un_error *err)
{
    store_autostmt sqlite3_stmt *stmt = NULL;
    int rc = store_prepare(db, &stmt, err,
                           "SELECT " VERSION_COLUMNS
                           " FROM function_versions v INDEXED BY function_versions_kept"
                           " JOIN functions f ON f.id = v.function_id"
                           " JOIN images i ON i.id = v.image_id" JOIN_LIVE " WHERE v.kept > 0"
                           " AND f.name > ? ORDER BY f.name LIMIT ?",
                           "ti", after ? after : "", (int64_t)limit);
    return rc < 0 ? rc : read_rows(stmt, ret, err);
}

int registry_sql_versions(sqlite3 *db, const char *name, struct version_list *ret,
                          struct un_error *err)
{
    int64_t id;
    int rc = registry_sql_function_id(db, name, &id, err);
    if (rc < 0) {
        return rc;
    }
    store_autostmt sqlite3_stmt *stmt = NULL;
    rc = store_prepare(db, &stmt, err,
                       "SELECT " VERSION_COLUMNS VERSION_TABLES
                       " WHERE f.id = ? ORDER BY v.version DESC LIMIT ?",
                       "ii", id, (int64_t)LIMIT_PAGE_ITEMS);
    return rc < 0 ? rc : read_rows(stmt, ret, err);
}

/* --- changes ---------------------------------------------------------------------------------- */

static int ensure_function(sqlite3 *db, const char *name, int64_t now, int64_t *ret_id,
                           bool *ret_created, struct un_error *err)
{
    struct un_error none = UN_ERROR_INIT;
    int rc = registry_sql_function_id(db, name, ret_id, &none);
    *ret_created = rc == -ENOENT;
    if (rc != -ENOENT) {
        un_error_copy(err, rc < 0 ? &none : NULL);
        return rc;
    }
    rc = store_exec(db, err, "INSERT INTO functions(name, created_us) VALUES(?, ?)", "ti", name,
                    now);
    if (rc == 0) {
        *ret_id = sqlite3_last_insert_rowid(db);
    }
    return rc;
}

/* Whether the stored text means `config`. It may lack keys that came later. 1, 0 or an error. */
static int same_config(const char *stored, const char *config, struct un_error *err)
{
    struct function_config c;
    int rc = function_config_parse(stored, strlen(stored), &c, err);
    if (rc < 0) {
        return rc;
    }
    un_autofree char *text = function_config_to_json(&c);
    function_config_done(&c);
    return text ? strcmp(text, config) == 0 : no_memory(err);
}

/* 1 when the live version has this very configuration. */
static int is_live(sqlite3 *db, int64_t function_id, const char *config, struct un_error *err)
{
    store_autostmt sqlite3_stmt *stmt = NULL;
    int rc = store_prepare(db, &stmt, err,
                           "SELECT v.config FROM function_aliases a JOIN function_versions v"
                           " ON v.function_id = a.function_id AND v.version = a.version"
                           " WHERE a.function_id = ? AND a.alias = '" FUNCTION_LIVE "'",
                           "i", function_id);
    if (rc == 0) {
        rc = store_step(stmt, err);
    }
    const char *stored = rc == 1 ? (const char *)sqlite3_column_text(stmt, 0) : NULL;
    return stored ? same_config(stored, config, err) : rc == 1 ? no_memory(err) : rc;
}

int registry_sql_point_alias(sqlite3 *db, int64_t function_id, const char *alias, int64_t version,
                             struct un_error *err)
{
    return store_exec(db, err,
                      "INSERT INTO function_aliases VALUES(?, ?, ?) ON CONFLICT(function_id, alias)"
                      " DO UPDATE SET version = excluded.version",
                      "iti", function_id, alias, version);
}

/* What a machine gets besides its image: each is there, of the right kind, and nobody else's. */
static int load_further(sqlite3 *db, const char *key, const char *digest, enum image_kind kind,
                        int64_t *ret_blob, struct un_error *err)
{
    struct image_info info;
    int rc = image_load(db, digest, &info, ret_blob, err);
    if (rc == 0 && info.kind != kind) {
        rc = un_error_set(err, -EINVAL, "%s is an image of kind %s, it must be %s", digest,
                          image_kind_name(info.kind), image_kind_name(kind));
    }
    if (rc < 0) {
        un_error_context(err, "machine: %s", key);
    }
    return rc;
}

struct further {
    int64_t images[2];
    size_t count;
};

static int check_machine(sqlite3 *db, const struct machine_config *m, int64_t function_id,
                         struct further *ret, struct un_error *err)
{
    int rc = 0;
    *ret = (struct further){.count = 0};
    if (m->initrd[0]) {
        rc = load_further(db, "initrd", m->initrd, IMAGE_INITRD, &ret->images[ret->count++], err);
    }
    if (rc == 0 && m->disk[0]) {
        rc = load_further(db, "disk", m->disk, IMAGE_DISK, &ret->images[ret->count++], err);
    }
    for (size_t i = 0; rc == 0 && i < m->volume_count; i++) {
        rc = registry_sql_check_volume(db, m->volumes[i], function_id, err);
    }
    return rc;
}

static int note_machine(sqlite3 *db, int64_t version_id, const struct machine_config *m,
                        const struct further *f, struct un_error *err)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < f->count; i++) {
        rc = store_exec(db, err, "INSERT INTO function_version_images VALUES(?, ?)", "ii",
                        version_id, f->images[i]);
    }
    for (size_t i = 0; rc == 0 && i < m->volume_count; i++) {
        rc = store_exec(db, err, "INSERT INTO function_version_volumes VALUES(?, ?)", "it",
                        version_id, m->volumes[i]);
    }
    return rc;
}

struct new_version {
    int64_t function_id, blob, kept;
    const char *config; /* as JSON */
};

static int add_version(sqlite3 *db, const struct new_version *v, int64_t *ret_id,
                       struct un_error *err)
{
    int64_t version = 0;
    store_autostmt sqlite3_stmt *stmt = NULL;
    int rc = store_prepare(
        db, &stmt, err,
        "INSERT INTO function_versions(function_id, version, image_id, config,"
        " created_us, kept) SELECT ?1, coalesce(max(version), 0) + 1, ?2, ?3, ?4, ?5"
        " FROM function_versions WHERE function_id = ?1 RETURNING version, id",
        "iitii", v->function_id, v->blob, v->config, (int64_t)un_clock_wall_us(), v->kept);
    if (rc == 0) {
        rc = store_step(stmt, err);
    }
    if (rc == 1) {
        version = sqlite3_column_int64(stmt, 0);
        *ret_id = sqlite3_column_int64(stmt, 1);
        rc = store_step(stmt, err);
    }
    rc = rc < 0 ? rc : registry_sql_live_moves(db, v->function_id, version, err);
    return rc < 0 ? rc : registry_sql_point_alias(db, v->function_id, FUNCTION_LIVE, version, err);
}

int registry_sql_deploy(sqlite3 *db, const char *name, struct function_config *config,
                        bool *ret_created, struct un_error *err)
{
    struct image_info image;
    struct further further;
    int64_t blob, id, version_id = 0;
    int rc = image_load(db, config->image, &image, &blob, err);
    if (rc == 0) {
        rc = function_settle_interface(config, image.kind, err);
    }
    if (rc < 0) {
        return rc;
    }
    un_autofree char *text = function_config_to_json(config);
    if (!text) {
        return no_memory(err);
    }
    rc = ensure_function(db, name, (int64_t)un_clock_wall_us(), &id, ret_created, err);
    rc = rc < 0 ? rc : check_machine(db, &config->machine, id, &further, err);
    rc = rc < 0 ? rc : is_live(db, id, text, err);
    if (rc == 0) {
        const struct new_version v = {.function_id = id,
                                      .blob = blob,
                                      .kept = config->machine.set && config->machine.service
                                                  ? config->machine.min_instances
                                                  : 0,
                                      .config = text};
        rc = add_version(db, &v, &version_id, err);
        rc = rc < 0 ? rc : note_machine(db, version_id, &config->machine, &further, err);
    }
    return rc < 0 ? rc : 0;
}

int registry_sql_set_alias(sqlite3 *db, const char *name, const char *alias, uint32_t version,
                           struct un_error *err)
{
    struct version_list list = {0};
    char number[12];
    int64_t id;
    snprintf(number, sizeof number, "%u", version);
    int rc = registry_sql_resolve(db, name, number, &list, err);
    if (rc == 0) {
        rc = registry_sql_function_id(db, name, &id, err);
    }
    if (rc == 0 && strcmp(alias, FUNCTION_LIVE) == 0) {
        const struct machine_config *m = &list.items[0]->config.machine;
        for (size_t i = 0; rc == 0 && i < m->volume_count; i++) {
            rc = registry_sql_check_volume(db, m->volumes[i], id, err);
        }
        rc = rc < 0 ? rc : registry_sql_live_moves(db, id, version, err);
    }
    if (rc == 0) {
        rc = registry_sql_point_alias(db, id, alias, version, err);
    }
    version_list_done(&list);
    return rc;
}

int registry_sql_remove_alias(sqlite3 *db, const char *name, const char *alias,
                              struct un_error *err)
{
    int64_t id;
    int rc = registry_sql_function_id(db, name, &id, err);
    rc = rc < 0 ? rc
                : store_exec(db, err,
                             "DELETE FROM function_aliases WHERE function_id = ? AND alias = ?",
                             "it", id, alias);
    return rc == 0 && sqlite3_changes(db) == 0
               ? un_error_set(err, -ENOENT, "function %s has no alias %s", name, alias)
               : rc;
}

int registry_sql_remove(sqlite3 *db, const char *name, struct un_error *err)
{
    int64_t id;
    int rc = registry_sql_function_id(db, name, &id, err);
    return rc < 0 ? rc : store_exec(db, err, "DELETE FROM functions WHERE id = ?", "i", id);
}
