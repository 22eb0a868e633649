/* SPDX-License-Identifier: Apache-2.0
 *
 * bench.h: what a benchmark found, and its three forms. */
#ifndef MLARENA_TOOL_BENCH_H
#define MLARENA_TOOL_BENCH_H

#include <mlarena/mlarena.h>

enum { BENCH_BATCHES = 16, BENCH_POINTS = 256 };

/* Relative L2 between two bf16 results of the same step (SPEC section 5). */
#define BENCH_TOLERANCE 3.0e-3

typedef struct bench_point {
    int32_t kind, rows, strategy;
    double us, us_p10, us_p90; /* a call by replay */
    double prepare_us;         /* once a step and kind, shared by its layers */
    double floor_us;           /* memory or matrix, whichever is longer */
    double relative_l2;        /* against the scalar kernels, in the same run */
    double flops;
    uint64_t kv_bytes, arena_bytes;
} bench_point;

typedef struct bench_report {
    mlar_config config;
    char device[256], variant[32];
    double gb_s, tflops; /* ceilings; 0: unknown */
    int count;
    bench_point points[BENCH_POINTS];
} bench_report;

void bench_print_table(const bench_report *report);
void bench_print_json(const bench_report *report);
/* Time over batch, both axes logarithmic, the floor drawn in. 0, or -1 if the file could not be written
 * whole. */
int bench_write_svg(const char *path, const bench_report *report);

#endif
