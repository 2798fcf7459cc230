/* api_below.h - what lies below api/, played: one image, one function "hello" with versions 1 to
 * 3, and a scheduler whose call the test drives by hand. Answers come from the loop, as the
 * contracts say. */
#ifndef UNID_TESTS_API_BELOW_H
#define UNID_TESTS_API_BELOW_H

#include "common/bytes.h"
#include "common/loop.h"
#include "scheduler/async/async.h"
#include "scheduler/record/receipt.h"
#include "scheduler/scheduler.h"

#define BELOW_DIGEST "sha256:b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9"
#define BELOW_ID     "01JD5X0000000000000000000A"

struct sched_news;
struct below {
    void (*observer)(void *arg, const struct sched_news *news);
    void *observer_arg;
    struct un_loop *loop;
    /* The call of the scheduler that runs, or NULL. */
    struct sched_call *call;
    const struct sched_call_events *events;
    void *call_arg;
    char function[64], qualifier[64], method[16], target[256], id[UN_ID_SIZE];
    char fields[4096]; /* "name: value\n"... */
    enum sched_trigger trigger;
    int64_t content_length;
    struct un_buf body;
    bool body_eof;
    int body_room; /* what sched_call_body gives */
    unsigned starts, cancels, data_dones;
    /* Images. */
    struct un_buf pushed;
    int push_rc;     /* not 0: the upload ends with it */
    bool push_holds; /* image_upload_data says wait */
    const struct image_upload_events *push_events;
    void *push_arg;
    char declared_digest[IMAGE_DIGEST_SIZE], tag[160];
    unsigned aborts;
    enum image_kind kind;
    int tags_rc;       /* not 0: listing tags fails with it */
    int open_rc;       /* not 0: a Linux program cannot be prepared */
    unsigned mappings; /* given and not released */
    int settle_rc;     /* not 0: the configuration does not go with the prepared image */
    /* Functions. */
    uint32_t live;
    char deployed[512]; /* the JSON that was parsed last */
    unsigned deploys;
    int prepare_rc; /* what sched_prepare finds wrong with the program */
    /* Async and logs. */
    char async_body[64], async_type[64];
    void (*log_fn)(void *arg, const struct log_line *line);
    void *log_arg;
    unsigned followers;
    int killed;
};
extern struct below below;

void below_open(struct un_loop *loop);
void below_close(void);

/* The running call answers; each runs the gateway's callback now. */
void below_respond(unsigned status, const char *field, const char *data, bool last);
void below_data(const char *data, size_t len, bool last);
void below_end(const struct sched_outcome *outcome);

/* For those who play: a callback that comes from the loop. */
struct later {
    struct un_post post;
    void (*go)(struct later *l);
    void (*cb)(void);
    void *arg;
    int rc;
    struct un_error err;
    unsigned number;
};
#define CB(l, type) ((type)(l)->cb)

/* Has `go` run later, for which the rest is kept; freed behind it. */
struct later *later(void (*go)(struct later *l), void (*cb)(void), void *arg, int rc);

#endif
