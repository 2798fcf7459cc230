/* test_container.c - container images: what becomes of layers on top of each other, and what an image says of itself. */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/container/layers.h"
#include "cli/container/manifest.h"
#include "common/bytes.h"
#include "common/cleanup.h"
#include "common/json.h"

struct ground {
    struct layers *l;
    int fd;
    struct un_error err;
};

static int set_up(void **state)
{
    struct ground *g = calloc(1, sizeof *g);
    assert_non_null(g);
    g->fd = memfd_create("layers", MFD_CLOEXEC);
    assert_int_equal(layers_new(g->fd, &g->l, &g->err), 0);
    *state = g;
    return 0;
}

static int tear_down(void **state)
{
    struct ground *g = *state;
    layers_free(g->l);
    close(g->fd);
    free(g);
    return 0;
}

/* --- layers ----------------------------------------------------------------------------------- */

/* One entry: "d DIR", "f FILE=CONTENTS", "s LINK=TARGET", "h NAME=OTHER", "p PIPE". */
static void put_entry(struct archive *a, const char *text)
{
    static const mode_t kinds[] = {['d'] = AE_IFDIR | 0755,
                                   ['f'] = AE_IFREG | 0644,
                                   ['s'] = AE_IFLNK | 0777,
                                   ['h'] = AE_IFREG | 0644,
                                   ['p'] = AE_IFIFO | 0600};
    un_autofree char *copy = strdup(text);
    char *path = copy + 2, *equals = strchr(path, '=');
    struct archive_entry *e = archive_entry_new();
    const char *what = equals ? equals + 1 : "";
    if (equals) {
        *equals = '\0';
    }
    archive_entry_set_pathname(e, path);
    archive_entry_set_mode(e, kinds[(unsigned char)text[0]]);
    archive_entry_set_size(e, text[0] == 'f' ? (la_int64_t)strlen(what) : 0);
    if (text[0] == 's') {
        archive_entry_set_symlink(e, what);
    } else if (text[0] == 'h') {
        archive_entry_set_hardlink(e, what);
    }
    assert_int_equal(archive_write_header(a, e), ARCHIVE_OK);
    if (text[0] == 'f') {
        assert_int_equal(archive_write_data(a, what, strlen(what)), strlen(what));
    }
    archive_entry_free(e);
}

/* Puts a layer of such entries, separated by "; ", on top. */
static int apply(struct ground *g, const char *entries)
{
    static char bytes[1 << 16];
    size_t used = 0;
    char *save = NULL;
    un_autofree char *copy = strdup(entries);
    struct archive *a = archive_write_new();
    archive_write_set_format_pax_restricted(a);
    assert_int_equal(archive_write_open_memory(a, bytes, sizeof bytes, &used), ARCHIVE_OK);
    for (char *p = strtok_r(copy, ";", &save); p; p = strtok_r(NULL, ";", &save)) {
        put_entry(a, p + strspn(p, " "));
    }
    assert_int_equal(archive_write_close(a), ARCHIVE_OK);
    archive_write_free(a);
    struct archive *in = archive_read_new();
    archive_read_support_format_tar(in);
    assert_int_equal(archive_read_open_memory(in, bytes, used), ARCHIVE_OK);
    g->err = (struct un_error)UN_ERROR_INIT;
    int rc = layers_apply(g->l, in, &g->err);
    archive_read_free(in);
    return rc;
}

struct told {
    struct un_buf text;
    int fd;
};

static int tell(void *arg, const struct layers_entry *e)
{
    struct told *t = arg;
    char part[64] = "";
    if (S_ISREG(e->mode) && !e->hard) {
        assert_true(e->size < sizeof part);
        assert_int_equal(pread(t->fd, part, e->size, (off_t)e->at), e->size);
    }
    const char *what = e->hard ? e->hard : e->text ? e->text : part;
    char kind = e->hard ? 'h' : S_ISDIR(e->mode) ? 'd' : S_ISLNK(e->mode) ? 's' : 'f';
    return un_buf_printf(&t->text, "%s%c %s%s%s", t->text.len ? "; " : "", kind, e->path,
                         kind == 'd' ? "" : "=", kind == 'd' ? "" : what);
}

static void assert_tree(struct ground *g, const char *expected)
{
    struct told t = {.fd = g->fd};
    assert_int_equal(layers_list(g->l, tell, &t), 0);
    assert_string_equal(t.text.data ? (const char *)t.text.data : "", expected);
    un_buf_done(&t.text);
}

static void names_are_sorted_and_the_last_layer_wins(void **state)
{
    struct ground *g = *state;
    assert_int_equal(apply(g, "f b=1; f ./a-=2; d a; f a/z=3; f /a/b=4"), 0);
    assert_int_equal(apply(g, "f a/z=new; f c/d/e=5"), 0);
    assert_tree(g, "d a; f a/b=4; f a/z=new; f a-=2; f b=1; d c; d c/d; f c/d/e=5");
}

static void whiteouts_take_away_what_lower_layers_have(void **state)
{
    struct ground *g = *state;
    assert_int_equal(apply(g, "d a; f a/x=1; f a/y=2; d a/sub; f a/sub/z=3; f b=4; d c; f c/d=5"),
                     0);
    assert_int_equal(
        apply(g, "f a/.wh.x=; f .wh.b=; f .wh.c=; f .wh.nothing=; f no/.wh.where=; f a/sub/.wh..="),
        0);
    assert_tree(g, "d a; d a/sub; f a/sub/z=3; f a/y=2");
}

static void whiteouts_spare_their_own_layer(void **state)
{
    struct ground *g = *state;
    assert_int_equal(apply(g, "d a; f a/old=1; d b; f b/old=2; f c=3"), 0);
    /* Before and behind what it has itself. */
    assert_int_equal(apply(g,
                           "f a/.wh..wh..opq=; f a/new=1; d b/new; f b/new/x=2; f .wh.b=; f c=new; "
                           "f .wh.c="),
                     0);
    assert_tree(g, "d a; f a/new=1; d b; d b/new; f b/new/x=2; f c=new");
}

static void an_opaque_directory_has_nothing_of_lower_layers(void **state)
{
    struct ground *g = *state;
    assert_int_equal(apply(g, "d a; f a/1=; d a/2; f a/2/3=; f b="), 0);
    assert_int_equal(apply(g, "d a/2; f a/2/mine=; f a/.wh..wh..opq=; f a/.wh..wh.plnk="), 0);
    assert_tree(g, "d a; d a/2; f a/2/mine=; f b=");
    assert_int_equal(apply(g, "f .wh..wh..opq=; f .wh..wh.aufs=; f only="), 0);
    assert_tree(g, "f only=");
}

static void what_becomes_of_another_kind_is_replaced(void **state)
{
    struct ground *g = *state;
    assert_int_equal(apply(g, "d dir; f dir/x=1; f file=2; s link=dir"), 0);
    assert_int_equal(apply(g, "f dir=now; d file; f file/y=3; d link; f link/z=4"), 0);
    assert_tree(g, "f dir=now; d file; f file/y=3; d link; f link/z=4");
}

static void hard_links_are_names_of_one_file(void **state)
{
    struct ground *g = *state;
    assert_int_equal(apply(g, "f b=one; h c=b; d z; h a=b"), 0);
    assert_tree(g, "f a=one; h b=a; h c=a; d z");
}

static void hard_links_across_layers(void **state)
{
    struct ground *g = *state;
    assert_int_equal(apply(g, "f b=one; h c=b; s s=b"), 0);
    assert_int_equal(apply(g, "f b=two; h d=c; h e=s; h c=c; f .wh.c="), 0);
    assert_tree(g, "f b=two; f c=one; h d=c; s e=b; s s=b");
}

static void a_hard_link_to_nothing_is_refused(void **state)
{
    struct ground *g = *state;
    assert_int_equal(apply(g, "d d; h a=nothing"), -EINVAL);
    assert_non_null(strstr(g->err.text, "a: a hard link to nothing"));
    assert_int_equal(apply(g, "h a=d"), -EINVAL);
}

static void links_on_the_way_lead_inside(void **state)
{
    struct ground *g = *state;
    assert_int_equal(
        apply(g, "d usr/lib; s lib=usr/lib; s up=../../../usr; s abs=/usr/lib; s far=/new/dir"), 0);
    assert_int_equal(
        apply(g, "f lib/a=1; f up/b=2; f abs/c=3; f far/d=4; h lib/e=abs/c; f lib/.wh.none="), 0);
    assert_tree(g,
                "s abs=/usr/lib; s far=/new/dir; s lib=usr/lib; d new; d new/dir; f new/dir/d=4; "
                "s up=../../../usr; d usr; f usr/b=2; d usr/lib; f usr/lib/a=1; f usr/lib/c=3; "
                "h usr/lib/e=usr/lib/c");
}

static void paths_that_cannot_be_are_refused(void **state)
{
    struct ground *g = *state;
    assert_int_equal(apply(g, "f a/../../etc/passwd="), -EINVAL);
    assert_non_null(strstr(g->err.text, "\"..\""));
    assert_int_equal(apply(g, "s loop=loop; f loop/x="), -ELOOP);
    assert_int_equal(apply(g, "f file=; f file/x="), -ENOTDIR);
    assert_non_null(strstr(g->err.text, "file/x"));
}

static void devices_are_left_out_and_counted_elsewhere_than_in_dev(void **state)
{
    struct ground *g = *state;
    assert_int_equal(apply(g, "d dev; p dev/x; p run/pipe; f a="), 0);
    assert_int_equal(layers_left_out(g->l), 1);
    assert_tree(g, "f a=; d dev");
}

static void names_are_bounded_however_often_they_are_replaced(void **state)
{
    struct ground *g = *state;
    char text[2 + 2 + 4000 + 1] = "s a=";
    memset(text + 4, 'x', 4000);
    int rc = 0;
    for (int i = 0; rc == 0 && i < 20000; i++) {
        rc = apply(g, text);
    }
    assert_int_equal(rc, -EFBIG);
    assert_non_null(strstr(g->err.text, "64 MiB of names"));
}

static void a_damaged_layer_is_refused(void **state)
{
    struct ground *g = *state;
    struct archive *in = archive_read_new();
    archive_read_support_format_tar(in);
    archive_read_support_format_empty(in);
    assert_int_not_equal(archive_read_open_memory(in, "no archive at all", 17), ARCHIVE_OK + 1);
    assert_int_equal(layers_apply(g->l, in, &g->err), -EINVAL);
    archive_read_free(in);
}

static void a_path_is_found_through_links(void **state)
{
    struct ground *g = *state;
    struct layers_entry e;
    assert_int_equal(apply(g, "f bin/busybox=x; s bin/sh=busybox; s sbin=bin; s self=self"), 0);
    assert_int_equal(layers_find(g->l, "/", "/sbin/sh", &e), 0);
    assert_true(S_ISREG(e.mode) && e.size == 1);
    assert_int_equal(layers_find(g->l, "/bin", "./sh", &e), 0);
    assert_int_equal(layers_find(g->l, "/bin", "../../bin/./sh", &e), 0);
    assert_int_equal(layers_find(g->l, "/", "bin/ash", &e), -ENOENT);
    assert_int_equal(layers_find(g->l, "/", "bin/sh/x", &e), -ENOTDIR);
    assert_int_equal(layers_find(g->l, "/", "self", &e), -ELOOP);
    assert_int_equal(layers_make_directory(g->l, "/work/here", &g->err), 0);
    assert_int_equal(layers_find(g->l, "/work", "here", &e), 0);
    assert_true(S_ISDIR(e.mode));
    assert_int_equal(layers_make_directory(g->l, "/bin/sh", &g->err), -ENOTDIR);
}

/* --- what it says of itself ------------------------------------------------------------------- */

#define HEX_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define HEX_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

static json_t *json_of(const char *text)
{
    json_t *root = json_loads(text, 0, NULL);
    assert_non_null(root);
    return root;
}

static void a_manifest_names_its_blobs(void **state)
{
    struct ground *g = *state;
    struct container_manifest m;
    un_autojson json_t *good =
        json_of("{\"config\": {\"digest\": \"sha256:" HEX_A "\", \"size\": 7}, \"layers\": ["
                "{\"digest\": \"sha256:" HEX_B "\"}]}");
    assert_int_equal(container_read_manifest(good, &m, &g->err), 0);
    assert_string_equal(m.config.name, "blobs/sha256/" HEX_A);
    assert_int_equal(m.config.size, 7);
    assert_int_equal(m.count, 1);
    assert_string_equal(m.layers[0].sha256, HEX_B);
    assert_int_equal(m.layers[0].size, -1);
    container_manifest_done(&m);
    const char *const bad[] = {
        "{}",
        "[]",
        "{\"config\": {\"digest\": \"sha512:" HEX_A "\"}, \"layers\": []}",
        "{\"config\": {\"digest\": "
        "\"sha256:../../../../../../../../../../../../../../../../../../../"
        "etc/pass\"}, \"layers\": []}",
        "{\"config\": {\"digest\": \"sha256:" HEX_A "\", \"size\": -1}, \"layers\": []}",
        "{\"config\": {\"digest\": \"sha256:" HEX_A "\"}, \"layers\": {}}",
        "{\"config\": {\"digest\": \"sha256:" HEX_A "\"}, \"layers\": [\"" HEX_A "\"]}"};
    for (size_t i = 0; i < UN_ARRAY_SIZE(bad); i++) {
        un_autojson json_t *root = json_of(bad[i]);
        assert_int_equal(container_read_manifest(root, &m, &g->err), -EINVAL);
    }
}

static void an_index_gives_the_one_for_machines_here(void **state)
{
    struct ground *g = *state;
    struct container_blob b;
    un_autojson json_t *same = json_of(
        "{\"manifests\": [{\"digest\": \"sha256:" HEX_A "\"}, {\"digest\": \"sha256:" HEX_A "\"}, "
        "{\"digest\": \"sha256:" HEX_B "\", \"platform\": {\"os\": \"windows\", \"architecture\": "
        "\"amd64\"}}]}");
    assert_true(container_is_index(same));
    assert_int_equal(container_choose(same, &b, &g->err), 0);
    assert_string_equal(b.sha256, HEX_A);
    json_array_remove(json_object_get(same, "manifests"), 0);
    json_array_remove(json_object_get(same, "manifests"), 0);
    assert_int_equal(container_choose(same, &b, &g->err), -EINVAL);
    assert_non_null(strstr(g->err.text, "for windows/amd64, and machines here are linux/amd64"));
    un_autojson json_t *none = json_of("{\"manifests\": []}");
    assert_int_equal(container_choose(none, &b, &g->err), -EINVAL);
}

static void settings_are_those_of_a_container(void **state)
{
    struct ground *g = *state;
    struct container_settings s;
    un_autojson json_t *good = json_of("{\"architecture\": \"amd64\", \"os\": \"linux\", "
                                       "\"rootfs\": {}, \"config\": {\"Entrypoint\": "
                                       "[\"/app\", \"-x\"], \"Cmd\": null, \"Env\": [\"A=1=2\", "
                                       "\"odd\", \"=x\", \"B=\"], \"WorkingDir\": "
                                       "\"/srv\", \"ExposedPorts\": {\"8080/tcp\": {}, \"53/udp\": "
                                       "{}, \"80\": {}, \"80/tcp\": {}}}}");
    assert_int_equal(container_read_settings(good, &s, &g->err), 0);
    assert_int_equal(json_array_size(s.entrypoint), 2);
    assert_int_equal(json_array_size(s.cmd), 0);
    assert_int_equal(json_object_size(s.env), 2);
    assert_string_equal(json_string_value(json_object_get(s.env, "A")), "1=2");
    assert_string_equal(s.workdir, "/srv");
    assert_int_equal(json_array_size(s.ports), 2);
    assert_int_equal(json_integer_value(json_array_get(s.ports, 0)), 80);
    container_settings_done(&s);
    const char *const bad[] = {
        "[]",
        "{\"config\": {}}",
        "{\"rootfs\": {}, \"architecture\": \"arm64\"}",
        "{\"rootfs\": {}, \"os\": \"windows\"}",
        "{\"rootfs\": {}, \"config\": {\"Cmd\": \"sh\"}}",
        "{\"rootfs\": {}, \"config\": {\"Env\": [1]}}",
        "{\"rootfs\": {}, \"config\": {\"WorkingDir\": \"app\"}}",
        "{\"rootfs\": {}, \"config\": {\"ExposedPorts\": {\"http\": {}}}}",
        "{\"rootfs\": {}, \"config\": {\"ExposedPorts\": {\"70000/tcp\": {}}}}"};
    for (size_t i = 0; i < UN_ARRAY_SIZE(bad); i++) {
        un_autojson json_t *root = json_of(bad[i]);
        g->err = (struct un_error)UN_ERROR_INIT;
        assert_int_equal(container_read_settings(root, &s, &g->err), -EINVAL);
        assert_true(g->err.text[0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(names_are_sorted_and_the_last_layer_wins, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(whiteouts_take_away_what_lower_layers_have, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(whiteouts_spare_their_own_layer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_opaque_directory_has_nothing_of_lower_layers, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(what_becomes_of_another_kind_is_replaced, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(hard_links_are_names_of_one_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(hard_links_across_layers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_hard_link_to_nothing_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(links_on_the_way_lead_inside, set_up, tear_down),
        cmocka_unit_test_setup_teardown(paths_that_cannot_be_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(devices_are_left_out_and_counted_elsewhere_than_in_dev,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(names_are_bounded_however_often_they_are_replaced, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_damaged_layer_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_path_is_found_through_links, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_manifest_names_its_blobs, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_index_gives_the_one_for_machines_here, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(settings_are_those_of_a_container, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
