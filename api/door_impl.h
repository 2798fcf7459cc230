/* door_impl.h - what door.c (ports) and door_stream.c (connections) share. Not for others. */
#ifndef UNID_API_DOOR_IMPL_H
#define UNID_API_DOOR_IMPL_H

#include <event2/listener.h>

#include "api/door.h"

struct door {
    struct api *api;
    struct un_list gates;   /* struct gate */
    struct un_list streams; /* struct stream */
    struct un_list lookups; /* struct lookup */
    unsigned stream_count;
    bool draining, closed, accept_paused;
    struct un_timer accept_timer; /* accept(2) had failed */
    struct un_timer retry_timer;  /* ports that could not be opened */
    void (*opened)(void *arg);
    void *opened_arg;
    struct un_post opened_post;
};

/* Begins a call of a function with a connection; takes `fd`, also when it fails. `depth`: see
 * sched_call_spec. -ENOMEM. */
int stream_open(struct door *d, const char *function, int fd, unsigned depth, struct un_error *err);
/* Ends those of clients on which nothing moves, now or as soon as that is so. */
void streams_drain(struct door *d);
void streams_close(struct door *d);
/* A connection is gone: others may be taken. door.c */
void door_stream_gone(struct door *d);

#endif
