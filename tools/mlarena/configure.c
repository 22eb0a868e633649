/* SPDX-License-Identifier: Apache-2.0
 *
 * configure.c: options -> mlar_config. */
#define _GNU_SOURCE /* sched_getaffinity */

#include "configure.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const layouts[] = {"dsv4", "v32", "bf16", NULL};
static const char *const strategies[] = {"auto", "gather", "direct", NULL};
static const char *const policies[] = {"balanced", "invariant", NULL};
static const char *const updates[] = {"step-block", "node-params", NULL};
static const char *const checks[] = {"warn", "refuse", "accept", NULL};
static const char *const switches[] = {"off", "on", NULL};

enum { REPLAYS_MAX = 1000000 };

int unusable_diag(const mlar_diag *diag, mlar_status status) {
    return unusable("%s (%s)", diag->message[0] ? diag->message : mlar_status_string(status),
                    mlar_status_name(status));
}

int32_t processors(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    int count = CPU_COUNT(&set);
    return count < 1 ? 1 : count > 256 ? 256 : count;
}

const char *strategy_name(int32_t strategy) {
    return strategies[strategy];
}

int configure_strategies(const options *o, int32_t chosen[2]) {
    if (o->strategy == NULL) {
        chosen[0] = MLAR_STRATEGY_DIRECT;
        chosen[1] = MLAR_STRATEGY_GATHER;
        return 2;
    }
    int strategy = option_choice(o->strategy, strategies);
    if (strategy < 0) {
        (void)unusable("--strategy: '%s' (gather, direct)", o->strategy);
        return 0;
    }
    chosen[0] = strategy;
    return 1;
}

static int choose(const char *option, const char *text, const char *const *choices, int32_t *value) {
    if (text == NULL) return 0;
    int choice = option_choice(text, choices);
    if (choice < 0) return unusable("--%s: '%s' is none of its values (--help lists them)", option, text);
    *value = choice;
    return 0;
}

/* --window / --extra / --layout: one kind of layer instead of the preset's. */
static int one_kind(const options *o, mlar_config *config) {
    int32_t layout = config->kinds[0].scope[0].layout;
    int failed = choose("layout", o->layout, layouts, &layout);
    if (failed) return failed;
    if (o->window < 0 && o->extra < 0) {
        for (int32_t k = 0; k < config->kind_count; k++)
            for (int s = 0; s < config->kinds[k].scope_count; s++) config->kinds[k].scope[s].layout = layout;
        return 0;
    }
    memset(config->kinds, 0, sizeof config->kinds);
    config->kind_count = 1;
    mlar_kind_config *kind = &config->kinds[0];
    int64_t widths[2] = {o->window, o->extra};
    for (int s = 0; s < 2; s++)
        if (widths[s] >= 0)
            kind->scope[kind->scope_count++] =
                (mlar_scope_config){.width = (int32_t)widths[s], .layout = layout};
    snprintf(kind->name, sizeof kind->name, "given");
    return 0;
}

int configure_model(const options *o, mlar_config *config) {
    mlar_diag diag = {.struct_size = sizeof diag};
    mlar_status status = mlar_config_preset(config, o->preset != NULL ? o->preset : "dsv4-flash",
                                            o->tp < 0 ? 1 : (int32_t)o->tp, &diag);
    if (status == MLAR_OK && o->profile != NULL)
        status = mlar_device_profile_named(&config->device, o->profile, &diag);
    if (status != MLAR_OK) return unusable_diag(&diag, status);
    if (o->heads >= 0) config->heads = (int32_t)o->heads;
    if (o->nope >= 0) config->nope = (int32_t)o->nope;
    if (o->rope >= 0) config->rope = (int32_t)o->rope;
    if (o->rows >= 0) config->max_rows = (int32_t)o->rows;
    if (o->nodes >= 0) config->max_nodes = (int32_t)o->nodes;
    if (o->layers >= 0) config->max_layers = config->max_programs = (int32_t)o->layers;
    return one_kind(o, config);
}

int configure_svg(const options *o) {
    char folder[PATH_MAX];
    if (o->svg == NULL || access(o->svg, W_OK) == 0) return 0;
    if (snprintf(folder, sizeof folder, "%s", o->svg) >= (int)sizeof folder)
        errno = ENAMETOOLONG;
    else if (errno == ENOENT && access(dirname(folder), W_OK) == 0)
        return 0;
    return unusable("%s: cannot write: %s", o->svg, strerror(errno));
}

int configure_replays(const options *o, int64_t *replays) {
    if (o->replays == 0 || o->replays > REPLAYS_MAX)
        return unusable("--replays: %lld given, must be 1..%d", (long long)o->replays, REPLAYS_MAX);
    if (o->replays > 0) *replays = o->replays;
    return 0;
}

int configure_graph(const options *o, int *graph) {
    int32_t choice = 1;
    int failed = choose("graph", o->graph, switches, &choice);
    *graph = (int)choice;
    return failed;
}

int configure_run(const options *o, mlar_config *config) {
    int failed = choose("policy", o->policy, policies, &config->policy);
    if (!failed) failed = choose("update", o->update, updates, &config->update_route);
    if (!failed) failed = choose("runtime-check", o->runtime_check, checks, &config->runtime_check);
    if (failed) return failed;
    if (o->splits >= 0) config->splits = (int32_t)o->splits;
    if (o->splits > 0 && config->policy != MLAR_POLICY_BATCH_INVARIANT)
        return unusable("--splits: needs --policy invariant (balanced decides by the lengths of each step)");
    if (o->isa != NULL) {
        if (strlen(o->isa) >= sizeof config->cpu_isa) return unusable("--isa: '%s' is unknown", o->isa);
        snprintf(config->cpu_isa, sizeof config->cpu_isa, "%s", o->isa);
    }
    config->threads = o->threads >= 0 ? (int32_t)o->threads : processors();
    config->budget_bytes = o->budget;
    if (o->guard > INT32_MAX) return unusable("--guard: at most 65536");
    config->guard_bytes = (int32_t)o->guard;
    return 0;
}
