/* SPDX-License-Identifier: Apache-2.0
 *
 * configure.h: options -> mlar_config, the same way for every command. */
#ifndef MLARENA_TOOL_CONFIGURE_H
#define MLARENA_TOOL_CONFIGURE_H

#include "options.h"

#include <mlarena/mlarena.h>

/* A model's configuration (plan, bench): preset, then whatever is given explicitly. 0 or EXIT_UNUSABLE. */
int configure_model(const options *o, mlar_config *config);
/* What all commands share: strategy, policy, splits, budget, threads, isa ... 0 or EXIT_UNUSABLE. */
int configure_run(const options *o, mlar_config *config);

/* --replays, which leaves *replays alone if it is not given, and --graph, which is on if it is not given. 0
 * or EXIT_UNUSABLE. */
int configure_replays(const options *o, int64_t *replays);
int configure_graph(const options *o, int *graph);

/* Whether --svg, where given, can be written: said before the minutes of work that are drawn, not after. 0 or
 * EXIT_UNUSABLE. */
int configure_svg(const options *o);

/* The strategies that --strategy asks for; returns how many. 0: unknown name (one line was printed). */
int configure_strategies(const options *o, int32_t strategies[2]);
const char *strategy_name(int32_t strategy);

/* Prints a failed call's diagnostic as the one line. Returns EXIT_UNUSABLE. */
int unusable_diag(const mlar_diag *diag, mlar_status status);

/* Processors that this process may use. */
int32_t processors(void);

#endif
