/* SPDX-License-Identifier: Apache-2.0
 *
 * format.h: how figures are shown to people. */
#ifndef MLARENA_TOOL_FORMAT_H
#define MLARENA_TOOL_FORMAT_H

#include <mlarena/mlarena.h>
#include <stddef.h>
#include <stdint.h>

/* "1,234 bytes", "16.0 MiB (16,777,216 bytes)"; returns text. */
const char *format_bytes(uint64_t bytes, char text[64]);
/* The totals below a map, beside what other methods take. */
void format_totals(const mlar_config *config, const mlar_memory *memory);
/* A mlar_write to stdout. */
void format_write_stdout(void *context, const char *text, size_t bytes);

#endif
