/* SPDX-License-Identifier: Apache-2.0
 *
 * test_kv_cache.c: what hosts are told about cache layouts: known sizes, agreement with the kernels' own
 * addresses, encoding and decoding of tokens, refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "kernels/schedule.h"
#include "mlarena/kv_cache.h"
#include "tests/support/cases.h"
#include "tests/support/reference.h"

static const int32_t block_sizes[] = {1, 2, 4, 53, 61, 64, 69, 256, 576, 65536};

static void known_sizes(void **state) {
    static const struct {
        int32_t layout, nope, rope, block_size;
        uint64_t record, scale_offset, least, padded;
    } known[] = {
        {MLAR_LAYOUT_DSV4, 448, 64, 64, 576, 36864, 37376, 37440},
        {MLAR_LAYOUT_DSV4, 448, 64, 256, 576, 147456, 149504, 149760},
        {MLAR_LAYOUT_DSV4, 448, 64, 2, 576, 1152, 1168, 1728},
        {MLAR_LAYOUT_DSV4, 448, 64, 1, 576, 576, 584, 1152},
        {MLAR_LAYOUT_DSV4, 64, 8, 4, 80, 320, 352, 576},
        {MLAR_LAYOUT_V32, 512, 64, 64, 656, 512, 41984, 41984},
        {MLAR_LAYOUT_BF16, 448, 64, 1, 1024, 0, 1024, 1024},
        {MLAR_LAYOUT_BF16, 512, 64, 16, 1152, 0, 18432, 18432},
    };
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof *known; ++i) {
        uint64_t record, offset, least, padded;
        assert_int_equal(mlar_kv_record_bytes(known[i].layout, known[i].nope, known[i].rope, &record),
                         MLAR_OK);
        assert_int_equal(
            mlar_kv_scale_offset(known[i].layout, known[i].nope, known[i].rope, known[i].block_size, &offset),
            MLAR_OK);
        assert_int_equal(mlar_kv_block_stride_min(known[i].layout, known[i].nope, known[i].rope,
                                                  known[i].block_size, &least),
                         MLAR_OK);
        assert_int_equal(mlar_kv_block_stride_padded(known[i].layout, known[i].nope, known[i].rope,
                                                     known[i].block_size, &padded),
                         MLAR_OK);
        assert_int_equal(record, known[i].record);
        assert_int_equal(offset, known[i].scale_offset);
        assert_int_equal(least, known[i].least);
        assert_int_equal(padded, known[i].padded);
    }
}

static void head_dims(void **state) {
    int32_t d_qk = 0, d_v = 0;
    (void)state;
    assert_int_equal(mlar_kv_head_dims(MLAR_LAYOUT_DSV4, 448, 64, &d_qk, &d_v), MLAR_OK);
    assert_true(d_qk == 512 && d_v == 512);
    assert_int_equal(mlar_kv_head_dims(MLAR_LAYOUT_V32, 512, 64, &d_qk, &d_v), MLAR_OK);
    assert_true(d_qk == 576 && d_v == 512);
    assert_int_equal(mlar_kv_head_dims(MLAR_LAYOUT_BF16, 512, 64, &d_qk, NULL), MLAR_OK);
    assert_int_equal(mlar_kv_head_dims(MLAR_LAYOUT_BF16, 512, 64, NULL, &d_v), MLAR_OK);
    assert_true(d_qk == 576 && d_v == 576);
}

/* Hosts' offsets are the kernels' places, for every token of several blocks. */
static void offsets_are_the_kernels_places(void **state) {
    (void)state;
    for (int32_t layout = 0; layout < 3; ++layout) {
        for (size_t b = 0; b < sizeof block_sizes / sizeof *block_sizes; ++b) {
            const int32_t block_size = block_sizes[b];
            mlar_scope_params scope = {.block_size = (uint32_t)block_size, .layout = layout};
            uint64_t record, offset;
            mlar_kv_record_bytes(layout, 128, 10, &record);
            mlar_kv_scale_offset(layout, 128, 10, block_size, &offset);
            mlar_kv_block_stride_padded(layout, 128, 10, block_size, &scope.block_stride_bytes);
            scope.record_bytes = (uint32_t)record;
            scope.scale_offset_bytes = (uint32_t)offset;
            mlar_block_division(scope.block_size, &scope.block_magic, &scope.block_shift);
            for (uint32_t slot = 0; slot < 3 * scope.block_size; slot += 1 + slot / 700) {
                const mlar_slot_place place = mlar_slot_place_of(&scope, slot);
                const uint64_t begin = slot / scope.block_size * scope.block_stride_bytes;
                uint64_t scales;
                assert_int_equal(mlar_kv_token_offsets(layout, 128, 10, block_size,
                                                       (int32_t)(slot % scope.block_size), &record, &scales),
                                 MLAR_OK);
                assert_int_equal(place.record, begin + record);
                if (layout != MLAR_LAYOUT_BF16) assert_int_equal(place.scales, begin + scales);
            }
        }
    }
}

/* ---- tokens ---- */

enum { NOPE = 256, ROPE = 16, VALUES = NOPE + ROPE, RECORD_MAX = 2 * VALUES };

static bool is_nan_bf16(uint16_t bits) {
    return (bits & 0x7fff) > 0x7f80;
}

static float bf16_float(uint16_t bits) {
    return (float)reference_bf16_value(bits);
}

static double largest_of(const float *values, int32_t count) {
    double largest = 0;
    for (int32_t i = 0; i < count; ++i)
        if (fabsf(values[i]) > largest) largest = fabsf(values[i]);
    return largest;
}

/* What comes back is within half a step of what went in: 2^-4 of the value where fp8 is normal, the least
 * subnormal's half below. */
static void tokens_come_back(void **state) {
    uint64_t random = 4;
    (void)state;
    for (int32_t pass = 0; pass < 600; ++pass) {
        const int32_t layout = pass % 3, fp8 = pass / 3 % 2;
        const float size = ldexpf(1.0f, case_random_below(&random, 40) - 20);
        const int32_t tile = layout == MLAR_LAYOUT_V32 ? 128 : 64;
        uint8_t record[RECORD_MAX], scales[16], again[RECORD_MAX], again_scales[16];
        float values[VALUES];
        uint16_t bf16[VALUES], back[VALUES];
        for (int32_t d = 0; d < VALUES; ++d) {
            bf16[d] = reference_bf16_round((double)size * (case_random_below(&random, 2001) - 1000) / 1000);
            values[d] = bf16_float(bf16[d]);
        }
        memset(record, 0x5a, sizeof record);
        memset(again, 0x5a, sizeof again);
        memset(scales, 0x5a, sizeof scales);
        memset(again_scales, 0x5a, sizeof again_scales);
        assert_int_equal(mlar_kv_encode_f32(layout, fp8, NOPE, ROPE, values, record, scales), MLAR_OK);
        assert_int_equal(mlar_kv_encode_bf16(layout, fp8, NOPE, ROPE, bf16, again, again_scales), MLAR_OK);
        assert_memory_equal(record, again, sizeof record);
        assert_memory_equal(scales, again_scales, sizeof scales);
        assert_int_equal(mlar_kv_decode_bf16(layout, fp8, NOPE, ROPE, record, scales, back), MLAR_OK);
        for (int32_t d = 0; d < VALUES; ++d) {
            double step = 0;
            if (d < NOPE && layout != MLAR_LAYOUT_BF16) {
                const double amax = largest_of(values + d / tile * tile, tile);
                double scale;
                float f32_scale;
                memcpy(&f32_scale, scales + d / tile * 4, sizeof f32_scale);
                scale =
                    layout == MLAR_LAYOUT_DSV4 ? reference_e8m0_value(scales[d / tile]) : (double)f32_scale;
                /* no larger than needed: the largest value uses fp8's upper half */
                if (layout == MLAR_LAYOUT_DSV4 && amax > 1e-4)
                    assert_true(amax <= scale * (fp8 ? 240 : 448) && amax > scale * (fp8 ? 120 : 224));
                step = fmax(fabsf(values[d]) / 16, scale * ldexp(1, fp8 ? -11 : -10)) * 1.005;
                assert_true(back[d] == reference_dequantise(record[d], fp8, scale));
            }
            assert_true(fabs(bf16_float(back[d]) - values[d]) <= step);
        }
        if (layout == MLAR_LAYOUT_DSV4)
            for (int32_t i = NOPE / 64; i < 8; ++i) assert_int_equal(scales[i], 0);
        assert_int_equal(scales[8], 0x5a); /* nothing beyond, in either layout */
    }
}

/* Every byte, every scale: the decoder is the reference. */
static void decoding_is_exact(void **state) {
    uint64_t random = 6;
    (void)state;
    for (int32_t scale = 0; scale < 256; ++scale)
        for (int32_t fp8 = 0; fp8 < 2; ++fp8) {
            uint8_t record[RECORD_MAX], scales[8];
            uint16_t back[VALUES];
            for (int32_t d = 0; d < NOPE; ++d) record[d] = (uint8_t)d;
            for (int32_t i = NOPE; i < RECORD_MAX; ++i) record[i] = (uint8_t)case_random(&random);
            memset(scales, scale, sizeof scales);
            assert_int_equal(mlar_kv_decode_bf16(MLAR_LAYOUT_DSV4, fp8, NOPE, ROPE, record, scales, back),
                             MLAR_OK);
            for (int32_t d = 0; d < NOPE; ++d) {
                const uint16_t expected =
                    reference_dequantise((uint8_t)d, fp8, reference_e8m0_value((uint8_t)scale));
                assert_true(back[d] == expected || (is_nan_bf16(back[d]) && is_nan_bf16(expected)));
            }
            assert_memory_equal(back + NOPE, record + NOPE, 2 * ROPE); /* rope bit for bit */
        }
}

static void special_values(void **state) {
    (void)state;
    for (int32_t layout = 0; layout < 2; ++layout)
        for (int32_t fp8 = 0; fp8 < 2; ++fp8) {
            float values[VALUES] = {NAN, -NAN, 1.0f, -1.0f};
            uint8_t record[RECORD_MAX], scales[16];
            uint16_t back[VALUES];
            values[128] = INFINITY; /* its tile saturates */
            values[NOPE] = -INFINITY;
            mlar_kv_encode_f32(layout, fp8, NOPE, ROPE, values, record, scales);
            mlar_kv_decode_bf16(layout, fp8, NOPE, ROPE, record, scales, back);
            assert_true(is_nan_bf16(back[0]) && is_nan_bf16(back[1]));
            assert_true(bf16_float(back[2]) == 1 && bf16_float(back[3]) == -1);
            assert_true(back[4] == 0 && bf16_float(back[128]) > 1e38f && back[NOPE] == 0xff80);
        }
    { /* a tile of zeros takes the scale of amax 1e-4, and stays zero */
        const float zeros[VALUES] = {0};
        uint8_t record[RECORD_MAX], scales[16];
        float scale;
        mlar_kv_encode_f32(MLAR_LAYOUT_DSV4, MLAR_FP8_E4M3FN, NOPE, ROPE, zeros, record, scales);
        assert_int_equal(scales[0], 105); /* 2^-22 * 448 >= 1e-4 > 2^-23 * 448 */
        assert_int_equal(record[0], 0);
        mlar_kv_encode_f32(MLAR_LAYOUT_V32, MLAR_FP8_E4M3FN, NOPE, ROPE, zeros, record, scales);
        memcpy(&scale, scales, sizeof scale);
        assert_true(scale == FLT_MIN);
    }
}

static void refusals(void **state) {
    static const int32_t bad[][3] = {{3, 448, 64}, {-1, 448, 64}, {0, 0, 64},    {0, 65, 64},
                                     {0, 576, 64}, {0, 448, 63},  {0, 448, 130}, {0, 448, -2},
                                     {1, 448, 64}, {1, 64, 64},   {2, 32, 0}};
    static const int32_t bad_blocks[] = {0, -1, 65537};
    uint64_t bytes = 7;
    uint16_t values[VALUES] = {0};
    uint8_t record[RECORD_MAX], scales[16];
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; ++i) {
        const int32_t *b = bad[i];
        int32_t d = 7;
        assert_int_equal(mlar_kv_head_dims(b[0], b[1], b[2], &d, &d), MLAR_ERROR_ARGUMENT);
        assert_int_equal(mlar_kv_record_bytes(b[0], b[1], b[2], &bytes), MLAR_ERROR_ARGUMENT);
        assert_int_equal(mlar_kv_scale_offset(b[0], b[1], b[2], 64, &bytes), MLAR_ERROR_ARGUMENT);
        assert_int_equal(mlar_kv_block_stride_min(b[0], b[1], b[2], 64, &bytes), MLAR_ERROR_ARGUMENT);
        assert_int_equal(mlar_kv_block_stride_padded(b[0], b[1], b[2], 64, &bytes), MLAR_ERROR_ARGUMENT);
        assert_int_equal(mlar_kv_token_offsets(b[0], b[1], b[2], 64, 0, &bytes, &bytes), MLAR_ERROR_ARGUMENT);
        assert_int_equal(mlar_kv_encode_bf16(b[0], 0, b[1], b[2], values, record, scales),
                         MLAR_ERROR_ARGUMENT);
        assert_int_equal(mlar_kv_decode_bf16(b[0], 0, b[1], b[2], record, scales, values),
                         MLAR_ERROR_ARGUMENT);
        assert_int_equal(d, 7);
    }
    for (size_t i = 0; i < sizeof bad_blocks / sizeof *bad_blocks; ++i) {
        assert_int_equal(mlar_kv_block_stride_min(0, 448, 64, bad_blocks[i], &bytes), MLAR_ERROR_ARGUMENT);
        assert_int_equal(mlar_kv_block_stride_padded(0, 448, 64, bad_blocks[i], &bytes), MLAR_ERROR_ARGUMENT);
        assert_int_equal(mlar_kv_scale_offset(0, 448, 64, bad_blocks[i], &bytes), MLAR_ERROR_ARGUMENT);
    }
    assert_int_equal(mlar_kv_token_offsets(0, 448, 64, 64, 64, &bytes, NULL), MLAR_ERROR_ARGUMENT);
    assert_int_equal(mlar_kv_token_offsets(0, 448, 64, 64, -1, &bytes, NULL), MLAR_ERROR_ARGUMENT);
    assert_int_equal(mlar_kv_record_bytes(0, 448, 64, NULL), MLAR_ERROR_ARGUMENT);
    assert_int_equal(mlar_kv_encode_bf16(0, 2, NOPE, ROPE, values, record, scales), MLAR_ERROR_ARGUMENT);
    assert_int_equal(mlar_kv_encode_bf16(0, 0, NOPE, ROPE, values, record, NULL), MLAR_ERROR_ARGUMENT);
    assert_int_equal(mlar_kv_encode_bf16(0, 0, NOPE, ROPE, NULL, record, scales), MLAR_ERROR_ARGUMENT);
    assert_int_equal(mlar_kv_encode_f32(0, 0, NOPE, ROPE, NULL, record, scales), MLAR_ERROR_ARGUMENT);
    assert_int_equal(mlar_kv_decode_bf16(0, 0, NOPE, ROPE, record, NULL, values), MLAR_ERROR_ARGUMENT);
    assert_int_equal(mlar_kv_encode_bf16(2, 0, NOPE, ROPE, values, record, NULL), MLAR_OK);
    assert_int_equal(mlar_kv_decode_bf16(2, 0, NOPE, ROPE, record, NULL, values), MLAR_OK);
    assert_int_equal(bytes, 7);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_sizes),
        cmocka_unit_test(head_dims),
        cmocka_unit_test(offsets_are_the_kernels_places),
        cmocka_unit_test(tokens_come_back),
        cmocka_unit_test(decoding_is_exact),
        cmocka_unit_test(special_values),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
