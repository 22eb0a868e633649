/* SPDX-License-Identifier: Apache-2.0
 *
 * traits.h: what sizes need to know of a back end before one exists. Pure. */
#ifndef MLAR_ENGINE_TRAITS_H
#define MLAR_ENGINE_TRAITS_H

#include "engine/dims.h"

/* MLAR_ERROR_UNSUPPORTED for an architecture that no kernel was written for. */
mlar_status mlar_traits_of(const mlar_config *config, mlar_traits *traits, mlar_diag *diag);

/* shape->cluster_rows and cluster_blocks, by everything else in the shape and the tiles of its longest row
 * (kernels/schedule.h). */
void mlar_traits_clusters(const mlar_config *config, mlar_shape *shape, int32_t max_tiles);
/* Does this attention launch merge the parts of its rows by itself, so that no combine is to follow? */
int32_t mlar_traits_merges(const mlar_config *config, int32_t stage, const mlar_stage_args *args,
                           const mlar_layer_params *layer);

#endif
