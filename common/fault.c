/* fault.c - see fault.h. */
#include "common/fault.h"

#ifdef UNID_FAULT_INJECTION

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { POINTS_MAX = 16 };

struct plan {
    char point[48];
    int code; /* negative errno */
    unsigned from, passes;
    bool and_later, every;
};

static struct plan plans[POINTS_MAX];
static unsigned plan_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t from_environment = PTHREAD_ONCE_INIT;

static int errno_by_name(const char *name)
{
    for (int e = 1; e < 134; e++) {
        const char *known = strerrorname_np(e);
        if (known && strcmp(known, name) == 0) {
            return -e;
        }
    }
    return 0;
}

/* One "point=ENAME[@n[+]]". */
static int parse_plan(const char *text, struct plan *ret)
{
    char name[24], plus[2] = "";
    *ret = (struct plan){0};
    int n = sscanf(text, "%47[^=]=%23[A-Z0-9]@%u%1[+]", ret->point, name, &ret->from, plus);
    if (n < 2) {
        return -EINVAL;
    }
    ret->every = n == 2;
    ret->and_later = plus[0] == '+';
    ret->code = errno_by_name(name);
    return ret->code ? 0 : -EINVAL;
}

int un_fault_set(const char *text)
{
    struct plan parsed[POINTS_MAX];
    unsigned count = 0;
    char copy[512];
    snprintf(copy, sizeof copy, "%s", text ? text : "");
    char *save = NULL;
    for (char *one = strtok_r(copy, ",", &save); one; one = strtok_r(NULL, ",", &save)) {
        if (count == POINTS_MAX || parse_plan(one, &parsed[count]) < 0) {
            return -EINVAL;
        }
        count++;
    }
    pthread_mutex_lock(&lock);
    memcpy(plans, parsed, count * sizeof parsed[0]);
    plan_count = count;
    pthread_mutex_unlock(&lock);
    return 0;
}

static void read_environment(void)
{
    const char *text = getenv("UNID_FAULTS");
    if (text && un_fault_set(text) < 0) {
        fprintf(stderr, "UNID_FAULTS: cannot read \"%s\"\n", text);
        abort();
    }
}

int un_fault(const char *point)
{
    int code = 0;
    pthread_once(&from_environment, read_environment);
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < plan_count && code == 0; i++) {
        struct plan *p = &plans[i];
        if (strcmp(p->point, point) != 0) {
            continue;
        }
        p->passes++;
        if (p->every || p->passes == p->from || (p->and_later && p->passes > p->from)) {
            code = p->code;
        }
    }
    pthread_mutex_unlock(&lock);
    return code;
}

#else
typedef int un_fault_disabled; /* a translation unit must not be empty (ISO C) */
#endif
