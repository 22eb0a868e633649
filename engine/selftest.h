/* SPDX-License-Identifier: Apache-2.0
 *
 * selftest.h: the workspace that mlar_engine_selftest needs in the arena. */
#ifndef MLAR_ENGINE_SELFTEST_H
#define MLAR_ENGINE_SELFTEST_H

#include "engine/dims.h"

/* Bytes of the "selftest" buffer. Pure. */
uint64_t mlar_selftest_bytes(const mlar_dims *dims);

#endif
