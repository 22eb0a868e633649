/* SPDX-License-Identifier: Apache-2.0
 *
 * params.h: the structs that cross from the host to the kernels, on every back end.
 *
 * One stage launch is described by one mlar_stage_args, passed by value (a GPU kernel's only argument). A
 * layer's bindings travel inside it (eager, enqueue) or stand in the arena and are pointed at (a captured
 * program, whose arguments never change). Rows travel the same two ways. The shape stands beside every
 * pointer; the structs hold no padding, and the assertions at the end say so. This file knows no allocation,
 * no API struct and no back end.
 *
 * Vocabulary. A row is one query token. A scope is one KV cache plus the index list that selects tokens in it
 * (0 = window, 1 = extra). A slot is block * block_size + offset. A key tile is up to MLAR_KEY_TILE
 * consecutive entries of ONE scope's list of one row: tiles never straddle scopes; a row's tiles are its
 * window tiles, then its extra tiles. A row with nothing to read still has one (empty) tile, so that somebody
 * writes its output. A part is a run of consecutive tiles of one row that one worker handles; a row of more
 * than one part is merged by `combine`, in order. */
#ifndef MLAR_KERNELS_PARAMS_H
#define MLAR_KERNELS_PARAMS_H

#include <stdint.h>

#define MLAR_KEY_TILE   64 /* keys in a tile: the unit in which rows are split */
#define MLAR_MAX_SCOPES 2
#define MLAR_MAX_HEADS  128
#define MLAR_MAX_D_QK   640 /* nope <= 512, rope <= 128 */

/* The fixed sequence is made of these stages; engine/stages.c gives each its place, reads and writes. */
enum mlar_stage_id {
    MLAR_STAGE_SET_BLOCK = 0, /* write one block of step or layer parameters into the arena */
    MLAR_STAGE_PREPARE = 1,   /* live lengths -> schedule (policy balanced) */
    MLAR_STAGE_GATHER = 2, /* per-token gather and dequantisation into the bounded buffer (strategy gather) */
    MLAR_STAGE_ATTEND_GATHERED = 3, /* attention over the gathered rows */
    MLAR_STAGE_ATTEND_DIRECT = 4,   /* attention that dequantises the cache itself (strategy direct) */
    MLAR_STAGE_COMBINE = 5,         /* merge the parts of split rows, apply the sink, write out and lse */
    MLAR_STAGE_COUNT = 6
};

/* One scope of one layer. Cache layouts are SPEC section 2; kv_cache.h has the arithmetic. 96 bytes. */
typedef struct mlar_scope_params {
    const uint8_t *cache;   /* bytes [num_blocks][block_stride_bytes] */
    const int32_t *indices; /* dense [rows][index_row_stride]; ragged [indptr[rows]] */
    const int32_t *lens;    /* dense [ceil(rows / rows_per_len)], or null: width; ragged: indptr [rows + 1] */
    uint64_t block_stride_bytes;
    int64_t index_row_stride; /* entries, dense only */
    uint32_t num_slots;       /* num_blocks * block_size, < 2^31 */
    uint32_t block_size;
    uint64_t block_magic; /* slot / block_size == (slot * block_magic) >> block_shift, for slot < 2^31 */
    uint32_t block_shift;
    uint32_t record_bytes;       /* distance of two tokens' records inside a block */
    uint32_t scale_offset_bytes; /* dsv4: of the block's scale records; v32: inside the record; bf16: 0 */
    int32_t width;               /* entries a row has at most */
    int32_t rows_per_len;        /* dense: consecutive rows that share one length */
    int32_t layout;              /* MLAR_LAYOUT_* of kv_cache.h */
    int32_t fp8;                 /* MLAR_FP8_* of kv_cache.h */
    int32_t list_form;           /* MLAR_LIST_DENSE | MLAR_LIST_RAGGED */
    int32_t wide; /* cache base, stride and record are multiples of 16: 128-bit loads are allowed */
    int32_t reserved;
} mlar_scope_params;

/* Everything bound to one layer: addresses, strides (in elements) and scalars. 288 bytes. */
typedef struct mlar_layer_params {
    const uint16_t *q; /* bf16 [rows][heads][d_qk] through the strides */
    const float *sink; /* f32 [heads], or null */
    void *out;         /* bf16, or f32 if out_f32, [rows][heads][d_v] through the strides */
    float *lse;        /* f32 [rows][heads] through the strides, or null */
    int64_t q_row_stride;
    int64_t q_head_stride;
    int64_t out_row_stride;
    int64_t out_head_stride;
    int64_t lse_row_stride;
    int64_t lse_head_stride;
    mlar_scope_params scope[MLAR_MAX_SCOPES];
    float scale; /* softmax scale, natural-exponent domain */
    int32_t out_f32;
    int32_t tail_zero;   /* 1: rows from the live count up to the capacity get out = 0, lse = -inf */
    int32_t scope_count; /* 1 or 2 */
} mlar_layer_params;

/* What one decode step carries to the captured programs. Stands in the arena, written by set_block. 16 bytes.
 */
typedef struct mlar_step_params {
    const int32_t *rows_device; /* the live row count in device memory, or null: rows */
    int32_t rows;
    int32_t reserved;
} mlar_step_params;

/* Schedule of one row tile (policy balanced), written by prepare, read by attend and combine. 16 bytes. */
typedef struct mlar_schedule_head {
    int32_t workers;         /* cuts [0 .. workers] are valid */
    int32_t heads_per_group; /* a worker is served once for each group of so many heads */
    int32_t slots;           /* workspace slots in use */
    int32_t granule;         /* rows are cut at multiples of so many tiles */
} mlar_schedule_head;

typedef struct mlar_schedule_cut { /* worker w does [cut[w], cut[w + 1]) in (row, tile) order */
    int32_t row;                   /* absolute row */
    int32_t tile;                  /* tile inside that row, before it is lowered to the granule */
} mlar_schedule_cut;

typedef struct mlar_schedule_row {
    int32_t first_slot; /* workspace slot of the row's first part; -1 if that is its only one */
    int32_t parts;      /* 1: attend writes out and lse itself */
    int32_t length[2];  /* of its lists, so that where a block begins is one trip to memory, not two */
} mlar_schedule_row;

/* The sizes that never change after init. 64 bytes. */
typedef struct mlar_shape {
    int32_t heads;
    int32_t d_qk;
    int32_t d_v;
    int32_t nope;
    int32_t rope;
    int32_t workers;             /* most workers a row tile is cut into: compute units */
    int32_t slot_limit;          /* workspace slots of a row tile */
    int32_t cut_granule;         /* balanced: a row is cut only at multiples of so many tiles, or more */
    int32_t splits;              /* batch_invariant: parts of every row, >= 1; balanced: 0 */
    int32_t heads_per_group_min; /* what the attend kernel can be asked for, both powers of two or == heads */
    int32_t heads_per_group_max;
    int32_t row_tile; /* rows a gather-attend-combine round handles */
    int32_t max_rows;
    /* elements of partial sums that are merged in the time of a tile; 0: merging is free */
    int32_t merged_elements_per_tile;
    int32_t cluster_rows;   /* balanced: steps of up to so many rows are cut for clusters (schedule.h) ... */
    int32_t cluster_blocks; /* ... of so many blocks; both 0: none */
} mlar_shape;

/* One launch of one stage: the only argument of every kernel. */
typedef struct mlar_stage_args {
    mlar_layer_params layer;              /* by value; ignored if layer_block is set */
    const mlar_layer_params *layer_block; /* in the arena: captured programs */
    const mlar_step_params *step_block;   /* in the arena: captured programs; null: rows_device, else rows */
    const int32_t *rows_device;
    mlar_shape shape;
    uint16_t *gathered[MLAR_MAX_SCOPES]; /* bf16 [row_tile][width of scope][d_qk] */
    float *partial_out; /* f32 [slot_limit][heads][d_v], unnormalised sum of exp(s - m) * v */
    float *partial_ml;  /* f32 [slot_limit][heads][2]: m = max of s (natural domain), l = sum of exp(s - m) */
    mlar_schedule_head *schedule;     /* [row tiles of max_rows] */
    mlar_schedule_cut *cuts;          /* [row tiles of max_rows][workers + 1] */
    mlar_schedule_row *schedule_rows; /* [max_rows] */
    uint64_t *invalid_indices;        /* counter: entries that SPEC section 4 calls invalid */
    void *thread_scratch;             /* CPU only: [threads][thread_scratch_bytes] */
    uint64_t thread_scratch_bytes;
    int32_t rows;
    int32_t capacity_rows; /* grids come from it, results never do */
    int32_t row_begin;     /* first row of this row tile (a multiple of row_tile) */
    int32_t row_count;     /* rows of this row tile, within the capacity */
} mlar_stage_args;

/* set_block's own argument: `bytes` of payload to `to`. */
#define MLAR_SET_BLOCK_BYTES 512
typedef struct mlar_set_block_args {
    void *to;       /* in the arena, 16-byte aligned */
    uint64_t bytes; /* <= MLAR_SET_BLOCK_BYTES, a multiple of 8 */
    uint64_t payload[MLAR_SET_BLOCK_BYTES / 8];
} mlar_set_block_args;

#if defined(__cplusplus)
#define MLAR_PARAMS_ASSERT(x, text) static_assert(x, text)
#else
#define MLAR_PARAMS_ASSERT(x, text) _Static_assert(x, text)
#endif
MLAR_PARAMS_ASSERT(sizeof(mlar_scope_params) == 96, "no padding");
MLAR_PARAMS_ASSERT(sizeof(mlar_layer_params) == 10 * 8 + 2 * sizeof(mlar_scope_params) + 16, "no padding");
MLAR_PARAMS_ASSERT(sizeof(mlar_layer_params) <= MLAR_SET_BLOCK_BYTES, "a layer fits one set_block");
MLAR_PARAMS_ASSERT(sizeof(mlar_step_params) == 16, "no padding");
MLAR_PARAMS_ASSERT(sizeof(mlar_schedule_head) == 16, "no padding");
MLAR_PARAMS_ASSERT(sizeof(mlar_schedule_cut) == 8, "no padding");
MLAR_PARAMS_ASSERT(sizeof(mlar_schedule_row) == 16, "no padding");
MLAR_PARAMS_ASSERT(sizeof(mlar_shape) == 64, "no padding");
MLAR_PARAMS_ASSERT(sizeof(mlar_stage_args) == sizeof(mlar_layer_params) + 3 * 8 + 64 + 10 * 8 + 16,
                   "no padding");
#undef MLAR_PARAMS_ASSERT

#endif
