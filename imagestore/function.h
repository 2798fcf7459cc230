/* function.h - the registry: functions, their immutable numbered versions, and aliases.
 *
 * A deploy makes a new version; versions are never changed. The alias "live" is what a request
 * without a qualifier gets; a deploy moves it to the new version, a rollback to an older one. A
 * deploy that changes nothing gives the version that is live.
 *
 * Looked-up versions are kept in a bounded cache of the least recently used, so that thousands of
 * functions cost rows, not memory. Loop thread throughout.
 *
 * Where things are: config.c configurations as JSON, registry.c what is asked and changed,
 * registry_sql.c the rows, registry_state.c what becomes of versions, version_cache.c the cache.
 */
#ifndef UNID_IMAGESTORE_FUNCTION_H
#define UNID_IMAGESTORE_FUNCTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "imagestore/image.h"
#include "imagestore/machine_config.h"

enum function_interface {
    FUNCTION_FILTER,
    FUNCTION_CGI,
    FUNCTION_HTTP,
    FUNCTION_LAMBDA,
    FUNCTION_SDK,
    FUNCTION_TCP, /* a protocol of its own; services of machine images only */
    /* In a configuration to be deployed only: what the image's kind makes of it. sdk for an SDK
     * image, filter for a Linux program, http for a machine image, which is reached over its own
     * network. */
    FUNCTION_DEFAULT
};
const char *function_interface_name(enum function_interface i);
int function_interface_parse(const char *word); /* -1: unknown */

/* Which hypervisor driver runs a function; all but auto are named as in hypervisor/hv.h. Whether this
 * daemon has the driver is found out when the function is called. */
enum function_driver { FUNCTION_AUTO, FUNCTION_KVM, FUNCTION_LIBVIRT, FUNCTION_FAKE };
const char *function_driver_name(enum function_driver d);

/* Whether each request gets a VM made for it alone, or one that has served the same version before
 * and was put back to its snapshot, where the driver can. */
enum function_isolation { FUNCTION_VM, FUNCTION_RESET };
const char *function_isolation_name(enum function_isolation i);

/* When a Linux program is snapshotted: when it first asks for a request, or before its own first
 * instruction, so that each request starts the program itself. */
enum function_snapshot { FUNCTION_SNAPSHOT_READY, FUNCTION_SNAPSHOT_START };
const char *function_snapshot_name(enum function_snapshot s);

struct function_config {
    char image[IMAGE_DIGEST_SIZE];
    enum function_interface interface;
    enum function_driver driver;
    enum function_isolation isolation;
    enum function_snapshot snapshot;
    char *program; /* absolute path in the root file system of a Linux program; NULL: its own */
    uint32_t memory_mib;
    bool
        memory_given; /* by who deploys; a default may be raised. In a configuration to be deployed only */
    uint32_t timeout_ms;
    uint32_t concurrency; /* VMs at once, at least 1 */
    bool list_calls;      /* receipts tell which system calls were made, not only how many */
    uint32_t
        reserved_concurrency; /* of them, those that other functions cannot keep it from having */
    char **args;              /* NULL-terminated, without the program's own name */
    char **env;               /* NULL-terminated "K=V", sorted by key */
    char **egress;  /* NULL-terminated "host:port" that the program may connect to, in the form
                             of un_endpoint_text (common/endpoint.h); NULL: none */
    char **publish; /* NULL-terminated "ADDR:PORT" that unid itself listens on for it, in the form
                             of un_endpoint_text; NULL: none */
    struct machine_config machine; /* of a machine image */
};

/* Defaults, and everything owned is NULL. */
void function_config_init(struct function_config *c);
void function_config_done(struct function_config *c);
/* Reads the JSON of PUT /api/v1/functions/{name} over the defaults; unknown keys are refused. On
 * success `ret` owns its strings (function_config_done). -EINVAL with the key and the reason,
 * -ENOMEM. */
int function_config_parse(const void *json, size_t len, struct function_config *ret,
                          struct un_error *err);

/* Gives FUNCTION_DEFAULT its meaning for an image of this kind, and refuses what does not go together:
 * -EINVAL with the choices, -ENOTSUP an interface that this unid does not serve yet. */
int function_settle_interface(struct function_config *c, enum image_kind kind,
                              struct un_error *err);

/* Holds the configuration against the prepared image of a Linux program that it is for: raises the default memory to what
 * a Linux program needs. -EINVAL less memory was given than it needs at least, or no program is named. */
int function_settle_image(struct function_config *c, const struct image_mapping *image,
                          struct un_error *err);

/* The same JSON, with every key, keys in a fixed order: equal configurations have equal texts. Free
 * with free(); NULL when out of memory. */
char *function_config_to_json(const struct function_config *c);

/* Names the state of a function's program at its first NEXT (hv.h, snapshot_key): SHA-256, as 64
 * lower-case hex digits, of all that it depends on: image, preparer, program, name, args, env, memory, the
 * interface (settled, see function_settle_interface) and the version of the guest contract. -ENOMEM, -EIO. Any thread. */
enum { FUNCTION_SNAPSHOT_KEY_SIZE = 65 };
int function_snapshot_key(const char *name, const struct function_config *c,
                          char ret[FUNCTION_SNAPSHOT_KEY_SIZE], struct un_error *err);

/* One version. Immutable, but for what is noted of its machines; references are counted (any number of
 * invocations may hold one after it has left the cache). */
struct function_version {
    char name[64];
    uint64_t id; /* of the row; never used again */
    uint32_t version;
    enum image_kind kind;
    uint64_t image_size;
    uint64_t created_us;
    struct function_config config;
    char snapshot_key[FUNCTION_SNAPSHOT_KEY_SIZE];
    uint64_t
        ready_us; /* a machine image: when a machine of it was ready first, as far as known; 0: never */
    char *failure; /* why none was; NULL: nothing is known against it */
    unsigned refs; /* the registry's */
};
struct function_version *function_ref(struct function_version *v);
void function_unref(struct function_version *v);

/* 1 to 63 of [a-z0-9-], starting with a letter, not ending with '-' (a DNS label). */
bool function_name_valid(const char *name);
/* An alias: a name as above. A qualifier in a URL is a version number or an alias. */
bool function_alias_valid(const char *alias);

struct registry;
/* Kept: both. The schema is part of imagestore_schema. */
int registry_open(struct un_loop *loop, struct store *store, struct registry **ret,
                  struct un_error *err);
/* What is under way ends with the store, which is closed after it. NULL is allowed. */
void registry_close(struct registry *r);

/* Loop thread, once, never inside the call. The version is borrowed (function_ref to keep). */
typedef void (*function_version_cb)(void *arg, int rc, struct function_version *v,
                                    const struct un_error *err);
typedef void (*function_done_cb)(void *arg, int rc, const struct un_error *err);

/* Makes a version and moves "live" to it. `created`: the function's name is new. `config` is taken
 * over in any case (the caller's becomes empty). -ENOENT no such image; -EINVAL image kind and
 * interface do not go together. */
typedef void (*function_deploy_cb)(void *arg, int rc, struct function_version *v, bool created,
                                   const struct un_error *err);
void function_deploy(struct registry *r, const char *name, struct function_config *config,
                     function_deploy_cb cb, void *arg);

/* `qualifier`: NULL ("live"), a version number, or an alias. -ENOENT. */
void function_resolve(struct registry *r, const char *name, const char *qualifier,
                      function_version_cb cb, void *arg);

/* The function that is in the cache, or NULL: the request path's short cut. Borrowed. */
struct function_version *function_peek(struct registry *r, const char *name, const char *qualifier);

struct function_alias {
    char alias[64];
    uint32_t version;
};
typedef void (*function_list_cb)(void *arg, int rc, struct function_version *const *list,
                                 size_t count, const struct un_error *err);
typedef void (*function_aliases_cb)(void *arg, int rc, const struct function_alias *list,
                                    size_t count, const struct un_error *err);

/* Live versions by name, after `after` (NULL: from the start), at most `limit`. */
void function_list(struct registry *r, const char *after, unsigned limit, function_list_cb cb,
                   void *arg);
/* Likewise, only those of which machines are kept (machine.min_instances > 0); an index finds them. */
void function_list_kept(struct registry *r, const char *after, unsigned limit, function_list_cb cb,
                        void *arg);
/* As function_list, of functions whose live version publishes ports (or looks as if it did). */
void function_list_published(struct registry *r, const char *after, unsigned limit,
                             function_list_cb cb, void *arg);
/* The versions of one function, newest first, at most LIMIT_PAGE_ITEMS. -ENOENT. */
void function_versions(struct registry *r, const char *name, function_list_cb cb, void *arg);
void function_aliases(struct registry *r, const char *name, function_aliases_cb cb, void *arg);
/* -ENOENT: the function or the version. */
void function_set_alias(struct registry *r, const char *name, const char *alias, uint32_t version,
                        function_done_cb cb, void *arg);

/* -ENOENT: the function or the alias; -EBUSY: "live", which can be moved only. */
void function_remove_alias(struct registry *r, const char *name, const char *alias,
                           function_done_cb cb, void *arg);

/* A machine of the version has been ready for the first time; what is held against it is forgotten. */
void function_note_ready(struct registry *r, const char *name, uint32_t version,
                         function_done_cb cb, void *arg);
/* Why no machine of the version has ever become ready. When it is live, "live" goes back to the version
 * that was live before it, unless that has failed likewise, or this one has been ready before: then
 * `back` is that version, else NULL. Moving "live" to the version again gives it another chance. */
typedef void (*function_failed_cb)(void *arg, int rc, struct function_version *back,
                                   const struct un_error *err);
void function_note_failed(struct registry *r, const char *name, uint32_t version, const char *why,
                          function_failed_cb cb, void *arg);

/* Removes the function with all versions and aliases. Running invocations go on. */
void function_remove(struct registry *r, const char *name, function_done_cb cb, void *arg);

/* Is told, on the loop thread, of each change after which a name may resolve to something else: deploy, alias, remove. `live`:
 * what is live after it, borrowed; NULL: the function is gone. Changes are told in the order in which they are committed,
 * and each before its caller is: what a listener frees at once, that caller finds free. */
typedef void (*registry_change_fn)(void *arg, const char *name, struct function_version *live);
/* At most six listeners, until registry_off_change or registry_close. */
void registry_on_change(struct registry *r, registry_change_fn fn, void *arg);
/* The listener is not called any more. */
void registry_off_change(struct registry *r, registry_change_fn fn, void *arg);

#endif
