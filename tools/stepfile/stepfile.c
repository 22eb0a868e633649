/* SPDX-License-Identifier: Apache-2.0
 *
 * stepfile.c: the reader. Metadata first, then `q`, which fixes rows and heads, then each scope and each
 * expected tensor against those. A dimension outside its limit is refused here, where the tensor that carries
 * it can be named. */
#include "stepfile.h"

#include <ctype.h>
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "safetensors.h"
#include "stepfile_names.h"

#define MAX_ROWS              65536
#define MAX_HEADS             128
#define MAX_WIDTH             65536
#define MAX_BLOCK_SIZE_TOKENS 65536
#define MAX_SLOTS             INT32_MAX
#define SCALE_AGREEMENT                                                                                      \
    1e-5 /* relative, between `scale` (perhaps printed with few digits) and `scale_hex`                      \
          */

typedef struct reader {
    const safetensors_file *file;
    stepfile *step;
    step_error *error;
    bool failed; /* an optional tensor was there but unusable */
} reader;

/* -- Tensors. ------------------------------------------------------------------------------------------- */

static const char *shape_text(const safetensors_tensor *tensor, char *text, size_t text_bytes) {
    size_t used = (size_t)snprintf(text, text_bytes, "[");
    for (uint32_t i = 0; i < tensor->rank && used < text_bytes; i++)
        used +=
            (size_t)snprintf(text + used, text_bytes - used, "%s%" PRIu64, i ? ", " : "", tensor->shape[i]);
    if (used < text_bytes) snprintf(text + used, text_bytes - used, "]");
    return text;
}

static bool wrong_shape(const reader *in, const safetensors_tensor *tensor, const char *needed) {
    char text[128];
    return step_error_set(in->error, "%s: tensor '%s': shape %s, needed %s", safetensors_name(in->file),
                          tensor->name, shape_text(tensor, text, sizeof text), needed);
}

static bool find_required(const reader *in, const char *name, const safetensors_tensor **tensor) {
    *tensor = safetensors_find(in->file, name);
    return *tensor ||
           step_error_set(in->error, "%s: tensor '%s' is missing", safetensors_name(in->file), name);
}

static bool check_dtype(const reader *in, const safetensors_tensor *tensor, safetensors_dtype needed) {
    return tensor->dtype == needed ||
           step_error_set(in->error, "%s: tensor '%s': dtype %.16s, needed %s", safetensors_name(in->file),
                          tensor->name, tensor->dtype_name, safetensors_dtype_name(needed));
}

/* An aligned copy of a tensor's data, or NULL with an error; the caller has checked dtype and shape. */
static void *load(const reader *in, const safetensors_tensor *tensor) {
    void *data = stepfile_allocate(tensor->bytes);
    if (!data) {
        step_error_set(in->error, "%s: tensor '%s': no memory for %" PRIu64 " bytes",
                       safetensors_name(in->file), tensor->name, tensor->bytes);
        return NULL;
    }
    if (safetensors_read(in->file, tensor, data, in->error)) return data;
    free(data);
    return NULL;
}

/* A tensor of known shape that may be absent: NULL then, and NULL with in->failed set after an error. */
static void *load_optional(reader *in, const char *name, safetensors_dtype dtype, uint32_t rank,
                           const uint64_t *shape) {
    const safetensors_tensor *tensor = safetensors_find(in->file, name);
    if (!tensor || in->failed) return NULL;
    void *data = NULL;
    if (check_dtype(in, tensor, dtype)) {
        char needed[128];
        const safetensors_tensor model = {.rank = rank, .shape = shape};
        if (tensor->rank == rank && memcmp(tensor->shape, shape, rank * sizeof shape[0]) == 0)
            data = load(in, tensor);
        else
            wrong_shape(in, tensor, shape_text(&model, needed, sizeof needed));
    }
    in->failed = data == NULL;
    return data;
}

/* -- Metadata. ------------------------------------------------------------------------------------------ */

static bool wrong_metadata(const reader *in, const char *key, const char *needed) {
    return step_error_set(in->error, "%s: metadata '%s': '%.80s', needed %s", safetensors_name(in->file), key,
                          safetensors_metadata(in->file, key), needed);
}

/* Leaves *value alone where the key is absent. */
static bool read_number(const reader *in, const char *key, uint32_t least, uint32_t most,
                        uint32_t multiple_of, uint32_t *value) {
    const char *text = safetensors_metadata(in->file, key);
    if (!text) return true;
    char *end;
    unsigned long long number = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end != '\0' || number < least || number > most ||
        number % multiple_of != 0) {
        char needed[96];
        snprintf(needed, sizeof needed, multiple_of > 1 ? "%u..%u, a multiple of %u" : "%u..%u", least, most,
                 multiple_of);
        return wrong_metadata(in, key, needed);
    }
    *value = (uint32_t)number;
    return true;
}

/* A finite number, also as f32; *found says whether the key is there. */
static bool read_real(const reader *in, const char *key, bool *found, double *value) {
    const char *text = safetensors_metadata(in->file, key);
    *found = text != NULL;
    if (!text) return true;
    char *end;
    *value = strtod(text, &end);
    if (end == text || isspace((unsigned char)text[0]) || *end != '\0' || !(fabs(*value) <= FLT_MAX))
        return wrong_metadata(in, key, "a number that is finite as f32");
    return true;
}

/* `scale` is what people write; `scale_hex`, where it is there, holds every bit of it. */
static bool read_scale(const reader *in) {
    bool has_decimal, has_hex;
    double decimal = 0, hex = 0;
    if (!read_real(in, "scale", &has_decimal, &decimal)) return false;
    if (!read_real(in, "scale_hex", &has_hex, &hex)) return false;
    if (has_decimal && has_hex && !(fabs(decimal - hex) <= SCALE_AGREEMENT * fabs(hex)))
        return wrong_metadata(in, "scale", "the number that 'scale_hex' gives");
    in->step->scale = has_hex ? hex : has_decimal ? decimal : 1 / sqrt((double)in->step->d_qk);
    return true;
}

/* One of `count` words; leaves *value alone where the key is absent. */
static bool read_word(const reader *in, const char *key, const char *const *words, uint32_t count,
                      uint32_t *value) {
    const char *text = safetensors_metadata(in->file, key);
    if (!text) return true;
    char needed[96] = "";
    for (uint32_t i = 0; i < count; i++) {
        if (strcmp(text, words[i]) == 0) {
            *value = i;
            return true;
        }
        size_t used = strlen(needed);
        snprintf(needed + used, sizeof needed - used, "%s%s", i ? " or " : "", words[i]);
    }
    return wrong_metadata(in, key, needed);
}

static bool read_dimensions(const reader *in, uint32_t *rows_per_len) {
    stepfile *step = in->step;
    uint32_t layout = STEPFILE_DSV4;
    if (!read_word(in, "kv_layout", stepfile_layout_names, STEPFILE_LAYOUT_COUNT, &layout)) return false;
    step->layout = (stepfile_layout)layout;
    bool v32 = step->layout == STEPFILE_V32; /* its record has one shape only */
    step->nope = v32 ? 512 : 448;
    step->rope = 64;
    *rows_per_len = 1;
    if (!read_number(in, "nope_head_dim", v32 ? 512 : 64, 512, 64, &step->nope)) return false;
    if (!read_number(in, "rope_head_dim", v32 ? 64 : 0, v32 ? 64 : 128, 2, &step->rope)) return false;
    if (!read_number(in, "queries_per_request", 1, MAX_ROWS, 1, rows_per_len)) return false;
    step->d_qk = step->nope + step->rope;
    step->d_v = v32 ? step->nope : step->d_qk;
    return read_scale(in);
}

/* -- Queries and scopes. -------------------------------------------------------------------------------- */

static bool read_queries(const reader *in) {
    stepfile *step = in->step;
    const safetensors_tensor *q;
    if (!find_required(in, "q", &q) || !check_dtype(in, q, SAFETENSORS_BF16)) return false;
    if (q->rank != 3 || q->shape[0] > MAX_ROWS || q->shape[1] < 1 || q->shape[1] > MAX_HEADS ||
        q->shape[2] != step->d_qk) {
        char needed[128];
        snprintf(needed, sizeof needed, "[rows 0..%d, heads 1..%d, %u] (nope %u + rope %u)", MAX_ROWS,
                 MAX_HEADS, step->d_qk, step->nope, step->rope);
        return wrong_shape(in, q, needed);
    }
    step->rows = (uint32_t)q->shape[0];
    step->heads = (uint32_t)q->shape[1];
    step->q = load(in, q);
    return step->q != NULL;
}

/* The block size from metadata (both scopes', then this scope's own), 0 if the file does not say. */
static bool read_block_size(const reader *in, const stepfile_scope_names *names,
                            uint32_t *block_size_tokens) {
    *block_size_tokens = 0;
    return read_number(in, "block_size", 1, MAX_BLOCK_SIZE_TOKENS, 1, block_size_tokens) &&
           read_number(in, names->block_size, 1, MAX_BLOCK_SIZE_TOKENS, 1, block_size_tokens);
}

/* [blocks, block_stride_bytes] with the block size in the metadata, or [blocks, block_size, bytes_per_token]
 * with the block size in the shape. A dsv4 block is not an array of tokens, so there a larger last dimension
 * is the block's padding spread over its tokens (a page of 37440 bytes seen as [64, 585]). */
static bool read_cache(const reader *in, const stepfile_scope_names *names, stepfile_scope *scope) {
    const stepfile *step = in->step;
    const safetensors_tensor *cache;
    uint32_t stated;
    if (!find_required(in, names->cache, &cache) || !check_dtype(in, cache, SAFETENSORS_U8) ||
        !read_block_size(in, names, &stated))
        return false;

    char needed[128];
    const uint64_t token_bytes = stepfile_block_bytes(step, 1);
    if (cache->rank == 2) {
        if (stated == 0)
            return step_error_set(
                in->error, "%s: tensor '%s' has two dimensions: metadata '%s' or 'block_size' is missing",
                safetensors_name(in->file), cache->name, names->block_size);
        scope->block_size_tokens = stated;
        scope->block_stride_bytes = cache->shape[1];
    } else if (cache->rank == 3) {
        bool padded = step->layout == STEPFILE_DSV4;
        if (cache->shape[1] < 1 || cache->shape[1] > MAX_BLOCK_SIZE_TOKENS ||
            (stated && stated != cache->shape[1])) {
            snprintf(needed, sizeof needed, "[blocks, %u, ...] (block size)",
                     stated ? stated : MAX_BLOCK_SIZE_TOKENS);
            return wrong_shape(in, cache, needed);
        }
        if (cache->shape[2] < token_bytes || (!padded && cache->shape[2] != token_bytes) ||
            __builtin_mul_overflow(cache->shape[1], cache->shape[2], &scope->block_stride_bytes)) {
            snprintf(needed, sizeof needed,
                     "[blocks, block_size, %s%" PRIu64 "] (bytes per token, layout %s)",
                     padded ? "at least " : "", token_bytes, stepfile_layout_names[step->layout]);
            return wrong_shape(in, cache, needed);
        }
        scope->block_size_tokens = (uint32_t)cache->shape[1];
    } else {
        return wrong_shape(in, cache,
                           "[blocks, block_size, bytes_per_token] or [blocks, block_stride_bytes]");
    }

    const uint64_t block_bytes = stepfile_block_bytes(step, scope->block_size_tokens);
    if (scope->block_stride_bytes < block_bytes || scope->block_stride_bytes % 2 != 0) {
        snprintf(needed, sizeof needed,
                 "an even block stride of at least %" PRIu64 " bytes (%u tokens, layout %s)", block_bytes,
                 scope->block_size_tokens, stepfile_layout_names[step->layout]);
        return wrong_shape(in, cache, needed);
    }
    scope->num_blocks = cache->shape[0];
    if (scope->num_blocks > MAX_SLOTS / scope->block_size_tokens)
        return wrong_shape(in, cache, "fewer than 2^31 slots");
    scope->cache = load(in, cache);
    return scope->cache != NULL;
}

static bool narrow_indices(const reader *in, const safetensors_tensor *tensor, stepfile_scope *scope) {
    int64_t *wide = load(in, tensor);
    if (!wide) return false;
    uint64_t count = (uint64_t)in->step->rows * scope->width;
    scope->indices = stepfile_allocate(count * sizeof scope->indices[0]);
    for (uint64_t i = 0; scope->indices && i < count; i++)
        scope->indices[i] =
            wide[i] < INT32_MIN || wide[i] > INT32_MAX ? STEPFILE_WILD_INDEX : (int32_t)wide[i];
    free(wide);
    return scope->indices ||
           step_error_set(in->error, "%s: tensor '%s': no memory", safetensors_name(in->file), tensor->name);
}

static bool read_indices(const reader *in, const stepfile_scope_names *names, stepfile_scope *scope) {
    const safetensors_tensor *indices;
    if (!find_required(in, names->indices, &indices)) return false;
    bool wide = indices->dtype == SAFETENSORS_I64;
    if (!wide && !check_dtype(in, indices, SAFETENSORS_I32)) return false;
    bool shaped = indices->rank == 2 || (indices->rank == 3 && indices->shape[1] == 1);
    uint64_t width = shaped ? indices->shape[indices->rank - 1] : 0;
    if (!shaped || indices->shape[0] != in->step->rows || width > MAX_WIDTH) {
        char needed[96];
        snprintf(needed, sizeof needed, "[%u rows, width 0..%d] or [%u, 1, width]", in->step->rows, MAX_WIDTH,
                 in->step->rows);
        return wrong_shape(in, indices, needed);
    }
    scope->width = (uint32_t)width;
    if (wide) return narrow_indices(in, indices, scope);
    scope->indices = load(in, indices);
    return scope->indices != NULL;
}

static bool read_scope(reader *in, const stepfile_scope_names *names, uint32_t rows_per_len,
                       stepfile_scope *scope, uint16_t **gathered) {
    const stepfile *step = in->step;
    uint32_t fp8 = STEPFILE_E4M3FN;
    scope->present = true;
    scope->rows_per_len = rows_per_len;
    if (!read_word(in, names->fp8, stepfile_fp8_names, STEPFILE_FP8_COUNT, &fp8)) return false;
    scope->fp8 = (stepfile_fp8)fp8;
    if (!read_cache(in, names, scope) || !read_indices(in, names, scope)) return false;
    const uint64_t lens[] = {((uint64_t)step->rows + rows_per_len - 1) / rows_per_len};
    const uint64_t entries[] = {(uint64_t)step->rows * scope->width, step->d_qk};
    scope->lens = load_optional(in, names->lens, SAFETENSORS_I32, 1, lens);
    *gathered = load_optional(in, names->gathered, SAFETENSORS_BF16, 2, entries);
    return !in->failed;
}

/* The extra scope is absent as a whole, or there: a part of it alone is a broken file. */
static bool has_extra_scope(const reader *in) {
    const stepfile_scope_names *names = &stepfile_extra_names;
    return safetensors_find(in->file, names->cache) || safetensors_find(in->file, names->indices) ||
           safetensors_find(in->file, names->lens) || safetensors_find(in->file, names->gathered);
}

/* What has one value, or one vector, per row and head. */
static bool read_per_head(reader *in) {
    stepfile *step = in->step;
    const uint64_t shape[] = {step->rows, step->heads, step->d_v};
    step->attn_sink = load_optional(in, "attn_sink", SAFETENSORS_F32, 1, &shape[1]);
    step->expected.out = load_optional(in, "out", SAFETENSORS_BF16, 3, shape);
    step->expected.out_f64 = load_optional(in, "out_f64", SAFETENSORS_F64, 3, shape);
    step->expected.lse = load_optional(in, "lse", SAFETENSORS_F32, 2, shape);
    return !in->failed;
}

/* -- What callers see. ---------------------------------------------------------------------------------- */

static bool read_step(const safetensors_file *file, stepfile *step, step_error *error) {
    reader in = {.file = file, .step = step, .error = error};
    uint32_t rows_per_len;
    if (!read_dimensions(&in, &rows_per_len) || !read_queries(&in)) return false;
    if (!read_scope(&in, &stepfile_window_names, rows_per_len, &step->window,
                    &step->expected.gathered_window))
        return false;
    if (has_extra_scope(&in) &&
        !read_scope(&in, &stepfile_extra_names, rows_per_len, &step->extra, &step->expected.gathered_extra))
        return false;
    return read_per_head(&in);
}

static bool read_and_close(safetensors_file *file, stepfile *step, step_error *error) {
    bool ok = read_step(file, step, error);
    if (!ok) stepfile_free(step);
    safetensors_close(file);
    return ok;
}

bool stepfile_read(const char *path, stepfile *step, step_error *error) {
    safetensors_file *file;
    *step = (stepfile){0};
    return safetensors_open(path, &file, error) && read_and_close(file, step, error);
}

bool stepfile_read_memory(const void *data, size_t data_bytes, const char *name, stepfile *step,
                          step_error *error) {
    safetensors_file *file;
    *step = (stepfile){0};
    return safetensors_open_memory(data, data_bytes, name, &file, error) && read_and_close(file, step, error);
}
