/* SPDX-License-Identifier: Apache-2.0
 *
 * fingerprint.c: the plan as a sequence of words, hashed. */
#include "arena/fingerprint.h"

#include "arena/hash.h"

enum { WORD_BYTES = 8, WORDS_MAX = 8 };

static uint64_t hash_words(const uint64_t *words, size_t count, uint64_t seed) {
    unsigned char little_endian[WORDS_MAX * WORD_BYTES];
    for (size_t i = 0; i < count * WORD_BYTES; i++) {
        little_endian[i] = (unsigned char)(words[i / WORD_BYTES] >> (8 * (i % WORD_BYTES)));
    }
    return mlar_hash(little_endian, count * WORD_BYTES, seed);
}

uint64_t mlar_plan_fingerprint(const void *config, size_t config_bytes, const mlar_plan *plan) {
    const uint64_t totals[] = {
        plan->total_bytes,     plan->lower_bound_bytes,     plan->sum_bytes,
        plan->guard_bytes,     plan->guard_zone_bytes,      plan->align,
        (uint64_t)plan->count, (uint64_t)plan->stage_count,
    };
    uint64_t digest = mlar_hash(config, config_bytes, config_bytes);
    digest = hash_words(totals, sizeof totals / sizeof totals[0], digest);
    for (int32_t i = 0; i < plan->count; i++) {
        const mlar_plan_request *request = &plan->requests[i];
        const uint64_t buffer[] = {plan->offsets[i], request->bytes, request->align,
                                   (uint64_t)request->first_stage, (uint64_t)request->last_stage};
        digest = hash_words(buffer, sizeof buffer / sizeof buffer[0], digest);
    }
    return digest;
}
