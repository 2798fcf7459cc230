/* manifest.c - see manifest.h. */
#include "cli/container/manifest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/limits.h"

#define OS           "linux"
#define ARCHITECTURE "amd64"
#define HOW_TO_GET                                                                                 \
    "docker pull --platform linux/amd64, docker build --platform linux/amd64, or "                 \
    "skopeo copy --override-arch amd64"

static int no_memory(struct un_error *err)
{
    return un_error_set(err, -ENOMEM, "out of memory");
}

/* A member that is a string; "" otherwise. */
static const char *text_of(const json_t *obj, const char *key)
{
    const json_t *value = json_object_get(obj, key);
    const char *text = json_string_value(value);
    return text && strlen(text) == json_string_length(value) ? text : "";
}

static int set_blob(struct container_blob *b, const char *name, struct un_error *err)
{
    static const char folder[] = "blobs/sha256/";
    size_t len = strlen(name);
    if (len == 0 || len >= sizeof b->name || name[0] == '/') {
        return un_error_set(err, -EINVAL, "'%.100s' is no name of a file in an image", name);
    }
    *b = (struct container_blob){.size = -1};
    memcpy(b->name, name, len + 1);
    const char *hex = name + strlen(folder);
    if (strncmp(name, folder, strlen(folder)) == 0 && strlen(hex) == CONTAINER_HEX_SIZE - 1 &&
        strspn(hex, "0123456789abcdef") == CONTAINER_HEX_SIZE - 1) {
        memcpy(b->sha256, hex, CONTAINER_HEX_SIZE);
    }
    return 0;
}

/* Of an OCI descriptor. */
static int read_descriptor(const json_t *descriptor, struct container_blob *ret,
                           struct un_error *err)
{
    char name[CONTAINER_NAME_SIZE] = "blobs/sha256/";
    const char *digest = text_of(descriptor, "digest");
    struct container_blob b = {.size = -1};
    int64_t size = -1;
    if (strncmp(digest, "sha256:", 7) != 0 || strlen(digest) != 7 + CONTAINER_HEX_SIZE - 1) {
        return un_error_set(err, -EINVAL, "'%.100s' is no digest of SHA-256", digest);
    }
    strcat(name, digest + 7);
    int rc = set_blob(&b, name, err);
    rc = rc < 0 ? rc : un_json_get_int(descriptor, "size", 0, INT64_MAX, &size, err);
    if (rc == 0 && !b.sha256[0]) {
        rc = un_error_set(err, -EINVAL, "'%.100s' is no digest of SHA-256", digest);
    }
    b.size = size;
    *ret = rc == 0 ? b : *ret;
    return rc;
}

void container_manifest_done(struct container_manifest *m)
{
    free(m->layers);
    *m = (struct container_manifest){0};
}

static int read_layers(const json_t *list, bool descriptors, struct container_manifest *ret,
                       struct un_error *err)
{
    size_t count = json_array_size(list), i;
    const json_t *one;
    if (!json_is_array(list) || count > LIMIT_CONTAINER_LAYERS) {
        return un_error_set(err, -EINVAL, "layers: must be a list of at most %d",
                            LIMIT_CONTAINER_LAYERS);
    }
    ret->layers = calloc(count + 1, sizeof *ret->layers);
    if (!ret->layers) {
        return no_memory(err);
    }
    json_array_foreach(list, i, one)
    {
        const char *name = json_string_value(one);
        int rc = descriptors ? read_descriptor(one, &ret->layers[i], err)
                             : set_blob(&ret->layers[i], name ? name : "", err);
        if (rc < 0) {
            return un_error_context(err, "layers[%zu]", i);
        }
        ret->count = i + 1;
    }
    return 0;
}

/* --- docker save ------------------------------------------------------------------------------ */

bool container_is_saved(const json_t *root)
{
    const json_t *first = json_array_get(root, 0);
    return json_is_string(json_object_get(first, "Config")) &&
           json_is_array(json_object_get(first, "Layers"));
}

/* Appends what an image is called. */
static void add_name(struct un_buf *names, const char *name)
{
    (void)un_buf_printf(names, "%s%.200s", names->len ? ", " : "", name);
}

static const char *names_text(const struct un_buf *names)
{
    return names->len ? (const char *)names->data : "none has a name";
}

static int several_images(const struct un_buf *names, struct un_error *err)
{
    return un_error_set(err, -EINVAL,
                        "the archive has several images (%s); save the one that is meant: docker "
                        "save NAME, or skopeo copy",
                        names_text(names));
}

int container_read_saved(const json_t *root, struct container_manifest *ret, struct un_error *err)
{
    struct container_manifest m = {0};
    const json_t *first = json_array_get(root, 0);
    if (json_array_size(root) > 1) {
        un_autobuf struct un_buf names = {0};
        size_t i, k;
        const json_t *image, *tag;
        json_array_foreach(root, i, image)
        {
            json_array_foreach(json_object_get(image, "RepoTags"), k, tag)
            {
                add_name(&names, json_is_string(tag) ? json_string_value(tag) : "");
            }
        }
        return several_images(&names, err);
    }
    int rc = set_blob(&m.config, text_of(first, "Config"), err);
    rc = rc < 0 ? rc : read_layers(json_object_get(first, "Layers"), false, &m, err);
    if (rc < 0) {
        container_manifest_done(&m);
        return un_error_context(err, "manifest.json");
    }
    *ret = m;
    return 0;
}

/* --- OCI -------------------------------------------------------------------------------------- */

bool container_is_index(const json_t *root)
{
    return json_is_array(json_object_get(root, "manifests"));
}

static const char *name_of(const json_t *descriptor)
{
    const json_t *notes = json_object_get(descriptor, "annotations");
    const char *full = text_of(notes, "io.containerd.image.name");
    const char *name = *full ? full : text_of(notes, "org.opencontainers.image.ref.name");
    return *name ? name : text_of(descriptor, "digest");
}

/* Whether it is for machines here, as far as it says; what it is for is added to `others` if not. Attestations, which
 * builders put beside images, are for "unknown". */
static bool is_for_us(const json_t *descriptor, struct un_buf *others)
{
    const json_t *platform = json_object_get(descriptor, "platform");
    const char *os = text_of(platform, "os"), *architecture = text_of(platform, "architecture");
    if (!*os && !*architecture) {
        return true;
    }
    if (strcmp(os, OS) == 0 && strcmp(architecture, ARCHITECTURE) == 0) {
        return true;
    }
    if (strcmp(architecture, "unknown") != 0) {
        (void)un_buf_printf(others, "%s%.40s/%.40s", others->len ? ", " : "", os, architecture);
    }
    return false;
}

int container_choose(const json_t *index, struct container_blob *ret, struct un_error *err)
{
    un_autobuf struct un_buf names = {0}, others = {0};
    const json_t *chosen = NULL, *one;
    bool several = false;
    size_t i;
    json_array_foreach(json_object_get(index, "manifests"), i, one)
    {
        if (!is_for_us(one, &others)) {
            continue;
        }
        several =
            several || (chosen && strcmp(text_of(one, "digest"), text_of(chosen, "digest")) != 0);
        add_name(&names, name_of(one));
        chosen = one;
    }
    if (!chosen) {
        return un_error_set(err, -EINVAL,
                            "the image is for %s, and machines here are " OS "/" ARCHITECTURE
                            " (" HOW_TO_GET ")",
                            others.len ? (const char *)others.data : "nothing");
    }
    if (several) {
        return several_images(&names, err);
    }
    int rc = read_descriptor(chosen, ret, err);
    return rc < 0 ? un_error_context(err, "manifests") : 0;
}

int container_read_manifest(const json_t *root, struct container_manifest *ret,
                            struct un_error *err)
{
    struct container_manifest m = {0};
    int rc = read_descriptor(json_object_get(root, "config"), &m.config, err);
    rc = rc < 0 ? un_error_context(err, "config")
                : read_layers(json_object_get(root, "layers"), true, &m, err);
    if (rc < 0) {
        container_manifest_done(&m);
        return un_error_context(err, "the image's manifest");
    }
    *ret = m;
    return 0;
}

/* --- how it is started ------------------------------------------------------------------------ */

void container_settings_done(struct container_settings *s)
{
    json_decref(s->entrypoint);
    json_decref(s->cmd);
    json_decref(s->env);
    json_decref(s->ports);
    *s = (struct container_settings){.workdir = ""};
}

/* A copy of a list of words; an empty one of null, and of what is not there. */
static int read_words(const json_t *config, const char *key, json_t **ret, struct un_error *err)
{
    const json_t *list = json_object_get(config, key), *word;
    json_t *words = json_array();
    size_t i;
    *ret = words;
    if (list && !json_is_null(list) && !json_is_array(list)) {
        return un_error_set(err, -EINVAL, "%s: must be a list", key);
    }
    json_array_foreach(list, i, word)
    {
        const char *text = json_string_value(word);
        if (!text || strlen(text) != json_string_length(word)) {
            return un_error_set(err, -EINVAL, "%s[%zu]: must be a string", key, i);
        }
        if (json_array_append_new(words, json_string(text)) < 0) {
            return no_memory(err);
        }
    }
    return words ? 0 : no_memory(err);
}

static int read_env(const json_t *config, json_t **ret, struct un_error *err)
{
    un_autojson json_t *list = NULL;
    const json_t *pair;
    size_t i;
    *ret = json_object();
    int rc = read_words(config, "Env", &list, err);
    json_array_foreach(list, i, pair)
    {
        const char *text = json_string_value(pair), *equals = strchr(text, '=');
        un_autofree char *key = strndup(text, equals ? (size_t)(equals - text) : 0);
        if (rc == 0 && equals && equals > text &&
            (!key || json_object_set_new(*ret, key, json_string(equals + 1)) < 0)) {
            rc = no_memory(err);
        }
    }
    return rc == 0 && !*ret ? no_memory(err) : rc;
}

static int by_number(const void *a, const void *b)
{
    const unsigned long *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* {"80/tcp": {}, "53/udp": {}, "8080": {}}: TCP is meant when nothing is said. */
static int read_ports(const json_t *config, json_t **ret, struct un_error *err)
{
    json_t *ports = json_object_get(config, "ExposedPorts"), *value;
    unsigned long numbers[64];
    size_t count = 0;
    const char *name;
    *ret = json_array();
    json_object_foreach(ports, name, value)
    {
        char *end;
        unsigned long port = strtoul(name, &end, 10);
        bool tcp = *end == '\0' || strcmp(end, "/tcp") == 0;
        if (end == name || port == 0 || port > UINT16_MAX) {
            return un_error_set(err, -EINVAL, "ExposedPorts: '%.100s' is no port", name);
        }
        if (tcp && count < UN_ARRAY_SIZE(numbers)) {
            numbers[count++] = port;
        }
    }
    qsort(numbers, count, sizeof numbers[0], by_number);
    for (size_t i = 0; i < count; i++) {
        if ((i == 0 || numbers[i] != numbers[i - 1]) &&
            json_array_append_new(*ret, json_integer((json_int_t)numbers[i])) < 0) {
            return no_memory(err);
        }
    }
    return *ret ? 0 : no_memory(err);
}

static int check_machine(const json_t *config, struct un_error *err)
{
    const char *os = text_of(config, "os"), *architecture = text_of(config, "architecture");
    bool good = (!*os || strcmp(os, OS) == 0) &&
                (!*architecture || strcmp(architecture, ARCHITECTURE) == 0);
    return good ? 0
                : un_error_set(err, -EINVAL,
                               "the image is for %.40s/%.40s, and machines here are " OS
                               "/" ARCHITECTURE " (" HOW_TO_GET ")",
                               *os ? os : OS, architecture);
}

int container_read_settings(const json_t *root, struct container_settings *ret,
                            struct un_error *err)
{
    const json_t *config = json_object_get(root, "config");
    struct container_settings s = {.workdir = text_of(config, "WorkingDir")};
    if (!json_is_object(root) || !json_is_object(json_object_get(root, "rootfs"))) {
        return un_error_set(err, -EINVAL,
                            "the image's configuration is none of a container: no \"rootfs\"");
    }
    int rc = check_machine(root, err);
    if (rc < 0) {
        return rc;
    }
    rc = read_words(config, "Entrypoint", &s.entrypoint, err);
    rc = rc < 0 ? rc : read_words(config, "Cmd", &s.cmd, err);
    rc = rc < 0 ? rc : read_env(config, &s.env, err);
    rc = rc < 0 ? rc : read_ports(config, &s.ports, err);
    if (rc == 0 && s.workdir[0] && s.workdir[0] != '/') {
        rc = un_error_set(err, -EINVAL, "WorkingDir: '%.200s' is no absolute path", s.workdir);
    }
    if (rc < 0) {
        container_settings_done(&s);
        return un_error_context(err, "the image's configuration");
    }
    *ret = s;
    return 0;
}
