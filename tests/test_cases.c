/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cases.c: every step file of tests/data through the engine: both strategies, both policies, every
 * instruction set that is offered here, 1, 3 and 16 threads. Compared with what the file expects by the
 * comparer that the command line uses; the gather buffers bit for bit; and not a bit depends on the number of
 * threads. */
#define _POSIX_C_SOURCE 200809L
#include "kernels/cpu/kernels.h"
#include "tests/support/engine_case.h"
#include "tools/stepfile/compare.h"
#include "tools/stepfile/stepfile.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILES_MOST = 100, FILES_LEAST = 29 };

static const int32_t threads_tried[] = {1, 3, 16};

static const stepfile_scope *scope_of(const stepfile *step, int32_t s) {
    return s == 0 ? &step->window : &step->extra;
}

/* A program takes at least one row: memory for it must be there, in a step without rows too. */
static uint32_t capacity_of(const stepfile *step) {
    return step->rows ? step->rows : 1;
}

static void give_q_a_row(stepfile *step) {
    if (step->rows > 0) return;
    free(step->q);
    step->q = stepfile_allocate((uint64_t)step->heads * step->d_qk * 2);
    assert_non_null(step->q);
}

static mlar_config config_of(const stepfile *step) {
    mlar_config config;
    MUST(mlar_config_init(&config));
    config.heads = (int32_t)step->heads;
    config.nope = (int32_t)step->nope;
    config.rope = (int32_t)step->rope;
    config.max_rows = (int32_t)capacity_of(step);
    config.selftest = 0;
    config.guard_bytes = 256;
    config.kind_count = 1;
    config.kinds[0].scope_count = step->extra.present ? 2 : 1;
    for (int32_t s = 0; s < config.kinds[0].scope_count; s++)
        config.kinds[0].scope[s] = (mlar_scope_config){.width = (int32_t)scope_of(step, s)->width,
                                                       .layout = (int32_t)step->layout,
                                                       .fp8 = (int32_t)scope_of(step, s)->fp8};
    return config;
}

static mlar_bindings bindings_of(const stepfile *step, const mlar_config *config,
                                 const stepfile_results *results) {
    mlar_bindings b;
    MUST(mlar_bindings_init(&b, config, 0));
    b.scale = (float)step->scale;
    b.q = step->q;
    b.attn_sink = step->attn_sink;
    b.out = results->out;
    b.lse = results->lse;
    for (int32_t s = 0; s < config->kinds[0].scope_count; s++) {
        const stepfile_scope *scope = scope_of(step, s);
        b.cache[s] = (mlar_cache){.base = scope->cache,
                                  .block_stride_bytes = scope->block_stride_bytes,
                                  .num_blocks = (int64_t)scope->num_blocks,
                                  .block_size = (int32_t)scope->block_size_tokens};
        b.list[s] = (mlar_index_list){.indices = scope->indices,
                                      .lens = scope->lens,
                                      .row_stride = scope->width,
                                      .rows_per_len = (int32_t)scope->rows_per_len};
    }
    return b;
}

static stepfile_results results_for(const stepfile *step) {
    const uint64_t heads = (uint64_t)capacity_of(step) * step->heads;
    stepfile_results results = {
        .out = stepfile_allocate(heads * step->d_v * 2),
        .lse = stepfile_allocate(heads * 4),
        .gathered_window = stepfile_allocate((uint64_t)step->rows * step->window.width * step->d_qk * 2),
        .gathered_extra = stepfile_allocate((uint64_t)step->rows * step->extra.width * step->d_qk * 2)};
    assert_true(results.out && results.lse && results.gathered_window && results.gathered_extra);
    return results;
}

static void free_results(stepfile_results *results) {
    free(results->out);
    free(results->lse);
    free(results->gathered_window);
    free(results->gathered_extra);
}

/* The gather buffers of the step that ran last: one row tile holds all rows. */
static void take_gathered(engine_case *run, const stepfile *step, stepfile_results *results) {
    static const char *const names[] = {"gather.window", "gather.extra"};
    uint16_t *const to[] = {results->gathered_window, results->gathered_extra};
    for (int32_t s = 0; s < run->config.kinds[0].scope_count; s++) {
        void *address = NULL;
        uint64_t bytes = 0, taken = (uint64_t)step->rows * scope_of(step, s)->width * step->d_qk * 2;
        MUST(mlar_engine_buffer(run->engine, 0, names[s], &address, &bytes));
        assert_true(taken <= bytes);
        if (taken > 0) memcpy(to[s], address, (size_t)taken);
    }
}

static void run_replay(engine_case *run, const mlar_bindings *bindings, int32_t rows) {
    mlar_step step = {.struct_size = sizeof step, .rows = rows};
    mlar_program *program = NULL;
    MUST(mlar_engine_capture(run->engine, 0, bindings, 1, run->config.max_rows, &program, NULL));
    MUST(mlar_engine_step(run->engine, &step, NULL));
    MUST(mlar_engine_prepare(run->engine, 0, bindings, NULL, NULL, NULL));
    MUST(mlar_program_replay(program, NULL));
    MUST(mlar_engine_check_guards(run->engine, NULL, NULL));
}

/* One configuration over all thread counts. */
static void run_way(const char *file, const stepfile *step, mlar_config config) {
    stepfile_results first = {0};
    char line[300];
    for (size_t t = 0; t < sizeof threads_tried / sizeof *threads_tried; t++) {
        stepfile_results results = results_for(step);
        compare_report report;
        config.threads = threads_tried[t];
        engine_case *run = engine_case_open(&config);
        mlar_bindings bindings = bindings_of(step, &config, &results);
        run_replay(run, &bindings, (int32_t)step->rows);
        stepfile_results compared = results;
        if (config.strategy == MLAR_STRATEGY_GATHER)
            take_gathered(run, step, &results);
        else
            compared.gathered_window = compared.gathered_extra = NULL;
        if (!compare_step(step, &compared, &report)) {
            const struct {
                const char *name;
                const compare_result *result;
            } all[] = {{"out", &report.out},
                       {"lse", &report.lse},
                       {"gathered_window", &report.gathered_window},
                       {"gathered_extra", &report.gathered_extra}};
            for (size_t i = 0; i < 4; i++)
                print_message("%s\n", compare_describe(all[i].name, all[i].result, line, sizeof line));
            fail_msg("%s: strategy %d, policy %d, %s, %d threads", file, config.strategy, config.policy,
                     config.cpu_isa, config.threads);
        }
        if (step->expected.out_f64 || step->expected.out) assert_true(report.out.checked);
        if (config.strategy == MLAR_STRATEGY_GATHER && step->expected.gathered_window)
            assert_true(report.gathered_window.checked);
        if (t == 0) {
            first = results;
        } else {
            const uint64_t heads = (uint64_t)step->rows * step->heads;
            assert_memory_equal(results.out, first.out, heads * step->d_v * 2);
            assert_memory_equal(results.lse, first.lse, heads * 4);
            free_results(&results);
        }
        engine_case_close(run);
    }
    free_results(&first);
}

static void run_file(const char *file) {
    char path[600];
    stepfile step;
    step_error error;
    snprintf(path, sizeof path, "%s/%s", MLAR_TEST_DATA_DIR, file);
    if (!stepfile_read(path, &step, &error)) fail_msg("%s", error.text);
    give_q_a_row(&step);
    for (int32_t way = 0; way < 4; way++)
        for (int32_t i = 0; mlar_cpu_offered(i) != NULL; i++) {
            mlar_config config = config_of(&step);
            config.strategy = way & 1 ? MLAR_STRATEGY_GATHER : MLAR_STRATEGY_DIRECT;
            config.policy = way & 2 ? MLAR_POLICY_BATCH_INVARIANT : MLAR_POLICY_BALANCED;
            snprintf(config.cpu_isa, sizeof config.cpu_isa, "%s", mlar_cpu_offered(i));
            run_way(file, &step, config);
        }
    stepfile_free(&step);
}

static int by_name(const void *a, const void *b) {
    return strcmp(a, b);
}

static void test_every_file(void **state) {
    (void)state;
    static char names[FILES_MOST][256];
    size_t count = 0;
    DIR *directory = opendir(MLAR_TEST_DATA_DIR);
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        const char *end = strstr(entry->d_name, ".safetensors");
        if (end == NULL || end[strlen(".safetensors")] != 0) continue;
        assert_true(count < FILES_MOST);
        snprintf(names[count++], sizeof names[0], "%s", entry->d_name);
    }
    closedir(directory);
    assert_true(count >= FILES_LEAST);
    qsort(names, count, sizeof names[0], by_name);
    for (size_t i = 0; i < count; i++) {
        print_message("    %s\n", names[i]);
        run_file(names[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_file)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
