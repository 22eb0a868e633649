/* SPDX-License-Identifier: Apache-2.0
 *
 * host.c: the smallest host of libmlarena: plan, init, capture once, then decode steps, on the CPU.
 *
 * It knows the installed package and nothing else of this tree; CI builds it with find_package and with
 * pkg-config. The step is one that can be checked by hand: with q = 0 every key scores 0, so a row's output
 * is the mean of the tokens it selects and its lse the logarithm of their number. */
#include <mlarena/mlarena.h>

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { HEADS = 8, NOPE = 448, ROPE = 64, D = NOPE + ROPE, WINDOW = 128, BLOCK = 64, TOKENS = 4, ROWS = 2 };

static mlar_diag diag = {.struct_size = sizeof diag};

/* Every call of the library returns a status; the diagnostic says which field, what was given, what is
 * needed. */
static void must(mlar_status status, const char *call) {
    if (status == MLAR_OK) return;
    fprintf(stderr, "%s: %s: %s (%s)\n", call, mlar_status_name(status), diag.message, diag.field);
    exit(1);
}

/* The host's memory, at set-up only; the library itself never allocates. */
static void *take(uint64_t align, uint64_t bytes) {
    void *memory = aligned_alloc((size_t)align, (size_t)((bytes + align - 1) / align * align));
    if (memory == NULL) exit(1);
    return memory;
}

/* Token t of the paged cache holds the value t + 1 in every element. */
static void write_cache(uint8_t *block) {
    for (int32_t t = 0; t < TOKENS; t++) {
        float values[D];
        for (int d = 0; d < D; d++) values[d] = (float)(t + 1);
        uint64_t record, scales;
        must(mlar_kv_token_offsets(MLAR_LAYOUT_DSV4, NOPE, ROPE, BLOCK, t, &record, &scales),
             "token_offsets");
        must(mlar_kv_encode_f32(MLAR_LAYOUT_DSV4, MLAR_FP8_E4M3FN, NOPE, ROPE, values, block + record,
                                block + scales),
             "encode");
    }
}

static float bf16(uint16_t bits) {
    union {
        uint32_t bits;
        float value;
    } wide = {.bits = (uint32_t)bits << 16};
    return wide.value;
}

/* Row `row` must hold `mean` and log(count) in every head. A NaN fails the comparisons. */
static void expect(const uint16_t *out, const float *lse, int row, float mean, int count) {
    float logarithm = count > 0 ? logf((float)count) : -INFINITY;
    for (int h = 0; h < HEADS; h++) {
        int ok =
            count > 0 ? fabsf(lse[row * HEADS + h] - logarithm) <= 1e-6f : lse[row * HEADS + h] == logarithm;
        for (int d = 0; d < D; d++) ok &= bf16(out[(row * HEADS + h) * D + d]) == mean;
        if (!ok) {
            fprintf(stderr, "row %d, head %d: not the mean %g of %d tokens\n", row, h, (double)mean, count);
            exit(1);
        }
    }
    printf("row %d: mean %g, lse %g\n", row, (double)mean, (double)lse[row * HEADS]);
}

int main(void) {
    /* What will run: DeepSeek-V4-Flash on one rank of 8 (8 heads). Kind 0 is its window-only layer. */
    mlar_config config;
    must(mlar_config_preset(&config, "dsv4-flash", 8, &diag), "config_preset");
    config.max_rows = ROWS;
    config.max_programs = 1;
    config.max_layers = 1;

    /* Exactly how many bytes that takes, before anything exists. */
    mlar_memory memory = {.struct_size = sizeof memory};
    must(mlar_memory_query(&config, &memory, &diag), "memory_query");
    printf("mlarena %d: host %llu bytes, arena %llu bytes\n", (int)mlar_version(),
           (unsigned long long)memory.host_bytes, (unsigned long long)memory.device_bytes);

    /* The host provides both blocks; init fails if either is a byte short. */
    void *host_block = take(memory.host_align_bytes, memory.host_bytes);
    void *device_block = take(memory.device_align_bytes, memory.device_bytes);
    mlar_arena arena;
    must(mlar_arena_from_caller(&arena, device_block, memory.device_bytes, 1, &diag), "arena_from_caller");
    mlar_engine *engine;
    must(mlar_engine_init(&config, NULL, &arena, host_block, memory.host_bytes, &engine, &diag),
         "engine_init");

    /* The host's tensors. */
    uint64_t stride;
    must(mlar_kv_block_stride_padded(MLAR_LAYOUT_DSV4, NOPE, ROPE, BLOCK, &stride), "block_stride");
    uint8_t *cache = take(64, stride);
    uint16_t *q = take(64, ROWS * HEADS * D * sizeof *q);
    uint16_t *out = take(64, ROWS * HEADS * D * sizeof *out);
    float *lse = take(64, ROWS * HEADS * sizeof *lse);
    int32_t indices[ROWS * WINDOW] = {0}, lens[ROWS] = {0};
    for (int i = 0; i < ROWS * HEADS * D; i++) q[i] = 0;
    write_cache(cache);

    /* Their addresses and strides, captured once. */
    mlar_bindings bindings;
    must(mlar_bindings_init(&bindings, &config, 0), "bindings_init");
    bindings.q = q;
    bindings.out = out;
    bindings.lse = lse;
    bindings.cache[MLAR_SCOPE_WINDOW] =
        (mlar_cache){.base = cache, .block_stride_bytes = stride, .num_blocks = 1, .block_size = BLOCK};
    bindings.list[MLAR_SCOPE_WINDOW].indices = indices;
    bindings.list[MLAR_SCOPE_WINDOW].lens = lens;
    mlar_program *program;
    must(mlar_engine_capture(engine, 0, &bindings, 1, ROWS, &program, &diag), "engine_capture");

    /* Decode steps: contents and lengths change, addresses do not. Row 0 reads tokens 0 .. n - 1, whose mean
     * is (n + 1) / 2; row 1 reads nothing, then token 3 alone. */
    mlar_step step = {.struct_size = sizeof step, .rows = ROWS};
    for (int n = 1; n <= TOKENS; n++) {
        for (int j = 0; j < n; j++) indices[j] = j;
        indices[WINDOW] = 3;
        lens[0] = n;
        lens[1] = n > 1;
        must(mlar_engine_step(engine, &step, NULL), "engine_step");
        must(mlar_engine_prepare(engine, 0, &bindings, NULL, NULL, &diag), "engine_prepare");
        must(mlar_program_replay(program, NULL), "program_replay");
        expect(out, lse, 0, (float)(n + 1) / 2, n);
        expect(out, lse, 1, n > 1 ? 4 : 0, n > 1);
    }

    must(mlar_program_destroy(program), "program_destroy");
    must(mlar_engine_deinit(engine), "engine_deinit");
    must(mlar_arena_release(&arena, &diag), "arena_release");
    free(lse);
    free(out);
    free(q);
    free(cache);
    free(device_block);
    free(host_block);
    return 0;
}
