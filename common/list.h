/* list.h - an intrusive doubly linked list.
 *
 * A node belongs to one list at a time. An unlinked node points to itself, so removing it twice is
 * harmless and `un_list_linked` can be asked at any time.
 */
#ifndef UNID_COMMON_LIST_H
#define UNID_COMMON_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "common/cleanup.h"

struct un_list {
    struct un_list *prev, *next;
};

static inline void un_list_init(struct un_list *l)
{
    l->prev = l->next = l;
}

static inline bool un_list_empty(const struct un_list *l)
{
    return l->next == l;
}

static inline bool un_list_linked(const struct un_list *node)
{
    return node->next && node->next != node;
}

static inline void un_list_remove(struct un_list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    un_list_init(node);
}

/* Puts `node` before `pos`; with the list head as `pos` that is the tail. */
static inline void un_list_insert(struct un_list *pos, struct un_list *node)
{
    node->prev = pos->prev;
    node->next = pos;
    pos->prev->next = node;
    pos->prev = node;
}

static inline void un_list_push(struct un_list *list, struct un_list *node)
{
    un_list_insert(list, node);
}

static inline void un_list_push_front(struct un_list *list, struct un_list *node)
{
    un_list_insert(list->next, node);
}

#define un_list_entry(node, type, member) un_container_of(node, type, member)

/* The first element, or NULL. */
#define un_list_first(list, type, member)                                                          \
    (un_list_empty(list) ? NULL : un_list_entry((list)->next, type, member))

#define un_list_for_each(it, list)                                                                 \
    for (struct un_list *it = (list)->next; it != (list); it = it->next)

/* The element may be removed (and freed) in the body. */
#define un_list_for_each_safe(it, list)                                                            \
    for (struct un_list *it = (list)->next, *it##_next = it->next; it != (list);                   \
         it = it##_next, it##_next = it->next)

#endif
