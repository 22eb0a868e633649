/* SPDX-License-Identifier: Apache-2.0
 *
 * test_pages.c: nothing is read but what a step needs. Every input lies on pages of its own, and every page
 * without a byte that counts is inaccessible: cache pages that no counting entry references, list entries
 * past a row's length, lists and queries of rows that are not live. A read elsewhere is a fault. */
#define _GNU_SOURCE /* mmap */
#include "tests/support/check.h"
#include "tests/support/engine_case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct pages {
    uint8_t *map;
    size_t bytes, page;
    uint8_t *needed; /* by page */
} pages;

/* Copies an input to the end of a map of its own, and points the layer at the copy. */
static pages move(step_case *made, const case_buffer *buffer) {
    pages p = {.page = (size_t)sysconf(_SC_PAGESIZE)};
    const size_t inner = (buffer->bytes + p.page - 1) / p.page * p.page;
    p.bytes = inner + p.page; /* one page behind, which nobody needs */
    p.map = mmap(NULL, p.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p.map != MAP_FAILED);
    p.needed = calloc(p.bytes / p.page, 1);
    assert_non_null(p.needed);
    /* Alignment decides between load paths: caches keep theirs, the others end where the next page begins. */
    const int cache = strstr(buffer->name, "cache") != NULL;
    uint8_t *to = p.map + (cache ? 0 : (inner - buffer->bytes) / 16 * 16);
    memcpy(to, buffer->memory, buffer->bytes);
    case_point(&made->layer, buffer, to);
    return p;
}

static void need(pages *p, const void *at, uint64_t bytes) {
    const size_t first = (size_t)((const uint8_t *)at - p->map);
    for (size_t i = first / p->page; bytes > 0 && i <= (first + bytes - 1) / p->page; i++) p->needed[i] = 1;
}

static int64_t protect(pages *p, int protection) {
    int64_t count = 0;
    for (size_t i = 0; i < p->bytes / p->page; i++) {
        if (p->needed[i]) continue;
        assert_int_equal(mprotect(p->map + i * p->page, p->page, protection), 0);
        count++;
    }
    return count;
}

/* The row's list, by SPEC section 4. */
static int32_t length_of(const mlar_scope_params *scope, int32_t row, const int32_t **entries) {
    if (scope->list_form == MLAR_LIST_RAGGED) {
        const int32_t length = scope->lens[row + 1] - scope->lens[row];
        *entries = scope->indices + scope->lens[row];
        return length < 0 ? 0 : length > scope->width ? scope->width : length;
    }
    *entries = scope->indices + row * scope->index_row_stride;
    if (scope->lens == NULL) return scope->width;
    const int32_t length = scope->lens[row / scope->rows_per_len];
    return length < 0 ? 0 : length > scope->width ? scope->width : length;
}

/* What a scope's live rows need of its list and of its cache. */
static void need_scope(const step_case *made, int32_t s, pages *cache, pages *indices, pages *lens) {
    const mlar_scope_params *scope = &made->layer.scope[s];
    const int32_t rows = made->spec.rows, ragged = scope->list_form == MLAR_LIST_RAGGED;
    if (lens != NULL && rows > 0)
        need(lens, scope->lens, 4 * (uint64_t)(ragged ? rows + 1 : (rows - 1) / scope->rows_per_len + 1));
    for (int32_t row = 0; row < rows; row++) {
        const int32_t *entries = NULL;
        const int32_t length = length_of(scope, row, &entries);
        if (length > 0) need(indices, entries, 4 * (uint64_t)length);
        for (int32_t j = 0; j < length; j++) {
            if (entries[j] < 0 || entries[j] >= (int64_t)scope->num_slots) continue;
            const uint64_t block = (uint32_t)entries[j] / scope->block_size;
            const uint64_t offset = (uint32_t)entries[j] % scope->block_size;
            const uint8_t *begin = scope->cache + block * scope->block_stride_bytes;
            need(cache, begin + offset * scope->record_bytes, scope->record_bytes);
            if (scope->layout == MLAR_LAYOUT_DSV4)
                need(cache, begin + scope->scale_offset_bytes + 8 * offset, 8);
        }
    }
}

static pages *find(const step_case *made, pages *all, const char *name) {
    for (int32_t i = 0; i < made->buffer_count; i++)
        if (strcmp(made->buffers[i].name, name) == 0) return &all[i];
    return NULL;
}

static void need_all(const step_case *made, pages *all) {
    const mlar_layer_params *layer = &made->layer;
    for (int32_t s = 0; s < made->spec.scope_count; s++) {
        const int ragged = layer->scope[s].list_form == MLAR_LIST_RAGGED;
        need_scope(
            made, s, find(made, all, s ? "extra_cache" : "window_cache"),
            find(made, all, s ? "extra_indices" : "window_indices"),
            find(made, all,
                 ragged ? (s ? "extra_indptr" : "window_indptr") : (s ? "extra_lens" : "window_lens")));
    }
    if (layer->sink != NULL) need(find(made, all, "sink"), layer->sink, 4 * (uint64_t)made->spec.heads);
    for (int32_t row = 0; row < made->spec.rows; row++)
        for (int32_t head = 0; head < made->spec.heads; head++)
            need(find(made, all, "q"), layer->q + row * layer->q_row_stride + head * layer->q_head_stride,
                 2 * (uint64_t)made->shape.d_qk);
}

/* Returns how many pages of caches nobody may touch. */
static int64_t run_seed(const case_spec *spec, int32_t strategy, int32_t policy, int32_t rows) {
    step_case *made = case_new(spec);
    pages all[CASE_MAX_BUFFERS] = {0};
    char line[400];
    int64_t closed = 0;
    if (rows >= 0 && rows < made->spec.rows) made->spec.rows = rows;
    reference *expected = reference_new(&made->layer, &made->shape, made->spec.rows);
    for (int32_t i = 0; i < made->buffer_count; i++)
        if (!made->buffers[i].is_output) all[i] = move(made, &made->buffers[i]);
    need_all(made, all);
    mlar_config config = engine_case_config((const step_case *const *)&made, 1);
    config.strategy = strategy;
    config.policy = policy;
    config.threads = 2;
    engine_case *run = engine_case_open(&config);
    for (int32_t i = 0; i < made->buffer_count; i++) {
        if (made->buffers[i].is_output) continue;
        const int64_t count = protect(&all[i], PROT_NONE);
        if (strstr(made->buffers[i].name, "cache")) closed += count - 1;
    }
    mlar_program *program = engine_case_capture(run, 0, made, spec->capacity_rows);
    for (int32_t replayed = 0; replayed < 2; replayed++) {
        check_result result;
        if (replayed)
            engine_case_replay(run, program, 0, made, made->spec.rows);
        else
            engine_case_eager(run, 0, made);
        if (!check_step(made, expected, &check_spec, &result))
            fail_msg("%s\n%s", result.message, case_describe(spec, line, sizeof line));
    }
    engine_case_close(run);
    for (int32_t i = 0; i < made->buffer_count; i++) {
        if (made->buffers[i].is_output) continue;
        assert_int_equal(munmap(all[i].map, all[i].bytes), 0);
        free(all[i].needed);
    }
    reference_free(expected);
    case_free(made);
    return closed;
}

/* Few entries over many blocks, so that most of the pool's pages are closed. */
static void test_only_what_counts_is_read(void **state) {
    (void)state;
    int64_t closed = 0;
    const case_bounds bounds = {.rows = 4, .heads = 4, .width = 60};
    const uint64_t seeds = SANITIZED ? 6 : 20;
    for (uint64_t seed = 1; seed <= seeds; seed++)
        for (int32_t way = 0; way < 4; way++) {
            case_spec spec = case_draw(seed, CASE_ALL & ~(uint32_t)CASE_OVERFLOWS, &bounds);
            engine_case_unmix(&spec);
            for (int32_t s = 0; s < spec.scope_count; s++)
                spec.scope[s].num_blocks += 2000 / spec.scope[s].block_size;
            closed += run_seed(&spec, way & 1 ? MLAR_STRATEGY_GATHER : MLAR_STRATEGY_DIRECT, way >> 1, -1);
        }
    assert_true(closed > 1000);
}

/* A step with fewer rows than the lists are made for, and one without any. */
static void test_rows_that_are_not_live_are_not_read(void **state) {
    (void)state;
    for (int32_t way = 0; way < 4; way++)
        for (int32_t rows = 0; rows < 3; rows++) {
            case_spec spec = engine_case_spec(3, 40, 40, 700, 1500);
            spec.nope = 448;
            spec.rope = 64;
            (void)run_seed(&spec, way & 1 ? MLAR_STRATEGY_GATHER : MLAR_STRATEGY_DIRECT, way >> 1, rows);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_what_counts_is_read),
        cmocka_unit_test(test_rows_that_are_not_live_are_not_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
