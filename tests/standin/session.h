/* SPDX-License-Identifier: Apache-2.0
 *
 * session.h: opens the library's device on the stand-in, for test programs. What passes here proves the host code,
 * never the kernels. */
#ifndef TESTS_STANDIN_SESSION_H
#define TESTS_STANDIN_SESSION_H

#include "engine/gpu/device.h"
#include "tests/standin/standin.h"
#include "tests/support/device_case.h"

/* gfx942, HIP 6.3, two devices, pools with a limit. */
standin_settings session_settings(void);

typedef struct session {
    void *library;
    const standin_control *control;
    void *memory; /* of the device */
    mlar_device *device;
} session;

/* Resets the stand-in; `library` is dlopen'ed by its path. */
session session_begin(const char *library, const standin_settings *settings);
/* Opens a device; options.library is the stand-in. */
mlar_status session_open(session *s, int32_t ordinal, int32_t check, mlar_diag *diag);
/* session_begin, with the defaults, and session_open, which must succeed. */
session session_new(void);
/* Closes the device; nothing may be alive or waiting, and nothing may have been violated. */
void session_end(session *s);

/* Streams of the host's, made through the opened device's own table. */
void *session_stream(session *s, int non_blocking);
void session_stream_free(session *s, void *stream);

#endif
