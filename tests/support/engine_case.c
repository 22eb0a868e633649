/* SPDX-License-Identifier: Apache-2.0
 *
 * engine_case.c: see engine_case.h. */
#define _POSIX_C_SOURCE 200112L /* posix_memalign: exact sizes */
#include "tests/support/engine_case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

case_spec engine_case_spec(uint64_t seed, int32_t rows, int32_t capacity_rows, int32_t window,
                           int32_t extra) {
    case_spec spec = {.seed = seed,
                      .rows = rows,
                      .capacity_rows = capacity_rows,
                      .heads = 4,
                      .nope = 64,
                      .rope = 8,
                      .scope_count = extra > 0 ? 2 : 1,
                      .has_lse = true,
                      .sink = CASE_SINK_ORDINARY,
                      .tail_zero = true};
    const int32_t width[MLAR_SCOPES] = {window, extra};
    for (int32_t s = 0; s < spec.scope_count; s++)
        spec.scope[s] = (case_scope_spec){
            .block_size = 16, .num_blocks = 20, .width = width[s], .rows_per_len = 1, .has_lens = true};
    return spec;
}

void engine_case_unmix(case_spec *spec) {
    int32_t v32 = 0;
    for (int32_t s = 0; s < spec->scope_count; s++) v32 |= spec->scope[s].layout == MLAR_LAYOUT_V32;
    for (int32_t s = 0; v32 && s < spec->scope_count; s++) spec->scope[s].layout = MLAR_LAYOUT_V32;
}

mlar_config engine_case_config(const step_case *const *cases, int32_t count) {
    mlar_config config;
    MUST(mlar_config_init(&config));
    config.heads = cases[0]->spec.heads;
    config.nope = cases[0]->spec.nope;
    config.rope = cases[0]->spec.rope;
    config.max_programs = 4;
    config.max_layers = 4;
    config.selftest = 0;
    config.kind_count = count;
    for (int32_t k = 0; k < count; k++) {
        const step_case *made = cases[k];
        if (made->spec.capacity_rows > config.max_rows) config.max_rows = made->spec.capacity_rows;
        config.kinds[k] = case_kind(&made->spec);
    }
    return config;
}

static void *dirty(uint64_t bytes, uint64_t align) {
    void *memory = NULL;
    assert_int_equal(posix_memalign(&memory, (size_t)align, bytes ? (size_t)bytes : 1), 0);
    memset(memory, 0xff, (size_t)bytes);
    return memory;
}

engine_case *engine_case_open(const mlar_config *config) {
    engine_case *run = calloc(1, sizeof *run);
    mlar_diag diag = DIAG_INIT;
    assert_non_null(run);
    run->config = *config;
    run->memory.struct_size = sizeof run->memory;
    if (mlar_memory_query(config, &run->memory, &diag) != MLAR_OK) fail_msg("query: %s", diag.message);
    run->arena_memory = dirty(run->memory.device_bytes, run->memory.device_align_bytes);
    run->host_memory = dirty(run->memory.host_bytes, run->memory.host_align_bytes);
    MUST(mlar_arena_from_caller(&run->arena, run->arena_memory, run->memory.device_bytes, 1, NULL));
    if (mlar_engine_init(config, NULL, &run->arena, run->host_memory, run->memory.host_bytes, &run->engine,
                         &diag) != MLAR_OK)
        fail_msg("init: %s", diag.message);
    return run;
}

void engine_case_close(engine_case *run) {
    MUST(mlar_engine_deinit(run->engine));
    MUST(mlar_arena_release(&run->arena, NULL));
    free(run->arena_memory);
    free(run->host_memory);
    free(run);
}

mlar_program *engine_case_capture(engine_case *run, int32_t kind, const step_case *made,
                                  int32_t capacity_rows) {
    mlar_bindings bindings = case_bindings(&made->layer);
    mlar_program *program = NULL;
    mlar_diag diag = DIAG_INIT;
    if (mlar_engine_capture(run->engine, kind, &bindings, 1, capacity_rows, &program, &diag) != MLAR_OK)
        fail_msg("capture: %s", diag.message);
    return program;
}

void engine_case_eager(engine_case *run, int32_t kind, step_case *made) {
    mlar_bindings bindings = case_bindings(&made->layer);
    mlar_step step = {.struct_size = sizeof step, .rows = made->spec.rows};
    mlar_diag diag = DIAG_INIT;
    case_poison_outputs(made);
    mlar_status status = mlar_engine_prepare(run->engine, kind, &bindings, &step, NULL, &diag);
    if (status == MLAR_OK)
        status =
            mlar_engine_enqueue(run->engine, kind, &bindings, made->spec.capacity_rows, &step, NULL, &diag);
    if (status != MLAR_OK) fail_msg("%s: %s", mlar_status_name(status), diag.message);
}

void engine_case_replay(engine_case *run, mlar_program *program, int32_t kind, step_case *made,
                        int32_t rows) {
    mlar_bindings bindings = case_bindings(&made->layer);
    mlar_step step = {.struct_size = sizeof step, .rows = rows};
    case_poison_outputs(made);
    MUST(mlar_engine_step(run->engine, &step, NULL));
    MUST(mlar_engine_prepare(run->engine, kind, &bindings, NULL, NULL, NULL));
    MUST(mlar_program_replay(program, NULL));
}

void engine_case_fresh(const mlar_config *config, step_case *made) {
    engine_case *run = engine_case_open(config);
    engine_case_eager(run, 0, made);
    engine_case_close(run);
}

size_t engine_case_output_bytes(const step_case *made) {
    size_t bytes = 0;
    for (int32_t i = 0; i < made->buffer_count; i++)
        if (made->buffers[i].is_output) bytes += made->buffers[i].bytes;
    return bytes;
}

uint8_t *engine_case_take(const step_case *made) {
    uint8_t *copy = malloc(engine_case_output_bytes(made) + 1);
    size_t at = 0;
    assert_non_null(copy);
    for (int32_t i = 0; i < made->buffer_count; i++) {
        if (!made->buffers[i].is_output) continue;
        memcpy(copy + at, made->buffers[i].memory, made->buffers[i].bytes);
        at += made->buffers[i].bytes;
    }
    return copy;
}

void engine_case_same(const step_case *made, const uint8_t *wanted, const char *what) {
    char line[400];
    for (int32_t i = 0; i < made->buffer_count; i++) {
        const case_buffer *buffer = &made->buffers[i];
        if (!buffer->is_output) continue;
        for (size_t byte = 0; byte < buffer->bytes; byte++)
            if (buffer->memory[byte] != wanted[byte])
                fail_msg("%s: %s differs from byte %zu on: %02x, expected %02x\n%s", what, buffer->name, byte,
                         buffer->memory[byte], wanted[byte], case_describe(&made->spec, line, sizeof line));
        wanted += buffer->bytes;
    }
}

mlar_stats engine_case_stats(engine_case *run) {
    mlar_stats stats = {.struct_size = sizeof stats};
    MUST(mlar_engine_stats(run->engine, NULL, &stats));
    return stats;
}
