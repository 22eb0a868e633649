/* SPDX-License-Identifier: Apache-2.0
 *
 * test_numeric.c: the number formats of kernels/numeric.h against the reference's own tables, in every
 * floating-point mode that a caller may have set; and the division of slots by block sizes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fenv.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "kernels/numeric.h"
#include "kernels/schedule.h"
#include "tests/support/cases.h"
#include "tests/support/reference.h"

static bool is_nan_bf16(uint16_t bits) {
    return (bits & 0x7fff) > 0x7f80;
}
static bool same_bf16(uint16_t a, uint16_t b) {
    return a == b || (is_nan_bf16(a) && is_nan_bf16(b));
}

static double f32_value(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* ---- the caller's floating-point mode ---- */

static const struct mode {
    const char *name;
    int rounding;
    bool flush;
} modes[] = {
    {"default", FE_TONEAREST, false},       {"flush to zero", FE_TONEAREST, true},
    {"upward", FE_UPWARD, false},           {"downward", FE_DOWNWARD, false},
    {"toward zero", FE_TOWARDZERO, false},  {"upward, flush", FE_UPWARD, true},
    {"downward, flush", FE_DOWNWARD, true},
};

static void enter_mode(const struct mode *mode) {
    assert_int_equal(fesetround(mode->rounding), 0);
#if defined(__x86_64__)
    if (mode->flush) _mm_setcsr(_mm_getcsr() | 0x8040); /* FTZ, DAZ */
#elif defined(__aarch64__)
    if (mode->flush) {
        uint64_t fpcr;
        __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
        __asm__ volatile("msr fpcr, %0" : : "r"(fpcr | 1u << 24));
    }
#endif
}

/* Proves that the mode is in force, so that the tests below say something. */
static bool mode_is_felt(const struct mode *mode) {
    volatile float tiny = 1e-39f, one = 1.0f, three = 3.0f;
    volatile float flushed = tiny * one, third = one / three;
    const uint32_t up = 0x3eaaaaab, down = 0x3eaaaaaa;
    const float kept = flushed, quotient = third;
    uint32_t kept_bits, bits;
    memcpy(&kept_bits, &kept, sizeof kept_bits);
    memcpy(&bits, &quotient, sizeof bits);
    if (mode->flush != (kept_bits == 0)) return false;
    return bits == (mode->rounding == FE_DOWNWARD || mode->rounding == FE_TOWARDZERO ? down : up);
}

/* ---- every pair of byte and scale ---- */

static uint16_t expected_pair[2][256][256]; /* [fp8][byte][scale] */

static int make_tables(void **state) {
    (void)state;
    for (int32_t fp8 = 0; fp8 < 2; ++fp8)
        for (int32_t byte = 0; byte < 256; ++byte)
            for (int32_t scale = 0; scale < 256; ++scale)
                expected_pair[fp8][byte][scale] =
                    reference_dequantise((uint8_t)byte, fp8, reference_e8m0_value((uint8_t)scale));
    return 0;
}

static void all_pairs_in_every_mode(void **state) {
    static uint16_t computed[2][256][256];
    fenv_t before;
    (void)state;
    for (size_t m = 0; m < sizeof modes / sizeof *modes; ++m) {
        bool felt;
        memset(computed, 0, sizeof computed);
        assert_int_equal(fegetenv(&before), 0);
        enter_mode(&modes[m]);
        felt = mode_is_felt(&modes[m]);
        for (int32_t fp8 = 0; fp8 < 2; ++fp8)
            for (int32_t byte = 0; byte < 256; ++byte)
                for (int32_t scale = 0; scale < 256; ++scale)
                    computed[fp8][byte][scale] =
                        mlar_bf16_dequantise((uint8_t)byte, fp8, mlar_e8m0_to_f32_bits((uint8_t)scale));
        assert_int_equal(fesetenv(&before), 0);
        if (!felt) fail_msg("mode '%s' is not in force", modes[m].name);
        for (int32_t fp8 = 0; fp8 < 2; ++fp8)
            for (int32_t byte = 0; byte < 256; ++byte)
                for (int32_t scale = 0; scale < 256; ++scale)
                    if (!same_bf16(computed[fp8][byte][scale], expected_pair[fp8][byte][scale]))
                        fail_msg("%s, encoding %d, byte %02x, scale %d: %04x, expected %04x", modes[m].name,
                                 fp8, (unsigned)byte, scale, computed[fp8][byte][scale],
                                 expected_pair[fp8][byte][scale]);
    }
}

/* Points that SPEC and KERNELS name, by hand: the tables could be wrong together. */
static void named_values(void **state) {
    static const struct {
        uint8_t byte, fp8, scale;
        uint16_t bf16;
    } named[] = {
        {0x38, 0, 127, 0x3f80},                         /* 1 */
        {0x38, 1, 127, 0x3f00},                         /* the same byte is 0.5 in FNUZ */
        {0x7e, 0, 127, 0x43e0},                         /* 448 */
        {0x7f, 1, 127, 0x4370},                         /* 240 */
        {0x7f, 0, 127, 0x7fc0},                         /* NaN */
        {0xff, 0, 127, 0x7fc0},                         /* NaN */
        {0x80, 1, 127, 0x7fc0},                         /* NaN */
        {0x80, 0, 127, 0x8000},                         /* -0 */
        {0xff, 1, 127, 0xc370},                         /* -240 */
        {0x38, 0, 0, 0x0040},                           /* 2^-127, a bf16 subnormal */
        {0x01, 0, 0, 0x0000},                           /* 2^-136 is below half the least subnormal */
        {0x08, 0, 0, 0x0001},                           /* 2^-133 is the least */
        {0x04, 0, 0, 0x0000},                           /* 2^-134 ties to even */
        {0x0c, 0, 0, 0x0002},                           /* 1.5 * 2^-133 ties to even */
        {0x38, 0, 255, 0x7fc0},                         /* scale NaN */
        {0x00, 0, 255, 0x7fc0},                         /* 0 * NaN */
        {0x7e, 0, 254, 0x7f80},                         /* overflow */
        {0xfe, 0, 254, 0xff80}, {0x3f, 0, 254, 0x7f70}, /* 1.875 * 2^127 */
    };
    (void)state;
    for (size_t i = 0; i < sizeof named / sizeof *named; ++i) {
        const uint16_t bits =
            mlar_bf16_dequantise(named[i].byte, named[i].fp8, mlar_e8m0_to_f32_bits(named[i].scale));
        if (!same_bf16(bits, named[i].bf16)) fail_msg("row %zu: %04x, expected %04x", i, bits, named[i].bf16);
        assert_true(same_bf16(expected_pair[named[i].fp8][named[i].byte][named[i].scale], named[i].bf16));
    }
    for (int32_t byte = 0; byte < 256; ++byte)
        for (int32_t fp8 = 0; fp8 < 2; ++fp8) {
            const double value = reference_fp8_value((uint8_t)byte, fp8);
            const double computed = f32_value(mlar_fp8_to_f32_bits((uint8_t)byte, fp8));
            assert_true(isnan(value) ? isnan(computed) && mlar_fp8_is_nan((uint8_t)byte, fp8)
                                     : value == computed);
        }
}

/* f32 scales (v32): the product is rounded twice. Random bits of every exponent, and the edges. */
static void f32_scales(void **state) {
    static const uint32_t edges[] = {0,          0x80000000, 1,          0x007fffff, 0x00800000, 0x00800001,
                                     0x3f800000, 0x7f7fffff, 0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001,
                                     0x00000100, 0x33800000, 0xff7fffff, 0x807fffff};
    uint64_t random = 1;
    (void)state;
    for (int32_t i = 0; i < 20000; ++i) {
        const size_t edge_count = sizeof edges / sizeof *edges;
        const uint32_t bits = (size_t)i < edge_count ? edges[i] : (uint32_t)case_random(&random);
        for (int32_t byte = 0; byte < 256;
             byte += (size_t)i < edge_count ? 1 : 1 + (int32_t)(case_random(&random) % 16))
            for (int32_t fp8 = 0; fp8 < 2; ++fp8) {
                const uint16_t computed = mlar_bf16_dequantise((uint8_t)byte, fp8, bits);
                const uint16_t expected = reference_dequantise((uint8_t)byte, fp8, f32_value(bits));
                if (!same_bf16(computed, expected))
                    fail_msg("encoding %d, byte %02x, scale bits %08x: %04x, expected %04x", fp8,
                             (unsigned)byte, bits, computed, expected);
            }
    }
}

/* ---- bf16 ---- */

static void bf16_rounding(void **state) {
    static const uint32_t lower[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};
    uint64_t random = 2;
    (void)state;
    for (uint32_t upper = 0; upper < 65536; ++upper) {
        for (size_t i = 0; i < 12; ++i) {
            const uint32_t low =
                i < sizeof lower / sizeof *lower ? lower[i] : (uint32_t)case_random(&random) & 0xffff;
            const uint32_t bits = upper << 16 | low;
            const uint16_t computed = mlar_bf16_from_f32_bits(bits);
            const uint16_t expected = reference_bf16_round(f32_value(bits));
            if (!same_bf16(computed, expected))
                fail_msg("bits %08x: %04x, expected %04x", bits, computed, expected);
        }
        assert_true(mlar_bf16_to_f32_bits((uint16_t)upper) == upper << 16);
        assert_true((mlar_bf16_is_nan((uint16_t)upper) != 0) == is_nan_bf16((uint16_t)upper));
        assert_int_equal(mlar_bf16_nan_to_zero((uint16_t)upper), is_nan_bf16((uint16_t)upper) ? 0 : upper);
    }
}

/* ---- writing fp8 ---- */

/* The nearest code by looking at all of them; ties to the even code, which is the even significand. */
static uint8_t nearest_fp8(double value, int32_t fp8) {
    int32_t best = 0;
    double best_distance = INFINITY;
    if (isnan(value)) return fp8 ? 0x80 : signbit(value) ? 0xff : 0x7f;
    for (int32_t code = 0; code < 128; ++code) {
        const double magnitude = reference_fp8_value((uint8_t)code, fp8);
        const double distance = fabs(fmin(fabs(value), 1e6) - magnitude);
        if (isnan(magnitude)) continue;
        if (distance < best_distance || (distance == best_distance && code % 2 == 0)) {
            best = code;
            best_distance = distance;
        }
    }
    if (fp8 && best == 0) return 0;
    return (uint8_t)(best | (signbit(value) ? 0x80 : 0));
}

static void fp8_rounding(void **state) {
    uint64_t random = 3;
    (void)state;
    for (int32_t fp8 = 0; fp8 < 2; ++fp8) {
        for (uint32_t upper = 0; upper < 65536; ++upper) { /* every bf16, and something beside it */
            const uint32_t bits[] = {upper << 16, upper << 16 | 1, (upper << 16) - 1,
                                     upper << 16 | ((uint32_t)case_random(&random) & 0xffff)};
            const size_t tried = upper % 8 == 0 ? 4 : 1;
            for (size_t i = 0; i < tried; ++i) {
                const uint8_t computed = mlar_fp8_from_f32_bits(bits[i], fp8);
                const uint8_t expected = nearest_fp8(f32_value(bits[i]), fp8);
                if (computed != expected)
                    if (!isnan(f32_value(bits[i])) || !mlar_fp8_is_nan(computed, fp8))
                        fail_msg("encoding %d, bits %08x: %02x, expected %02x", fp8, bits[i], computed,
                                 expected);
            }
        }
        for (int32_t byte = 0; byte < 256; ++byte) /* a value that is there comes back */
            if (!mlar_fp8_is_nan((uint8_t)byte, fp8))
                assert_int_equal(mlar_fp8_from_f32_bits(mlar_fp8_to_f32_bits((uint8_t)byte, fp8), fp8), byte);
    }
}

static void e8m0_for_amax(void **state) {
    (void)state;
    for (int32_t fp8 = 0; fp8 < 2; ++fp8)
        for (uint32_t upper = 0; upper < 0x7f80; ++upper)
            for (uint32_t low = 0; low < 2; ++low) {
                const uint32_t bits = upper << 16 | low;
                const double limit = f32_value(bits) / (fp8 ? 240 : 448);
                int32_t least = 0;
                while (reference_e8m0_value((uint8_t)least) < limit) ++least;
                if (mlar_e8m0_for_amax(bits, fp8) != least)
                    fail_msg("encoding %d, bits %08x: %d, expected %d", fp8, bits,
                             mlar_e8m0_for_amax(bits, fp8), least);
            }
}

/* ---- slots ---- */

static void slot_division(void **state) {
    (void)state;
    for (uint32_t block_size = 1; block_size <= 65536; ++block_size) {
        const uint32_t last = 0x7fffffffu, blocks = last / block_size;
        const uint32_t quotients[] = {0, 1, 2, 3, blocks / 3, blocks / 2, blocks - 1, blocks};
        mlar_scope_params scope = {.block_size = block_size};
        mlar_block_division(block_size, &scope.block_magic, &scope.block_shift);
        assert_true(scope.block_magic < (uint64_t)1 << 32 && scope.block_shift >= 31);
        for (size_t i = 0; i < sizeof quotients / sizeof *quotients; ++i)
            for (int32_t beside = -1; beside <= 1; ++beside) {
                const int64_t slot = (int64_t)quotients[i] * block_size + beside;
                if (slot < 0 || slot > last) continue;
                if (mlar_slot_block(&scope, (uint32_t)slot) != (uint32_t)slot / block_size)
                    fail_msg("slot %lld, block size %u: %u", (long long)slot, block_size,
                             mlar_slot_block(&scope, (uint32_t)slot));
            }
        assert_int_equal(mlar_slot_block(&scope, last), last / block_size);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_pairs_in_every_mode),
        cmocka_unit_test(named_values),
        cmocka_unit_test(f32_scales),
        cmocka_unit_test(bf16_rounding),
        cmocka_unit_test(fp8_rounding),
        cmocka_unit_test(e8m0_for_amax),
        cmocka_unit_test(slot_division),
    };
    return cmocka_run_group_tests(tests, make_tables, NULL);
}
