/* shebang.c - see shebang.h. */
#include "cli/collect/shebang.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

static const char blanks[] = " \t\n\v\f\r";

struct split {
    const char *at;
    char quote; /* that is open, or 0 */
    bool in_word, ended;
    struct shebang *ret;
    char *out;
};

/* Quotes begin a word even when nothing is between them. */
static int begin_word(struct split *s, struct un_error *err)
{
    if (s->in_word) {
        return 0;
    }
    if (s->ret->count == SHEBANG_WORDS) {
        return un_error_set(err, -E2BIG, "more than %d words", SHEBANG_WORDS);
    }
    s->ret->words[s->ret->count++] = s->out;
    s->in_word = true;
    return 0;
}

static void end_word(struct split *s)
{
    if (s->in_word) {
        *s->out++ = '\0';
        s->in_word = false;
    }
}

static int add(struct split *s, char c, struct un_error *err)
{
    int rc = begin_word(s, err);
    if (rc == 0) {
        *s->out++ = c;
    }
    return rc;
}

/* What stands behind a backslash, outside of single quotes. */
static int escape(struct split *s, struct un_error *err)
{
    static const char names[] = "fnrtv", values[] = "\f\n\r\t\v";
    char c = *s->at;
    const char *control = c ? strchr(names, c) : NULL;
    if (!c) {
        return un_error_set(err, -EINVAL, "a backslash at the end");
    }
    s->at++;
    if (c == '_' && !s->quote) {
        end_word(s);
        return 0;
    }
    if (c == 'c' && !s->quote) {
        s->ended = true;
        return 0;
    }
    if (control || c == '_') {
        return add(s, control ? values[control - names] : ' ', err);
    }
    return strchr("\"#$'\\", c) ? add(s, c, err)
                                : un_error_set(err, -EINVAL, "'\\%c' stands for nothing%s", c,
                                               c == 'c' ? " in double quotes" : "");
}

static int take(struct split *s, struct un_error *err)
{
    char c = *s->at++;
    bool single = s->quote == '\'';
    if (c == s->quote) {
        s->quote = '\0';
        return 0;
    }
    if (!s->quote && (c == '\'' || c == '"')) {
        s->quote = c;
        return begin_word(s, err);
    }
    if (!s->quote && strchr(blanks, c)) {
        end_word(s);
        return 0;
    }
    if (!s->in_word && c == '#') {
        s->ended = true;
        return 0;
    }
    if (c == '\\' && (!single || *s->at == '\\' || *s->at == '\'')) {
        return single ? add(s, *s->at++, err) : escape(s, err);
    }
    if (c == '$' && !single) {
        return un_error_set(err, -EINVAL,
                            "variables are not looked up; write what %.*s stands for, or '\\$'",
                            (int)strcspn(s->at, blanks) + 1, s->at - 1);
    }
    return add(s, c, err);
}

int shebang_split(const char *line, struct shebang *ret, struct un_error *err)
{
    struct split s = {.at = line, .ret = ret, .out = ret->text};
    int rc = 0;
    ret->count = 0;
    if (strlen(line) > SHEBANG_BYTES) {
        return un_error_set(err, -E2BIG, "longer than %d bytes", SHEBANG_BYTES);
    }
    while (rc == 0 && *s.at && !s.ended) {
        rc = take(&s, err);
    }
    end_word(&s);
    ret->words[ret->count] = NULL;
    if (rc == 0 && s.quote) {
        rc = un_error_set(err, -EINVAL, "a quote (%c) is not closed", s.quote);
    }
    return rc;
}
