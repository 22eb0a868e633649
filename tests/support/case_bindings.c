/* SPDX-License-Identifier: Apache-2.0
 *
 * case_bindings.c: see case_bindings.h. */
#include "tests/support/case_bindings.h"

mlar_kind_config case_kind(const case_spec *spec) {
    mlar_kind_config kind = {.scope_count = spec->scope_count};
    for (int32_t s = 0; s < spec->scope_count; s++)
        kind.scope[s] = (mlar_scope_config){
            .width = spec->scope[s].width, .layout = spec->scope[s].layout, .fp8 = spec->scope[s].fp8};
    return kind;
}

mlar_bindings case_bindings(const mlar_layer_params *layer) {
    mlar_bindings bindings = {.struct_size = sizeof bindings,
                              .out_type = layer->out_f32 ? MLAR_OUT_F32 : MLAR_OUT_BF16,
                              .tail = layer->tail_zero ? MLAR_TAIL_ZERO : MLAR_TAIL_UNTOUCHED,
                              .scale = layer->scale,
                              .q = layer->q,
                              .q_row_stride = layer->q_row_stride,
                              .q_head_stride = layer->q_head_stride,
                              .out = layer->out,
                              .out_row_stride = layer->out_row_stride,
                              .out_head_stride = layer->out_head_stride,
                              .lse = layer->lse,
                              .lse_row_stride = layer->lse_row_stride,
                              .lse_head_stride = layer->lse_head_stride,
                              .attn_sink = layer->sink};
    for (int32_t s = 0; s < layer->scope_count; s++) {
        const mlar_scope_params *scope = &layer->scope[s];
        const int ragged = scope->list_form == MLAR_LIST_RAGGED;
        bindings.cache[s] = (mlar_cache){.base = scope->cache,
                                         .block_stride_bytes = scope->block_stride_bytes,
                                         .num_blocks = scope->num_slots / scope->block_size,
                                         .block_size = (int32_t)scope->block_size};
        bindings.list[s] = (mlar_index_list){.indices = scope->indices,
                                             .lens = ragged ? NULL : scope->lens,
                                             .indptr = ragged ? scope->lens : NULL,
                                             .row_stride = scope->index_row_stride,
                                             .rows_per_len = scope->rows_per_len,
                                             .form = scope->list_form};
    }
    return bindings;
}
