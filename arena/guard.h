/* SPDX-License-Identifier: Apache-2.0
 *
 * guard.h: what proves that kernels stay inside their buffers: guard zones, poison, high-water marks.
 *
 * *Guard zones.* Where the plan has guard_zone_bytes, every buffer has a zone in front of it and one that
 * begins at its last byte + 1. Their bytes follow from their place in the arena, and their XXH3 digests are
 * known before any memory is. The protocol is: fill for a range of stages, run these stages, check for the
 * same range. A zone is watched in a range if its buffer lives in it and no buffer that lives in it may write
 * there: for one stage that is every zone of every live buffer; for the whole life of a plan, the zones that
 * are never shared.
 *
 * *Poison.* A 32-bit word per element type and seed, NaN where the type has one, that makes reading something
 * nobody wrote visible in the result. *High-water marks* are how far into the poison a buffer was written.
 *
 * Functions that take an arena touch it with the host's hands: the source must be host visible. For device
 * memory the same zones, words and segments are there to be used on copies and with device fills. */
#ifndef MLAR_ARENA_GUARD_H
#define MLAR_ARENA_GUARD_H

#include "arena/arena.h"
#include "arena/plan.h"

#include <mlarena/status.h>
#include <stdbool.h>
#include <stdint.h>

/* ---- guard zones ----------------------------------------------------------------------------- */

typedef enum mlar_guard_side { MLAR_GUARD_FRONT, MLAR_GUARD_BACK, MLAR_GUARD_SIDES } mlar_guard_side;

typedef struct mlar_guard_zone {
    uint64_t offset; /* in the arena */
    uint64_t bytes;
} mlar_guard_zone;

/* A plan's zones and what they must hash to. 1 KiB; the plan must outlive it. */
typedef struct mlar_guards {
    const mlar_plan *plan;
    uint64_t digest[MLAR_PLAN_MAX_REQUESTS][MLAR_GUARD_SIDES];
} mlar_guards;

void mlar_guards_init(mlar_guards *guards, const mlar_plan *plan);

/* True, and *zone, if that side of the buffer is watched in the stages first..last. */
bool mlar_guard_zone_of(const mlar_plan *plan, int32_t index, mlar_guard_side side, int32_t first_stage,
                        int32_t last_stage, mlar_guard_zone *zone);

/* The bytes that belong at arena offset `offset`. */
void mlar_guard_pattern(uint64_t offset, uint64_t bytes, void *out);

/* Judges one zone's bytes, in place or copied from a device. MLAR_ERROR_GUARD names the buffer, the side and
 * the first overwritten byte (diag.given: its distance from the buffer, 0 = the byte next to it). */
mlar_status mlar_guards_check_zone(const mlar_guards *guards, int32_t index, mlar_guard_side side,
                                   const void *zone_bytes, mlar_diag *diag);

/* Writes, or checks, all zones watched in the stages first..last of a host-visible, held arena. */
void mlar_guards_fill(const mlar_guards *guards, mlar_arena_core *arena, int32_t first_stage,
                      int32_t last_stage);
mlar_status mlar_guards_check(const mlar_guards *guards, mlar_arena_core *arena, int32_t first_stage,
                              int32_t last_stage, mlar_diag *diag);

/* ---- poison ---------------------------------------------------------------------------------- */

typedef enum mlar_element {
    MLAR_ELEMENT_BF16,
    MLAR_ELEMENT_F32,
    MLAR_ELEMENT_E4M3FN,   /* fp8 bytes: NaN is 0x7f or 0xff */
    MLAR_ELEMENT_E4M3FNUZ, /* fp8 bytes: NaN is 0x80 */
    MLAR_ELEMENT_I32,      /* no NaN: far below every index and count */
    MLAR_ELEMENT_U64,      /* no NaN: a counter nobody would believe */
    MLAR_ELEMENT_COUNT
} mlar_element;

uint64_t mlar_element_bytes(mlar_element element);

/* The word that poisons elements of this type, repeated from the buffer's first byte; every element it makes
 * is a NaN or out of range for every seed. Seed 0 is the plain one. */
uint32_t mlar_poison_word(mlar_element element, uint32_t seed);

/* Host memory of any size, at any alignment. */
void mlar_poison_fill(void *bytes, uint64_t count, uint32_t word);
/* One more than the index of the last byte that is not poison; 0 if all of it is. What was written and
 * happens to equal the poison is not seen, so this is a lower bound. */
uint64_t mlar_poison_high_water(const void *bytes, uint64_t count, uint32_t word);

/* ---- poison over a plan ---------------------------------------------------------------------- */

enum { MLAR_POISON_MAX_SEGMENTS = 2 * MLAR_PLAN_MAX_REQUESTS };

/* Bytes of the arena that scratch buffers own, and the buffer whose poison they get (of several that share
 * them, the last in the plan). */
typedef struct mlar_poison_segment {
    uint64_t offset;
    uint64_t bytes;
    int32_t index;
} mlar_poison_segment;

/* All scratch at once, lowest address first: returns the number of segments. Persistent buffers are
 * left out. */
int32_t mlar_poison_segments(const mlar_plan *plan, mlar_poison_segment segments[MLAR_POISON_MAX_SEGMENTS]);

/* Poisons all scratch; elements[i] is the type of the plan's buffer i. */
void mlar_arena_poison(mlar_arena_core *arena, const mlar_element *elements, uint32_t seed);
/* The arena-wide mark since then: one more than the highest scratch byte written, as an arena offset; 0 if
 * none. */
uint64_t mlar_arena_high_water(mlar_arena_core *arena, const mlar_element *elements, uint32_t seed);

/* High-water marks buffer by buffer, where buffers share bytes: before a stage poison what is born in it,
 * after it measure what lives in it. marks[i] (bytes of buffer i) only grows. */
void mlar_arena_poison_stage(mlar_arena_core *arena, const mlar_element *elements, uint32_t seed,
                             int32_t stage);
void mlar_arena_measure_stage(mlar_arena_core *arena, const mlar_element *elements, uint32_t seed,
                              int32_t stage, uint64_t marks[MLAR_PLAN_MAX_REQUESTS]);

#endif
