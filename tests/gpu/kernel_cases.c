/* SPDX-License-Identifier: Apache-2.0
 *
 * kernel_cases.c: see kernel_cases.h. */
#include "tests/gpu/kernel_cases.h"

#include "kernels/schedule.h"

/* A byte that is NaN in the encoding; kernels take such tokens on a path of their own, away from the usual one. */
static int is_nan(int32_t fp8, int32_t byte) {
    return fp8 == MLAR_FP8_E4M3FNUZ ? byte == 0x80 : (byte & 0x7f) == 0x7f;
}

step_case *kernel_case_all_bytes(int32_t fp8, int32_t base_offset_bytes, int32_t with_nan) {
    case_spec spec = {
        .seed = 1, .rows = 1, .capacity_rows = 1, .heads = 1, .nope = 64, .rope = 8, .scope_count = 1};
    step_case *made;
    const mlar_scope_params *scope;
    uint8_t *cache;
    int32_t *indices;
    spec.scope[0] = (case_scope_spec){.fp8 = fp8,
                                      .block_size = 64,
                                      .num_blocks = 16,
                                      .width = 1024,
                                      .rows_per_len = 1,
                                      .base_offset_bytes = base_offset_bytes};
    made = case_new(&spec);
    scope = &made->layer.scope[0];
    cache = (uint8_t *)(uintptr_t)scope->cache; /* the case's own memory */
    indices = (int32_t *)(uintptr_t)scope->indices;
    for (int32_t slot = 0; slot < 1024; slot++) {
        const mlar_slot_place place = mlar_slot_place_of(scope, (uint32_t)slot);
        for (int32_t d = 0; d < 64; d++) {
            int32_t byte = slot % 4 * 64 + d;
            cache[place.record + (uint64_t)d] = (uint8_t)(!with_nan && is_nan(fp8, byte) ? 0 : byte);
        }
        cache[place.scales] = (uint8_t)(slot / 4);
        indices[slot] = slot;
    }
    return made;
}

step_case *kernel_case_limit(int32_t number) {
    static const case_spec limits[KERNEL_CASE_LIMITS] = {
        /* the widest key, odd ends of it, and more heads than a group */
        {.rows = 1, .heads = 128, .nope = 512, .rope = 128, .scope = {{.width = 70}, {.width = 130}}},
        {.rows = 2, .heads = 33, .nope = 512, .rope = 126, .scope = {{.width = 65}, {.width = 1}}},
        {.rows = 1, .heads = 17, .nope = 320, .rope = 2, .scope = {{.width = 64}, {.width = 63}}},
        /* a row of many parts, and more rows than prepare takes at once */
        {.rows = 1, .heads = 3, .nope = 64, .rope = 8, .scope = {{.width = 128}, {.width = 8192}}},
        {.rows = 600, .heads = 1, .nope = 64, .rope = 8, .scope = {{.width = 3}, {.width = 200}}},
    };
    case_spec spec = limits[number];
    spec.seed = 1000 + (uint64_t)number;
    spec.features = CASE_WILD | CASE_SPECIALS;
    spec.capacity_rows = spec.rows + 3;
    spec.scope_count = 2;
    spec.has_lse = spec.tail_zero = true;
    spec.sink = CASE_SINK_ORDINARY;
    for (int32_t s = 0; s < 2; s++) {
        spec.scope[s].block_size = s ? 64 : 53;
        spec.scope[s].num_blocks = 8;
        spec.scope[s].rows_per_len = 1;
        spec.scope[s].has_lens = true;
        spec.scope[s].fp8 = s;
    }
    return case_new(&spec);
}

step_case *kernel_case_tuned(uint64_t seed, int32_t layout, const case_bounds *bounds) {
    /* With NaN among the contents nearly every sub-tile has some, and all take the exact path. Nor huge queries: of
     * terms near 2^126 that cancel, f32 sums keep less than lse's relative tolerance asks for. */
    const uint32_t features = seed % 2 ? CASE_ALL : CASE_ALL & ~(uint32_t)(CASE_SPECIALS | CASE_QUERIES);
    case_spec spec = case_draw(seed, features, bounds);
    const int32_t v32 = layout == MLAR_LAYOUT_V32, bf16 = layout == MLAR_LAYOUT_BF16;
    spec.nope = v32 ? 512 : bf16 && seed % 3 == 0 ? 384 : 448;
    spec.rope = v32 ? 64 : 512 - spec.nope;
    for (int32_t s = 0; s < spec.scope_count; s++) {
        case_scope_spec *scope = &spec.scope[s];
        const int32_t record = bf16 ? 1024 : v32 ? 512 + 4 * 4 + 2 * 64 : 448 + 2 * 64 + 8;
        if (layout < 0 && scope->layout == MLAR_LAYOUT_V32) scope->layout = MLAR_LAYOUT_BF16;
        if (layout < 0) continue;
        scope->layout = layout;
        scope->base_offset_bytes = 0;
        scope->stride_extra_bytes =
            (scope->stride_extra_bytes + 15) / 16 * 16 + (16 - scope->block_size * record % 16) % 16;
    }
    return case_new(&spec);
}

step_case *kernel_case_far(void) {
    case_spec spec = case_draw(5, 0, NULL);
    spec.rows = spec.capacity_rows = 1;
    spec.nope = 448;
    spec.rope = 64;
    spec.scope_count = 1;
    spec.scope[0] =
        (case_scope_spec){.block_size = 64, .num_blocks = 140000, .width = 200, .rows_per_len = 1};
    return case_new(&spec);
}
