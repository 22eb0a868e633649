/* SPDX-License-Identifier: Apache-2.0
 *
 * options.c: parses the command line by the table in options.def. */
#include "options.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT, COUNT, BYTES, FLAG };
enum { P = COMMAND_PLAN, R = COMMAND_RUN, B = COMMAND_BENCH, D = COMMAND_DOCTOR };

static const struct option_row {
    const char *name, *value, *help;
    int kind, commands;
    size_t offset;
} rows[] = {
#define X(field, kind, name, value, commands, help)                                                          \
    {name, value, help, kind, commands, offsetof(options, field)},
#include "options.def"
#undef X
};
#define ROW_COUNT ((int)(sizeof rows / sizeof *rows))

int unusable(const char *format, ...) {
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    /* What it quotes came from a command line: it stays one line, and no terminal obeys it. */
    for (char *place = line; *place; place++)
        if ((unsigned char)*place < 0x20 || *place == 0x7f) *place = '?';
    fprintf(stderr, "mlarena: %s\n", line);
    return EXIT_UNUSABLE;
}

int option_choice(const char *text, const char *const *choices) {
    for (int i = 0; choices[i] != NULL; i++)
        if (strcmp(choices[i], text) == 0) return i;
    return -1;
}

/* "12", "3KiB", "16MiB", "1GiB"; 0 if it is none of these or does not fit. */
static int parse_bytes(const char *text, uint64_t *bytes) {
    static const char *const units[] = {"", "KiB", "MiB", "GiB", "TiB", NULL};
    char *end;
    errno = 0;
    if (text[0] < '0' || text[0] > '9') return 0;
    unsigned long long value = strtoull(text, &end, 10);
    int unit = option_choice(end, units);
    if (errno != 0 || unit < 0 || value > UINT64_MAX >> 10 * unit) return 0;
    *bytes = (uint64_t)value << 10 * unit;
    return 1;
}

static int parse_count(const char *text, int64_t *count) {
    char *end;
    errno = 0;
    if (text[0] < '0' || text[0] > '9') return 0;
    long long value = strtoll(text, &end, 10);
    if (errno != 0 || *end != 0 || value > INT32_MAX) return 0;
    *count = value;
    return 1;
}

static int store(const struct option_row *row, const char *value, options *o) {
    void *field = (char *)o + row->offset;
    switch (row->kind) {
    case TEXT:
        *(option_TEXT *)field = value;
        return 0;
    case FLAG:
        *(option_FLAG *)field = 1;
        return 0;
    case COUNT:
        return parse_count(value, field)
                   ? 0
                   : unusable("--%s: '%s' is not a whole number below 2^31", row->name, value);
    default:
        return parse_bytes(value, field)
                   ? 0
                   : unusable("--%s: '%s' is not a size (12, 3KiB, 16MiB)", row->name, value);
    }
}

static const struct option_row *find(const char *name, size_t length, int command) {
    for (int i = 0; i < ROW_COUNT; i++)
        if (strlen(rows[i].name) == length && memcmp(rows[i].name, name, length) == 0 &&
            (rows[i].commands & command))
            return &rows[i];
    return NULL;
}

int options_parse(options *o, int command, int argc, char **argv) {
    memset(o, 0, sizeof *o);
    o->command = command;
    for (int i = 0; i < ROW_COUNT; i++)
        if (rows[i].kind == COUNT) *(option_COUNT *)(void *)((char *)o + rows[i].offset) = -1;
    for (int i = 1; i < argc; i++) {
        const char *argument = argv[i];
        if (strcmp(argument, "-h") == 0) argument = "--help";
        if (strcmp(argument, "-o") == 0) argument = "--output";
        if (argument[0] != '-' || argument[1] == 0) {
            if (o->file != NULL) return unusable("'%s': one file is enough", argument);
            o->file = argument;
            continue;
        }
        const char *name = argument + (argument[1] == '-' ? 2 : 1);
        size_t length = strcspn(name, "=");
        const struct option_row *row = argument[1] == '-' ? find(name, length, command) : NULL;
        if (row == NULL)
            return unusable("'%s': no such option of '%s' (--help lists them)", argv[i], argv[0]);
        const char *value = name[length] == '=' ? name + length + 1 : NULL;
        if (row->kind == FLAG && value != NULL) return unusable("--%s takes no value", row->name);
        if (row->kind != FLAG && value == NULL) {
            if (i + 1 == argc) return unusable("--%s needs %s", row->name, row->value);
            value = argv[++i];
        }
        int failed = store(row, value, o);
        if (failed) return failed;
    }
    return 0;
}

void options_help(int command) {
    for (int i = 0; i < ROW_COUNT; i++) {
        if ((rows[i].commands & command) == 0) continue;
        char left[64];
        snprintf(left, sizeof left, "--%s%s%s", rows[i].name, rows[i].value[0] ? " " : "", rows[i].value);
        printf("  %-22s %s\n", left, rows[i].help);
    }
}
