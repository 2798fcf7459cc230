/* api_below.c - see api_below.h: images, volumes, functions. */
#include "tests/unit/api_below.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"

struct below below;

struct image_upload {
    struct un_post post;
};
static struct image_upload the_upload;
struct image_reader {
    struct un_post post;
    const struct image_read_events *events;
    void *arg;
    unsigned step;
};
static struct image_reader the_reader;

static struct image_info the_image = {
    .digest = BELOW_DIGEST, .kind = IMAGE_SDK, .size_bytes = 11, .created_us = 1000000};
static char *const no_args[] = {(char *)"--x", NULL}, *const some_env[] = {(char *)"A=b=c", NULL};
static struct function_version versions[3];

void below_open(struct un_loop *loop)
{
    memset(&below, 0, sizeof(below));
    below.loop = loop;
    below.body_room = 1;
    below.live = 3;
    for (unsigned i = 0; i < 3; i++) {
        versions[i] =
            (struct function_version){.name = "hello", .version = 3 - i, .kind = IMAGE_SDK};
        versions[i].config.args = (char **)no_args;
        versions[i].config.env = (char **)some_env;
        memcpy(versions[i].config.image, BELOW_DIGEST, IMAGE_DIGEST_SIZE);
    }
}

void below_close(void)
{
    un_buf_done(&below.body);
    un_buf_done(&below.pushed);
}

/* --- answering later -------------------------------------------------------------------------- */

static void later_run(void *arg)
{
    struct later *l = arg;
    l->go(l);
    free(l);
}

struct later *later(void (*go)(struct later *l), void (*cb)(void), void *arg, int rc)
{
    struct later *l = calloc(1, sizeof(*l));
    l->go = go;
    l->cb = cb;
    l->arg = arg;
    l->rc = rc;
    un_error_set(&l->err, rc, rc == -ENOENT ? "no such thing" : "it went wrong");
    l->post.fn = later_run;
    l->post.arg = l;
    un_loop_post(below.loop, &l->post);
    return l;
}

static void go_done(struct later *l)
{
    CB(l, function_done_cb)(l->arg, l->rc, &l->err);
}

/* --- images ----------------------------------------------------------------------------------- */

const char *image_kind_name(enum image_kind kind)
{
    return kind == IMAGE_SDK ? "sdk" : kind == IMAGE_LINUX_ROOTFS ? "linux-rootfs" : "disk";
}

bool image_digest_valid(const char *s)
{
    return strlen(s) == 71 && strncmp(s, "sha256:", 7) == 0 &&
           strspn(s + 7, "0123456789abcdef") == 64;
}

static void go_info(struct later *l)
{
    struct image_info info = the_image;
    info.kind = below.kind;
    CB(l, image_info_cb)(l->arg, l->rc, &info, &l->err);
}

void image_get(struct imagestore *is, const char *ref, image_info_cb cb, void *arg)
{
    bool known = strcmp(ref, BELOW_DIGEST) == 0 || strcmp(ref, "my/tag:1") == 0;
    (void)is;
    later(go_info, (void (*)(void))cb, arg, known ? 0 : -ENOENT);
}

static void go_images(struct later *l)
{
    CB(l, image_list_cb)(l->arg, 0, &the_image, 1, NULL);
}

static const char report[] = "{\"problems\": [\"no libx.so\"]}";
static struct image_mapping mapping = {.data = (const uint8_t *)"x",
                                       .size = 1,
                                       .digest = BELOW_DIGEST,
                                       .kind = IMAGE_LINUX_ROOTFS,
                                       .report = report,
                                       .report_size = sizeof(report) - 1};

struct image_mapping *image_peek(struct imagestore *is, const char *digest)
{
    return NULL;
}

static void go_open(struct later *l)
{
    below.mappings += l->rc == 0;
    CB(l, image_open_cb)(l->arg, l->rc, l->rc == 0 ? &mapping : NULL, &l->err);
}

/* --- volumes ------------------------------------------------------------------------------------ */

static const struct volume_info the_volume = {
    .name = "data", .format = "raw", .size_bytes = 1 << 20, .used_by = "hello"};

static void go_volume(struct later *l)
{
    CB(l, volume_info_cb)(l->arg, l->rc, &the_volume, l->number, &l->err);
}

void volume_create(struct imagestore *is, const struct volume_spec *spec, volume_info_cb cb,
                   void *arg)
{
    (void)is;
    later(go_volume, (void (*)(void))cb, arg, strcmp(spec->name, "full") == 0 ? -ENOSPC : 0)
        ->number = strcmp(spec->name, "data") != 0;
}

void volume_get(struct imagestore *is, const char *name, volume_info_cb cb, void *arg)
{
    (void)is;
    later(go_volume, (void (*)(void))cb, arg, strcmp(name, "data") == 0 ? 0 : -ENOENT);
}

static void go_volumes(struct later *l)
{
    CB(l, volume_list_cb)(l->arg, 0, &the_volume, 1, &l->err);
}

void volume_list(struct imagestore *is, volume_list_cb cb, void *arg)
{
    (void)is;
    later(go_volumes, (void (*)(void))cb, arg, 0);
}

void volume_remove(struct imagestore *is, const char *name, image_done_cb cb, void *arg)
{
    (void)is;
    later(go_done, (void (*)(void))cb, arg,
          strcmp(name, "data") == 0  ? -EBUSY
          : strcmp(name, "old") == 0 ? 0
                                     : -ENOENT);
}

void image_open(struct imagestore *is, const char *digest, image_open_cb cb, void *arg)
{
    (void)is;
    (void)digest;
    later(go_open, (void (*)(void))cb, arg, below.open_rc);
}

void image_judge(struct imagestore *is, const char *digest, const char *program, image_judge_cb cb,
                 void *arg)
{
    struct un_error err = UN_ERROR_INIT;
    bool there = strcmp(program, "/there") == 0;
    un_error_set(&err, -EINVAL, "%s: the program is not in the root file system", program);
    cb(arg, there ? 0 : -EINVAL, report, &err);
}

void image_unref(struct image_mapping *m)
{
    (void)m;
    below.mappings--;
}

const char *image_failure_report(struct imagestore *is, const char *digest)
{
    (void)is;
    return below.open_rc && strcmp(digest, BELOW_DIGEST) == 0 ? report : NULL;
}

int function_settle_image(struct function_config *c, const struct image_mapping *image,
                          struct un_error *err)
{
    (void)c;
    (void)image;
    return below.settle_rc ? un_error_set(err, below.settle_rc, "memory_mib: too little") : 0;
}

void image_list(struct imagestore *is, image_list_cb cb, void *arg)
{
    (void)is;
    later(go_images, (void (*)(void))cb, arg, 0);
}

void image_remove(struct imagestore *is, const char *digest, image_done_cb cb, void *arg)
{
    (void)is;
    later(go_done, (void (*)(void))cb, arg, strcmp(digest, BELOW_DIGEST) == 0 ? -EBUSY : -ENOENT);
}

void image_tag(struct imagestore *is, const char *tag, const char *digest, image_done_cb cb,
               void *arg)
{
    (void)is;
    snprintf(below.tag, sizeof(below.tag), "%s=%s", tag, digest);
    later(go_done, (void (*)(void))cb, arg, strcmp(digest, BELOW_DIGEST) == 0 ? 0 : -ENOENT);
}

void image_untag(struct imagestore *is, const char *tag, image_done_cb cb, void *arg)
{
    (void)is;
    later(go_done, (void (*)(void))cb, arg, strcmp(tag, "my/tag:1") == 0 ? 0 : -ENOENT);
}

static void go_tags(struct later *l)
{
    static const struct image_tag_info tags[] = {{"my/tag:1", BELOW_DIGEST}, {"z", BELOW_DIGEST}};
    CB(l, image_tags_cb)(l->arg, l->rc, l->rc == 0 ? tags : NULL, l->rc == 0 ? 2 : 0, &l->err);
}

void image_tag_list(struct imagestore *is, const char *digest, image_tags_cb cb, void *arg)
{
    (void)is;
    (void)digest;
    later(go_tags, (void (*)(void))cb, arg, below.tags_rc);
}

int image_upload_start(struct imagestore *is, const struct image_upload_spec *spec,
                       struct image_upload **ret, struct un_error *err)
{
    (void)is;
    (void)err;
    below.push_events = spec->events;
    below.push_arg = spec->arg;
    snprintf(below.declared_digest, sizeof(below.declared_digest), "%s",
             spec->declared_digest ? spec->declared_digest : "");
    *ret = &the_upload;
    return 0;
}

int image_upload_data(struct image_upload *up, const void *data, size_t len)
{
    (void)up;
    un_buf_append(&below.pushed, data, len);
    return !below.push_holds;
}

static void upload_done(void *arg)
{
    struct un_error err = {.code = below.push_rc, .text = "not an image"};
    (void)arg;
    below.push_events->on_done(below.push_arg, below.push_rc, &the_image, true, &err);
}

void image_upload_finish(struct image_upload *up)
{
    up->post = (struct un_post){.fn = upload_done};
    un_loop_post(below.loop, &up->post);
}

void image_upload_abort(struct image_upload *up)
{
    (void)up;
    below.aborts++;
}

static void reader_step(void *arg)
{
    struct image_reader *r = arg;
    if (r->step++ == 0) {
        r->events->on_data(r->arg, "hello ", 6);
    } else if (r->step == 2) {
        r->events->on_data(r->arg, "world", 5);
    } else {
        r->events->on_end(r->arg, 0, NULL);
    }
}

int image_read_start(struct imagestore *is, const char *digest,
                     const struct image_read_events *events, void *arg, struct image_reader **ret,
                     struct un_error *err)
{
    (void)is;
    (void)digest;
    (void)err;
    the_reader = (struct image_reader){.events = events, .arg = arg};
    the_reader.post = (struct un_post){.fn = reader_step, .arg = &the_reader};
    un_loop_post(below.loop, &the_reader.post);
    *ret = &the_reader;
    return 0;
}

void image_read_next(struct image_reader *r)
{
    un_loop_post(below.loop, &r->post);
}

void image_read_abort(struct image_reader *r)
{
    un_loop_unpost(below.loop, &r->post);
    below.aborts++;
}

/* --- functions -------------------------------------------------------------------------------- */

const char *function_interface_name(enum function_interface i)
{
    return i == FUNCTION_FILTER ? "filter" : "sdk";
}

const char *function_driver_name(enum function_driver d)
{
    return d == FUNCTION_AUTO ? "auto" : "kvm";
}

const char *function_snapshot_name(enum function_snapshot s)
{
    return s == FUNCTION_SNAPSHOT_START ? "start" : "ready";
}

const char *function_isolation_name(enum function_isolation i)
{
    return i == FUNCTION_VM ? "vm" : "reset";
}

bool function_name_valid(const char *name)
{
    return *name && !name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-")];
}

bool function_alias_valid(const char *alias)
{
    return function_name_valid(alias);
}

int function_settle_interface(struct function_config *c, enum image_kind kind, struct un_error *err)
{
    c->interface = FUNCTION_SDK;
    return 0;
}

void function_config_done(struct function_config *c)
{
    (void)c;
}

int function_config_parse(const void *json, size_t len, struct function_config *ret,
                          struct un_error *err)
{
    snprintf(below.deployed, sizeof(below.deployed), "%.*s", (int)len, (const char *)json);
    memset(ret, 0, sizeof(*ret));
    return strstr(below.deployed, "bogus") ? un_error_set(err, -EINVAL, "bogus: unknown key") : 0;
}

static void go_version(struct later *l)
{
    CB(l, function_version_cb)(l->arg, l->rc, &versions[l->number], &l->err);
}

static void go_deployed(struct later *l)
{
    CB(l, function_deploy_cb)(l->arg, l->rc, &versions[0], true, &l->err);
}

void function_deploy(struct registry *r, const char *name, struct function_config *config,
                     function_deploy_cb cb, void *arg)
{
    (void)r;
    (void)name;
    (void)config;
    below.deploys++;
    later(go_deployed, (void (*)(void))cb, arg, 0);
}

struct function_version *function_ref(struct function_version *v)
{
    return v;
}

void function_unref(struct function_version *v)
{
    (void)v;
}

void function_resolve(struct registry *r, const char *name, const char *qualifier,
                      function_version_cb cb, void *arg)
{
    uint32_t version = qualifier ? (uint32_t)atoi(qualifier) : below.live;
    bool known = strcmp(name, "hello") == 0 && version >= 1 && version <= 3;
    (void)r;
    later(go_version, (void (*)(void))cb, arg, known ? 0 : -ENOENT)->number =
        known ? 3 - version : 0;
}

/* Told at once; nothing here depends on when. */
void function_find_missing(struct registry *r, const char *const *names, size_t count,
                           function_missing_cb cb, void *arg)
{
    bool missing[4];
    assert(count <= 4);
    for (size_t i = 0; i < count; i++) {
        missing[i] = strncmp(names[i], "hello", 5) != 0;
    }
    cb(arg, 0, missing, NULL);
}

static void go_versions(struct later *l)
{
    struct function_version *list[] = {&versions[0], &versions[1], &versions[2]};
    CB(l, function_list_cb)(l->arg, l->rc, list, l->number, &l->err);
}

void function_list(struct registry *r, const char *after, unsigned limit, function_list_cb cb,
                   void *arg)
{
    (void)r;
    later(go_versions, (void (*)(void))cb, arg, 0)->number = after ? 0 : limit < 1 ? limit : 1;
}

void function_versions(struct registry *r, const char *name, function_list_cb cb, void *arg)
{
    (void)r;
    later(go_versions, (void (*)(void))cb, arg, strcmp(name, "hello") ? -ENOENT : 0)->number = 3;
}

static void go_aliases(struct later *l)
{
    struct function_alias live = {.alias = "live", .version = below.live};
    CB(l, function_aliases_cb)(l->arg, l->rc, &live, 1, &l->err);
}

void function_aliases(struct registry *r, const char *name, function_aliases_cb cb, void *arg)
{
    (void)r;
    later(go_aliases, (void (*)(void))cb, arg, strcmp(name, "hello") ? -ENOENT : 0);
}

void function_remove_alias(struct registry *r, const char *name, const char *alias,
                           function_done_cb cb, void *arg)
{
    bool known = strcmp(name, "hello") == 0 && strcmp(alias, "stable") == 0;
    (void)r;
    later(go_done, (void (*)(void))cb, arg, known ? 0 : -ENOENT);
}

void function_set_alias(struct registry *r, const char *name, const char *alias, uint32_t version,
                        function_done_cb cb, void *arg)
{
    bool known = strcmp(name, "hello") == 0 && version <= 3;
    (void)r;
    if (known && strcmp(alias, "live") == 0) {
        below.live = version;
    }
    later(go_done, (void (*)(void))cb, arg, known ? 0 : -ENOENT);
}

void function_remove(struct registry *r, const char *name, function_done_cb cb, void *arg)
{
    (void)r;
    later(go_done, (void (*)(void))cb, arg, strcmp(name, "hello") ? -ENOENT : 0);
}

struct function_version *function_peek(struct registry *r, const char *name, const char *qualifier)
{
    return NULL;
}

void function_list_published(struct registry *r, const char *after, unsigned limit,
                             function_list_cb cb, void *arg)
{
    cb(arg, 0, NULL, 0, NULL);
}

void registry_on_change(struct registry *r, registry_change_fn fn, void *arg)
{
}

void registry_off_change(struct registry *r, registry_change_fn fn, void *arg)
{
}
