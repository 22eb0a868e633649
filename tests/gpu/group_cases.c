/* SPDX-License-Identifier: Apache-2.0
 *
 * group_cases.c: steps on the GPU against a float64 evaluation, and the gather buffer bit for bit. */
#include "tests/gpu/groups.h"

#include "tests/support/check.h"

#include <stdlib.h>
#include <stdio.h>

/* d_v follows from the layout: an engine takes v32 in all scopes or in none. */
static case_spec draw(uint64_t seed, const case_bounds *bounds) {
    case_spec spec = case_draw(seed, CASE_ALL, bounds);
    int v32 = 0;
    for (int s = 0; s < spec.scope_count; s++) v32 |= spec.scope[s].layout == MLAR_LAYOUT_V32;
    for (int s = 0; s < spec.scope_count && v32; s++) spec.scope[s].layout = MLAR_LAYOUT_V32;
    return spec;
}

static void check_gather_buffers(gpu_engine *e, const reference *expected, const char *line) {
    static const char *const names[] = {"gather.window", "gather.extra"};
    if (e->memory.row_tile[0] < expected->rows) return; /* several tiles share the buffer */
    for (int s = 0; s < e->config.kinds[0].scope_count; s++) {
        void *address = NULL;
        uint64_t bytes = 0;
        char message[200] = "";
        if (!GPU_MUST(mlar_engine_buffer(e->engine, 0, names[s], &address, &bytes)) || bytes == 0) continue;
        uint16_t *gathered = malloc(bytes);
        GPU_MUST(mlar_device_read(place.device, gathered, address, bytes));
        gpu_check(check_gathered(expected, s, gathered, -1, message, sizeof message), "%s: %s: %s", line,
                  names[s], message);
        free(gathered);
    }
}

static void one_case(uint64_t seed, const case_bounds *bounds, double *worst) {
    case_spec spec = draw(seed, bounds);
    step_case *made = case_new(&spec);
    reference *expected = reference_new(&made->layer, &made->shape, spec.rows);
    char line[400];
    case_describe(&spec, line, sizeof line);
    gpu_case c;
    if (gpu_case_open(&c, &place, made))
        for (int v = 0; v < VARIANTS; v++) {
            mlar_config config = config_of(made, &variants[v]);
            gpu_engine e;
            if (!gpu_engine_open(&e, &place, &config)) continue;
            mlar_stats stats = {.struct_size = sizeof stats};
            check_result result;
            if (gpu_case_enqueue(&e, 0, &c, spec.rows)) {
                gpu_check(check_step(made, expected, &check_spec, &result), "%s, %s: %s", variants[v].name,
                          line, result.message);
                if (result.relative_l2 > *worst) *worst = result.relative_l2;
                gpu_check(spec.tail_zero ? check_tail_is_zero(made) : check_untouched_beyond(made, spec.rows),
                          "%s, %s: tail", variants[v].name, line);
                GPU_MUST(mlar_engine_stats(e.engine, NULL, &stats));
                gpu_check(stats.invalid_indices == expected->invalid,
                          "%s, %s: %llu invalid indices, expected %llu", variants[v].name, line,
                          (unsigned long long)stats.invalid_indices, (unsigned long long)expected->invalid);
                if (variants[v].strategy == MLAR_STRATEGY_GATHER) check_gather_buffers(&e, expected, line);
            }
            gpu_engine_close(&e);
        }
    gpu_case_close(&c);
    reference_free(expected);
    case_free(made);
}

void random_cases(void) {
    double worst = 0;
    case_bounds large = {.rows = 40, .heads = 128, .width = 700};
    for (uint64_t seed = 1; seed <= (quick ? 12u : 150u); seed++) one_case(seed, NULL, &worst);
    for (uint64_t seed = 1000; seed < (quick ? 1002u : 1030u); seed++) one_case(seed, &large, &worst);
    printf("  worst relative L2 %.2e\n", worst);
}

/* The tuned shapes: dsv4 448 + 64, block 64, 8 to 128 heads. */
void model_cases(void) {
    static const int32_t heads[] = {1, 8, 16, 32, 40, 64, 128};
    double worst = 0;
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        for (uint64_t n = 0; n < (quick ? 1u : 6u); n++) {
            case_bounds bounds = {.rows = n % 2 ? 20 : 3, .heads = 128, .width = 640};
            case_spec spec =
                case_draw(77 + n, CASE_WILD | CASE_SPECIALS | CASE_SINKS | CASE_QUERIES, &bounds);
            spec.heads = heads[i];
            spec.nope = 448;
            spec.rope = 64;
            spec.scope_count = 2;
            /* q as a slice of a tensor that another kernel padded to 64 heads */
            if (n % 2 && spec.heads < 64) spec.q_row_extra = (64 - spec.heads) * (spec.nope + spec.rope);
            for (int s = 0; s < 2; s++)
                spec.scope[s] = (case_scope_spec){.block_size = 64,
                                                  .num_blocks = 30,
                                                  .width = s ? 512 : 128,
                                                  .rows_per_len = 1,
                                                  .has_lens = true,
                                                  .stride_extra_bytes = 64,
                                                  .fp8 = n == 5 ? MLAR_FP8_E4M3FNUZ : MLAR_FP8_E4M3FN};
            step_case *made = case_new(&spec);
            reference *expected = reference_new(&made->layer, &made->shape, spec.rows);
            gpu_case c;
            if (gpu_case_open(&c, &place, made))
                for (int v = 0; v < VARIANTS; v++) {
                    mlar_config config = config_of(made, &variants[v]);
                    gpu_engine e;
                    check_result result;
                    if (!gpu_engine_open(&e, &place, &config)) continue;
                    if (gpu_case_enqueue(&e, 0, &c, spec.rows)) {
                        gpu_check(check_step(made, expected, &check_spec, &result), "%d heads, %s: %s",
                                  heads[i], variants[v].name, result.message);
                        if (result.relative_l2 > worst) worst = result.relative_l2;
                    }
                    gpu_engine_close(&e);
                }
            gpu_case_close(&c);
            reference_free(expected);
            case_free(made);
        }
    printf("  worst relative L2 %.2e\n", worst);
}
