/* SPDX-License-Identifier: Apache-2.0
 *
 * case_bindings.h: a case as a host would give it: a kind of layer, and bindings. Apart from cases.h, which knows
 * nothing of the public API. */
#ifndef TESTS_SUPPORT_CASE_BINDINGS_H
#define TESTS_SUPPORT_CASE_BINDINGS_H

#include <mlarena/mlarena.h>

#include "tests/support/cases.h"

/* The case's scopes as a kind of layer. */
mlar_kind_config case_kind(const case_spec *spec);
/* made->layer of a case, or a copy of it with other addresses. */
mlar_bindings case_bindings(const mlar_layer_params *layer);

#endif
