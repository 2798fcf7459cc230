/* settle.c - see container.h: what a function's configuration takes from its image, as `docker run` would. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/container/container.h"
#include "common/bytes.h"
#include "common/cleanup.h"
#include "common/json.h"

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static int no_memory(struct un_error *err)
{
    return un_error_set(err, -ENOMEM, "out of memory");
}

static const char *word_at(const json_t *words, size_t i)
{
    const char *word = json_string_value(json_array_get(words, i));
    return word ? word : "";
}

/* A variable as the program will find it; NULL: it is not set. */
static const char *variable(const struct container_start *start, const char *key)
{
    return json_string_value(json_object_get(json_object_get(start->config, "env"), key));
}

static const char *workdir_of(const struct container_start *start)
{
    const char *dir = json_string_value(json_object_get(start->config, "workdir"));
    return dir ? dir : "/";
}

/* Adds to the line for people. */
static int tell(struct un_buf *line, const char *what, const char *value, struct un_error *err)
{
    return un_buf_printf(line, "%s%s %s", line->len ? ", " : "", what, value) < 0 ? no_memory(err)
                                                                                  : 0;
}

static int warn(struct container_start *start, const char *text, struct un_error *err)
{
    return json_array_append_new(start->warnings, un_json_string(text)) < 0 ? no_memory(err) : 0;
}

/* --- environment, directory, port ------------------------------------------------------------- */

static int settle_env(const struct container *c, struct container_start *start,
                      struct un_error *err)
{
    json_t *env = json_object_get(start->config, "env");
    if (!env && json_object_set_new(start->config, "env", env = json_object()) < 0) {
        return no_memory(err);
    }
    return json_object_update_missing(env, c->settings.env) < 0 ? no_memory(err) : 0;
}

/* It is made if it is not there, as for containers. */
static int settle_workdir(struct container *c, struct container_start *start, bool *ret_taken,
                          struct un_error *err)
{
    const char *dir = c->settings.workdir;
    if (json_object_get(start->config, "workdir") || !dir[strspn(dir, "/")]) {
        return 0;
    }
    *ret_taken = true;
    int rc = layers_make_directory(c->layers, dir, err);
    return rc == 0 && json_object_set_new(start->config, "workdir", json_string(dir)) < 0
               ? no_memory(err)
               : rc;
}

static int several_ports(const json_t *ports, struct un_error *err)
{
    un_autobuf struct un_buf text = {0};
    size_t i;
    const json_t *port;
    json_array_foreach(ports, i, port)
    {
        (void)un_buf_printf(&text, "%s%" JSON_INTEGER_FORMAT, i ? ", " : "",
                            json_integer_value(port));
    }
    return un_error_set(err, -EINVAL,
                        "the image exposes the ports %s, and a function serves one: say which "
                        "(--interface http --env PORT=%" JSON_INTEGER_FORMAT
                        "), or --interface filter for a program that reads standard input",
                        text.len ? (const char *)text.data : "",
                        json_integer_value(json_array_get(ports, 0)));
}

/* A port makes it a server of HTTP, on that port, unless the words say otherwise. */
static int settle_port(const struct container *c, struct container_start *start,
                       struct un_buf *line, struct un_error *err)
{
    const json_t *ports = c->settings.ports;
    json_t *interface = json_object_get(start->config, "interface");
    size_t count = json_array_size(ports);
    bool http = json_is_string(interface) && strcmp(json_string_value(interface), "http") == 0;
    char port[24];
    if (count == 0 || (interface && !http)) {
        return 0;
    }
    if (count > 1 && !http && !variable(start, "PORT")) {
        return several_ports(ports, err);
    }
    if (!http && json_object_set_new(start->config, "interface", json_string("http")) < 0) {
        return no_memory(err);
    }
    if (count > 1 || variable(start, "PORT")) {
        return 0;
    }
    snprintf(port, sizeof port, "%" JSON_INTEGER_FORMAT,
             json_integer_value(json_array_get(ports, 0)));
    if (json_object_set_new(json_object_get(start->config, "env"), "PORT", json_string(port)) < 0) {
        return no_memory(err);
    }
    return tell(line, "port", port, err);
}

/* --- the program ------------------------------------------------------------------------------ */

static bool is_program(struct container *c, const struct container_start *start, const char *path,
                       struct layers_entry *ret)
{
    return layers_find(c->layers, workdir_of(start), path, ret) == 0 && S_ISREG(ret->mode) &&
           (ret->mode & 0111);
}

/* Where a word leads as the name of a program: by PATH, or from the working directory. */
static bool find_program(struct container *c, const struct container_start *start, const char *word,
                         char ret[PATH_MAX])
{
    struct layers_entry e;
    const char *path = variable(start, "PATH"), *dir = workdir_of(start);
    if (strchr(word, '/')) {
        const char *rest = strncmp(word, "./", 2) == 0 ? word + 2 : word;
        const char *gap = dir[strlen(dir) - 1] == '/' ? "" : "/";
        int n = word[0] == '/' ? snprintf(ret, PATH_MAX, "%s", word)
                               : snprintf(ret, PATH_MAX, "%s%s%s", dir, gap, rest);
        return n < PATH_MAX && is_program(c, start, word, &e);
    }
    for (const char *p = path ? path : DEFAULT_PATH; *p && *word;) {
        size_t len = strcspn(p, ":");
        int n = snprintf(ret, PATH_MAX, "%.*s/%s", (int)len, p, word);
        if (p[0] == '/' && n < PATH_MAX && is_program(c, start, ret, &e)) {
            return true;
        }
        p += len + (p[len] == ':');
    }
    return false;
}

static bool is_shell(const char *path)
{
    static const char *const shells[] = {"sh", "ash", "bash", "dash"};
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    for (size_t i = 0; i < UN_ARRAY_SIZE(shells); i++) {
        if (strcmp(name, shells[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* The words of a command line in which a shell would see words only; NULL otherwise. */
static json_t *split(const char *command)
{
    static const char blank[] = " \t";
    json_t *words = json_array();
    for (const char *p = command; *p; p++) {
        if (!isalnum((unsigned char)*p) && !strchr("_-./:=@%+, \t", *p)) {
            json_decref(words);
            return NULL;
        }
    }
    for (const char *p = command + strspn(command, blank); *p; p += strspn(p, blank)) {
        size_t len = strcspn(p, blank);
        bool is_exec = json_array_size(words) == 0 && len == 4 && memcmp(p, "exec", 4) == 0;
        if (!is_exec && json_array_append_new(words, json_stringn(p, len)) < 0) {
            json_decref(words);
            return NULL;
        }
        p += len;
    }
    if (!json_array_size(words) || strchr(word_at(words, 0), '=')) {
        json_decref(words);
        return NULL;
    }
    return words;
}

/* What a shell is asked to start is started without it: programs cannot start others here. */
static void skip_shell(struct container *c, const struct container_start *start, json_t **words)
{
    char path[PATH_MAX];
    if (!is_shell(word_at(*words, 0)) || strcmp(word_at(*words, 1), "-c") != 0) {
        return;
    }
    json_t *direct = split(word_at(*words, 2));
    if (direct && find_program(c, start, word_at(direct, 0), path)) {
        json_decref(*words);
        *words = direct;
    } else {
        json_decref(direct);
    }
}

/* Whether the program is a script of a shell. */
static bool is_shell_script(struct container *c, const char *path)
{
    char head[256], *save = NULL;
    struct layers_entry e;
    if (layers_find(c->layers, "/", path, &e) < 0 || !S_ISREG(e.mode)) {
        return false;
    }
    size_t want = e.size < sizeof head - 1 ? (size_t)e.size : sizeof head - 1;
    ssize_t n = pread(c->fd, head, want, (off_t)e.at);
    if (n < 2 || head[0] != '#' || head[1] != '!') {
        return false;
    }
    head[n] = '\0';
    head[strcspn(head, "\n")] = '\0';
    const char *word = strtok_r(head + 2, " \t", &save);
    const char *base = word ? strrchr(word, '/') : NULL;
    if (base && strcmp(base, "/env") == 0) {
        word = strtok_r(NULL, " \t", &save);
    }
    return word && is_shell(word);
}

/* What may start another program, which cannot be. */
static int warn_of_shells(struct container *c, struct container_start *start, const json_t *words,
                          struct un_error *err)
{
    char text[PATH_MAX + 256];
    bool script = is_shell_script(c, start->program);
    if (!script && !(is_shell(start->program) && strcmp(word_at(words, 1), "-c") == 0)) {
        return 0;
    }
    snprintf(text, sizeof text,
             "%s is %s, and programs cannot start others here: if it does, name the one "
             "that is meant (unictl deploy NAME PROGRAM --rootfs IMAGE -- ARG...)",
             start->program, script ? "a script of a shell" : "a shell");
    return warn(start, text, err);
}

/* The words of the whole command line. */
static json_t *join_words(const struct container *c, const struct container_start *start)
{
    const json_t *given = json_object_get(start->config, "args");
    json_t *words =
        start->asked ? json_pack("[s]", start->asked) : json_deep_copy(c->settings.entrypoint);
    const json_t *rest = json_array_size(given) ? given : start->asked ? NULL : c->settings.cmd;
    size_t i;
    json_t *word;
    json_array_foreach(rest, i, word)
    {
        if (json_array_append(words, word) < 0) {
            json_decref(words);
            return NULL;
        }
    }
    return words;
}

static int settle_program(struct container *c, struct container_start *start, struct un_buf *line,
                          struct un_error *err)
{
    un_autojson json_t *words = join_words(c, start);
    if (!words) {
        return no_memory(err);
    }
    if (json_array_size(words) == 0) {
        return un_error_set(err, -EINVAL,
                            "the image does not say what runs in it (Entrypoint, Cmd): name the "
                            "program, as unictl deploy NAME PROGRAM --rootfs IMAGE");
    }
    skip_shell(c, start, &words);
    const char *word = word_at(words, 0);
    bool found = find_program(c, start, word, start->program);
    if (!found && start->asked && word[0] == '/' && strlen(word) < PATH_MAX) {
        snprintf(start->program, PATH_MAX, "%s", word); /* of --with, perhaps */
    } else if (!found) {
        const char *path = variable(start, "PATH");
        return un_error_set(err, -EINVAL,
                            "'%.200s' is no program in the image (PATH %.200s, working directory "
                            "%.100s)",
                            word, path ? path : DEFAULT_PATH, workdir_of(start));
    }
    int rc = warn_of_shells(c, start, words, err);
    if (rc == 0 && !start->asked) {
        rc = tell(line, "program", start->program, err);
    }
    if (rc == 0 &&
        (json_array_remove(words, 0) < 0 || json_object_set(start->config, "args", words) < 0)) {
        rc = no_memory(err);
    }
    return rc;
}

int container_settle(struct container *c, struct container_start *start, struct un_error *err)
{
    un_autobuf struct un_buf line = {0};
    bool workdir = false;
    int rc = settle_env(c, start, err);
    rc = rc < 0 ? rc : settle_workdir(c, start, &workdir, err); /* programs are found from there */
    rc = rc < 0 ? rc : settle_program(c, start, &line, err);
    rc = rc < 0 ? rc : settle_port(c, start, &line, err);
    if (rc == 0 && workdir) {
        rc = tell(&line, "working directory", c->settings.workdir, err);
    }
    if (rc == 0 && layers_left_out(c->layers) > 0) {
        char text[64];
        snprintf(text, sizeof text, "%u devices, pipes or sockets of the image are left out",
                 layers_left_out(c->layers));
        rc = warn(start, text, err);
    }
    if (rc == 0 && line.len) {
        rc = un_buf_append_str(&line, " (from the image)") < 0 ? no_memory(err) : 0;
        start->line = rc == 0 ? un_buf_steal_str(&line) : NULL;
    }
    return rc;
}
