/* SPDX-License-Identifier: Apache-2.0
 *
 * run.c: `mlarena run STEP`: one recorded decode step through the engine, compared with whatever the file
 * expects. */
#include "commands.h"
#include "configure.h"
#include "format.h"
#include "recorded.h"
#include "session.h"

#include "../stepfile/compare.h"
#include "../stepfile/stepfile.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- configuration from the file ---- */

static int configure(const options *o, const stepfile *step, mlar_config *config) {
    (void)mlar_config_init(config);
    config->heads = (int32_t)step->heads;
    config->nope = (int32_t)step->nope;
    config->rope = (int32_t)step->rope;
    config->max_rows = step->rows > 0 ? (int32_t)step->rows : 1;
    config->max_programs = config->max_layers = 1;
    config->kind_count = 1;
    mlar_kind_config *kind = &config->kinds[0];
    kind->scope_count = recorded_scope_count(step);
    for (int s = 0; s < kind->scope_count; s++)
        kind->scope[s] = (mlar_scope_config){.width = (int32_t)recorded_scope(step, s)->width,
                                             .layout = (int32_t)step->layout,
                                             .fp8 = (int32_t)recorded_scope(step, s)->fp8};
    return configure_run(o, config);
}

/* ---- reporting ---- */

static void print_step(const options *o, const stepfile *step, const place *where) {
    char device[256];
    printf("%s: %u rows, %u heads, head dims %u + %u\n", o->file, step->rows, step->heads, step->nope,
           step->rope);
    for (int i = 0; i < recorded_scope_count(step); i++) {
        const stepfile_scope *scope = recorded_scope(step, i);
        printf("  %-6s %u entries a row, %" PRIu64 " blocks of %u tokens, %" PRIu64 " bytes apart\n",
               i == 0 ? "window" : "extra", scope->width, scope->num_blocks, scope->block_size_tokens,
               scope->block_stride_bytes);
    }
    printf("device %s\n", place_describe(where, device));
}

static void print_memory(const stepfile *step, session *s) {
    char arena[FORMAT_CHARS], full[FORMAT_CHARS], token[FORMAT_CHARS], scratch[FORMAT_CHARS];
    uint64_t slots = 0, keys = 0;
    for (int i = 0; i < recorded_scope_count(step); i++) {
        slots += recorded_scope(step, i)->num_blocks * recorded_scope(step, i)->block_size_tokens;
        keys += recorded_scope(step, i)->width;
    }
    mlar_stats stats = {.struct_size = sizeof stats};
    (void)mlar_engine_stats(s->engine, NULL, &stats);
    printf("\nstrategy %s, kernels %s, %d thread%s: the arena, to the byte\n",
           strategy_name(s->memory.strategy), stats.variant, (int)s->config.threads,
           s->config.threads == 1 ? "" : "s");
    (void)mlar_memory_print(&s->memory, 0, format_write_stdout, NULL);
    printf(
        "arena        %s, of which %s live from stage to stage\n",
        format_bytes(s->memory.device_bytes, arena),
        format_bytes(s->memory.device_bytes - s->memory.persistent_bytes - s->memory.guard_bytes, scratch));
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

static const compare_result *result_at(const recorded_outcome *out, size_t i) {
    return (const compare_result *)(const void *)((const char *)&out->report + compared[i].offset);
}

static void print_outcome(const recorded_outcome *out) {
    char line[512];
    printf("\nresult, strategy %s\n", strategy_name(out->strategy));
    for (size_t i = 0; i < COMPARED_COUNT; i++)
        if (result_at(out, i)->checked)
            printf("  %s\n", compare_describe(compared[i].name, result_at(out, i), line, sizeof line));
    printf("  invalid indices: %" PRIu64 "\n", out->invalid);
    printf("  whole step %.1f us, %s %.1f us (medians)\n", out->step_us, out->by_graph ? "replay" : "enqueue",
           out->replay_us);
}

/* JSON has no NaN and no infinity. */
static json_t *number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *place_or_null(int64_t index) {
    return index >= 0 ? json_integer((json_int_t)index) : json_null();
}

static json_t *json_outcome(const recorded_outcome *out) {
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
                     "arena_bytes", (json_int_t)out->arena_bytes, "step_us", out->step_us,
                     out->by_graph ? "replay_us" : "enqueue_us", out->replay_us);
}

static int print_json(const options *o, const stepfile *step, const place *where,
                      const recorded_outcome *outcomes, int count) {
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
static int anything_checked(const recorded_outcome *outcomes, int count) {
    int checked = 0;
    for (int i = 0; i < count; i++)
        for (size_t c = 0; c < COMPARED_COUNT; c++) checked |= result_at(&outcomes[i], c)->checked;
    return checked;
}

static int run_strategy(const options *o, place *where, const stepfile *step, const mlar_config *shared,
                        int first, recorded_outcome *out) {
    mlar_config config = *shared;
    config.strategy = out->strategy;
    session s;
    recorded_tensors t;
    int code = session_open(&s, where, &config);
    if (code != 0) return code;
    out->arena_bytes = s.memory.device_bytes;
    out->strategy = s.memory.strategy;
    code = recorded_upload(where, step, &t);
    if (code == 0) code = recorded_allocate_results(step, out);
    if (code == 0) {
        mlar_diag diag = {.struct_size = sizeof diag};
        if (!o->json && first) print_step(o, step, where);
        if (!o->json) print_memory(step, &s);
        mlar_status status = recorded_run(&s, o, step, &t, out, &diag);
        if (status != MLAR_OK) code = unusable_diag(&diag, status);
    }
    session_close(&s);
    recorded_free(where, step, &t);
    if (code != 0) return code;
    (void)compare_step(step, &out->results, &out->report);
    if (!o->json) print_outcome(out);
    return out->report.pass ? EXIT_WITHIN : EXIT_MISMATCH;
}

static int run_all(const options *o, place *where, const stepfile *step) {
    mlar_config config;
    int32_t strategies[2];
    recorded_outcome outcomes[2] = {0};
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
    for (int i = 0; i < count; i++) recorded_free_results(&outcomes[i]);
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
    if (o->output != NULL && !stepfile_can_write_results(o->output, o->file, &error))
        return unusable("%s", error.text);
    if (!stepfile_read(o->file, &step, &error)) return unusable("%s", error.text);
    int code = place_open(&where, o);
    if (code == 0) code = run_all(o, &where, &step);
    place_close(&where);
    stepfile_free(&step);
    return code;
}
