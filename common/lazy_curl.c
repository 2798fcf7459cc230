/* lazy_curl.c - libcurl, loaded when it is first needed.
 *
 * Linked at the start libcurl and the twenty libraries that it brings cost an idle daemon 3 MiB, and most
 * never use it. So these functions stand in for those that are used, and hand on to libcurl.so.4, which
 * the first handle, list or URL loads; where it is missing, making that fails, as libcurl's own may. What is
 * variadic takes one pointer-sized argument in every use (libcurl's curl.h, CURLOPTTYPE_* and CURLINFO_*).
 */
#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>

#undef curl_easy_setopt
#undef curl_easy_getinfo

static struct {
    CURLcode (*global_init)(long flags);
    CURL *(*easy_init)(void);
    void (*easy_cleanup)(CURL *h);
    CURLcode (*easy_perform)(CURL *h);
    CURLcode (*easy_setopt)(CURL *h, CURLoption option, ...);
    CURLcode (*easy_getinfo)(CURL *h, CURLINFO info, ...);
    const char *(*easy_strerror)(CURLcode code);
    void (*free)(void *p);
    struct curl_slist *(*slist_append)(struct curl_slist *list, const char *text);
    void (*slist_free_all)(struct curl_slist *list);
    CURLU *(*url)(void);
    void (*url_cleanup)(CURLU *u);
    CURLUcode (*url_get)(CURLU *u, CURLUPart what, char **part, unsigned int flags);
    CURLUcode (*url_set)(CURLU *u, CURLUPart what, const char *part, unsigned int flags);
} real;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int loaded;

static void load(void)
{
    static const struct {
        const char *name;
        size_t at;
    } names[] = {
#define NAME(f) {"curl_" #f, offsetof(__typeof__(real), f)}
        NAME(global_init),  NAME(easy_init),      NAME(easy_cleanup),  NAME(easy_perform),
        NAME(easy_setopt),  NAME(easy_getinfo),   NAME(easy_strerror), NAME(free),
        NAME(slist_append), NAME(slist_free_all), NAME(url),           NAME(url_cleanup),
        NAME(url_get),      NAME(url_set),
#undef NAME
    };
    void *library = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
    for (size_t i = 0; library && i < sizeof(names) / sizeof(names[0]); i++) {
        void *f = dlsym(library, names[i].name);
        if (!f) {
            return;
        }
        *(void **)(void *)((char *)&real + names[i].at) = f;
    }
    loaded = library && real.global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
}

static int have(void)
{
    pthread_once(&once, load);
    return loaded;
}

/* Done when it is loaded, with the flags that everybody here uses. */
CURLcode curl_global_init(long flags)
{
    return flags == CURL_GLOBAL_DEFAULT ? CURLE_OK : CURLE_FAILED_INIT;
}

void curl_global_cleanup(void) /* the process is about to end */
{
}

CURL *curl_easy_init(void)
{
    return have() ? real.easy_init() : NULL;
}

void curl_easy_cleanup(CURL *h)
{
    if (h) {
        real.easy_cleanup(h);
    }
}

CURLcode curl_easy_perform(CURL *h)
{
    return real.easy_perform(h);
}

CURLcode curl_easy_setopt(CURL *h, CURLoption option, ...)
{
    va_list ap;
    va_start(ap, option);
    void *value = va_arg(ap, void *);
    va_end(ap);
    return real.easy_setopt(h, option, value);
}

CURLcode curl_easy_getinfo(CURL *h, CURLINFO info, ...)
{
    va_list ap;
    va_start(ap, info);
    void *value = va_arg(ap, void *);
    va_end(ap);
    return real.easy_getinfo(h, info, value);
}

const char *curl_easy_strerror(CURLcode code)
{
    return have() ? real.easy_strerror(code) : "libcurl.so.4 is not installed";
}

void curl_free(void *p)
{
    if (p) {
        real.free(p);
    }
}

struct curl_slist *curl_slist_append(struct curl_slist *list, const char *text)
{
    return have() ? real.slist_append(list, text) : NULL;
}

void curl_slist_free_all(struct curl_slist *list)
{
    if (list) {
        real.slist_free_all(list);
    }
}

CURLU *curl_url(void)
{
    return have() ? real.url() : NULL;
}

void curl_url_cleanup(CURLU *u)
{
    if (u) {
        real.url_cleanup(u);
    }
}

CURLUcode curl_url_get(CURLU *u, CURLUPart what, char **part, unsigned int flags)
{
    return real.url_get(u, what, part, flags);
}

CURLUcode curl_url_set(CURLU *u, CURLUPart what, const char *part, unsigned int flags)
{
    return real.url_set(u, what, part, flags);
}
