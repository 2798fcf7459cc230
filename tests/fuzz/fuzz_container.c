/* fuzz_container.c - any bytes as a container image: as the whole archive, as a layer, and as each of its JSON
 * texts.
 *
 * What comes out is an error with a text, or a tree in which every name is one, comes behind its directory, and lies in
 * the temporary file.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/container/container.h"
#include "cli/container/source.h"
#include "common/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int truth)
{
    if (!truth) {
        abort();
    }
}

struct seen {
    char last[PATH_MAX];
    uint64_t end;
};

static int check_entry(void *arg, const struct layers_entry *e)
{
    struct seen *s = arg;
    size_t len = strlen(e->path);
    require(len > 0 && len < PATH_MAX && e->path[0] != '/' && e->path[len - 1] != '/');
    require(strcmp(e->path, s->last) != 0 && !strstr(e->path, "//"));
    require(!strstr(e->path, "/../") && strcmp(e->path, "..") != 0 &&
            strncmp(e->path, "../", 3) != 0);
    require(S_ISREG(e->mode) || S_ISDIR(e->mode) || S_ISLNK(e->mode));
    require(!e->hard || S_ISREG(e->mode));
    require(!e->text == !S_ISLNK(e->mode));
    require(!S_ISREG(e->mode) || (e->at <= s->end && e->size <= s->end - e->at));
    memcpy(s->last, e->path, len + 1);
    return 0;
}

static void check_tree(struct layers *l, int fd)
{
    struct seen *s = calloc(1, sizeof *s);
    struct stat st;
    require(s && fstat(fd, &st) == 0);
    s->end = (uint64_t)st.st_size;
    require(layers_list(l, check_entry, s) == 0);
    free(s);
}

/* Twice, so that the second finds what the first has left. */
static void try_layer(const uint8_t *data, size_t size)
{
    struct un_error err = UN_ERROR_INIT;
    struct layers *l;
    struct layers_entry e;
    int fd = memfd_create("fuzz", MFD_CLOEXEC), rc = 0;
    require(fd >= 0 && layers_new(fd, &l, &err) == 0);
    for (int i = 0; rc == 0 && i < 2; i++) {
        struct archive *a = source_archive_new(false);
        if (archive_read_open_memory(a, data, size) == ARCHIVE_OK) {
            rc = layers_apply(l, a, &err);
            require(rc == 0 || err.text[0]);
        }
        archive_read_free(a);
    }
    if (rc == 0) {
        (void)layers_find(l, "/a", "b/../c", &e);
        (void)layers_make_directory(l, "/a/b/c", &err);
        check_tree(l, fd);
    }
    layers_free(l);
    close(fd);
}

static void try_json(const uint8_t *data, size_t size)
{
    struct un_error err = UN_ERROR_INIT;
    struct container_manifest m = {0};
    struct container_settings s = {.workdir = ""};
    struct container_blob b;
    json_t *root = NULL;
    if (un_json_parse(data, size, &root, &err) < 0) {
        return;
    }
    err.text[0] = '\0';
    if (container_is_saved(root)) {
        require(container_read_saved(root, &m, &err) == 0 || err.text[0]);
        container_manifest_done(&m);
    }
    if (container_is_index(root)) {
        require(container_choose(root, &b, &err) == 0 || err.text[0]);
    }
    if (container_read_manifest(root, &m, &err) == 0) {
        for (size_t i = 0; i < m.count; i++) {
            require(strlen(m.layers[i].sha256) == 64 && !strstr(m.layers[i].name, ".."));
        }
    }
    container_manifest_done(&m);
    if (container_read_settings(root, &s, &err) == 0) {
        require(s.entrypoint && s.cmd && s.env && s.ports);
    }
    container_settings_done(&s);
    json_decref(root);
}

static void try_whole(const uint8_t *data, size_t size)
{
    struct un_error err = UN_ERROR_INIT;
    struct container *c = NULL;
    char path[32];
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    require(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int rc = container_open(path, &c, &err);
    require(rc == 0 || err.text[0]);
    if (c) {
        struct container_start start = {.config = json_object(), .warnings = json_array()};
        if (container_settle(c, &start, &err) == 0) {
            require(start.program[0] == '/');
        }
        check_tree(c->layers, c->fd);
        json_decref(start.config);
        json_decref(start.warnings);
        free(start.line);
    }
    container_free(c);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    try_whole(data, size);
    try_layer(data, size);
    try_json(data, size);
    return 0;
}
