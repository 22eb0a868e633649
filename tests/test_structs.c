/* SPDX-License-Identifier: Apache-2.0
 *
 * test_structs.c: hosts of another version. First the rule of engine/structs.h, on a struct that has grown since its
 * first release, as no public one has yet; then every public call that takes a struct with a struct_size. Structs lie
 * in blocks of exactly the caller's size, so that AddressSanitizer sees a byte read or written beyond. */
#include "engine/structs.h"
#include "tests/support/engine_fixture.h"

#include <string.h>

enum { GARBAGE = 0x5a, MOST_GROWTH = 4096 };

/* `bytes` of garbage that begin with `struct_size`. */
static void *block_of(size_t bytes, uint32_t struct_size) {
    assert_true(bytes >= sizeof struct_size);
    unsigned char *block = malloc(bytes);
    assert_non_null(block);
    memset(block, GARBAGE, bytes);
    memcpy(block, &struct_size, sizeof struct_size);
    return block;
}

static void all_are(const void *bytes, size_t from, size_t end, int wanted) {
    for (size_t i = from; i < end; i++)
        if (((const unsigned char *)bytes)[i] != wanted)
            fail_msg("byte %zu is %d, not %d", i, ((const unsigned char *)bytes)[i], wanted);
}

/* ---- the rule ---- */

typedef struct grown {
    uint32_t struct_size;
    uint32_t old;        /* the first release ended here */
    uint64_t newer[2];   /* ... a second one here ... */
    uint64_t newest[16]; /* ... and this version here */
} grown;

enum { LEAST = offsetof(grown, newer), SECOND = offsetof(grown, newest), KNOWN = sizeof(grown) };

static const uint32_t refused_sizes[] = {
    0, 4, LEAST - 1, KNOWN + MOST_GROWTH + 1, (uint32_t)GARBAGE * 0x01010101u, UINT32_MAX};
static const uint32_t accepted_sizes[] = {LEAST, LEAST + 1, SECOND, KNOWN, KNOWN + 1, KNOWN + MOST_GROWTH};

static void test_sizes_that_no_version_has(void **state) {
    (void)state;
    const size_t most = KNOWN + MOST_GROWTH;
    for (size_t i = 0; i < sizeof refused_sizes / sizeof *refused_sizes; i++) {
        grown own = {.struct_size = KNOWN};
        unsigned char *given = block_of(most, refused_sizes[i]);
        MUST_BE(MLAR_ERROR_STRUCT_SIZE, mlar_struct_read(&own, given, LEAST, KNOWN));
        MUST_BE(MLAR_ERROR_STRUCT_SIZE, mlar_struct_write(given, &own, LEAST, KNOWN));
        all_are(given, sizeof own.struct_size, most, GARBAGE);
        memset(given, GARBAGE, most);
        MUST_BE(MLAR_ERROR_STRUCT_SIZE, mlar_struct_start(given, refused_sizes[i], &own, LEAST, KNOWN));
        all_are(given, 0, most, GARBAGE);
        free(given);
    }
}

static void test_what_a_caller_lacks_is_zero(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof accepted_sizes / sizeof *accepted_sizes; i++) {
        const uint32_t size = accepted_sizes[i];
        unsigned char *given = block_of(size, size);
        if (size > KNOWN) memset(given + KNOWN, 0, size - KNOWN);
        grown own;
        memset(&own, 0x77, sizeof own);
        MUST(mlar_struct_read(&own, given, LEAST, KNOWN));
        assert_int_equal(own.struct_size, KNOWN);
        const size_t both = size < KNOWN ? size : KNOWN;
        all_are(&own, sizeof own.struct_size, both, GARBAGE);
        all_are(&own, both, KNOWN, 0);
        free(given);
    }
}

static void test_what_a_caller_adds_must_be_zero(void **state) {
    (void)state;
    for (size_t more = 1; more <= MOST_GROWTH; more *= 2)
        for (size_t at = 0; at<more; at += more> 16 ? more - 1 : 1) {
            unsigned char *given = block_of(KNOWN + more, (uint32_t)(KNOWN + more));
            memset(given + KNOWN, 0, more);
            given[KNOWN + at] = 1;
            grown own;
            MUST_BE(MLAR_ERROR_STRUCT_SIZE, mlar_struct_read(&own, given, LEAST, KNOWN));
            free(given);
        }
}

static void test_writing_keeps_to_the_caller_s_size(void **state) {
    (void)state;
    grown own;
    memset(&own, 0x77, sizeof own);
    for (size_t i = 0; i < sizeof accepted_sizes / sizeof *accepted_sizes; i++) {
        const uint32_t size = accepted_sizes[i], both = size < KNOWN ? size : KNOWN;
        unsigned char *given = block_of(size, size);
        MUST(mlar_struct_write(given, &own, LEAST, KNOWN));
        assert_int_equal(mlar_struct_size(given), size);
        all_are(given, sizeof size, both, 0x77);
        all_are(given, both, size, GARBAGE);
        memset(given, GARBAGE, size);
        MUST(mlar_struct_start(given, size, &own, LEAST, KNOWN));
        assert_int_equal(mlar_struct_size(given), size);
        all_are(given, sizeof size, both, 0x77);
        all_are(given, both, size, 0); /* so that the library that knows no more accepts what it started */
        free(given);
    }
}

/* ---- the calls that start a struct ---- */

static mlar_config some_config(void) {
    mlar_config config;
    MUST(mlar_config_preset(&config, "dsv4-flash", 8, NULL));
    return config;
}

static mlar_status start_config(void *given, size_t size) {
    return mlar_config_init_sized(given, size);
}
static mlar_status start_preset(void *given, size_t size) {
    return mlar_config_preset_sized(given, size, "dsv4-pro", 2, NULL);
}
static mlar_status start_bindings(void *given, size_t size) {
    const mlar_config config = some_config();
    return mlar_bindings_init_sized(given, size, &config, 1);
}

static void test_calls_that_start_a_struct(void **state) {
    (void)state;
    static const struct {
        mlar_status (*start)(void *given, size_t size);
        size_t known;
    } calls[] = {{start_config, sizeof(mlar_config)},
                 {start_preset, sizeof(mlar_config)},
                 {start_bindings, sizeof(mlar_bindings)}};
    for (size_t c = 0; c < sizeof calls / sizeof *calls; c++) {
        const size_t known = calls[c].known;
        const size_t wrong[] = {0, 4, known - 1, known + MOST_GROWTH + 1, UINT32_MAX, SIZE_MAX};
        for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
            unsigned char *given = block_of(known, GARBAGE * 0x01010101u);
            MUST_BE(MLAR_ERROR_STRUCT_SIZE, calls[c].start(given, wrong[i]));
            all_are(given, 0, known, GARBAGE);
            free(given);
        }
        unsigned char *plain = block_of(known, 0);
        MUST(calls[c].start(plain, known));
        assert_int_equal(mlar_struct_size(plain), known);
        const size_t longer[] = {known + 8, known + MOST_GROWTH};
        for (size_t i = 0; i < sizeof longer / sizeof *longer; i++) {
            unsigned char *given = block_of(longer[i], 0);
            MUST(calls[c].start(given, longer[i]));
            assert_int_equal(mlar_struct_size(given), longer[i]);
            assert_memory_equal(given + 4, plain + 4, known - 4);
            all_are(given, known, longer[i], 0);
            free(given);
        }
        free(plain);
    }
    mlar_config config;
    mlar_diag diag;
    MUST_NAME(MLAR_ERROR_STRUCT_SIZE, "struct_size", diag,
              mlar_config_preset_sized(&config, 4, "dsv4-pro", 2, &diag));
    assert_int_equal(diag.given, 4);
    assert_int_equal(diag.needed, sizeof config);
}

/* ---- the calls that read or write one ---- */

typedef struct setting {
    fixture f;
    mlar_program *program;
    mlar_memory memory;
} setting;

static mlar_status validate(setting *s, void *config) {
    (void)s;
    return mlar_config_validate(config, NULL);
}
static mlar_status query_for(setting *s, void *config) {
    return mlar_memory_query(config, &s->memory, NULL);
}
static mlar_status start_bindings_for(setting *s, void *config) {
    return mlar_bindings_init(&s->f.bindings, config, 0);
}
static mlar_status query_into(setting *s, void *memory) {
    return mlar_memory_query(&s->f.run->config, memory, NULL);
}
static void drop(void *context, const char *text, size_t bytes) {
    (void)context, (void)text, (void)bytes;
}
static mlar_status print(setting *s, void *memory) {
    (void)s;
    return mlar_memory_print(memory, 1, drop, NULL);
}
static mlar_status capture(setting *s, void *bindings) {
    mlar_program *program = NULL;
    mlar_status status = mlar_engine_capture(s->f.run->engine, 0, bindings, 1, CAPACITY, &program, NULL);
    if (status == MLAR_OK) MUST(mlar_program_destroy(program));
    return status;
}
static mlar_status rebind(setting *s, void *bindings) {
    return mlar_program_rebind(s->program, 0, bindings, NULL, NULL);
}
static mlar_status prepare(setting *s, void *bindings) {
    return mlar_engine_prepare(s->f.run->engine, 0, bindings, &s->f.step, NULL, NULL);
}
static mlar_status enqueue(setting *s, void *bindings) {
    MUST(prepare(s, &s->f.bindings));
    return mlar_engine_enqueue(s->f.run->engine, 0, bindings, CAPACITY, &s->f.step, NULL, NULL);
}
static mlar_status step(setting *s, void *given) {
    return mlar_engine_step(s->f.run->engine, given, NULL);
}
static mlar_status prepare_step(setting *s, void *given) {
    return mlar_engine_prepare(s->f.run->engine, 0, &s->f.bindings, given, NULL, NULL);
}
static mlar_status enqueue_step(setting *s, void *given) {
    MUST(prepare(s, &s->f.bindings));
    return mlar_engine_enqueue(s->f.run->engine, 0, &s->f.bindings, CAPACITY, given, NULL, NULL);
}
static mlar_status read_stats(setting *s, void *stats) {
    return mlar_engine_stats(s->f.run->engine, NULL, stats);
}

enum access { READ, WRITE };

/* `valid`, at the front of exactly `size` bytes; what the block is short of, or holds beyond, follows from that. */
static mlar_status call_with(setting *s, mlar_status (*call)(setting *, void *), const void *valid,
                             size_t known, uint32_t size, size_t bytes, int tail, enum access access) {
    unsigned char *given = block_of(bytes, size);
    memcpy(given + sizeof size, (const char *)valid + sizeof size, known - sizeof size);
    memset(given + known, tail, bytes - known);
    unsigned char *before = malloc(bytes);
    assert_non_null(before);
    memcpy(before, given, bytes);
    const mlar_status status = call(s, given);
    if (status != MLAR_OK || access == READ) assert_memory_equal(given, before, bytes);
    assert_int_equal(mlar_struct_size(given), size);
    all_are(given, known, bytes, tail);
    free(before);
    free(given);
    return status;
}

static void test_calls_that_read_or_write_a_struct(void **state) {
    (void)state;
    setting s = {.f = open_fixture(MLAR_POLICY_BALANCED), .memory = {.struct_size = sizeof s.memory}};
    MUST(mlar_engine_capture(s.f.run->engine, 0, &s.f.bindings, 1, CAPACITY, &s.program, NULL));
    mlar_config config = s.f.run->config;
    mlar_memory memory = {.struct_size = sizeof memory};
    MUST(mlar_memory_query(&config, &memory, NULL));
    mlar_bindings bindings = s.f.bindings;
    mlar_stats stats = {.struct_size = sizeof stats};
    const struct {
        const char *name;
        mlar_status (*call)(setting *, void *);
        const void *valid;
        size_t known;
        enum access access;
    } calls[] = {
        {"config_validate", validate, &config, sizeof config, READ},
        {"memory_query: config", query_for, &config, sizeof config, READ},
        {"bindings_init: config", start_bindings_for, &config, sizeof config, READ},
        {"memory_query: memory", query_into, &memory, sizeof memory, WRITE},
        {"memory_print", print, &memory, sizeof memory, READ},
        {"capture", capture, &bindings, sizeof bindings, READ},
        {"rebind", rebind, &bindings, sizeof bindings, READ},
        {"prepare", prepare, &bindings, sizeof bindings, READ},
        {"enqueue", enqueue, &bindings, sizeof bindings, READ},
        {"step", step, &s.f.step, sizeof s.f.step, READ},
        {"prepare: step", prepare_step, &s.f.step, sizeof s.f.step, READ},
        {"enqueue: step", enqueue_step, &s.f.step, sizeof s.f.step, READ},
        {"stats", read_stats, &stats, sizeof stats, WRITE},
    };
    for (size_t c = 0; c < sizeof calls / sizeof *calls; c++) {
        const uint32_t known = (uint32_t)calls[c].known;
        const struct {
            uint32_t size;
            size_t bytes;
            int tail;
            mlar_status read, write;
        } rows[] = {
            {0, known, 0, MLAR_ERROR_STRUCT_SIZE, MLAR_ERROR_STRUCT_SIZE},
            {4, known, 0, MLAR_ERROR_STRUCT_SIZE, MLAR_ERROR_STRUCT_SIZE},
            {known - 1, known, 0, MLAR_ERROR_STRUCT_SIZE, MLAR_ERROR_STRUCT_SIZE},
            {known, known, 0, MLAR_OK, MLAR_OK},
            {known + 8, known + 8, 0, MLAR_OK, MLAR_OK},
            {known + 8, known + 8, 1, MLAR_ERROR_STRUCT_SIZE, MLAR_OK},
            {known + MOST_GROWTH, known + MOST_GROWTH, 0, MLAR_OK, MLAR_OK},
            {known + MOST_GROWTH + 1, known, 0, MLAR_ERROR_STRUCT_SIZE, MLAR_ERROR_STRUCT_SIZE},
            {GARBAGE * 0x01010101u, known, 0, MLAR_ERROR_STRUCT_SIZE, MLAR_ERROR_STRUCT_SIZE},
            {UINT32_MAX, known, 0, MLAR_ERROR_STRUCT_SIZE, MLAR_ERROR_STRUCT_SIZE},
        };
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            s.f.bindings = bindings;
            const mlar_status status = call_with(&s, calls[c].call, calls[c].valid, calls[c].known,
                                                 rows[i].size, rows[i].bytes, rows[i].tail, calls[c].access);
            const mlar_status wanted = calls[c].access == READ ? rows[i].read : rows[i].write;
            if (status != wanted)
                fail_msg("%s, struct_size %u of %u, tail %d: %s", calls[c].name, rows[i].size, known,
                         rows[i].tail, mlar_status_name(status));
        }
    }
    s.f.bindings = bindings;
    still_right(&s.f, s.program);
    close_fixture(&s.f);
}

/* A struct as a later header may have it. */
#define LATER(type)                                                                                          \
    struct {                                                                                                 \
        type known;                                                                                          \
        char tail[16];                                                                                       \
    }

/* An array is spaced by its elements' struct_size. */
static void test_longer_bindings_of_several_layers(void **state) {
    (void)state;
    case_spec spec = engine_case_spec(3, 2, 2, 40, 0);
    step_case *made = case_new(&spec);
    const step_case *const cases[] = {made};
    mlar_config config = engine_case_config(cases, 1);
    engine_case *run = engine_case_open(&config);
    LATER(mlar_bindings) layers[2];
    memset(layers, 0, sizeof layers);
    mlar_program *program = NULL;
    for (int i = 0; i < 2; i++) {
        layers[i].known = case_bindings(&made->layer);
        layers[i].known.struct_size = sizeof layers[i];
    }
    MUST(mlar_engine_capture(run->engine, 0, &layers[0].known, 2, 2, &program, NULL));
    layers[1].tail[15] = 1; /* something that this version does not know */
    MUST_BE(MLAR_ERROR_STRUCT_SIZE,
            mlar_engine_capture(run->engine, 0, &layers[0].known, 2, 2, &program, NULL));
    engine_case_close(run);
    case_free(made);
}

/* ... the first one's, so all have the same. */
static void test_layers_of_two_sizes(void **state) {
    (void)state;
    fixture f = open_fixture(MLAR_POLICY_BALANCED);
    mlar_bindings layers[2] = {f.bindings, f.bindings};
    layers[1].struct_size += 8; /* what it would read is not its own */
    mlar_program *program = NULL;
    mlar_diag diag;
    MUST_NAME(MLAR_ERROR_STRUCT_SIZE, "bindings.struct_size", diag,
              mlar_engine_capture(f.run->engine, 0, layers, 2, CAPACITY, &program, &diag));
    assert_int_equal(diag.given, sizeof *layers + 8);
    assert_int_equal(diag.needed, sizeof *layers);
    close_fixture(&f);
}

/* A diag of a size that no version has is left alone; of a longer one, the tail. */
static void test_diags_of_all_sizes(void **state) {
    (void)state;
    static const struct {
        uint32_t size;
        size_t bytes;
        int filled;
    } rows[] = {{0, sizeof(mlar_diag), 0},
                {4, 4, 0},
                {sizeof(mlar_diag) - 1, sizeof(mlar_diag) - 1, 0},
                {sizeof(mlar_diag), sizeof(mlar_diag), 1},
                {sizeof(mlar_diag) + 8, sizeof(mlar_diag) + 8, 1},
                {sizeof(mlar_diag) + MOST_GROWTH, sizeof(mlar_diag) + MOST_GROWTH, 1},
                {sizeof(mlar_diag) + MOST_GROWTH + 1, sizeof(mlar_diag), 0},
                {UINT32_MAX, sizeof(mlar_diag), 0}};
    mlar_config config = some_config();
    config.heads = 999;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        unsigned char *given = block_of(rows[i].bytes, rows[i].size);
        mlar_diag *diag = (mlar_diag *)(void *)given;
        MUST_BE(MLAR_ERROR_CONFIG, mlar_config_validate(&config, diag));
        mlar_fail_device_error(diag, 719);
        assert_int_equal(mlar_struct_size(given), rows[i].size);
        if (!rows[i].filled) all_are(given, sizeof rows[i].size, rows[i].bytes, GARBAGE);
        if (rows[i].filled) {
            assert_int_equal(diag->status, MLAR_ERROR_CONFIG);
            assert_int_equal(diag->device_error, 719);
            assert_int_equal(diag->given, 999);
            assert_string_equal(diag->field, "heads");
            all_are(given, sizeof *diag, rows[i].bytes, GARBAGE);
        }
        free(given);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes_that_no_version_has),
        cmocka_unit_test(test_what_a_caller_lacks_is_zero),
        cmocka_unit_test(test_what_a_caller_adds_must_be_zero),
        cmocka_unit_test(test_writing_keeps_to_the_caller_s_size),
        cmocka_unit_test(test_calls_that_start_a_struct),
        cmocka_unit_test(test_calls_that_read_or_write_a_struct),
        cmocka_unit_test(test_longer_bindings_of_several_layers),
        cmocka_unit_test(test_layers_of_two_sizes),
        cmocka_unit_test(test_diags_of_all_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
