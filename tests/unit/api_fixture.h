/* api_fixture.h - api/ on a virtual loop, with what is below it played by api_below.h, and a raw client of
 * it over TCP.
 *
 * Bytes are moved by pump(), which runs the loop until nothing is ready, and reads what has been sent. */
#ifndef UNID_TESTS_API_FIXTURE_H
#define UNID_TESTS_API_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "api/api.h"
#include "tests/unit/api_below.h"

struct api_fixture {
    struct un_loop *loop;
    struct api *api;
    uint16_t port;
    int fd;           /* the client's end */
    struct un_buf in; /* what has been sent */
    bool closed;      /* the other end is */
    bool ready;       /* what /readyz says */
};
extern struct api_fixture *fx;

void connect_tcp(void);
/* `token`: of REST, NULL for none. */
void open_api(const char *token);
int setup(void **state);
int teardown(void **state);
void pump(void);
void say(const char *text);
const char *got(void);
void forget(void);
void expect(const char *text);
void expect_status(unsigned status);
/* One request with a body (may be NULL); the answer replaces the one before. */
void ask(const char *method, const char *target, const char *body);

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
