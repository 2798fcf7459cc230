/* version_cache.c - resolved versions in memory, bounded (see registry_internal.h).
 *
 * Hashed by function name alone, so that all that is kept of one function lies in one bucket and
 * can be dropped together when something about it changes.
 */
#include <stdlib.h>
#include <string.h>

#include "common/fault.h"
#include "imagestore/registry_internal.h"

struct kept {
    struct un_list lru, bucket;
    struct function_version *version;
    char qualifier[FUNCTION_NAME_SIZE];
};

/* FNV-1a; the names are an operator's own, nobody gains from making them collide. */
static struct un_list *bucket_of(struct version_cache *vc, const char *name)
{
    uint32_t hash = 2166136261u;
    for (; *name; name++) {
        hash = (hash ^ (uint8_t)*name) * 16777619u;
    }
    return &vc->buckets[hash % VERSION_BUCKETS];
}

void version_cache_init(struct version_cache *vc, unsigned max)
{
    un_list_init(&vc->lru);
    for (size_t i = 0; i < VERSION_BUCKETS; i++) {
        un_list_init(&vc->buckets[i]);
    }
    vc->count = 0;
    vc->max = max;
}

static void kept_free(struct version_cache *vc, struct kept *k)
{
    un_list_remove(&k->lru);
    un_list_remove(&k->bucket);
    vc->count--;
    function_unref(k->version);
    free(k);
}

void version_cache_done(struct version_cache *vc)
{
    while (!un_list_empty(&vc->lru)) {
        kept_free(vc, un_list_first(&vc->lru, struct kept, lru));
    }
}

static struct kept *find(struct version_cache *vc, const char *name, const char *qualifier)
{
    un_list_for_each (it, bucket_of(vc, name)) {
        struct kept *k = un_list_entry(it, struct kept, bucket);
        if (strcmp(k->version->name, name) == 0 && strcmp(k->qualifier, qualifier) == 0) {
            return k;
        }
    }
    return NULL;
}

struct function_version *version_cache_get(struct version_cache *vc, const char *name,
                                           const char *qualifier)
{
    struct kept *k = find(vc, name, qualifier);
    if (!k) {
        return NULL;
    }
    un_list_remove(&k->lru);
    un_list_push_front(&vc->lru, &k->lru);
    return k->version;
}

void version_cache_put(struct version_cache *vc, const char *qualifier, struct function_version *v)
{
    struct kept *k = find(vc, v->name, qualifier);
    if (k) {
        kept_free(vc, k);
    }
    k = un_fault("registry.cache") || strlen(qualifier) >= FUNCTION_NAME_SIZE
            ? NULL
            : calloc(1, sizeof *k);
    if (!k) {
        return;
    }
    k->version = function_ref(v);
    strcpy(k->qualifier, qualifier);
    un_list_push_front(&vc->lru, &k->lru);
    un_list_push(bucket_of(vc, v->name), &k->bucket);
    vc->count++;
    if (vc->count > vc->max) {
        kept_free(vc, un_list_entry(vc->lru.prev, struct kept, lru));
    }
}

void version_cache_drop(struct version_cache *vc, const char *name)
{
    un_list_for_each_safe (it, bucket_of(vc, name)) {
        struct kept *k = un_list_entry(it, struct kept, bucket);
        if (strcmp(k->version->name, name) == 0) {
            kept_free(vc, k);
        }
    }
}
