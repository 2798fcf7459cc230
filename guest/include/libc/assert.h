/* assert.h - ISO C 7.2: a failed assertion is logged and aborts the machine. */
#undef assert
#ifdef NDEBUG
#define assert(e) ((void)0)
#else
#include <stdlib.h>
#include <unid/unid.h>
#define assert(e)                                                                                  \
    ((e) ? (void)0                                                                                 \
         : (unid_log("%s:%d: %s: assertion failed: %s", __FILE__, __LINE__, __func__, #e),         \
            abort()))
#endif
#ifndef static_assert
#define static_assert _Static_assert
#endif
