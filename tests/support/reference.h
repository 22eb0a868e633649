/* SPDX-License-Identifier: Apache-2.0
 *
 * reference.h: an independent float64 evaluation of SPEC, from the raw inputs of a layer.
 *
 * It shares no arithmetic with the library: its own fp8 tables, its own rounding, its own addresses from
 * layout, block size and stride (it does not look at record_bytes, scale_offset_bytes, block_magic,
 * block_shift or wide, which the library's kernels use). Slow, and meant to be read beside SPEC. */
#ifndef TESTS_SUPPORT_REFERENCE_H
#define TESTS_SUPPORT_REFERENCE_H

#include <stdint.h>

#include "kernels/params.h"

/* What SPEC section 5 says about a head. */
typedef enum reference_verdict {
    REFERENCE_SPECIFIED = 0, /* out is finite; lse is finite, or -inf in a row where nothing counts */
    REFERENCE_NAN = 1,       /* a NaN in q: out and lse must be NaN throughout */
    REFERENCE_UNSPECIFIED = 2
} reference_verdict;

typedef struct reference {
    int32_t rows, heads, d_qk, d_v;
    double *out;                         /* [rows][heads][d_v] */
    double *lse;                         /* [rows][heads] */
    double *products;                    /* [rows][heads]: |scale| * max_j sum_d |q[d] * k_j[d]| */
    uint8_t *verdict;                    /* [rows][heads], reference_verdict */
    int32_t width[MLAR_MAX_SCOPES];      /* 0 where the scope is absent */
    uint16_t *gathered[MLAR_MAX_SCOPES]; /* bf16 [rows][width][d_qk] */
    uint8_t *counts[MLAR_MAX_SCOPES];    /* [rows][width]: 1 where the entry counts */
    uint64_t invalid;                    /* what invalid_indices must have grown by */
} reference;

/* Evaluates `rows` live rows. `layer` holds host pointers; of `shape`, only heads, d_qk, d_v, nope and rope
 * are read. Aborts the test program if memory runs out. */
reference *reference_new(const mlar_layer_params *layer, const mlar_shape *shape, int32_t rows);
void reference_free(reference *result);

/* The pieces that other tests use on their own. */
double reference_fp8_value(uint8_t byte, int32_t fp8);                  /* NaN for the NaN codes */
double reference_e8m0_value(uint8_t byte);                              /* 2^(byte - 127); 255: NaN */
uint16_t reference_bf16_round(double value);                            /* to nearest even, subnormals, inf */
double reference_bf16_value(uint16_t bits);                             /* exact */
uint16_t reference_dequantise(uint8_t byte, int32_t fp8, double scale); /* bf16(f32(fp8) * f32(scale)) */

#endif
