/* SPDX-License-Identifier: Apache-2.0
 *
 * test_bindings.c: every way in which bindings can be wrong, through capture, enqueue and rebind: the status,
 * the field, and an engine that goes on as if nothing had been asked. */
#include "tests/support/check.h"
#include "tests/support/engine_case.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 3 };

typedef struct fixture {
    step_case *made;
    engine_case *run;
    uint8_t *right; /* what a good step writes */
} fixture;

static int set_up(void **state) {
    static fixture f;
    case_spec spec = engine_case_spec(3, ROWS, ROWS, 40, 100);
    spec.q_head_extra = spec.out_head_extra = 8;
    f.made = case_new(&spec);
    mlar_config config = engine_case_config((const step_case *const *)&f.made, 1);
    config.policy = MLAR_POLICY_BATCH_INVARIANT;
    f.run = engine_case_open(&config);
    engine_case_eager(f.run, 0, f.made);
    f.right = engine_case_take(f.made);
    *state = &f;
    return 0;
}

static int tear_down(void **state) {
    fixture *f = *state;
    engine_case_close(f->run);
    case_free(f->made);
    free(f->right);
    return 0;
}

static void still_right(fixture *f) {
    engine_case_eager(f->run, 0, f->made);
    engine_case_same(f->made, f->right, "after a refused binding");
    assert_int_equal(engine_case_stats(f->run).programs, 0);
}

/* Tries one set of bindings everywhere; `only_capture` leaves out what rebind and enqueue cannot see. */
static void refused(fixture *f, mlar_status status, const char *field, const mlar_bindings *bindings) {
    mlar_step step = {.struct_size = sizeof step, .rows = ROWS};
    mlar_diag diag;
    mlar_program *program = (mlar_program *)(uintptr_t)1;
    MUST_NAME(status, field, diag,
              mlar_engine_capture(f->run->engine, 0, bindings, 1, ROWS, &program, &diag));
    assert_null(program);
    MUST_BE(status, mlar_engine_capture(f->run->engine, 0, bindings, 1, ROWS, &program, NULL));
    case_poison_outputs(f->made);
    MUST_NAME(status, field, diag,
              mlar_engine_enqueue(f->run->engine, 0, bindings, ROWS, &step, NULL, &diag));
    assert_true(check_untouched_beyond(f->made, 0));
    program = engine_case_capture(f->run, 0, f->made, ROWS);
    MUST_NAME(status, field, diag, mlar_program_rebind(program, 0, bindings, NULL, &diag));
    engine_case_replay(f->run, program, 0, f->made, ROWS);
    engine_case_same(f->made, f->right, "replay after a refused rebind");
    MUST(mlar_program_destroy(program));
}

/* ---- one field at a time --------------------------------------------------------------------------- */

typedef void (*spoil)(mlar_bindings *b);

#define SPOIL(name, ...)                                                                                     \
    static void name(mlar_bindings *b) {                                                                     \
        __VA_ARGS__;                                                                                         \
    }
#define MOVE(pointer, by) (pointer) = (void *)((uintptr_t)(pointer) + (uintptr_t)(by))

SPOIL(out_type_high, b->out_type = 2)
SPOIL(out_type_low, b->out_type = -1)
SPOIL(tail_high, b->tail = 2)
SPOIL(tail_low, b->tail = -1)
SPOIL(scale_nan, b->scale = NAN)
SPOIL(scale_inf, b->scale = INFINITY)
SPOIL(scale_minus_inf, b->scale = -INFINITY)
SPOIL(q_null, b->q = NULL)
SPOIL(q_8, MOVE(b->q, 8))
SPOIL(q_1, MOVE(b->q, 1))
SPOIL(q_row_stride_odd, b->q_row_stride += 4)
SPOIL(q_row_stride_negative, b->q_row_stride = -b->q_row_stride)
SPOIL(q_row_stride_huge, b->q_row_stride = ((int64_t)1 << 40) + 8)
SPOIL(q_head_stride_odd, b->q_head_stride += 1)
SPOIL(q_head_stride_least, b->q_head_stride = INT64_MIN)
SPOIL(out_null, b->out = NULL)
SPOIL(out_2, MOVE(b->out, 2))
SPOIL(out_row_stride_odd, b->out_row_stride += 4)
SPOIL(out_row_stride_short, b->out_row_stride = 64)
SPOIL(out_head_stride_short, b->out_head_stride = 64)
SPOIL(out_head_stride_zero, b->out_head_stride = 0)
SPOIL(out_rows_overlap, b->out_row_stride = b->out_head_stride * 3)
SPOIL(out_heads_overlap, b->out_row_stride = 72; b->out_head_stride = 72)
SPOIL(out_huge, b->out_row_stride = INT64_MAX)
SPOIL(lse_1, MOVE(b->lse, 1))
SPOIL(lse_row_stride_zero, b->lse_row_stride = 0)
SPOIL(lse_rows_overlap, b->lse_row_stride = 2)
SPOIL(lse_head_stride_negative, b->lse_head_stride = -1)
SPOIL(sink_2, MOVE(b->attn_sink, 2))
SPOIL(cache_null, b->cache[0].base = NULL)
SPOIL(cache_odd, MOVE(b->cache[1].base, 1))
SPOIL(stride_short, b->cache[0].block_stride_bytes = 16 * (64 + 16 + 8) - 2)
SPOIL(stride_zero, b->cache[1].block_stride_bytes = 0)
SPOIL(stride_odd, b->cache[1].block_stride_bytes += 1)
SPOIL(stride_overflow, b->cache[1].block_stride_bytes = UINT64_MAX - 1)
SPOIL(blocks_negative, b->cache[0].num_blocks = -1)
SPOIL(blocks_2_to_40, b->cache[1].num_blocks = (int64_t)1 << 40)
SPOIL(blocks_slots, b->cache[0].num_blocks = (int64_t)1 << 27) /* x 16 = 2^31 */
SPOIL(block_size_0, b->cache[0].block_size = 0)
SPOIL(block_size_negative, b->cache[1].block_size = -16)
SPOIL(block_size_high, b->cache[1].block_size = 65537)
SPOIL(cache_reserved, b->cache[1].reserved = 1)
SPOIL(list_reserved, b->list[1].reserved = -1)
SPOIL(indices_null, b->list[0].indices = NULL)
SPOIL(indices_2, MOVE(b->list[1].indices, 2))
SPOIL(lens_1, MOVE(b->list[1].lens, 1))
SPOIL(row_stride_short, b->list[1].row_stride = 99)
SPOIL(row_stride_negative, b->list[0].row_stride = -40)
SPOIL(row_stride_huge, b->list[0].row_stride = INT64_MAX)
SPOIL(rows_per_len_0, b->list[0].rows_per_len = 0)
SPOIL(rows_per_len_negative, b->list[1].rows_per_len = INT32_MIN)
SPOIL(form_2, b->list[1].form = 2)
SPOIL(form_negative, b->list[0].form = -1)
SPOIL(indptr_null, b->list[0].form = MLAR_LIST_RAGGED)
SPOIL(indptr_2, b->list[1].form = MLAR_LIST_RAGGED; b->list[1].indptr = b->list[1].lens;
      MOVE(b->list[1].indptr, 2))
SPOIL(size_small, b->struct_size = sizeof *b - 1)
SPOIL(size_0, b->struct_size = 0)
SPOIL(out_over_q, b->out = (void *)(uintptr_t)b->q)
SPOIL(lse_over_out, b->lse = b->out)
SPOIL(lse_over_sink, b->lse = (float *)(uintptr_t)b->attn_sink)
SPOIL(lse_over_q, b->lse = (float *)(uintptr_t)b->q)
SPOIL(out_over_cache, b->out = (void *)(uintptr_t)b->cache[1].base)
SPOIL(out_ends_in_cache, b->out = (void *)((uintptr_t)b->cache[0].base - 16))
SPOIL(lse_over_indices, b->lse = (float *)(uintptr_t)b->list[1].indices)
SPOIL(lse_over_lens, b->lse = (float *)(uintptr_t)b->list[0].lens)

static const struct wrong {
    const char *name;
    spoil spoil;
    mlar_status status;
    const char *field;
} wrongs[] = {
#define ROW(name, field)                                                                                     \
    { #name, name, MLAR_ERROR_BINDING, field }
#define OVER(name, field)                                                                                    \
    { #name, name, MLAR_ERROR_OVERLAP, field }
    ROW(out_type_high, "out_type"),
    ROW(out_type_low, "out_type"),
    ROW(tail_high, "tail"),
    ROW(tail_low, "tail"),
    ROW(scale_nan, "scale"),
    ROW(scale_inf, "scale"),
    ROW(scale_minus_inf, "scale"),
    ROW(q_null, "q"),
    ROW(q_8, "q"),
    ROW(q_1, "q"),
    ROW(q_row_stride_odd, "q_row_stride"),
    ROW(q_row_stride_negative, "q_row_stride"),
    ROW(q_row_stride_huge, "q_row_stride"),
    ROW(q_head_stride_odd, "q_head_stride"),
    ROW(q_head_stride_least, "q_head_stride"),
    ROW(out_null, "out"),
    ROW(out_2, "out"),
    ROW(out_row_stride_odd, "out_row_stride"),
    ROW(out_row_stride_short, "out_row_stride"),
    ROW(out_head_stride_short, "out_head_stride"),
    ROW(out_head_stride_zero, "out_head_stride"),
    ROW(out_rows_overlap, "out_row_stride"),
    ROW(out_heads_overlap, "out_row_stride"),
    ROW(out_huge, "out_row_stride"),
    ROW(lse_1, "lse"),
    ROW(lse_row_stride_zero, "lse_row_stride"),
    ROW(lse_rows_overlap, "lse_row_stride"),
    ROW(lse_head_stride_negative, "lse_head_stride"),
    ROW(sink_2, "attn_sink"),
    ROW(cache_null, "cache[0].base"),
    ROW(cache_odd, "cache[1].base"),
    ROW(stride_short, "cache[0].block_stride_bytes"),
    ROW(stride_zero, "cache[1].block_stride_bytes"),
    ROW(stride_odd, "cache[1].block_stride_bytes"),
    ROW(stride_overflow, "cache[1].block_stride_bytes"),
    ROW(blocks_negative, "cache[0].num_blocks"),
    ROW(blocks_2_to_40, "cache[1].num_blocks"),
    ROW(blocks_slots, "cache[0].num_blocks"),
    ROW(block_size_0, "cache[0].block_size"),
    ROW(block_size_negative, "cache[1].block_size"),
    ROW(block_size_high, "cache[1].block_size"),
    ROW(cache_reserved, "cache[1].reserved"),
    ROW(indices_null, "list[0].indices"),
    ROW(indices_2, "list[1].indices"),
    ROW(lens_1, "list[1].lens"),
    ROW(row_stride_short, "list[1].row_stride"),
    ROW(row_stride_negative, "list[0].row_stride"),
    ROW(row_stride_huge, "list[0].row_stride"),
    ROW(rows_per_len_0, "list[0].rows_per_len"),
    ROW(rows_per_len_negative, "list[1].rows_per_len"),
    ROW(list_reserved, "list[1].reserved"),
    {"form_2", form_2, MLAR_ERROR_UNSUPPORTED, "list[1].form"},
    {"form_negative", form_negative, MLAR_ERROR_UNSUPPORTED, "list[0].form"},
    ROW(indptr_null, "list[0].indptr"),
    ROW(indptr_2, "list[1].indptr"),
    {"size_small", size_small, MLAR_ERROR_STRUCT_SIZE, "bindings.struct_size"},
    {"size_0", size_0, MLAR_ERROR_STRUCT_SIZE, "bindings.struct_size"},
    OVER(out_over_q, "out"),
    OVER(out_over_cache, "out"),
    OVER(out_ends_in_cache, "out"),
    OVER(lse_over_out, "lse"),
    OVER(lse_over_sink, "lse"),
    OVER(lse_over_q, "lse"),
    OVER(lse_over_indices, "lse"),
    OVER(lse_over_lens, "lse"),
#undef ROW
#undef OVER
};

static void test_every_rejection(void **state) {
    fixture *f = *state;
    for (size_t i = 0; i < sizeof wrongs / sizeof *wrongs; i++) {
        mlar_bindings bindings = case_bindings(&f->made->layer);
        print_message("    %s\n", wrongs[i].name);
        wrongs[i].spoil(&bindings);
        refused(f, wrongs[i].status, wrongs[i].field, &bindings);
    }
    still_right(f);
}

/* Outputs must stay clear of every byte of the arena, the part behind the plan included. */
static void test_outputs_in_the_arena(void **state) {
    fixture *f = *state;
    const uint64_t last = f->run->memory.device_bytes - 16;
    mlar_bindings bindings = case_bindings(&f->made->layer);
    const uintptr_t base = (uintptr_t)f->run->arena_memory;
    bindings.out = (void *)base;
    refused(f, MLAR_ERROR_OVERLAP, "out", &bindings);
    bindings.out = (void *)(base + last);
    refused(f, MLAR_ERROR_OVERLAP, "out", &bindings);
    bindings = case_bindings(&f->made->layer);
    bindings.lse = (float *)(base + last);
    refused(f, MLAR_ERROR_OVERLAP, "lse", &bindings);
    still_right(f);
}

/* A framework's tensor of one row may have any stride in front; whoever asks for one row never multiplies by it. */
static void test_one_row_has_no_stride(void **state) {
    fixture *f = *state;
    mlar_bindings bindings = case_bindings(&f->made->layer), usual = bindings;
    const mlar_step step = {.struct_size = sizeof step, .rows = 1};
    const int64_t strides[] = {0, 1, -7, INT64_MAX, INT64_MIN};
    mlar_diag diag;
    case_poison_outputs(f->made);
    MUST(mlar_engine_prepare(f->run->engine, 0, &usual, &step, NULL, &diag));
    MUST(mlar_engine_enqueue(f->run->engine, 0, &usual, 1, &step, NULL, &diag));
    uint8_t *right = engine_case_take(f->made);
    for (size_t i = 0; i < sizeof strides / sizeof *strides; i++) {
        bindings.list[0].row_stride = bindings.list[1].row_stride = strides[i];
        case_poison_outputs(f->made);
        MUST(mlar_engine_prepare(f->run->engine, 0, &bindings, &step, NULL, &diag));
        MUST(mlar_engine_enqueue(f->run->engine, 0, &bindings, 1, &step, NULL, &diag));
        engine_case_same(f->made, right, "another stride");
    }
    free(right);
    still_right(f);
}

/* A layer captured where 16 bytes cannot be loaded at once stays such a layer, and knows what it is bound to. */
static void test_a_rebind_to_the_same_costs_nothing(void **state) {
    fixture *f = *state;
    for (int shift = 0; shift <= 2; shift += 2) {
        const mlar_bindings bindings = case_bindings(&f->made->layer);
        mlar_bindings captured = bindings;
        mlar_program *program = NULL;
        captured.cache[0].base = (const char *)bindings.cache[0].base + shift; /* captured, not run */
        MUST(mlar_engine_capture(f->run->engine, 0, &captured, 1, ROWS, &program, NULL));
        MUST(mlar_program_rebind(program, 0, &bindings, NULL, NULL));
        const uint64_t before = engine_case_stats(f->run).set_blocks;
        for (int i = 0; i < 3; i++) MUST(mlar_program_rebind(program, 0, &bindings, NULL, NULL));
        assert_int_equal(engine_case_stats(f->run).set_blocks, before);
        MUST(mlar_program_destroy(program));
    }
}

static void test_a_nonzero_tail_is_refused(void **state) {
    fixture *f = *state;
    struct {
        mlar_bindings bindings;
        unsigned char tail[8];
    } longer = {.bindings = case_bindings(&f->made->layer)};
    mlar_step step = {.struct_size = sizeof step, .rows = ROWS};
    longer.bindings.struct_size = sizeof longer;
    MUST(mlar_engine_enqueue(f->run->engine, 0, &longer.bindings, ROWS, &step, NULL, NULL));
    longer.tail[7] = 1;
    refused(f, MLAR_ERROR_STRUCT_SIZE, "bindings.struct_size", &longer.bindings);
    still_right(f);
}

/* What is not used is not looked at. */
static void test_what_may_be_absent(void **state) {
    fixture *f = *state;
    mlar_bindings bindings = case_bindings(&f->made->layer);
    mlar_step step = {.struct_size = sizeof step, .rows = ROWS};
    bindings.lse = NULL;
    bindings.lse_row_stride = -5;
    bindings.attn_sink = NULL;
    bindings.list[0].lens = NULL;
    MUST(mlar_engine_enqueue(f->run->engine, 0, &bindings, ROWS, &step, NULL, NULL));
    bindings.cache[0].num_blocks = 0; /* an empty pool: every index is past it */
    bindings.cache[0].base = NULL;
    MUST(mlar_engine_enqueue(f->run->engine, 0, &bindings, ROWS, &step, NULL, NULL));
    bindings.q_row_stride = bindings.q_head_stride = 0; /* one query for all */
    MUST(mlar_engine_enqueue(f->run->engine, 0, &bindings, ROWS, &step, NULL, NULL));
    bindings = case_bindings(&f->made->layer);
    bindings.list[0].row_stride = 0; /* a single row needs no strides */
    bindings.q_row_stride = bindings.out_row_stride = 3;
    step.rows = 1;
    MUST(mlar_engine_enqueue(f->run->engine, 0, &bindings, 1, &step, NULL, NULL));
    still_right(f);
}

/* ---- rebinding keeps the shape ---------------------------------------------------------------------- */

SPOIL(more_q_row_stride, b->q_row_stride += 8)
SPOIL(more_q_head_stride, b->q_head_stride -= 8)
SPOIL(less_out_head_stride, b->out_head_stride -= 8)
SPOIL(no_lse, b->lse = NULL)
SPOIL(no_sink, b->attn_sink = NULL)
SPOIL(other_tail, b->tail = MLAR_TAIL_UNTOUCHED)
SPOIL(more_row_stride, b->list[1].row_stride += 1)
SPOIL(other_rows_per_len, b->list[0].rows_per_len = 2)
SPOIL(other_block_size, b->cache[0].block_size = 8)
SPOIL(other_stride, b->cache[1].block_stride_bytes += 16; b->cache[1].num_blocks = 1)
SPOIL(narrow_cache, MOVE(b->cache[1].base, 2))
SPOIL(other_form, b->list[0].form = MLAR_LIST_RAGGED; b->list[0].indptr = b->list[0].lens)

static void test_rebind_keeps_the_shape(void **state) {
    fixture *f = *state;
    static const struct {
        spoil spoil;
        const char *field;
    } rows[] = {
        {more_q_row_stride, "q_row_stride"},
        {more_q_head_stride, "q_head_stride"},
        {less_out_head_stride, "out_head_stride"},
        {no_lse, "lse"},
        {no_sink, "attn_sink"},
        {other_tail, "tail"},
        {more_row_stride, "list[1].row_stride"},
        {other_rows_per_len, "list[0].rows_per_len"},
        {other_block_size, "cache[0].block_size"},
        {other_stride, "cache[1].block_stride_bytes"},
        {other_form, "list[0].form"},
        {narrow_cache, "cache[1].base"}, /* the captured kernel may load 16 bytes at a time */
    };
    mlar_program *program = engine_case_capture(f->run, 0, f->made, ROWS);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        mlar_bindings bindings = case_bindings(&f->made->layer);
        mlar_diag diag;
        rows[i].spoil(&bindings);
        MUST_NAME(MLAR_ERROR_BINDING, rows[i].field, diag,
                  mlar_program_rebind(program, 0, &bindings, NULL, &diag));
        engine_case_replay(f->run, program, 0, f->made, ROWS);
        engine_case_same(f->made, f->right, rows[i].field);
    }
    mlar_bindings bindings = case_bindings(&f->made->layer);
    bindings.scale *= 2; /* these may change */
    bindings.cache[0].num_blocks = 1;
    MUST(mlar_program_rebind(program, 0, &bindings, NULL, NULL));
    MUST(mlar_program_destroy(program));
}

/* ---- mlar_bindings_init ----------------------------------------------------------------------------- */

static void test_defaults(void **state) {
    (void)state;
    mlar_config config;
    mlar_bindings bindings;
    MUST(mlar_config_preset(&config, "dsv4-flash", 8, NULL));
    config.max_rows = 4;
    MUST(mlar_bindings_init(&bindings, &config, 1));
    assert_int_equal(bindings.struct_size, sizeof bindings);
    assert_int_equal(bindings.q_row_stride, 8 * 512);
    assert_int_equal(bindings.out_head_stride, 512);
    assert_int_equal(bindings.lse_row_stride, 8);
    assert_true(fabs((double)bindings.scale - 1 / sqrt(512)) < 1e-8);
    assert_int_equal(bindings.list[1].row_stride, 512);
    assert_int_equal(bindings.list[0].row_stride, 128);
    assert_int_equal(bindings.cache[0].block_stride_bytes, 37440); /* vLLM's, for blocks of 64 */
    assert_int_equal(bindings.tail, MLAR_TAIL_ZERO);
    MUST_BE(MLAR_ERROR_ARGUMENT, mlar_bindings_init(&bindings, &config, 3));
    MUST_BE(MLAR_ERROR_ARGUMENT, mlar_bindings_init(&bindings, &config, -1));
    MUST_BE(MLAR_ERROR_ARGUMENT, mlar_bindings_init(NULL, &config, 0));
    MUST_BE(MLAR_ERROR_ARGUMENT, mlar_bindings_init(&bindings, NULL, 0));
    config.heads = 0;
    MUST_BE(MLAR_ERROR_CONFIG, mlar_bindings_init(&bindings, &config, 0));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_rejection),
        cmocka_unit_test(test_outputs_in_the_arena),
        cmocka_unit_test(test_a_nonzero_tail_is_refused),
        cmocka_unit_test(test_what_may_be_absent),
        cmocka_unit_test(test_rebind_keeps_the_shape),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_one_row_has_no_stride),
        cmocka_unit_test(test_a_rebind_to_the_same_costs_nothing),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
