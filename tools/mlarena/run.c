/* SPDX-License-Identifier: Apache-2.0
 *
 * run.c: `mlarena run STEP`: one recorded decode step through the engine, compared with whatever the file
 * expects. */
#include "commands.h"
#include "configure.h"
#include "format.h"
#include "session.h"

#include "../stepfile/compare.h"
#include "../stepfile/stepfile.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_REPLAYS = 100, TIMED_STEPS = 25 };

/* One strategy's outcome. */
typedef struct outcome {
    int32_t strategy;
    stepfile_results results;
    compare_report report;
    double step_us, replay_us;
    uint64_t invalid, arena_bytes;
} outcome;

/* The step's tensors where the engine can read them. */
typedef struct tensors {
    void *q, *sink, *cache[MLAR_SCOPES], *indices[MLAR_SCOPES], *lens[MLAR_SCOPES], *out, *lse;
    uint64_t out_bytes, lse_bytes;
    uint16_t *padded_q;            /* a copy of q with padded heads, or NULL: the file's own does */
    uint32_t q_stride, out_stride; /* elements from head to head: a multiple of 16 bytes */
} tensors;

static const stepfile_scope *scope_of(const stepfile *step, int s) {
    return s == 0 ? &step->window : &step->extra;
}

static int scope_count(const stepfile *step) {
    return step->extra.present ? 2 : 1;
}

/* ---- configuration and bindings from the file ---- */

static int configure(const options *o, const stepfile *step, mlar_config *config) {
    (void)mlar_config_init(config);
    config->heads = (int32_t)step->heads;
    config->nope = (int32_t)step->nope;
    config->rope = (int32_t)step->rope;
    config->max_rows = step->rows > 0 ? (int32_t)step->rows : 1;
    config->max_programs = config->max_layers = 1;
    config->kind_count = 1;
    mlar_kind_config *kind = &config->kinds[0];
    kind->scope_count = scope_count(step);
    for (int s = 0; s < kind->scope_count; s++)
        kind->scope[s] = (mlar_scope_config){.width = (int32_t)scope_of(step, s)->width,
                                             .layout = (int32_t)step->layout,
                                             .fp8 = (int32_t)scope_of(step, s)->fp8};
    return configure_run(o, config);
}

static uint64_t lens_count(const stepfile *step, const stepfile_scope *scope) {
    return ((uint64_t)step->rows + scope->rows_per_len - 1) / scope->rows_per_len;
}

static void describe(const stepfile *step, const tensors *t, mlar_bindings *b) {
    b->q = t->q;
    b->q_head_stride = t->q_stride;
    b->q_row_stride = (int64_t)t->q_stride * step->heads;
    b->out = t->out;
    b->out_head_stride = t->out_stride;
    b->out_row_stride = (int64_t)t->out_stride * step->heads;
    b->lse = t->lse;
    b->attn_sink = t->sink;
    b->scale = (float)step->scale;
    for (int s = 0; s < scope_count(step); s++) {
        const stepfile_scope *scope = scope_of(step, s);
        b->cache[s] = (mlar_cache){t->cache[s], scope->block_stride_bytes, (int64_t)scope->num_blocks,
                                   (int32_t)scope->block_size_tokens, 0};
        b->list[s] = (mlar_index_list){.indices = t->indices[s],
                                       .lens = t->lens[s],
                                       .row_stride = scope->width,
                                       .rows_per_len = (int32_t)scope->rows_per_len,
                                       .form = MLAR_LIST_DENSE};
    }
}

static void free_tensors(place *p, const stepfile *step, tensors *t) {
    place_free(p, t->q, t->padded_q != NULL ? t->padded_q : step->q);
    free(t->padded_q);
    place_free(p, t->sink, step->attn_sink);
    for (int s = 0; s < scope_count(step); s++) {
        const stepfile_scope *scope = scope_of(step, s);
        place_free(p, t->cache[s], scope->cache);
        place_free(p, t->indices[s], scope->indices);
        place_free(p, t->lens[s], scope->lens);
    }
    place_free(p, t->out, NULL);
    place_free(p, t->lse, NULL);
}

static uint32_t padded(uint32_t elements) {
    return (elements + 7) / 8 * 8;
}

/* Heads of q where the library wants them: a file's are as far apart as they are long. */
static const uint16_t *place_heads(const stepfile *step, tensors *t, uint64_t row_heads) {
    if (t->q_stride == step->d_qk) return step->q;
    t->padded_q = stepfile_allocate(row_heads * t->q_stride * 2);
    for (uint64_t i = 0; t->padded_q != NULL && i < row_heads; i++)
        memcpy(t->padded_q + i * t->q_stride, step->q + i * step->d_qk, (size_t)step->d_qk * 2);
    return t->padded_q;
}

static int make_tensors(place *p, const stepfile *step, tensors *t) {
    memset(t, 0, sizeof *t);
    uint64_t row_heads = (uint64_t)step->rows * step->heads;
    t->q_stride = padded(step->d_qk);
    t->out_stride = padded(step->d_v);
    t->out_bytes = row_heads * t->out_stride * 2;
    t->lse_bytes = row_heads * 4;
    t->q = place_upload(p, place_heads(step, t, row_heads), row_heads * t->q_stride * 2);
    t->sink = place_upload(p, step->attn_sink, (uint64_t)step->heads * 4);
    uint64_t capacity =
        step->rows > 0 ? 1 : step->heads; /* a program takes at least one row, and zeroes its tail */
    t->out = place_allocate(p, t->out_bytes + capacity * t->out_stride * 2);
    t->lse = place_allocate(p, t->lse_bytes + capacity * 4);
    int failed =
        t->q == NULL || t->out == NULL || t->lse == NULL || (step->attn_sink != NULL && t->sink == NULL);
    for (int s = 0; s < scope_count(step); s++) {
        const stepfile_scope *scope = scope_of(step, s);
        t->cache[s] = place_upload(p, scope->cache, scope->num_blocks * scope->block_stride_bytes);
        t->indices[s] = place_upload(p, scope->indices, (uint64_t)step->rows * scope->width * 4);
        t->lens[s] = place_upload(p, scope->lens, lens_count(step, scope) * 4);
        failed = failed || t->cache[s] == NULL || t->indices[s] == NULL ||
                 (scope->lens != NULL && t->lens[s] == NULL);
    }
    return failed ? unusable("no memory for the step's tensors") : 0;
}

static mlar_status read_out(place *p, const stepfile *step, const tensors *t, uint16_t *out) {
    uint16_t *padded_out = stepfile_allocate(t->out_bytes);
    if (padded_out == NULL) return MLAR_ERROR_OUT_OF_MEMORY;
    mlar_status status = place_read(p, padded_out, t->out, t->out_bytes);
    for (uint64_t i = 0; status == MLAR_OK && i < (uint64_t)step->rows * step->heads; i++)
        memcpy(out + i * step->d_v, padded_out + i * t->out_stride, (size_t)step->d_v * 2);
    free(padded_out);
    return status;
}

/* ---- running ---- */

static mlar_status one_step(session *s, mlar_program *program, const mlar_bindings *b, const mlar_step *step,
                            int replay) {
    mlar_status status = MLAR_OK;
    if (replay) {
        status = mlar_engine_step(s->engine, step, NULL);
        if (status == MLAR_OK) status = mlar_engine_prepare(s->engine, 0, b, NULL, NULL, NULL);
        return status == MLAR_OK ? mlar_program_replay(program, NULL) : status;
    }
    status = mlar_engine_prepare(s->engine, 0, b, step, NULL, NULL);
    return status == MLAR_OK ? mlar_engine_enqueue(s->engine, 0, b, s->config.max_rows, step, NULL, NULL)
                             : status;
}

/* Median time of whole steps and of replays alone, in microseconds. */
static mlar_status time_steps(session *s, mlar_program *program, const mlar_bindings *b,
                              const mlar_step *step, int64_t replays, outcome *out) {
    double steps[TIMED_STEPS];
    mlar_status status = MLAR_OK;
    for (int i = 0; i < TIMED_STEPS && status == MLAR_OK; i++) {
        double begin = seconds_now();
        status = one_step(s, program, b, step, 1);
        place_wait(s->where);
        steps[i] = 1e6 * (seconds_now() - begin);
    }
    out->step_us = percentile(steps, TIMED_STEPS, 0.5);
    double *times = malloc((size_t)replays * sizeof *times);
    if (times == NULL) return MLAR_ERROR_OUT_OF_MEMORY;
    for (int64_t i = 0; i < replays && status == MLAR_OK; i++) {
        double begin = seconds_now();
        status = mlar_program_replay(program, NULL);
        place_wait(s->where);
        times[i] = 1e6 * (seconds_now() - begin);
    }
    out->replay_us = percentile(times, (int)replays, 0.5);
    free(times);
    return status;
}

/* The gather buffers hold one row tile: run the step tile by tile and collect. Rows get lengths of their own,
 * so that a tile may begin inside a request. */
static mlar_status collect_gathered(session *s, const stepfile *step, const mlar_bindings *whole,
                                    outcome *out) {
    place *p = s->where;
    int32_t *lens[MLAR_SCOPES] = {NULL}, tile = s->memory.row_tile[0];
    void *device_lens[MLAR_SCOPES] = {NULL};
    mlar_status status = MLAR_OK;
    for (int i = 0; i < scope_count(step); i++) {
        lens[i] = calloc(step->rows + 1, sizeof **lens);
        for (uint32_t r = 0; lens[i] != NULL && r < step->rows; r++)
            lens[i][r] = (int32_t)stepfile_row_len(scope_of(step, i), r);
        device_lens[i] = place_upload(p, lens[i], (uint64_t)step->rows * 4 + 4);
        if (device_lens[i] == NULL) status = MLAR_ERROR_OUT_OF_MEMORY;
    }
    for (int32_t begin = 0; begin < (int32_t)step->rows && status == MLAR_OK; begin += tile) {
        int32_t count = (int32_t)step->rows - begin < tile ? (int32_t)step->rows - begin : tile;
        mlar_bindings b = *whole;
        mlar_step part = {.struct_size = sizeof part, .rows = count};
        b.q = (const char *)b.q + (int64_t)begin * b.q_row_stride * 2;
        b.out = (char *)b.out + (int64_t)begin * b.out_row_stride * 2;
        b.lse += (int64_t)begin * b.lse_row_stride;
        for (int i = 0; i < scope_count(step); i++) {
            b.list[i].indices += (int64_t)begin * b.list[i].row_stride;
            b.list[i].lens = (const int32_t *)device_lens[i] + begin;
            b.list[i].rows_per_len = 1;
        }
        status = mlar_engine_prepare(s->engine, 0, &b, &part, NULL, NULL);
        if (status == MLAR_OK) status = mlar_engine_enqueue(s->engine, 0, &b, count, &part, NULL, NULL);
        static const char *const names[MLAR_SCOPES] = {"gather.window", "gather.extra"};
        uint16_t *const results[MLAR_SCOPES] = {out->results.gathered_window, out->results.gathered_extra};
        for (int i = 0; i < scope_count(step) && status == MLAR_OK; i++) {
            void *address = NULL;
            uint64_t bytes = 0, row = (uint64_t)scope_of(step, i)->width * step->d_qk;
            status = mlar_engine_buffer(s->engine, 0, names[i], &address, &bytes);
            if (status == MLAR_OK && bytes > 0)
                status =
                    place_read(p, results[i] + (uint64_t)begin * row, address, (uint64_t)count * row * 2);
        }
    }
    for (int i = 0; i < scope_count(step); i++) {
        place_free(p, device_lens[i], lens[i]);
        free(lens[i]);
    }
    return status;
}

static int allocate_results(const stepfile *step, outcome *out) {
    uint64_t row_heads = (uint64_t)step->rows * step->heads, d = step->d_qk;
    out->results.out = stepfile_allocate(row_heads * step->d_v * 2);
    out->results.lse = stepfile_allocate(row_heads * 4);
    int failed = out->results.out == NULL || out->results.lse == NULL;
    if (out->strategy == MLAR_STRATEGY_GATHER) {
        out->results.gathered_window = stepfile_allocate((uint64_t)step->rows * step->window.width * d * 2);
        failed |= out->results.gathered_window == NULL;
        if (step->extra.present) {
            out->results.gathered_extra = stepfile_allocate((uint64_t)step->rows * step->extra.width * d * 2);
            failed |= out->results.gathered_extra == NULL;
        }
    }
    return failed ? unusable("no memory for the results") : 0;
}

static void free_results(outcome *out) {
    free(out->results.out);
    free(out->results.lse);
    free(out->results.gathered_window);
    free(out->results.gathered_extra);
}

static mlar_status run_engine(session *s, const options *o, const stepfile *file, const tensors *t,
                              outcome *out, mlar_diag *diag) {
    mlar_bindings b;
    mlar_program *program = NULL;
    mlar_step step = {.struct_size = sizeof step, .rows = (int32_t)file->rows};
    mlar_status status = mlar_bindings_init(&b, &s->config, 0);
    if (status != MLAR_OK) return status;
    describe(file, t, &b);
    status = mlar_engine_capture(s->engine, 0, &b, 1, s->config.max_rows, &program, diag);
    if (status != MLAR_OK) return status;
    int replay = 1;
    (void)configure_graph(o, &replay); /* checked before anything was opened */
    status = one_step(s, program, &b, &step, replay);
    mlar_stats stats = {.struct_size = sizeof stats};
    if (status == MLAR_OK) status = mlar_engine_stats(s->engine, NULL, &stats); /* waits */
    out->invalid = stats.invalid_indices;
    if (status == MLAR_OK) status = read_out(s->where, file, t, out->results.out);
    if (status == MLAR_OK) status = place_read(s->where, out->results.lse, t->lse, t->lse_bytes);
    if (status == MLAR_OK && out->strategy == MLAR_STRATEGY_GATHER)
        status = collect_gathered(s, file, &b, out);
    int64_t replays = DEFAULT_REPLAYS;
    (void)configure_replays(o, &replays);
    if (status == MLAR_OK) status = time_steps(s, program, &b, &step, replays, out);
    if (status == MLAR_OK && s->config.guard_bytes > 0)
        status = mlar_engine_check_guards(s->engine, NULL, diag);
    return status;
}

/* ---- reporting ---- */

static void print_step(const options *o, const stepfile *step, const place *where) {
    char device[256];
    printf("%s: %u rows, %u heads, head dims %u + %u\n", o->file, step->rows, step->heads, step->nope,
           step->rope);
    for (int i = 0; i < scope_count(step); i++) {
        const stepfile_scope *scope = scope_of(step, i);
        printf("  %-6s %u entries a row, %" PRIu64 " blocks of %u tokens, %" PRIu64 " bytes apart\n",
               i == 0 ? "window" : "extra", scope->width, scope->num_blocks, scope->block_size_tokens,
               scope->block_stride_bytes);
    }
    printf("device %s\n", place_describe(where, device));
}

static void print_memory(const stepfile *step, session *s) {
    char arena[64], full[64], token[64], scratch[64];
    uint64_t slots = 0, keys = 0;
    for (int i = 0; i < scope_count(step); i++) {
        slots += scope_of(step, i)->num_blocks * scope_of(step, i)->block_size_tokens;
        keys += scope_of(step, i)->width;
    }
    mlar_stats stats = {.struct_size = sizeof stats};
    (void)mlar_engine_stats(s->engine, NULL, &stats);
    printf("\nstrategy %s, kernels %s, %d thread%s: the arena, to the byte\n",
           strategy_name(s->memory.strategy), stats.variant, (int)s->config.threads,
           s->config.threads == 1 ? "" : "s");
    (void)mlar_memory_print(&s->memory, 0, format_write_stdout, NULL);
    printf("arena        %s, of which %s live from stage to stage\n",
           format_bytes(s->memory.device_bytes, arena),
           format_bytes(s->memory.device_bytes - s->memory.persistent_bytes, scratch));
    printf("in its place the per-token gather (vLLM #42576) takes %s,\n",
           format_bytes((uint64_t)step->rows * keys * s->memory.full_pool_bytes_per_slot, token));
    printf("             full-pool dequantisation (before #41812) %s for this file's %" PRIu64
           " slots, and 13.5 GiB in\n"
           "             the case that vLLM #41962 reports\n",
           format_bytes(slots * s->memory.full_pool_bytes_per_slot, full), slots);
}

static const struct {
    const char *name;
    size_t offset;
} compared[] = {{"out", offsetof(compare_report, out)},
                {"out_bf16", offsetof(compare_report, out_bf16)},
                {"lse", offsetof(compare_report, lse)},
                {"gathered_swa", offsetof(compare_report, gathered_window)},
                {"gathered_extra", offsetof(compare_report, gathered_extra)}};
#define COMPARED_COUNT (sizeof compared / sizeof *compared)

static const compare_result *result_at(const outcome *out, size_t i) {
    return (const compare_result *)(const void *)((const char *)&out->report + compared[i].offset);
}

static void print_outcome(const outcome *out) {
    char line[512];
    printf("\nresult, strategy %s\n", strategy_name(out->strategy));
    for (size_t i = 0; i < COMPARED_COUNT; i++)
        if (result_at(out, i)->checked)
            printf("  %s\n", compare_describe(compared[i].name, result_at(out, i), line, sizeof line));
    printf("  invalid indices: %" PRIu64 "\n", out->invalid);
    printf("  whole step %.1f us, replay %.1f us (medians)\n", out->step_us, out->replay_us);
}

/* JSON has no NaN and no infinity. */
static json_t *number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *place_or_null(int64_t index) {
    return index >= 0 ? json_integer((json_int_t)index) : json_null();
}

static json_t *json_outcome(const outcome *out) {
    json_t *checks = json_object();
    for (size_t i = 0; i < COMPARED_COUNT; i++) {
        const compare_result *r = result_at(out, i);
        if (!r->checked) continue;
        json_t *one = json_pack("{s:b, s:I, s:I}", "pass", r->pass, "compared", (json_int_t)r->compared,
                                "mismatches", (json_int_t)r->mismatches);
        if (r->has_figures)
            json_object_update_new(one, json_pack("{s:o, s:o, s:o}", "relative_l2", number(r->relative_l2),
                                                  "max_abs", number(r->max_abs), "cosine_difference",
                                                  number(r->cosine_difference)));
        if (!r->pass)
            json_object_update_new(one, json_pack("{s:s, s:I, s:o, s:o, s:o, s:o, s:o}", "rule", r->rule,
                                                  "row", (json_int_t)r->row, "head", place_or_null(r->head),
                                                  "entry", place_or_null(r->entry), "element",
                                                  place_or_null(r->element), "computed", number(r->computed),
                                                  "expected", number(r->expected)));
        json_object_set_new(checks, compared[i].name, one);
    }
    return json_pack("{s:s, s:b, s:o, s:I, s:I, s:f, s:f}", "strategy", strategy_name(out->strategy), "pass",
                     out->report.pass, "checks", checks, "invalid_indices", (json_int_t)out->invalid,
                     "arena_bytes", (json_int_t)out->arena_bytes, "step_us", out->step_us, "replay_us",
                     out->replay_us);
}

static int print_json(const options *o, const stepfile *step, const place *where, const outcome *outcomes,
                      int count) {
    char device[256];
    json_t *list = json_array();
    for (int i = 0; i < count; i++) json_array_append_new(list, json_outcome(&outcomes[i]));
    json_t *root = json_pack("{s:i, s:s, s:s, s:s, s:i, s:i, s:o}", "schema", 1, "command", "run", "file",
                             o->file, "device", place_describe(where, device), "rows", (int)step->rows,
                             "heads", (int)step->heads, "results", list);
    if (root == NULL) return unusable("--json: the file's name is not UTF-8");
    json_dumpf(root, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    putchar('\n');
    json_decref(root);
    return EXIT_WITHIN;
}

/* ---- the command ---- */

/* Whether the file holds anything that this run could be compared with. */
static int anything_checked(const outcome *outcomes, int count) {
    int checked = 0;
    for (int i = 0; i < count; i++)
        for (size_t c = 0; c < COMPARED_COUNT; c++) checked |= result_at(&outcomes[i], c)->checked;
    return checked;
}

static int run_strategy(const options *o, place *where, const stepfile *step, const mlar_config *shared,
                        int first, outcome *out) {
    mlar_config config = *shared;
    config.strategy = out->strategy;
    session s;
    tensors t;
    int code = session_open(&s, where, &config);
    if (code != 0) return code;
    out->arena_bytes = s.memory.device_bytes;
    out->strategy = s.memory.strategy;
    code = make_tensors(where, step, &t);
    if (code == 0) code = allocate_results(step, out);
    if (code == 0) {
        mlar_diag diag = {.struct_size = sizeof diag};
        if (!o->json && first) print_step(o, step, where);
        if (!o->json) print_memory(step, &s);
        mlar_status status = run_engine(&s, o, step, &t, out, &diag);
        if (status != MLAR_OK) code = unusable_diag(&diag, status);
    }
    session_close(&s);
    free_tensors(where, step, &t);
    if (code != 0) return code;
    (void)compare_step(step, &out->results, &out->report);
    if (!o->json) print_outcome(out);
    return out->report.pass ? EXIT_WITHIN : EXIT_MISMATCH;
}

static int run_all(const options *o, place *where, const stepfile *step) {
    mlar_config config;
    int32_t strategies[2];
    outcome outcomes[2] = {0};
    int worst = configure(o, step, &config), count;
    if (worst != 0 || (count = configure_strategies(o, strategies)) == 0) return EXIT_UNUSABLE;
    for (int i = 0; i < count && worst != EXIT_UNUSABLE; i++) {
        outcomes[i].strategy = strategies[i];
        int code = run_strategy(o, where, step, &config, i == 0, &outcomes[i]);
        if (code > worst) worst = code;
    }
    /* The last strategy is the one with the most to write. */
    step_error error;
    if (worst != EXIT_UNUSABLE && o->output != NULL &&
        !stepfile_write_results(o->output, step, &outcomes[count - 1].results, &error))
        worst = unusable("%s", error.text);
    if (worst != EXIT_UNUSABLE && o->json && print_json(o, step, where, outcomes, count) != 0)
        worst = EXIT_UNUSABLE;
    if (worst == EXIT_WITHIN && !o->json)
        printf("\n%s\n", anything_checked(outcomes, count)
                             ? "all within SPEC"
                             : "the file expects nothing: nothing was compared");
    for (int i = 0; i < count; i++) free_results(&outcomes[i]);
    return worst;
}

int command_run(const options *o) {
    if (o->file == NULL) return unusable("run needs a step file");
    int64_t replays;
    int graph, failed = configure_replays(o, &replays);
    if (!failed) failed = configure_graph(o, &graph);
    if (failed) return failed;
    stepfile step;
    step_error error;
    place where;
    if (!stepfile_read(o->file, &step, &error)) return unusable("%s", error.text);
    int code = place_open(&where, o);
    if (code == 0) code = run_all(o, &where, &step);
    place_close(&where);
    stepfile_free(&step);
    return code;
}
