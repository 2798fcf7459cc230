/* host.h - what only the host has: the request, the response, time to pass, connections (host/).
 *
 * The one place that speaks unid/abi.h. Each call stops the whole machine until it is answered.
 */
#ifndef LIBOS_HOST_H
#define LIBOS_HOST_H

#include "kernel.h"

void host_init(void);
uint32_t host_interface(void); /* UNID_INTERFACE_* */
bool host_asks_first(void);    /* the request is had before the program's own start */

/* The request. host_next asks for it, once (a second call does nothing): the moment of the snapshot.
 * Everything that must differ from clone to clone is renewed here, before it returns: wall clock,
 * entropy (fresh pool for getrandom), invocation id. */
void host_next(void);
bool host_has_request(void);
const char *host_request_head(size_t *ret_len);
int64_t host_content_length(void); /* -1: unknown */
/* Copies body bytes; fetches more when the window is empty. 0 at the end. `block` false: -EAGAIN
 * rather than ask the host. */
int64_t host_body_read(void *to, size_t len, bool block);
bool host_body_ready(void); /* host_body_read would not ask the host */

/* The program was told the wall clock's time, or given random bytes that may be meant as a secret.
 *
 * A `filter` program that comes to its end, or has more output than fits into the window, without ever
 * having read its input, is snapshotted there; what it computed would be every request's answer. If it
 * had random bytes for it, it is started again behind host_next (exec_again), and only what it writes
 * then counts. If it looked at the clock, it is first started again a few times under other clocks: when
 * that changes nothing of what it writes, it did not matter (run times look at the clock as they begin);
 * else as with random bytes. */
void host_note_random(void);
void host_note_clock(void);

/* The response: bytes are collected in the response window and sent when it is full, at
 * host_response_flush, and at the end. */
void host_response_write(const void *data, size_t len);
void host_response_flush(void);
void host_log_write(const void *data, size_t len); /* standard error */
_Noreturn void host_done(int status);              /* the end of the machine */

void host_random(void *to, size_t len); /* ChaCha20, seeded by the host's entropy; notes the use */
void host_random_at_start(void *to,
                          size_t len); /* the same for AT_RANDOM, hash seeds: does not note it */

/* Lets `ns` pass, or less when a connection's readiness changed. Flushes the response first. */
void host_wait(uint64_t ns);

/* Outgoing connections; see UNID_OP_NET_*. >= 0 or a negative errno. */
int host_net_resolve(const char *name, size_t len);
int host_net_open(const char *where, size_t len);
int64_t host_net_send(unsigned handle, const void *data, size_t len);
int64_t host_net_recv(unsigned handle, void *to, size_t len);
void host_net_shut(unsigned handle);
void host_net_close(unsigned handle);
unsigned host_net_count(void);                             /* connections that are open */
uint64_t host_net_readable(void), host_net_writable(void); /* bits, as of the last host call */

/* Memory of this piece (abi.h, UNID_PIECE_SIZE) will be used soon, all of it. */
void host_fill(uint64_t piece);

/* Counts a system call / one that is not implemented (struct unid_report). */
void host_report_call(uint64_t number);
void host_report_unsupported(uint32_t number);

#endif
