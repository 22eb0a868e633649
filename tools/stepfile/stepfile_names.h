/* SPDX-License-Identifier: Apache-2.0
 *
 * stepfile_names.h: the words of a step file, which its reader and its writer share. Private to the two. */
#ifndef STEPFILE_STEPFILE_NAMES_H
#define STEPFILE_STEPFILE_NAMES_H

#define STEPFILE_LAYOUT_COUNT 3
#define STEPFILE_FP8_COUNT    2

typedef struct stepfile_scope_names {
    const char *cache, *indices, *lens, *gathered; /* tensors */
    const char *block_size, *fp8;                  /* metadata */
} stepfile_scope_names;

extern const stepfile_scope_names stepfile_window_names, stepfile_extra_names;
extern const char *const stepfile_layout_names[STEPFILE_LAYOUT_COUNT]; /* by stepfile_layout */
extern const char *const stepfile_fp8_names[STEPFILE_FP8_COUNT];       /* by stepfile_fp8 */

#endif
