/* SPDX-License-Identifier: Apache-2.0
 *
 * engine_case.h: an engine with its memory around the cases of cases.h, driven through the public API alone.
 *
 *     mlar_config config = engine_case_config(cases, count);       one layer kind for each case; change any
 * of it engine_case *run = engine_case_open(&config);                memory of exactly the queried bytes,
 * dirty engine_case_eager(run, kind, made);                          prepare and enqueue; outputs are in the
 * case engine_case_close(run);
 *
 * Whatever fails here fails the test that called it, with the library's own message. */
#ifndef TESTS_SUPPORT_ENGINE_CASE_H
#define TESTS_SUPPORT_ENGINE_CASE_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <mlarena/mlarena.h>

#include "tests/support/case_bindings.h"
#include "tests/support/cases.h"

/* Sanitizers take about ten times as long; they look for other things, and fewer steps show them. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* Statuses compared by name, so that a failure says more than a number. */
#define MUST_BE(status, call) assert_string_equal(mlar_status_name(call), mlar_status_name(status))
#define MUST(call)            MUST_BE(MLAR_OK, call)
#define DIAG_INIT                                                                                            \
    { .struct_size = sizeof(mlar_diag) }

/* A call that must fail with `wanted` and name `wanted_field` in a message that is not empty. */
#define MUST_NAME(wanted, wanted_field, diag, call)                                                          \
    do {                                                                                                     \
        (diag) = (mlar_diag)DIAG_INIT;                                                                       \
        MUST_BE(wanted, call);                                                                               \
        assert_string_equal((diag).field, wanted_field);                                                     \
        assert_int_equal((diag).status, wanted);                                                             \
        assert_int_not_equal((diag).message[0], 0);                                                          \
    } while (0)

typedef struct engine_case {
    mlar_config config;
    mlar_memory memory;
    mlar_arena arena;
    void *arena_memory, *host_memory;
    mlar_engine *engine;
} engine_case;

/* Small sizes: 64 + 8, 4 heads, block size 16, ordinary contents. extra = 0: a window only. */
case_spec engine_case_spec(uint64_t seed, int32_t rows, int32_t capacity_rows, int32_t window, int32_t extra);
/* SPEC's d_v follows from the layout, so an engine cannot mix v32 with others: makes all scopes v32 if one
 * is. */
void engine_case_unmix(case_spec *spec);

/* Kind k is for cases[k]; heads and head dims are those of cases[0]. max_rows is the largest capacity. */
mlar_config engine_case_config(const step_case *const *cases, int32_t count);

/* Queries, allocates to the byte (every byte 0xff), inits. */
engine_case *engine_case_open(const mlar_config *config);
void engine_case_close(engine_case *run);

/* One layer of one kind, captured for `capacity_rows`. */
mlar_program *engine_case_capture(engine_case *run, int32_t kind, const step_case *made,
                                  int32_t capacity_rows);
/* prepare and enqueue at the case's own rows and capacity. Outputs are poisoned first. */
void engine_case_eager(engine_case *run, int32_t kind, step_case *made);
/* step, prepare, replay; the same poison. */
void engine_case_replay(engine_case *run, mlar_program *program, int32_t kind, step_case *made, int32_t rows);
/* A fresh engine with this configuration, one eager step of kind 0, closed. */
void engine_case_fresh(const mlar_config *config, step_case *made);

/* All bytes of out and lse, to be compared and freed. */
size_t engine_case_output_bytes(const step_case *made);
uint8_t *engine_case_take(const step_case *made);
/* Fails with `what` at the first byte of the case's outputs that differs from `wanted`. */
void engine_case_same(const step_case *made, const uint8_t *wanted, const char *what);

mlar_stats engine_case_stats(engine_case *run);

#endif
