/* SPDX-License-Identifier: Apache-2.0
 *
 * gpu_case.c: devices, engines and cases for the tests that need a GPU. */
#include "tests/gpu/gpu_case.h"

#include "tests/support/case_bindings.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Atomic int64_t gpu_checks, gpu_failures;

int gpu_check(int ok, const char *format, ...) {
    gpu_checks++;
    if (ok) return 1;
    if (gpu_failures++ < 40) {
        va_list arguments;
        va_start(arguments, format);
        printf("  FAILED: ");
        vprintf(format, arguments);
        putchar('\n');
        va_end(arguments);
    }
    return 0;
}

int gpu_must(mlar_status status, const char *what, const mlar_diag *diag) {
    return gpu_check(status == MLAR_OK, "%s: %s%s%s", what, mlar_status_name(status),
                     diag != NULL && status != MLAR_OK ? ": " : "",
                     diag != NULL && status != MLAR_OK ? diag->message : "");
}

/* ---- device and engine ---- */

int gpu_open(gpu_place *place, int32_t ordinal) {
    memset(place, 0, sizeof *place);
    place->memory = calloc(1, mlar_device_bytes());
    place->info.struct_size = sizeof place->info;
    static const int32_t kinds[] = {MLAR_DEVICE_HIP, MLAR_DEVICE_CUDA};
    for (int i = 0; i < 2 && place->device == NULL; i++) {
        mlar_device_options options = {.struct_size = sizeof options, .device = kinds[i], .ordinal = ordinal};
        mlar_diag diag = {.struct_size = sizeof diag};
        mlar_status status =
            mlar_device_open(place->memory, mlar_device_bytes(), &options, &place->device, &diag);
        if (status != MLAR_OK) printf("no device: %s\n", diag.message);
    }
    if (place->device != NULL && GPU_MUST(mlar_device_info_of(place->device, &place->info))) return 1;
    gpu_close(place);
    return 0;
}

void gpu_close(gpu_place *place) {
    if (place->device != NULL) GPU_MUST(mlar_device_close(place->device));
    free(place->memory);
    memset(place, 0, sizeof *place);
}

int gpu_engine_open(gpu_engine *e, gpu_place *place, const mlar_config *config) {
    mlar_diag diag = {.struct_size = sizeof diag};
    memset(e, 0, sizeof *e);
    e->place = place;
    e->config = *config;
    e->config.device = place->info.profile;
    e->memory.struct_size = sizeof e->memory;
    if (gpu_must(mlar_memory_query(&e->config, &e->memory, &diag), "mlar_memory_query", &diag) &&
        gpu_must(mlar_arena_from_pool(&e->arena, place->device, e->memory.device_bytes, &diag),
                 "mlar_arena_from_pool", &diag)) {
        e->has_arena = 1;
        e->host_block = aligned_alloc(64, (e->memory.host_bytes + 63) / 64 * 64);
        if (gpu_must(mlar_engine_init(&e->config, place->device, &e->arena, e->host_block,
                                      e->memory.host_bytes, &e->engine, &diag),
                     "mlar_engine_init", &diag))
            return 1;
    }
    gpu_engine_close(e);
    return 0;
}

void gpu_engine_close(gpu_engine *e) {
    if (e->engine != NULL) GPU_MUST(mlar_engine_deinit(e->engine));
    if (e->has_arena) GPU_MUST(mlar_arena_release(&e->arena, NULL));
    free(e->host_block);
    memset(e, 0, sizeof *e);
}

/* ---- a case on the device ---- */

/* The case's own parameters, pointers replaced by the device's, as bindings. */
static void bind(gpu_case *c) {
    mlar_layer_params layer = c->made->layer;
    for (int32_t i = 0; i < c->made->buffer_count; i++)
        case_point(&layer, &c->made->buffers[i], c->buffer[i]);
    c->bindings = case_bindings(&layer);
}

void gpu_case_close(gpu_case *c) {
    for (int32_t i = 0; i < CASE_MAX_BUFFERS; i++)
        if (c->buffer[i] != NULL) GPU_MUST(mlar_device_free(c->place->device, c->buffer[i]));
    memset(c, 0, sizeof *c);
}

int gpu_case_open(gpu_case *c, gpu_place *place, step_case *made) {
    int ok = 1;
    memset(c, 0, sizeof *c);
    c->place = place;
    c->made = made;
    for (int32_t i = 0; i < made->buffer_count && ok; i++)
        ok = GPU_MUST(mlar_device_allocate(place->device, made->buffers[i].bytes + 64, &c->buffer[i], NULL));
    bind(c);
    if (ok && gpu_case_upload(c)) return 1;
    gpu_case_close(c);
    return 0;
}

int gpu_case_upload(gpu_case *c) {
    int ok = 1;
    for (int32_t i = 0; i < c->made->buffer_count; i++)
        ok &= GPU_MUST(mlar_device_write(c->place->device, c->buffer[i], c->made->buffers[i].memory,
                                         c->made->buffers[i].bytes));
    return ok;
}

static int move_outputs(gpu_case *c, int down) {
    int ok = 1;
    for (int32_t i = 0; i < c->made->buffer_count; i++) {
        case_buffer *buffer = &c->made->buffers[i];
        if (!buffer->is_output) continue;
        ok &=
            down ? GPU_MUST(mlar_device_read(c->place->device, buffer->memory, c->buffer[i], buffer->bytes))
                 : GPU_MUST(mlar_device_write(c->place->device, c->buffer[i], buffer->memory, buffer->bytes));
    }
    return ok;
}

int gpu_case_download(gpu_case *c) {
    return move_outputs(c, 1);
}

static int poison_outputs(gpu_case *c) {
    case_poison_outputs(c->made);
    return move_outputs(c, 0);
}

int gpu_case_enqueue(gpu_engine *e, int32_t kind, gpu_case *c, int32_t rows) {
    mlar_step step = {.struct_size = sizeof step, .rows = rows};
    mlar_diag diag = {.struct_size = sizeof diag};
    int32_t capacity = c->made->spec.capacity_rows > 0 ? c->made->spec.capacity_rows : 1;
    if (!poison_outputs(c)) return 0;
    return gpu_must(mlar_engine_prepare(e->engine, kind, &c->bindings, &step, NULL, &diag), "prepare",
                    &diag) &&
           gpu_must(mlar_engine_enqueue(e->engine, kind, &c->bindings, capacity, &step, NULL, &diag),
                    "enqueue", &diag) &&
           gpu_case_download(c);
}

int gpu_case_replay(gpu_engine *e, mlar_program *program, int32_t kind, gpu_case *c, int32_t rows) {
    mlar_step step = {.struct_size = sizeof step, .rows = rows};
    mlar_diag diag = {.struct_size = sizeof diag};
    if (!poison_outputs(c)) return 0;
    return GPU_MUST(mlar_engine_step(e->engine, &step, NULL)) &&
           gpu_must(mlar_engine_prepare(e->engine, kind, &c->bindings, NULL, NULL, &diag), "prepare",
                    &diag) &&
           GPU_MUST(mlar_program_replay(program, NULL)) && gpu_case_download(c);
}
