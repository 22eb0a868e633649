/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gpu_launch.c: which kernel the launch table gives to attention: a tuned one exactly where it serves the
 * layer. */
#include "kernels/gpu/launch.h"
#include "mlarena/kv_cache.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { DSV4 = MLAR_LAYOUT_DSV4, V32 = MLAR_LAYOUT_V32, BF16 = MLAR_LAYOUT_BF16 };

typedef struct choice {
    const char *arch;
    int32_t stage;
    int32_t nope, rope;
    int32_t layout[2], wide[2]; /* of the two scopes */
    const char *kernel;
} choice;

static const choice choices[] = {
    {"sm_90", MLAR_STAGE_ATTEND_DIRECT, 448, 64, {DSV4, DSV4}, {1, 1}, "mlar_attend_direct_sm90"},
    {"sm_90", MLAR_STAGE_ATTEND_DIRECT, 448, 64, {DSV4, DSV4}, {1, 0}, "mlar_attend_direct_h64"},
    {"sm_90", MLAR_STAGE_ATTEND_DIRECT, 384, 128, {DSV4, DSV4}, {1, 1}, "mlar_attend_direct_h64"},
    {"sm_90", MLAR_STAGE_ATTEND_DIRECT, 448, 64, {BF16, BF16}, {1, 1}, "mlar_attend_direct_sm90_bf16"},
    {"sm_90", MLAR_STAGE_ATTEND_DIRECT, 384, 128, {BF16, BF16}, {1, 1}, "mlar_attend_direct_sm90_bf16"},
    {"sm_90", MLAR_STAGE_ATTEND_DIRECT, 448, 64, {BF16, BF16}, {0, 1}, "mlar_attend_direct_h64"},
    {"sm_90", MLAR_STAGE_ATTEND_DIRECT, 448, 64, {DSV4, BF16}, {1, 1}, "mlar_attend_direct_h64"},
    {"sm_90", MLAR_STAGE_ATTEND_DIRECT, 448, 64, {BF16, DSV4}, {1, 1}, "mlar_attend_direct_h64"},
    {"sm_90", MLAR_STAGE_ATTEND_DIRECT, 512, 64, {V32, V32}, {1, 1}, "mlar_attend_direct_sm90_v32"},
    {"sm_90a", MLAR_STAGE_ATTEND_DIRECT, 512, 64, {V32, V32}, {1, 0}, "mlar_attend_direct_h32_wide"},
    {"sm_90", MLAR_STAGE_ATTEND_DIRECT, 384, 64, {V32, V32}, {1, 1}, "mlar_attend_direct_h64"},
    {"sm_90", MLAR_STAGE_ATTEND_GATHERED, 448, 64, {DSV4, DSV4}, {1, 1}, "mlar_attend_gathered_sm90"},
    {"sm_90a", MLAR_STAGE_ATTEND_GATHERED, 448, 64, {DSV4, BF16}, {0, 0}, "mlar_attend_gathered_sm90"},
    {"sm_90", MLAR_STAGE_ATTEND_GATHERED, 384, 128, {DSV4, DSV4}, {1, 1}, "mlar_attend_gathered_sm90"},
    {"sm_90", MLAR_STAGE_ATTEND_GATHERED, 384, 128, {V32, V32}, {1, 1}, "mlar_attend_gathered_h64"},
    {"sm_90a", MLAR_STAGE_ATTEND_GATHERED, 512, 64, {V32, V32}, {0, 0}, "mlar_attend_gathered_sm90_v32"},
    {"sm_90", MLAR_STAGE_ATTEND_GATHERED, 512, 64, {V32, V32}, {1, 1}, "mlar_attend_gathered_sm90_v32"},
    {"sm_90", MLAR_STAGE_ATTEND_GATHERED, 192, 64, {DSV4, DSV4}, {1, 1}, "mlar_attend_gathered_h64"},
    {"gfx942", MLAR_STAGE_ATTEND_DIRECT, 448, 64, {DSV4, DSV4}, {1, 1}, "mlar_attend_direct_wave"},
    {"gfx942", MLAR_STAGE_ATTEND_DIRECT, 448, 64, {BF16, BF16}, {1, 1}, "mlar_attend_direct_wave_bf16"},
    {"gfx90a", MLAR_STAGE_ATTEND_DIRECT, 384, 128, {BF16, BF16}, {1, 1}, "mlar_attend_direct_wave_bf16"},
    {"gfx950", MLAR_STAGE_ATTEND_DIRECT, 448, 64, {BF16, BF16}, {0, 1}, "mlar_attend_direct_h64"},
    {"gfx950", MLAR_STAGE_ATTEND_DIRECT, 448, 64, {BF16, DSV4}, {1, 1}, "mlar_attend_direct_h64"},
    {"gfx942", MLAR_STAGE_ATTEND_DIRECT, 192, 64, {BF16, BF16}, {1, 1}, "mlar_attend_direct_h64"},
    {"gfx942", MLAR_STAGE_ATTEND_DIRECT, 512, 64, {V32, V32}, {1, 1}, "mlar_attend_direct_h32_wide"},
    {"gfx942", MLAR_STAGE_ATTEND_GATHERED, 448, 64, {DSV4, DSV4}, {1, 1}, "mlar_attend_gathered_wave"},
    {"gfx950", MLAR_STAGE_ATTEND_GATHERED, 448, 64, {DSV4, BF16}, {0, 0}, "mlar_attend_gathered_wave"},
    {"gfx90a", MLAR_STAGE_ATTEND_GATHERED, 384, 128, {DSV4, DSV4}, {1, 1}, "mlar_attend_gathered_wave"},
    {"gfx942", MLAR_STAGE_ATTEND_GATHERED, 384, 128, {V32, V32}, {1, 1}, "mlar_attend_gathered_h64"},
    {"gfx942", MLAR_STAGE_ATTEND_GATHERED, 512, 64, {V32, V32}, {1, 1}, "mlar_attend_gathered_wave_v32"},
    {"gfx90a", MLAR_STAGE_ATTEND_GATHERED, 512, 64, {V32, V32}, {0, 0}, "mlar_attend_gathered_wave_v32"},
    {"gfx942", MLAR_STAGE_ATTEND_GATHERED, 192, 64, {DSV4, DSV4}, {1, 1}, "mlar_attend_gathered_h64"},
    {"gfx1100", MLAR_STAGE_ATTEND_DIRECT, 448, 64, {BF16, BF16}, {1, 1}, "mlar_attend_direct_h32"},
    {"gfx1100", MLAR_STAGE_ATTEND_GATHERED, 448, 64, {DSV4, DSV4}, {1, 1}, "mlar_attend_gathered_h32"},
};

/* Is it one of those that are loaded for the architecture? */
static int is_loaded(const char *arch, const mlar_gpu_launch *chosen) {
    mlar_gpu_launch kernel;
    for (int32_t i = 0; mlar_gpu_kernel_at(arch, i, &kernel); i++)
        if (kernel.kernel == chosen->kernel)
            return !strcmp(kernel.unit, chosen->unit) &&
                   kernel.dynamic_lds_bytes == chosen->dynamic_lds_bytes;
    return 0;
}

static mlar_stage_args args_of(const choice *c) {
    mlar_stage_args args = {.row_count = 4, .rows = 4, .capacity_rows = 4};
    args.shape = (mlar_shape){.heads = 64,
                              .nope = c->nope,
                              .rope = c->rope,
                              .d_qk = c->nope + c->rope,
                              .d_v = c->layout[0] == V32 ? c->nope : c->nope + c->rope,
                              .workers = 132};
    mlar_gpu_traits(c->arch, 64, &args.shape.heads_per_group_min, &args.shape.heads_per_group_max);
    args.layer.scope_count = 2;
    for (int s = 0; s < 2; s++) {
        args.layer.scope[s].layout = c->layout[s];
        args.layer.scope[s].wide = c->wide[s];
    }
    return args;
}

static void tuned_kernels_serve_what_they_can(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
        const choice *c = &choices[i];
        const mlar_stage_args args = args_of(c);
        mlar_gpu_launch launch;
        assert_true(mlar_gpu_launch_of(c->arch, c->stage, &args, &args.layer, &launch));
        assert_string_equal(launch.kernel, c->kernel);
        assert_true(is_loaded(c->arch, &launch));
    }
}

/* Of a layer of one scope, what the other's place holds does not matter. */
static void an_absent_scope_has_no_say(void **state) {
    static const choice alone[] = {
        {"sm_90", MLAR_STAGE_ATTEND_DIRECT, 512, 64, {V32, DSV4}, {1, 0}, "mlar_attend_direct_sm90_v32"},
        {"sm_90", MLAR_STAGE_ATTEND_DIRECT, 448, 64, {DSV4, BF16}, {1, 0}, "mlar_attend_direct_sm90"},
        {"sm_90", MLAR_STAGE_ATTEND_DIRECT, 448, 64, {DSV4, DSV4}, {0, 1}, "mlar_attend_direct_h64"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof alone / sizeof *alone; i++) {
        mlar_stage_args args = args_of(&alone[i]);
        mlar_gpu_launch launch;
        args.layer.scope_count = 1;
        assert_true(mlar_gpu_launch_of(alone[i].arch, alone[i].stage, &args, &args.layer, &launch));
        assert_string_equal(launch.kernel, alone[i].kernel);
    }
}

/* The bindings are what a choice is made from: without them nothing is known of the caches. */
static void without_bindings_the_portable_engine(void **state) {
    (void)state;
    for (int32_t stage = MLAR_STAGE_ATTEND_GATHERED; stage <= MLAR_STAGE_ATTEND_DIRECT; stage++) {
        const choice c = {.arch = "sm_90", .nope = 448, .rope = 64, .wide = {1, 1}};
        const mlar_stage_args args = args_of(&c);
        mlar_gpu_launch launch;
        assert_true(mlar_gpu_launch_of(c.arch, stage, &args, NULL, &launch));
        assert_string_equal(launch.unit, "attend_block");
    }
}

/* ---- clusters ---- */

typedef struct cluster_case {
    const char *arch;
    int32_t heads, tiles, max_rows;
    int32_t rows, blocks; /* shape.cluster_rows and cluster_blocks */
    int32_t capacity;
    uint32_t grid; /* of a launch of so many rows, in clusters; 0: alone */
} cluster_case;

static const cluster_case cluster_cases[] = {
    /* ten tiles: five blocks of two; 22 clusters run at once, and groups are as small as that allows */
    {"sm_90", 16, 10, 64, 22, 5, 1, 8 * 5},   {"sm_90", 16, 10, 64, 22, 5, 5, 20 * 5},
    {"sm_90", 16, 10, 64, 22, 5, 11, 22 * 5}, {"sm_90", 16, 10, 64, 22, 5, 22, 22 * 5},
    {"sm_90a", 16, 10, 64, 22, 5, 23, 0},     {"sm_90", 8, 10, 8, 8, 5, 8, 16 * 5},
    {"sm_90", 5, 10, 8, 8, 5, 4, 12 * 5},     {"sm_90", 64, 10, 64, 5, 5, 5, 20 * 5},
    {"sm_90", 128, 10, 64, 2, 5, 1, 16 * 5},  {"sm_90", 16, 3, 64, 36, 3, 36, 36 * 3},
    {"sm_90", 16, 16, 8, 8, 8, 4, 8 * 8},     {"sm_90", 16, 1, 64, 0, 0, 1, 0}, /* nothing to cut */
    {"sm_90", 16, 18, 64, 0, 0, 1, 0},  /* all units would be two tiles faster */
    {"sm_90", 16, 130, 64, 0, 0, 1, 0}, /* all of 8192 compressed entries: much faster */
    {"gfx942", 16, 10, 64, 0, 0, 1, 0}, /* has no clusters */
    {"gfx1100", 16, 10, 64, 0, 0, 1, 0},
};

static mlar_stage_args cluster_args(const cluster_case *c) {
    const choice sizes = {.arch = c->arch, .nope = 448, .rope = 64, .layout = {DSV4, DSV4}, .wide = {1, 1}};
    mlar_stage_args args = args_of(&sizes);
    args.row_count = c->capacity;
    args.shape.heads = c->heads;
    args.shape.cut_granule = 1;
    args.shape.max_rows = args.shape.row_tile = c->max_rows;
    args.shape.merged_elements_per_tile = mlar_gpu_merged_elements_per_tile(c->arch, 448, 64);
    mlar_gpu_traits(c->arch, c->heads, &args.shape.heads_per_group_min, &args.shape.heads_per_group_max);
    mlar_gpu_cluster_traits(c->arch, &args.shape, c->tiles);
    return args;
}

static void few_rows_are_merged_in_clusters(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cluster_cases / sizeof *cluster_cases; i++) {
        const cluster_case *c = &cluster_cases[i];
        const mlar_stage_args args = cluster_args(c);
        mlar_gpu_launch launch;
        assert_int_equal(args.shape.cluster_rows, c->rows);
        assert_int_equal(args.shape.cluster_blocks, c->blocks);
        assert_true(mlar_gpu_launch_of(c->arch, MLAR_STAGE_ATTEND_DIRECT, &args, &args.layer, &launch));
        assert_int_equal(mlar_gpu_merges(c->arch, MLAR_STAGE_ATTEND_DIRECT, &args, &args.layer), c->grid > 0);
        assert_true(is_loaded(c->arch, &launch));
        assert_int_equal(launch.cluster_blocks, c->grid ? c->blocks : 1);
        if (c->grid == 0) continue;
        assert_string_equal(launch.kernel, "mlar_attend_direct_sm90_merged");
        assert_int_equal(launch.grid_blocks, c->grid);
    }
}

/* A cluster that might never find its multiprocessors is not planned. */
static void no_clusters_on_a_few_units(void **state) {
    (void)state;
    for (int32_t units = 1; units <= 16; units++) {
        mlar_stage_args args = cluster_args(&cluster_cases[0]);
        args.shape.workers = units;
        mlar_gpu_cluster_traits("sm_90", &args.shape, 10);
        assert_int_equal(args.shape.cluster_rows, units < 16 ? 0 : 1);
    }
}

/* What else would be there for the merge is: a part for every block needs the policy that cuts so, and a kernel that
 * knows the caches. */
static void clusters_only_where_they_serve(void **state) {
    const mlar_stage_args given = cluster_args(&cluster_cases[0]);
    mlar_stage_args args = given;
    mlar_gpu_launch launch;
    (void)state;
    args.shape.splits = 5; /* batch_invariant */
    assert_int_equal(mlar_gpu_merges("sm_90", MLAR_STAGE_ATTEND_DIRECT, &args, &args.layer), 0);
    args = given;
    args.layer.scope[1].wide = 0;
    assert_int_equal(mlar_gpu_merges("sm_90", MLAR_STAGE_ATTEND_DIRECT, &args, &args.layer), 0);
    assert_int_equal(mlar_gpu_merges("sm_90", MLAR_STAGE_ATTEND_DIRECT, &given, NULL), 0);
    assert_int_equal(mlar_gpu_merges("sm_90", MLAR_STAGE_ATTEND_GATHERED, &given, &given.layer), 1);
    assert_true(mlar_gpu_launch_of("sm_90", MLAR_STAGE_ATTEND_GATHERED, &given, &given.layer, &launch));
    assert_string_equal(launch.kernel, "mlar_attend_gathered_sm90_merged");
    assert_int_equal(mlar_gpu_merges("sm_90", MLAR_STAGE_COMBINE, &given, &given.layer), 0);
    for (int32_t s = 0; s < 2; s++) args.layer.scope[s].layout = BF16, args.layer.scope[s].wide = 1;
    assert_true(mlar_gpu_launch_of("sm_90", MLAR_STAGE_ATTEND_DIRECT, &args, &args.layer, &launch));
    assert_string_equal(launch.kernel, "mlar_attend_direct_sm90_bf16_merged");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tuned_kernels_serve_what_they_can),
        cmocka_unit_test(an_absent_scope_has_no_say),
        cmocka_unit_test(without_bindings_the_portable_engine),
        cmocka_unit_test(few_rows_are_merged_in_clusters),
        cmocka_unit_test(no_clusters_on_a_few_units),
        cmocka_unit_test(clusters_only_where_they_serve),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
