/* text.h - text that grows, for generated files (/proc). */
#ifndef LIBOS_TEXT_H
#define LIBOS_TEXT_H

#include "kernel.h"

struct text {
    char *data;
    size_t len, room;
    bool failed; /* out of memory */
};

bool text_reserve(struct text *t, size_t more);
void text_bytes(struct text *t, const char *data, size_t len);
void text_hex(struct text *t, uint64_t value, unsigned width); /* zero-padded */
/* At most 512 bytes of output. */
#define text_format(t, ...)                                                                        \
    do {                                                                                           \
        if (text_reserve((t), 512)) {                                                              \
            (t)->len += (size_t)kformat((t)->data + (t)->len, 512, __VA_ARGS__);                   \
        }                                                                                          \
    } while (0)

/* A file whose text `generate` gives when it is opened. */
struct inode;
struct inode *text_file(struct inode *dir, const char *name, void (*generate)(struct text *t));

#endif
