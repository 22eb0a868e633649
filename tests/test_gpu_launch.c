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
    {"gfx942", MLAR_STAGE_ATTEND_DIRECT, 448, 64, {BF16, BF16}, {1, 1}, "mlar_attend_direct_h64"},
    {"gfx942", MLAR_STAGE_ATTEND_GATHERED, 448, 64, {DSV4, DSV4}, {1, 1}, "mlar_attend_gathered_h64"},
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tuned_kernels_serve_what_they_can),
        cmocka_unit_test(an_absent_scope_has_no_say),
        cmocka_unit_test(without_bindings_the_portable_engine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
