/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gpu_host.c: opening a GPU, what it says of itself, pools, plain device memory and caller's memory, on the
 * stand-in (tests/standin): the host code is proved here, the kernels are not. */
#define _GNU_SOURCE /* setenv, dlopen's names */
#include "engine/arena_api.h"
#include "tests/standin/session.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define GRANULE ((uint64_t)2 << 20)

/* ---- finding the runtime: in this order, for nothing is ever unloaded ---- */

static mlar_device_info info_of(const mlar_device *device) {
    mlar_device_info info = {.struct_size = sizeof info};
    MUST(mlar_device_info_of(device, &info));
    return info;
}

static void open_by_search(session *s, const char *wanted) {
    mlar_diag diag = DIAG_INIT;
    mlar_device_options options = {.struct_size = sizeof options, .device = MLAR_DEVICE_HIP};
    if (mlar_device_open(s->memory, mlar_device_bytes(), &options, &s->device, &diag) != MLAR_OK)
        fail_msg("%s", diag.message);
    assert_string_equal(info_of(s->device).runtime, wanted);
}

/* main() has put the stand-in's folder on the search path. Without settings it has no device. */
static void test_found_on_the_search_path(void **state) {
    (void)state;
    assert_null(dlopen("libamdhip64.so.6", RTLD_NOW | RTLD_NOLOAD));
    void *memory = calloc(1, mlar_device_bytes());
    mlar_device *device = NULL;
    mlar_device_options options = {.struct_size = sizeof options, .device = MLAR_DEVICE_HIP};
    mlar_diag diag;
    MUST_NAME(MLAR_ERROR_NO_DEVICE, "init", diag,
              mlar_device_open(memory, mlar_device_bytes(), &options, &device, &diag));
    assert_null(device);
    assert_int_equal(diag.device_error, 100);
    assert_non_null(strstr(diag.message, "libamdhip64.so.6"));
    assert_non_null(strstr(diag.message, "hipErrorNoDevice"));
    free(memory);
}

static void test_found_in_the_process(void **state) {
    (void)state;
    standin_settings settings = session_settings();
    session s = session_begin(MLAR_TEST_STANDIN, &settings);
    open_by_search(&s, "libamdhip64.so.6 (already in the process)");
    session_end(&s);
}

static void test_given_by_the_host(void **state) {
    (void)state;
    session s = session_new();
    assert_string_equal(info_of(s.device).runtime, "given by the host");
    session_end(&s);
    /* A library that is none names the first function it lacks. */
    standin_settings settings = session_settings();
    s = session_begin(MLAR_TEST_STANDIN, &settings);
    dlclose(s.library);
    s.library = dlopen("libm.so.6", RTLD_NOW);
    assert_non_null(s.library);
    mlar_diag diag = DIAG_INIT;
    MUST_BE(MLAR_ERROR_NO_DEVICE, session_open(&s, 0, MLAR_RUNTIME_WARN, &diag));
    assert_non_null(strstr(diag.field, "hip"));
    assert_non_null(strstr(diag.message, diag.field));
    session_end(&s);
}

/* ---- open, info, close ---- */

static void test_a_device_describes_itself(void **state) {
    (void)state;
    standin_settings settings = session_settings();
    for (int32_t ordinal = 0; ordinal < 2; ordinal++) {
        session s = session_begin(MLAR_TEST_STANDIN, &settings);
        MUST(session_open(&s, ordinal, MLAR_RUNTIME_WARN, NULL));
        mlar_device_info info = info_of(s.device);
        assert_string_equal(info.profile.arch,
                            "gfx942"); /* without the features, and not the name's "gfx000" */
        assert_int_equal(info.profile.device, MLAR_DEVICE_HIP);
        assert_int_equal(info.profile.compute_units, 6 + ordinal);
        assert_int_equal(info.profile.wave_size, 64);
        assert_int_equal(info.runtime_version, 60342131);
        assert_int_equal(info.memory_bytes, (uint64_t)1 << 30);
        assert_int_equal(info.has_pools, 1);
        assert_int_equal(info.known_bad, 0);
        assert_string_equal(info.quirk, "");
        assert_non_null(strstr(info.name, ordinal ? "Stand-in 1" : "Stand-in 0"));
        assert_int_equal(s.control->current_device(), 0);
        session_end(&s);
    }
    settings.arch = "gfx1100";
    settings.wave = 32;
    session s = session_begin(MLAR_TEST_STANDIN, &settings);
    MUST(session_open(&s, 0, MLAR_RUNTIME_WARN, NULL));
    assert_string_equal(info_of(s.device).profile.arch, "gfx1100");
    assert_int_equal(info_of(s.device).profile.wave_size, 32);
    session_end(&s);
}

/* What test_structs.c asks of the other structs. */
static void test_options_and_info_of_other_sizes(void **state) {
    (void)state;
    static const struct {
        uint32_t more; /* than sizeof */
        int tail;
        mlar_status opens, tells;
    } rows[] = {{0, 0, MLAR_OK, MLAR_OK},
                {8, 0, MLAR_OK, MLAR_OK},
                {8, 1, MLAR_ERROR_STRUCT_SIZE, MLAR_OK},
                {(uint32_t)-1, 0, MLAR_ERROR_STRUCT_SIZE, MLAR_ERROR_STRUCT_SIZE},
                {4097, 0, MLAR_ERROR_STRUCT_SIZE, MLAR_ERROR_STRUCT_SIZE},
                {0x5a5a5a5a, 0, MLAR_ERROR_STRUCT_SIZE, MLAR_ERROR_STRUCT_SIZE}};
    standin_settings settings = session_settings();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        session s = session_begin(MLAR_TEST_STANDIN, &settings);
        struct {
            mlar_device_options known;
            char tail[8];
        } options = {.known = {.device = MLAR_DEVICE_HIP, .library = s.library}};
        options.known.struct_size = (uint32_t)sizeof options.known + rows[i].more;
        memset(options.tail, rows[i].tail, sizeof options.tail);
        MUST_BE(rows[i].opens,
                mlar_device_open(s.memory, mlar_device_bytes(), &options.known, &s.device, NULL));
        if (s.device == NULL) MUST(session_open(&s, 0, MLAR_RUNTIME_WARN, NULL));
        struct {
            mlar_device_info known;
            char tail[8];
        } info, before;
        memset(&info, 0x5a, sizeof info);
        info.known.struct_size = (uint32_t)sizeof info.known + rows[i].more;
        before = info;
        MUST_BE(rows[i].tells, mlar_device_info_of(s.device, &info.known));
        assert_int_equal(info.known.struct_size, before.known.struct_size);
        assert_memory_equal(info.tail, before.tail, sizeof info.tail);
        if (rows[i].tells == MLAR_OK) assert_string_equal(info.known.profile.arch, "gfx942");
        if (rows[i].tells != MLAR_OK) assert_memory_equal(&info, &before, sizeof info);
        session_end(&s);
    }
}

static void test_what_cannot_be_opened(void **state) {
    (void)state;
    standin_settings settings = session_settings();
    session s = session_begin(MLAR_TEST_STANDIN, &settings);
    mlar_diag diag;
    MUST_NAME(MLAR_ERROR_NO_DEVICE, "ordinal", diag, session_open(&s, 2, MLAR_RUNTIME_WARN, &diag));
    MUST_NAME(MLAR_ERROR_NO_DEVICE, "ordinal", diag, session_open(&s, -1, MLAR_RUNTIME_WARN, &diag));
    mlar_device_options options = {.struct_size = sizeof options, .device = 7, .library = s.library};
    MUST_NAME(MLAR_ERROR_ARGUMENT, "device", diag,
              mlar_device_open(s.memory, mlar_device_bytes(), &options, &s.device, &diag));
    options.device = MLAR_DEVICE_HIP;
    MUST_NAME(MLAR_ERROR_MEMORY_SIZE, "memory", diag,
              mlar_device_open(s.memory, mlar_device_bytes() - 1, &options, &s.device, &diag));
    MUST_NAME(MLAR_ERROR_MEMORY_ALIGNMENT, "memory", diag,
              mlar_device_open((char *)s.memory + 8, mlar_device_bytes(), &options, &s.device, &diag));
    options.struct_size = 4;
    MUST_BE(MLAR_ERROR_STRUCT_SIZE,
            mlar_device_open(s.memory, mlar_device_bytes(), &options, &s.device, &diag));
    MUST_BE(MLAR_ERROR_ARGUMENT, mlar_device_open(NULL, 0, &options, &s.device, NULL));
    MUST_BE(MLAR_ERROR_ARGUMENT, mlar_device_close(NULL));
    assert_null(s.device);
    /* Kernels for none of it, for half of it, and images that are none. */
    static const struct {
        const char *arch;
        mlar_status status;
        const char *field;
    } bad[] = {{"gfx906", MLAR_ERROR_UNSUPPORTED, "device.arch"},
               {"gfx90a:sramecc+:xnack-", MLAR_ERROR_UNSUPPORTED, "combine"},
               {"gfx950", MLAR_ERROR_DEVICE, "attend_block"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        settings.arch = bad[i].arch;
        s.control->reset(&settings);
        diag = (mlar_diag)DIAG_INIT;
        MUST_BE(bad[i].status, session_open(&s, 0, MLAR_RUNTIME_WARN, &diag));
        if (bad[i].status == MLAR_ERROR_DEVICE) assert_non_null(strstr(diag.message, "hipErrorInvalidImage"));
        assert_int_equal(s.control->alive(NULL, 0), 0);
    }
    session_end(&s);
}

static void test_a_known_bad_runtime(void **state) {
    (void)state;
    standin_settings settings = session_settings();
    settings.version = 70226015; /* clr #279 */
    session s = session_begin(MLAR_TEST_STANDIN, &settings);
    mlar_diag diag;
    MUST_NAME(MLAR_ERROR_RUNTIME_BLOCKED, "runtime_check", diag,
              session_open(&s, 0, MLAR_RUNTIME_REFUSE, &diag));
    assert_non_null(strstr(diag.message, "clr #279"));
    assert_int_equal(s.control->alive(NULL, 0), 0);
    MUST_NAME(MLAR_OK, "runtime_check", diag, session_open(&s, 0, MLAR_RUNTIME_WARN, &diag));
    assert_non_null(strstr(diag.message, "clr #279"));
    assert_int_equal(info_of(s.device).known_bad, 1);
    assert_non_null(strstr(info_of(s.device).quirk, "clr #279"));
    MUST(mlar_device_close(s.device));
    diag = (mlar_diag)DIAG_INIT;
    MUST(session_open(&s, 0, MLAR_RUNTIME_ACCEPT, &diag));
    assert_string_equal(diag.message, "");
    assert_int_equal(info_of(s.device).known_bad, 1);
    session_end(&s);

    settings.arch = "gfx1100"; /* the same version, another architecture */
    s = session_begin(MLAR_TEST_STANDIN, &settings);
    MUST(session_open(&s, 0, MLAR_RUNTIME_REFUSE, NULL));
    assert_int_equal(info_of(s.device).known_bad, 0);
    session_end(&s);
}

/* HIP before pools: the arena is the caller's or there is none; properties have the older layout. */
static void test_an_old_runtime(void **state) {
    (void)state;
    standin_settings settings = session_settings();
    settings.version = 50120531;
    session s = session_begin(MLAR_TEST_STANDIN_OLD, &settings);
    MUST(session_open(&s, 0, MLAR_RUNTIME_WARN, NULL));
    assert_string_equal(info_of(s.device).profile.arch, "gfx942");
    assert_int_equal(info_of(s.device).has_pools, 0);
    assert_int_equal(info_of(s.device).known_bad, 1);
    mlar_arena arena;
    mlar_diag diag;
    MUST_NAME(MLAR_ERROR_UNSUPPORTED, "device", diag, mlar_arena_from_pool(&arena, s.device, 4096, &diag));
    session_end(&s);
}

static void test_a_device_in_use_stays_open(void **state) {
    (void)state;
    session s = session_new();
    mlar_arena arena;
    MUST(mlar_arena_from_pool(&arena, s.device, 4096, NULL));
    MUST_BE(MLAR_ERROR_BUSY, mlar_device_close(s.device));
    MUST(mlar_arena_release(&arena, NULL));
    MUST(mlar_device_close(s.device));
    MUST_BE(MLAR_ERROR_STATE, mlar_device_close(s.device));
    s.device = NULL;
    session_end(&s);
}

/* ---- pools ---- */

static uint64_t pool_value(session *s, const mlar_arena *arena, int attribute) {
    uint64_t value = 0;
    const mlar_arena_body *body = (const mlar_arena_body *)(const void *)arena;
    assert_int_equal(s->device->runtime.pool_get(body->pool, attribute, &value), 0);
    return value;
}

static void test_a_pool_holds_the_arena_and_no_more(void **state) {
    (void)state;
    standin_settings settings = session_settings();
    for (int32_t limit = 0; limit < 2; limit++) {
        settings.pool_limit = limit; /* without: the runtime refuses anything but zeros there */
        session s = session_begin(MLAR_TEST_STANDIN, &settings);
        MUST(session_open(&s, 0, MLAR_RUNTIME_WARN, NULL));
        mlar_arena arena;
        MUST(mlar_arena_from_pool(&arena, s.device, GRANULE + 1, NULL));
        assert_int_equal(pool_value(&s, &arena, MLAR_GPU_POOL_RELEASE_THRESHOLD), UINT64_MAX);
        assert_int_equal(pool_value(&s, &arena, MLAR_GPU_POOL_RESERVED), 2 * GRANULE);
        assert_int_equal(pool_value(&s, &arena, MLAR_GPU_POOL_USED), GRANULE + 1);
        assert_int_equal(pool_value(&s, &arena, MLAR_GPU_POOL_USED_HIGH), GRANULE + 1);
        mlar_arena_body *body = mlar_arena_body_of(&arena);
        void *more = NULL;
        assert_int_equal(s.device->runtime.pool_malloc(&more, 2 * GRANULE, body->pool, NULL), limit ? 2 : 0);
        if (more != NULL) assert_int_equal(s.device->runtime.pool_free(more, NULL), 0);
        assert_int_equal(s.device->runtime.stream_synchronize(NULL), 0);
        mlar_arena elsewhere = arena; /* a host may move what no engine holds */
        memset(&arena, 0xff, sizeof arena);
        MUST(mlar_arena_release(&elsewhere, NULL));
        MUST(mlar_arena_release(&elsewhere, NULL));
        session_end(&s);
    }
}

static void test_a_pool_that_is_too_large(void **state) {
    (void)state;
    session s = session_new();
    mlar_arena arena;
    mlar_diag diag;
    MUST_NAME(MLAR_ERROR_OUT_OF_MEMORY, "hipMallocFromPoolAsync", diag,
              mlar_arena_from_pool(&arena, s.device, ((uint64_t)1 << 30) + 1, &diag));
    assert_non_null(strstr(diag.message, "hipErrorOutOfMemory"));
    assert_int_equal(diag.device_error, 2);
    assert_int_equal(s.control->alive(NULL, 0), 6); /* the modules */
    MUST(mlar_arena_release(&arena, NULL));
    MUST_BE(MLAR_ERROR_ARGUMENT, mlar_arena_from_pool(NULL, s.device, 1, NULL));
    MUST_BE(MLAR_ERROR_ARGUMENT, mlar_arena_from_pool(&arena, NULL, 1, NULL));
    session_end(&s);
}

/* Neither opened nor released while the default stream is not free to be used; both work again afterwards, and
 * the host's capture lives on. */
static void test_no_pool_during_a_capture(void **state) {
    (void)state;
    session s = session_new();
    const mlar_runtime *runtime = &s.device->runtime;
    void *stream = session_stream(&s, 0), *graph = NULL;
    mlar_arena open, other;
    mlar_diag diag = DIAG_INIT;
    MUST(mlar_arena_from_pool(&open, s.device, 4096, NULL));
    for (int mode = 0; mode < 3; mode++) {
        assert_int_equal(runtime->capture_begin(stream, mode), 0);
        MUST_BE(MLAR_ERROR_CAPTURING, mlar_arena_from_pool(&other, s.device, 4096, &diag));
        MUST_BE(MLAR_ERROR_CAPTURING, mlar_arena_release(&open, &diag));
        assert_int_equal(runtime->capture_end(stream, &graph), 0);
        assert_int_equal(runtime->graph_destroy(graph), 0);
    }
    session_stream_free(&s, stream);
    /* A stream that the default one does not wait for cannot be asked about: the runtime refuses instead. */
    stream = session_stream(&s, 1);
    assert_int_equal(runtime->capture_begin(stream, 0), 0);
    MUST_BE(MLAR_ERROR_CAPTURING, mlar_arena_from_pool(&other, s.device, 4096, &diag));
    MUST_BE(MLAR_ERROR_CAPTURING, mlar_arena_release(&open, &diag));
    assert_non_null(strstr(diag.message, "hipErrorStreamCaptureUnsupported"));
    assert_int_not_equal(runtime->capture_end(stream, &graph), 0);
    session_stream_free(&s, stream);
    MUST(mlar_arena_release(&open, &diag));
    session_end(&s);
}

/* ---- plain memory, and the caller's ---- */

static void test_memory_goes_there_and_back(void **state) {
    (void)state;
    session s = session_new();
    unsigned char from[1000], to[1000] = {0};
    void *memory = NULL;
    for (size_t i = 0; i < sizeof from; i++) from[i] = (unsigned char)(i * 7);
    MUST(mlar_device_allocate(s.device, sizeof from, &memory, NULL));
    MUST(mlar_device_write(s.device, memory, from, sizeof from));
    MUST(mlar_device_read(s.device, to, memory, sizeof to));
    assert_memory_equal(from, to, sizeof to);
    MUST(mlar_device_write(s.device, NULL, NULL, 0));
    MUST_BE(MLAR_ERROR_ARGUMENT, mlar_device_write(s.device, NULL, from, 1));
    MUST_BE(MLAR_ERROR_DEVICE, mlar_device_write(s.device, to, from, 1)); /* a host pointer */
    MUST_BE(MLAR_ERROR_DEVICE,
            mlar_device_read(s.device, to, (char *)memory + 1, sizeof to)); /* past the end */
    MUST(mlar_device_wait(s.device, NULL));
    MUST(mlar_device_free(s.device, memory));
    MUST_BE(MLAR_ERROR_DEVICE, mlar_device_free(s.device, memory));
    MUST(mlar_device_free(s.device, NULL));
    mlar_diag diag;
    MUST_NAME(MLAR_ERROR_OUT_OF_MEMORY, "hipMalloc", diag,
              mlar_device_allocate(s.device, (uint64_t)1 << 40, &memory, &diag));
    assert_null(memory);
    session_end(&s);
}

static step_case *small_case(void) {
    case_spec spec = engine_case_spec(5, 2, 3, 40, 70);
    return case_new(&spec);
}

static void test_an_arena_of_the_caller(void **state) {
    (void)state;
    session s = session_new();
    step_case *made = small_case();
    mlar_config config = device_engine_config(s.device, (const step_case *const *)&made, 1);
    mlar_memory memory = {.struct_size = sizeof memory};
    MUST(mlar_memory_query(&config, &memory, NULL));
    char *block = NULL, *host = NULL;
    MUST(mlar_device_allocate(s.device, memory.device_bytes, (void **)&block, NULL));
    assert_int_equal(posix_memalign((void **)&host, 256, (size_t)memory.device_bytes + 256), 0);
    void *engine_memory = NULL;
    assert_int_equal(posix_memalign(&engine_memory, 64, (size_t)memory.host_bytes), 0);
    mlar_engine *engine = NULL;
    mlar_arena arena;
    mlar_diag diag;
#define INIT mlar_engine_init(&config, s.device, &arena, engine_memory, memory.host_bytes, &engine, &diag)
    MUST_BE(MLAR_ERROR_ARGUMENT, mlar_arena_from_caller(&arena, NULL, memory.device_bytes, 0, NULL));
    MUST(mlar_arena_from_caller(&arena, host, memory.device_bytes, 0,
                                NULL)); /* a host pointer, said to be none */
    MUST_NAME(MLAR_ERROR_MEMORY_KIND, "arena", diag, INIT);
    MUST(mlar_arena_from_caller(&arena, host, memory.device_bytes, 1, NULL));
    MUST_NAME(MLAR_ERROR_MEMORY_KIND, "arena", diag, INIT);
    s.control->pin(host,
                   (size_t)memory.device_bytes + 256); /* pinned memory has attributes, and is no device's */
    MUST(mlar_arena_from_caller(&arena, host, memory.device_bytes, 0, NULL));
    MUST_NAME(MLAR_ERROR_MEMORY_KIND, "arena", diag, INIT);
    MUST(mlar_arena_from_caller(&arena, block, memory.device_bytes - 1, 0, NULL)); /* short, and says so */
    MUST_NAME(MLAR_ERROR_MEMORY_SIZE, "arena.bytes", diag, INIT);
    assert_int_equal(diag.needed, (int64_t)memory.device_bytes);
    MUST(mlar_arena_from_caller(&arena, block + 256, memory.device_bytes, 0, NULL)); /* short, and does not */
    MUST_NAME(MLAR_ERROR_MEMORY_SIZE, "arena", diag, INIT);
    assert_int_equal(diag.given, (int64_t)memory.device_bytes - 256);
    MUST(mlar_arena_from_caller(&arena, block + 16, memory.device_bytes, 0, NULL));
    MUST_NAME(MLAR_ERROR_MEMORY_ALIGNMENT, "arena.base", diag, INIT);

    void *there = NULL; /* another device's */
    assert_int_equal(s.device->runtime.set_device(1), 0);
    assert_int_equal(s.device->runtime.allocate(&there, memory.device_bytes), 0);
    MUST(mlar_arena_from_caller(&arena, there, memory.device_bytes, 0, NULL));
    MUST_NAME(MLAR_ERROR_MEMORY_KIND, "arena", diag, INIT);
    assert_int_equal(diag.given, 1);
    assert_int_equal(s.control->current_device(), 1);
    assert_int_equal(s.device->runtime.free(there), 0);

    MUST(mlar_arena_from_caller(&arena, block, memory.device_bytes, 0,
                                NULL)); /* to the byte: after all that */
    MUST(INIT);
    MUST_BE(MLAR_ERROR_BUSY, mlar_arena_release(&arena, NULL));
    mlar_engine *second = NULL;
    char *other_block = NULL;
    assert_int_equal(posix_memalign((void **)&other_block, 64, (size_t)memory.host_bytes), 0);
    MUST_BE(MLAR_ERROR_BUSY,
            mlar_engine_init(&config, s.device, &arena, other_block, memory.host_bytes, &second, &diag));
    MUST_BE(MLAR_ERROR_BUSY, mlar_device_close(s.device));
    MUST(mlar_engine_deinit(engine));
    MUST(mlar_arena_release(&arena, NULL));
    MUST(mlar_device_free(s.device, block));
    assert_int_equal(s.control->current_device(), 1);
    free(other_block);
    free(engine_memory);
    free(host);
    case_free(made);
    session_end(&s);
}

static void test_an_engine_for_another_device(void **state) {
    (void)state;
    session s = session_new();
    step_case *made = small_case();
    mlar_config config = device_engine_config(s.device, (const step_case *const *)&made, 1), wrong = config;
    mlar_memory memory = {.struct_size = sizeof memory};
    mlar_arena arena;
    mlar_engine *engine = NULL;
    mlar_diag diag;
    void *host = NULL;
    MUST(mlar_memory_query(&config, &memory, NULL));
    MUST(mlar_arena_from_pool(&arena, s.device, memory.device_bytes * 4, NULL));
    assert_int_equal(posix_memalign(&host, 64, (size_t)memory.host_bytes), 0);
    wrong.device.compute_units++;
    MUST_NAME(MLAR_ERROR_UNSUPPORTED, "device", diag,
              mlar_engine_init(&wrong, s.device, &arena, host, memory.host_bytes, &engine, &diag));
    MUST(mlar_device_profile_named(&wrong.device, "mi250x", NULL));
    MUST_NAME(MLAR_ERROR_UNSUPPORTED, "device", diag,
              mlar_engine_init(&wrong, s.device, &arena, host, memory.host_bytes, &engine, &diag));
    MUST_BE(MLAR_ERROR_ARGUMENT,
            mlar_engine_init(&config, NULL, &arena, host, memory.host_bytes, &engine, &diag));
    MUST(mlar_engine_init(&config, s.device, &arena, host, memory.host_bytes, &engine, &diag));
    MUST(mlar_engine_deinit(engine));
    MUST(mlar_arena_release(&arena, NULL));
    free(host);
    case_free(made);
    session_end(&s);
}

int main(int argc, char **argv) {
    (void)argc;
    const char *path = getenv("LD_LIBRARY_PATH");
    if (path == NULL || strncmp(path, MLAR_TEST_STANDIN_DIR, strlen(MLAR_TEST_STANDIN_DIR)) != 0) {
        char with[4096];
        snprintf(with, sizeof with, "%s%s%s", MLAR_TEST_STANDIN_DIR, path != NULL ? ":" : "",
                 path != NULL ? path : "");
        setenv("LD_LIBRARY_PATH", with, 1);
        execv("/proc/self/exe", argv); /* the search path is read when a program starts */
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_found_on_the_search_path),
        cmocka_unit_test(test_found_in_the_process),
        cmocka_unit_test(test_given_by_the_host),
        cmocka_unit_test(test_a_device_describes_itself),
        cmocka_unit_test(test_options_and_info_of_other_sizes),
        cmocka_unit_test(test_what_cannot_be_opened),
        cmocka_unit_test(test_a_known_bad_runtime),
        cmocka_unit_test(test_an_old_runtime),
        cmocka_unit_test(test_a_device_in_use_stays_open),
        cmocka_unit_test(test_a_pool_holds_the_arena_and_no_more),
        cmocka_unit_test(test_a_pool_that_is_too_large),
        cmocka_unit_test(test_no_pool_during_a_capture),
        cmocka_unit_test(test_memory_goes_there_and_back),
        cmocka_unit_test(test_an_arena_of_the_caller),
        cmocka_unit_test(test_an_engine_for_another_device),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
