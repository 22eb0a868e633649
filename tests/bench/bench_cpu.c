/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_cpu.c: the CPU kernels, both strategies, beside the same attention in OpenBLAS and beside what the
 * cores' multipliers can do, in one run.
 *
 *     bench_cpu [--rows 1,4,16] [--threads 1,2] [--heads 64] [--isa auto] [--window 128] [--extra 512]
 *               [--rounds 15]
 *
 * In each round every candidate runs one step, one after the other, so that a disturbance of the machine
 * meets all of them; what is printed are medians over the rounds. The inputs rotate through more memory than
 * the caches hold. Each candidate's first step is checked against the float64 reference. The kernels are
 * driven without the engine; prepare and combine are part of every figure. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/cpu/kernels.h"
#include "kernels/schedule.h"
#include "tests/bench/fma_peak.h"
#include "tests/bench/parallel.h"
#include "tests/support/cases.h"
#include "tests/support/check.h"
#include "tests/support/reference.h"

#if defined(MLAR_BENCH_BLAS) && MLAR_BENCH_BLAS
#include "tests/bench/blas_attention.h"
#endif

enum { MAX_LIST = 8, MAX_CANDIDATES = 16, MAX_ROUNDS = 1000, ROTATED_BYTES = 96 << 20 };

typedef struct options {
    int32_t rows[MAX_LIST], rows_count;
    int32_t threads[MAX_LIST], threads_count;
    int32_t heads, window, extra, rounds;
    const char *isa; /* one name, "auto" (the best) or "all" */
} options;

/* ---- one step ---- */

typedef struct bench_step {
    mlar_stage_args args;
    void *scratch; /* [threads][scratch_bytes] */
    uint64_t scratch_bytes, invalid;
    float *blas_workspace;
} bench_step;

typedef struct stage_run {
    const mlar_cpu_kernels *kernels;
    bench_step *step;
    int32_t stage;
} stage_run;

static void *allocate(uint64_t bytes) {
    void *memory = aligned_alloc(64, (size_t)((bytes + 63) / 64 * 64 + 64));
    if (!memory) abort();
    memset(memory, 0, (size_t)bytes);
    return memory;
}

static void stage_item(void *context, int64_t item, int32_t thread) {
    const stage_run *run = context;
    uint8_t *scratch = (uint8_t *)run->step->scratch + (uint64_t)thread * run->step->scratch_bytes;
    mlar_cpu_run(run->kernels, run->stage, &run->step->args, item, scratch);
}

static void run_stage(const mlar_cpu_kernels *kernels, bench_step *step, int32_t stage, parallel *pool) {
    stage_run run = {kernels, step, stage};
    parallel_for(pool, mlar_cpu_items(stage, &step->args), stage_item, &run);
}

static void run_step(const mlar_cpu_kernels *kernels, bench_step *step, bool gather, parallel *pool) {
    mlar_cpu_prepare(&step->args);
    if (gather) run_stage(kernels, step, MLAR_STAGE_GATHER, pool);
    run_stage(kernels, step, gather ? MLAR_STAGE_ATTEND_GATHERED : MLAR_STAGE_ATTEND_DIRECT, pool);
    run_stage(kernels, step, MLAR_STAGE_COMBINE, pool);
}

/* A shape as the engine makes it: policy balanced, one tile of rows. Four workers for each thread even out
 * what one thread's core may be slower than another's. */
static void step_open(bench_step *step, const step_case *made, int32_t threads) {
    mlar_stage_args *args = &step->args;
    mlar_shape *shape = &args->shape;
    const int32_t rows = made->spec.rows;
    uint64_t slots;
    int32_t tiles = 0, keys = 0;
    memset(step, 0, sizeof *step);
    args->layer = made->layer;
    *shape = made->shape;
    shape->workers = 16; /* the CPU profile of the engine */
    shape->cut_granule = 1;
    shape->heads_per_group_min = shape->heads_per_group_max = shape->heads;
    shape->row_tile = shape->max_rows = rows;
    for (int32_t s = 0; s < made->layer.scope_count; ++s) {
        const int32_t width = made->layer.scope[s].width;
        keys += width;
        tiles += mlar_ceil_div(width, MLAR_KEY_TILE);
        args->gathered[s] =
            allocate((uint64_t)rows * (uint64_t)width * (uint64_t)shape->d_qk * sizeof(uint16_t));
    }
    shape->slot_limit = (int32_t)mlar_balanced_slot_bound(shape->workers, 1, rows, tiles);
    slots = (uint64_t)shape->slot_limit * (uint64_t)shape->heads;
    args->partial_out = allocate(slots * (uint64_t)shape->d_v * sizeof(float));
    args->partial_ml = allocate(slots * 2 * sizeof(float));
    args->schedule = allocate(sizeof *args->schedule);
    args->cuts = allocate((uint64_t)(shape->workers + 1) * sizeof *args->cuts);
    args->schedule_rows = allocate((uint64_t)rows * sizeof *args->schedule_rows);
    args->invalid_indices = &step->invalid;
    args->rows = args->capacity_rows = args->row_count = rows;
    step->scratch_bytes = mlar_cpu_scratch_bytes(shape);
    step->scratch = allocate(step->scratch_bytes * (uint64_t)threads);
#if defined(MLAR_BENCH_BLAS) && MLAR_BENCH_BLAS
    step->blas_workspace =
        allocate((uint64_t)mlar_max_i32(rows, threads) * blas_row_floats(shape, keys) * sizeof(float));
#else
    (void)keys;
#endif
}

static void step_close(bench_step *step) {
    for (int32_t s = 0; s < MLAR_MAX_SCOPES; ++s) free(step->args.gathered[s]);
    free(step->args.partial_out);
    free(step->args.partial_ml);
    free(step->args.schedule);
    free(step->args.cuts);
    free(step->args.schedule_rows);
    free(step->scratch);
    free(step->blas_workspace);
}

/* ---- inputs ---- */

static step_case *make_case(const options *given, int32_t rows, uint64_t seed) {
    const int32_t width[MLAR_MAX_SCOPES] = {given->window, given->extra};
    case_spec spec = {
        .seed = seed,
        .rows = rows,
        .capacity_rows = rows,
        .heads = given->heads,
        .nope = 448,
        .rope = 64,
        .scope_count = given->extra ? 2 : 1,
        .has_lse = true,
        .sink = CASE_SINK_ORDINARY,
    };
    for (int32_t s = 0; s < spec.scope_count; ++s)
        spec.scope[s] = (case_scope_spec){
            .layout = MLAR_LAYOUT_DSV4,
            .fp8 = MLAR_FP8_E4M3FN,
            .list_form = MLAR_LIST_DENSE,
            .block_size = 64,
            .num_blocks =
                mlar_ceil_div(rows * width[s] * 3, 64), /* most tokens are read once, none in order */
            .width = width[s],
            .rows_per_len = 1,
        };
    return case_new(&spec);
}

/* ---- candidates and their times ---- */

typedef struct candidate {
    const mlar_cpu_kernels *kernels; /* null: OpenBLAS */
    bool gather;
    char name[32];
    double us[MAX_ROUNDS];
} candidate;

static int32_t list_candidates(const options *given, candidate *list) {
    int32_t count = 0;
#if defined(MLAR_BENCH_BLAS) && MLAR_BENCH_BLAS
    snprintf(list[count++].name, sizeof list->name, "OpenBLAS f32");
#endif
    for (int32_t i = 0; mlar_cpu_offered(i) && count + 2 <= MAX_CANDIDATES; ++i) {
        const char *isa = mlar_cpu_offered(i);
        const bool wanted = !strcmp(given->isa, "all") ? strcmp(isa, "scalar") != 0
                                                       : mlar_cpu_select(given->isa) == mlar_cpu_select(isa);
        for (int32_t gather = 0; wanted && gather < 2; ++gather) {
            candidate *next = &list[count++];
            next->kernels = mlar_cpu_select(isa);
            next->gather = gather;
            snprintf(next->name, sizeof next->name, "%s %s", isa, gather ? "gather" : "direct");
        }
    }
    return count;
}

static double now_us(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e6 + (double)time.tv_nsec * 1e-3;
}

static double time_step(const candidate *which, bench_step *step, parallel *pool) {
    const double begin = now_us();
#if defined(MLAR_BENCH_BLAS) && MLAR_BENCH_BLAS
    if (!which->kernels)
        blas_attend(mlar_cpu_select(NULL), &step->args, pool, step->blas_workspace);
    else
#endif
        run_step(which->kernels, step, which->gather, pool);
    return now_us() - begin;
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double at_share(double *values, int32_t count, double share) {
    qsort(values, (size_t)count, sizeof *values, ascending);
    return values[(int32_t)(share * (count - 1) + 0.5)];
}

/* ---- one line of the table for each candidate ---- */

static bool check_all(candidate *list, int32_t candidates, bench_step *step, step_case *made,
                      parallel *pool) {
    reference *expected = reference_new(&made->layer, &made->shape, made->spec.rows);
    bool pass = true;
    for (int32_t c = 0; c < candidates; ++c) {
        check_result result;
        case_poison_outputs(made);
        time_step(&list[c], step, pool);
        if (!check_step(made, expected, &check_spec_cpu, &result)) {
            printf("%s: WRONG: %s\n", list[c].name, result.message);
            pass = false;
        }
    }
    reference_free(expected);
    return pass;
}

static bool bench(const options *given, candidate *list, int32_t candidates, int32_t rows, int32_t threads) {
    const double flop = 4.0 * rows * given->heads * (given->window + given->extra) * 512;
    const int64_t case_bytes = (int64_t)rows * (given->window + given->extra) * 584;
    const int32_t cases = (int32_t)(ROTATED_BYTES / case_bytes) + 1;
    step_case **made = allocate((uint64_t)cases * sizeof(step_case *));
    bench_step step;
    parallel *pool = parallel_new(threads);
    static double peaks[MAX_ROUNDS];
    double peak, blas_us = 0;
    bool pass;

    for (int32_t i = 0; i < cases; ++i) made[i] = make_case(given, rows, (uint64_t)(rows * 1000 + i));
    step_open(&step, made[0], threads);
    pass = check_all(list, candidates, &step, made[0], pool);
    for (int32_t round = 0, next = 0; round < given->rounds; ++round) {
        peaks[round] = fma_peak_gflops(pool);
        for (int32_t c = 0; c < candidates; ++c) {
            next = (next + 1) % cases;
            step.args.layer = made[next]->layer;
            list[c].us[round] = time_step(&list[c], &step, pool);
        }
    }
    peak = at_share(peaks, given->rounds, 0.5);
    for (int32_t c = 0; c < candidates; ++c) {
        const double us = at_share(list[c].us, given->rounds, 0.5);
        if (!list[c].kernels) blas_us = us;
        printf("| %4" PRId32 " | %7" PRId32 " | %-18s | %8.0f | %8.0f | ", rows, threads, list[c].name, us,
               at_share(list[c].us, given->rounds, 0.1));
        if (blas_us > 0)
            printf("%6.2f", blas_us / us);
        else
            printf("%6s", "-");
        printf(" | %7.1f | %6.0f %% |\n", flop / us * 1e-3, 100 * flop / us * 1e-3 / peak);
    }
    printf("| %4" PRId32 " | %7" PRId32 " | %-18s | %8s | %8s | %6s | %7.1f | %8s |\n", rows, threads,
           "FMA peak", "", "", "", peak, "");
    fflush(stdout);
    for (int32_t i = 0; i < cases; ++i) case_free(made[i]);
    free(made);
    step_close(&step);
    parallel_free(pool);
    return pass;
}

/* ---- command line ---- */

static int32_t read_list(const char *text, int32_t *values) {
    int32_t count = 0;
    while (*text && count < MAX_LIST) {
        char *end;
        const long value = strtol(text, &end, 10);
        if (end == text || value < 1 || value > 4096) return 0;
        values[count++] = (int32_t)value;
        text = *end == ',' ? end + 1 : end;
    }
    return count;
}

static bool read_options(int argc, char **argv, options *given) {
    for (int i = 1; i + 1 < argc; i += 2) {
        int32_t one[MAX_LIST] = {0};
        const int32_t count = strcmp(argv[i], "--isa") ? read_list(argv[i + 1], one) : 1;
        if (count == 0) return false;
        if (!strcmp(argv[i], "--rows")) {
            memcpy(given->rows, one, sizeof one);
            given->rows_count = count;
        } else if (!strcmp(argv[i], "--threads")) {
            memcpy(given->threads, one, sizeof one);
            given->threads_count = count;
        } else if (!strcmp(argv[i], "--heads") && one[0] <= MLAR_MAX_HEADS) {
            given->heads = one[0];
        } else if (!strcmp(argv[i], "--window")) {
            given->window = one[0];
        } else if (!strcmp(argv[i], "--extra")) {
            given->extra = one[0];
        } else if (!strcmp(argv[i], "--rounds") && one[0] <= MAX_ROUNDS) {
            given->rounds = one[0];
        } else if (!strcmp(argv[i], "--isa")) {
            given->isa = argv[i + 1];
        } else {
            return false;
        }
    }
    return argc % 2 == 1 && (!strcmp(given->isa, "all") || mlar_cpu_select(given->isa));
}

int main(int argc, char **argv) {
    static candidate list[MAX_CANDIDATES];
    options given = {
        .rows = {1, 4, 16},
        .rows_count = 3,
        .threads = {1, 2},
        .threads_count = 2,
        .heads = 64,
        .window = 128,
        .extra = 512,
        .rounds = 15,
        .isa = "auto",
    };
    int32_t candidates;
    bool pass = true;
    if (!read_options(argc, argv, &given)) {
        fprintf(stderr,
                "usage: bench_cpu [--rows 1,4,16] [--threads 1,2] [--heads 64] [--isa auto|all|NAME]\n"
                "                 [--window 128] [--extra 512] [--rounds 15]\n");
        return 2;
    }
    candidates = list_candidates(&given, list);
#if defined(MLAR_BENCH_BLAS) && MLAR_BENCH_BLAS
    printf("%s\n", blas_name());
#else
    printf("built without OpenBLAS: no comparison\n");
#endif
    printf("h %" PRId32 ", window %" PRId32 " + extra %" PRId32 ", d 512, dsv4, median of %" PRId32
           " rounds\n\n",
           given.heads, given.window, given.extra, given.rounds);
    printf("|    B | threads | what               |       us |  10 %% us | x BLAS | GFLOP/s | FMA peak |\n");
    printf("| ---: | ------: | ------------------ | -------: | -------: | -----: | ------: | -------: |\n");
    for (int32_t r = 0; r < given.rows_count; ++r)
        for (int32_t t = 0; t < given.threads_count; ++t)
            pass = bench(&given, list, candidates, given.rows[r], given.threads[t]) && pass;
    printf("\n%s\n", pass ? "all results within SPEC" : "SOME RESULTS ARE WRONG");
    return pass ? 0 : 1;
}
