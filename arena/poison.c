/* SPDX-License-Identifier: Apache-2.0
 *
 * poison.c: words that make unwritten memory visible in a result, and how far they were written over. */
#include "arena/guard.h"
#include "arena/shadow.h"

#include <string.h>

enum { WORD_BYTES = 4 };

/* A word is `plain` with those bits of `varied` flipped that the seed picks; the rest keeps it a NaN, or far
 * out. */
static const struct {
    uint32_t plain, varied;
    uint64_t bytes;
} elements_table[MLAR_ELEMENT_COUNT] = {
    [MLAR_ELEMENT_BF16] = {0xffffffffu, 0x803f803fu,
                           2},                          /* sign and low mantissa bits of a quiet NaN, twice */
    [MLAR_ELEMENT_F32] = {0xffffffffu, 0x803fffffu, 4}, /* the same, once */
    [MLAR_ELEMENT_E4M3FN] = {0xffffffffu, 0x80808080u, 1},   /* the signs of four NaNs */
    [MLAR_ELEMENT_E4M3FNUZ] = {0x80808080u, 0x00000000u, 1}, /* there is one NaN */
    [MLAR_ELEMENT_I32] = {0x80808080u, 0x00ffffffu, 4},      /* below -2,130,706,432 */
    [MLAR_ELEMENT_U64] = {0xa5a5a5a5u, 0x00ffffffu, 8},      /* above 10^19 */
};

uint64_t mlar_element_bytes(mlar_element element) {
    return elements_table[element].bytes;
}

uint32_t mlar_poison_word(mlar_element element, uint32_t seed) {
    uint32_t mixed =
        seed * 0x9e3779b9u; /* an odd factor: neighbouring seeds differ in all bytes, 0 stays 0 */
    return elements_table[element].plain ^ (mixed & elements_table[element].varied);
}

/* The word as it stands `distance` bytes after a place where it begins. */
static uint32_t word_from(uint32_t word, uint64_t distance) {
    unsigned char twice[2 * WORD_BYTES];
    memcpy(twice, &word, WORD_BYTES);
    memcpy(twice + WORD_BYTES, &word, WORD_BYTES);
    memcpy(&word, twice + distance % WORD_BYTES, WORD_BYTES);
    return word;
}

void mlar_poison_fill(void *bytes, uint64_t count, uint32_t word) {
    unsigned char *out = bytes;
    uint64_t whole = count - count % WORD_BYTES;
    for (uint64_t i = 0; i < whole; i += WORD_BYTES) memcpy(out + i, &word, WORD_BYTES);
    if (count > whole) memcpy(out + whole, &word, (size_t)(count - whole));
}

MLAR_SHADOW_BLIND uint64_t mlar_poison_high_water(const void *bytes, uint64_t count, uint32_t word) {
    const unsigned char *in = bytes;
    unsigned char expected[WORD_BYTES];
    memcpy(expected, &word, WORD_BYTES);
    while (count > 0) {
        uint32_t found = 0;
        if (count % WORD_BYTES == 0) memcpy(&found, in + count - WORD_BYTES, WORD_BYTES);
        if (count % WORD_BYTES == 0 && found == word) {
            count -= WORD_BYTES;
        } else if (in[count - 1] == expected[(count - 1) % WORD_BYTES]) {
            count--;
        } else {
            break;
        }
    }
    return count;
}

/* ---- over a plan ----------------------------------------------------------------------------- */

static bool is_scratch(const mlar_plan_request *request) {
    return request->bytes != 0 && !mlar_plan_is_persistent(request);
}

/* The last scratch buffer of the plan that has the byte at `offset`, or -1; *end becomes the next offset at
 * which the answer may change. */
static int32_t owner_at(const mlar_plan *plan, uint64_t offset, uint64_t *end) {
    int32_t owner = -1;
    *end = plan->total_bytes;
    for (int32_t i = 0; i < plan->count; i++) {
        if (!is_scratch(&plan->requests[i])) continue;
        uint64_t first = plan->offsets[i];
        uint64_t behind = first + plan->requests[i].bytes;
        if (first <= offset && offset < behind) owner = i;
        if (first > offset && first < *end) *end = first;
        if (behind > offset && behind < *end) *end = behind;
    }
    return owner;
}

int32_t mlar_poison_segments(const mlar_plan *plan, mlar_poison_segment segments[MLAR_POISON_MAX_SEGMENTS]) {
    int32_t count = 0;
    uint64_t end = 0;
    for (uint64_t offset = 0; offset < plan->total_bytes; offset = end) {
        int32_t owner = owner_at(plan, offset, &end);
        if (owner < 0) continue;
        segments[count++] = (mlar_poison_segment){.offset = offset, .bytes = end - offset, .index = owner};
    }
    return count;
}

/* The word of a segment, as it stands at the segment's first byte. */
static uint32_t segment_word(const mlar_plan *plan, const mlar_poison_segment *segment,
                             const mlar_element *elements, uint32_t seed) {
    return word_from(mlar_poison_word(elements[segment->index], seed),
                     segment->offset - plan->offsets[segment->index]);
}

void mlar_arena_poison(mlar_arena_core *arena, const mlar_element *elements, uint32_t seed) {
    mlar_poison_segment segments[MLAR_POISON_MAX_SEGMENTS];
    int32_t count = mlar_poison_segments(arena->plan, segments);
    mlar_arena_expose(arena);
    for (int32_t i = 0; i < count; i++) {
        unsigned char *bytes = arena->base + segments[i].offset;
        mlar_poison_fill(bytes, segments[i].bytes, segment_word(arena->plan, &segments[i], elements, seed));
        mlar_shadow_undefine(bytes, segments[i].bytes);
    }
    mlar_arena_conceal(arena);
}

uint64_t mlar_arena_high_water(mlar_arena_core *arena, const mlar_element *elements, uint32_t seed) {
    mlar_poison_segment segments[MLAR_POISON_MAX_SEGMENTS];
    int32_t i = mlar_poison_segments(arena->plan, segments);
    uint64_t mark = 0;
    mlar_arena_expose(arena);
    while (mark == 0 && i-- > 0) {
        uint32_t word = segment_word(arena->plan, &segments[i], elements, seed);
        uint64_t written = mlar_poison_high_water(arena->base + segments[i].offset, segments[i].bytes, word);
        if (written > 0) mark = segments[i].offset + written;
    }
    mlar_arena_conceal(arena);
    return mark;
}

void mlar_arena_poison_stage(mlar_arena_core *arena, const mlar_element *elements, uint32_t seed,
                             int32_t stage) {
    const mlar_plan *plan = arena->plan;
    mlar_arena_expose(arena);
    for (int32_t i = 0; i < plan->count; i++) {
        if (!is_scratch(&plan->requests[i]) || plan->requests[i].first_stage != stage) continue;
        unsigned char *bytes = arena->base + plan->offsets[i];
        mlar_poison_fill(bytes, plan->requests[i].bytes, mlar_poison_word(elements[i], seed));
        mlar_shadow_undefine(bytes, plan->requests[i].bytes);
    }
    mlar_arena_conceal(arena);
}

void mlar_arena_measure_stage(mlar_arena_core *arena, const mlar_element *elements, uint32_t seed,
                              int32_t stage, uint64_t marks[MLAR_PLAN_MAX_REQUESTS]) {
    const mlar_plan *plan = arena->plan;
    mlar_arena_expose(arena);
    for (int32_t i = 0; i < plan->count; i++) {
        if (!is_scratch(&plan->requests[i]) || !mlar_plan_is_live(&plan->requests[i], stage)) continue;
        uint64_t mark = mlar_poison_high_water(arena->base + plan->offsets[i], plan->requests[i].bytes,
                                               mlar_poison_word(elements[i], seed));
        if (mark > marks[i]) marks[i] = mark;
    }
    mlar_arena_conceal(arena);
}
