/* SPDX-License-Identifier: Apache-2.0
 *
 * format.h: how figures are shown to people. */
#ifndef MLARENA_TOOL_FORMAT_H
#define MLARENA_TOOL_FORMAT_H

#include <mlarena/mlarena.h>
#include <stddef.h>
#include <stdint.h>

/* Room for any of these texts; each returns `text`. */
enum { FORMAT_CHARS = 48 };

/* "1,234,567" */
const char *format_grouped(uint64_t value, char text[FORMAT_CHARS]);
/* "970 B", "1.5 MiB": rounded to nearest in integers, as the library's tables are. */
const char *format_units(uint64_t bytes, char text[FORMAT_CHARS]);
/* "970 bytes", "16.0 MiB (16777216 bytes)" */
const char *format_bytes(uint64_t bytes, char text[FORMAT_CHARS]);
/* The totals below a map, beside what other methods take. */
void format_totals(const mlar_config *config, const mlar_memory *memory);
/* A mlar_write to stdout. */
void format_write_stdout(void *context, const char *text, size_t bytes);

#endif
