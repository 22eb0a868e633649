/* SPDX-License-Identifier: Apache-2.0
 *
 * quirks.h: is this runtime known to be bad? */
#ifndef MLAR_ENGINE_GPU_QUIRKS_H
#define MLAR_ENGINE_GPU_QUIRKS_H

#include <mlarena/mlarena.h>

typedef struct mlar_quirk {
    int32_t device;
    int32_t first_version, last_version;
    const char *arch;
    const char *what;
    const char *source;
} mlar_quirk;

/* The first entry of the table that matches, or null. */
const mlar_quirk *mlar_quirk_of(int32_t device, int32_t version, const char *arch);

#endif
