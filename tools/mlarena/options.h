/* SPDX-License-Identifier: Apache-2.0
 *
 * options.h: the command line, parsed. */
#ifndef MLARENA_TOOL_OPTIONS_H
#define MLARENA_TOOL_OPTIONS_H

#include <stdint.h>

/* Exit codes of every command. */
enum { EXIT_WITHIN = 0, EXIT_MISMATCH = 1, EXIT_UNUSABLE = 2 };

enum { COMMAND_PLAN = 1, COMMAND_RUN = 2, COMMAND_BENCH = 4, COMMAND_DOCTOR = 8 };

typedef const char *option_TEXT;
typedef int64_t option_COUNT;  /* -1: not given */
typedef uint64_t option_BYTES; /* 0: not given */
typedef int option_FLAG;

typedef struct options {
    int command;
    const char *file; /* the one positional argument, NULL if none */
#define X(field, kind, name, value, commands, help) option_##kind field;
#include "options.def"
#undef X
} options;

/* argv[0] is the command's name. Returns 0, or prints one line to stderr and returns EXIT_UNUSABLE. */
int options_parse(options *o, int command, int argc, char **argv);
void options_help(int command);

/* The one line of a failure: "mlarena: ...". Returns EXIT_UNUSABLE. */
__attribute__((format(printf, 1, 2))) int unusable(const char *format, ...);

/* Position of `text` in the NULL-terminated list, or -1. */
int option_choice(const char *text, const char *const *choices);

#endif
