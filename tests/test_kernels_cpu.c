/* SPDX-License-Identifier: Apache-2.0
 *
 * test_kernels_cpu.c: every CPU variant that this processor offers, against the float64 reference: hundreds
 * of random steps, both strategies, both policies, whole rows and rows in parts, row tiles; then what SPEC
 * says about single values. A new variant appears here by being offered. */
#define _GNU_SOURCE /* mmap, posix_memalign */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/cpu/kernels.h"
#include "kernels/schedule.h"
#include "tests/support/cases.h"
#include "tests/support/check.h"
#include "tests/support/cpu_run.h"
#include "tests/support/reference.h"

/* ---- running a step and checking it ---- */

static const way ways[] = {
    {.name = "direct, one worker", .workers = 1, .granule = 1},
    {.name = "direct, balanced over 7", .workers = 7, .granule = 1, .through_blocks = true},
    {.name = "direct, balanced over 16 by 2, tiles of 2 rows", .workers = 16, .granule = 2, .row_tile = 2},
    {.name = "direct, invariant, whole rows", .splits = 1, .row_tile = 3},
    {.name = "direct, invariant in 3", .splits = 3, .through_blocks = true, .backwards = true},
    {.name = "gather, balanced over 5", .gather = true, .workers = 5, .granule = 1, .backwards = true},
    {.name = "gather, balanced over 9, tiles of 2 rows",
     .gather = true,
     .workers = 9,
     .granule = 1,
     .row_tile = 2},
    {.name = "gather, invariant in 4", .gather = true, .splits = 4, .through_blocks = true},
};

static const way scalar_ways[] = {
    {.name = "direct, groups of 4 heads", .workers = 6, .granule = 1, .heads_per_group = 4},
    {.name = "gather, invariant in 2, groups of 2 heads", .gather = true, .splits = 2, .heads_per_group = 2},
};

/* Runs and checks all that can be checked after one step. */
static void run_and_check(const mlar_cpu_kernels *kernels, step_case *made, const reference *expected,
                          const check_limits *limits, const way *how, check_result *result) {
    char line[400], message[200];
    workspace space;
    case_poison_outputs(made);
    open_workspace(&space, made, how);
    run_step(kernels, &space, how);
    case_describe(&made->spec, line, sizeof line);
    if (!check_step(made, expected, limits, result))
        fail_msg("%s, %s: %s\n%s", kernels->isa, how->name, result->message, line);
    if (space.invalid != expected->invalid)
        fail_msg("%s, %s: %llu invalid entries, expected %llu\n%s", kernels->isa, how->name,
                 (unsigned long long)space.invalid, (unsigned long long)expected->invalid, line);
    if (!check_untouched_beyond(made, made->spec.tail_zero ? made->spec.capacity_rows : made->spec.rows))
        fail_msg("%s, %s: wrote outside its outputs\n%s", kernels->isa, how->name, line);
    if (made->spec.tail_zero && !check_tail_is_zero(made))
        fail_msg("%s, %s: rows beyond the live ones are not zero\n%s", kernels->isa, how->name, line);
    if (how->gather && !how->row_tile)
        for (int32_t s = 0; s < made->layer.scope_count; ++s)
            if (!check_gathered(expected, s, space.args.gathered[s], 0xff, message, sizeof message))
                fail_msg("%s, %s: %s\n%s", kernels->isa, how->name, message, line);
    close_workspace(&space);
}

static const mlar_cpu_kernels *kernels_of(void **state) {
    return *state;
}

/* ---- random steps ---- */

/* Sanitizers take about ten times as long; they look for other things, and fewer steps show them. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOWDOWN 5
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SLOWDOWN 5
#endif
#endif
#ifndef SLOWDOWN
#define SLOWDOWN 1
#endif

static void sweep(const mlar_cpu_kernels *kernels, uint32_t features, const case_bounds *bounds,
                  uint64_t first_seed, uint64_t seeds) {
    double difference2 = 0, sum2 = 0, worst = 0;
    int64_t heads = 0;
    seeds = (seeds + SLOWDOWN - 1) / SLOWDOWN;
    for (uint64_t seed = first_seed; seed < first_seed + seeds; ++seed) {
        const case_spec spec = case_draw(seed, features, bounds);
        step_case *made = case_new(&spec);
        reference *expected = reference_new(&made->layer, &made->shape, spec.rows);
        /* The bf16 rounding of a few elements alone can exceed what holds for many. */
        const bool few = (int64_t)spec.rows * spec.heads * made->shape.d_v < 1000;
        const check_limits *limits = few ? &check_spec : &check_spec_cpu;
        check_result result;
        for (size_t i = 0; i < sizeof ways / sizeof *ways; ++i)
            run_and_check(kernels, made, expected, limits, &ways[i], &result);
        for (size_t i = 0;
             kernels == &mlar_cpu_kernels_scalar && i < sizeof scalar_ways / sizeof *scalar_ways; ++i)
            run_and_check(kernels, made, expected, limits, &scalar_ways[i], &result);
        if (result.sum2 > 0 && !few) {
            difference2 += result.difference2 / result.sum2;
            sum2 += 1;
            if (result.relative_l2 > worst) worst = result.relative_l2;
        }
        heads += result.specified_heads;
        reference_free(expected);
        case_free(made);
    }
    print_message("  %s: %llu steps, %lld heads, relative L2 mean %.2e worst %.2e\n", kernels->isa,
                  (unsigned long long)seeds, (long long)heads, sqrt(difference2 / (sum2 > 0 ? sum2 : 1)),
                  worst);
    assert_true(heads > 0);
}

static void ordinary_steps(void **state) {
    sweep(kernels_of(state), 0, NULL, 1, 25);
}

static void all_features(void **state) {
    sweep(kernels_of(state), CASE_ALL, NULL, 1000, 100);
}

static void small_steps(void **state) {
    const case_bounds bounds = {.rows = 7, .heads = 5, .width = 140, .dims = 1};
    sweep(kernels_of(state), CASE_ALL, &bounds, 5000, 200);
}

static void many_heads(void **state) {
    const case_bounds bounds = {.rows = 2, .heads = 128, .width = 200};
    sweep(kernels_of(state), CASE_ALL & ~(uint32_t)CASE_OVERFLOWS, &bounds, 9000, 12);
}

static void long_lists(void **state) {
    const case_bounds bounds = {.rows = 2, .heads = 8, .width = 6000, .dims = 1};
    sweep(kernels_of(state), CASE_LAYOUTS | CASE_WILD | CASE_RAGGED, &bounds, 9500, 8);
}

/* ---- determinism ---- */

static void assert_same_outputs(const step_case *made, uint8_t *const before[CASE_MAX_BUFFERS],
                                const char *what) {
    for (int32_t i = 0; i < made->buffer_count; ++i)
        if (made->buffers[i].is_output && memcmp(before[i], made->buffers[i].memory, made->buffers[i].bytes))
            fail_msg("seed %llu: %s: other bits in %s", (unsigned long long)made->spec.seed, what,
                     made->buffers[i].name);
}

/* The same bits whatever the order of the items, the dirt in the scratch and the capacity. */
static void same_bits_again(void **state) {
    const mlar_cpu_kernels *kernels = kernels_of(state);
    for (uint64_t seed = 1; seed <= 40; ++seed) {
        const case_spec spec = case_draw(seed, CASE_ALL, NULL);
        step_case *made = case_new(&spec);
        uint8_t *before[CASE_MAX_BUFFERS] = {0};
        for (size_t w = 0; w < sizeof ways / sizeof *ways; ++w) {
            for (int32_t pass = 0; pass < 3; ++pass) {
                way how = ways[w];
                workspace space;
                case_poison_outputs(made);
                how.backwards ^= pass == 1;
                open_workspace(&space, made, &how);
                memset(space.scratch, pass == 2 ? 0x7f : 0xff,
                       (size_t)mlar_cpu_scratch_bytes(&space.args.shape));
                run_step(kernels, &space, &how);
                close_workspace(&space);
                for (int32_t i = 0; i < made->buffer_count; ++i) {
                    if (!made->buffers[i].is_output) continue;
                    if (pass == 0) {
                        before[i] = malloc(made->buffers[i].bytes);
                        assert_non_null(before[i]);
                        memcpy(before[i], made->buffers[i].memory, made->buffers[i].bytes);
                    }
                }
                assert_same_outputs(made, before, how.name);
            }
            for (int32_t i = 0; i < CASE_MAX_BUFFERS; ++i) {
                free(before[i]);
                before[i] = NULL;
            }
        }
        case_free(made);
    }
}

/* Policy batch_invariant: a row alone has the bits that it has among others, in any row tile. */
static void row_alone_has_the_same_bits(void **state) {
    const mlar_cpu_kernels *kernels = kernels_of(state);
    for (uint64_t seed = 1; seed <= 40; ++seed) {
        case_spec spec = case_draw(seed, CASE_LAYOUTS | CASE_STRIDES | CASE_UNALIGNED | CASE_WILD, NULL);
        step_case *made;
        if (spec.rows < 2) continue;
        for (int32_t s = 0; s < spec.scope_count; ++s) spec.scope[s].rows_per_len = 1;
        made = case_new(&spec);
        for (int32_t gather = 0; gather < 2; ++gather) {
            const way together = {.name = "together", .gather = gather != 0, .splits = 3, .row_tile = 2};
            const way alone = {.name = "alone", .gather = gather != 0, .splits = 3};
            const size_t row_elements = (size_t)spec.heads * (size_t)made->layer.out_head_stride;
            workspace space;
            uint16_t *first;
            case_poison_outputs(made);
            open_workspace(&space, made, &together);
            run_step(kernels, &space, &together);
            close_workspace(&space);
            first = malloc(made->buffers[made->buffer_count - 2].bytes);
            assert_non_null(first);
            assert_string_equal(made->buffers[made->buffer_count - 2].name, "out");
            memcpy(first, made->layer.out, made->buffers[made->buffer_count - 2].bytes);
            case_poison_outputs(made);
            for (int32_t row = 0; row < spec.rows; ++row) {
                step_case one = *made;
                one.spec.rows = one.spec.capacity_rows = one.shape.max_rows = 1;
                one.layer.q += row * one.layer.q_row_stride;
                one.layer.out = (uint16_t *)one.layer.out + row * one.layer.out_row_stride;
                one.layer.lse += row * one.layer.lse_row_stride;
                for (int32_t s = 0; s < spec.scope_count; ++s) {
                    one.layer.scope[s].indices += row * one.layer.scope[s].index_row_stride;
                    if (one.layer.scope[s].lens) one.layer.scope[s].lens += row;
                }
                open_workspace(&space, &one, &alone);
                run_step(kernels, &space, &alone);
                close_workspace(&space);
                for (size_t i = 0; i + (size_t)(made->layer.out_head_stride - made->shape.d_v) < row_elements;
                     ++i)
                    if (((uint16_t *)one.layer.out)[i] !=
                        first[row * made->layer.out_row_stride + (int64_t)i])
                        fail_msg("%s seed %llu row %d: other bits alone", kernels->isa,
                                 (unsigned long long)seed, row);
            }
            free(first);
        }
        case_free(made);
    }
}

/* ---- single values ---- */

/* One row, one window of `count` tokens of 128 + 8 elements, read whole. */
static step_case *plain_case(int32_t heads, int32_t count, int32_t layout) {
    case_spec spec = case_draw(77, 0, NULL);
    spec.rows = spec.capacity_rows = 1;
    spec.heads = heads;
    spec.nope = 128;
    spec.rope = 8;
    spec.scope_count = 1;
    spec.sink = CASE_SINK_ORDINARY;
    spec.scope[0] = (case_scope_spec){.layout = layout, .block_size = 64, .num_blocks = 2, .width = count};
    spec.scope[0].rows_per_len = 1;
    return case_new(&spec);
}

static void check_plain(const mlar_cpu_kernels *kernels, step_case *made) {
    reference *expected = reference_new(&made->layer, &made->shape, 1);
    check_result result;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; ++i)
        run_and_check(kernels, made, expected, &check_spec, &ways[i], &result);
    reference_free(expected);
}

/* A score of -inf is a score: its token has weight 0, the rest of the head goes on (SPEC leaves such a head
 * unspecified, but a kernel that masks by score would lose the whole row). Once among others, once alone in
 * the row's first tile. */
static void genuine_minus_infinity(void **state) {
    for (int32_t alone = 0; alone < 2; ++alone) {
        step_case *made = plain_case(2, 70, MLAR_LAYOUT_V32);
        const mlar_scope_params *scope = &made->layer.scope[0];
        const uint16_t minus_inf = 0xff80;
        int32_t *indices = (int32_t *)(uintptr_t)scope->indices;
        const uint32_t slot = (uint32_t)indices[5];
        uint8_t *token = (uint8_t *)(uintptr_t)scope->cache + slot / 64 * scope->block_stride_bytes +
                         slot % 64 * scope->record_bytes;
        uint16_t *q = (uint16_t *)(uintptr_t)made->layer.q;
        double largest = 0;
        for (int32_t j = 0; j < 70; ++j)
            if (j != 5 && (indices[j] == (int32_t)slot || (alone && j < 64))) indices[j] = -1;
        memcpy(token + 128 + 4, &minus_inf, sizeof minus_inf); /* the first rope element: in K, not in V */
        q[128] = q[made->layer.q_head_stride + 128] = 0x3f80;
        for (size_t i = 0; i < sizeof ways / sizeof *ways; ++i) {
            workspace space;
            open_workspace(&space, made, &ways[i]);
            run_step(kernels_of(state), &space, &ways[i]);
            close_workspace(&space);
            for (int32_t head = 0; head < 2; ++head) {
                assert_true(isfinite(check_lse(made, 0, head)));
                for (int32_t d = 0; d < made->shape.d_v; ++d) {
                    assert_true(isfinite(check_out(made, 0, head, d)));
                    largest = fmax(largest, fabs(check_out(made, 0, head, d)));
                }
            }
        }
        assert_true(largest > 0.01);
        case_free(made);
    }
}

/* By a scale of 0 as well, which makes 0 of every other score. */
static void nan_in_q_stays_in_its_head(void **state) {
    static const float scales[] = {0.1f, 0.0f, -0.0f, -1e-30f};
    for (size_t i = 0; i < sizeof scales / sizeof *scales; ++i) {
        step_case *made = plain_case(3, 100, MLAR_LAYOUT_BF16);
        uint16_t *q = (uint16_t *)(uintptr_t)made->layer.q;
        q[made->layer.q_head_stride + 3] = 0x7fc0;
        made->layer.scale = scales[i];
        check_plain(kernels_of(state), made);
        assert_true(isfinite(check_out(made, 0, 0, 0)) && isnan(check_out(made, 0, 1, 0)));
        assert_true(isfinite(check_out(made, 0, 2, 0)) && isnan(check_lse(made, 0, 1)));
        case_free(made);
    }
}

static void sinks(void **state) {
    static const float values[] = {INFINITY, -INFINITY, 200.0f, -200.0f, 0.0f, 3e38f, -3e38f};
    step_case *made = plain_case(7, 130, MLAR_LAYOUT_DSV4);
    memcpy((float *)(uintptr_t)made->layer.sink, values, sizeof values);
    check_plain(kernels_of(state), made);
    for (int32_t d = 0; d < made->shape.d_v; ++d) assert_true(check_out(made, 0, 0, d) == 0);
    assert_true(isfinite(check_lse(made, 0, 0)));
    case_free(made);
}

static void nothing_counts(void **state) {
    for (int32_t kind = 0; kind < 2; ++kind) {
        step_case *made = plain_case(4, 90, MLAR_LAYOUT_DSV4);
        for (int32_t j = 0; j < 90; ++j)
            ((int32_t *)(uintptr_t)made->layer.scope[0].indices)[j] = kind ? -1 : -7;
        check_plain(kernels_of(state), made);
        assert_true(check_lse(made, 0, 3) == -INFINITY);
        assert_true(check_out(made, 0, 3, 5) == 0 && !signbit(check_out(made, 0, 3, 5)));
        case_free(made);
    }
}

/* Scale byte 255 zeroes its tile of 64 and nothing else. */
static void scale_255_zeroes_its_tile(void **state) {
    step_case *made = plain_case(2, 20, MLAR_LAYOUT_DSV4);
    const mlar_scope_params *scope = &made->layer.scope[0];
    for (uint64_t slot = 0; slot < 128; ++slot)
        ((uint8_t *)(uintptr_t)
             scope->cache)[slot / 64 * scope->block_stride_bytes + 64 * 144 + slot % 64 * 8] = 255;
    check_plain(kernels_of(state), made);
    for (int32_t d = 0; d < 64; ++d) assert_true(check_out(made, 0, 0, d) == 0);
    assert_true(check_out(made, 0, 0, 70) != 0);
    case_free(made);
}

static void many_equal_keys(void **state) {
    step_case *made = plain_case(2, 128, MLAR_LAYOUT_DSV4);
    for (int32_t j = 0; j < 128; ++j) ((int32_t *)(uintptr_t)made->layer.scope[0].indices)[j] = 9;
    check_plain(kernels_of(state), made);
    case_free(made);
}

/* ---- pages and addresses ---- */

/* Only the bytes of counting entries may be read: every other page faults. Blocks lie 3 GiB apart, so 32-bit
 * arithmetic would go astray. */
static void only_counting_tokens_are_read(void **state) {
    enum { BLOCKS = 5, BLOCK_SIZE = 64 };
    const uint64_t stride = (uint64_t)3 << 30, page = (uint64_t)sysconf(_SC_PAGESIZE);
    step_case *made = plain_case(2, 40, MLAR_LAYOUT_DSV4);
    mlar_scope_params *scope = &made->layer.scope[0];
    int32_t *indices = (int32_t *)(uintptr_t)scope->indices;
    uint64_t random = 5;
    uint8_t *pool =
        mmap(NULL, BLOCKS * stride, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pool == MAP_FAILED) skip(); /* address space is limited here */
    for (int32_t j = 0; j < 40; ++j) {
        /* Token 0 and 1 of a block share its first page; the scales stand two pages further. */
        const int32_t slot = case_random_below(&random, BLOCKS) * BLOCK_SIZE + case_random_below(&random, 2);
        uint8_t *block = pool + (uint64_t)(slot / BLOCK_SIZE) * stride;
        const uint64_t scales = (uint64_t)BLOCK_SIZE * 144 + 8 * (uint64_t)(slot % BLOCK_SIZE);
        indices[j] = j % 5 == 1 ? -1 : j % 7 == 2 ? BLOCKS * BLOCK_SIZE + j : slot;
        if (indices[j] != slot) continue;
        assert_int_equal(mprotect(block, page, PROT_READ | PROT_WRITE), 0);
        assert_int_equal(mprotect(block + scales / page * page, page, PROT_READ | PROT_WRITE), 0);
        for (int32_t d = 0; d < 144; ++d)
            block[slot % BLOCK_SIZE * 144 + d] = (uint8_t)(case_random(&random) & 0x3f);
        block[scales] = block[scales + 1] = 120;
    }
    scope->cache = pool;
    scope->block_stride_bytes = stride;
    scope->num_slots = BLOCKS * BLOCK_SIZE;
    check_plain(kernels_of(state), made);
    munmap(pool, BLOCKS * stride);
    case_free(made);
}

/* ---- the table ---- */

static void select_by_name(void **state) {
    (void)state;
    assert_null(mlar_cpu_select("sse9"));
    assert_null(mlar_cpu_select(""));
    assert_ptr_equal(mlar_cpu_select("scalar"), &mlar_cpu_kernels_scalar);
    assert_ptr_equal(mlar_cpu_select(NULL), mlar_cpu_select("auto"));
    assert_string_equal(mlar_cpu_select(NULL)->isa, mlar_cpu_offered(0));
    for (int32_t i = 0; mlar_cpu_offered(i); ++i)
        assert_string_equal(mlar_cpu_select(mlar_cpu_offered(i))->isa, mlar_cpu_offered(i));
}

static void set_block_copies(void **state) {
    mlar_set_block_args args = {.bytes = 16, .payload = {1, 2, 3}};
    uint64_t to[3] = {9, 9, 9};
    (void)state;
    args.to = to;
    mlar_cpu_set_block(&args);
    assert_true(to[0] == 1 && to[1] == 2 && to[2] == 9);
}

typedef struct listed {
    const char *name;
    CMUnitTestFunction run;
} listed;

static const listed per_variant[] = {
    {"ordinary steps", ordinary_steps},
    {"all features", all_features},
    {"small steps", small_steps},
    {"many heads", many_heads},
    {"long lists", long_lists},
    {"same bits again", same_bits_again},
    {"a row alone has the same bits", row_alone_has_the_same_bits},
    {"genuine scores of -inf", genuine_minus_infinity},
    {"NaN in q stays in its head", nan_in_q_stays_in_its_head},
    {"sinks", sinks},
    {"nothing counts", nothing_counts},
    {"scale 255 zeroes its tile", scale_255_zeroes_its_tile},
    {"many equal keys", many_equal_keys},
    {"only counting tokens are read", only_counting_tokens_are_read},
};

int main(void) {
    enum { TESTS = sizeof per_variant / sizeof *per_variant, VARIANTS = 8 };
    static struct CMUnitTest tests[2 + TESTS * VARIANTS];
    static char names[TESTS * VARIANTS][64];
    size_t count = 0;
    tests[count++] = (struct CMUnitTest){"select by name", select_by_name, NULL, NULL, NULL};
    tests[count++] = (struct CMUnitTest){"set_block copies", set_block_copies, NULL, NULL, NULL};
    for (int32_t v = 0; v < VARIANTS && mlar_cpu_offered(v); ++v) {
        for (size_t t = 0; t < TESTS; ++t) {
            char *name = names[count - 2];
            snprintf(name, sizeof names[0], "%s: %s", mlar_cpu_offered(v), per_variant[t].name);
            tests[count++] = (struct CMUnitTest){name, per_variant[t].run, NULL, NULL,
                                                 (void *)(uintptr_t)mlar_cpu_select(mlar_cpu_offered(v))};
        }
    }
    return _cmocka_run_group_tests("kernels_cpu", tests, count, NULL, NULL);
}
