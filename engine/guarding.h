/* SPDX-License-Identifier: Apache-2.0
 *
 * guarding.h: when the guard zones of guard.h are filled and checked. All of it does nothing with guard_bytes
 * = 0. */
#ifndef MLAR_ENGINE_GUARDING_H
#define MLAR_ENGINE_GUARDING_H

#include "engine/engine.h"

/* Fill the zones that no other buffer ever shares. */
mlar_status mlar_guarding_start(mlar_engine *engine, mlar_diag *diag);
/* Around one kind's sequence, where the host sees the arena: scratch zones that kinds share are filled before
 * and checked after it. The first violation is kept in the engine. */
void mlar_guarding_before(mlar_engine *engine, int32_t kind);
mlar_status mlar_guarding_after(mlar_engine *engine, int32_t kind);
/* The kept violation, or what the zones say now. */
mlar_status mlar_guarding_check(mlar_engine *engine, void *stream, mlar_diag *diag);

#endif
