/* SPDX-License-Identifier: Apache-2.0
 *
 * traits.h: what sizes need to know of a back end before one exists. Pure. */
#ifndef MLAR_ENGINE_TRAITS_H
#define MLAR_ENGINE_TRAITS_H

#include "engine/dims.h"

/* MLAR_ERROR_UNSUPPORTED for an architecture that no kernel was written for. */
mlar_status mlar_traits_of(const mlar_config *config, mlar_traits *traits, mlar_diag *diag);

#endif
