/* args.c - see args.h. */
#include "cli/args.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"

enum {
    LONG_BASE = 256,  /* getopt's values of long options start beyond all characters */
    OPTIONS_MAX = 64, /* in all tables of one verb */
    NEAREST_WORD_MAX = 32,
    SHOWN_SIZE = 64
};

/* The tables in getopt's form; `flat[i]` belongs to `longs[i]`. */
struct flat_options {
    const struct args_option *flat[OPTIONS_MAX];
    struct option longs[OPTIONS_MAX + 1];
    char shorts[2 * OPTIONS_MAX + 4];
    size_t count;
};

void args_done(struct args *a)
{
    free(a->operands);
    free(a->values);
    *a = (struct args){0};
}

static void flatten(const struct args_option *const *tables, enum args_mode mode,
                    struct flat_options *f)
{
    char *s = f->shorts;
    /* '+': stop at the first operand; '-': hand operands out in their place. ':': we report errors.
     */
    *s++ = mode == ARGS_UNTIL_OPERAND ? '+' : '-';
    *s++ = ':';
    for (size_t t = 0; tables[t]; t++) {
        for (const struct args_option *o = tables[t]; o->name && f->count < OPTIONS_MAX; o++) {
            f->flat[f->count] = o;
            f->longs[f->count] = (struct option){
                .name = o->name,
                .has_arg = o->value ? required_argument : no_argument,
                .val = LONG_BASE + (int)f->count,
            };
            f->count++;
            if (o->letter) {
                *s++ = o->letter;
                if (o->value) {
                    *s++ = ':';
                }
            }
        }
    }
    *s = '\0';
}

static const struct args_option *option_of(const struct flat_options *f, int code)
{
    if (code >= LONG_BASE) {
        return f->flat[code - LONG_BASE];
    }
    for (size_t i = 0; i < f->count; i++) {
        if (f->flat[i]->letter && f->flat[i]->letter == code) {
            return f->flat[i];
        }
    }
    return NULL;
}

/* Whether the word that getopt took for a long option spells its name in full. */
static bool spelled_out(const char *word, const struct args_option *option)
{
    if (strncmp(word, "--", 2) != 0) {
        return true;
    }
    size_t len = strcspn(word + 2, "=");
    return strlen(option->name) == len && strncmp(word + 2, option->name, len) == 0;
}

static int refuse(const struct flat_options *f, int code, const char *word, struct un_error *err)
{
    if (code == ':') {
        const struct args_option *o = option_of(f, optopt);
        return un_error_set(err, -EINVAL, "%s needs a value (%s)", word, o ? o->value : "VALUE");
    }
    if (optopt >= LONG_BASE) {
        return un_error_set(err, -EINVAL, "--%s takes no value", option_of(f, optopt)->name);
    }
    if (optopt > 0 && strncmp(word, "--", 2) != 0) {
        return un_error_set(err, -EINVAL, "unknown option -%c", optopt);
    }
    const char *names[OPTIONS_MAX + 1] = {NULL};
    for (size_t i = 0; i < f->count; i++) {
        names[i] = f->flat[i]->name;
    }
    char typed[NEAREST_WORD_MAX + 1] = "";
    size_t len = strcspn(word + 2, "=");
    if (len <= NEAREST_WORD_MAX) {
        memcpy(typed, word + 2, len);
    }
    const char *near = args_nearest(typed, names);
    return un_error_set(err, -EINVAL, "unknown option --%.*s%s%s%s", (int)len, word + 2,
                        near ? " (did you mean --" : "", near ? near : "", near ? "?)" : "");
}

/* Values are UTF-8 and not empty, but for these: what a script makes of a variable that is not set would mean something
 * else, and what is not UTF-8 cannot be sent as JSON. */
static const struct {
    const char *value;
    bool empty, bytes;
} free_values[] = {
    {"DATA", true, true},     {"WORDS", true, false}, {"FILE", false, true},
    {"DIR|TAR", false, true}, {"PATH", false, true},  {"K:V", false, true},
};

static int check_value(const struct args_option *o, const char *value, struct un_error *err)
{
    bool empty = false, bytes = false;
    for (size_t i = 0; o->value && i < UN_ARRAY_SIZE(free_values); i++) {
        if (strcmp(o->value, free_values[i].value) == 0) {
            empty = free_values[i].empty;
            bytes = free_values[i].bytes;
        }
    }
    if (o->value && !*value && !empty) {
        return un_error_set(err, -EINVAL, "--%s needs a value (%s), not an empty one", o->name,
                            o->value);
    }
    json_t *text = bytes ? NULL : json_string(value);
    bool ok = bytes || text;
    json_decref(text);
    return ok ? 0 : un_error_set(err, -EINVAL, "--%s: '%s' is not UTF-8", o->name, value);
}

static int read_options(int argc, char **argv, const struct flat_options *f, struct args *a,
                        struct un_error *err)
{
    opterr = 0;
    optind = 0; /* GNU: start afresh, also with another option string */
    for (;;) {
        const char *word = argv[optind ? optind : 1];
        int code = getopt_long(argc, argv, f->shorts, f->longs, NULL);
        if (code == -1) {
            return 0;
        }
        if (code == 1) {
            a->operands[a->operand_count++] = optarg;
            continue;
        }
        const struct args_option *o = code == '?' || code == ':' ? NULL : option_of(f, code);
        if (!o || !spelled_out(word, o)) {
            optopt = o ? 0 : optopt;
            return refuse(f, o ? '?' : code, word, err);
        }
        const char *value = optarg ? optarg : "";
        int rc = check_value(o, value, err);
        if (rc < 0) {
            return rc;
        }
        a->values[a->value_count++] = (struct args_value){o, value};
    }
}

int args_parse(int argc, char **argv, const struct args_option *const *tables, enum args_mode mode,
               struct args *ret, int *ret_used, struct un_error *err)
{
    if (argc > ARGS_MAX) {
        return un_error_set(err, -EINVAL, "too many words on the command line (%d of %d)", argc,
                            ARGS_MAX);
    }
    struct flat_options f = {.count = 0};
    flatten(tables, mode, &f);
    struct args a = {0};
    a.operands = calloc((size_t)argc + 1, sizeof(*a.operands));
    /* One word can bundle several letters, so the bound is the letters of all words. */
    size_t letters = 1;
    for (int i = 1; i < argc; i++) {
        letters += strlen(argv[i]) + 1;
    }
    a.values = calloc(letters, sizeof(*a.values));
    if (!a.operands || !a.values) {
        args_done(&a);
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    int rc = argc > 1 ? read_options(argc, argv, &f, &a, err) : 0;
    if (rc < 0) {
        args_done(&a);
        return rc;
    }
    int used = argc > 1 ? optind : argc;
    if (mode == ARGS_ALL) {
        a.rest = argv + used;
        a.rest_count = (size_t)(argc - used);
    }
    *ret = a;
    if (ret_used) {
        *ret_used = used;
    }
    return 0;
}

const char *args_get(const struct args *a, const char *name)
{
    for (size_t i = a->value_count; i > 0; i--) {
        if (strcmp(a->values[i - 1].option->name, name) == 0) {
            return a->values[i - 1].value;
        }
    }
    return NULL;
}

bool args_has(const struct args *a, const char *name)
{
    return args_get(a, name) != NULL;
}

const char *args_next(const struct args *a, const char *name, size_t *at)
{
    while (*at < a->value_count) {
        const struct args_value *v = &a->values[(*at)++];
        if (strcmp(v->option->name, name) == 0) {
            return v->value;
        }
    }
    return NULL;
}

/* Digits at the start of `text`, without sign or space; `*ret_end` is behind them. */
static int read_digits(const char *text, uint64_t *ret, const char **ret_end)
{
    uint64_t n = 0;
    const char *p = text;
    for (; *p >= '0' && *p <= '9'; p++) {
        if (__builtin_mul_overflow(n, 10u, &n) ||
            __builtin_add_overflow(n, (uint64_t)(*p - '0'), &n)) {
            return -ERANGE;
        }
    }
    if (p == text) {
        return -EINVAL;
    }
    *ret = n;
    *ret_end = p;
    return 0;
}

/* What was typed, cut so that what to do about it is still read. */
static const char *shown(const char *text, char buf[SHOWN_SIZE])
{
    if (snprintf(buf, SHOWN_SIZE, "%s", text) >= SHOWN_SIZE) {
        memcpy(buf + SHOWN_SIZE - 4, "...", 4);
    }
    return buf;
}

struct unit {
    const char *name;
    uint64_t factor;
};

static int read_unit(const char *text, const struct unit *units, size_t count, uint64_t *ret)
{
    uint64_t n;
    const char *end;
    int rc = read_digits(text, &n, &end);
    if (rc < 0) {
        return rc;
    }
    for (size_t i = 0; i < count; i++) {
        if (strcmp(end, units[i].name) == 0) {
            uint64_t scaled;
            if (__builtin_mul_overflow(n, units[i].factor, &scaled)) {
                return -ERANGE;
            }
            *ret = scaled;
            return 0;
        }
    }
    return -EINVAL;
}

int args_size(const char *text, uint64_t *ret_bytes, struct un_error *err)
{
    static const struct unit units[] = {
        {"", 1},
        {"K", 1ull << 10},
        {"M", 1ull << 20},
        {"G", 1ull << 30},
        {"T", 1ull << 40},
        {"KiB", 1ull << 10},
        {"MiB", 1ull << 20},
        {"GiB", 1ull << 30},
        {"TiB", 1ull << 40},
    };
    char buf[SHOWN_SIZE];
    int rc = read_unit(text, units, UN_ARRAY_SIZE(units), ret_bytes);
    if (rc == -ERANGE) {
        return un_error_set(err, rc, "'%s' is too large a size", shown(text, buf));
    }
    return rc < 0
               ? un_error_set(err, rc, "'%s' is no size: write it like 64M or 1G", shown(text, buf))
               : 0;
}

int args_duration(const char *text, uint64_t *ret_ms, struct un_error *err)
{
    static const struct unit units[] = {
        {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    char buf[SHOWN_SIZE];
    int rc = read_unit(text, units, UN_ARRAY_SIZE(units), ret_ms);
    if (rc == -ERANGE) {
        return un_error_set(err, rc, "'%s' is too long a time", shown(text, buf));
    }
    return rc < 0 ? un_error_set(err, rc, "'%s' is no time: write it like 500ms, 30s, 6h or 7d",
                                 shown(text, buf))
                  : 0;
}

int args_count(const char *text, uint64_t least, uint64_t most, uint64_t *ret, struct un_error *err)
{
    uint64_t n;
    const char *end;
    char buf[SHOWN_SIZE];
    int rc = read_digits(text, &n, &end);
    if (rc == -EINVAL || (rc == 0 && *end)) {
        return un_error_set(err, -EINVAL, "'%s' is no whole number from %llu to %llu",
                            shown(text, buf), (unsigned long long)least, (unsigned long long)most);
    }
    if (rc < 0 || n < least || n > most) {
        return un_error_set(err, -ERANGE, "%s is not from %llu to %llu", shown(text, buf),
                            (unsigned long long)least, (unsigned long long)most);
    }
    *ret = n;
    return 0;
}

/* The number of edits between two words of at most NEAREST_WORD_MAX letters: optimal string
 * alignment (Damerau 1964, without edits inside a swap). */
static unsigned edits(const char *a, const char *b)
{
    size_t la = strlen(a), lb = strlen(b);
    unsigned d[NEAREST_WORD_MAX + 1][NEAREST_WORD_MAX + 1];
    for (size_t i = 0; i <= la; i++) {
        for (size_t j = 0; j <= lb; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = (unsigned)(i + j);
                continue;
            }
            unsigned best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            best = d[i - 1][j] + 1 < best ? d[i - 1][j] + 1 : best;
            best = d[i][j - 1] + 1 < best ? d[i][j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                d[i - 2][j - 2] + 1 < best) {
                best = d[i - 2][j - 2] + 1;
            }
            d[i][j] = best;
        }
    }
    return d[la][lb];
}

const char *args_nearest(const char *word, const char *const *candidates)
{
    size_t len = strlen(word);
    if (len == 0 || len > NEAREST_WORD_MAX) {
        return NULL;
    }
    const char *nearest = NULL, *prefixed = NULL;
    unsigned least = 3, prefixes = 0;
    for (size_t i = 0; candidates[i]; i++) {
        if (strlen(candidates[i]) > NEAREST_WORD_MAX) {
            continue;
        }
        if (strncmp(candidates[i], word, len) == 0) {
            prefixed = candidates[i];
            prefixes++;
        }
        unsigned n = edits(word, candidates[i]);
        if (n < least && 2 * n < strlen(candidates[i]) + 1) {
            least = n;
            nearest = candidates[i];
        }
    }
    return prefixes == 1 ? prefixed : nearest;
}
