/* test_volume.c - volumes: what they are made from, who may have them, what a crash or a full disk leaves;
 * and further images of machines, which functions keep as they keep their own. */
#include "tests/unit/image_support.h"

#include <dirent.h>

#include "imagestore/function.h"
#include "imagestore/volume.h"

#define MIB ((uint64_t)1 << 20)

struct volume_ground {
    struct image_ground ig;
    struct registry *r;
    struct volume_info info;
    size_t count;
    char kernel[IMAGE_DIGEST_SIZE], initrd[IMAGE_DIGEST_SIZE], raw[IMAGE_DIGEST_SIZE],
        qcow2[IMAGE_DIGEST_SIZE];
};

static void push_to(struct volume_ground *vg, const void *data, size_t len, char *ret)
{
    assert_int_equal(push(&vg->ig, data, len), 0);
    memcpy(ret, vg->ig.a.info.digest, IMAGE_DIGEST_SIZE);
}

static void push_all(struct volume_ground *vg)
{
    struct elf_file f;
    uint8_t *disk = calloc(1, 3 * MIB);
    char cpio[256] = "070701";
    memset(cpio + 6, '0', 104);
    elf_make(&f);
    elf_add_note(&f, "Xen", 18, "\0\0\x10\0", 4);
    push_to(vg, &f, sizeof f, vg->kernel);
    push_to(vg, cpio, sizeof cpio, vg->initrd);
    disk[510] = 0x55;
    disk[511] = 0xaa;
    memset(disk + 2 * MIB, 'x', MIB / 2); /* the rest is zeros */
    push_to(vg, disk, 3 * MIB, vg->raw);
    memset(disk, 0, 3 * MIB);
    memcpy(disk, "QFI\xfb\0\0\0\3", 8);
    disk[23] = 16;
    disk[27] = 1; /* 16 MiB: 0x1000000, big-endian at 24 */
    memcpy(disk + 24, "\0\0\0\0\1\0\0\0", 8);
    disk[46] = 0x10;
    push_to(vg, disk, 4096 * 4, vg->qcow2);
    free(disk);
}

static void open_registry(struct volume_ground *vg)
{
    struct un_error err = UN_ERROR_INIT;
    assert_int_equal(registry_open(vg->ig.g.loop, vg->ig.g.store, &vg->r, &err), 0);
}

static int set_up(void **state)
{
    struct volume_ground *vg = calloc(1, sizeof *vg);
    image_ground_open(&vg->ig);
    open_registry(vg);
    push_all(vg);
    *state = vg;
    return 0;
}

static int tear_down(void **state)
{
    struct volume_ground *vg = *state;
#ifdef UNID_FAULT_INJECTION
    un_fault_set(NULL);
#endif
    registry_close(vg->r);
    image_ground_close(&vg->ig);
    free(vg);
    return 0;
}

/* A new life of the daemon. */
static void start_again(struct volume_ground *vg)
{
    registry_close(vg->r);
    image_ground_stop(&vg->ig);
    image_ground_start(&vg->ig, 64 << 20);
    open_registry(vg);
}

/* --- calls ------------------------------------------------------------------------------------ */

static void on_volume(void *arg, int rc, const struct volume_info *info, bool created,
                      const struct un_error *err)
{
    struct volume_ground *vg = arg;
    if (info) {
        vg->info = *info;
    }
    vg->ig.a.created = created;
    answer_take(&vg->ig.a, rc, err);
}

static int create(struct volume_ground *vg, const char *name, uint64_t mib, const char *image)
{
    struct volume_spec spec = {.name = name, .size_bytes = mib * MIB, .image = image};
    volume_create(vg->ig.is, &spec, on_volume, vg);
    return answer_wait(&vg->ig);
}

static int look(struct volume_ground *vg, const char *name)
{
    volume_get(vg->ig.is, name, on_volume, vg);
    return answer_wait(&vg->ig);
}

static void on_volumes(void *arg, int rc, const struct volume_info *list, size_t count,
                       const struct un_error *err)
{
    struct volume_ground *vg = arg;
    vg->count = count;
    if (count > 0) {
        vg->info = list[0];
    }
    answer_take(&vg->ig.a, rc, err);
}

static size_t count(struct volume_ground *vg)
{
    volume_list(vg->ig.is, on_volumes, vg);
    assert_int_equal(answer_wait(&vg->ig), 0);
    return vg->count;
}

static int drop(struct volume_ground *vg, const char *name)
{
    volume_remove(vg->ig.is, name, on_done, &vg->ig.a);
    return answer_wait(&vg->ig);
}

static void on_deploy(void *arg, int rc, struct function_version *v, bool created,
                      const struct un_error *err)
{
    struct volume_ground *vg = arg;
    answer_take(&vg->ig.a, rc, err);
}

/* Deploys the kernel; `machine` is the inside of its object. */
static int deploy(struct volume_ground *vg, const char *name, const char *machine)
{
    struct function_config c;
    struct un_error err = UN_ERROR_INIT;
    char json[512];
    snprintf(json, sizeof json, "{\"image\":\"%s\",\"machine\":{%s}}", vg->kernel, machine);
    int rc = function_config_parse(json, strlen(json), &c, &err);
    if (rc < 0) {
        snprintf(vg->ig.a.text, sizeof vg->ig.a.text, "%s", err.text);
        return rc;
    }
    function_deploy(vg->r, name, &c, on_deploy, vg);
    return answer_wait(&vg->ig);
}

static int set_live(struct volume_ground *vg, const char *name, uint32_t version)
{
    function_set_alias(vg->r, name, "live", version, on_done, &vg->ig.a);
    return answer_wait(&vg->ig);
}

static void assert_says(struct volume_ground *vg, const char *word)
{
    if (!strstr(vg->ig.a.text, word)) {
        fail_msg("\"%s\" does not say \"%s\"", vg->ig.a.text, word);
    }
}

static const char *file_of(struct volume_ground *vg, const char *name)
{
    static char path[200];
    snprintf(path, sizeof path, "%s/volumes/%s", vg->ig.g.dir, name);
    return path;
}

static unsigned files(struct volume_ground *vg)
{
    DIR *dir = opendir(file_of(vg, "."));
    unsigned n = 0;
    assert_non_null(dir);
    while (readdir(dir)) {
        n++;
    }
    closedir(dir);
    return n - 2;
}

static void put_file(struct volume_ground *vg, const char *name, const char *text)
{
    FILE *f = fopen(file_of(vg, name), "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* --- making and removing ---------------------------------------------------------------------- */

static void an_empty_volume_is_sparse_and_stays(void **state)
{
    struct volume_ground *vg = *state;
    const char *format = NULL;
    char path[256];
    struct un_error err = UN_ERROR_INIT;
    assert_int_equal(create(vg, "data", 1024, NULL), 0);
    assert_true(vg->ig.a.created);
    assert_string_equal(vg->info.format, "raw");
    assert_int_equal(vg->info.size_bytes, 1024 * MIB);
    assert_true(vg->info.allocated_bytes < MIB);
    assert_int_equal(create(vg, "data", 1024, NULL), 0);
    assert_false(vg->ig.a.created);
    assert_int_equal(create(vg, "data", 2048, NULL), -EEXIST);
    assert_int_equal(create(vg, "data", 0, vg->raw), -EEXIST);
    start_again(vg);
    assert_int_equal(look(vg, "data"), 0);
    assert_int_equal(vg->info.size_bytes, 1024 * MIB);
    assert_int_equal(count(vg), 1);
    assert_int_equal(volume_place(vg->ig.is, "data", path, sizeof path, &format, &err), 0);
    assert_string_equal(format, "raw");
    assert_string_equal(path, file_of(vg, "data"));
    assert_int_equal(drop(vg, "data"), 0);
    assert_int_equal(volume_place(vg->ig.is, "data", path, sizeof path, &format, &err), -ENOENT);
    assert_int_equal(look(vg, "data"), -ENOENT);
    assert_int_equal(drop(vg, "data"), -ENOENT);
    assert_int_equal(files(vg), 0);
}

static void a_volume_begins_as_an_image(void **state)
{
    struct volume_ground *vg = *state;
    assert_int_equal(create(vg, "same", 0, vg->raw), 0);
    assert_int_equal(vg->info.size_bytes, 3 * MIB);
    assert_true(vg->info.allocated_bytes >= MIB / 2 && vg->info.allocated_bytes < 2 * MIB);
    assert_string_equal(vg->info.image, vg->raw);
    assert_int_equal(create(vg, "larger", 8, vg->raw), 0);
    assert_int_equal(vg->info.size_bytes, 8 * MIB);
    assert_int_equal(create(vg, "smaller", 2, vg->raw), -EINVAL);
    assert_says(vg, "the image has 3 MiB");
    assert_int_equal(create(vg, "packed", 0, vg->qcow2), 0);
    assert_string_equal(vg->info.format, "qcow2");
    assert_int_equal(vg->info.size_bytes, 16 * MIB);
    assert_int_equal(create(vg, "packed2", 16, vg->qcow2), -EINVAL);
    assert_says(vg, "qemu-img resize");
    assert_int_equal(create(vg, "kernel", 0, vg->kernel), -EINVAL);
    assert_says(vg, "no disk image");
    assert_int_equal(files(vg), 3);
    uint8_t *got = malloc(8 * MIB);
    FILE *f = fopen(file_of(vg, "larger"), "r");
    assert_int_equal(fread(got, 1, 8 * MIB, f), 8 * MIB);
    fclose(f);
    assert_true(got[511] == 0xaa && got[2 * MIB] == 'x' && got[2 * MIB + MIB / 2] == 0);
    free(got);
}

static void what_makes_no_sense_is_refused(void **state)
{
    struct volume_ground *vg = *state;
    assert_int_equal(create(vg, "Data", 1, NULL), -EINVAL);
    assert_int_equal(create(vg, "../x", 1, NULL), -EINVAL);
    assert_int_equal(create(vg, "data", 0, NULL), -EINVAL);
    assert_says(vg, "size_mib: is missing");
    assert_int_equal(create(vg, "data", (uint64_t)1 << 25, NULL), -EINVAL);
    assert_int_equal(create(vg, "data", 1, "sha256:1"), -EINVAL);
    assert_int_equal(
        create(vg, "data", 1,
               "sha256:0000000000000000000000000000000000000000000000000000000000000000"),
        -ENOENT);
    assert_int_equal(look(vg, "../x"), -ENOENT);
    assert_int_equal(count(vg), 0);
    assert_int_equal(files(vg), 0);
}

static void one_flow_at_a_time_is_about_a_volume(void **state)
{
    struct volume_ground *vg = *state;
    struct volume_spec spec = {.name = "data", .image = vg->raw};
    struct volume_ground other = {.ig.a.g = &vg->ig.g};
    volume_create(vg->ig.is, &spec, on_volume, &other);
    assert_int_equal(drop(vg, "data"), -EBUSY);
    while (other.ig.a.calls == 0) {
        answer_wait(&vg->ig);
    }
    assert_int_equal(other.ig.a.rc, 0);
    assert_int_equal(drop(vg, "data"), 0);
}

static void what_a_crash_left_is_settled_and_nothing_else_touched(void **state)
{
    struct volume_ground *vg = *state;
    assert_int_equal(create(vg, "made", 1, NULL), 0);
    assert_int_equal(create(vg, "kept", 1, NULL), 0);
    char from[200];
    strcpy(from, file_of(vg, "made"));
    assert_int_equal(rename(from, file_of(vg, ".made.part")), 0); /* row there, name not yet */
    put_file(vg, ".kept.part", "not needed");
    put_file(vg, ".never.part", "half");
    put_file(vg, "foreign", "somebody's");
    put_file(vg, ".foreign", "somebody's");
    start_again(vg);
    assert_int_equal(access(file_of(vg, "made"), F_OK), 0);
    assert_int_equal(access(file_of(vg, "kept"), F_OK), 0);
    assert_int_equal(access(file_of(vg, "foreign"), F_OK), 0);
    assert_int_equal(files(vg), 4);
    assert_int_equal(count(vg), 2);
}

/* --- who has it ------------------------------------------------------------------------------- */

static void a_volume_belongs_to_one_live_version(void **state)
{
    struct volume_ground *vg = *state;
    assert_int_equal(deploy(vg, "db", "\"service\":true,\"volumes\":[\"data\"]"), -EINVAL);
    assert_says(vg, "unictl volume create data --size 1G");
    assert_int_equal(create(vg, "data", 1, NULL), 0);
    assert_int_equal(deploy(vg, "db", "\"volumes\":[\"data\"]"), -EINVAL);
    assert_says(vg, "--service");
    assert_int_equal(
        deploy(vg, "db", "\"service\":true,\"max_instances\":2,\"volumes\":[\"data\"]"), -EINVAL);
    assert_int_equal(deploy(vg, "db", "\"service\":true,\"volumes\":[\"data\",\"data\"]"), -EINVAL);
    assert_int_equal(deploy(vg, "db", "\"service\":true,\"volumes\":[\"data\"]"), 0);
    assert_int_equal(look(vg, "data"), 0);
    assert_string_equal(vg->info.used_by, "db");
    assert_int_equal(drop(vg, "data"), -EBUSY);
    assert_says(vg, "used by function db");
    assert_int_equal(files(vg), 1);
    assert_int_equal(deploy(vg, "other", "\"service\":true,\"volumes\":[\"data\"]"), -EBUSY);
    assert_says(vg, "used by function db");
    assert_int_equal(deploy(vg, "db", "\"service\":true,\"port\":81,\"volumes\":[\"data\"]"), 0);
    assert_int_equal(deploy(vg, "db", "\"service\":true"), 0); /* lets go of it */
    assert_int_equal(deploy(vg, "other", "\"service\":true,\"volumes\":[\"data\"]"), 0);
    assert_int_equal(set_live(vg, "db", 1), -EBUSY);
    function_remove(vg->r, "other", on_done, &vg->ig.a);
    assert_int_equal(answer_wait(&vg->ig), 0);
    assert_int_equal(set_live(vg, "db", 1), 0);
    assert_int_equal(set_live(vg, "db", 3), 0);
    assert_int_equal(drop(vg, "data"), 0);
    assert_int_equal(set_live(vg, "db", 1), -EINVAL);
}

static void further_images_are_kept_for_functions(void **state)
{
    struct volume_ground *vg = *state;
    char machine[300];
    snprintf(machine, sizeof machine, "\"initrd\":\"%s\"", vg->raw);
    assert_int_equal(deploy(vg, "web", machine), -EINVAL);
    assert_says(vg, "machine: initrd: ");
    assert_says(vg, "of kind disk, it must be initrd");
    snprintf(machine, sizeof machine, "\"initrd\":\"%s\",\"disk\":\"%s\"", vg->initrd, vg->raw);
    assert_int_equal(deploy(vg, "web", machine), 0);
    assert_int_equal(get(&vg->ig, vg->initrd), 0);
    assert_int_equal(vg->ig.a.info.function_versions, 1);
    image_remove(vg->ig.is, vg->raw, on_done, &vg->ig.a);
    assert_int_equal(answer_wait(&vg->ig), -EBUSY);
    assert_says(vg, "function web, version 1");
    image_collect_garbage(vg->ig.is, 0, on_done, &vg->ig.a);
    assert_int_equal(answer_wait(&vg->ig), 0);
    assert_int_equal(get(&vg->ig, vg->raw), 0);
    assert_int_equal(get(&vg->ig, vg->initrd), 0);
    assert_int_equal(get(&vg->ig, vg->qcow2), -ENOENT);
    function_remove(vg->r, "web", on_done, &vg->ig.a);
    assert_int_equal(answer_wait(&vg->ig), 0);
    image_collect_garbage(vg->ig.is, 0, on_done, &vg->ig.a);
    assert_int_equal(answer_wait(&vg->ig), 0);
    assert_int_equal(get(&vg->ig, vg->initrd), -ENOENT);
}

#ifdef UNID_FAULT_INJECTION
static void a_full_disk_leaves_nothing_half_made(void **state)
{
    struct volume_ground *vg = *state;
    static const char *const plans[] = {"store.room=ENOSPC", "volume.write=ENOSPC",
                                        "store.step=ENOSPC", "store.commit=ENOSPC"};
    for (size_t i = 0; i < UN_ARRAY_SIZE(plans); i++) {
        un_fault_set(plans[i]);
        int rc = create(vg, "data", 4, NULL);
        un_fault_set(NULL);
        assert_int_equal(rc, -ENOSPC);
        assert_int_equal(files(vg), 0);
        assert_int_equal(look(vg, "data"), -ENOENT);
    }
    assert_int_equal(create(vg, "data", 4, NULL), 0);
}

static void a_removal_that_fails_keeps_the_volume(void **state)
{
    struct volume_ground *vg = *state;
    static const char *const plans[] = {"store.step=EIO", "store.commit=EIO", "volume.rename=EIO"};
    assert_int_equal(create(vg, "data", 4, NULL), 0);
    for (size_t i = 0; i < UN_ARRAY_SIZE(plans); i++) {
        un_fault_set(plans[i]);
        int rc = drop(vg, "data");
        un_fault_set(NULL);
        assert_int_equal(rc, -EIO);
        assert_int_equal(access(file_of(vg, "data"), F_OK), 0);
        assert_int_equal(look(vg, "data"), 0);
    }
    assert_int_equal(drop(vg, "data"), 0);
}

static void a_volume_that_could_not_get_its_name_gets_it_at_the_next_start(void **state)
{
    struct volume_ground *vg = *state;
    un_fault_set("volume.rename=EIO");
    assert_int_equal(create(vg, "data", 4, NULL), -EIO);
    un_fault_set(NULL);
    start_again(vg);
    assert_int_equal(look(vg, "data"), 0);
    assert_int_equal(access(file_of(vg, "data"), F_OK), 0);
}
#endif

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_empty_volume_is_sparse_and_stays),
        TEST(a_volume_begins_as_an_image),
        TEST(what_makes_no_sense_is_refused),
        TEST(one_flow_at_a_time_is_about_a_volume),
        TEST(what_a_crash_left_is_settled_and_nothing_else_touched),
        TEST(a_volume_belongs_to_one_live_version),
        TEST(further_images_are_kept_for_functions),
#ifdef UNID_FAULT_INJECTION
        TEST(a_full_disk_leaves_nothing_half_made),
        TEST(a_removal_that_fails_keeps_the_volume),
        TEST(a_volume_that_could_not_get_its_name_gets_it_at_the_next_start),
#endif
    };
    return cmocka_run_group_tests_name("volume", tests, NULL, NULL);
}
