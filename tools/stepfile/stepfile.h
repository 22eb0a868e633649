/* SPDX-License-Identifier: Apache-2.0
 *
 * stepfile.h: one decode step out of a safetensors file, as typed, validated, aligned arrays.
 *
 *     stepfile step;
 *     step_error error;
 *     if (!stepfile_read("step.safetensors", &step, &error)) return complain(error.text);
 *     ... step.q, step.window.cache, step.extra.indices, step.expected.out_f64 ...
 *     stepfile_free(&step);
 *
 * After a successful read every array has exactly the shape written beside it, every dimension is within the
 * limits that the engine states, and every pointer is 64-byte aligned whatever the tensor's place in the
 * file. Values (indices, lengths, bytes of a cache) are data: whatever they are, they are kept.
 *
 * It knows the file's vocabulary, not the engine: it includes nothing of the library and computes nothing. */
#ifndef STEPFILE_STEPFILE_H
#define STEPFILE_STEPFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

typedef enum stepfile_layout { STEPFILE_DSV4, STEPFILE_V32, STEPFILE_BF16 } stepfile_layout;
typedef enum stepfile_fp8 { STEPFILE_E4M3FN, STEPFILE_E4M3FNUZ } stepfile_fp8;

/* An index that does not fit int32 becomes this: below -1, so it counts as invalid, as the value itself would
 * (a cache has fewer than 2^31 slots). */
#define STEPFILE_WILD_INDEX      INT32_MIN
#define STEPFILE_ALIGNMENT_BYTES 64

typedef struct stepfile_scope {
    bool present; /* always for the window; false for an absent extra scope, and then all else is 0 */
    stepfile_fp8 fp8;
    uint32_t block_size_tokens;
    uint64_t num_blocks;
    uint64_t block_stride_bytes;
    uint8_t *cache; /* [num_blocks][block_stride_bytes] */
    uint32_t width;
    uint32_t rows_per_len; /* the file's queries_per_request, 1 by default */
    int32_t *indices;      /* [rows][width] */
    int32_t *lens;         /* [ceil(rows / rows_per_len)] unclamped, or NULL: all `width` entries */
} stepfile_scope;

/* Results: expected ones in a file, or computed ones to be written. Each may be NULL. */
typedef struct stepfile_results {
    uint16_t *out;             /* bf16 [rows][heads][d_v] */
    double *out_f64;           /* [rows][heads][d_v] */
    float *lse;                /* [rows][heads] */
    uint16_t *gathered_window; /* bf16 [rows][window.width][d_qk], `gathered_swa` in the file */
    uint16_t *gathered_extra;  /* bf16 [rows][extra.width][d_qk] */
} stepfile_results;

typedef struct stepfile {
    stepfile_layout layout;
    uint32_t rows, heads;
    uint32_t nope, rope; /* elements */
    uint32_t d_qk, d_v;  /* elements; they differ in STEPFILE_V32 only */
    double scale;        /* as precise as the file; finite also as f32 */
    uint16_t *q;         /* bf16 [rows][heads][d_qk] */
    float *attn_sink;    /* [heads] or NULL */
    stepfile_scope window, extra;
    stepfile_results expected;
} stepfile;

/* On failure `step` is zeroed and owns nothing. */
bool stepfile_read(const char *path, stepfile *step, step_error *error);
bool stepfile_read_memory(const void *data, size_t data_bytes, const char *name, stepfile *step,
                          step_error *error);
void stepfile_free(stepfile *step); /* a zeroed one is fine, twice too */

/* Writes the inputs and whatever step->expected holds. */
bool stepfile_write(const char *path, const stepfile *step, step_error *error);
/* Whether results of the step file `from` can be written to `path`: not over that file itself, under any name. */
bool stepfile_can_write_results(const char *path, const char *from, step_error *error);
/* Writes only `results` (shaped by `step`), with the step's metadata. */
bool stepfile_write_results(const char *path, const stepfile *step, const stepfile_results *results,
                            step_error *error);

/* 64-byte aligned, zeroed; NULL if there is no memory; free() releases it. Size 0 gives a valid pointer. What
 * a caller puts into a stepfile that stepfile_free() will release comes from here. */
void *stepfile_allocate(uint64_t size_bytes);

/* Bytes that `block_size_tokens` tokens need in a block, the least block stride. */
uint64_t stepfile_block_bytes(const stepfile *step, uint32_t block_size_tokens);
/* How many leading entries of a row may count: its length clamped to [0, width]. */
uint32_t stepfile_row_len(const stepfile_scope *scope, uint32_t row);
/* Whether entry j of a row takes part: j below the row's length and its index inside the cache. */
bool stepfile_entry_counts(const stepfile_scope *scope, uint32_t row, uint32_t j);

#endif
