/* SPDX-License-Identifier: Apache-2.0
 *
 * hash.c: xxHash is compiled into this file alone, so that no foreign symbol leaves the library. */
#include "arena/hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t mlar_hash(const void *bytes, size_t count, uint64_t seed) {
    return XXH3_64bits_withSeed(bytes, count, seed);
}
