/* SPDX-License-Identifier: Apache-2.0
 *
 * fingerprint.h: one number for "this configuration, laid out like this". */
#ifndef MLAR_ARENA_FINGERPRINT_H
#define MLAR_ARENA_FINGERPRINT_H

#include "arena/plan.h"

#include <stddef.h>
#include <stdint.h>

/* XXH3 over the config's bytes and everything in the plan but the names: sizes, alignments, stages, offsets
 * and totals, as little-endian 64-bit words, so that it is the same on every machine. config may be NULL if 0
 * bytes. The caller sees to it that config has no padding and no addresses in it. */
uint64_t mlar_plan_fingerprint(const void *config, size_t config_bytes, const mlar_plan *plan);

#endif
