/* SPDX-License-Identifier: Apache-2.0
 *
 * plan_place.h: the packing problem inside the planner, without names, stages or guards.
 *
 * Time is cut into columns: the sets of simultaneously live buffers that are not contained in another such
 * set. There are at most as many columns as buffers, an item covers a contiguous range of them, and two items
 * conflict exactly if their ranges meet. Internal to plan.c, plan_place.c and plan_search.c. */
#ifndef MLAR_ARENA_PLAN_PLACE_H
#define MLAR_ARENA_PLAN_PLACE_H

#include "arena/plan.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct mlar_place_item {
    uint64_t span;  /* bytes, a non-zero multiple of align */
    uint64_t align; /* power of two */
    int32_t first;  /* first and last column, inclusive */
    int32_t last;
} mlar_place_item;

/* The sum of all spans is at most 2^63 - 1; as span >= align, no height below can overflow 64 bits. */
typedef struct mlar_place_problem {
    mlar_place_item items[MLAR_PLAN_MAX_REQUESTS]; /* see mlar_place_goes_first */
    uint64_t load[MLAR_PLAN_MAX_REQUESTS];         /* per column, the sum of the spans that cover it */
    uint64_t bound;                                /* the largest load */
    int32_t count;
    int32_t columns;
} mlar_place_problem;

/* The canonical order of a problem's items: equal sets of items give equal problems, whatever order the
 * requests came in. It is also the order in which the search tries them, chosen by trying several on random
 * sequences. */
static inline bool mlar_place_goes_first(const mlar_place_item *a, const mlar_place_item *b) {
    if (a->align != b->align) return a->align > b->align;
    if (a->last - a->first != b->last - b->first) return a->last - a->first > b->last - b->first;
    if (a->span != b->span) return a->span > b->span;
    return a->first < b->first;
}

static inline bool mlar_place_conflict(const mlar_place_item *a, const mlar_place_item *b) {
    return a->first <= b->last && b->first <= a->last;
}

static inline uint64_t mlar_place_align_up(uint64_t height, uint64_t align) {
    return (height + (align - 1)) & ~(align - 1);
}

/* The best offsets found, and their total: at most the sum of the spans, at least the bound. */
uint64_t mlar_place(const mlar_place_problem *problem, uint64_t offsets[MLAR_PLAN_MAX_REQUESTS]);

/* Looks for offsets whose total is at most target, visiting at most *nodes_left positions (which it counts
 * down). True and offsets[] if found; false proves that there are none if *nodes_left is not 0. */
bool mlar_place_search(const mlar_place_problem *problem, uint64_t target, uint64_t *nodes_left,
                       uint64_t offsets[MLAR_PLAN_MAX_REQUESTS]);

#endif
