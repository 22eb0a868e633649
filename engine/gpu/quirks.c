/* SPDX-License-Identifier: Apache-2.0
 *
 * quirks.c: the table of known-bad runtimes. */
#include "engine/gpu/quirks.h"

#include <stddef.h>
#include <string.h>

static const mlar_quirk quirks[] = {
#define X(device, first, last, arch, what, source) {device, first, last, arch, what, source},
#include "engine/gpu/quirks.def"
#undef X
};

const mlar_quirk *mlar_quirk_of(int32_t device, int32_t version, const char *arch) {
    for (size_t i = 0; i < sizeof quirks / sizeof *quirks; i++) {
        const mlar_quirk *quirk = &quirks[i];
        if (quirk->device == device && version >= quirk->first_version && version <= quirk->last_version &&
            (quirk->arch[0] == 0 || strcmp(quirk->arch, arch) == 0))
            return quirk;
    }
    return NULL;
}
