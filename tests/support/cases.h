/* SPDX-License-Identifier: Apache-2.0
 *
 * cases.h: decode steps for tests, made from a seed. Three steps, each usable alone:
 *
 *     case_spec spec = case_draw(seed, CASE_ALL, &bounds);   a few numbers; change any of them
 *     step_case *made = case_new(&spec);                     the memory behind them, filled
 *     ... made->layer, made->shape ...                       bind it, run it
 *     case_free(made);
 *
 * The same spec gives the same bytes on every machine. Inputs are allocated to the byte, so that a sanitizer
 * sees a read beyond them. Whatever must not be read or used is poison: index lists past a row's length and
 * past the live rows hold wild numbers, cache tokens that no counting entry selects hold NaN bytes, outputs
 * hold a pattern. The file knows the layouts of SPEC section 2 by itself and uses nothing of the library but
 * the parameter structs. */
#ifndef TESTS_SUPPORT_CASES_H
#define TESTS_SUPPORT_CASES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/params.h"

/* What may appear in a case: in its shape ... */
enum {
    CASE_LAYOUTS = 1 << 0,   /* v32 and bf16 beside dsv4, FNUZ beside OCP; each scope its own */
    CASE_RAGGED = 1 << 1,    /* ragged lists */
    CASE_STRIDES = 1 << 2,   /* q, out, lse as slices of larger tensors, lse transposed, padded index rows */
    CASE_UNALIGNED = 1 << 3, /* cache bases that are a multiple of 2 only, odd block sizes, tight strides */
    CASE_FORMS = 1 << 4,     /* f32 out, no lse, tail untouched, no sink, capacity above the rows */
    /* ... and in its contents. */
    CASE_WILD = 1 << 5,      /* -1, other negative and too large indices, lengths outside 0 .. width */
    CASE_SPECIALS = 1 << 6,  /* NaN bytes, scales 0 and 255 (f32: 0, NaN, subnormal), NaN in rope */
    CASE_OVERFLOWS = 1 << 7, /* keys that overflow to inf: most of such a row is unspecified */
    CASE_QUERIES = 1 << 8,   /* heads of q with a NaN, with huge scores, with scores beyond 2^126 */
    CASE_SINKS = 1 << 9,     /* sinks of +inf, -inf and large values */
    CASE_ALL = (1 << 10) - 1
};

/* Upper bounds of what case_draw draws; 0 stands for the default in brackets. */
typedef struct case_bounds {
    int32_t rows;  /* [5]; 0 rows are drawn now and then */
    int32_t heads; /* [16] */
    int32_t width; /* [300], per scope */
    int32_t dims;  /* 0: the small shapes and the true ones mixed; 1: 64 + 8 and other small ones only */
} case_bounds;

typedef enum case_sink { CASE_SINK_NONE, CASE_SINK_ORDINARY, CASE_SINK_SPECIAL } case_sink;

typedef struct case_scope_spec {
    int32_t layout, fp8, list_form; /* MLAR_LAYOUT_*, MLAR_FP8_*, MLAR_LIST_* */
    int32_t block_size, num_blocks;
    int32_t width;
    int32_t rows_per_len;
    bool has_lens;              /* dense: false = every row has `width` entries */
    int32_t index_row_extra;    /* dense: row stride - width */
    int32_t stride_extra_bytes; /* block stride - the least, even */
    int32_t base_offset_bytes;  /* cache base modulo 16, even */
} case_scope_spec;

typedef struct case_spec {
    uint64_t seed;
    uint32_t features; /* CASE_* of the contents */
    int32_t rows, capacity_rows;
    int32_t heads, nope, rope;
    int32_t scope_count;
    case_scope_spec scope[MLAR_MAX_SCOPES];
    int32_t q_head_extra, q_row_extra;     /* elements beyond the contiguous strides; q: multiples of 8 */
    int32_t out_head_extra, out_row_extra; /* the same */
    bool has_lse, lse_transposed;
    case_sink sink;
    bool out_f32, tail_zero;
    float scale; /* 0: d_qk^-0.5 */
} case_spec;

/* One allocation of a case, so that a test can copy it elsewhere and point the layer at the copy. */
typedef struct case_buffer {
    const char *name;
    uint8_t *memory;    /* 64-byte aligned */
    size_t bytes;       /* of memory, from its begin */
    size_t begin_bytes; /* the layer's pointer is memory + begin_bytes */
    size_t pointer_at;  /* offset of that pointer inside mlar_layer_params: case_point() */
    bool is_output;
} case_buffer;

enum { CASE_MAX_BUFFERS = 10 };

typedef struct step_case {
    case_spec spec;
    mlar_layer_params layer; /* complete, host pointers */
    mlar_shape shape;        /* heads, d_qk, d_v, nope, rope, max_rows; the rest 0 */
    case_buffer buffers[CASE_MAX_BUFFERS];
    int32_t buffer_count;
} step_case;

/* NULL bounds: the defaults. */
case_spec case_draw(uint64_t seed, uint32_t features, const case_bounds *bounds);

/* Aborts the test program if memory runs out. */
step_case *case_new(const case_spec *spec);
void case_free(step_case *made);

/* Makes `layer`, a case's own or a copy of it, point to where `memory` now holds the buffer's bytes. */
void case_point(mlar_layer_params *layer, const case_buffer *buffer, void *memory);

/* Every byte of out and lse before a step. */
enum { CASE_PATTERN = 0xa5 };

/* Fills out and lse with it again. */
void case_poison_outputs(step_case *made);

/* "seed 7: 3 of 4 rows, 8 heads, 448+64, sink 1; dsv4/fnuz block 53 x 4 ..." into `line`; returns it. */
const char *case_describe(const case_spec *spec, char *line, size_t line_bytes);

/* The generator's random numbers, for tests that want more of them (splitmix64). */
uint64_t case_random(uint64_t *state);
int32_t case_random_below(uint64_t *state, int32_t bound); /* 0 .. bound - 1 */

#endif
