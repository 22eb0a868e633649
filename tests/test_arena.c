/* SPDX-License-Identifier: Apache-2.0
 *
 * test_arena.c: memory sources, holding, the last byte, and what sanitizers are told about stages. */
#include "arena/arena.h"
#include "arena/shadow.h"

#include <mlarena/status.h>
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <setjmp.h>
#include <cmocka.h>

enum { COUNTERS, GATHER, PARTIAL, NONE, COUNT };

static const mlar_plan_request requests[COUNT] = {
    [COUNTERS] = {"counters", 64, 256, 0, MLAR_STAGE_FOREVER},
    [GATHER] = {"gather", 4000, 256, 0, 1},
    [PARTIAL] = {"partial", 3000, 256, 2, 2},
    [NONE] = {"none", 0, 256, 0, 2},
};

static _Alignas(256) unsigned char block[16384];
static int engine_a, engine_b; /* holders are only compared */

static mlar_plan make_plan(void) {
    mlar_plan plan;
    assert_int_equal(mlar_plan_make(requests, COUNT, 0, &plan, NULL), MLAR_OK);
    return plan;
}

static mlar_arena_core open_caller(void *base, uint64_t bytes) {
    mlar_arena_core arena;
    mlar_caller_memory memory = {base, bytes};
    mlar_arena_source source = mlar_arena_source_caller(&memory, true);
    assert_int_equal(mlar_arena_open(&arena, &source, bytes, 1, NULL), MLAR_OK);
    return arena;
}

static void test_pointers(void **state) {
    (void)state;
    mlar_plan plan = make_plan();
    assert_true(plan.total_bytes == 256 + 4096);
    mlar_arena_core arena = open_caller(block, sizeof block);
    assert_null(mlar_arena_pointer(&arena, GATHER)); /* nobody holds it yet */
    assert_int_equal(mlar_arena_hold(&arena, &engine_a, &plan, NULL), MLAR_OK);
    assert_ptr_equal(mlar_arena_pointer(&arena, COUNTERS), block);
    assert_ptr_equal(mlar_arena_pointer(&arena, GATHER), block + 256);
    assert_ptr_equal(mlar_arena_pointer(&arena, PARTIAL), block + 256);
    assert_null(mlar_arena_pointer(&arena, NONE));
    assert_null(mlar_arena_pointer(&arena, COUNT));
    assert_null(mlar_arena_pointer(&arena, -1));
    assert_int_equal(mlar_arena_drop(&arena, &engine_a, NULL), MLAR_OK);
    assert_null(mlar_arena_pointer(&arena, GATHER));
    assert_int_equal(mlar_arena_close(&arena, NULL), MLAR_OK);
}

static void test_exact_size(void **state) {
    (void)state;
    mlar_plan plan = make_plan();
    mlar_diag diag = {.struct_size = sizeof diag};
    mlar_arena_core arena = open_caller(block, plan.total_bytes);
    assert_int_equal(mlar_arena_hold(&arena, &engine_a, &plan, &diag), MLAR_OK);
    assert_int_equal(mlar_arena_drop(&arena, &engine_a, &diag), MLAR_OK);

    mlar_arena_core short_arena = open_caller(block, plan.total_bytes - 1);
    assert_int_equal(mlar_arena_hold(&short_arena, &engine_a, &plan, &diag), MLAR_ERROR_MEMORY_SIZE);
    assert_string_equal(diag.field, "arena.bytes");
    assert_int_equal(diag.given, plan.total_bytes - 1);
    assert_int_equal(diag.needed, plan.total_bytes);
    assert_non_null(strstr(diag.message, ": 1 missing"));
    assert_null(short_arena.plan);
    assert_int_equal(mlar_arena_hold(&short_arena, &engine_b, &plan, &diag), MLAR_ERROR_MEMORY_SIZE);
    assert_int_equal(mlar_arena_close(&short_arena, &diag), MLAR_OK); /* nobody holds it */

    /* The refusal left nothing behind: the same memory at full size works again. */
    arena = open_caller(block, plan.total_bytes);
    assert_int_equal(mlar_arena_hold(&arena, &engine_a, &plan, &diag), MLAR_OK);
    assert_int_equal(mlar_arena_drop(&arena, &engine_a, &diag), MLAR_OK);
}

static void test_misaligned_base_is_refused(void **state) {
    (void)state;
    static const size_t shifts[] = {1, 8, 64, 128, 255};
    mlar_plan plan = make_plan();
    mlar_diag diag = {.struct_size = sizeof diag};
    for (size_t i = 0; i < sizeof shifts / sizeof shifts[0]; i++) {
        mlar_arena_core arena = open_caller(block + shifts[i], sizeof block - 256);
        assert_int_equal(mlar_arena_hold(&arena, &engine_a, &plan, &diag), MLAR_ERROR_MEMORY_ALIGNMENT);
        assert_string_equal(diag.field, "arena.base");
        assert_int_equal(diag.given, shifts[i]);
        assert_int_equal(diag.needed, 256);
        assert_int_equal(mlar_arena_close(&arena, &diag), MLAR_OK);

        mlar_caller_memory memory = {block + shifts[i], 4096};
        mlar_arena_source source = mlar_arena_source_caller(&memory, true);
        assert_int_equal(mlar_arena_open(&arena, &source, 4096, 256, &diag), MLAR_ERROR_MEMORY_ALIGNMENT);
    }
    mlar_arena_core arena = open_caller(block + 256, sizeof block - 256);
    assert_int_equal(mlar_arena_hold(&arena, &engine_a, &plan, &diag), MLAR_OK);
    assert_int_equal(mlar_arena_drop(&arena, &engine_a, &diag), MLAR_OK);
}

static void test_one_holder(void **state) {
    (void)state;
    mlar_plan plan = make_plan();
    mlar_diag diag = {.struct_size = sizeof diag};
    mlar_arena_core arena = open_caller(block, sizeof block);
    assert_int_equal(mlar_arena_hold(&arena, &engine_a, &plan, &diag), MLAR_OK);
    assert_int_equal(mlar_arena_hold(&arena, &engine_b, &plan, &diag), MLAR_ERROR_BUSY);
    assert_int_equal(mlar_arena_hold(&arena, &engine_a, &plan, &diag), MLAR_ERROR_BUSY);
    assert_int_equal(mlar_arena_close(&arena, &diag), MLAR_ERROR_BUSY);
    assert_int_equal(mlar_arena_drop(&arena, &engine_b, &diag), MLAR_ERROR_STATE);
    assert_ptr_equal(mlar_arena_pointer(&arena, COUNTERS), block); /* none of that disturbed the holder */
    assert_int_equal(mlar_arena_drop(&arena, &engine_a, &diag), MLAR_OK);
    assert_int_equal(mlar_arena_drop(&arena, &engine_a, &diag), MLAR_ERROR_STATE);
    assert_int_equal(mlar_arena_hold(&arena, &engine_b, &plan, &diag), MLAR_OK);
    assert_int_equal(mlar_arena_drop(&arena, &engine_b, &diag), MLAR_OK);
    assert_int_equal(mlar_arena_close(&arena, &diag), MLAR_OK);
}

/* Many threads want one arena; each winner sees nobody else in it. */
typedef struct contest {
    mlar_arena_core *arena;
    const mlar_plan *plan;
    int inside; /* only a holder touches it */
    int wins[4];
} contest;

typedef struct contestant {
    contest *contest;
    int number;
    int overlaps;
} contestant;

static void *contend(void *argument) {
    contestant *me = argument;
    contest *c = me->contest;
    for (int i = 0; i < 20000; i++) {
        if (mlar_arena_hold(c->arena, me, c->plan, NULL) != MLAR_OK) continue;
        me->overlaps += c->inside++ != 0;
        c->wins[me->number]++;
        c->inside--;
        me->overlaps += mlar_arena_drop(c->arena, me, NULL) != MLAR_OK;
    }
    return NULL;
}

static void test_holders_on_threads(void **state) {
    (void)state;
    mlar_plan plan = make_plan();
    mlar_arena_core arena = open_caller(block, sizeof block);
    contest c = {.arena = &arena, .plan = &plan};
    contestant people[4];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        people[i] = (contestant){.contest = &c, .number = i};
        assert_int_equal(pthread_create(&threads[i], NULL, contend, &people[i]), 0);
    }
    int wins = 0;
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(people[i].overlaps, 0);
        wins += c.wins[i];
    }
    assert_true(wins > 0);
    assert_int_equal(mlar_arena_close(&arena, NULL), MLAR_OK);
}

static void test_malloc_source(void **state) {
    (void)state;
    static const uint64_t aligns[] = {1, 8, 256, 4096, 65536};
    mlar_diag diag = {.struct_size = sizeof diag};
    const mlar_arena_source source = mlar_arena_source_malloc();
    for (size_t i = 0; i < sizeof aligns / sizeof aligns[0]; i++) {
        mlar_arena_core arena;
        assert_int_equal(mlar_arena_open(&arena, &source, 4352, aligns[i], &diag), MLAR_OK);
        assert_true((uintptr_t)arena.base % aligns[i] == 0);
        memset(arena.base, 1, 4352);
        assert_int_equal(mlar_arena_close(&arena, &diag), MLAR_OK);
        assert_int_equal(mlar_arena_close(&arena, &diag), MLAR_OK); /* closing twice is fine */
    }
    mlar_arena_core arena;
    assert_int_equal(mlar_arena_open(&arena, &source, INT64_MAX, 256, &diag), MLAR_ERROR_OUT_OF_MEMORY);
    assert_int_equal(diag.needed, INT64_MAX);
}

static void test_bad_calls(void **state) {
    (void)state;
    mlar_plan plan = make_plan();
    mlar_diag diag = {.struct_size = sizeof diag};
    mlar_arena_core arena, untouched;
    memset(&arena, 0xab, sizeof arena);
    memset(&untouched, 0xab, sizeof untouched);
    mlar_caller_memory memory = {block, 4096};
    const mlar_arena_source source = mlar_arena_source_caller(&memory, true);
    assert_int_equal(mlar_arena_open(NULL, &source, 1, 1, &diag), MLAR_ERROR_ARGUMENT);
    assert_int_equal(mlar_arena_open(&arena, NULL, 1, 1, &diag), MLAR_ERROR_ARGUMENT);
    assert_int_equal(mlar_arena_open(&arena, &source, 1, 0, &diag), MLAR_ERROR_ARGUMENT);
    assert_int_equal(mlar_arena_open(&arena, &source, 1, 24, &diag), MLAR_ERROR_ARGUMENT);
    assert_int_equal(mlar_arena_open(&arena, &source, (uint64_t)1 << 63, 1, &diag), MLAR_ERROR_OVERFLOW);
    assert_int_equal(mlar_arena_open(&arena, &source, UINT64_MAX, 1, &diag), MLAR_ERROR_OVERFLOW);
    assert_int_equal(mlar_arena_open(&arena, &source, 4097, 1, &diag), MLAR_ERROR_MEMORY_SIZE);
    assert_int_equal(diag.needed, 4097);
    mlar_caller_memory nowhere = {NULL, 4096};
    const mlar_arena_source null_source = mlar_arena_source_caller(&nowhere, true);
    assert_int_equal(mlar_arena_open(&arena, &null_source, 4096, 1, &diag), MLAR_ERROR_ARGUMENT);
    mlar_caller_memory wraps = {block, INT64_MAX};
    wraps.base = (void *)(UINTPTR_MAX - 4094);
    const mlar_arena_source wrapping_source = mlar_arena_source_caller(&wraps, false);
    assert_int_equal(mlar_arena_open(&arena, &wrapping_source, 4096, 1, &diag), MLAR_ERROR_ARGUMENT);
    assert_memory_equal(&arena, &untouched, sizeof arena);

    assert_int_equal(mlar_arena_hold(NULL, &engine_a, &plan, &diag), MLAR_ERROR_ARGUMENT);
    arena = open_caller(block, sizeof block);
    assert_int_equal(mlar_arena_hold(&arena, NULL, &plan, &diag), MLAR_ERROR_ARGUMENT);
    assert_int_equal(mlar_arena_hold(&arena, &engine_a, NULL, &diag), MLAR_ERROR_ARGUMENT);
    assert_int_equal(mlar_arena_drop(&arena, NULL, &diag), MLAR_ERROR_ARGUMENT);
    assert_int_equal(mlar_arena_drop(NULL, &engine_a, &diag), MLAR_ERROR_ARGUMENT);
    assert_int_equal(mlar_arena_close(NULL, &diag), MLAR_ERROR_ARGUMENT);
    mlar_arena_core zeroed;
    memset(&zeroed, 0, sizeof zeroed);
    assert_int_equal(mlar_arena_close(&zeroed, &diag), MLAR_OK);
    assert_int_equal(mlar_arena_hold(&zeroed, &engine_a, &plan, &diag), MLAR_ERROR_MEMORY_SIZE);
}

static void test_empty_arena(void **state) {
    (void)state;
    mlar_plan plan;
    mlar_arena_core arena;
    const mlar_arena_source source = mlar_arena_source_malloc();
    assert_int_equal(mlar_plan_make(&requests[NONE], 1, 256, &plan, NULL), MLAR_OK);
    assert_int_equal(mlar_arena_open(&arena, &source, 0, 256, NULL), MLAR_OK);
    assert_null(arena.base);
    assert_int_equal(mlar_arena_hold(&arena, &engine_a, &plan, NULL), MLAR_OK);
    mlar_arena_enter_stage(&arena, 0);
    assert_null(mlar_arena_pointer(&arena, 0));
    assert_int_equal(mlar_arena_drop(&arena, &engine_a, NULL), MLAR_OK);
    assert_int_equal(mlar_arena_close(&arena, NULL), MLAR_OK);
}

/* Device memory stands at an address where the host has nothing: any touch would fault. */
static void test_device_memory_is_never_touched(void **state) {
    (void)state;
    mlar_plan plan = make_plan();
    mlar_caller_memory memory = {(void *)(uintptr_t)0x7fff00000000u, 65536};
    const mlar_arena_source source = mlar_arena_source_caller(&memory, false);
    mlar_arena_core arena;
    assert_int_equal(mlar_arena_open(&arena, &source, 65536, 256, NULL), MLAR_OK);
    assert_int_equal(mlar_arena_hold(&arena, &engine_a, &plan, NULL), MLAR_OK);
    for (int32_t stage = MLAR_STAGE_ANY; stage < 4; stage++) mlar_arena_enter_stage(&arena, stage);
    assert_ptr_equal(mlar_arena_pointer(&arena, GATHER), (unsigned char *)memory.base + 256);
    assert_int_equal(mlar_arena_drop(&arena, &engine_a, NULL), MLAR_OK);
    assert_int_equal(mlar_arena_close(&arena, NULL), MLAR_OK);
}

#if defined(MLAR_SHADOW_ADDRESS)
static bool hidden(const unsigned char *at) {
    return __asan_address_is_poisoned(at) != 0;
}

static void test_stages_for_the_address_sanitizer(void **state) {
    (void)state;
    mlar_plan plan = make_plan();
    mlar_arena_core arena = open_caller(block, plan.total_bytes + 512);
    assert_int_equal(mlar_arena_hold(&arena, &engine_a, &plan, NULL), MLAR_OK);
    assert_false(hidden(block + 64)); /* before the first stage all is open */
    static const struct {
        int32_t stage;
        int32_t open_bytes; /* of the place that gather and partial share */
    } cases[] = {{0, 4000}, {1, 4000}, {2, 3000}, {3, 0}, {MLAR_STAGE_BETWEEN, 0}, {0, 4000}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mlar_arena_enter_stage(&arena, cases[i].stage);
        assert_false(hidden(block) || hidden(block + 63)); /* persistent */
        assert_true(hidden(block + 64) && hidden(block + 255));
        for (int32_t byte = 0; byte < 4096; byte++) {
            assert_int_equal(hidden(block + 256 + byte), byte >= cases[i].open_bytes);
        }
        assert_true(hidden(block + plan.total_bytes) && hidden(block + plan.total_bytes + 511));
    }
    assert_int_equal(mlar_arena_drop(&arena, &engine_a, NULL), MLAR_OK);
    for (uint64_t byte = 0; byte < plan.total_bytes + 512; byte++) assert_false(hidden(block + byte));
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pointers),
        cmocka_unit_test(test_exact_size),
        cmocka_unit_test(test_misaligned_base_is_refused),
        cmocka_unit_test(test_one_holder),
        cmocka_unit_test(test_holders_on_threads),
        cmocka_unit_test(test_malloc_source),
        cmocka_unit_test(test_bad_calls),
        cmocka_unit_test(test_empty_arena),
        cmocka_unit_test(test_device_memory_is_never_touched),
#if defined(MLAR_SHADOW_ADDRESS)
        cmocka_unit_test(test_stages_for_the_address_sanitizer),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
