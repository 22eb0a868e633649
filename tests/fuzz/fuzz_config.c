/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_config.c: bytes -> configuration -> size query. A refusal names a field and says why. What is accepted
 * fits its budget; the minimum it states is exact; more budget never makes a smaller row tile; the map that
 * is printed passes the independent checker; and, where it is small and for the CPU, exactly the stated bytes
 * run the self-test.
 *
 * Input: a base (a preset, or neutral values), then pairs (field, value code or raw bytes) that overwrite
 * fields until the input ends. */
#define _POSIX_C_SOURCE 200112L

#include <stdbool.h>
#include <string.h>

#include <mlarena/mlarena.h>

#include "arena/plan.h"
#include "arena/plan_check.h"
#include "tests/fuzz/require.h"

enum { RUNNABLE_BYTES = 1 << 20, NUMBERS = 19 };

/* ---- bytes -> configuration ---- */

/* A number is one of these, or raw. */
static const int32_t numbers[] = {0,    1,    2,    3,     4,     8,     16,  63,        64,       65,
                                  127,  128,  129,  192,   256,   448,   511, 512,       513,      1024,
                                  1025, 4096, 8192, 65535, 65536, 65537, -1,  INT32_MIN, INT32_MAX};

static int32_t take_number(input *from) {
    uint8_t code = take_byte(from);
    if (code < 250) return numbers[code % (sizeof numbers / sizeof numbers[0])];
    return (int32_t)(uint32_t)take_word(from, 4);
}

static void set_kind(mlar_kind_config *kind, input *from) {
    uint8_t what = take_byte(from);
    mlar_scope_config *scope = &kind->scope[what & 1];
    switch (what >> 1 & 3) {
    case 0:
        kind->scope_count = take_number(from);
        break;
    case 1:
        scope->width = take_number(from);
        break;
    case 2:
        scope->layout = take_number(from);
        break;
    default:
        scope->fp8 = take_number(from);
        break;
    }
}

static void set_field(mlar_config *config, input *from) {
    int32_t *const fields[NUMBERS] = {&config->strategy,
                                      &config->policy,
                                      &config->heads,
                                      &config->nope,
                                      &config->rope,
                                      &config->max_rows,
                                      &config->max_programs,
                                      &config->max_layers,
                                      &config->splits,
                                      &config->max_nodes,
                                      &config->guard_bytes,
                                      &config->selftest,
                                      &config->threads,
                                      &config->runtime_check,
                                      &config->update_route,
                                      &config->device.device,
                                      &config->device.compute_units,
                                      &config->device.wave_size,
                                      &config->kind_count};
    static const char *const profiles[] = {"cpu", "mi250x", "mi300x", "mi355x", "rx7900xtx", "h100"};
    uint8_t what = take_byte(from) % 32;
    if (what < NUMBERS)
        *fields[what] = take_number(from);
    else if (what < 28)
        set_kind(&config->kinds[what % MLAR_KINDS_MAX], from);
    else if (what == 28)
        (void)mlar_device_profile_named(&config->device, profiles[take_byte(from) % 6], NULL);
    else if (what == 29)
        config->budget_bytes = take_word(from, 8) >> take_byte(from) % 64;
    else if (what == 30)
        config->struct_size = (uint32_t)take_word(from, 4) % (sizeof *config + 1);
    else
        memset(config->device.arch, take_byte(from), sizeof config->device.arch);
}

static mlar_config make_config(input *from) {
    static const char *const presets[] = {"dsv4-flash", "dsv4-pro", "v32"};
    mlar_config config;
    uint8_t base = take_byte(from);
    if (base % 4 < 3)
        REQUIRE(mlar_config_preset(&config, presets[base % 4], 1 << (base >> 2 & 3), NULL) == MLAR_OK);
    else
        REQUIRE(mlar_config_init(&config) == MLAR_OK);
    if (base & 0x80) config.max_programs = config.max_layers = 2; /* small enough to run */
    while (from->next < from->end) set_field(&config, from);
    return config;
}

/* ---- the promises ---- */

static mlar_status query(const mlar_config *config, mlar_memory *memory, mlar_diag *diag) {
    *memory = (mlar_memory){.struct_size = sizeof *memory};
    *diag = (mlar_diag){.struct_size = sizeof *diag};
    mlar_status status = mlar_memory_query(config, memory, diag);
    REQUIRE(status == MLAR_OK || (diag->status == status && diag->field[0] != 0 && diag->message[0] != 0));
    REQUIRE(status == MLAR_OK || status == MLAR_ERROR_CONFIG || status == MLAR_ERROR_OVERFLOW ||
            status == MLAR_ERROR_BUDGET || status == MLAR_ERROR_STRUCT_SIZE ||
            (status == MLAR_ERROR_UNSUPPORTED && strcmp(diag->field, "device.arch") == 0));
    return status;
}

/* The budget's promises, around a configuration that is accepted without one. */
static void check_budget(const mlar_config *config, const mlar_memory *unlimited) {
    mlar_config own = *config;
    mlar_memory memory;
    mlar_diag diag;
    const uint64_t minimum = unlimited->minimum_budget_bytes;
    own.budget_bytes = minimum;
    REQUIRE(minimum > 0 && query(&own, &memory, &diag) == MLAR_OK);
    REQUIRE(memory.device_bytes <= minimum && memory.minimum_budget_bytes == minimum);
    own.budget_bytes = minimum - 1;
    REQUIRE(minimum == 1 || (query(&own, &memory, &diag) == MLAR_ERROR_BUDGET &&
                             (uint64_t)diag.needed == minimum && (uint64_t)diag.given == minimum - 1));
    int32_t before[MLAR_KINDS_MAX] = {0};
    for (int i = 0; i <= 4; i++) {
        uint64_t most = unlimited->device_bytes > minimum ? unlimited->device_bytes : minimum;
        own.budget_bytes = minimum + (most - minimum) / 4 * (uint64_t)i;
        REQUIRE(query(&own, &memory, &diag) == MLAR_OK);
        REQUIRE(memory.device_bytes <= own.budget_bytes);
        for (int32_t k = 0; k < config->kind_count; k++) {
            REQUIRE(memory.row_tile[k] >= before[k] && memory.row_tile[k] <= unlimited->row_tile[k]);
            before[k] = memory.row_tile[k];
        }
    }
}

/* The map that people see, put before the checker: lifetimes in each kind's own range of stages. */
static void check_map(const mlar_memory *memory, uint64_t guard) {
    mlar_plan_request requests[MLAR_PLAN_MAX_REQUESTS];
    static mlar_plan plan;
    REQUIRE(memory->buffer_count <= MLAR_PLAN_MAX_REQUESTS);
    for (int32_t i = 0; i < memory->buffer_count; i++) {
        const mlar_buffer_info *buffer = &memory->buffers[i];
        const int32_t base = buffer->persistent ? 0 : buffer->kind * memory->stage_count;
        REQUIRE(buffer->name[0] != 0 && memchr(buffer->shape, 0, sizeof buffer->shape) != NULL);
        requests[i] = (mlar_plan_request){.name = buffer->name,
                                          .bytes = buffer->bytes,
                                          .align = buffer->align_bytes,
                                          .first_stage = buffer->persistent ? 0 : base + buffer->first_stage,
                                          .last_stage = buffer->persistent ? MLAR_STAGE_FOREVER
                                                                           : base + buffer->last_stage};
    }
    REQUIRE(mlar_plan_make(requests, memory->buffer_count, guard, &plan, NULL) == MLAR_OK);
    for (int32_t i = 0; i < memory->buffer_count; i++) plan.offsets[i] = memory->buffers[i].offset_bytes;
    REQUIRE(mlar_plan_check(requests, memory->buffer_count, &plan, NULL) == MLAR_OK);
    REQUIRE(plan.total_bytes == memory->device_bytes && plan.lower_bound_bytes == memory->lower_bound_bytes);
}

static void *exactly(uint64_t bytes, uint64_t align) {
    void *memory = NULL;
    REQUIRE(posix_memalign(&memory, (size_t)align, (size_t)bytes) == 0);
    memset(memory, 0xff, (size_t)bytes);
    return memory;
}

static void run(const mlar_config *config, const mlar_memory *memory) {
    mlar_arena arena;
    mlar_engine *engine = NULL;
    mlar_diag diag = {.struct_size = sizeof diag};
    void *host = exactly(memory->host_bytes, memory->host_align_bytes);
    void *device = exactly(memory->device_bytes, memory->device_align_bytes);
    REQUIRE(mlar_arena_from_caller(&arena, device, memory->device_bytes, 1, NULL) == MLAR_OK);
    REQUIRE(mlar_engine_init(config, NULL, &arena, host, memory->host_bytes - 1, &engine, &diag) ==
                MLAR_ERROR_MEMORY_SIZE &&
            engine == NULL && (uint64_t)diag.needed == memory->host_bytes);
    REQUIRE(mlar_engine_init(config, NULL, &arena, host, memory->host_bytes, &engine, &diag) == MLAR_OK);
    mlar_status status = mlar_engine_selftest(engine, NULL, &diag);
    REQUIRE(status == (config->selftest ? MLAR_OK : MLAR_ERROR_STATE));
    REQUIRE(mlar_engine_check_guards(engine, NULL, NULL) == MLAR_OK);
    REQUIRE(mlar_engine_deinit(engine) == MLAR_OK && mlar_arena_release(&arena, NULL) == MLAR_OK);
    free(device);
    free(host);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static mlar_memory memory, again;
    mlar_diag diag;
    input from = {data, data + size};
    const mlar_config config = make_config(&from);
    mlar_status valid = mlar_config_validate(&config, NULL), status = query(&config, &memory, &diag);
    REQUIRE(valid == MLAR_OK || status == valid);
    if (status != MLAR_OK) return 0;
    REQUIRE(valid == MLAR_OK && query(&config, &again, &diag) == MLAR_OK);
    REQUIRE(memcmp(&memory, &again, sizeof memory) == 0);
    REQUIRE(config.budget_bytes == 0 || memory.device_bytes <= config.budget_bytes);
    check_map(&memory, (uint64_t)config.guard_bytes);

    mlar_config unlimited = config;
    unlimited.budget_bytes = 0;
    REQUIRE(query(&unlimited, &again, &diag) == MLAR_OK);
    check_budget(&config, &again);
    if (config.device.device == MLAR_DEVICE_CPU && config.threads <= 2 && config.cpu_isa[0] == 0 &&
        memory.device_bytes + memory.host_bytes <= RUNNABLE_BYTES)
        run(&config, &memory);
    return 0;
}
