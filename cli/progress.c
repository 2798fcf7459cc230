/* progress.c - see progress.h. */
#include "cli/progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/table.h"
#include "common/clock.h"

enum { BAR_WIDTH = 30 };

void progress_start(struct progress *p, const char *what, uint64_t total_bytes)
{
    *p = (struct progress){
        .what = what,
        .total = total_bytes,
        .enabled = isatty(STDERR_FILENO) == 1,
        .started_us = un_clock_mono_us(),
    };
}

const char *progress_line(const struct progress *p, uint64_t done_bytes, uint64_t us, char *line)
{
    char done[TABLE_CELL_SIZE], total[TABLE_CELL_SIZE], rate[TABLE_CELL_SIZE];
    double part = p->total ? (double)done_bytes / (double)p->total : 1;
    part = part > 1 ? 1 : part;
    char bar[BAR_WIDTH + 1];
    size_t full = (size_t)(part * BAR_WIDTH);
    memset(bar, ' ', BAR_WIDTH);
    memset(bar, '=', full);
    if (full < BAR_WIDTH) {
        bar[full] = '>';
    }
    bar[BAR_WIDTH] = '\0';
    double seconds = us ? (double)us / 1e6 : 1;
    snprintf(line, PROGRESS_LINE_SIZE, "%.40s [%s] %3d%% %s/%s %s/s", p->what, bar,
             (int)(part * 100), table_size(done_bytes, done), table_size(p->total, total),
             table_size((uint64_t)((double)done_bytes / seconds), rate));
    return line;
}

void progress_show(struct progress *p, uint64_t done_bytes)
{
    uint64_t now = un_clock_mono_us();
    if (!p->enabled || now - p->started_us < PROGRESS_AFTER_US ||
        (p->shown_us && now - p->shown_us < PROGRESS_EVERY_US)) {
        return;
    }
    p->shown_us = now;
    char line[PROGRESS_LINE_SIZE];
    fprintf(stderr, "\r%s\033[K", progress_line(p, done_bytes, now - p->started_us, line));
    fflush(stderr);
}

void progress_end(struct progress *p)
{
    if (p->shown_us) {
        fprintf(stderr, "\r\033[K");
        fflush(stderr);
    }
}
