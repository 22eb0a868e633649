/* SPDX-License-Identifier: Apache-2.0
 *
 * compare.h: is a computed result within the accuracy that SPEC promises? One comparer for the command line,
 * the tests and the benchmark, so that "correct" means one thing.
 *
 * out: relative L2 of the whole tensor <= 2.6e-3 (3.0e-3 against an expected tensor that is itself bf16);
 *     each element within max(1e-3, 6e-3 x the largest magnitude of its row and head) absolute, or 2.01/128
 *     relative; cosine difference <= 5e-6, taken as |x - y|^2 / (|x|^2 + |y|^2), which bounds 1 - cos(x, y)
 *     from above and suffers no cancellation. (It is about half the square of the relative L2, whose bound
 *     is therefore met first.) Where rounding the expected values to out's type alone costs nearly as much or
 *     more (all between two bf16, or too small for one), the two bounds are 1.1 and 1.21 times that.
 * lse: each within 1e-6 absolute or 8.01/65536 relative; infinities must be equal.
 * gathered: bit for bit in the entries that count, any NaN equal to any NaN; other entries are not read.
 *
 * NaN: every test is written so that a NaN fails it. Where the expected values of a head are not all finite
 * the head is unspecified and left out, except that a NaN in its `q` must give NaN throughout. An author of
 * a file marks a head as unspecified (a score of 2^126 or more, say) with NaN in its expected out and lse.
 *
 * It must not know who computed the result. */
#ifndef STEPFILE_COMPARE_H
#define STEPFILE_COMPARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "stepfile.h"

#define COMPARE_OUT_RELATIVE_L2      2.6e-3
#define COMPARE_OUT_RELATIVE_L2_BF16 3.0e-3 /* against another bf16 result */
#define COMPARE_OUT_ABSOLUTE         1e-3
#define COMPARE_OUT_OF_LARGEST       6e-3
#define COMPARE_OUT_RELATIVE         (2.01 / 128)
#define COMPARE_OUT_COSINE           5e-6
#define COMPARE_OUT_ROUNDING         1.1 /* of what rounding alone costs; squared for the cosine */
#define COMPARE_LSE_ABSOLUTE         1e-6
#define COMPARE_LSE_RELATIVE         (8.01 / 65536)

typedef enum compare_type { COMPARE_BF16, COMPARE_F32, COMPARE_F64 } compare_type;

/* A contiguous array of one of the three types. */
typedef struct compare_array {
    const void *data;
    compare_type type;
} compare_array;

/* `q` tells a head that must be NaN from one that is unspecified; NULL if the caller has none. */
typedef struct compare_shape {
    uint32_t rows, heads, d_v, d_qk;
    const uint16_t *q; /* bf16 [rows][heads][d_qk] or NULL */
} compare_shape;

typedef struct compare_result {
    bool checked; /* false: there was nothing to compare with, and all else is 0 */
    bool pass;
    const char
        *rule; /* the first rule that failed: "element", "relative L2", "cosine difference", "NaN", "bits" */
    uint64_t compared;    /* elements looked at */
    uint64_t mismatches;  /* elements outside their own tolerance */
    uint64_t unspecified; /* heads (out, lse) or entries (gathered) left out */
    bool has_figures;     /* out only: the next three were worked out over the whole tensor */
    double relative_l2, max_abs, cosine_difference;
    /* The first element outside its tolerance; where only a whole-tensor rule failed, the element with the
     * largest difference. Valid unless `pass`. */
    uint32_t row;
    int64_t head;    /* -1 for gathered tensors */
    int64_t entry;   /* place in the index list for gathered tensors, else -1 */
    int64_t element; /* -1 for lse */
    double computed, expected;
} compare_result;

/* Arrays are [rows][heads][d_v]. Returns result->pass. */
bool compare_out(const compare_shape *shape, compare_array computed, compare_array expected,
                 compare_result *result);
/* Arrays are [rows][heads]. */
bool compare_lse(const compare_shape *shape, compare_array computed, compare_array expected,
                 compare_result *result);
/* Arrays are bf16 [rows][scope->width][head_dim]; scope gives which entries count. */
bool compare_gathered(const stepfile_scope *scope, uint32_t rows, uint32_t head_dim, const uint16_t *computed,
                      const uint16_t *expected, compare_result *result);

typedef struct compare_report {
    bool pass; /* every comparison that was made passed */
    compare_result out, out_bf16, lse, gathered_window, gathered_extra;
} compare_report;

/* Compares every non-NULL member of `computed` (out, lse, gathered_*) with what `step` expects. `out` is
 * compared with out_f64 where the file has it, else with its bf16 out; where it has both, `out_bf16` is the
 * comparison with the latter, in the heads that out_f64 specifies. */
bool compare_step(const stepfile *step, const stepfile_results *computed, compare_report *report);

/* "out: ok, relative L2 1.66e-03, max abs 3.9e-03, cosine difference 1.4e-06" or
 * "out: MISMATCH (element) at row 1, head 3, element 17: computed 0.5, expected 0.25; ...". One line, never
 * longer than the buffer; returns `line`. */
const char *compare_describe(const char *name, const compare_result *result, char *line, size_t line_bytes);

#endif
