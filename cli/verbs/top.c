/* top.c - unictl top: when it looks, and where its tables go. What is in them: cli/top.h. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "cli/api.h"
#include "cli/top.h"
#include "common/cleanup.h"

enum {
    INTERVAL_DEFAULT_MS = 1000,
    ITERATIONS_MAX = 1000000000,
    COLUMNS_DEFAULT = 80, /* of a terminal that does not say */
    LINES_DEFAULT = 24
};

struct watching {
    const struct cli_call *call;
    bool drawn; /* over and over at the same place, without an end */
    bool all;   /* functions that do nothing too */
    uint64_t iterations, interval_ms;
    uint64_t shown;
    struct timespec next;
    struct top_past past;
};

/* --- being interrupted ------------------------------------------------------------------------ */

static bool line_left; /* the terminal shows "^C" in a line of its own */

/* Whatever it waits for, and however long. Nothing has to be put back: the cursor stands below the table. */
static void on_interrupt(int number)
{
    (void)number;
    if (line_left && write(STDOUT_FILENO, "\n", 1) < 0) {
        _exit(CLI_REFUSED);
    }
    _exit(CLI_DONE);
}

/* ^C is the way out, not a failure. It stays ignored where it was. */
static void take_interrupt(bool drawn)
{
    struct sigaction act = {.sa_handler = on_interrupt}, was;
    line_left = drawn;
    if (sigaction(SIGINT, NULL, &was) == 0 && was.sa_handler != SIG_IGN) {
        sigaction(SIGINT, &act, NULL);
    }
}

/* Writes it all; an interrupt waits, so that no escape sequence is cut. 0 or a negative errno. */
static int put(const struct un_buf *text)
{
    sigset_t interrupt, was;
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    sigprocmask(SIG_BLOCK, &interrupt, &was);
    int rc = cli_write(text->data, text->len, NULL);
    if (rc == 0 && fflush(stdout) != 0) {
        rc = -errno;
    }
    sigprocmask(SIG_SETMASK, &was, NULL);
    return rc;
}

/* --- a look ----------------------------------------------------------------------------------- */

static struct top_screen screen_now(void)
{
    struct winsize size = {0};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || !size.ws_col || !size.ws_row) {
        return (struct top_screen){COLUMNS_DEFAULT, LINES_DEFAULT};
    }
    return (struct top_screen){size.ws_col, size.ws_row};
}

static int view_text(const struct watching *w, const struct top_view *v, struct un_buf *out)
{
    if (w->call->json) {
        un_autojson json_t *json = top_view_json(v);
        un_autofree char *line = json ? un_json_text(json) : NULL;
        return line ? un_buf_printf(out, "%s\n", line) : -ENOMEM;
    }
    struct top_screen screen = {0, 0};
    un_autobuf struct un_buf text = {0};
    if (w->drawn) {
        screen = screen_now();
    }
    int rc = w->shown > 0 && !w->drawn ? un_buf_append_str(&text, "\n") : 0;
    rc = rc ? rc : top_view_text(v, &screen, &text);
    if (rc < 0) {
        return rc;
    }
    return w->drawn ? top_frame((const char *)text.data, out)
                    : un_buf_append(out, text.data, text.len);
}

/* What has changed since the last look, or all, where there was none or unid was started anew. */
static int take_sample(const struct watching *w, json_t **ret)
{
    un_autojson json_t *now = NULL;
    int status = CLI_DONE;
    if (w->past.sample) {
        char path[64];
        snprintf(path, sizeof(path), "/api/v1/stats?since_uptime_us=%" PRIu64,
                 api_uint(w->past.sample, "uptime_us"));
        status = api_call(w->call, "GET", path, NULL, &now);
    }
    if (status == CLI_DONE && !top_past_leads_to(&w->past, now)) {
        json_decref(un_steal(&now));
        status = api_call(w->call, "GET", "/api/v1/stats", NULL, &now);
    }
    *ret = un_steal(&now);
    return status;
}

/* Takes a sample and shows what it is against the last one; nothing behind the first, but on a terminal. */
static int look(struct watching *w)
{
    un_autojson json_t *now = NULL, *functions = NULL;
    un_autobuf struct un_buf out = {0};
    struct top_view view;
    int status = take_sample(w, &now), rc = 0;
    bool shows = w->past.sample || w->drawn;
    if (status == CLI_DONE && shows && w->all) {
        status = api_list(w->call, "/api/v1/functions", 0, &functions);
    }
    if (status != CLI_DONE) {
        return status;
    }
    if (shows) {
        rc = top_view_make(&w->past, now, json_object_get(functions, "items"), &view);
        if (rc == 0) {
            rc = view_text(w, &view, &out);
            top_view_done(&view);
        }
        rc = rc ? rc : put(&out);
        w->shown++;
    }
    rc = rc ? rc : top_past_take(&w->past, now);
    return rc < 0 ? cli_fail_output(rc) : CLI_DONE;
}

/* Until it is time for the next look; one that came too late moves those behind it. */
static void pause_until_next(struct watching *w)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    w->next.tv_sec += (time_t)(w->interval_ms / 1000);
    w->next.tv_nsec += (long)(w->interval_ms % 1000) * 1000000;
    if (w->next.tv_nsec >= 1000000000) {
        w->next.tv_sec++;
        w->next.tv_nsec -= 1000000000;
    }
    if (w->next.tv_sec < now.tv_sec ||
        (w->next.tv_sec == now.tv_sec && w->next.tv_nsec <= now.tv_nsec)) {
        w->next = now;
    }
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &w->next, NULL) == EINTR) {
    }
}

static int read_options(struct cli_call *call, struct watching *w)
{
    const char *interval = args_get(&call->args, "interval");
    const char *iterations = args_get(&call->args, "iterations");
    bool terminal = isatty(STDOUT_FILENO) == 1;
    struct un_error err = UN_ERROR_INIT;
    if (interval && top_interval(interval, &w->interval_ms, &err) < 0) {
        return cli_usage(call, "--interval: %s", err.text);
    }
    w->iterations = terminal ? 0 : 1;
    if (iterations && args_count(iterations, 0, ITERATIONS_MAX, &w->iterations, &err) < 0) {
        return cli_usage(call, "--iterations: %s", err.text);
    }
    if (args_has(&call->args, "no-stream")) {
        w->iterations = 1;
    }
    w->all = args_has(&call->args, "all");
    w->drawn = terminal && w->iterations == 0 && !call->json;
    return CLI_DONE;
}

int verb_top(struct cli_call *call)
{
    struct watching w = {.call = call, .interval_ms = INTERVAL_DEFAULT_MS};
    int status = read_options(call, &w);
    if (status != CLI_DONE) {
        return status;
    }
    take_interrupt(w.drawn);
    clock_gettime(CLOCK_MONOTONIC, &w.next);
    status = look(&w);
    while (status == CLI_DONE && (w.iterations == 0 || w.shown < w.iterations)) {
        pause_until_next(&w);
        status = look(&w);
    }
    top_past_done(&w.past);
    return status;
}
