/* SPDX-License-Identifier: Apache-2.0
 *
 * cases.c: draws case specs, builds the memory behind them, fills it. See cases.h for what a case promises.
 */
#define _POSIX_C_SOURCE 200112L /* posix_memalign: exact sizes, which aligned_alloc does not promise */
#include "tests/support/cases.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DSV4 = 0, V32 = 1, BF16 = 2, FNUZ = 1, RAGGED = 1 };

/* ---- random numbers ---- */

uint64_t case_random(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

int32_t case_random_below(uint64_t *state, int32_t bound) {
    return (int32_t)((case_random(state) >> 32) * (uint64_t)bound >> 32);
}

static bool one_in(uint64_t *state, int32_t n) {
    return case_random_below(state, n) == 0;
}

/* About normal, unit variance: four uniforms of variance 1/3 each, times sqrt(3)/2. Exact in any mode. */
static float normal(uint64_t *state) {
    float sum = 0;
    for (int i = 0; i < 4; ++i)
        sum += (float)(case_random_below(state, 1 << 20) - (1 << 19)) / (float)(1 << 19);
    return sum * 0.8660254f;
}

static uint16_t bf16_truncate(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)(bits >> 16);
}

#define PICK(state, table) ((table)[case_random_below(state, (int32_t)(sizeof(table) / sizeof *(table)))])

/* ---- section 2 of SPEC ---- */

static int64_t record_bytes(int32_t layout, int32_t nope, int32_t rope) {
    if (layout == DSV4) return nope + 2 * rope;
    if (layout == V32) return nope + nope / 128 * 4 + 2 * rope;
    return 2 * (nope + rope);
}

static int64_t least_stride(const case_scope_spec *scope, int32_t nope, int32_t rope) {
    return scope->block_size * (record_bytes(scope->layout, nope, rope) + (scope->layout == DSV4 ? 8 : 0));
}

/* ---- drawing ---- */

static case_scope_spec draw_scope(uint64_t *state, uint32_t features, int32_t max_width, int32_t nope,
                                  int32_t rope) {
    static const int32_t block_sizes[] = {1, 2, 4, 53, 61, 64, 69, 256, 576};
    static const int32_t layouts[] = {DSV4, V32, BF16};
    static const int32_t even_block_sizes[] = {16, 64, 256};
    case_scope_spec scope = {.rows_per_len = 1, .has_lens = true};
    if (features & CASE_LAYOUTS) {
        scope.layout = PICK(state, layouts);
        if (scope.layout == V32 && nope % 128) scope.layout = DSV4;
        scope.fp8 = case_random_below(state, 2);
    }
    scope.block_size = features & CASE_UNALIGNED ? PICK(state, block_sizes) : PICK(state, even_block_sizes);
    scope.num_blocks = 1 + case_random_below(state, 1 + 1200 / scope.block_size);
    scope.width = one_in(state, 12) ? 0 : 1 + case_random_below(state, max_width);
    if ((features & CASE_RAGGED) && one_in(state, 3)) scope.list_form = RAGGED;
    if (one_in(state, 4)) scope.rows_per_len = 1 + case_random_below(state, 3);
    if (features & CASE_FORMS) scope.has_lens = !one_in(state, 5);
    if ((features & CASE_STRIDES) && one_in(state, 2)) scope.index_row_extra = case_random_below(state, 9);
    if ((features & CASE_UNALIGNED) && one_in(state, 2)) {
        scope.stride_extra_bytes = one_in(state, 2) ? 0 : 2 * case_random_below(state, 40);
        scope.base_offset_bytes = 2 * case_random_below(state, 8);
    } else if (scope.layout == DSV4) {
        scope.stride_extra_bytes = (int32_t)((576 - least_stride(&scope, nope, rope) % 576) % 576);
    }
    return scope;
}

static void draw_forms(uint64_t *state, uint32_t features, case_spec *spec) {
    spec->has_lse = true;
    spec->sink = CASE_SINK_ORDINARY;
    spec->tail_zero = true;
    if (features & CASE_SINKS) spec->sink = one_in(state, 3) ? CASE_SINK_SPECIAL : CASE_SINK_ORDINARY;
    if (features & CASE_FORMS) {
        spec->has_lse = !one_in(state, 6);
        if (one_in(state, 4)) spec->sink = CASE_SINK_NONE;
        spec->tail_zero = !one_in(state, 3);
        spec->out_f32 = one_in(state, 4);
        if (one_in(state, 2)) spec->capacity_rows += case_random_below(state, 4);
        if (one_in(state, 5)) spec->scale = 0.1f;
    }
    if (features & CASE_STRIDES) {
        spec->q_head_extra = 8 * case_random_below(state, 3);
        spec->q_row_extra = one_in(state, 2) ? 8 * case_random_below(state, 100) : 0; /* padded heads */
        spec->out_head_extra = 8 * case_random_below(state, 3);
        spec->out_row_extra = one_in(state, 2) ? 8 * case_random_below(state, 100) : 0;
        spec->lse_transposed = one_in(state, 2);
    }
}

case_spec case_draw(uint64_t seed, uint32_t features, const case_bounds *bounds) {
    static const int32_t small[][2] = {{64, 8}, {64, 0}, {64, 6}, {192, 6}, {128, 16}, {128, 2}};
    static const int32_t true_sizes[][2] = {{448, 64}, {512, 64}, {256, 64}};
    uint64_t state = seed ^ 0x5eedu;
    const int32_t max_rows = bounds && bounds->rows ? bounds->rows : 5;
    const int32_t max_heads = bounds && bounds->heads ? bounds->heads : 16;
    const int32_t max_width = bounds && bounds->width ? bounds->width : 300;
    const bool small_dims = (bounds && bounds->dims == 1) || one_in(&state, 2);
    const int32_t *dims = small_dims ? PICK(&state, small) : PICK(&state, true_sizes);
    case_spec spec = {.seed = seed, .features = features};
    spec.nope = dims[0];
    spec.rope = dims[1];
    spec.heads =
        one_in(&state, 2) ? 1 << case_random_below(&state, 8) : 1 + case_random_below(&state, max_heads);
    if (spec.heads > max_heads) spec.heads = max_heads;
    spec.rows = one_in(&state, 20) ? 0 : 1 + case_random_below(&state, max_rows);
    spec.capacity_rows = spec.rows ? spec.rows : 1;
    spec.scope_count = one_in(&state, 4) ? 1 : 2;
    for (int32_t s = 0; s < spec.scope_count; ++s)
        spec.scope[s] = draw_scope(&state, features, max_width, spec.nope, spec.rope);
    draw_forms(&state, features, &spec);
    return spec;
}

const char *case_describe(const case_spec *spec, char *line, size_t line_bytes) {
    static const char *const layouts[] = {"dsv4", "v32", "bf16"};
    size_t used = 0;
    int n = snprintf(line, line_bytes, "seed %" PRIu64 ": %d of %d rows, %d heads, %d+%d, sink %d%s%s",
                     spec->seed, spec->rows, spec->capacity_rows, spec->heads, spec->nope, spec->rope,
                     (int)spec->sink, spec->out_f32 ? ", f32 out" : "",
                     spec->tail_zero ? "" : ", tail untouched");
    for (int32_t s = 0; s < spec->scope_count && n >= 0; ++s) {
        const case_scope_spec *scope = &spec->scope[s];
        used += (size_t)n;
        if (used >= line_bytes) break;
        n = snprintf(line + used, line_bytes - used,
                     "; %s%s block %d x %d +%d base %d, %s width %d, %d rows/len", layouts[scope->layout],
                     scope->fp8 == FNUZ ? "/fnuz" : "", scope->block_size, scope->num_blocks,
                     scope->stride_extra_bytes, scope->base_offset_bytes,
                     scope->list_form == RAGGED ? "ragged"
                     : scope->has_lens          ? "dense"
                                                : "dense full",
                     scope->width, scope->rows_per_len);
    }
    return line;
}

/* ---- memory ---- */

void case_point(mlar_layer_params *layer, const case_buffer *buffer, void *memory) {
    uint8_t *begin = (uint8_t *)memory + buffer->begin_bytes;
    memcpy((uint8_t *)layer + buffer->pointer_at, &begin, sizeof begin);
}

static uint8_t *new_buffer(step_case *made, const char *name, size_t begin_bytes, size_t bytes,
                           size_t pointer_at, bool is_output) {
    case_buffer *buffer = &made->buffers[made->buffer_count++];
    void *memory = NULL;
    *buffer = (case_buffer){.name = name, .begin_bytes = begin_bytes, .bytes = begin_bytes + bytes};
    buffer->pointer_at = pointer_at;
    buffer->is_output = is_output;
    if (posix_memalign(&memory, 64, buffer->bytes ? buffer->bytes : 1)) abort();
    buffer->memory = memory;
    memset(memory, CASE_PATTERN, buffer->bytes);
    case_point(&made->layer, buffer, memory);
    return buffer->memory + begin_bytes;
}

static size_t scope_pointer(int32_t s, size_t member) {
    return offsetof(mlar_layer_params, scope) + (size_t)s * sizeof(mlar_scope_params) + member;
}

/* ---- index lists ---- */

static int32_t wild_index(uint64_t *state, int32_t num_slots) {
    switch (case_random_below(state, 5)) {
    case 0:
        return INT_MIN;
    case 1:
        return INT_MAX;
    case 2:
        return -2;
    case 3:
        return num_slots;
    default:
        return num_slots + case_random_below(state, 1000);
    }
}

static int32_t draw_length(uint64_t *state, uint32_t features, int32_t width) {
    if ((features & CASE_WILD) && one_in(state, 12)) return one_in(state, 2) ? -3 : width + 17;
    if (one_in(state, 8)) return 0;
    return one_in(state, 4) ? width : case_random_below(state, width + 1);
}

/* The first `length` places of a list; what lies past them is wild. Marks the slots that will be read. */
static void fill_list(uint64_t *state, uint32_t features, int32_t *list, int32_t length, int32_t places,
                      int32_t num_slots, uint8_t *read) {
    const bool all_masked = (features & CASE_WILD) && one_in(state, 20);
    for (int32_t j = 0; j < places; ++j) {
        int32_t slot = case_random_below(state, num_slots);
        if (j && one_in(state, 20)) slot = list[j - 1];
        if ((features & CASE_WILD) && one_in(state, 12)) slot = -1;
        if ((features & CASE_WILD) && one_in(state, 40)) slot = wild_index(state, num_slots);
        if (all_masked) slot = -1;
        list[j] = j < length ? slot : wild_index(state, num_slots);
        if (j < length && slot >= 0 && slot < num_slots) read[slot] = 1;
    }
}

static void fill_dense(uint64_t *state, step_case *made, int32_t s, uint8_t *read) {
    const case_spec *spec = &made->spec;
    const case_scope_spec *from = &spec->scope[s];
    mlar_scope_params *scope = &made->layer.scope[s];
    const int32_t stride = from->width + from->index_row_extra, groups_of = from->rows_per_len;
    const int32_t lens_count = (spec->capacity_rows + groups_of - 1) / groups_of;
    const size_t places = (size_t)(spec->capacity_rows - 1) * (size_t)stride + (size_t)from->width;
    int32_t *lens = NULL;
    int32_t *indices = (int32_t *)(void *)new_buffer(
        made, s ? "extra_indices" : "window_indices", 0, places * sizeof *indices,
        scope_pointer(s, offsetof(mlar_scope_params, indices)), false);
    if (from->has_lens)
        lens = (int32_t *)(void *)new_buffer(made, s ? "extra_lens" : "window_lens", 0,
                                             (size_t)lens_count * sizeof *lens,
                                             scope_pointer(s, offsetof(mlar_scope_params, lens)), false);
    scope->index_row_stride = stride;
    for (size_t i = 0; i < places; ++i) indices[i] = wild_index(state, (int32_t)scope->num_slots);
    for (int32_t i = 0; lens && i < lens_count; ++i)
        lens[i] = i * groups_of < spec->rows ? draw_length(state, spec->features, from->width) : INT_MAX;
    for (int32_t row = 0; row < spec->rows; ++row)
        fill_list(state, spec->features, indices + row * stride, lens ? lens[row / groups_of] : from->width,
                  from->width, (int32_t)scope->num_slots, read);
}

static void fill_ragged(uint64_t *state, step_case *made, int32_t s, uint8_t *read) {
    const case_spec *spec = &made->spec;
    const case_scope_spec *from = &spec->scope[s];
    mlar_scope_params *scope = &made->layer.scope[s];
    int32_t *indices,
        *indptr = (int32_t *)(void *)new_buffer(made, s ? "extra_indptr" : "window_indptr", 0,
                                                (size_t)(spec->capacity_rows + 1) * sizeof *indptr,
                                                scope_pointer(s, offsetof(mlar_scope_params, lens)), false);
    indptr[0] = case_random_below(state, 3);
    for (int32_t row = 0; row < spec->capacity_rows; ++row) {
        const int32_t length = draw_length(state, spec->features, from->width);
        /* Nobody may look at the pointers of rows that are not live. */
        indptr[row + 1] = row < spec->rows ? indptr[row] + (length < 0 ? 0 : length) : INT_MIN;
    }
    indices = (int32_t *)(void *)new_buffer(made, s ? "extra_indices" : "window_indices", 0,
                                            (size_t)indptr[spec->rows] * sizeof *indices,
                                            scope_pointer(s, offsetof(mlar_scope_params, indices)), false);
    for (int32_t row = 0; row < spec->rows; ++row) {
        const int32_t places = indptr[row + 1] - indptr[row];
        fill_list(state, spec->features, indices + indptr[row], places < from->width ? places : from->width,
                  places, (int32_t)scope->num_slots, read);
    }
}

/* ---- caches ---- */

/* How a cache's fp8 bytes are drawn: of uniform magnitude up to 240 (FNUZ 120), or any byte. */
typedef struct filling {
    uint32_t features;
    int32_t fp8;
    bool any_byte;
} filling;

static uint8_t draw_fp8(uint64_t *state, const filling *how) {
    const uint8_t nan = how->fp8 == FNUZ ? 0x80 : one_in(state, 2) ? 0x7f : 0xff;
    const uint8_t random = (uint8_t)case_random(state);
    int32_t field = 14;
    if ((how->features & CASE_SPECIALS) && one_in(state, 500)) return nan;
    if (how->any_byte) return random == 0x80 || (random & 0x7f) == 0x7f ? 0 : random;
    for (uint64_t bits = case_random(state); field > 0 && (bits & 1); bits >>= 1) --field;
    /* A sign with nothing behind it would be FNUZ's NaN. */
    return (uint8_t)((random & 0x87) | field << 3 | (field == 0));
}

static uint8_t draw_e8m0(uint64_t *state, const filling *how) {
    static const uint8_t special[] = {0, 1, 2, 3, 255, 255, 0, 60};
    if ((how->features & CASE_SPECIALS) && one_in(state, 25)) return PICK(state, special);
    if ((how->features & CASE_OVERFLOWS) && one_in(state, 400))
        return (uint8_t)(250 + case_random_below(state, 5));
    if (one_in(state, 12)) return (uint8_t)(90 + case_random_below(state, 30));
    return (uint8_t)(117 + case_random_below(state, 4));
}

static float draw_f32_scale(uint64_t *state, const filling *how) {
    const float special[] = {0.0f, NAN, 1e-41f, 1e-38f, -0.004f};
    if ((how->features & CASE_SPECIALS) && one_in(state, 25)) return PICK(state, special);
    if ((how->features & CASE_OVERFLOWS) && one_in(state, 400)) return one_in(state, 2) ? INFINITY : 3e38f;
    return (float)(1 + case_random_below(state, 1 << 20)) / (float)(1 << 27); /* up to 2^-7 */
}

static void fill_bf16(uint64_t *state, const filling *how, uint8_t *to, int32_t count) {
    for (int32_t d = 0; d < count; ++d) {
        uint16_t value = bf16_truncate(normal(state));
        if ((how->features & CASE_SPECIALS) && one_in(state, 500)) value = one_in(state, 2) ? 0x7fc1 : 0xffff;
        if ((how->features & CASE_OVERFLOWS) && one_in(state, 20000)) value = 0xff80; /* -inf */
        memcpy(to + 2 * d, &value, sizeof value);
    }
}

static void fill_token(uint64_t *state, const filling *how, const case_spec *spec, int32_t layout,
                       uint8_t *record, uint8_t *scales) {
    const int32_t nope = spec->nope, rope = spec->rope;
    if (layout == BF16) {
        fill_bf16(state, how, record, nope + rope);
        return;
    }
    for (int32_t d = 0; d < nope; ++d) record[d] = draw_fp8(state, how);
    for (int32_t t = 0; layout == DSV4 && t < nope / 64; ++t) scales[t] = draw_e8m0(state, how);
    for (int32_t t = 0; layout == V32 && t < nope / 128; ++t) {
        const float scale = draw_f32_scale(state, how);
        memcpy(scales + 4 * t, &scale, sizeof scale);
    }
    fill_bf16(state, how, record + nope + (layout == V32 ? nope / 128 * 4 : 0), rope);
}

static void fill_scope(uint64_t *state, step_case *made, int32_t s) {
    const case_spec *spec = &made->spec;
    const case_scope_spec *from = &spec->scope[s];
    mlar_scope_params *scope = &made->layer.scope[s];
    const int64_t record = record_bytes(from->layout, spec->nope, spec->rope);
    const int64_t stride = least_stride(from, spec->nope, spec->rope) + from->stride_extra_bytes;
    const filling how = {spec->features, from->fp8, one_in(state, 2)};
    const size_t cache_bytes = (size_t)(stride * from->num_blocks);
    uint8_t *cache = new_buffer(made, s ? "extra_cache" : "window_cache", (size_t)from->base_offset_bytes,
                                cache_bytes, scope_pointer(s, offsetof(mlar_scope_params, cache)), false);
    uint8_t *read;
    scope->block_stride_bytes = (uint64_t)stride;
    scope->num_slots = (uint32_t)(from->num_blocks * from->block_size);
    scope->block_size = (uint32_t)from->block_size;
    for (scope->block_shift = 31; 1u << (scope->block_shift - 31) < scope->block_size;) ++scope->block_shift;
    scope->block_magic = (((uint64_t)1 << scope->block_shift) + scope->block_size - 1) / scope->block_size;
    scope->record_bytes = (uint32_t)record;
    scope->scale_offset_bytes = (uint32_t)(from->layout == DSV4  ? record * from->block_size
                                           : from->layout == V32 ? spec->nope
                                                                 : 0);
    scope->width = from->width;
    scope->rows_per_len = from->rows_per_len;
    scope->layout = from->layout;
    scope->fp8 = from->fp8;
    scope->list_form = from->list_form;
    scope->wide = from->base_offset_bytes % 16 == 0 && stride % 16 == 0 && record % 16 == 0;

    read = calloc(scope->num_slots, 1);
    if (!read) abort();
    if (from->list_form == RAGGED)
        fill_ragged(state, made, s, read);
    else
        fill_dense(state, made, s, read);
    memset(cache, 0xff, cache_bytes); /* NaN in every format but FNUZ, and there by the scale */
    for (uint32_t slot = 0; slot < scope->num_slots; ++slot) {
        uint8_t *block = cache + slot / scope->block_size * scope->block_stride_bytes;
        const uint64_t offset = slot % scope->block_size;
        uint8_t *token = block + offset * scope->record_bytes;
        if (read[slot])
            fill_token(state, &how, spec, from->layout, token,
                       from->layout == DSV4 ? block + scope->scale_offset_bytes + 8 * offset
                                            : token + spec->nope);
    }
    free(read);
}

/* ---- q, sink, outputs ---- */

static void fill_queries(uint64_t *state, step_case *made) {
    const case_spec *spec = &made->spec;
    mlar_layer_params *layer = &made->layer;
    const int32_t d_qk = made->shape.d_qk;
    uint16_t *q;
    size_t elements;
    layer->q_head_stride = (d_qk + 7) / 8 * 8 + spec->q_head_extra;
    layer->q_row_stride = spec->heads * layer->q_head_stride + spec->q_row_extra;
    elements = (size_t)((spec->capacity_rows - 1) * layer->q_row_stride +
                        (spec->heads - 1) * layer->q_head_stride + d_qk);
    q = (uint16_t *)(void *)new_buffer(made, "q", 0, elements * sizeof *q, offsetof(mlar_layer_params, q),
                                       false);
    memset(q, 0xff, elements * sizeof *q);
    for (int32_t row = 0; row < spec->rows; ++row) {
        for (int32_t head = 0; head < spec->heads; ++head) {
            uint16_t *to = q + row * layer->q_row_stride + head * layer->q_head_stride;
            const int32_t kind = spec->features & CASE_QUERIES ? case_random_below(state, 30) : -1;
            const float factor = kind == 0 ? 0x1p40f : kind == 1 ? 0x1p90f : kind == 2 ? 0x1p126f : 1.0f;
            for (int32_t d = 0; d < d_qk; ++d) to[d] = bf16_truncate(normal(state) * factor);
            if (kind == 3) to[case_random_below(state, d_qk)] = 0x7fc0;
            if (kind == 4) to[case_random_below(state, d_qk)] = 0xffa0; /* a signalling NaN */
        }
    }
}

static void fill_sink(uint64_t *state, step_case *made) {
    static const float special[] = {INFINITY, -INFINITY, 80.0f, -80.0f, 1e4f, -1e30f, 1e30f};
    float *sink;
    if (made->spec.sink == CASE_SINK_NONE) return;
    sink = (float *)(void *)new_buffer(made, "sink", 0, (size_t)made->spec.heads * sizeof *sink,
                                       offsetof(mlar_layer_params, sink), false);
    for (int32_t head = 0; head < made->spec.heads; ++head)
        sink[head] = made->spec.sink == CASE_SINK_SPECIAL && one_in(state, 2) ? PICK(state, special)
                                                                              : 2 * normal(state);
}

static void place_outputs(step_case *made) {
    const case_spec *spec = &made->spec;
    mlar_layer_params *layer = &made->layer;
    const size_t element = spec->out_f32 ? sizeof(float) : sizeof(uint16_t);
    size_t elements;
    layer->out_f32 = spec->out_f32;
    layer->out_head_stride = (made->shape.d_v + 7) / 8 * 8 + spec->out_head_extra;
    layer->out_row_stride = spec->heads * layer->out_head_stride + spec->out_row_extra;
    elements = (size_t)((spec->capacity_rows - 1) * layer->out_row_stride +
                        (spec->heads - 1) * layer->out_head_stride + made->shape.d_v);
    new_buffer(made, "out", 0, elements * element, offsetof(mlar_layer_params, out), true);
    if (!spec->has_lse) return;
    layer->lse_row_stride = spec->lse_transposed ? 1 : spec->heads;
    layer->lse_head_stride = spec->lse_transposed ? spec->capacity_rows : 1;
    new_buffer(made, "lse", 0, (size_t)spec->capacity_rows * (size_t)spec->heads * sizeof(float),
               offsetof(mlar_layer_params, lse), true);
}

step_case *case_new(const case_spec *spec) {
    step_case *made = calloc(1, sizeof *made);
    uint64_t state = spec->seed * 2 + 1;
    bool v32 = false;
    if (!made) abort();
    made->spec = *spec;
    for (int32_t s = 0; s < spec->scope_count; ++s) v32 |= spec->scope[s].layout == V32;
    made->shape.heads = spec->heads;
    made->shape.nope = spec->nope;
    made->shape.rope = spec->rope;
    made->shape.d_qk = spec->nope + spec->rope;
    made->shape.d_v = v32 ? spec->nope : made->shape.d_qk;
    made->shape.max_rows = spec->capacity_rows;
    made->layer.scale = spec->scale != 0 ? spec->scale : (float)(1 / sqrt(made->shape.d_qk));
    made->layer.tail_zero = spec->tail_zero;
    made->layer.scope_count = spec->scope_count;
    for (int32_t s = 0; s < spec->scope_count; ++s) fill_scope(&state, made, s);
    fill_queries(&state, made);
    fill_sink(&state, made);
    place_outputs(made);
    return made;
}

void case_poison_outputs(step_case *made) {
    for (int32_t i = 0; i < made->buffer_count; ++i)
        if (made->buffers[i].is_output) memset(made->buffers[i].memory, CASE_PATTERN, made->buffers[i].bytes);
}

void case_free(step_case *made) {
    if (!made) return;
    for (int32_t i = 0; i < made->buffer_count; ++i) free(made->buffers[i].memory);
    free(made);
}
