/* SPDX-License-Identifier: Apache-2.0
 *
 * stepfile_write.c: the writer, and the small functions over a step that reader, writer and callers share. */
#include "stepfile.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "safetensors.h"
#include "stepfile_names.h"

#define MAX_ENTRIES 13 /* every tensor that a step file can hold */
#define MAX_PAIRS   16
#define VALUE_BYTES 40

const stepfile_scope_names stepfile_window_names = {
    .cache = "swa_k_cache",
    .indices = "swa_indices",
    .lens = "swa_lens",
    .gathered = "gathered_swa",
    .block_size = "swa_block_size",
    .fp8 = "swa_fp8",
};
const stepfile_scope_names stepfile_extra_names = {
    .cache = "kv_cache",
    .indices = "topk_indices",
    .lens = "topk_lens",
    .gathered = "gathered_extra",
    .block_size = "extra_block_size",
    .fp8 = "extra_fp8",
};
const char *const stepfile_layout_names[STEPFILE_LAYOUT_COUNT] = {
    [STEPFILE_DSV4] = "dsv4", [STEPFILE_V32] = "v32", [STEPFILE_BF16] = "bf16"};
const char *const stepfile_fp8_names[STEPFILE_FP8_COUNT] = {
    [STEPFILE_E4M3FN] = "e4m3fn", [STEPFILE_E4M3FNUZ] = "e4m3fnuz"};

/* -- Small functions. ----------------------------------------------------------------------------------- */

void *stepfile_allocate(uint64_t size_bytes) {
    if (size_bytes > PTRDIFF_MAX - STEPFILE_ALIGNMENT_BYTES) return NULL;
    size_t rounded = ((size_t)size_bytes / STEPFILE_ALIGNMENT_BYTES + 1) * STEPFILE_ALIGNMENT_BYTES;
    void *memory = aligned_alloc(STEPFILE_ALIGNMENT_BYTES, rounded);
    if (memory) memset(memory, 0, rounded);
    return memory;
}

static void free_scope(stepfile_scope *scope) {
    free(scope->cache);
    free(scope->indices);
    free(scope->lens);
}

void stepfile_free(stepfile *step) {
    free(step->q);
    free(step->attn_sink);
    free_scope(&step->window);
    free_scope(&step->extra);
    free(step->expected.out);
    free(step->expected.out_f64);
    free(step->expected.lse);
    free(step->expected.gathered_window);
    free(step->expected.gathered_extra);
    *step = (stepfile){0};
}

uint64_t stepfile_block_bytes(const stepfile *step, uint32_t block_size_tokens) {
    uint64_t token_bytes = 0;
    switch (step->layout) {
    case STEPFILE_DSV4:
        token_bytes = (uint64_t)step->nope + 2 * step->rope + 8;
        break; /* + scale record */
    case STEPFILE_V32:
        token_bytes = 512 + 4 * sizeof(float) + 2 * 64;
        break;
    case STEPFILE_BF16:
        token_bytes = 2 * (uint64_t)step->d_qk;
        break;
    }
    return token_bytes * block_size_tokens;
}

uint32_t stepfile_row_len(const stepfile_scope *scope, uint32_t row) {
    if (!scope->lens) return scope->width;
    int32_t len = scope->lens[row / scope->rows_per_len];
    if (len <= 0) return 0;
    return (uint32_t)len < scope->width ? (uint32_t)len : scope->width;
}

bool stepfile_entry_counts(const stepfile_scope *scope, uint32_t row, uint32_t j) {
    if (j >= stepfile_row_len(scope, row)) return false;
    int32_t index = scope->indices[(uint64_t)row * scope->width + j];
    return index >= 0 && (uint64_t)index < scope->num_blocks * scope->block_size_tokens;
}

/* -- Writing. ------------------------------------------------------------------------------------------- */

typedef struct writer {
    safetensors_entry entries[MAX_ENTRIES];
    size_t entry_count;
    safetensors_pair pairs[MAX_PAIRS];
    char values[MAX_PAIRS][VALUE_BYTES];
    size_t pair_count;
} writer;

/* Adds a tensor unless there is none; a trailing dimension of a lower rank is ignored. */
static void add(writer *out, const char *name, safetensors_dtype dtype, uint32_t rank, uint64_t a, uint64_t b,
                uint64_t c, const void *data) {
    if (!data) return;
    out->entries[out->entry_count++] =
        (safetensors_entry){.name = name, .dtype = dtype, .rank = rank, .shape = {a, b, c}, .data = data};
}

__attribute__((format(printf, 3, 4))) static void describe(writer *out, const char *key, const char *format,
                                                           ...);

static void describe(writer *out, const char *key, const char *format, ...) {
    char *value = out->values[out->pair_count];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(value, VALUE_BYTES, format, arguments);
    va_end(arguments);
    out->pairs[out->pair_count++] = (safetensors_pair){key, value};
}

static void describe_step(writer *out, const stepfile *step) {
    describe(out, "scale", "%.17g", step->scale);
    describe(out, "scale_hex", "%a", step->scale);
    describe(out, "kv_layout", "%s", stepfile_layout_names[step->layout]);
    describe(out, "nope_head_dim", "%u", step->nope);
    describe(out, "rope_head_dim", "%u", step->rope);
    describe(out, "queries_per_request", "%u", step->window.rows_per_len);
}

static void add_scope(writer *out, const stepfile_scope_names *names, const stepfile *step,
                      const stepfile_scope *scope) {
    if (!scope->present) return;
    uint64_t lens = ((uint64_t)step->rows + scope->rows_per_len - 1) / scope->rows_per_len;
    describe(out, names->block_size, "%u", scope->block_size_tokens);
    describe(out, names->fp8, "%s", stepfile_fp8_names[scope->fp8]);
    add(out, names->cache, SAFETENSORS_U8, 2, scope->num_blocks, scope->block_stride_bytes, 0, scope->cache);
    add(out, names->indices, SAFETENSORS_I32, 2, step->rows, scope->width, 0, scope->indices);
    add(out, names->lens, SAFETENSORS_I32, 1, lens, 0, 0, scope->lens);
}

static void add_results(writer *out, const stepfile *step, const stepfile_results *results) {
    uint64_t rows = step->rows;
    add(out, "out", SAFETENSORS_BF16, 3, rows, step->heads, step->d_v, results->out);
    add(out, "out_f64", SAFETENSORS_F64, 3, rows, step->heads, step->d_v, results->out_f64);
    add(out, "lse", SAFETENSORS_F32, 2, rows, step->heads, 0, results->lse);
    add(out, stepfile_window_names.gathered, SAFETENSORS_BF16, 2, rows * step->window.width, step->d_qk, 0,
        results->gathered_window);
    add(out, stepfile_extra_names.gathered, SAFETENSORS_BF16, 2, rows * step->extra.width, step->d_qk, 0,
        results->gathered_extra);
}

static bool finish(writer *out, const char *path, step_error *error) {
    return safetensors_write(path, out->entries, out->entry_count, out->pairs, out->pair_count, error);
}

bool stepfile_write(const char *path, const stepfile *step, step_error *error) {
    writer out = {0};
    describe_step(&out, step);
    add(&out, "q", SAFETENSORS_BF16, 3, step->rows, step->heads, step->d_qk, step->q);
    add(&out, "attn_sink", SAFETENSORS_F32, 1, step->heads, 0, 0, step->attn_sink);
    add_scope(&out, &stepfile_window_names, step, &step->window);
    add_scope(&out, &stepfile_extra_names, step, &step->extra);
    add_results(&out, step, &step->expected);
    return finish(&out, path, error);
}

bool stepfile_can_write_results(const char *path, const char *from, step_error *error) {
    struct stat there, here;
    if (stat(path, &there) == 0 && stat(from, &here) == 0 && there.st_dev == here.st_dev &&
        there.st_ino == here.st_ino)
        return step_error_set(error, "%s: is the step file itself; the results would replace it", path);
    return safetensors_can_write(path, error);
}

bool stepfile_write_results(const char *path, const stepfile *step, const stepfile_results *results,
                            step_error *error) {
    writer out = {0};
    describe_step(&out, step);
    add_results(&out, step, results);
    return finish(&out, path, error);
}
