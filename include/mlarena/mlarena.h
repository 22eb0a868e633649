/* SPDX-License-Identifier: Apache-2.0
 *
 * mlarena.h: sparse-MLA decode attention of DeepSeek-V4-class models, in memory known before the first step.
 *
 * What it is. Each row (query token) of a decode step attends to the KV tokens that two index lists select: a
 * sliding window, and a top-k (or all) of the compressed cache. libmlarena runs that attention over the
 * host's paged caches, in place, with every byte of scratch carved at init from one arena, as a fixed
 * sequence of kernels that is captured once and replayed. After init it never allocates, never synchronises,
 * never logs and never aborts.
 *
 * How it is used, in order:
 *
 *     mlar_config_preset      what will run: heads, layer kinds, most rows, budget        (pure)
 *     mlar_memory_query       exactly how many bytes that takes, and the map of them      (pure)
 *     mlar_arena_from_*       the device arena: the caller's memory, malloc, or a HIP pool
 *     mlar_engine_init        the engine, inside the caller's host block
 *     mlar_bindings_init      a layer's addresses and strides, which the host fills in     (pure)
 *     mlar_engine_capture     once per layer (or several layers) and batch bucket: a program
 *     each decode step:
 *       mlar_engine_step      the live row count
 *       mlar_engine_prepare   once per layer kind, policy `balanced` only
 *       mlar_program_replay   once per program
 *     mlar_engine_deinit, mlar_arena_release
 *
 * A host that owns its graphs (vLLM, SGLang, PyTorch) calls mlar_engine_prepare and mlar_engine_enqueue with
 * its own stream instead, also while that stream is being captured.
 *
 * Rules that hold everywhere. The caller owns every pointer it passes; the library keeps device addresses from
 * capture to destroy and keeps no host pointer except the host block, the arena, the device, and the config's
 * parallel and parallel_context. No function is safe to call on one engine from two threads at once; different
 * engines may run on different threads. At most one step is in flight on an arena; the host orders it. Functions
 * marked "pure" touch nothing but their arguments. A struct with a struct_size, set to sizeof(it), may grow at its
 * end, and host and library may be of different versions: nothing past the host's struct_size is read or written;
 * fields that a shorter struct lacks count as 0, which in every field added later means what was before it; of a
 * longer one the unknown tail must be zero if the library reads the struct, and is left alone if it writes it. A
 * size below the first release's, or more than 4096 above this version's, was never a header's: _STRUCT_SIZE. Other
 * structs never change their size. Functions that can fail return mlar_status; MLAR_ERROR_ARGUMENT (a null pointer)
 * and _STRUCT_SIZE are common to all and not repeated below. `diag` may be NULL.
 *
 * Which field may change when:
 *
 *   field                                          config   bindings   rebind   step
 *   heads, head dims, widths, layouts, encodings   fixed    -          -        -
 *   most rows, budget, strategy, policy            fixed    -          -        -
 *   strides, block size, list form, rows_per_len   -        fixed      same     -
 *   out type, tail, presence of sink and lse       -        fixed      same     -
 *   capacity (rows a program can take)             -        fixed      same     -
 *   cache bases at a multiple of 16                -        fixed      same     -
 *   q, out, lse, sink, cache, list addresses       -        set        set      -
 *   num_blocks, scale                              -        set        set      -
 *   rows (by value, or an address of one)          -        -          -        set
 *   contents of q, caches, lists, lens, sink       -        data       data     data
 *
 * Which call is valid when (a dash is MLAR_ERROR_STATE; "forked": in a child of a process with CPU workers):
 *
 *   call                         ready  program open  host captures   device lost   forked
 *   capture                      ok     ok            CAPTURING       DEVICE_LOST   FORKED
 *   step, rebind                 ok     ok            CAPTURING       DEVICE_LOST   FORKED
 *   prepare, enqueue             ok     ok            ok              DEVICE_LOST   FORKED
 *   replay                       -      ok            the runtime's   DEVICE_LOST   FORKED
 *   selftest, stats, guards      ok     ok            CAPTURING       DEVICE_LOST   FORKED
 *   poison, reset counters       ok     ok            CAPTURING       DEVICE_LOST   FORKED
 *   invalidate, program_destroy  ok     ok            ok              ok            ok
 *   buffer                       ok     ok            ok              ok            ok
 *   deinit                       ok     ok            CAPTURING       ok            ok
 *
 * A replay without a step, or by policy balanced without a prepare since the last step, is a dash. It asks
 * the runtime nothing but the launch; CUDA records a launch into a captured stream as a child graph. The
 * self-test forgets the step: begin one before the next replay. An init that failed leaves no engine, holds
 * no arena, and may be called again with the same memory; a capture that failed leaves no program and the
 * engine as it was. */
#ifndef MLARENA_MLARENA_H
#define MLARENA_MLARENA_H

#include <stddef.h>
#include <stdint.h>

#include <mlarena/config.h>
#include <mlarena/kv_cache.h>
#include <mlarena/status.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MLAR_VERSION_MAJOR 0
#define MLAR_VERSION_MINOR 1
#define MLAR_VERSION_PATCH 0
#define MLAR_VERSION       (MLAR_VERSION_MAJOR * 10000 + MLAR_VERSION_MINOR * 100 + MLAR_VERSION_PATCH)

/* MLAR_VERSION of the library at run time. Pure. */
MLAR_API int32_t mlar_version(void);

/* ---- arena ---- */

/* The one block of device memory that an engine lays its plan over. Caller-owned storage; an arena is held by
 * one engine at a time (MLAR_ERROR_BUSY otherwise) and must stay where it is while held. Its contents are
 * private. */
typedef struct mlar_arena {
    uint64_t opaque[16];
} mlar_arena;

/* Memory the caller owns (a framework's tensor, a static array): aligned to memory.device_align_bytes, at
 * least memory.device_bytes; a misaligned base is refused at init, never adjusted. host_visible: 0 for GPU memory,
 * else the host reads and writes it. */
MLAR_API mlar_status mlar_arena_from_caller(mlar_arena *arena, void *base, uint64_t bytes,
                                            int32_t host_visible, mlar_diag *diag);
/* For the CPU back end: the library's one use of the heap, at setup. MLAR_ERROR_OUT_OF_MEMORY. */
MLAR_API mlar_status mlar_arena_from_malloc(mlar_arena *arena, uint64_t bytes, mlar_diag *diag);
/* Give the memory back to where it came from. MLAR_ERROR_BUSY while an engine holds it; released twice is
 * fine. */
MLAR_API mlar_status mlar_arena_release(mlar_arena *arena, mlar_diag *diag);

/* ---- device ---- */

typedef struct mlar_device mlar_device; /* an opened GPU; the CPU needs none */

typedef struct mlar_device_options {
    uint32_t struct_size;
    int32_t device;        /* MLAR_DEVICE_HIP or MLAR_DEVICE_CUDA */
    int32_t ordinal;       /* as the runtime numbers them */
    int32_t runtime_check; /* MLAR_RUNTIME_* */
    void *library; /* dlopen handle of the runtime the host uses, or null: an already mapped copy, then a
                      search */
} mlar_device_options;

/* What an opened device says of itself. */
typedef struct mlar_device_info {
    uint32_t struct_size;
    int32_t runtime_version; /* as the runtime encodes it */
    int32_t driver_version;
    int32_t known_bad; /* 1: the runtime is in the table of known-bad ranges */
    int32_t has_pools;
    int32_t reserved;
    uint64_t memory_bytes;
    mlar_device_profile profile;
    char name[64];
    char runtime[96]; /* path or soname of the runtime library in use */
    char quirk[160];  /* what is known about it, with its source; empty if nothing */
} mlar_device_info;

/* Bytes of host memory that mlar_device_open needs, 16-byte aligned. Pure. */
MLAR_API size_t mlar_device_bytes(void);
/* Find the runtime (options.library; else a copy mapped in the process; else the search path), take one
 * device. `memory` holds the device until mlar_device_close. May block; the runtime may allocate.
 * MLAR_ERROR_UNSUPPORTED (built without that back end), MLAR_ERROR_NO_DEVICE (diag says what was tried),
 * MLAR_ERROR_RUNTIME_BLOCKED, MLAR_ERROR_MEMORY_SIZE, MLAR_ERROR_DEVICE. */
MLAR_API mlar_status mlar_device_open(void *memory, size_t bytes, const mlar_device_options *options,
                                      mlar_device **device, mlar_diag *diag);
MLAR_API mlar_status mlar_device_info_of(const mlar_device *device, mlar_device_info *info);
/* The runtime library stays loaded. MLAR_ERROR_BUSY (engines or arenas of the device are left), MLAR_ERROR_STATE
 * (closed already), else what the device said on the way. */
MLAR_API mlar_status mlar_device_close(mlar_device *device);

/* The arena from a HIP (or CUDA) memory pool made for it: one pool, one allocation, release threshold at
 * maximum. Setup only; may block. MLAR_ERROR_UNSUPPORTED (no pools), MLAR_ERROR_OUT_OF_MEMORY,
 * MLAR_ERROR_CAPTURING, MLAR_ERROR_DEVICE. mlar_arena_release gives it back. */
MLAR_API mlar_status mlar_arena_from_pool(mlar_arena *arena, mlar_device *device, uint64_t bytes,
                                          mlar_diag *diag);

/* Plain device memory, blocking copies and waiting, for tools, tests and hosts without a framework. Setup
 * only. MLAR_ERROR_OUT_OF_MEMORY, _DEVICE, _DEVICE_LOST, _CAPTURING (nothing was done: call again later). What free
 * failed for otherwise is lost. */
MLAR_API mlar_status mlar_device_allocate(mlar_device *device, uint64_t bytes, void **at, mlar_diag *diag);
MLAR_API mlar_status mlar_device_free(mlar_device *device, void *address);
MLAR_API mlar_status mlar_device_write(mlar_device *device, void *to, const void *from_host, uint64_t bytes);
MLAR_API mlar_status mlar_device_read(mlar_device *device, void *to_host, const void *from, uint64_t bytes);
MLAR_API mlar_status mlar_device_wait(mlar_device *device, void *stream);

/* ---- bindings ---- */

/* A paged KV cache: bytes [num_blocks][block_stride_bytes], read in place. Layouts: kv_cache.h. 32 bytes. */
typedef struct mlar_cache {
    const void *base;            /* multiple of 16: fast path; of 2: slower, equal; odd: refused */
    uint64_t block_stride_bytes; /* at least mlar_kv_block_stride_min; same alignment rule */
    int64_t num_blocks;          /* num_blocks * block_size < 2^31 */
    int32_t block_size;          /* tokens, 1..65536 */
    int32_t reserved;
} mlar_cache;

/* Which slots each row reads. 48 bytes.
 *   dense:  indices int32 [rows][row_stride >= width]; lens int32 [ceil(rows / rows_per_len)], or null: width
 *   ragged: indices int32 [indptr[rows]]; indptr int32 [rows + 1]
 * Lengths are clamped to 0..width. Index -1 is padding; below -1 or past the pool is counted as invalid;
 * neither is ever read. */
typedef struct mlar_index_list {
    const int32_t *indices;
    const int32_t *lens;
    const int32_t *indptr;
    int64_t row_stride;   /* entries; dense */
    int32_t rows_per_len; /* dense: consecutive rows that share a length: 1 (vLLM), tokens per request
                             (FlashMLA) */
    int32_t form;         /* MLAR_LIST_DENSE | MLAR_LIST_RAGGED */
    int64_t reserved;
} mlar_index_list;

/* out_type */
enum { MLAR_OUT_BF16 = 0, MLAR_OUT_F32 = 1 };
/* tail: rows from the live count up to the capacity get out = +0 and lse = -inf, or stay as they are */
enum { MLAR_TAIL_ZERO = 0, MLAR_TAIL_UNTOUCHED = 1 };

/* The addresses and strides of one layer. Device addresses (the host's own on the CPU). Strides in elements;
 * the last dimension is contiguous. `out` and `lse` may overlap neither each other, nor an input, nor the
 * arena; each counts as one range from its first byte to its last, gaps between strides included. (Nor the engine's
 * host block, on the CPU, nor rows_device: these two are not checked.) */
typedef struct mlar_bindings {
    uint32_t struct_size;
    int32_t out_type;
    int32_t tail;
    float scale;   /* softmax scale, finite; mlar_bindings_init sets d_qk^-0.5 */
    const void *q; /* bf16 [rows][heads][d_qk], 16-byte aligned, strides multiples of 8 */
    int64_t q_row_stride;
    int64_t q_head_stride;
    void *out; /* bf16 or f32 [rows][heads][d_v], 16-byte aligned, strides multiples of 16 bytes */
    int64_t out_row_stride;
    int64_t out_head_stride;
    float *lse; /* f32 [rows][heads], natural log, without the sink; or null */
    int64_t lse_row_stride;
    int64_t lse_head_stride;
    const float *attn_sink; /* f32 [heads], or null */
    mlar_cache cache[MLAR_SCOPES];
    mlar_index_list list[MLAR_SCOPES];
} mlar_bindings;

/* What mlar_bindings_init calls, with the host's sizeof(mlar_bindings): see mlar_config_init_sized. */
MLAR_API mlar_status mlar_bindings_init_sized(mlar_bindings *bindings, size_t struct_size,
                                              const mlar_config *config, int32_t kind);

/* Sets struct_size, strides (contiguous, but each head of q and out begins at a multiple of 16 bytes: a gap where d_qk
 * or d_v is no multiple of 8), dense lists of the kind's widths, scale d_qk^-0.5, bf16 out, tail zero; addresses null.
 * Pure. MLAR_ERROR_ARGUMENT for a kind that config lacks, MLAR_ERROR_CONFIG for a config without
 * any. */
static inline mlar_status mlar_bindings_init(mlar_bindings *bindings, const mlar_config *config,
                                             int32_t kind) {
    return mlar_bindings_init_sized(bindings, sizeof *bindings, config, kind);
}

/* What one decode step carries. */
typedef struct mlar_step {
    uint32_t struct_size;
    int32_t rows; /* live rows, 0..capacity; ignored if rows_device is set */
    /* or their number in device memory, read by the kernels, clamped to 0..capacity (a program that is for fewer rows
     * than that number computes its own; only then may their last bits depend on its capacity). It may be another
     * number each step, but not within one, from prepare to the last replay or enqueue: splits are decided for it. */
    const int32_t *rows_device;
} mlar_step;

/* ---- engine ---- */

typedef struct mlar_engine mlar_engine;
typedef struct mlar_program mlar_program;

/* `stream` arguments below: a hipStream_t / CUstream cast to void *, null for the default stream; ignored on
 * the CPU, where every call has done its work when it returns. */

/* Build an engine inside host_memory (at least memory.host_bytes, aligned to memory.host_align_bytes) over
 * `arena` (at least memory.device_bytes), which both are the engine's until mlar_engine_deinit; `config` is copied.
 * `device` is NULL for the CPU, else it has to outlive the engine. Starts the CPU's workers. Setup: may block. All
 * statuses of mlar_memory_query; MLAR_ERROR_MEMORY_SIZE, _ALIGNMENT, _KIND (host block or arena: diag.field),
 * MLAR_ERROR_OVERLAP (the host block lies in the arena), MLAR_ERROR_BUSY, MLAR_ERROR_UNSUPPORTED (cpu_isa, device
 * mismatch), MLAR_ERROR_RUNTIME_BLOCKED, MLAR_ERROR_THREAD, MLAR_ERROR_DEVICE. */
MLAR_API mlar_status mlar_engine_init(const mlar_config *config, mlar_device *device, mlar_arena *arena,
                                      void *host_memory, uint64_t host_bytes, mlar_engine **engine,
                                      mlar_diag *diag);

/* Record the sequence of `layer_count` layers of one kind (bindings[layer_count], all of one struct_size) for
 * up to capacity_rows rows. Nothing is computed and no bound contents are read. Setup: may block. Any lengths
 * may be in the lists at this time. MLAR_ERROR_BINDING, _OVERLAP, _UNSUPPORTED (list.form), _CAPACITY (capacity_rows >
 * max_rows), _LIMIT (programs, layers, nodes), _FORKED, _CAPTURING, _DEVICE, _DEVICE_LOST. */
MLAR_API mlar_status mlar_engine_capture(mlar_engine *engine, int32_t kind, const mlar_bindings *bindings,
                                         int32_t layer_count, int32_t capacity_rows, mlar_program **program,
                                         mlar_diag *diag);

/* Replace the addresses of one captured layer (see the table above for what must stay). Ordered on `stream`.
 * Costs nothing if nothing changed. Statuses of capture; after any of them the layer is bound as before. */
MLAR_API mlar_status mlar_program_rebind(mlar_program *program, int32_t layer, const mlar_bindings *bindings,
                                         void *stream, mlar_diag *diag);

/* Begin a decode step: what every replay until the next step uses. Ordered on `stream`; skips its launch if
 * nothing changed since the last one. Does not block. MLAR_ERROR_CAPACITY (rows outside 0..max_rows),
 * MLAR_ERROR_BINDING (rows_device not at a multiple of 4), _DEVICE. */
MLAR_API mlar_status mlar_engine_step(mlar_engine *engine, const mlar_step *step, void *stream);

/* Policy balanced: decide the splits of this step for one kind, from the live lengths in bindings->list (only
 * lens and indptr are read, for the live rows: all max_rows of them may be live if rows_device says so). Every layer of
 * the kind has lists of these lengths in this step, and they stay until its last replay or enqueue. Lists that are
 * changed in between make that step's results unspecified and nothing worse; if they change while it runs, nothing is
 * promised. Once a step and kind, before its replays or enqueues, in stream order. `step` NULL: the step that
 * mlar_engine_step began (for replays); else this one (for enqueues). Does not block. Under batch_invariant
 * it does nothing but check. MLAR_ERROR_BINDING and _UNSUPPORTED (the lists), MLAR_ERROR_CAPACITY, MLAR_ERROR_STATE
 * (`step` NULL and none begun), _DEVICE: what was prepared for the kind before is gone. */
MLAR_API mlar_status mlar_engine_prepare(mlar_engine *engine, int32_t kind, const mlar_bindings *bindings,
                                         const mlar_step *step, void *stream, mlar_diag *diag);

/* Run a captured program once with the current step. Does not block, allocates nothing, reads nothing back.
 * MLAR_ERROR_CAPACITY (the step has more rows than the program), MLAR_ERROR_STATE (balanced, no prepare since
 * step), _DEVICE; on the CPU with guard zones MLAR_ERROR_GUARD, as soon as one is damaged. */
MLAR_API mlar_status mlar_program_replay(mlar_program *program, void *stream);

/* Launch the sequence once without a program, bindings travelling as kernel arguments: launches only, so
 * `stream` may be under capture. capacity_rows fixes the grids; no host pointer is kept. Does not block.
 * MLAR_ERROR_BINDING, _OVERLAP, _UNSUPPORTED, _CAPACITY, _DEVICE, _GUARD (as replay); MLAR_ERROR_STATE: by policy
 * balanced, the kind's last prepare was for another step, or there was none. */
MLAR_API mlar_status mlar_engine_enqueue(mlar_engine *engine, int32_t kind, const mlar_bindings *bindings,
                                         int32_t capacity_rows, const mlar_step *step, void *stream,
                                         mlar_diag *diag);

/* The program's hipGraph_t / CUgraph, to be a child of a host's graph; the program owns it. NULL on the CPU. */
MLAR_API void *mlar_program_graph(const mlar_program *program);

/* Give the program's slot and layers back. The program must not be in flight. */
MLAR_API mlar_status mlar_program_destroy(mlar_program *program);

/* Forget what was last written to the device, so that the next step and rebinds launch again: for hosts that
 * discard and restore device memory. */
MLAR_API mlar_status mlar_engine_invalidate(mlar_engine *engine, void *stream);

/* Stop the workers, release programs, let go of the arena. Nothing may be in flight. The host block may be reused.
 * MLAR_ERROR_CAPTURING: nothing was done, call again later. Else it always succeeds in releasing, and a status other
 * than MLAR_OK reports what the device said on the way. */
MLAR_API mlar_status mlar_engine_deinit(mlar_engine *engine);

/* ---- inspection (may block; refused during a capture) ---- */

/* For each kind: replay against eager, bit for bit, on differently poisoned scratch, over synthetic data in
 * the planned workspace. MLAR_ERROR_SELFTEST (kind and first differing byte in diag), MLAR_ERROR_STATE
 * (selftest = 0). */
MLAR_API mlar_status mlar_engine_selftest(mlar_engine *engine, void *stream, mlar_diag *diag);

typedef struct mlar_stats {
    uint32_t struct_size;
    int32_t programs; /* open */
    uint64_t host_bytes;
    uint64_t device_bytes;
    uint64_t
        high_water_bytes; /* up to which byte of the arena scratch has been written since poison_scratch; 0
                                  without one, after a self-test, and for GPU memory */
    uint64_t steps;
    uint64_t replays;
    uint64_t enqueues;
    uint64_t set_blocks;          /* launches that carried a change */
    uint64_t runtime_calls;       /* into the device's runtime, by everything that uses this mlar_device: the
                                     difference over a replay is what that replay called */
    uint64_t invalid_indices;     /* device counter: entries below -1 or past the pool (SPEC.md 4) */
    uint64_t pool_reserved_bytes; /* HIP/CUDA pool attributes, 0 elsewhere */
    uint64_t pool_used_bytes;
    uint64_t pool_used_high_bytes;
    char backend[16]; /* "cpu", "hip", "cuda" */
    char variant[32]; /* "avx512bf16", "gfx942", ... */
} mlar_stats;

MLAR_API mlar_status mlar_engine_stats(mlar_engine *engine, void *stream, mlar_stats *stats);
/* Set the device counter invalid_indices to zero. */
MLAR_API mlar_status mlar_engine_reset_counters(mlar_engine *engine, void *stream);

/* Overwrite every scratch buffer with a byte pattern chosen by `seed` per element type (NaN where the type
 * has one). Results must not change: what lies in the arena before a step never matters. */
MLAR_API mlar_status mlar_engine_poison_scratch(mlar_engine *engine, uint32_t seed, void *stream);
/* MLAR_ERROR_GUARD names the buffer and the side; MLAR_OK with guard_bytes = 0. */
MLAR_API mlar_status mlar_engine_check_guards(mlar_engine *engine, void *stream, mlar_diag *diag);
/* Address and size of a buffer of the plan by name ("gather.window"), for a kind (-1: one that all kinds share).
 * MLAR_OK with NULL and 0: this configuration does without it. MLAR_ERROR_ARGUMENT: no such buffer. */
MLAR_API mlar_status mlar_engine_buffer(mlar_engine *engine, int32_t kind, const char *name, void **address,
                                        uint64_t *bytes);

#ifdef __cplusplus
}
#endif
#endif
