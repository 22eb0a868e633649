/* SPDX-License-Identifier: Apache-2.0
 *
 * bench.c: `mlarena bench`: time over batch for one model's layers, by replay, checked in the same run.
 *
 * A figure is the median over rounds of the mean of a few back-to-back replays, each on another set of inputs
 * over pools larger than the caches. `prepare` is timed apart and is part of every figure: it serves all
 * layers of a step, so the table shows both. The result of the first set is compared with the library's
 * scalar kernels. */
#define _POSIX_C_SOURCE 200809L

#include "bench.h"
#include "commands.h"
#include "configure.h"
#include "format.h"
#include "workload.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ROUNDS = 15, CHECKED_ROWS = 2, DEFAULT_CALLS = 24 };

static const struct {
    const char *arch;
    double gb_s, tflops;
} ceilings[] = {
#define X(arch, gb_s, tflops, source) {arch, gb_s, tflops},
#include "ceilings.def"
#undef X
};

/* ---- floor ---- */

/* Bytes read and written by a large copy, over its time. */
static double measure_bandwidth(void) {
    size_t bytes = (size_t)128 << 20;
    char *from = malloc(bytes), *to = malloc(bytes);
    double best = 0;
    if (from != NULL && to != NULL) {
        memset(from, 1, bytes);
        memset(to, 2, bytes);
        for (int i = 0; i < 5; i++) {
            double begin = seconds_now();
            memcpy(to, from, bytes);
            double gb_s = 2e-9 * (double)bytes / (seconds_now() - begin);
            if (gb_s > best) best = gb_s;
        }
    }
    free(from);
    free(to);
    return best;
}

static void find_ceilings(const options *o, const place *where, bench_report *report) {
    for (size_t i = 0; where->device != NULL && i < sizeof ceilings / sizeof *ceilings; i++)
        if (strcmp(ceilings[i].arch, where->info.profile.arch) == 0) {
            report->gb_s = ceilings[i].gb_s;
            report->tflops = ceilings[i].tflops;
        }
    if (o->bandwidth > 0) report->gb_s = (double)o->bandwidth;
    if (where->device == NULL && o->bandwidth <= 0) report->gb_s = measure_bandwidth();
}

static double floor_us(const bench_report *report, const workload *w) {
    double memory = report->gb_s > 0 ? 1e-3 * (double)w->kv_bytes / report->gb_s : 0;
    double matrix = report->tflops > 0 ? 1e-6 * w->flops / report->tflops : 0;
    return memory > matrix ? memory : matrix;
}

/* ---- one point ---- */

/* Relative L2 of the first rows of set 0 against the scalar kernels; NaN if they could not run. */
static double check_result(const workload *w, session *s) {
    place cpu = {0};
    mlar_config config = w->config;
    int32_t rows = w->rows < CHECKED_ROWS ? w->rows : CHECKED_ROWS;
    config.strategy = MLAR_STRATEGY_DIRECT;
    config.max_rows = rows;
    config.budget_bytes = 0;
    config.threads = 1;
    config.selftest = 0;
    (void)mlar_device_profile_named(&config.device, "cpu", NULL);
    snprintf(config.cpu_isa, sizeof config.cpu_isa, "scalar");
    session reference;
    if (session_open(&reference, &cpu, &config) != 0) return NAN;
    mlar_bindings b;
    workload_bind(w, 0, 1, &b);
    uint64_t count = w->out_bytes / 2 / (uint64_t)w->rows * (uint64_t)rows;
    uint16_t *expected = place_allocate(&cpu, count * 2), *computed = malloc(w->out_bytes);
    double sum = NAN, norm = 0;
    mlar_step step = {.struct_size = sizeof step, .rows = rows};
    b.out = expected;
    if (expected != NULL && computed != NULL &&
        mlar_engine_prepare(reference.engine, w->kind, &b, &step, NULL, NULL) == MLAR_OK &&
        mlar_engine_enqueue(reference.engine, w->kind, &b, rows, &step, NULL, NULL) == MLAR_OK &&
        place_read(s->where, computed, w->set[0].out, w->out_bytes) == MLAR_OK) {
        sum = 0;
        for (uint64_t i = 0; i < count; i++) {
            uint32_t x = (uint32_t)computed[i] << 16, y = (uint32_t)expected[i] << 16;
            float a, e;
            memcpy(&a, &x, 4);
            memcpy(&e, &y, 4);
            sum += ((double)a - e) * ((double)a - e);
            norm += (double)e * e;
        }
    }
    free(expected);
    free(computed);
    session_close(&reference);
    return sum == 0 ? 0 : sqrt(sum / norm); /* no keys: zeros on both sides */
}

static mlar_status capture_sets(const workload *w, session *s, mlar_program *programs[WORKLOAD_SETS],
                                mlar_diag *diag) {
    mlar_status status = MLAR_OK;
    for (int i = 0; i < WORKLOAD_SETS && status == MLAR_OK; i++) {
        mlar_bindings b;
        workload_bind(w, i, 0, &b);
        status = mlar_engine_capture(s->engine, w->kind, &b, 1, w->rows, &programs[i], diag);
    }
    return status;
}

static mlar_status call(const workload *w, session *s, mlar_program *const programs[], int i, int graph) {
    if (graph) return mlar_program_replay(programs[i % WORKLOAD_SETS], NULL);
    mlar_bindings b;
    mlar_step step = {.struct_size = sizeof step, .rows = w->rows};
    workload_bind(w, i % WORKLOAD_SETS, 0, &b);
    return mlar_engine_enqueue(s->engine, w->kind, &b, w->rows, &step, NULL, NULL);
}

static mlar_status time_point(const workload *w, session *s, mlar_program *const programs[], int calls,
                              int graph, bench_point *point) {
    double rounds[ROUNDS], prepares[ROUNDS];
    mlar_bindings b;
    mlar_step step = {.struct_size = sizeof step, .rows = w->rows};
    workload_bind(w, 0, 0, &b);
    mlar_status status = mlar_engine_step(s->engine, &step, NULL);
    if (status == MLAR_OK) status = mlar_engine_prepare(s->engine, w->kind, &b, NULL, NULL, NULL);
    if (status == MLAR_OK) status = call(w, s, programs, 0, graph);
    if (status != MLAR_OK) return status;
    place_wait(s->where);
    point->relative_l2 = check_result(w, s);
    for (int r = 0; r < ROUNDS && status == MLAR_OK; r++) {
        double begin = seconds_now();
        for (int i = 0; i < calls && status == MLAR_OK; i++) status = call(w, s, programs, r + i, graph);
        place_wait(s->where);
        rounds[r] = 1e6 * (seconds_now() - begin) / calls;
        begin = seconds_now();
        for (int i = 0; i < calls && status == MLAR_OK; i++)
            status = mlar_engine_prepare(s->engine, w->kind, &b, NULL, NULL, NULL);
        place_wait(s->where);
        prepares[r] = 1e6 * (seconds_now() - begin) / calls;
    }
    point->us = percentile(rounds, ROUNDS, 0.5);
    point->us_p10 = percentile(rounds, ROUNDS, 0.1);
    point->us_p90 = percentile(rounds, ROUNDS, 0.9);
    point->prepare_us = percentile(prepares, ROUNDS, 0.5);
    return status;
}

/* Few calls where one takes long: a round stays below about a fifth of a second on the CPU. */
static int calls_for(const options *o, const place *where, const workload *w) {
    int64_t given = 0;
    if (configure_replays(o, &given) == 0 && given > 0) return (int)given;
    if (where->device != NULL) return DEFAULT_CALLS;
    if (!(w->flops > 4e9 / DEFAULT_CALLS)) return DEFAULT_CALLS; /* no keys at all: 0 */
    int calls = (int)(4e9 / w->flops);
    return calls < 1 ? 1 : calls;
}

static int bench_point_run(const options *o, place *where, const workload *w, int32_t strategy,
                           bench_report *report) {
    if (report->count == BENCH_POINTS) return unusable("more than %d points", BENCH_POINTS);
    bench_point *point = &report->points[report->count];
    mlar_config config = w->config;
    config.strategy = strategy;
    config.max_rows = w->rows;
    config.max_programs = config.max_layers = WORKLOAD_SETS;
    session s;
    int code = session_open(&s, where, &config);
    if (code != 0) return code;
    mlar_diag diag = {.struct_size = sizeof diag};
    mlar_program *programs[WORKLOAD_SETS] = {NULL};
    *point = (bench_point){.kind = w->kind,
                           .rows = w->rows,
                           .strategy = s.memory.strategy,
                           .arena_bytes = s.memory.device_bytes,
                           .kv_bytes = w->kv_bytes,
                           .flops = w->flops,
                           .floor_us = floor_us(report, w)};
    int graph = 1;
    (void)configure_graph(o, &graph); /* checked before anything was opened */
    mlar_status status = capture_sets(w, &s, programs, &diag);
    if (status == MLAR_OK) status = time_point(w, &s, programs, calls_for(o, where, w), graph, point);
    mlar_stats stats = {.struct_size = sizeof stats};
    if (status == MLAR_OK) status = mlar_engine_stats(s.engine, NULL, &stats);
    snprintf(report->variant, sizeof report->variant, "%s", stats.variant);
    session_close(&s);
    if (status != MLAR_OK) return unusable_diag(&diag, status);
    report->count++;
    return !(point->relative_l2 <= BENCH_TOLERANCE) ? EXIT_MISMATCH : EXIT_WITHIN;
}

/* ---- the command ---- */

static int parse_batches(const char *text, int32_t batches[BENCH_BATCHES]) {
    int count = 0;
    while (*text) {
        char *end;
        long value = strtol(text, &end, 10);
        if (*text < '0' || *text > '9' || value < 1 || value > 65536 || count == BENCH_BATCHES ||
            (*end != 0 && *end != ','))
            return 0;
        batches[count++] = (int32_t)value;
        if (*end == ',' && end[1] == 0) return 0;
        text = *end ? end + 1 : end;
    }
    return count;
}

static int run_points(const options *o, place *where, const mlar_config *config, const int32_t *batches,
                      int batch_count, bench_report *report) {
    int32_t strategies[2], queries = o->queries > 0 ? (int32_t)o->queries : 1;
    int strategy_count = configure_strategies(o, strategies), worst = EXIT_WITHIN,
        terminal = isatty(STDERR_FILENO);
    if (strategy_count == 0) return EXIT_UNUSABLE;
    for (int32_t k = 0; k < config->kind_count; k++)
        for (int b = 0; b < batch_count; b++) {
            workload w;
            int code = workload_open(&w, where, config, k, batches[b], queries);
            if (code != 0) return code;
            for (int i = 0; i < strategy_count; i++) {
                if (terminal)
                    fprintf(stderr, "\r%s, %d rows, %s ...    ", config->kinds[k].name, (int)batches[b],
                            strategy_name(strategies[i]));
                code = bench_point_run(o, where, &w, strategies[i], report);
                if (code > worst) worst = code;
            }
            workload_close(&w);
            if (worst == EXIT_UNUSABLE) return worst;
        }
    if (terminal) fprintf(stderr, "\r%60s\r", "");
    return worst;
}

int command_bench(const options *o) {
    if (o->file != NULL) return unusable("bench takes no file ('%s')", o->file);
    static bench_report report; /* a few KiB of points, for one command */
    int32_t batches[BENCH_BATCHES];
    int batch_count = parse_batches(o->batches != NULL ? o->batches : "1,4,16,64,128", batches);
    if (batch_count == 0)
        return unusable("--batches: '%s' is no list of rows (1..65536, at most %d)", o->batches,
                        BENCH_BATCHES);
    int64_t replays;
    int32_t strategies[2];
    int graph, code = configure_svg(o);
    if (code == 0) code = configure_model(o, &report.config);
    if (code == 0) code = configure_run(o, &report.config);
    if (code == 0) code = configure_replays(o, &replays);
    if (code == 0) code = configure_graph(o, &graph);
    if (code == 0 && configure_strategies(o, strategies) == 0) code = EXIT_UNUSABLE;
    if (code != 0) return code;
    /* Before inputs are made to measure: an absurd width would take the machine's memory first. */
    mlar_diag diag = {.struct_size = sizeof diag};
    mlar_status status = mlar_config_validate(&report.config, &diag);
    if (status != MLAR_OK) return unusable_diag(&diag, status);
    if (o->queries == 0 || o->queries > 65536)
        return unusable("--queries: %lld given, must be 1..65536", (long long)o->queries);
    place where;
    if ((code = place_open(&where, o)) != 0) return code;
    find_ceilings(o, &where, &report);
    (void)place_describe(&where, report.device);
    code = run_points(o, &where, &report.config, batches, batch_count, &report);
    place_close(&where);
    if (code == EXIT_UNUSABLE) return code;
    if (o->json)
        bench_print_json(&report);
    else
        bench_print_table(&report);
    if (o->svg != NULL && bench_write_svg(o->svg, &report))
        return unusable("%s: cannot be written: %s", o->svg, strerror(errno));
    if (code == EXIT_MISMATCH) fprintf(stderr, "mlarena: a result is off by more than %g\n", BENCH_TOLERANCE);
    return code;
}
