/* http_fixture.h - an HTTP server on a virtual loop whose handler does what the path says, and a
 * raw client of it.
 *
 * Time limits are reached by un_loop_advance. Bytes are moved by pump(), which runs the loop
 * until nothing is ready, and reads what the server has sent. */
#ifndef UNID_TESTS_HTTP_FIXTURE_H
#define UNID_TESTS_HTTP_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "api/http/internal.h"
#include "api/http/server.h"
#include "common/bytes.h"

struct work {
    struct http_exchange *ex;
    struct un_buf body;
    size_t to_send;
    bool echo;
};

struct fixture {
    struct un_loop *loop;
    struct http_server *server;
    int fd;             /* the client's end */
    struct un_buf in;   /* what the server has sent */
    bool closed, reset; /* the server's end is */
    unsigned heads, gone, bodies;
    size_t body_bytes;
    struct work *held; /* of /hold */
    char last_target[256], last_field[256], last_host[256];
    size_t last_fields;
};
extern struct fixture *fx;

void work_free(struct work *w);
void open_server(unsigned connections);
void connect_pair(void);
/* On a free port of 127.0.0.1. */
uint16_t listen_tcp(void);
/* Gives a connected socket; the kernel has accepted it, the server has not yet. */
int tcp_connect(uint16_t port);
/* From now on `fd` is the client's end, and nothing has been received. */
void use(int fd);
int setup(void **state);
int teardown(void **state);
void pump(void);
void read_all(void);
void send_bytes(const void *data, size_t len);
void say(const char *text);
const char *got(void);
unsigned count(const char *what);
void expect_status(unsigned status);
void forget(void);

#define GET(target) "GET " target " HTTP/1.1\r\nHost: x\r\n\r\n"

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
