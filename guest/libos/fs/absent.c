/* absent.c - the names that a program looked up in vain before it asked for a request. When it fails then,
 * a file that was not taken along is the most likely reason, and the last of these names tell which.
 *
 * Not kept are names that programs do without every day, and those that no image can have.
 */
#include "fs/vfs.h"
#include "host.h"

enum { NAMES = 6, NAME_SIZE = 80 }; /* they fit into a line of the log */

static char names[NAMES][NAME_SIZE]; /* a ring; "" is none */
static unsigned next_name;

static bool has(const char *path, const char *part)
{
    size_t len = strlen(part);
    for (; *path; path++) {
        if (strncmp(path, part, len) == 0) {
            return true;
        }
    }
    return false;
}

/* glibc's loader looks into directories for kinds of CPUs first (ld.so(8), "Hardware capabilities"). */
static bool is_usual(const char *path)
{
    static const char *const parts[] = {"/glibc-hwcaps/", "-gnu/x86_64", "-gnu/haswell",
                                        "-gnu/avx512_1",  "-gnu/tls",    "/ld.so.",
                                        "/locale"};
    bool usual = strncmp(path, "/proc/", 6) == 0 || strncmp(path, "/sys/", 5) == 0;
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
        usual = usual || has(path, parts[i]);
    }
    return usual;
}

void absent_note(const char *path)
{
    if (host_has_request() || !path[0] || strlen(path) >= NAME_SIZE || is_usual(path)) {
        return;
    }
    for (unsigned i = 0; i < NAMES; i++) {
        if (strcmp(names[i], path) == 0) {
            return;
        }
    }
    memcpy(names[next_name % NAMES], path, strlen(path) + 1);
    next_name++;
}

void absent_tell(void)
{
    char text[NAMES * (NAME_SIZE + 2)] = "";
    size_t len = 0;
    for (unsigned i = 0; i < NAMES && !host_has_request(); i++) {
        const char *name = names[(next_name + i) % NAMES];
        if (name[0]) {
            len += (size_t)kformat(text + len, sizeof(text) - len, "%s%s", len ? ", " : "", name);
        }
    }
    if (len) {
        klog("not found before that (--with takes files along): %s", text);
    }
}
