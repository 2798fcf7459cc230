/* sdk_string_host.c - the SDK's string functions compiled for the host under other names, for
 * test_sdk.c. */
#undef _FORTIFY_SOURCE /* its inline definitions would take the names */
#define memcpy      sdk_memcpy
#define memmove     sdk_memmove
#define memset      sdk_memset
#define memcmp      sdk_memcmp
#define memchr      sdk_memchr
#define strlen      sdk_strlen
#define strnlen     sdk_strnlen
#define strcmp      sdk_strcmp
#define strncmp     sdk_strncmp
#define strcasecmp  sdk_strcasecmp
#define strncasecmp sdk_strncasecmp
#define strchr      sdk_strchr
#define strrchr     sdk_strrchr
#define strstr      sdk_strstr
#define strspn      sdk_strspn
#define strcspn     sdk_strcspn
#define strcpy      sdk_strcpy
#define strncpy     sdk_strncpy
#define strcat      sdk_strcat
#define strdup      sdk_strdup
#include "guest/sdk/string.c"
