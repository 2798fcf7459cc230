/* frame.c - physical memory: 4 KiB frames with a count of users each.
 *
 * Frames above `fresh` were never handed out and are zero without being touched, so that memory that
 * a program maps and does not use costs the host nothing. Those that came back are on a ring that
 * runs through the frames themselves, and are zeroed when they are taken. */
#include "mm.h"
#include "mm/mm_internal.h"

#define NONE UINT32_MAX

struct free_frame {
    uint32_t next, prev; /* indexes */
};

static struct {
    uint64_t base;  /* physical address of frame 0 */
    uint32_t count; /* of frames */
    uint32_t fresh; /* frames from here on are zero and free */
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
    frames.free_head = NONE;
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

uint64_t frame_alloc(void)
{
    uint32_t index;
    if (frames.free_count == 0 && frames.fresh == frames.count && !mm_reclaim()) {
        return 0;
    }
    if (frames.free_count > 0) {
        index = frames.free_head;
        free_take(index);
    } else {
        index = frames.fresh++;
    }
    frames.users[index] = 1;
    return frames.base + index * PAGE_SIZE;
}

/* `count` free frames in a row among those that came back; NONE when there are none. */
static uint32_t find_run(size_t count)
{
    size_t run = 0;
    for (uint32_t i = 0; i < frames.fresh; i++) {
        run = frames.users[i] == 0 ? run + 1 : 0;
        if (run == count) {
            return i + 1 - (uint32_t)count;
        }
    }
    return NONE;
}

uint64_t frame_alloc_many(size_t count)
{
    uint32_t first;
    if (count <= frames.count - frames.fresh) {
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
    return frames.free_count + frames.count - frames.fresh;
}
