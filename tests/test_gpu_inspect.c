/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gpu_inspect.c: what the engine itself writes into device memory, on the stand-in (tests/standin), whose memory
 * begins as garbage: zeros at init, poison over scratch, a counter set back; and how many calls that takes. */
#include "engine/engine.h"
#include "tests/standin/session.h"

#include <stdlib.h>
#include <string.h>

enum { KINDS = 2 };

typedef struct fixture {
    session s;
    step_case *made[KINDS];
    device_engine *run;
} fixture;

static fixture open_fixture(int32_t strategy) {
    fixture f = {.s = session_new()};
    const case_spec specs[KINDS] = {engine_case_spec(5, 3, 4, 40, 200),
                                    engine_case_spec(6, 300, 300, 40, 200)};
    for (int k = 0; k < KINDS; k++) f.made[k] = case_new(&specs[k]);
    mlar_config config = device_engine_config(f.s.device, (const step_case *const *)f.made, KINDS);
    config.policy = MLAR_POLICY_BALANCED;
    config.strategy = strategy;
    f.run = device_engine_open(f.s.device, &config);
    return f;
}

static void close_fixture(fixture *f) {
    device_engine_close(f->run);
    for (int k = 0; k < KINDS; k++) case_free(f->made[k]);
    session_end(&f->s);
}

/* A buffer of the plan, as it stands on the device; the caller frees it. NULL if the configuration has none. */
static unsigned char *contents(fixture *f, int32_t kind, const char *name, uint64_t *bytes) {
    void *address = NULL;
    MUST(mlar_engine_buffer(f->run->engine, kind, name, &address, bytes));
    if (*bytes == 0) return NULL;
    unsigned char *read = malloc(*bytes);
    assert_non_null(read);
    MUST(mlar_device_read(f->s.device, read, address, *bytes));
    return read;
}

static uint64_t fills(fixture *f) {
    return f->s.control->calls("hipMemsetD32Async");
}

static void test_what_a_step_may_read_starts_at_zero(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int32_t kind;
    } cleared[] = {{"counters", -1}, {"step", -1}, {"schedule", 0}, {"schedule", 1}};
    enum { CLEARED = sizeof cleared / sizeof *cleared };
    fixture f = open_fixture(MLAR_STRATEGY_DIRECT);
    assert_int_equal(fills(&f), CLEARED);
    assert_int_equal(f.s.control->calls("hipMemcpyHtoDAsync"), 0);
    for (size_t i = 0; i < CLEARED; i++) {
        uint64_t bytes = 0;
        unsigned char *read = contents(&f, cleared[i].kind, cleared[i].name, &bytes);
        assert_true(bytes > 0);
        for (uint64_t at = 0; at < bytes; at++)
            if (read[at] != 0) fail_msg("%s, byte %d is %d", cleared[i].name, (int)at, read[at]);
        free(read);
    }
    close_fixture(&f);
}

/* Every word of scratch, and no other. Of buffers that share bytes the last of the plan has its own poison there. */
static void test_poison(void **state) {
    (void)state;
    static const int32_t strategies[] = {MLAR_STRATEGY_DIRECT, MLAR_STRATEGY_GATHER};
    for (int t = 0; t < 2; t++)
        for (uint32_t seed = 0; seed < 3; seed++) {
            fixture f = open_fixture(strategies[t]);
            const mlar_layout *layout = &f.run->engine->layout;
            const uint64_t before = fills(&f);
            MUST(mlar_engine_poison_scratch(f.run->engine, seed, NULL));
            assert_true(fills(&f) - before <= 2u * (unsigned)layout->plan.count); /* one for each segment */
            assert_int_equal(f.s.control->calls("hipMemcpyHtoDAsync"), 0);
            unsigned char *arena = malloc(layout->plan.total_bytes);
            assert_non_null(arena);
            MUST(mlar_device_read(f.s.device, arena, f.run->engine->arena->base, layout->plan.total_bytes));
            uint64_t words = 0;
            for (int id = 0; id < MLAR_BUFFER_COUNT; id++)
                for (int k = 0; k < KINDS; k++) {
                    const int32_t index = layout->index[id][k];
                    if (index < 0) continue;
                    const mlar_plan_request *request = &layout->plan.requests[index];
                    assert_int_equal(request->bytes % sizeof(uint32_t), 0); /* what a fill asks */
                    for (uint64_t at = 0; at < request->bytes; at += sizeof(uint32_t)) {
                        uint32_t word;
                        memcpy(&word, arena + layout->plan.offsets[index] + at, sizeof word);
                        int poisoned = 0;
                        for (int e = 0; e < MLAR_BUFFER_COUNT; e++)
                            poisoned |= word == mlar_poison_word(mlar_buffers[e].element, seed);
                        if (poisoned == mlar_plan_is_persistent(request))
                            fail_msg("%s, byte %d: %08x", request->name, (int)at, word);
                        words += (uint64_t)poisoned;
                    }
                }
            assert_true(words > 1024);
            free(arena);
            close_fixture(&f);
        }
}

static void test_counters_are_set_back(void **state) {
    (void)state;
    fixture f = open_fixture(MLAR_STRATEGY_DIRECT);
    void *address = NULL;
    uint64_t bytes = 0;
    MUST(mlar_engine_buffer(f.run->engine, -1, "counters", &address, &bytes));
    const uint64_t invalid = 7;
    MUST(mlar_device_write(f.s.device, address, &invalid, sizeof invalid));
    assert_int_equal(device_engine_stats(f.run, NULL).invalid_indices, 7);
    MUST(mlar_engine_reset_counters(f.run->engine, NULL));
    assert_int_equal(device_engine_stats(f.run, NULL).invalid_indices, 0);
    close_fixture(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_a_step_may_read_starts_at_zero),
        cmocka_unit_test(test_poison),
        cmocka_unit_test(test_counters_are_set_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
