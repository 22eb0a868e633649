/* SPDX-License-Identifier: Apache-2.0
 *
 * readme.c: the C code of the README, compiled as it stands there, against the installed header.
 *
 * tests/example/run cuts the code blocks out of README.md into readme.inc, each in a scope of its own. Here
 * are the names that they take as given. */
#include <mlarena/mlarena.h>

#include <stdlib.h>

void readme(void *host_memory, void *device_memory, void *device_state, void *stream);
void readme(void *host_memory, void *device_memory, void *device_state, void *stream) {
#include "readme.inc"
}
