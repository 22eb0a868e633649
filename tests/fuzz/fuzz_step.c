/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_step.c: bytes -> one decode step, through the engine: both strategies, the scalar kernels and the best
 * ones of this machine, enqueued and replayed. Each result is compared with the float64 evaluation of
 * tests/support/reference.c; the gather buffers and the count of invalid indices must be exact, replay must
 * equal enqueue bit for bit, and nothing outside the outputs and the arena may change.
 *
 * SPEC's accuracy is stated for data that a model makes. Fuzzed keys may cancel, or score so high that a
 * rounded sum decides which key wins; so a head's tolerance here is a bound on the error of evaluating it in
 * f32, from the sizes of its own terms. Heads for which that bound says nothing are left out.
 *
 * Input: a seed for cases.h (8 bytes), features (2), engine (3), then patches of the step's input bytes:
 * buffer, place (2), count, bytes. Ragged `indptr` is left alone: a host that lies about where its lists end
 * is out of contract. */
#define _POSIX_C_SOURCE 200112L

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include <mlarena/mlarena.h>

#include "tests/fuzz/require.h"
#include "tests/support/case_bindings.h"
#include "tests/support/cases.h"
#include "tests/support/check.h"
#include "tests/support/reference.h"

typedef struct engine_options {
    int32_t policy, splits, max_nodes, budget_share, threads;
} engine_options;

/* ---- bytes -> step ---- */

static int may_be_patched(const case_buffer *buffer) {
    return !buffer->is_output && strstr(buffer->name, "indptr") == NULL;
}

static void patch(step_case *made, input *from) {
    while (from->next < from->end && made->buffer_count > 0) {
        const case_buffer *buffer = &made->buffers[take_byte(from) % made->buffer_count];
        uint64_t place = take_word(from, 2), count = take_byte(from) % 32;
        size_t room = buffer->bytes - buffer->begin_bytes;
        for (uint64_t i = 0; i < count; i++) {
            uint8_t byte = take_byte(from);
            if (room > 0 && may_be_patched(buffer))
                buffer->memory[buffer->begin_bytes + (place + i) % room] = byte;
        }
    }
}

static step_case *make_step(input *from, engine_options *options) {
    static const case_bounds bounds = {.rows = 3, .heads = 4, .width = 12, .dims = 1};
    uint64_t seed = take_word(from, 8);
    uint32_t features = (uint32_t)take_word(from, 2) & CASE_ALL;
    uint8_t engine = take_byte(from), nodes = take_byte(from), budget = take_byte(from);
    *options = (engine_options){.policy = engine & 1,
                                .splits = engine >> 1 & 3,
                                .threads = 1 + (engine >> 3 & 1),
                                .max_nodes = 8 + nodes % 8,
                                .budget_share = budget % 4};
    case_spec spec = case_draw(seed, features, &bounds);
    for (int32_t s = 0; s < spec.scope_count; s++) /* d_v follows from the layout: an engine has one */
        if (spec.scope[s].layout == MLAR_LAYOUT_V32 || spec.scope[0].layout == MLAR_LAYOUT_V32)
            for (int32_t i = 0; i < spec.scope_count; i++) spec.scope[i].layout = MLAR_LAYOUT_V32;
    step_case *made = case_new(&spec);
    patch(made, from);
    return made;
}

/* ---- what f32 can promise ---- */

typedef struct bound {
    double score; /* of any score, absolute */
    double value; /* the largest magnitude of a value */
    int useful;
} bound;

static bound bound_of(const step_case *made, const reference *expected, int32_t row, int32_t head) {
    const uint16_t *q =
        (const uint16_t *)made->layer.q + row * made->layer.q_row_stride + head * made->layer.q_head_stride;
    double terms = 0, flushed = 0, value = 0, keys = 0;
    for (int32_t d = 0; d < expected->d_qk; d++) flushed += fabs(reference_bf16_value(q[d])) * 0x1p-126;
    for (int32_t s = 0; s < made->layer.scope_count; s++)
        for (int32_t j = 0; j < expected->width[s]; j++) {
            const int64_t at = (int64_t)row * expected->width[s] + j;
            if (!expected->counts[s][at]) continue;
            const uint16_t *k = expected->gathered[s] + at * expected->d_qk;
            double sum = 0;
            for (int32_t d = 0; d < expected->d_qk; d++) {
                double key = reference_bf16_value(k[d]);
                if (isnan(key)) key = 0;
                sum += fabs(reference_bf16_value(q[d]) * key);
                if (d < expected->d_v) value = fmax(value, fabs(key));
            }
            terms = fmax(terms, sum);
            keys++;
        }
    /* A sum of d products: each rounded, then d additions; the product with the scale; a subnormal key as 0.
     */
    const double scale = fabs((double)made->layer.scale);
    bound result = {.score = scale * (terms * (expected->d_qk + 4) * 0x1p-23 + flushed), .value = value};
    if (made->layer.sink) result.score += fabs((double)made->layer.sink[head]) * 0x1p-22;
    result.useful = result.score <= 0.02 && terms < 1e38 && value * (keys + 1) < 1e38;
    return result;
}

static void check_head(const step_case *made, const reference *expected, int32_t row, int32_t head) {
    const int64_t at = (int64_t)row * expected->heads + head;
    const int nan = expected->verdict[at] == REFERENCE_NAN;
    if (expected->verdict[at] == REFERENCE_UNSPECIFIED) return;
    const bound limit = bound_of(made, expected, row, head);
    if (!nan && !limit.useful) return;
    for (int32_t d = 0; d < expected->d_v; d++) {
        const double computed = check_out(made, row, head, d);
        const double wanted = expected->out[at * expected->d_v + d];
        if (nan) {
            REQUIRE(isnan(computed));
            continue;
        }
        /* Every weight is off by at most exp(2 x the score's bound), and by a few roundings. */
        const double weights = limit.value * (4 * limit.score + 2e-5);
        const double rounding = made->layer.out_f32 ? 0 : fabs(wanted) * 0x1p-8;
        REQUIRE(fabs(computed - wanted) <= weights + rounding + 0x1p-126);
    }
    if (made->layer.lse == NULL) return;
    const double computed = check_lse(made, row, head), wanted = expected->lse[at];
    if (nan) {
        REQUIRE(isnan(computed));
        return;
    }
    REQUIRE(computed == wanted || fabs(computed - wanted) <= limit.score + 2e-6 * fmax(1, fabs(wanted)));
}

static void check_outputs(const step_case *made, const reference *expected) {
    for (int32_t row = 0; row < expected->rows; row++)
        for (int32_t head = 0; head < expected->heads; head++) check_head(made, expected, row, head);
    REQUIRE(check_untouched_beyond(made, made->spec.tail_zero ? made->spec.capacity_rows : made->spec.rows));
    REQUIRE(!made->spec.tail_zero || check_tail_is_zero(made));
}

/* ---- one engine ---- */

static mlar_config configure(const step_case *made, const engine_options *options, int32_t strategy,
                             const char *isa) {
    mlar_config config;
    REQUIRE(mlar_config_init(&config) == MLAR_OK);
    config.strategy = strategy;
    config.policy = options->policy;
    config.splits = options->policy ? options->splits : 0;
    config.max_nodes = options->max_nodes;
    config.threads = options->threads;
    config.heads = made->spec.heads;
    config.nope = made->spec.nope;
    config.rope = made->spec.rope;
    config.max_rows = made->spec.capacity_rows;
    config.max_programs = config.max_layers = 1;
    config.selftest = 0;
    config.kind_count = 1;
    config.kinds[0] = case_kind(&made->spec);
    memcpy(config.cpu_isa, isa, strlen(isa) + 1);
    return config;
}

static void *exactly(uint64_t bytes, uint64_t align) {
    void *memory = NULL;
    REQUIRE(posix_memalign(&memory, (size_t)align, (size_t)bytes) == 0);
    memset(memory, 0xff, (size_t)bytes);
    return memory;
}

/* The buffers still hold the step: only if all its rows are one tile. */
static void check_gather_buffers(const step_case *made, const reference *expected, mlar_engine *engine,
                                 const mlar_memory *memory) {
    static const char *const names[MLAR_SCOPES] = {"gather.window", "gather.extra"};
    if (memory->row_tile[0] < made->spec.capacity_rows) return;
    for (int32_t s = 0; s < made->spec.scope_count; s++) {
        void *address = NULL;
        uint64_t bytes = 0;
        REQUIRE(mlar_engine_buffer(engine, 0, names[s], &address, &bytes) == MLAR_OK);
        char message[200] = "";
        const bool exact = bytes == 0 || check_gathered(expected, s, address, -1, message, sizeof message);
        if (!exact) fprintf(stderr, "%s: %s\n", names[s], message);
        REQUIRE(exact);
    }
}

static size_t take_outputs(const step_case *made, uint8_t *copy) {
    size_t at = 0;
    for (int32_t i = 0; i < made->buffer_count; i++) {
        if (!made->buffers[i].is_output) continue;
        if (copy != NULL) memcpy(copy + at, made->buffers[i].memory, made->buffers[i].bytes);
        at += made->buffers[i].bytes;
    }
    return at;
}

static void run(step_case *made, const reference *expected, const mlar_config *given, int32_t budget_share) {
    mlar_config config = *given;
    mlar_memory memory = {.struct_size = sizeof memory};
    mlar_arena arena;
    mlar_engine *engine;
    mlar_program *program;
    REQUIRE(mlar_memory_query(&config, &memory, NULL) == MLAR_OK);
    if (budget_share > 0) { /* 1: the minimum */
        const uint64_t most = memory.device_bytes, least = memory.minimum_budget_bytes;
        config.budget_bytes = least + (most > least ? (most - least) / 3 : 0) * (uint64_t)(budget_share - 1);
        REQUIRE(mlar_memory_query(&config, &memory, NULL) == MLAR_OK);
    }
    void *host = exactly(memory.host_bytes, memory.host_align_bytes);
    void *device = exactly(memory.device_bytes, memory.device_align_bytes);
    REQUIRE(mlar_arena_from_caller(&arena, device, memory.device_bytes, 1, NULL) == MLAR_OK);
    REQUIRE(mlar_engine_init(&config, NULL, &arena, host, memory.host_bytes, &engine, NULL) == MLAR_OK);
    const mlar_bindings b = case_bindings(&made->layer);
    mlar_step step = {.struct_size = sizeof step, .rows = made->spec.rows};
    REQUIRE(mlar_engine_capture(engine, 0, &b, 1, made->spec.capacity_rows, &program, NULL) == MLAR_OK);

    case_poison_outputs(made);
    REQUIRE(mlar_engine_prepare(engine, 0, &b, &step, NULL, NULL) == MLAR_OK);
    REQUIRE(mlar_engine_enqueue(engine, 0, &b, made->spec.capacity_rows, &step, NULL, NULL) == MLAR_OK);
    check_outputs(made, expected);
    mlar_stats stats = {.struct_size = sizeof stats};
    REQUIRE(mlar_engine_stats(engine, NULL, &stats) == MLAR_OK && stats.invalid_indices == expected->invalid);
    if (memory.strategy == MLAR_STRATEGY_GATHER) check_gather_buffers(made, expected, engine, &memory);

    const size_t bytes = take_outputs(made, NULL);
    uint8_t *eager = malloc(bytes + 1), *replayed = malloc(bytes + 1);
    REQUIRE(eager != NULL && replayed != NULL);
    take_outputs(made, eager);
    case_poison_outputs(made);
    REQUIRE(mlar_engine_poison_scratch(engine, (uint32_t)made->spec.seed, NULL) == MLAR_OK);
    REQUIRE(mlar_engine_step(engine, &step, NULL) == MLAR_OK);
    REQUIRE(mlar_engine_prepare(engine, 0, &b, NULL, NULL, NULL) == MLAR_OK);
    REQUIRE(mlar_program_replay(program, NULL) == MLAR_OK);
    take_outputs(made, replayed);
    REQUIRE(memcmp(eager, replayed, bytes) == 0);
    free(replayed);
    free(eager);
    REQUIRE(mlar_engine_deinit(engine) == MLAR_OK && mlar_arena_release(&arena, NULL) == MLAR_OK);
    free(device);
    free(host);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const isas[] = {"scalar", "auto"};
    input from = {data, data + size};
    engine_options options;
    step_case *made = make_step(&from, &options);
    reference *expected = reference_new(&made->layer, &made->shape, made->spec.rows);
    for (int32_t strategy = MLAR_STRATEGY_GATHER; strategy <= MLAR_STRATEGY_DIRECT; strategy++)
        for (int i = 0; i < 2; i++) {
            const mlar_config config = configure(made, &options, strategy, isas[i]);
            run(made, expected, &config, options.budget_share);
        }
    reference_free(expected);
    case_free(made);
    return 0;
}
