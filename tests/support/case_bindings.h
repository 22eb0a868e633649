/* SPDX-License-Identifier: Apache-2.0
 *
 * case_bindings.h: a case's layer as the bindings that a host would give. Apart from cases.h, which knows nothing of
 * the public API. */
#ifndef TESTS_SUPPORT_CASE_BINDINGS_H
#define TESTS_SUPPORT_CASE_BINDINGS_H

#include <mlarena/mlarena.h>

#include "kernels/params.h"

/* made->layer of a case, or a copy of it with other addresses. */
mlar_bindings case_bindings(const mlar_layer_params *layer);

#endif
