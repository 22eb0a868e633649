/* SPDX-License-Identifier: Apache-2.0
 *
 * plan.c: `mlarena plan`: a configuration's memory, as a table, as JSON, as a drawing. Needs no device. */
#include "commands.h"
#include "configure.h"
#include "format.h"
#include "plan_svg.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void print_config(const mlar_config *config, const mlar_memory *memory) {
    printf("heads %d, head dims %d + %d, up to %d rows, strategy %s, policy %s, device %s (%d units)\n",
           (int)config->heads, (int)config->nope, (int)config->rope, (int)config->max_rows,
           strategy_name(memory->strategy),
           config->policy == MLAR_POLICY_BALANCED ? "balanced" : "batch_invariant", config->device.arch,
           (int)config->device.compute_units);
    for (int32_t k = 0; k < config->kind_count; k++) {
        const mlar_kind_config *kind = &config->kinds[k];
        printf("kind %d %-10s keys", (int)k, kind->name);
        for (int s = 0; s < kind->scope_count; s++) printf("%s %d", s ? " +" : "", (int)kind->scope[s].width);
        printf(", row tile %d, split slots %d\n", (int)memory->row_tile[k], (int)memory->slots[k]);
    }
}

static void print_json(const mlar_config *config, const mlar_memory *memory) {
    printf(
        "{\"schema\": 1, \"command\": \"plan\", \"heads\": %d, \"nope\": %d, \"rope\": %d, \"max_rows\": %d, "
        "\"strategy\": \"%s\", \"host_bytes\": %" PRIu64 ", \"device_bytes\": %" PRIu64
        ", \"lower_bound_bytes\": %" PRIu64 ", \"minimum_budget_bytes\": %" PRIu64
        ", \"fingerprint\": \"%016" PRIx64 "\", \"row_tile\": [",
        (int)config->heads, (int)config->nope, (int)config->rope, (int)config->max_rows,
        strategy_name(memory->strategy), memory->host_bytes, memory->device_bytes, memory->lower_bound_bytes,
        memory->minimum_budget_bytes, memory->fingerprint);
    for (int32_t k = 0; k < config->kind_count; k++) printf("%s%d", k ? ", " : "", (int)memory->row_tile[k]);
    printf("], \"plan\": ");
    (void)mlar_memory_print(memory, 1, format_write_stdout, NULL);
    printf("}\n");
}

/* 0, or -1 if the file could not be written whole. */
static int draw(const char *path, const mlar_config *config, const mlar_memory *memory) {
    FILE *file = fopen(path, "w");
    if (file == NULL) return -1;
    const char *names[MLAR_KINDS_MAX];
    for (int k = 0; k < MLAR_KINDS_MAX; k++) names[k] = config->kinds[k].name;
    int failed = plan_svg_write(file, memory, NULL, names);
    return fclose(file) != 0 ? -1 : failed;
}

int command_plan(const options *o) {
    if (o->file != NULL) return unusable("plan takes no file ('%s')", o->file);
    mlar_config config;
    mlar_diag diag = {.struct_size = sizeof diag};
    int32_t strategies[2];
    int failed = configure_model(o, &config);
    if (!failed) failed = configure_run(o, &config);
    if (failed) return failed;
    if (configure_strategies(o, strategies) == 0) return EXIT_UNUSABLE;
    config.strategy = strategies[0];
    config.threads = o->threads >= 0 ? (int32_t)o->threads : 1;
    mlar_memory memory = {.struct_size = sizeof memory};
    mlar_status status = mlar_memory_query(&config, &memory, &diag);
    if (status != MLAR_OK) return unusable_diag(&diag, status);
    if (o->svg != NULL && draw(o->svg, &config, &memory))
        return unusable("%s: cannot be written: %s", o->svg, strerror(errno));
    if (o->json) {
        print_json(&config, &memory);
        return EXIT_WITHIN;
    }
    print_config(&config, &memory);
    printf("\n");
    status = mlar_memory_print(&memory, 0, format_write_stdout, NULL);
    if (status != MLAR_OK) return unusable("%s", mlar_status_string(status));
    printf("\n");
    format_totals(&config, &memory);
    return EXIT_WITHIN;
}
