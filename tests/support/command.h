/* SPDX-License-Identifier: Apache-2.0
 *
 * command.h: runs the built `mlarena` command as a user would, and keeps what it said.
 *
 *     command_run("run", "step.safetensors", "--strategy", "direct", NULL);
 *     ... command_said.code, command_said.out, command_said.err ...
 *
 * Its streams are pipes, its standard input is empty. It knows nothing of what the command does. A command
 * that a signal ends, or that says more than there is room for, fails the test that ran it. */
#ifndef TESTS_SUPPORT_COMMAND_H
#define TESTS_SUPPORT_COMMAND_H

#include <stdbool.h>
#include <stddef.h>

typedef struct command_result {
    int code;             /* exit status */
    double cpu_seconds;   /* user and system time */
    char out[64 * 1024];  /* standard output, terminated */
    char err[16 * 1024];  /* standard error, terminated */
    char line[16 * 1024]; /* the command line, for messages */
} command_result;

/* Of the last run. */
extern command_result command_said;

/* How the next runs are started; all off at first. */
typedef struct command_conditions {
    bool terminal;     /* standard error is a terminal */
    bool unprivileged; /* as user 65534, if this is root: permissions of files then count */
    bool full_disk;    /* standard output cannot be written */
    long file_bytes;   /* no file may grow beyond this; 0: no limit */
} command_conditions;
extern command_conditions command_under;

/* Whether a sanitizer is built in: times then say nothing. */
extern const bool command_is_sanitized;

/* Arguments behind the program's name, the last one NULL. Returns the exit status. */
__attribute__((sentinel)) int command_run(const char *first, ...);

/* The same, and it must exit with 2, say nothing on standard output and one line on standard error that
 * begins with "mlarena: " and contains `needle`. */
__attribute__((sentinel)) void command_refuses(const char *needle, const char *first, ...);

/* The last run must have exited with `code`; where not, everything it said becomes the failure's message. */
void command_must_exit(int code);

/* The number behind the first `label` in the last run's standard output or error; fails where there is none.
 */
unsigned long long command_number(const char *label);

#endif
