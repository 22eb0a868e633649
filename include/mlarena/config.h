/* SPDX-License-Identifier: Apache-2.0
 *
 * config.h: what will run, and the memory that takes. Everything here is pure: it touches nothing but its
 * arguments, needs no device, and gives the same answer on every machine. mlarena.h, which includes this file,
 * says how it all fits together, and what holds of every struct and call.
 *
 * Words. A row is one query token of a step. A scope is one KV cache and the index list that selects tokens in it:
 * `window`, the sliding window, and `extra`, the compressed cache. A kind is what several layers have in common:
 * how many scopes, how wide, of which layout; one schedule a step serves all layers of a kind. d_qk = nope + rope
 * is the head dimension of queries and keys, d_v that of values and results: nope for layout v32, else d_qk. */
#ifndef MLARENA_CONFIG_H
#define MLARENA_CONFIG_H

#include <stddef.h>
#include <stdint.h>

#include <mlarena/kv_cache.h>
#include <mlarena/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- configuration ---- */

enum { MLAR_SCOPE_WINDOW = 0, MLAR_SCOPE_EXTRA = 1, MLAR_SCOPES = 2 };
enum { MLAR_KINDS_MAX = 8, MLAR_BUFFERS_MAX = 64 };

/* strategy */
enum {
    MLAR_STRATEGY_AUTO = 0,   /* direct */
    MLAR_STRATEGY_GATHER = 1, /* into a bounded bf16 buffer, then attention (vLLM #42576) */
    MLAR_STRATEGY_DIRECT = 2  /* attention dequantises the cache itself; no gather buffer */
};

/* policy: how a row's keys are split over the device */
enum {
    MLAR_POLICY_BALANCED = 0,       /* by live lengths, decided by mlar_engine_prepare once a step and kind */
    MLAR_POLICY_BATCH_INVARIANT = 1 /* by the configuration: a row's bits do not depend on its company */
};

/* device kinds */
enum { MLAR_DEVICE_CPU = 0, MLAR_DEVICE_HIP = 1, MLAR_DEVICE_CUDA = 2 };

/* runtime_check: what to do about a device runtime that is known to be bad (engine/gpu/quirks.def) */
enum { MLAR_RUNTIME_WARN = 0, MLAR_RUNTIME_REFUSE = 1, MLAR_RUNTIME_ACCEPT = 2 };

/* update_route: how a change between replays reaches a captured GPU program */
enum {
    MLAR_UPDATE_STEP_BLOCK = 0, /* a small kernel ahead of the graph writes the block (stream-ordered) */
    MLAR_UPDATE_NODE_PARAMS = 1 /* kernel-node parameters; only while no replay is in flight */
};

/* The part of a device that sizes depend on. Given, taken from a preset, or read with mlar_device_info_of;
 * init refuses a device that does not match. 64 bytes. */
typedef struct mlar_device_profile {
    char arch[24];         /* "cpu", "gfx942", "gfx950", "sm_90", ... */
    int32_t device;        /* MLAR_DEVICE_* */
    int32_t compute_units; /* 1..1024: CUs or SMs; on the CPU a fixed figure, so that bits do not move */
    int32_t wave_size;     /* 64, 32, or 1 on the CPU */
    int32_t reserved;
    uint64_t pool_granularity_bytes; /* what a pool rounds to, 0 if unknown; outside the arena */
    uint64_t reserved64[2];
} mlar_device_profile;

/* One index list and the cache it selects from. 32 bytes. */
typedef struct mlar_scope_config {
    int32_t width;  /* entries a row has at most, 0..65536 */
    int32_t layout; /* MLAR_LAYOUT_DSV4 | _V32 | _BF16 */
    int32_t fp8;    /* MLAR_FP8_E4M3FN | _E4M3FNUZ */
    int32_t reserved[5];
} mlar_scope_config;

/* One kind of layer. The window scope comes first; a kind with scope_count 1 has no extra cache. 96 bytes. */
typedef struct mlar_kind_config {
    char name[24]; /* for people: "window", "top-512"; may be empty */
    int32_t scope_count;
    int32_t reserved;
    mlar_scope_config scope[MLAR_SCOPES];
} mlar_kind_config;

/* Host-given parallelism (CPU): call body(arg, i) for i in 0..count-1, concurrently if it likes, and return
 * when all have returned. Must not allocate if the host wants steps that do not. */
typedef void (*mlar_parallel_for)(void *context, int32_t count, void (*body)(void *arg, int32_t i),
                                  void *arg);

typedef struct mlar_config {
    uint32_t struct_size;
    int32_t strategy;
    int32_t policy;
    int32_t heads;        /* 1..128 on this rank */
    int32_t nope;         /* 64..512, a multiple of 64 (v32: of 128) */
    int32_t rope;         /* 0..128, even; d_qk = nope + rope */
    int32_t max_rows;     /* 1..65536: rows of one step at most */
    int32_t max_programs; /* 0..1024 */
    int32_t max_layers;   /* 0..1024: layers captured over all programs */
    int32_t splits;       /* batch_invariant: parts of every row, 1..64, or 0 for a figure from the config */
    int32_t max_nodes;    /* 8..4096: kernels of one program at most (default 128: hip #3887) */
    int32_t guard_bytes;  /* 0, or 256..65536 in multiples of 256: checked zones around every buffer */
    int32_t selftest;     /* 1: plan the workspace of mlar_engine_selftest */
    int32_t threads;      /* CPU: 1..256 workers, the caller included; results do not depend on it */
    int32_t runtime_check;
    int32_t update_route;
    uint64_t budget_bytes;      /* most bytes the device arena may take, 0: no limit */
    mlar_parallel_for parallel; /* CPU: replaces the library's own workers; null: own workers */
    void *parallel_context;
    char cpu_isa[16]; /* "" or "auto": the best here; "scalar", "avx2", "avx512", "avx512bf16", "amx" */
    mlar_device_profile device;
    int32_t kind_count; /* 1..MLAR_KINDS_MAX */
    int32_t reserved;
    mlar_kind_config kinds[MLAR_KINDS_MAX];
} mlar_config;

/* What the two functions below call, with the sizeof of the header that the host was compiled with: so many bytes of
 * *config are written, no more, whatever this library's mlar_config has grown to. For hosts that cannot compile C. */
MLAR_API mlar_status mlar_config_init_sized(mlar_config *config, size_t struct_size);
MLAR_API mlar_status mlar_config_preset_sized(mlar_config *config, size_t struct_size, const char *name,
                                              int32_t tp, mlar_diag *diag);

/* Sets struct_size and neutral values: no kinds, 64 heads of 448 + 64, max_rows 1, 64 programs, 64 layers, 128 nodes,
 * 1 thread, profile "cpu", no budget, guards off, self-test on; the rest 0. Pure. */
static inline mlar_status mlar_config_init(mlar_config *config) {
    return mlar_config_init_sized(config, sizeof *config);
}

/* mlar_config_init, and a model's heads and kinds for one rank of a tensor-parallel group.
 *   name           heads/tp   layout   kinds
 *   "dsv4-flash"   64/tp      dsv4     window 128; + top-512; + all compressed up to 8192
 *   "dsv4-pro"     128/tp     dsv4     window 128; + top-1024; + all compressed up to 8192
 *   "v32"          128/tp     v32      top-2048 (one scope)
 * tp is 1, 2, 4 or 8. MLAR_ERROR_CONFIG names an unknown preset or degree. Pure. */
static inline mlar_status mlar_config_preset(mlar_config *config, const char *name, int32_t tp,
                                             mlar_diag *diag) {
    return mlar_config_preset_sized(config, sizeof *config, name, tp, diag);
}

/* A device profile by name: "cpu", "mi250x", "mi300x", "mi325x", "mi355x", "rx7900xtx", "h100", "h200". Pure.
 * MLAR_ERROR_CONFIG for another name. */
MLAR_API mlar_status mlar_device_profile_named(mlar_device_profile *profile, const char *name,
                                               mlar_diag *diag);

/* Check every field, struct_size first; MLAR_ERROR_CONFIG names field, value and limit. What is called reserved, in
 * this struct and in those that follow, must be 0. mlar_memory_query does this first. Pure. */
MLAR_API mlar_status mlar_config_validate(const mlar_config *config, mlar_diag *diag);

/* ---- memory ---- */

/* One buffer of the device arena. */
typedef struct mlar_buffer_info {
    char name[24];
    char shape[40]; /* "f32 [slots 264][heads 64][d_v 512]" */
    uint64_t offset_bytes;
    uint64_t bytes;
    uint64_t align_bytes;
    int32_t kind;        /* index into config.kinds, -1: all kinds */
    int32_t first_stage; /* live from this stage of the sequence ... */
    int32_t last_stage;  /* ... to this one; persistent buffers span all */
    int32_t persistent;
} mlar_buffer_info;

/* The answer to a size query: what the host provides and how it will be used. */
typedef struct mlar_memory {
    uint32_t struct_size;
    int32_t strategy;    /* resolved: gather or direct */
    uint64_t host_bytes; /* the engine's own state: the caller's host block, exactly */
    uint64_t host_align_bytes;
    uint64_t device_bytes; /* the arena, exactly */
    uint64_t device_align_bytes;
    uint64_t lower_bound_bytes;        /* largest sum of simultaneously live bytes: no plan can be smaller */
    uint64_t guard_bytes;              /* part of device_bytes that is guard zones; not in the lower bound */
    uint64_t guard_zone_bytes;         /* of one zone: config.guard_bytes */
    uint64_t persistent_bytes;         /* part of device_bytes that lives from init to deinit */
    uint64_t minimum_budget_bytes;     /* the smallest budget_bytes this configuration accepts */
    uint64_t full_pool_bytes_per_slot; /* for comparison: what dequantising a whole pool takes per KV slot */
    uint64_t fingerprint;              /* XXH3 of configuration and offsets; a program refuses another plan */
    int32_t row_tile[MLAR_KINDS_MAX];  /* rows that one round of the sequence handles, per kind */
    int32_t slots[MLAR_KINDS_MAX];     /* workspace slots for split rows, per kind */
    int32_t stage_count;
    int32_t buffer_count;
    char stages[8][16]; /* names of the sequence's stages */
    mlar_buffer_info buffers[MLAR_BUFFERS_MAX];
} mlar_memory;

/* Exactly what mlar_engine_init will need, into *memory, whose struct_size the caller has set. Pure: no device, no
 * allocation.
 * MLAR_ERROR_CONFIG, MLAR_ERROR_UNSUPPORTED (no kernels exist for device.arch), MLAR_ERROR_OVERFLOW,
 * MLAR_ERROR_BUDGET (given: the budget; needed: the exact minimum). */
MLAR_API mlar_status mlar_memory_query(const mlar_config *config, mlar_memory *memory, mlar_diag *diag);

/* The map as a text table or as JSON, piece by piece through `write`. Pure. */
typedef void (*mlar_write)(void *context, const char *text, size_t bytes);
MLAR_API mlar_status mlar_memory_print(const mlar_memory *memory, int32_t json, mlar_write write,
                                       void *context);

#ifdef __cplusplus
}
#endif
#endif
