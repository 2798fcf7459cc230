/* libos_fake.h - what is below the library OS's files and sockets, for their tests on the host:
 * memory, tasks, time and the host's calls. One task: what would block calls a hook of the test. */
#ifndef LIBOS_FAKE_H
#define LIBOS_FAKE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fs/wait.h"
#include "host.h"
#include "sys_file.h"

struct fake {
    uint32_t interface;
    uint64_t now_ns;
    /* Called when the task would block: does what others would do meanwhile. NULL: time passes up
     * to the deadline; without one the test fails. */
    void (*on_block)(void);
    unsigned blocked; /* so often */
    int signal;       /* the last raised */
    /* the request */
    const char *head, *body;
    size_t body_at, body_ready; /* body_ready: bytes that need no asking */
    int64_t content_length;
    bool has_request;
    unsigned random_noted; /* calls of host_random */
    unsigned next_calls;
    char response[65536];
    size_t response_len;
    char log[4096];
    size_t log_len;
    bool done; /* host_done was called: jumps back to fake_until_done */
    int done_status;
    jmp_buf done_jump;
    bool done_jump_set;
    /* the outside */
    const char *allowed; /* the name that resolves and "name:port"s that open begin with */
    char opened[320];
    int open_result; /* handle or error */
    int net_error;   /* of SEND and RECV, until the connection is made or for good */
    const char *incoming;
    size_t incoming_at;
    bool incoming_ended;
    char outgoing[65536];
    size_t outgoing_len;
    bool shut, closed;
    uint64_t readable, writable;
    unsigned waits;
    /* memory */
    uint64_t frames_left;
    const void *bad; /* a page of user memory that is not there */
};
extern struct fake fake;

void fake_reset(void); /* before each test: descriptors closed, state as at the start */
int fake_group_setup(void **state); /* files_init, once */
/* Runs f(arg); true when it ended the machine. */
bool fake_until_done(void (*f)(void *arg), void *arg);

/* A root file system in memory, mounted by fake_group_setup:
 *   /bin/tool (0755, "#!tool\n"), /bin/alias -> tool, /data/big (10000 bytes, i % 251),
 *   /data/hard1 and hard2 (one inode), /data/sub/deep (0644, "deep\n"), /loop -> loop, /up ->
 *   data/../bin, /etc/empty */
int fake_mount(void);

#endif
