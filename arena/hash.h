/* SPDX-License-Identifier: Apache-2.0
 *
 * hash.h: the library's one door to xxHash. */
#ifndef MLAR_ARENA_HASH_H
#define MLAR_ARENA_HASH_H

#include <stddef.h>
#include <stdint.h>

/* XXH3, 64 bits. A digest passed on as the next call's seed hashes a sequence piece by piece. */
uint64_t mlar_hash(const void *bytes, size_t count, uint64_t seed);

#endif
