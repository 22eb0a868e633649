/* SPDX-License-Identifier: Apache-2.0
 *
 * commands.h: the four commands. Each returns the exit code. */
#ifndef MLARENA_TOOL_COMMANDS_H
#define MLARENA_TOOL_COMMANDS_H

#include "options.h"

int command_plan(const options *o);
int command_run(const options *o);
int command_bench(const options *o);
int command_doctor(const options *o);

#endif
