/* SPDX-License-Identifier: Apache-2.0
 *
 * fail.c: fills a mlar_diag. */
#include "arena/fail.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

mlar_status mlar_fail(mlar_diag *diag, mlar_status status, const char *field, int64_t given, int64_t needed,
                      const char *format, ...) {
    if (diag == NULL) return status;
    uint32_t size = diag->struct_size;
    if (size < sizeof *diag || size > sizeof *diag + MLAR_STRUCT_GROWTH_MAX) return status;
    memset(diag, 0, sizeof *diag);
    diag->struct_size = size;
    diag->status = status;
    diag->given = given;
    diag->needed = needed;
    snprintf(diag->field, sizeof diag->field, "%s", field);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(diag->message, sizeof diag->message, format, arguments);
    va_end(arguments);
    return status;
}

mlar_status mlar_fail_null(mlar_diag *diag, const char *name) {
    return mlar_fail(diag, MLAR_ERROR_ARGUMENT, name, 0, 0, "%s: null", name);
}
