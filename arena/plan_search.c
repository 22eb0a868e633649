/* SPDX-License-Identifier: Apache-2.0
 *
 * plan_search.c: an exact search for a placement that is no higher than a target.
 *
 * The picture is a skyline over the columns. The valley is the leftmost run of columns of the least height.
 * In a placement where nothing can sink, every item that stands on the valley's floor lies wholly inside the
 * valley (its walls are higher), so the floor is filled from left to right: either some item that starts in
 * the leftmost open column and fits the valley stands there, or nothing does and the column is skipped. When
 * the floor is decided, every skipped stretch rises to the lower of its two walls: an item inside the stretch
 * would have sunk to the floor, so whatever comes next above it stands on a wall as well.
 *
 * A branch dies when some column's height plus the spans that it still has to take exceeds the target. With
 * the target at the lower bound the fullest columns allow no waste at all, which is what makes the search
 * short for sequences such as an engine has; the node limit bounds the time of the others. The recursion is
 * at most a few hundred small frames deep: each one places an item or levels a step of the skyline. */
#include "arena/plan_place.h"

#include <string.h>

typedef struct search {
    const mlar_place_problem *problem;
    uint64_t target;
    uint64_t *nodes_left;
    uint64_t *offsets;
    uint64_t placed; /* a bit per item */
    int32_t unplaced;
    uint64_t height[MLAR_PLAN_MAX_REQUESTS];      /* per column */
    uint64_t outstanding[MLAR_PLAN_MAX_REQUESTS]; /* per column, the spans not placed yet */
} search;

typedef struct valley {
    int32_t left, right; /* columns, inclusive */
    uint64_t floor;
} valley;

static bool fill_valley(search *s);

/* A column that takes nothing more is an infinite wall, as is what lies beyond the first and last column. */
static uint64_t wall(const search *s, int32_t column) {
    if (column < 0 || column >= s->problem->columns || s->outstanding[column] == 0) return UINT64_MAX;
    return s->height[column];
}

static valley lowest_valley(const search *s) {
    valley v = {0, 0, UINT64_MAX};
    for (int32_t column = 0; column < s->problem->columns; column++) {
        if (wall(s, column) < v.floor) v = (valley){column, column, wall(s, column)};
    }
    while (wall(s, v.right + 1) == v.floor) v.right++;
    return v;
}

static void set_height(search *s, int32_t first, int32_t last, uint64_t height) {
    for (int32_t column = first; column <= last; column++) s->height[column] = height;
}

static bool within_target(const search *s, int32_t first, int32_t last, uint64_t height) {
    if (height > s->target) return false;
    for (int32_t column = first; column <= last; column++) {
        if (s->outstanding[column] > s->target - height) return false;
    }
    return true;
}

/* Raises the skipped columns (a bit each) and goes on with the next valley. */
static bool raise_skipped(search *s, valley v, uint64_t skipped) {
    bool found = true;
    for (int32_t first = v.left; found && first <= v.right; first++) {
        if ((skipped >> first & 1) == 0) continue;
        int32_t last = first;
        while (last < v.right && (skipped >> (last + 1) & 1) != 0) last++;
        uint64_t left = wall(s, first - 1);
        uint64_t right = wall(s, last + 1);
        uint64_t height = left < right ? left : right;
        found = within_target(s, first, last, height);
        set_height(s, first, last, height);
        first = last;
    }
    found = found && fill_valley(s);
    for (int32_t column = v.left; column <= v.right; column++) {
        if ((skipped >> column & 1) != 0) s->height[column] = v.floor;
    }
    return found;
}

static void take(search *s, int32_t index) {
    const mlar_place_item *item = &s->problem->items[index];
    s->placed |= (uint64_t)1 << index;
    s->unplaced--;
    for (int32_t column = item->first; column <= item->last; column++) s->outstanding[column] -= item->span;
}

static void put_back(search *s, int32_t index) {
    const mlar_place_item *item = &s->problem->items[index];
    s->placed &= ~((uint64_t)1 << index);
    s->unplaced++;
    for (int32_t column = item->first; column <= item->last; column++) s->outstanding[column] += item->span;
}

static bool same_item(const mlar_place_item *a, const mlar_place_item *b) {
    return a->span == b->span && a->align == b->align && a->first == b->first && a->last == b->last;
}

/* Fills the floor from `column` on; `skipped` has the columns left of it on which nothing stands. */
static bool fill_floor(search *s, valley v, int32_t column, uint64_t skipped) {
    const mlar_place_item *items = s->problem->items;
    for (; column <= v.right; column++) {
        int32_t tried = -1;
        for (int32_t i = 0; i < s->problem->count; i++) {
            if ((s->placed >> i & 1) != 0 || items[i].first != column || items[i].last > v.right) continue;
            if (tried >= 0 && same_item(&items[tried], &items[i])) continue; /* equal items are neighbours */
            tried = i;
            if (*s->nodes_left == 0) return false;
            --*s->nodes_left;
            uint64_t offset = mlar_place_align_up(v.floor, items[i].align);
            take(s, i);
            bool found = false;
            if (within_target(s, items[i].first, items[i].last, offset + items[i].span)) {
                set_height(s, items[i].first, items[i].last, offset + items[i].span);
                found = fill_floor(s, v, items[i].last + 1, skipped);
                set_height(s, items[i].first, items[i].last, v.floor);
            }
            if (found) s->offsets[i] = offset;
            put_back(s, i);
            if (found) return true;
        }
        if (s->outstanding[column] == s->target - v.floor) return false; /* no room to skip */
        skipped |= (uint64_t)1 << column;
    }
    return raise_skipped(s, v, skipped);
}

static bool fill_valley(search *s) {
    if (s->unplaced == 0) return true;
    valley v = lowest_valley(s);
    return fill_floor(s, v, v.left, 0);
}

bool mlar_place_search(const mlar_place_problem *problem, uint64_t target, uint64_t *nodes_left,
                       uint64_t offsets[MLAR_PLAN_MAX_REQUESTS]) {
    search s = {.problem = problem,
                .target = target,
                .nodes_left = nodes_left,
                .offsets = offsets,
                .unplaced = problem->count};
    if (problem->bound > target) return false;
    memcpy(s.outstanding, problem->load, sizeof s.outstanding);
    return fill_valley(&s);
}
