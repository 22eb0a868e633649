/* SPDX-License-Identifier: Apache-2.0
 *
 * plan_svg.h: the arena as a picture: bytes across, stages down, one box for each buffer's life. */
#ifndef MLARENA_TOOLS_PLAN_SVG_H
#define MLARENA_TOOLS_PLAN_SVG_H

#include <mlarena/mlarena.h>
#include <stdio.h>

/* Writes a complete SVG document. title and kind_names (one per layer kind, each may be empty) may be NULL.
 * Returns 0, or -1 if the stream reports an error. */
int plan_svg_write(FILE *out, const mlar_memory *memory, const char *title, const char *const *kind_names);

#endif
