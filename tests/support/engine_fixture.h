/* SPDX-License-Identifier: Apache-2.0
 *
 * engine_fixture.h: one case, an engine around it, and what a right step of it writes. For test files that
 * use all of it, whence the definitions. */
#ifndef TESTS_SUPPORT_ENGINE_FIXTURE_H
#define TESTS_SUPPORT_ENGINE_FIXTURE_H

#include "tests/support/engine_case.h"

#include <stdlib.h>

enum { ROWS = 3, CAPACITY = 4 };

typedef struct fixture {
    step_case *made;
    engine_case *run;
    uint8_t *right;
    mlar_bindings bindings;
    mlar_step step;
} fixture;

static mlar_config config_of(step_case *made, int32_t policy) {
    mlar_config config = engine_case_config((const step_case *const *)&made, 1);
    config.policy = policy;
    return config;
}

static fixture open_with(const mlar_config *wanted) {
    fixture f = {.step = {.struct_size = sizeof f.step, .rows = ROWS}};
    case_spec spec = engine_case_spec(5, ROWS, CAPACITY, 40, 200);
    f.made = case_new(&spec);
    f.run = engine_case_open(wanted);
    f.bindings = case_bindings(&f.made->layer);
    engine_case_eager(f.run, 0, f.made);
    f.right = engine_case_take(f.made);
    return f;
}

static mlar_config any_config(int32_t policy) {
    case_spec spec = engine_case_spec(5, ROWS, CAPACITY, 40, 200);
    step_case *made = case_new(&spec);
    mlar_config config = config_of(made, policy);
    case_free(made);
    return config;
}

static fixture open_fixture(int32_t policy) {
    mlar_config config = any_config(policy);
    return open_with(&config);
}

static void close_fixture(fixture *f) {
    engine_case_close(f->run);
    case_free(f->made);
    free(f->right);
}

static void still_right(fixture *f, mlar_program *program) {
    engine_case_replay(f->run, program, 0, f->made, ROWS);
    engine_case_same(f->made, f->right, "replay");
    engine_case_eager(f->run, 0, f->made);
    engine_case_same(f->made, f->right, "eager");
}

#endif
