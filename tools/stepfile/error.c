/* SPDX-License-Identifier: Apache-2.0
 *
 * error.c: formats the one line of error.h and makes it safe to print. */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>

bool step_error_set(step_error *error, const char *format, ...) {
    if (!error) return false;
    va_list arguments;
    va_start(arguments, format);
    if (vsnprintf(error->text, sizeof error->text, format, arguments) < 0) error->text[0] = '\0';
    va_end(arguments);

    /* C0 controls and DEL could drive a terminal, and so could the C1 controls, in UTF-8 c2 80 to c2 9f. */
    for (char *place = error->text; *place; place++) {
        unsigned char byte = (unsigned char)place[0], next = (unsigned char)place[1];
        bool c1 = byte == 0xc2 && next >= 0x80 && next < 0xa0;
        if (c1) place[1] = '?';
        if (c1 || byte < 0x20 || byte == 0x7f) place[0] = '?';
    }
    return false;
}
