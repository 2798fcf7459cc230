/* dns.c - name resolution inside the guest: queries to port 53 are answered here.
 *
 * A name that the function may reach gets an address of 198.18.0.0/15 (RFC 2544, for tests; never
 * routed), by which egress.c finds the name again: the host resolves it when it connects. Format of
 * the messages: RFC 1035, section 4.
 */
#include "fs/text.h"
#include "host.h"
#include "net/socket.h"

#define HEADER_SIZE   12
#define NAME_MAX_     253
#define NAMES_MAX     4096
#define FIRST_ADDRESS 2 /* 198.18.0.2 */
#define TYPE_A        1
#define TYPE_AAAA     28
#define CLASS_IN      1
#define TTL_S         60

enum rcode {
    NO_ERROR = 0,
    FORMAT_ERROR = 1,
    SERVER_FAILURE = 2,
    NAME_ERROR = 3,
    NOT_IMPLEMENTED = 4
};

struct question {
    char name[NAME_MAX_ + 1]; /* lower case, with dots, none at the end */
    uint16_t type, class;
    size_t end; /* offset behind it */
};

static char **names;
static uint32_t name_count, name_room;

static bool is_name_byte(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

/* Reads the one question. False: it is malformed, or no name that could be asked of the host. */
static bool read_question(const uint8_t *m, size_t len, struct question *ret)
{
    size_t at = HEADER_SIZE, n = 0;
    while (at < len && m[at]) {
        size_t label = m[at++];
        if (label > 63 || label > len - at || n + label + 1 > NAME_MAX_ + 1) {
            return false;
        }
        if (n) {
            ret->name[n++] = '.';
        }
        for (; label; label--, at++) {
            uint8_t c = m[at] >= 'A' && m[at] <= 'Z' ? m[at] + 32 : m[at];
            if (!is_name_byte(c)) {
                return false;
            }
            ret->name[n++] = (char)c;
        }
    }
    if (len < 5 || at > len - 5) { /* the root's zero, type, class */
        return false;
    }
    ret->name[n] = '\0';
    ret->type = (uint16_t)(m[at + 1] << 8 | m[at + 2]);
    ret->class = (uint16_t)(m[at + 3] << 8 | m[at + 4]);
    ret->end = at + 5;
    return true;
}

/* The place of the name in the table, added if need be; -1: no room. */
static int64_t remember(const char *name)
{
    for (uint32_t n = 0; n < name_count; n++) {
        if (strcmp(names[n], name) == 0) {
            return n;
        }
    }
    if (name_count == name_room) {
        uint32_t room = name_room ? name_room * 2 : 8;
        char **more = room <= NAMES_MAX ? kalloc(room * sizeof(*more)) : NULL;
        if (!more) {
            return -1;
        }
        if (names) {
            memcpy(more, names, name_count * sizeof(*more));
            kfree(names);
        }
        names = more;
        name_room = room;
    }
    size_t len = strlen(name);
    char *copy = kalloc(len + 1);
    if (!copy) {
        return -1;
    }
    memcpy(copy, name, len);
    names[name_count] = copy;
    return name_count++;
}

const char *dns_name_of(const uint8_t ip[4])
{
    if (ip[0] != 198 || (ip[1] & 254) != 18) {
        return NULL;
    }
    uint32_t n = (uint32_t)(ip[1] & 1) << 16 | (uint32_t)ip[2] << 8 | ip[3];
    return n >= FIRST_ADDRESS && n - FIRST_ADDRESS < name_count ? names[n - FIRST_ADDRESS] : NULL;
}

/* The address of an allowed name, 4 or 16 bytes: their number; 0: none of that type. */
static enum rcode resolve(const struct question *q, uint8_t *ret, size_t *ret_len)
{
    *ret_len = 0;
    if (strcmp(q->name, "localhost") == 0 || strcmp(q->name, HOST_NAME) == 0) {
        static const uint8_t six[16] = {[15] = 1};
        static const uint8_t four[4] = {127, 0, 0, 1};
        *ret_len = q->type == TYPE_A ? 4 : q->type == TYPE_AAAA ? 16 : 0;
        memcpy(ret, q->type == TYPE_A ? four : six, *ret_len);
        return NO_ERROR;
    }
    egress_begin();
    int r = q->name[0] ? host_net_resolve(q->name, strlen(q->name)) : -ENOENT;
    if (r < 0) {
        return r == -EAGAIN || r == -ENOMEM ? SERVER_FAILURE : NAME_ERROR;
    }
    if (q->type == TYPE_A) {
        int64_t n = remember(q->name);
        if (n < 0) {
            return SERVER_FAILURE;
        }
        n += FIRST_ADDRESS;
        ret[0] = 198;
        ret[1] = (uint8_t)(18 | (n >> 16 & 1));
        ret[2] = (uint8_t)(n >> 8);
        ret[3] = (uint8_t)n;
        *ret_len = 4;
    }
    return NO_ERROR;
}

static size_t put_answer(uint8_t *to, uint16_t type, const uint8_t *address, size_t len)
{
    const uint8_t head[12] = {0xc0, HEADER_SIZE, 0, (uint8_t)type, 0, CLASS_IN,
                              0,    0,           0, TTL_S,         0, (uint8_t)len};
    memcpy(to, head, sizeof(head)); /* the name: a pointer to the question's */
    memcpy(to + sizeof(head), address, len);
    return sizeof(head) + len;
}

size_t dns_answer(const uint8_t *query, size_t len, uint8_t *reply, size_t size)
{
    struct question q;
    uint8_t address[16];
    size_t address_len = 0, used = HEADER_SIZE;
    if (len < HEADER_SIZE || (query[2] & 0x80) || size < DNS_REPLY_MAX) {
        return 0;
    }
    enum rcode rcode = FORMAT_ERROR;
    bool has_question = false;
    if (query[2] >> 3 & 15) {
        rcode = NOT_IMPLEMENTED;
    } else if (query[4] == 0 && query[5] == 1 && read_question(query, len, &q)) {
        has_question = true;
        rcode = q.class == CLASS_IN ? resolve(&q, address, &address_len) : NOT_IMPLEMENTED;
    }
    memset(reply, 0, HEADER_SIZE);
    reply[0] = query[0];
    reply[1] = query[1];
    reply[2] = 0x80 | (query[2] & 0x79);     /* a response; opcode and RD as asked */
    reply[3] = (uint8_t)(0x80 | (int)rcode); /* recursion is available */
    if (has_question) {
        memcpy(reply + HEADER_SIZE, query + HEADER_SIZE, q.end - HEADER_SIZE);
        used = q.end;
        reply[5] = 1;
        if (address_len) {
            used += put_answer(reply + used, q.type, address, address_len);
            reply[7] = 1;
        }
    }
    return used;
}

static void resolv_conf(struct text *t)
{
    text_format(t, "nameserver 127.0.0.53\n");
}

static void hosts(struct text *t)
{
    text_format(t, "127.0.0.1\tlocalhost " HOST_NAME "\n::1\tlocalhost\n");
}

static void nsswitch_conf(struct text *t)
{
    text_format(t, "passwd: files\ngroup: files\nhosts: files dns\nservices: files\n");
}

/* Who this process is (sys/info.c), and whom servers like to become. */
static void passwd(struct text *t)
{
    text_format(t, "root:x:0:0:root:/root:/bin/sh\n"
                   "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n");
}

static void group(struct text *t)
{
    text_format(t, "root:x:0:\nnogroup:x:65534:\n");
}

void synthesize_etc(void)
{
    static const struct {
        const char *path;
        void (*generate)(struct text *);
    } files[] = {
        {"/etc/resolv.conf", resolv_conf},
        {"/etc/hosts", hosts},
        {"/etc/nsswitch.conf", nsswitch_conf},
        {"/etc/passwd", passwd},
        {"/etc/group", group},
    };
    struct walk w;
    if (walk_kernel(&w, "/etc", 0) < 0) {
        return;
    }
    struct inode *etc = w.inode ? w.inode : dir_make(dir_root(), "etc", 0755, DEV_ROOT);
    if (etc && inode_is(etc, S_IFDIR)) {
        for (size_t n = 0; n < ARRAY_SIZE(files); n++) {
            struct inode *temporary;
            const char *name = files[n].path + 5;
            if (!dir_lookup(etc, name, strlen(name), &temporary)) {
                text_file(etc, name, files[n].generate);
            }
        }
    }
    walk_done(&w);
}
