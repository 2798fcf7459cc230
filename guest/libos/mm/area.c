/* area.c - what the program mapped, as a list of areas in ascending order. */
#include "file.h"
#include "mm/mm_internal.h"

struct list areas;

static struct area *area_of(struct list *node)
{
    return container_of(node, struct area, node);
}

void areas_init(void)
{
    list_init(&areas);
}

struct area *area_find(uint64_t addr)
{
    list_for (node, &areas) {
        if (area_of(node)->to > addr) {
            return area_of(node);
        }
    }
    return NULL;
}

bool areas_free(uint64_t from, uint64_t to)
{
    const struct area *a = area_find(from);
    return !a || a->from >= to;
}

bool areas_covered(uint64_t from, uint64_t to)
{
    struct area *a = area_find(from);
    while (from < to) {
        if (!a || a->from > from) {
            return false;
        }
        from = a->to;
        a = a->node.next == &areas ? NULL : area_of(a->node.next);
    }
    return true;
}

static bool alike(const struct area *a, const struct area *b)
{
    return a->to == b->from && a->prot == b->prot && a->flags == b->flags && a->file == b->file &&
           (!a->file || a->offset + (a->to - a->from) == b->offset);
}

static void area_free(struct area *a)
{
    list_del(&a->node);
    file_unref(a->file);
    kfree(a);
}

void areas_join(uint64_t from, uint64_t to)
{
    struct area *a = area_find(from > 0 ? from - 1 : 0);
    while (a && a->from < to && a->node.next != &areas) {
        struct area *next = area_of(a->node.next);
        if (alike(a, next)) {
            a->to = next->to;
            area_free(next);
        } else {
            a = next;
        }
    }
}

int area_add(uint64_t from, uint64_t to, int prot, uint32_t flags, struct file *file,
             uint64_t offset)
{
    struct area *a = kalloc(sizeof(*a));
    if (!a) {
        return -ENOMEM;
    }
    a->from = from;
    a->to = to;
    a->prot = prot;
    a->flags = flags;
    a->offset = offset;
    a->file = file ? file_ref(file) : NULL;
    struct area *next = area_find(from);
    list_add_tail(next ? &next->node : &areas, &a->node); /* in front of `next` */
    areas_join(from, to + 1);
    return 0;
}

static int cut_at(uint64_t addr)
{
    struct area *a = area_find(addr);
    if (!a || a->from >= addr) {
        return 0;
    }
    struct area *front = kalloc(sizeof(*front));
    if (!front) {
        return -ENOMEM;
    }
    *front = *a;
    front->to = addr;
    if (front->file) {
        file_ref(front->file);
        a->offset += addr - a->from;
    }
    a->from = addr;
    list_add_tail(&a->node, &front->node);
    return 0;
}

int areas_cut(uint64_t from, uint64_t to)
{
    int r = cut_at(from);
    return r < 0 ? r : cut_at(to);
}

void areas_remove(uint64_t from, uint64_t to)
{
    struct area *a = area_find(from);
    while (a && a->from < to) {
        struct list *next = a->node.next;
        area_free(a);
        a = next == &areas ? NULL : area_of(next);
    }
}

void mm_for_each_area(void (*line)(void *arg, const struct mm_area_info *area), void *arg)
{
    list_for (node, &areas) {
        const struct area *a = area_of(node);
        struct mm_area_info info = {.from = a->from,
                                    .to = a->to,
                                    .offset = a->offset,
                                    .prot = a->prot,
                                    .shared = a->flags & AREA_SHARED,
                                    .name = a->file                 ? file_path(a->file)
                                            : a->flags & AREA_HEAP  ? "[heap]"
                                            : a->flags & AREA_STACK ? "[stack]"
                                                                    : ""};
        line(arg, &info);
    }
}
