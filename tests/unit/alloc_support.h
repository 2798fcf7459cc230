/* alloc_support.h - makes the n-th allocation of a flow fail. A test that uses it is linked with
 * $(ALLOC_WRAP), so that calls of malloc and its kin from our objects come here first; jansson's
 * come by common/json.c, SQLite's by a hook, libevent's and libcrypto's not at all. The tests' own files are
 * exempt from failing (calloc and strdup: $(ALLOC_EXEMPT)).
 *
 * Allocations of all threads are counted, so that which one is the n-th may differ from run to run;
 * what must hold does not: a flow ends, with success or a clean error, and leaks nothing. */
#ifndef UNID_TESTS_ALLOC_SUPPORT_H
#define UNID_TESTS_ALLOC_SUPPORT_H

#include <stdbool.h>

/* Before SQLite is used. */
void alloc_hook_sqlite(void);

/* From now on the n-th allocation fails (n from 1), that one only or all after it too. */
void alloc_fail_at(unsigned n, bool and_all_after);
/* For parts of a flow that are not what is tested: nothing fails meanwhile, and nothing counts. */
void alloc_hold(bool hold);
/* Nothing fails any more. Whether something has. */
bool alloc_fail_end(void);

/* Runs `flow` with its first allocation failing, then with its second, and so on until none fails;
 * and the same with all allocations after it failing too. It must give 0 or -ENOMEM each time, and
 * 0 at last. */
void alloc_fail_each(const char *name, int (*flow)(void *arg), void *arg);
/* The same with each step-th allocation only, for flows that have thousands. */
void alloc_fail_every(const char *name, unsigned step, int (*flow)(void *arg), void *arg);

#endif
