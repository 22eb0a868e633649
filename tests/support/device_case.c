/* SPDX-License-Identifier: Apache-2.0
 *
 * device_case.c: see device_case.h. */
#define _POSIX_C_SOURCE 200112L /* posix_memalign */
#include "tests/support/device_case.h"

#include <stdlib.h>
#include <string.h>

static void must(mlar_status status, const mlar_diag *diag, const char *what) {
    if (status != MLAR_OK) fail_msg("%s: %s: %s", what, mlar_status_name(status), diag->message);
}

/* ---- cases ---- */

device_case device_case_new(mlar_device *device, step_case *made) {
    device_case moved = {.device = device, .made = made};
    step_case there = *made;
    mlar_diag diag = DIAG_INIT;
    for (int32_t i = 0; i < made->buffer_count; i++) {
        const case_buffer *buffer = &made->buffers[i];
        must(mlar_device_allocate(device, buffer->bytes, &moved.on_device[i], &diag), &diag, "allocate");
        must(mlar_device_write(device, moved.on_device[i], buffer->memory, buffer->bytes), &diag, "write");
        case_point(&there.layer, buffer, moved.on_device[i]);
    }
    moved.bindings = case_bindings(&there.layer);
    return moved;
}

void device_case_free(device_case *moved) {
    for (int32_t i = 0; i < moved->made->buffer_count; i++)
        MUST(mlar_device_free(moved->device, moved->on_device[i]));
    memset(moved, 0, sizeof *moved);
}

void device_case_poison(device_case *moved) {
    case_poison_outputs(moved->made);
    for (int32_t i = 0; i < moved->made->buffer_count; i++) {
        const case_buffer *buffer = &moved->made->buffers[i];
        if (buffer->is_output)
            MUST(mlar_device_write(moved->device, moved->on_device[i], buffer->memory, buffer->bytes));
    }
}

void device_case_fetch(device_case *moved, void *stream) {
    MUST(mlar_device_wait(moved->device, stream));
    for (int32_t i = 0; i < moved->made->buffer_count; i++) {
        const case_buffer *buffer = &moved->made->buffers[i];
        if (buffer->is_output)
            MUST(mlar_device_read(moved->device, buffer->memory, moved->on_device[i], buffer->bytes));
    }
}

/* ---- engines ---- */

mlar_config device_engine_config(mlar_device *device, const step_case *const *cases, int32_t count) {
    mlar_config config = engine_case_config(cases, count);
    mlar_device_info info = {.struct_size = sizeof info};
    MUST(mlar_device_info_of(device, &info));
    config.device = info.profile;
    return config;
}

device_engine *device_engine_open(mlar_device *device, const mlar_config *config) {
    device_engine *run = calloc(1, sizeof *run); /* an arena stays where it is while it is held */
    mlar_diag diag = DIAG_INIT;
    assert_non_null(run);
    run->device = device;
    run->config = *config;
    run->memory.struct_size = sizeof run->memory;
    must(mlar_memory_query(config, &run->memory, &diag), &diag, "query");
    must(mlar_arena_from_pool(&run->arena, device, run->memory.device_bytes, &diag), &diag, "pool");
    assert_int_equal(posix_memalign(&run->host_memory, (size_t)run->memory.host_align_bytes,
                                    (size_t)run->memory.host_bytes),
                     0);
    memset(run->host_memory, 0xff, (size_t)run->memory.host_bytes);
    must(mlar_engine_init(config, device, &run->arena, run->host_memory, run->memory.host_bytes, &run->engine,
                          &diag),
         &diag, "init");
    return run;
}

void device_engine_close(device_engine *run) {
    MUST(mlar_engine_deinit(run->engine));
    MUST(mlar_arena_release(&run->arena, NULL));
    free(run->host_memory);
    free(run);
}

mlar_program *device_engine_capture(device_engine *run, int32_t kind, const device_case *moved,
                                    int32_t capacity_rows) {
    mlar_program *program = NULL;
    mlar_diag diag = DIAG_INIT;
    must(mlar_engine_capture(run->engine, kind, &moved->bindings, 1, capacity_rows, &program, &diag), &diag,
         "capture");
    return program;
}

void device_engine_eager(device_engine *run, int32_t kind, device_case *moved, void *stream) {
    const case_spec *spec = &moved->made->spec;
    mlar_step step = {.struct_size = sizeof step, .rows = spec->rows};
    mlar_diag diag = DIAG_INIT;
    device_case_poison(moved);
    must(mlar_engine_prepare(run->engine, kind, &moved->bindings, &step, stream, &diag), &diag, "prepare");
    must(mlar_engine_enqueue(run->engine, kind, &moved->bindings, spec->capacity_rows, &step, stream, &diag),
         &diag, "enqueue");
    device_case_fetch(moved, stream);
}

void device_engine_replay(device_engine *run, mlar_program *program, int32_t kind, device_case *moved,
                          int32_t rows, void *stream) {
    mlar_step step = {.struct_size = sizeof step, .rows = rows};
    device_case_poison(moved);
    MUST(mlar_engine_step(run->engine, &step, stream));
    MUST(mlar_engine_prepare(run->engine, kind, &moved->bindings, NULL, stream, NULL));
    MUST(mlar_program_replay(program, stream));
    device_case_fetch(moved, stream);
}

mlar_stats device_engine_stats(device_engine *run, void *stream) {
    mlar_stats stats = {.struct_size = sizeof stats};
    MUST(mlar_engine_stats(run->engine, stream, &stats));
    return stats;
}
