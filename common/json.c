/* json.c - see json.h. */
#include "common/json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"

/* jansson (2.14) goes on here and there when it cannot grow its buffer: a string is read without one
 * of its bytes (load.c: lex_save), an object is written without one of its keys (dump.c: do_dump).
 * So each failure is noted, and what was read, made or written while one happened does not count.
 */
static _Thread_local bool ran_out;

static void *note_malloc(size_t size)
{
    void *p = malloc(size);
    ran_out = ran_out || !p;
    return p;
}

__attribute__((constructor)) static void hook(void)
{
    json_set_alloc_funcs(note_malloc, free);
}

int un_json_parse(const void *data, size_t len, json_t **ret, struct un_error *err)
{
    json_error_t why;
    bool before = ran_out;
    ran_out = false;
    json_t *value = json_loadb(data, len, JSON_REJECT_DUPLICATES, &why);
    bool now = ran_out;
    ran_out = before;
    if (now) {
        json_decref(value);
        return un_error_set(err, -ENOMEM, "JSON: out of memory");
    }
    if (!value) {
        bool nul = json_error_code(&why) == json_error_null_character;
        return un_error_set(err, -EINVAL, "JSON: line %d, column %d: %s", why.line, why.column,
                            nul ? "a string must not have \\u0000 in it" : why.text);
    }
    *ret = value;
    return 0;
}

int un_json_get_int(const json_t *obj, const char *key, int64_t least, int64_t most, int64_t *out,
                    struct un_error *err)
{
    const json_t *v = json_object_get(obj, key);
    if (!v) {
        return 0;
    }
    if (!json_is_integer(v) || json_integer_value(v) < least || json_integer_value(v) > most) {
        return un_error_set(err, -EINVAL, "%s: must be a whole number from %" PRId64 " to %" PRId64,
                            key, least, most);
    }
    *out = json_integer_value(v);
    return 0;
}

int un_json_get_bool(const json_t *obj, const char *key, bool *out, struct un_error *err)
{
    const json_t *v = json_object_get(obj, key);
    if (!v) {
        return 0;
    }
    if (!json_is_boolean(v)) {
        return un_error_set(err, -EINVAL, "%s: must be true or false", key);
    }
    *out = json_is_true(v);
    return 0;
}

int un_json_get_str(const json_t *obj, const char *key, const char **out, struct un_error *err)
{
    const json_t *v = json_object_get(obj, key);
    if (!v) {
        return 0;
    }
    if (!json_is_string(v) || strlen(json_string_value(v)) != json_string_length(v)) {
        return un_error_set(err, -EINVAL, "%s: must be a string without NUL", key);
    }
    *out = json_string_value(v);
    return 0;
}

json_t *un_json_string(const char *text)
{
    json_t *j = text ? json_string(text) : json_null();
    if (j) {
        return j;
    }
    un_autofree char *copy = strdup(text);
    for (char *c = copy; c && *c; c++) {
        *c = (char)((unsigned char)*c < 0x80 ? *c : '?');
    }
    return copy ? json_string(copy) : NULL;
}

int un_json_only_keys(const json_t *obj, const char *const *known, struct un_error *err)
{
    if (!json_is_object(obj)) {
        return un_error_set(err, -EINVAL, "must be a JSON object");
    }
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)obj, key, value)
    {
        const char *const *k = known;
        while (*k && strcmp(*k, key) != 0) {
            k++;
        }
        if (!*k) {
            return un_error_set(err, -EINVAL, "unknown key \"%.64s\"", key);
        }
    }
    return 0;
}

char *un_json_text(const json_t *value)
{
    un_autofree char *text = value ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    bool whole = !ran_out;
    ran_out = false;
    return whole ? un_steal(&text) : NULL;
}
