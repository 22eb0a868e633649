/* SPDX-License-Identifier: Apache-2.0
 *
 * group_devices.c: two GPUs in one process: engines on both, each one called while the other device is the current
 * one, and what belongs to one device given to an engine on the other. On a machine with one GPU it says so. */
#include "tests/gpu/groups.h"

#include "engine/gpu/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 6, FIRST = 0, SECOND = 1 };

/* An engine, a program and a case's buffers on one of the devices. */
typedef struct resident {
    gpu_place *place;
    gpu_case c;
    gpu_engine e;
    mlar_program *program;
} resident;

static void resident_close(resident *r) {
    gpu_engine_close(&r->e);
    gpu_case_close(&r->c);
}

/* Returns 1 if all of it is there; closed in any case. */
static int resident_open(resident *r, gpu_place *where, step_case *made) {
    const mlar_config config = config_of(made, &variants[0]);
    r->place = where;
    return gpu_case_open(&r->c, where, made) && gpu_engine_open(&r->e, where, &config) &&
           GPU_MUST(mlar_engine_capture(r->e.engine, 0, &r->c.bindings, 1, ROWS, &r->program, NULL));
}

/* Replayed and enqueued, both give `right`. */
static void still_right(resident *r, const uint8_t *right, const char *when) {
    for (int replayed = 0; replayed < 2; replayed++) {
        size_t bytes;
        const int ok = replayed ? gpu_case_replay(&r->e, r->program, 0, &r->c, ROWS)
                                : gpu_case_enqueue(&r->e, 0, &r->c, ROWS);
        uint8_t *out = take_outputs(r->c.made, &bytes);
        gpu_check(ok && memcmp(out, right, bytes) == 0, "%s differs %s", replayed ? "replay" : "enqueue",
                  when);
        free(out);
    }
}

/* Kernels cannot be launched into another device's stream; a graph can where the runtime lets it (CUDA does, and its
 * nodes stay on their device): then the result is to be right. */
static void foreign_stream(resident *r, gpu_place *other, const uint8_t *right) {
    const mlar_runtime *runtime = &other->device->runtime;
    mlar_step step = {.struct_size = sizeof step, .rows = ROWS};
    mlar_diag diag = {.struct_size = sizeof diag};
    mlar_device_scope scope;
    void *stream = NULL;
    if (!GPU_MUST(mlar_device_enter(other->device, &scope, NULL))) return;
    const int created = runtime->stream_create(&stream, MLAR_GPU_STREAM_NON_BLOCKING) == 0;
    GPU_MUST(mlar_device_leave(other->device, &scope, MLAR_OK, NULL));
    if (!gpu_check(created, "a stream of the other device")) return;
    const mlar_status enqueued =
        mlar_engine_enqueue(r->e.engine, 0, &r->c.bindings, ROWS, &step, stream, &diag);
    gpu_check(enqueued == MLAR_ERROR_DEVICE, "enqueue into another device's stream: %s, %s",
              mlar_status_name(enqueued), diag.message);
    case_poison_outputs(r->c.made);
    gpu_case_upload(&r->c);
    const mlar_status replayed = mlar_program_replay(r->program, stream);
    GPU_MUST(mlar_device_wait(other->device, stream));
    gpu_case_download(&r->c);
    size_t bytes;
    uint8_t *out = take_outputs(r->c.made, &bytes);
    gpu_check(replayed == MLAR_OK ? memcmp(out, right, bytes) == 0 : replayed == MLAR_ERROR_DEVICE,
              "replay into another device's stream: %s", mlar_status_name(replayed));
    free(out);
    still_right(r, right, "after a stream of another device");
    GPU_MUST(mlar_device_enter(other->device, &scope, NULL));
    (void)runtime->stream_destroy(stream); /* that its device could not be made current does not matter */
    GPU_MUST(mlar_device_leave(other->device, &scope, MLAR_OK, NULL));
}

static void foreign_arena(gpu_place *here, gpu_place *there, const step_case *made) {
    mlar_config config = config_of(made, &variants[0]);
    mlar_memory memory = {.struct_size = sizeof memory};
    mlar_diag diag = {.struct_size = sizeof diag};
    mlar_arena arena;
    mlar_engine *engine = NULL;
    void *block = NULL;
    config.device = here->info.profile;
    if (!GPU_MUST(mlar_memory_query(&config, &memory, NULL))) return;
    if (!GPU_MUST(mlar_device_allocate(there->device, memory.device_bytes, &block, NULL))) return;
    void *host_block = aligned_alloc(64, (memory.host_bytes + 63) / 64 * 64);
    GPU_MUST(mlar_arena_from_caller(&arena, block, memory.device_bytes, 0, NULL));
    const mlar_status status =
        mlar_engine_init(&config, here->device, &arena, host_block, memory.host_bytes, &engine, &diag);
    gpu_check(status == MLAR_ERROR_MEMORY_KIND, "an arena in another device's memory: %s, %s",
              mlar_status_name(status), diag.message);
    if (status == MLAR_OK) GPU_MUST(mlar_engine_deinit(engine));
    GPU_MUST(mlar_arena_release(&arena, NULL));
    GPU_MUST(mlar_device_free(there->device, block));
    free(host_block);
}

static void side_by_side(resident on[2], const step_case *made) {
    size_t bytes;
    if (!gpu_case_enqueue(&on[FIRST].e, 0, &on[FIRST].c, ROWS)) return;
    uint8_t *right = take_outputs(made, &bytes);
    for (int here = 0; here < 2; here++) {
        gpu_place *other = on[!here].place;
        mlar_device_scope scope;
        still_right(&on[here], right, "beside an engine on another device");
        if (!GPU_MUST(mlar_device_enter(other->device, &scope, NULL))) continue;
        still_right(&on[here], right, "while the other device is the current one");
        GPU_MUST(mlar_device_leave(other->device, &scope, MLAR_OK, NULL));
        foreign_stream(&on[here], other, right);
        foreign_arena(on[here].place, other, made);
    }
    free(right);
}

void two_devices(void) {
    gpu_place second = {0};
    int count = 0;
    const case_spec spec = model_spec(91, ROWS, 16);
    step_case *made = case_new(&spec);
    resident on[2] = {0};
    gpu_check(place.device->runtime.device_count(&count) == 0, "the number of devices");
    if (count == 1)
        printf("  one device: nothing to do\n");
    else if (gpu_check(gpu_open(&second, SECOND), "the second of %d devices", count) &&
             resident_open(&on[FIRST], &place, made) && resident_open(&on[SECOND], &second, made))
        side_by_side(on, made);
    resident_close(&on[SECOND]);
    resident_close(&on[FIRST]);
    gpu_close(&second);
    case_free(made);
}
