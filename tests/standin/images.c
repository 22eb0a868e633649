/* SPDX-License-Identifier: Apache-2.0
 *
 * images.c: the image table of test programs that run on the stand-in. It takes the place of the library's own
 * (linked before the archive, so that the archive's is never drawn in), whatever MLAR_GPU is. Complete for gfx942 and
 * gfx1100; gfx90a lacks units, and gfx950's are no images. */
#include "kernels/gpu/images.h"

#include <stddef.h>

#define IMAGE(unit, target, text)                                                                            \
    { unit, target, (const unsigned char *)(text), (const unsigned char *)(text) + sizeof(text) }
#define GOOD(unit, target) IMAGE(unit, target, "stand-in image: " unit " for " target)
#define COMPLETE(target)                                                                                     \
    GOOD("attend_block", target), GOOD("combine", target), GOOD("gather", target), GOOD("prepare", target),  \
        GOOD("set_block", target)

const mlar_gpu_image mlar_gpu_images[] = {
    COMPLETE("gfx1100"),     GOOD("attend_block", "gfx90a"), GOOD("set_block", "gfx90a"),
    COMPLETE("gfx942"),      GOOD("attend_wave", "gfx942"),  IMAGE("attend_block", "gfx950", "no image"),
    {NULL, NULL, NULL, NULL}};
