/* SPDX-License-Identifier: Apache-2.0
 *
 * main.c: mlarena plan | run | bench | doctor. */
#include "commands.h"

#include <mlarena/mlarena.h>
#include <stdio.h>
#include <string.h>

static const struct command {
    const char *name, *usage, *what;
    int id;
    int (*run)(const options *o);
} commands[] = {
    {"plan", "mlarena plan [options]", "how many bytes a configuration takes, and where each buffer lies",
     COMMAND_PLAN, command_plan},
    {"run", "mlarena run STEP.safetensors [options]",
     "run a recorded decode step and compare it with what is expected", COMMAND_RUN, command_run},
    {"bench", "mlarena bench [options]", "time a model's decode attention over batch sizes", COMMAND_BENCH,
     command_bench},
    {"doctor", "mlarena doctor [options]", "what this machine offers, and whether replay equals eager on it",
     COMMAND_DOCTOR, command_doctor},
};
#define COMMAND_COUNT (sizeof commands / sizeof *commands)

static void usage(void) {
    printf("mlarena %d.%d.%d: sparse-MLA decode attention in memory known before the first step\n\n",
           MLAR_VERSION_MAJOR, MLAR_VERSION_MINOR, MLAR_VERSION_PATCH);
    for (size_t i = 0; i < COMMAND_COUNT; i++) printf("  %-40s %s\n", commands[i].usage, commands[i].what);
    printf("\n`mlarena COMMAND --help` lists a command's options. Exit: 0 all within SPEC, 1 a mismatch, 2 "
           "unusable input.\n");
}

static int run_command(int argc, char **argv) {
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        usage();
        return argc < 2 ? EXIT_UNUSABLE : EXIT_WITHIN;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("mlarena %d.%d.%d\n", MLAR_VERSION_MAJOR, MLAR_VERSION_MINOR, MLAR_VERSION_PATCH);
        return EXIT_WITHIN;
    }
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(commands[i].name, argv[1]) != 0) continue;
        options o;
        int failed = options_parse(&o, commands[i].id, argc - 1, argv + 1);
        if (failed) return failed;
        if (o.help) {
            printf("%s\n  %s\n\n", commands[i].usage, commands[i].what);
            options_help(commands[i].id);
            return EXIT_WITHIN;
        }
        return commands[i].run(&o);
    }
    return unusable("'%s' is no command (plan, run, bench, doctor)", argv[1]);
}

int main(int argc, char **argv) {
    int code = run_command(argc, argv);
    /* A full disk behind a redirected report is a failure, whatever the report says. */
    if (fflush(stdout) != 0 || ferror(stdout)) return unusable("standard output: cannot be written");
    return code;
}
