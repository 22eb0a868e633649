/* SPDX-License-Identifier: Apache-2.0
 *
 * plan_place.c: several orders of placing the items, the best of which is kept; if none of them reaches the
 * lower bound, an exact search tries to.
 *
 * Each order places its items one after the other at the lowest offset that is free of conflicts. For the
 * order "largest alignment first" every offset is then 0 or the end of an earlier item, with no loss to
 * alignment, so an item's end is the sum of the spans of a chain of different items: that candidate never
 * exceeds the sum of all spans, and neither does the best one. */
#include "arena/plan_place.h"

#include <stddef.h>
#include <string.h>

/* What decides who is placed first: the larger value of each key in turn, then the canonical order. */
typedef enum sort_key { KEY_NONE, KEY_ALIGN, KEY_SPAN, KEY_WIDTH, KEY_EARLY, KEY_LATE, KEY_LOAD } sort_key;

static const sort_key placing_orders[][3] = {
    {KEY_WIDTH, KEY_ALIGN, KEY_SPAN}, /* persistent buffers at the bottom: the map that reads best */
    {KEY_ALIGN, KEY_SPAN, KEY_WIDTH}, /* the one that proves total <= sum */
    {KEY_SPAN, KEY_WIDTH, KEY_ALIGN}, /* large ones first */
    {KEY_LOAD, KEY_WIDTH, KEY_SPAN},  /* the fullest columns first */
    {KEY_EARLY, KEY_SPAN, KEY_WIDTH}, /* as time runs */
    {KEY_LATE, KEY_SPAN, KEY_WIDTH},  /* against it */
};

/* Search nodes for the lower bound, and for anything better than the orders found: together one or two ms. */
enum { NODES_FOR_BOUND = 3000, NODES_FOR_BETTER = 1500 };

static uint64_t key_value(const mlar_place_problem *problem, const mlar_place_item *item, sort_key key) {
    uint64_t load = 0;
    switch (key) {
    case KEY_ALIGN:
        return item->align;
    case KEY_SPAN:
        return item->span;
    case KEY_WIDTH:
        return (uint64_t)(item->last - item->first);
    case KEY_EARLY:
        return (uint64_t)(problem->columns - item->first);
    case KEY_LATE:
        return (uint64_t)item->last;
    case KEY_LOAD:
        for (int32_t column = item->first; column <= item->last; column++) {
            if (problem->load[column] > load) load = problem->load[column];
        }
        return load;
    case KEY_NONE:
        break;
    }
    return 0;
}

static bool goes_before(const mlar_place_problem *problem, const sort_key keys[3], int32_t a, int32_t b) {
    for (int32_t k = 0; k < 3; k++) {
        uint64_t value_a = key_value(problem, &problem->items[a], keys[k]);
        uint64_t value_b = key_value(problem, &problem->items[b], keys[k]);
        if (value_a != value_b) return value_a > value_b;
    }
    return a < b;
}

static void sort_items(const mlar_place_problem *problem, const sort_key keys[3],
                       uint8_t order[MLAR_PLAN_MAX_REQUESTS]) {
    for (int32_t i = 0; i < problem->count; i++) {
        int32_t at = i;
        for (; at > 0 && goes_before(problem, keys, i, order[at - 1]); at--) order[at] = order[at - 1];
        order[at] = (uint8_t)i;
    }
}

/* The lowest offset at which the item clears the first `placed` items of the order. */
static uint64_t lowest_offset(const mlar_place_problem *problem, const uint8_t *order, int32_t placed,
                              const mlar_place_item *item, const uint64_t *offsets) {
    uint64_t offset = 0;
    for (int32_t i = 0; i < placed; i++) {
        const mlar_place_item *other = &problem->items[order[i]];
        uint64_t other_end = offsets[order[i]] + other->span;
        if (!mlar_place_conflict(item, other)) continue;
        if (offset + item->span <= offsets[order[i]] || offset >= other_end) continue;
        offset = mlar_place_align_up(other_end, item->align);
        i = -1; /* look at all of them again from the new offset */
    }
    return offset;
}

static uint64_t place_in_order(const mlar_place_problem *problem, const sort_key keys[3], uint64_t *offsets) {
    uint8_t order[MLAR_PLAN_MAX_REQUESTS];
    uint64_t total = 0;
    sort_items(problem, keys, order);
    for (int32_t i = 0; i < problem->count; i++) {
        const mlar_place_item *item = &problem->items[order[i]];
        uint64_t offset = lowest_offset(problem, order, i, item, offsets);
        offsets[order[i]] = offset;
        if (offset + item->span > total) total = offset + item->span;
    }
    return total;
}

static uint64_t total_of(const mlar_place_problem *problem, const uint64_t *offsets) {
    uint64_t total = 0;
    for (int32_t i = 0; i < problem->count; i++) {
        uint64_t end = offsets[i] + problem->items[i].span;
        if (end > total) total = end;
    }
    return total;
}

uint64_t mlar_place(const mlar_place_problem *problem, uint64_t offsets[MLAR_PLAN_MAX_REQUESTS]) {
    uint64_t candidate[MLAR_PLAN_MAX_REQUESTS] = {0};
    uint64_t best = UINT64_MAX;
    for (size_t i = 0; i < sizeof placing_orders / sizeof placing_orders[0] && best > problem->bound; i++) {
        uint64_t total = place_in_order(problem, placing_orders[i], candidate);
        if (total >= best) continue;
        best = total;
        memcpy(offsets, candidate, sizeof candidate);
    }
    uint64_t nodes = NODES_FOR_BOUND;
    if (best > problem->bound && mlar_place_search(problem, problem->bound, &nodes, candidate)) {
        memcpy(offsets, candidate, sizeof candidate);
        return total_of(problem, candidate);
    }
    nodes = NODES_FOR_BETTER;
    while (best > problem->bound && mlar_place_search(problem, best - 1, &nodes, candidate)) {
        memcpy(offsets, candidate, sizeof candidate);
        best = total_of(problem, candidate);
    }
    return best;
}
