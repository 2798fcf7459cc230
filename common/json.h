/* json.h - typed access to jansson values with errors that name the path.
 *
 * The getters are for configuration and request bodies: an absent key leaves the output untouched
 * and returns 0 (so defaults are set beforehand); a wrong type or a value out of range is -EINVAL
 * with a text such as "memory_mib: must be a whole number from 2 to 65536".
 */
#ifndef UNID_COMMON_JSON_H
#define UNID_COMMON_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"

static inline void un_json_decrefp(json_t **j)
{
    json_decref(*j);
}
#define un_autojson __attribute__((cleanup(un_json_decrefp)))

/* Parses UTF-8 bytes; gives a reference (json_decref). Duplicate keys are refused, nesting is
 * bounded by jansson's own limit (2048). -EINVAL with line and column, -ENOMEM. */
int un_json_parse(const void *data, size_t len, json_t **ret, struct un_error *err);

int un_json_get_int(const json_t *obj, const char *key, int64_t least, int64_t most, int64_t *out,
                    struct un_error *err);
int un_json_get_bool(const json_t *obj, const char *key, bool *out, struct un_error *err);
/* Borrowed from `obj`. A string with an embedded NUL is refused. */
int un_json_get_str(const json_t *obj, const char *key, const char **out, struct un_error *err);
/* A string of bytes that may not be UTF-8: what is not ASCII is replaced then. null of NULL; NULL when out of memory. */
json_t *un_json_string(const char *text);
/* Refuses keys that are not in `known` (NULL-terminated), naming the first. */
int un_json_only_keys(const json_t *obj, const char *const *known, struct un_error *err);

/* Compact text (free with free()), NULL of NULL. NULL also when out of memory, now or at any time since this thread's
 * last un_json_text: members that could not be added would be missing. So whoever builds a value
 * and writes it at once need not check each step; whoever gives up in between calls
 * un_json_text(NULL), lest the next text of the thread be refused; for jobs, their threads do. */
char *un_json_text(const json_t *value);

#endif
