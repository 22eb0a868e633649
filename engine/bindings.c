/* SPDX-License-Identifier: Apache-2.0
 *
 * bindings.c: checks bindings field by field and turns them into mlar_layer_params. Pure: no bound address is
 * ever dereferenced, only compared. */
#include "engine/bindings.h"

#include "arena/checked_size.h"
#include "arena/fail.h"
#include "engine/structs.h"
#include "kernels/schedule.h"

#include <math.h>
#include <mlarena/kv_cache.h>
#include <stdio.h>

/* Strides beyond this could overflow an address; 2^40 elements is far past any device. */
#define STRIDE_LIMIT ((int64_t)1 << 40)

static int64_t align_up_16_bytes(int64_t elements, int64_t element_bytes) {
    int64_t unit = 16 / element_bytes;
    return (elements + unit - 1) / unit * unit;
}

/* d_qk^-0.5 to the nearest float, whatever the caller's rounding mode: the double is good to its last places,
 * and the 29 bits that a float lacks are rounded away as an integer, so that the conversion is exact. */
static float default_scale(int32_t d_qk) {
    double scale = 1.0 / sqrt((double)d_qk);
    uint64_t bits;
    memcpy(&bits, &scale, sizeof bits);
    bits = (bits + ((uint64_t)1 << 28)) >> 29 << 29;
    memcpy(&scale, &bits, sizeof scale);
    return (float)scale;
}

mlar_status mlar_bindings_init_sized(mlar_bindings *bindings, size_t struct_size, const mlar_config *given,
                                     int32_t kind) {
    if (bindings == NULL || given == NULL) return MLAR_ERROR_ARGUMENT;
    mlar_config config;
    mlar_status status = mlar_config_validate(given, NULL);
    if (status != MLAR_OK) return status;
    (void)MLAR_STRUCT_READ(&config, given);
    if (kind < 0 || kind >= config.kind_count) return MLAR_ERROR_ARGUMENT;
    const mlar_kind_config *from = &config.kinds[kind];
    int32_t d_qk = 0, d_v = 0;
    if (mlar_kv_head_dims(from->scope[0].layout, config.nope, config.rope, &d_qk, &d_v) != MLAR_OK)
        return MLAR_ERROR_CONFIG;
    mlar_bindings own = {.scale = default_scale(d_qk), .lse_head_stride = 1, .lse_row_stride = config.heads};
    own.q_head_stride = align_up_16_bytes(d_qk, 2);
    own.q_row_stride = own.q_head_stride * config.heads;
    own.out_head_stride = align_up_16_bytes(d_v, 2);
    own.out_row_stride = own.out_head_stride * config.heads;
    for (int s = 0; s < from->scope_count; s++) {
        own.cache[s].block_size = 64;
        own.list[s].row_stride = from->scope[s].width;
        own.list[s].rows_per_len = 1;
        if (mlar_kv_block_stride_padded(from->scope[s].layout, config.nope, config.rope, 64,
                                        &own.cache[s].block_stride_bytes) != MLAR_OK)
            return MLAR_ERROR_CONFIG;
    }
    return MLAR_STRUCT_START(bindings, struct_size, &own);
}

/* ---- field checks ---- */

static mlar_status wrong(mlar_diag *diag, const char *field, int64_t given, int64_t needed, const char *why) {
    return mlar_fail(diag, MLAR_ERROR_BINDING, field, given, needed, "%s: %lld given, %s %lld", field,
                     (long long)given, why, (long long)needed);
}

static int aligned(const void *pointer, uintptr_t bytes) {
    return (uintptr_t)pointer % bytes == 0;
}

static mlar_status check_pointer(mlar_diag *diag, const char *field, const void *pointer,
                                 uintptr_t alignment) {
    if (pointer == NULL) return mlar_fail(diag, MLAR_ERROR_BINDING, field, 0, 0, "%s: null", field);
    if (!aligned(pointer, alignment))
        return wrong(diag, field, (int64_t)((uintptr_t)pointer % alignment), (int64_t)alignment,
                     "bytes past a multiple of");
    return MLAR_OK;
}

/* A [rows][heads][last] tensor through strides in elements. */
typedef struct mlar_strided {
    const char *name, *row_name, *head_name;
    const void *base;
    int64_t row_stride, head_stride, last;
    int64_t rows, heads;
    int64_t element_bytes;
    int64_t unit; /* strides are multiples of this many elements */
    int written;  /* elements must not share an address */
} mlar_strided;

static int64_t strided_elements(const mlar_strided *t) {
    return (t->rows - 1) * t->row_stride + (t->heads - 1) * t->head_stride + t->last;
}

static mlar_status check_strided(const mlar_strided *t, mlar_diag *diag) {
    struct {
        const char *name;
        int64_t stride, count;
    } dims[2] = {{t->row_name, t->row_stride, t->rows}, {t->head_name, t->head_stride, t->heads}};
    for (int i = 0; i < 2; i++) {
        if (dims[i].stride < 0 || dims[i].stride > STRIDE_LIMIT)
            return wrong(diag, dims[i].name, dims[i].stride, STRIDE_LIMIT, "must be 0 ..");
        if (dims[i].count > 1 && dims[i].stride % t->unit != 0)
            return wrong(diag, dims[i].name, dims[i].stride, t->unit, "must be a multiple of");
        if (t->written && dims[i].count > 1 && dims[i].stride < t->last)
            return wrong(diag, dims[i].name, dims[i].stride, t->last, "must be at least");
    }
    if (t->written && t->rows > 1 && t->heads > 1) {
        int64_t inner =
            t->row_stride < t->head_stride ? (t->rows - 1) * t->row_stride : (t->heads - 1) * t->head_stride;
        int64_t outer = t->row_stride < t->head_stride ? t->head_stride : t->row_stride;
        if (outer < inner + t->last)
            return wrong(diag, t->row_stride < t->head_stride ? t->head_name : t->row_name, outer,
                         inner + t->last, "rows and heads would overlap; must be at least");
    }
    return check_pointer(diag, t->name, t->base, (uintptr_t)(t->unit * t->element_bytes));
}

static mlar_status resolve_list(const mlar_kind_dims *kind, int s, const mlar_index_list *list,
                                int32_t capacity_rows, mlar_scope_params *scope, mlar_diag *diag) {
    char field[40];
#define FIELD(member) (snprintf(field, sizeof field, "list[%d]." #member, s), field)
    if (list->form != MLAR_LIST_DENSE && list->form != MLAR_LIST_RAGGED)
        return mlar_fail(
            diag, MLAR_ERROR_UNSUPPORTED, FIELD(form), list->form, MLAR_LIST_RAGGED,
            "list[%d].form: %d given; dense (0) and ragged (1) exist, local + block_table is reserved", s,
            (int)list->form);
    if (list->reserved != 0) return wrong(diag, FIELD(reserved), list->reserved, 0, "must be");
    int ragged = list->form == MLAR_LIST_RAGGED;
    mlar_status status = MLAR_OK;
    if (kind->width[s] > 0) {
        /* A ragged list may be empty as a whole; its indices are then never read. */
        if (!ragged || list->indices != NULL)
            if ((status = check_pointer(diag, FIELD(indices), list->indices, 4)) != MLAR_OK) return status;
        if (ragged && (status = check_pointer(diag, FIELD(indptr), list->indptr, 4)) != MLAR_OK)
            return status;
        if (!aligned(list->lens, 4)) return check_pointer(diag, FIELD(lens), list->lens, 4);
    }
    if (!ragged) {
        if (capacity_rows > 1 && (list->row_stride < kind->width[s] || list->row_stride > STRIDE_LIMIT))
            return wrong(diag, FIELD(row_stride), list->row_stride, kind->width[s],
                         "must be at least the width");
        if (list->rows_per_len < 1)
            return wrong(diag, FIELD(rows_per_len), list->rows_per_len, 1, "must be at least");
    }
#undef FIELD
    scope->indices = list->indices;
    scope->lens = ragged ? list->indptr : list->lens;
    scope->index_row_stride = ragged ? 0 : list->row_stride;
    scope->rows_per_len = ragged ? 1 : list->rows_per_len;
    scope->list_form = list->form;
    scope->width = kind->width[s];
    scope->layout = kind->layout[s];
    scope->fp8 = kind->fp8[s];
    return MLAR_OK;
}

static mlar_status resolve_cache(const mlar_kind_dims *kind, int s, const mlar_cache *cache,
                                 mlar_scope_params *scope, mlar_diag *diag) {
    char field[48];
#define FIELD(member) (snprintf(field, sizeof field, "cache[%d]." #member, s), field)
    if (cache->reserved != 0) return wrong(diag, FIELD(reserved), cache->reserved, 0, "must be");
    if (cache->block_size < 1 || cache->block_size > 65536)
        return wrong(diag, FIELD(block_size), cache->block_size, 65536, "must be 1 ..");
    if (cache->num_blocks < 0 || cache->num_blocks > INT32_MAX / cache->block_size)
        return wrong(diag, FIELD(num_blocks), cache->num_blocks, INT32_MAX / cache->block_size,
                     "must be 0 .. (slots < 2^31)");
    uint64_t least = 0, record = 0, scales = 0;
    const mlar_shape *shape = &kind->shape;
    (void)mlar_kv_block_stride_min(kind->layout[s], shape->nope, shape->rope, cache->block_size, &least);
    (void)mlar_kv_record_bytes(kind->layout[s], shape->nope, shape->rope, &record);
    (void)mlar_kv_scale_offset(kind->layout[s], shape->nope, shape->rope, cache->block_size, &scales);
    if (cache->block_stride_bytes < least)
        return wrong(diag, FIELD(block_stride_bytes), mlar_size_for_diag(cache->block_stride_bytes),
                     (int64_t)least, "the layout needs at least");
    if (cache->block_stride_bytes % 2 != 0)
        return wrong(diag, FIELD(block_stride_bytes), mlar_size_for_diag(cache->block_stride_bytes), 2,
                     "must be a multiple of");
    if (cache->num_blocks > 0 && cache->block_stride_bytes > MLAR_SIZE_LIMIT / (uint64_t)cache->num_blocks)
        return wrong(diag, FIELD(block_stride_bytes), mlar_size_for_diag(cache->block_stride_bytes),
                     cache->num_blocks, "the cache must stay below 2^63 bytes with blocks");
    if (kind->width[s] > 0 && cache->num_blocks > 0) {
        mlar_status status = check_pointer(diag, FIELD(base), cache->base, 2);
        if (status != MLAR_OK) return status;
    }
#undef FIELD
    scope->cache = cache->base;
    scope->block_stride_bytes = cache->block_stride_bytes;
    scope->block_size = (uint32_t)cache->block_size;
    scope->num_slots = (uint32_t)(cache->num_blocks * cache->block_size);
    scope->record_bytes = (uint32_t)record;
    scope->scale_offset_bytes = (uint32_t)scales;
    scope->wide = aligned(cache->base, 16) && cache->block_stride_bytes % 16 == 0 && record % 16 == 0;
    mlar_block_division(scope->block_size, &scope->block_magic, &scope->block_shift);
    return MLAR_OK;
}

/* ---- overlap ---- */

typedef struct mlar_range {
    const char *name;
    uintptr_t begin, end;
} mlar_range;

static mlar_range range_of(const char *name, const void *base, uint64_t bytes) {
    uintptr_t begin = (uintptr_t)base;
    return (mlar_range){name, begin, base == NULL ? begin : begin + (uintptr_t)bytes};
}

static mlar_range range_of_strided(const mlar_strided *t) {
    return range_of(t->name, t->base, (uint64_t)(strided_elements(t) * t->element_bytes));
}

static mlar_status check_overlap(const mlar_range *output, const mlar_range *others, int count,
                                 mlar_diag *diag) {
    for (int i = 0; i < count; i++)
        if (output->begin < others[i].end && others[i].begin < output->end)
            return mlar_fail(diag, MLAR_ERROR_OVERLAP, output->name, 0, 0, "%s overlaps %s", output->name,
                             others[i].name);
    return MLAR_OK;
}

/* Bytes of a dense list that may be read; of a ragged one only the start is known to the host. */
static uint64_t list_bytes(const mlar_scope_params *scope, int32_t rows) {
    if (scope->list_form == MLAR_LIST_RAGGED) return 4;
    return 4 * ((uint64_t)(rows - 1) * (uint64_t)scope->index_row_stride + (uint64_t)scope->width);
}

static uint64_t lens_bytes(const mlar_scope_params *scope, int32_t rows) {
    if (scope->list_form == MLAR_LIST_RAGGED) return 4 * ((uint64_t)rows + 1);
    return 4 * (((uint64_t)rows + (uint64_t)scope->rows_per_len - 1) / (uint64_t)scope->rows_per_len);
}

static mlar_status check_outputs(const mlar_layer_params *layer, const mlar_strided *q,
                                 const mlar_strided *out, const mlar_strided *lse, const void *arena,
                                 uint64_t arena_bytes, int32_t rows, mlar_diag *diag) {
    static const char *const names[MLAR_SCOPES][3] = {{"cache[0]", "list[0].indices", "list[0].lens"},
                                                      {"cache[1]", "list[1].indices", "list[1].lens"}};
    mlar_range inputs[4 + 3 * MLAR_SCOPES];
    int count = 0;
    inputs[count++] = range_of("the arena", arena, arena_bytes);
    inputs[count++] = range_of_strided(q);
    inputs[count++] = range_of("attn_sink", layer->sink, 4 * (uint64_t)out->heads);
    for (int s = 0; s < layer->scope_count; s++) {
        const mlar_scope_params *scope = &layer->scope[s];
        uint64_t blocks = scope->num_slots / scope->block_size;
        inputs[count++] = range_of(names[s][0], scope->cache, blocks * scope->block_stride_bytes);
        inputs[count++] = range_of(names[s][1], scope->indices, list_bytes(scope, rows));
        inputs[count++] = range_of(names[s][2], scope->lens, lens_bytes(scope, rows));
    }
    mlar_range output = range_of_strided(out);
    mlar_status status = check_overlap(&output, inputs, count, diag);
    if (status != MLAR_OK || lse->base == NULL) return status;
    inputs[count++] = output;
    mlar_range lse_range = range_of_strided(lse);
    return check_overlap(&lse_range, inputs, count, diag);
}

/* ---- the whole ---- */

static mlar_status read_bindings(const mlar_dims *dims, int32_t kind, const mlar_bindings *given,
                                 mlar_bindings *own, mlar_diag *diag) {
    if (given == NULL) return mlar_fail(diag, MLAR_ERROR_ARGUMENT, "bindings", 0, 0, "bindings: null");
    mlar_status status = MLAR_STRUCT_READ(own, given);
    if (status != MLAR_OK)
        return mlar_fail(diag, status, "bindings.struct_size", given->struct_size, sizeof *own,
                         "bindings.struct_size: %u given, this version knows %zu", given->struct_size,
                         sizeof *own);
    if (kind < 0 || kind >= dims->config.kind_count)
        return mlar_fail(diag, MLAR_ERROR_ARGUMENT, "kind", kind, dims->config.kind_count - 1,
                         "kind: %d given, the configuration has 0..%d", (int)kind,
                         (int)dims->config.kind_count - 1);
    return MLAR_OK;
}

static mlar_status resolve_lists(const mlar_kind_dims *kind, const mlar_index_list list[MLAR_SCOPES],
                                 int32_t capacity_rows, mlar_layer_params *layer, mlar_diag *diag) {
    mlar_status status = MLAR_OK;
    memset(layer, 0, sizeof *layer);
    layer->scope_count = kind->scope_count;
    for (int s = 0; s < layer->scope_count && status == MLAR_OK; s++)
        status = resolve_list(kind, s, &list[s], capacity_rows, &layer->scope[s], diag);
    return status;
}

mlar_status mlar_lists_resolve(const mlar_dims *dims, int32_t kind, const mlar_bindings *given,
                               mlar_layer_params *layer, mlar_diag *diag) {
    mlar_bindings own;
    mlar_status status = read_bindings(dims, kind, given, &own, diag);
    if (status != MLAR_OK) return status;
    for (int s = 0; s < MLAR_SCOPES; s++) own.list[s].row_stride = 0; /* one row has no stride */
    return resolve_lists(&dims->kind[kind], own.list, 1, layer, diag);
}

mlar_status mlar_bindings_resolve(const mlar_dims *dims, int32_t kind, const mlar_bindings *given,
                                  int32_t capacity_rows, const void *arena, uint64_t arena_bytes,
                                  mlar_layer_params *layer, mlar_diag *diag) {
    mlar_bindings own;
    mlar_status status = read_bindings(dims, kind, given, &own, diag);
    if (status != MLAR_OK) return status;
    const mlar_kind_dims *k = &dims->kind[kind];
    if ((status = resolve_lists(k, own.list, capacity_rows, layer, diag)) != MLAR_OK) return status;
    int f32 = own.out_type == MLAR_OUT_F32;
    if (own.out_type != MLAR_OUT_BF16 && !f32)
        return wrong(diag, "out_type", own.out_type, 1, "must be 0 ..");
    if (own.tail != MLAR_TAIL_ZERO && own.tail != MLAR_TAIL_UNTOUCHED)
        return wrong(diag, "tail", own.tail, 1, "must be 0 ..");
    if (!isfinite(own.scale))
        return mlar_fail(diag, MLAR_ERROR_BINDING, "scale", 0, 0, "scale: %g given, must be finite",
                         (double)own.scale);
    int64_t rows = capacity_rows, heads = k->shape.heads;
    mlar_strided q = {"q",
                      "q_row_stride",
                      "q_head_stride",
                      own.q,
                      own.q_row_stride,
                      own.q_head_stride,
                      k->shape.d_qk,
                      rows,
                      heads,
                      2,
                      8,
                      0};
    mlar_strided out = {"out",
                        "out_row_stride",
                        "out_head_stride",
                        own.out,
                        own.out_row_stride,
                        own.out_head_stride,
                        k->shape.d_v,
                        rows,
                        heads,
                        f32 ? 4 : 2,
                        f32 ? 4 : 8,
                        1};
    mlar_strided lse = {"lse",
                        "lse_row_stride",
                        "lse_head_stride",
                        own.lse,
                        own.lse_row_stride,
                        own.lse_head_stride,
                        1,
                        rows,
                        heads,
                        4,
                        1,
                        1};
    if ((status = check_strided(&q, diag)) != MLAR_OK) return status;
    if ((status = check_strided(&out, diag)) != MLAR_OK) return status;
    if (own.lse != NULL && (status = check_strided(&lse, diag)) != MLAR_OK) return status;
    if (!aligned(own.attn_sink, 4)) return check_pointer(diag, "attn_sink", own.attn_sink, 4);
    for (int s = 0; s < k->scope_count; s++)
        if ((status = resolve_cache(k, s, &own.cache[s], &layer->scope[s], diag)) != MLAR_OK) return status;
    layer->q = own.q;
    layer->sink = own.attn_sink;
    layer->out = own.out;
    layer->lse = own.lse;
    layer->q_row_stride = own.q_row_stride;
    layer->q_head_stride = own.q_head_stride;
    layer->out_row_stride = own.out_row_stride;
    layer->out_head_stride = own.out_head_stride;
    layer->lse_row_stride = own.lse_row_stride;
    layer->lse_head_stride = own.lse_head_stride;
    layer->scale = own.scale;
    layer->out_f32 = f32;
    layer->tail_zero = own.tail == MLAR_TAIL_ZERO;
    return check_outputs(layer, &q, &out, &lse, arena, arena_bytes, capacity_rows, diag);
}

static mlar_status check_same(mlar_diag *diag, const char *field, int64_t from, int64_t to) {
    return from == to ? MLAR_OK : wrong(diag, field, to, from, "captured with");
}

static mlar_status same_scope(int s, const mlar_scope_params *from, const mlar_scope_params *to,
                              mlar_diag *diag) {
    const struct {
        const char *list, *member;
        int64_t from, to;
    } fixed[] = {
        {"cache", "block_size", from->block_size, to->block_size},
        {"cache", "block_stride_bytes", (int64_t)from->block_stride_bytes, (int64_t)to->block_stride_bytes},
        {"list", "form", from->list_form, to->list_form},
        {"list", "row_stride", from->index_row_stride, to->index_row_stride},
        {"list", "rows_per_len", from->rows_per_len, to->rows_per_len},
    };
    char field[48];
    mlar_status status = MLAR_OK;
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed && status == MLAR_OK; i++) {
        snprintf(field, sizeof field, "%s[%d].%s", fixed[i].list, s, fixed[i].member);
        status = check_same(diag, field, fixed[i].from, fixed[i].to);
    }
    if (status != MLAR_OK || !from->wide || to->wide) return status;
    /* the captured kernel may load 16 bytes at a time */
    snprintf(field, sizeof field, "cache[%d].base", s);
    return mlar_fail(diag, MLAR_ERROR_BINDING, field, (int64_t)((uintptr_t)to->cache % 16), 16,
                     "%s: captured at a multiple of 16, and so it must stay", field);
}

mlar_status mlar_bindings_same_shape(const mlar_layer_params *from, const mlar_layer_params *to,
                                     mlar_diag *diag) {
    const struct {
        const char *field;
        int64_t from, to;
    } fixed[] = {
        {"q_row_stride", from->q_row_stride, to->q_row_stride},
        {"q_head_stride", from->q_head_stride, to->q_head_stride},
        {"out_row_stride", from->out_row_stride, to->out_row_stride},
        {"out_head_stride", from->out_head_stride, to->out_head_stride},
        {"lse_row_stride", from->lse_row_stride, to->lse_row_stride},
        {"lse_head_stride", from->lse_head_stride, to->lse_head_stride},
        {"out_type", from->out_f32 ? MLAR_OUT_F32 : MLAR_OUT_BF16,
         to->out_f32 ? MLAR_OUT_F32 : MLAR_OUT_BF16},
        {"tail", from->tail_zero ? MLAR_TAIL_ZERO : MLAR_TAIL_UNTOUCHED,
         to->tail_zero ? MLAR_TAIL_ZERO : MLAR_TAIL_UNTOUCHED},
    };
    mlar_status status = MLAR_OK;
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed && status == MLAR_OK; i++)
        status = check_same(diag, fixed[i].field, fixed[i].from, fixed[i].to);
    for (int s = 0; s < from->scope_count && status == MLAR_OK; s++)
        status = same_scope(s, &from->scope[s], &to->scope[s], diag);
    if (status != MLAR_OK) return status;
    int lse = (from->lse == NULL) != (to->lse == NULL), sink = (from->sink == NULL) != (to->sink == NULL);
    if (lse || sink)
        return mlar_fail(diag, MLAR_ERROR_BINDING, lse ? "lse" : "attn_sink", 0, 0,
                         "%s: stays present or absent as captured", lse ? "lse" : "attn_sink");
    return MLAR_OK;
}
