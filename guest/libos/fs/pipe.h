/* pipe.h - what splice.c does to pipes (pipe.c) beside reading and writing. */
#ifndef LIBOS_PIPE_H
#define LIBOS_PIPE_H

#include "fs/ring.h"
#include "fs/wait.h"

bool file_is_pipe(const struct file *f); /* or a fifo */
bool pipe_same(const struct file *a, const struct file *b);
/* Copies what is in it, and leaves it there: its size, 0 at the end. Waits for something if it may;
 * -EAGAIN, -EINTR. */
int64_t pipe_peek(struct file *f, void *to, size_t len, bool wait);
void pipe_skip(struct file *f, size_t len);
/* The bytes that find room, at least one. -EPIPE (and its signal), -EAGAIN, -EINTR. */
int64_t pipe_wait_room(struct file *f, bool wait);
/* Writes all of it, whatever the file's flags are. -EPIPE, -EINTR, -ENOMEM when nothing was. */
int64_t pipe_put(struct file *f, const void *from, size_t len);

#endif
