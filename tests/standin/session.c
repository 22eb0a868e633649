/* SPDX-License-Identifier: Apache-2.0
 *
 * session.c: see session.h. */
#include "tests/standin/session.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

standin_settings session_settings(void) {
    return (standin_settings){.arch = "gfx942:sramecc+:xnack-",
                              .version = 60342131,
                              .devices = 2,
                              .units = 6,
                              .wave = 64,
                              .pools = 1,
                              .pool_limit = 1,
                              .memory_bytes = (uint64_t)1 << 30};
}

session session_begin(const char *library, const standin_settings *settings) {
    session s = {.library = dlopen(library, RTLD_NOW | RTLD_LOCAL)};
    if (s.library == NULL) fail_msg("%s", dlerror());
    const standin_control *(*control)(void) = NULL;
    void *symbol = dlsym(s.library, "standin");
    memcpy(&control, &symbol, sizeof control);
    assert_non_null(symbol);
    s.control = control();
    s.control->reset(settings);
    s.memory = calloc(1, mlar_device_bytes());
    assert_non_null(s.memory);
    return s;
}

mlar_status session_open(session *s, int32_t ordinal, int32_t check, mlar_diag *diag) {
    mlar_device_options options = {.struct_size = sizeof options,
                                   .device = MLAR_DEVICE_HIP,
                                   .ordinal = ordinal,
                                   .runtime_check = check,
                                   .library = s->library};
    return mlar_device_open(s->memory, mlar_device_bytes(), &options, &s->device, diag);
}

session session_new(void) {
    standin_settings settings = session_settings();
    session s = session_begin(MLAR_TEST_STANDIN, &settings);
    mlar_diag diag = DIAG_INIT;
    if (session_open(&s, 0, MLAR_RUNTIME_WARN, &diag) != MLAR_OK) fail_msg("open: %s", diag.message);
    return s;
}

void session_end(session *s) {
    char text[160];
    if (s->device != NULL) MUST(mlar_device_close(s->device));
    if (s->control->alive(text, sizeof text) != 0) fail_msg("still alive: %s", text);
    assert_int_equal(s->control->queued(), 0);
    if (s->control->violation() != NULL) fail_msg("violation: %s", s->control->violation());
    free(s->memory);
    dlclose(s->library);
    memset(s, 0, sizeof *s);
}

void *session_stream(session *s, int non_blocking) {
    void *stream = NULL;
    assert_int_equal(
        s->device->runtime.stream_create(&stream, non_blocking ? MLAR_GPU_STREAM_NON_BLOCKING : 0), 0);
    return stream;
}

void session_stream_free(session *s, void *stream) {
    assert_int_equal(s->device->runtime.stream_destroy(stream), 0);
}
