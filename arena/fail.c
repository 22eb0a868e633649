/* SPDX-License-Identifier: Apache-2.0
 *
 * fail.c: fills a mlar_diag. */
#include "arena/fail.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static int can_be_filled(const mlar_diag *diag) {
    return diag != NULL && diag->struct_size >= MLAR_STRUCT_UP_TO(mlar_diag, message) &&
           diag->struct_size <= sizeof *diag + MLAR_STRUCT_GROWTH_MAX;
}

mlar_status mlar_fail(mlar_diag *diag, mlar_status status, const char *field, int64_t given, int64_t needed,
                      const char *format, ...) {
    if (!can_be_filled(diag)) return status;
    mlar_diag own = {.struct_size = diag->struct_size, .status = status, .given = given, .needed = needed};
    snprintf(own.field, sizeof own.field, "%s", field);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(own.message, sizeof own.message, format, arguments);
    va_end(arguments);
    memcpy(diag, &own, own.struct_size < sizeof own ? own.struct_size : sizeof own);
    return status;
}

void mlar_fail_device_error(mlar_diag *diag, int32_t error) {
    if (can_be_filled(diag)) diag->device_error = error;
}

mlar_status mlar_fail_null(mlar_diag *diag, const char *name) {
    return mlar_fail(diag, MLAR_ERROR_ARGUMENT, name, 0, 0, "%s: null", name);
}
