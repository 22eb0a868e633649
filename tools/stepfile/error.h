/* SPDX-License-Identifier: Apache-2.0
 *
 * error.h: the one line with which the step-file tools explain a failure.
 *
 * The text may quote names that come out of an untrusted file, so control characters never reach it: it is
 * always one line and safe to print on a terminal. */
#ifndef STEPFILE_ERROR_H
#define STEPFILE_ERROR_H

#include <stdbool.h>

typedef struct step_error {
    char text[512]; /* "FILE: tensor 'q': dtype F16, expected BF16"; "" after a success */
} step_error;

/* Fills `error` (which may be NULL) and returns false, so that a failing function ends with
 * `return step_error_set(error, ...)`. */
__attribute__((format(printf, 2, 3))) bool step_error_set(step_error *error, const char *format, ...);

#endif
