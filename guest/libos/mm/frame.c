/* frame.c - physical memory: 4 KiB frames with a count of users each.
 *
 * Frames that were never handed out are zero without being touched, so that memory that a program maps
 * and does not use costs the host nothing. They are taken from the bottom up; those for memory that will
 * be used whole are taken from the top down, in aligned pieces that the host is asked to fill. Frames that
 * came back are on a ring that runs through the frames themselves, and are zeroed when they are taken.
 *
 *     0        handed out        fresh    never      top     handed out, but for [piece, piece_end)   count
 */
#include "host.h"
#include "mm.h"
#include "mm/mm_internal.h"

#define NONE         UINT32_MAX
#define PIECE_FRAMES (UNID_PIECE_SIZE / PAGE_SIZE)

struct free_frame {
    uint32_t next, prev; /* indexes */
};

static struct {
    uint64_t base;                         /* physical address of frame 0 */
    uint32_t count;                        /* of frames */
    uint32_t fresh, top, piece, piece_end; /* [fresh, top), [piece, piece_end) are zero and free */
    uint32_t last;                         /* `top` at the start */
    uint32_t mark;                         /* `fresh` at frames_mark; NONE before */
    uint32_t free_head, free_count;
    uint16_t *users;
} frames;

#ifdef LIBOS_HOSTED
char *hosted_memory;

void *phys_to_virt(uint64_t phys)
{
    return hosted_memory + phys;
}

uint64_t virt_to_phys(const void *p)
{
    return (uint64_t)((const char *)p - hosted_memory);
}
#else
void *phys_to_virt(uint64_t phys)
{
    return (void *)(UNID_DIRECT_MAP + phys);
}

uint64_t virt_to_phys(const void *p)
{
    return (uint64_t)p - UNID_DIRECT_MAP;
}
#endif

void frames_init(uint64_t from, uint64_t to)
{
    from = page_up(from);
    to = page_down(to);
    uint64_t count = to > from ? (to - from) / PAGE_SIZE : 0;
    uint64_t table = page_up(count * sizeof(uint16_t));
    if (count < 64 || count >= NONE) {
        kpanic("%lu KiB of memory are no amount to start with", (to - from) / 1024);
    }
    frames.users = phys_to_virt(from);
    frames.base = from + table;
    frames.count = (uint32_t)(count - table / PAGE_SIZE);
    frames.fresh = frames.free_count = 0;
    frames.free_head = frames.mark = NONE;
    uint32_t rest = (uint32_t)((frames.base / PAGE_SIZE + frames.count) % PIECE_FRAMES);
    frames.piece_end = frames.count;
    frames.top = frames.piece = frames.count - (rest < frames.count ? rest : frames.count);
    frames.last = frames.top;
}

static struct free_frame *free_frame(uint32_t index)
{
    return phys_to_virt(frames.base + index * PAGE_SIZE);
}

static bool index_of(uint64_t phys, uint32_t *ret)
{
    uint64_t index = (phys - frames.base) / PAGE_SIZE;
    *ret = (uint32_t)index;
    return phys >= frames.base && index < frames.count;
}

static void free_push(uint32_t index)
{
    struct free_frame *f = free_frame(index);
    f->next = frames.free_head;
    f->prev = NONE;
    if (f->next != NONE) {
        free_frame(f->next)->prev = index;
    }
    frames.free_head = index;
    frames.free_count++;
}

static void free_take(uint32_t index)
{
    struct free_frame *f = free_frame(index);
    if (f->prev == NONE) {
        frames.free_head = f->next;
    } else {
        free_frame(f->prev)->next = f->next;
    }
    if (f->next != NONE) {
        free_frame(f->next)->prev = f->prev;
    }
    frames.free_count--;
    memset(f, 0, PAGE_SIZE);
}

static uint64_t hand_out(uint32_t index)
{
    frames.users[index] = 1;
    return frames.base + index * PAGE_SIZE;
}

uint64_t frame_alloc(void)
{
    if (frames_free() == 0 && !mm_reclaim()) {
        return 0;
    }
    if (frames.free_count > 0) {
        uint32_t index = frames.free_head;
        free_take(index);
        return hand_out(index);
    }
    return hand_out(frames.fresh < frames.top ? frames.fresh++ : frames.piece++);
}

uint64_t frame_alloc_dense(void)
{
    if (frames.free_count > 0) {
        return frame_alloc();
    }
    if (frames.piece == frames.piece_end && frames.top - frames.fresh >= PIECE_FRAMES) {
        frames.piece_end = frames.top;
        frames.top -= PIECE_FRAMES;
        frames.piece = frames.top;
        host_fill(frames.base + frames.top * PAGE_SIZE);
    }
    return frames.piece < frames.piece_end ? hand_out(frames.piece++) : frame_alloc();
}

void frames_mark(void)
{
    frames.mark = frames.fresh;
}

bool frames_marked(void)
{
    return frames.mark != NONE;
}

uint64_t frames_since_mark(void)
{
    return frames_marked() ? frames.fresh - frames.mark + (frames.last - frames.top) : 0;
}

bool frame_since_mark(uint64_t phys)
{
    uint32_t index;
    return index_of(phys, &index) && index >= frames.mark && index < frames.fresh;
}

static bool never_handed_out(uint32_t index)
{
    return (index >= frames.fresh && index < frames.top) ||
           (index >= frames.piece && index < frames.piece_end);
}

/* `count` free frames in a row among those that came back; NONE when there are none. */
static uint32_t find_run(size_t count)
{
    size_t run = 0;
    for (uint32_t i = 0; i < frames.count; i++) {
        run = frames.users[i] == 0 && !never_handed_out(i) ? run + 1 : 0;
        if (run == count) {
            return i + 1 - (uint32_t)count;
        }
    }
    return NONE;
}

uint64_t frame_alloc_many(size_t count)
{
    uint32_t first;
    if (count <= frames.top - frames.fresh) {
        first = frames.fresh;
        frames.fresh += (uint32_t)count;
    } else {
        first = find_run(count);
        if (first == NONE && mm_reclaim()) {
            first = find_run(count);
        }
        if (first == NONE) {
            return 0;
        }
        for (uint32_t i = first; i < first + count; i++) {
            free_take(i);
        }
    }
    for (size_t i = 0; i < count; i++) {
        frames.users[first + i] = 1;
    }
    return frames.base + first * PAGE_SIZE;
}

void frame_get(uint64_t phys)
{
    uint32_t index;
    if (index_of(phys, &index)) {
        if (frames.users[index] == UINT16_MAX) {
            kpanic("a frame has too many users");
        }
        frames.users[index]++;
    }
}

void frame_free(uint64_t phys)
{
    uint32_t index;
    if (!index_of(phys, &index)) {
        return; /* of the image */
    }
    if (frames.users[index] == 0) {
        kpanic("frame %lx is freed twice", phys);
    }
    if (--frames.users[index] == 0) {
        free_push(index);
    }
}

uint64_t frames_total(void)
{
    return frames.count;
}

uint64_t frames_free(void)
{
    return frames.free_count + (frames.top - frames.fresh) + (frames.piece_end - frames.piece);
}
