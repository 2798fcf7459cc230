/* replay.c - runs a fuzz target over its stored corpus, as a test without a fuzzer.
 *
 *     replay_NAME [FILE|DIR]...
 *
 * Without arguments it takes $srcdir/tests/fuzz/corpus/NAME, NAME from the program's own name. An
 * empty corpus is an error: a test that tests nothing must not pass. For fuzzing, link the same
 * target, and what its fragment.am names beside it, with clang -fsanitize=fuzzer,address instead of
 * this file.
 */
#include <dirent.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path)
{
    FILE *f = fopen(path, "rbe");
    struct stat st;
    if (!f || fstat(fileno(f), &st) < 0) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        exit(2);
    }
    /* The exact size, so that AddressSanitizer sees a read past the input. */
    uint8_t *data = malloc((size_t)st.st_size + !st.st_size);
    if (!data || fread(data, 1, (size_t)st.st_size, f) != (size_t)st.st_size) {
        fprintf(stderr, "%s: cannot read\n", path);
        exit(2);
    }
    fclose(f);
    LLVMFuzzerTestOneInput(data, (size_t)st.st_size);
    free(data);
    return 1;
}

static int replay_path(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir) {
        return replay_file(path);
    }
    int count = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        if (e->d_name[0] == '.') {
            continue;
        }
        char full[4096];
        snprintf(full, sizeof full, "%s/%s", path, e->d_name);
        count += replay_file(full);
    }
    closedir(dir);
    return count;
}

int main(int argc, char **argv)
{
    int count = 0;
    for (int i = 1; i < argc; i++) {
        count += replay_path(argv[i]);
    }
    if (argc == 1) {
        const char *srcdir = getenv("srcdir"), *name = strstr(argv[0], "replay_");
        char path[4096];
        snprintf(path, sizeof path, "%s/tests/fuzz/corpus/%s", srcdir ? srcdir : ".",
                 name ? name + strlen("replay_") : "");
        count = replay_path(path);
    }
    printf("%d inputs replayed\n", count);
    return count > 0 ? 0 : 1;
}
