/* SPDX-License-Identifier: Apache-2.0
 *
 * bindings.h: the host's bindings, checked, as the parameters that kernels read. */
#ifndef MLAR_ENGINE_BINDINGS_H
#define MLAR_ENGINE_BINDINGS_H

#include "engine/dims.h"

#include <stdint.h>

/* Checks everything that SPEC section 1 asks of one layer's bindings for `capacity_rows` rows and fills
 * *layer. [arena, arena + arena_bytes) is what outputs must stay clear of. MLAR_ERROR_BINDING,
 * MLAR_ERROR_OVERLAP; diag names the field. */
mlar_status mlar_bindings_resolve(const mlar_dims *dims, int32_t kind, const mlar_bindings *bindings,
                                  int32_t capacity_rows, const void *arena, uint64_t arena_bytes,
                                  mlar_layer_params *layer, mlar_diag *diag);

/* Of the index lists what prepare reads: how long they are. Their entries' stride is not looked at, and 0. */
mlar_status mlar_lists_resolve(const mlar_dims *dims, int32_t kind, const mlar_bindings *bindings,
                               mlar_layer_params *layer, mlar_diag *diag);

/* MLAR_ERROR_BINDING if rebinding `from` to `to` changes what a captured program has fixed. */
mlar_status mlar_bindings_same_shape(const mlar_layer_params *from, const mlar_layer_params *to,
                                     mlar_diag *diag);

#endif
