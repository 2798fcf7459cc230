/* recent.c - identities and sequencers seen lately (async_impl.h): a bounded log on disk, and
 * an index of it in memory.
 *
 * A B-tree over the keys would write, for each event, a page at a random place of a table that may
 * have a million rows: more bytes than all the rest of the event's commit. The log is appended to at
 * one end and pruned at the other; the index takes 8 bytes a key in a table that is at most three
 * quarters full, and is read from the log once, when the first event comes.
 *
 * The index is never wrong in a way that counts: what it says is checked against the row, so hints
 * at rows that were undone with their transaction do no harm; and a hint is made in the job that
 * makes the row, so no row is without one.
 */
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scheduler/async/async_impl.h"

enum { FIRST_CAPACITY = 1024, PRUNE_STEP = 2 };

int async_key_make(struct async_key *ret, const char *kind, const char *const parts[3],
                   struct un_error *err)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) &&
              EVP_DigestUpdate(ctx, kind, strlen(kind) + 1);

    for (unsigned i = 0; i < 3 && ok; i++) { /* the NUL keeps "a", "bc" and "ab", "c" apart */
        const char *part = parts[i] ? parts[i] : "";

        ok = EVP_DigestUpdate(ctx, part, strlen(part) + 1);
    }
    ok = ok && EVP_DigestFinal_ex(ctx, digest, NULL);
    EVP_MD_CTX_free(ctx);
    if (!ok) {
        return un_error_set(err, -ENOMEM, "hash an event's identity: out of memory");
    }
    memcpy(ret->bytes, digest, sizeof(ret->bytes));
    ret->set = true;
    return 0;
}

void async_recent_done(struct async_recent *r)
{
    free(r->slots);
    *r = (struct async_recent){0};
}

/* --- the index -------------------------------------------------------------------------------- */

static uint32_t fingerprint(const uint8_t key[ASYNC_KEY_BYTES])
{
    uint32_t f;

    memcpy(&f, key, sizeof(f));
    return f ? f : 1;
}

static size_t home_of(const struct async_recent *r, uint32_t f)
{
    return (size_t)(f * 2654435769u) & (r->capacity - 1); /* 2^32 over the golden ratio */
}

static void place(struct async_recent *r, uint32_t f, uint32_t low)
{
    size_t i = home_of(r, f);

    while (r->slots[2 * i]) {
        i = (i + 1) & (r->capacity - 1);
    }
    r->slots[2 * i] = f;
    r->slots[2 * i + 1] = low;
    r->used++;
}

/* Room for one more. */
static int grow(struct async_recent *r, struct un_error *err)
{
    struct async_recent old = *r;
    size_t capacity = old.capacity ? 2 * old.capacity : FIRST_CAPACITY;

    if (old.capacity && old.used < old.capacity / 4 * 3) {
        return 0;
    }
    r->slots = calloc(capacity, 2 * sizeof(*r->slots));
    if (!r->slots) {
        r->slots = old.slots;
        return un_error_set(err, -ENOMEM, "remember an event: out of memory");
    }
    r->capacity = capacity;
    r->used = 0;
    for (size_t i = 0; i < old.capacity; i++) {
        if (old.slots[2 * i]) {
            place(r, old.slots[2 * i], old.slots[2 * i + 1]);
        }
    }
    free(old.slots);
    return 0;
}

/* Takes a hint out; those behind it in its run move up, so that none is cut off (Knuth, The Art of
 * Computer Programming, vol. 3, algorithm 6.4R). */
static void forget(struct async_recent *r, uint32_t f, uint32_t low)
{
    size_t mask = r->capacity - 1, hole, i;

    if (r->capacity == 0) {
        return;
    }
    for (hole = home_of(r, f); r->slots[2 * hole] != f || r->slots[2 * hole + 1] != low;
         hole = (hole + 1) & mask) {
        if (!r->slots[2 * hole]) {
            return;
        }
    }
    for (i = (hole + 1) & mask; r->slots[2 * i]; i = (i + 1) & mask) {
        size_t home = home_of(r, r->slots[2 * i]);

        if (((i - home) & mask) >= ((i - hole) & mask)) {
            r->slots[2 * hole] = r->slots[2 * i];
            r->slots[2 * hole + 1] = r->slots[2 * i + 1];
            hole = i;
        }
    }
    r->slots[2 * hole] = 0;
    r->used--;
}

static int load(struct async_recent *r, sqlite3 *db, struct un_error *err)
{
    store_keptstmt sqlite3_stmt *stmt = NULL;
    int rc;

    if (r->loaded) {
        return 0;
    }
    async_recent_done(r);
    rc = store_prepare_kept(db, &stmt, err, "SELECT seq, key FROM async_recent ORDER BY seq", "");
    while (rc == 0 && (rc = store_step(stmt, err)) == 1) {
        r->newest = sqlite3_column_int64(stmt, 0);
        rc = grow(r, err);
        if (rc == 0 && sqlite3_column_bytes(stmt, 1) == ASYNC_KEY_BYTES) {
            place(r, fingerprint(sqlite3_column_blob(stmt, 1)), (uint32_t)r->newest);
        }
    }
    r->loaded = rc == 0;
    return rc;
}

/* --- rows ------------------------------------------------------------------------------------- */

/* 1 when the row is there and has this key. */
static int check_row(sqlite3 *db, int64_t seq, const struct async_key *key, sqlite3_stmt **ret,
                     struct un_error *err)
{
    sqlite3_stmt *stmt = NULL;
    int rc = store_prepare_kept(
        db, &stmt, err, "SELECT value, expires_us FROM async_recent WHERE seq = ? AND key = ?",
        "ib", seq, key->bytes, sizeof(key->bytes));

    rc = rc == 0 ? store_step(stmt, err) : rc;
    if (rc == 1) {
        *ret = stmt;
    } else {
        store_release(stmt);
    }
    return rc;
}

/* 1 with the row (to be finalized) and its seq, 0, or a negative errno. */
static int find_row(struct async_recent *r, sqlite3 *db, const struct async_key *key,
                    sqlite3_stmt **ret, int64_t *ret_seq, struct un_error *err)
{
    uint32_t f = fingerprint(key->bytes);
    int rc = load(r, db, err);

    if (rc < 0 || r->capacity == 0) {
        return rc;
    }
    for (size_t i = home_of(r, f); r->slots[2 * i]; i = (i + 1) & (r->capacity - 1)) {
        int64_t seq = r->newest - (uint32_t)((uint32_t)r->newest - r->slots[2 * i + 1]);

        if (r->slots[2 * i] != f) {
            continue;
        }
        rc = check_row(db, seq, key, ret, err);
        if (rc != 0) {
            *ret_seq = seq;
            return rc;
        }
    }
    return 0;
}

int async_recent_find(struct async_recent *r, sqlite3 *db, const struct async_key *key,
                      uint64_t now_us, char *ret_value, size_t size, struct un_error *err)
{
    store_keptstmt sqlite3_stmt *stmt = NULL;
    const unsigned char *value;
    int64_t seq;
    int rc = find_row(r, db, key, &stmt, &seq, err);

    if (rc != 1 || (uint64_t)sqlite3_column_int64(stmt, 1) <= now_us) {
        return rc < 0 ? rc : 0;
    }
    value = sqlite3_column_text(stmt, 0);
    snprintf(ret_value, size, "%s", value ? (const char *)value : "");
    return 1;
}

/* Removes the oldest row when it has expired or there are too many. 1 when it did. */
static int prune_one(struct async_recent *r, sqlite3 *db, uint64_t now_us, struct un_error *err)
{
    store_keptstmt sqlite3_stmt *stmt = NULL;
    uint32_t f = 1;
    int64_t seq;
    int rc = store_prepare_kept(
        db, &stmt, err, "SELECT seq, expires_us, key FROM async_recent ORDER BY seq LIMIT 1", "");

    rc = rc == 0 ? store_step(stmt, err) : rc;
    if (rc != 1) {
        return rc;
    }
    seq = sqlite3_column_int64(stmt, 0);
    if ((uint64_t)sqlite3_column_int64(stmt, 1) > now_us &&
        r->newest - seq < (int64_t)LIMIT_ASYNC_RECENT) {
        return 0;
    }
    if (sqlite3_column_bytes(stmt, 2) == ASYNC_KEY_BYTES) {
        f = fingerprint(sqlite3_column_blob(stmt, 2));
    }
    rc = store_exec(db, err, "DELETE FROM async_recent WHERE seq = ?", "i", seq);
    if (rc == 0) {
        forget(r, f, (uint32_t)seq);
    }
    return rc < 0 ? rc : 1;
}

/* Hints at rows that were undone pile up while the database fails: then the log is read again. */
static int append(struct async_recent *r, sqlite3 *db, const struct async_key *key,
                  const char *value, uint64_t expires_us, struct un_error *err)
{
    int rc;

    r->loaded = r->loaded && r->used < LIMIT_ASYNC_RECENT / 4 * 5;
    rc = load(r, db, err);
    rc = rc == 0 ? grow(r, err) : rc;
    rc = rc == 0 ? store_exec(db, err,
                              "INSERT INTO async_recent(key, value, expires_us) VALUES(?, ?, ?)",
                              "bti", key->bytes, sizeof(key->bytes), value, (int64_t)expires_us)
                 : rc;
    if (rc == 0) {
        r->newest = sqlite3_last_insert_rowid(db);
        place(r, fingerprint(key->bytes), (uint32_t)r->newest);
    }
    return rc;
}

int async_recent_put(struct async_recent *r, sqlite3 *db, const struct async_key *key,
                     const char *value, uint64_t now_us, uint64_t expires_us, struct un_error *err)
{
    sqlite3_stmt *stmt = NULL;
    int64_t seq;
    int rc = find_row(r, db, key, &stmt, &seq, err);

    store_release(stmt);
    if (rc == 1) {
        return store_exec(db, err,
                          "UPDATE async_recent SET value = ?, expires_us = ? WHERE seq = ?", "tii",
                          value, (int64_t)expires_us, seq);
    }
    rc = rc == 0 ? append(r, db, key, value, expires_us, err) : rc;
    for (int i = 0; i < PRUNE_STEP && rc == 0; i++) {
        rc = prune_one(r, db, now_us, err);
        if (rc != 1) {
            break;
        }
        rc = 0;
    }
    return rc;
}
