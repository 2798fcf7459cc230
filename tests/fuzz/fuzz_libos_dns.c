/* fuzz_libos_dns.c - the library OS's answers to DNS queries: any bytes get a well-formed reply or
 * none. The first byte says what the host answers: bit 0, the name is allowed; bit 1, it is short
 * of memory. */
#include <stdlib.h>

#include "fs/text.h"
#include "host.h"
#include "mm.h"
#include "net/socket.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
static int answer;

int host_net_resolve(const char *name, size_t len)
{
    if (len > 253 || strlen(name) != len) {
        abort();
    }
    for (size_t n = 0; n < len; n++) {
        if (name[n] < '-' || name[n] > 'z') {
            abort();
        }
    }
    return answer;
}

/* What dns.c has beside the parser. */
void egress_begin(void)
{
}

int walk_kernel(struct walk *w, const char *path, unsigned flags)
{
    (void)w, (void)path, (void)flags;
    return -ENOENT;
}

void walk_done(struct walk *w)
{
    (void)w;
}

struct inode *dir_root(void)
{
    return NULL;
}

struct inode *dir_make(struct inode *dir, const char *name, uint32_t mode, uint64_t dev)
{
    (void)dir, (void)name, (void)mode, (void)dev;
    return NULL;
}

struct inode *dir_lookup(struct inode *dir, const char *name, size_t len,
                         struct inode **ret_temporary)
{
    (void)dir, (void)name, (void)len, (void)ret_temporary;
    return NULL;
}

struct inode *text_file(struct inode *dir, const char *name, void (*generate)(struct text *t))
{
    (void)dir, (void)name, (void)generate;
    return NULL;
}

bool text_reserve(struct text *t, size_t more)
{
    (void)t, (void)more;
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t reply[DNS_REPLY_MAX];
    if (!size) {
        return 0;
    }
    answer = data[0] & 1 ? 0 : data[0] & 2 ? -EAGAIN : -EACCES;
    size_t len = dns_answer(data + 1, size - 1, reply, sizeof(reply));
    if (len > sizeof(reply) ||
        (len && (len < 12 || !(reply[2] & 0x80) || reply[5] > 1 || reply[7] > 1))) {
        abort();
    }
    /* An address that was told is one that leads back to its name. */
    if (len && reply[7] && reply[len - 4] == 198 && !dns_name_of(reply + len - 4)) {
        abort();
    }
    return 0;
}
