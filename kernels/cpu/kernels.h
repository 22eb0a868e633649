/* SPDX-License-Identifier: Apache-2.0
 *
 * kernels.h: what the CPU back end offers the engine: stages cut into independent items, and a table of
 * implementations to pick from at run time.
 *
 * A stage is run by calling its function once for every item 0 .. mlar_cpu_items() - 1, in any order, on any
 * threads; each concurrent caller passes its own scratch. Results depend neither on the order nor on who ran
 * what. Stages themselves are run one after the other. The engine has put the thread's floating-point mode to
 * the default (to nearest, no flushing) before it calls. This file knows no thread, no arena and no memory of
 * its own. */
#ifndef MLAR_KERNELS_CPU_KERNELS_H
#define MLAR_KERNELS_CPU_KERNELS_H

#include "kernels/params.h"

/* One item of one stage. `scratch` is 64-byte aligned, holds mlar_cpu_scratch_bytes(), and may be dirty. */
typedef void (*mlar_cpu_stage_fn)(const mlar_stage_args *args, int64_t item, void *scratch);

/* One instruction set's version of the stages; const, one per file. gather and combine of a variant may be
 * those of a lesser one. */
typedef struct mlar_cpu_kernels {
    const char *isa;                   /* the name that config's cpu_isa forces */
    mlar_cpu_stage_fn gather;          /* item: see mlar_cpu_gather_work_of */
    mlar_cpu_stage_fn attend_gathered; /* item: see mlar_cpu_tail_item, then mlar_unit_of of schedule.h */
    mlar_cpu_stage_fn attend_direct;   /* the same items */
    mlar_cpu_stage_fn combine;         /* item: a live row of the row tile */
} mlar_cpu_kernels;

extern const mlar_cpu_kernels mlar_cpu_kernels_scalar;
#if defined(MLAR_HAVE_AVX2) && MLAR_HAVE_AVX2
extern const mlar_cpu_kernels mlar_cpu_kernels_avx2;
#endif
#if defined(MLAR_HAVE_AVX512) && MLAR_HAVE_AVX512
extern const mlar_cpu_kernels mlar_cpu_kernels_avx512;
#endif
#if defined(MLAR_HAVE_AVX512BF16) && MLAR_HAVE_AVX512BF16
extern const mlar_cpu_kernels mlar_cpu_kernels_avx512bf16;
#endif
#if defined(MLAR_HAVE_AMX) && MLAR_HAVE_AMX
extern const mlar_cpu_kernels mlar_cpu_kernels_amx;
#endif

/* ---- select.c ---- */

/* "scalar", "avx2", "avx512", "avx512bf16" or "amx"; NULL or "auto": the best that this processor and its
 * operating system offer. NULL: no such name, not in this build, or not offered here. */
const mlar_cpu_kernels *mlar_cpu_select(const char *isa);

/* The names that mlar_cpu_select accepts here, best first, "scalar" last; NULL from `position` on where there
 * are no more. */
const char *mlar_cpu_offered(int32_t position);

/* ---- prepare.c: what is the same for every instruction set ---- */

/* How many items a stage has now. Reads the live rows and, under policy balanced, the schedule that prepare
 * has written. set_block and prepare have one item. */
int64_t mlar_cpu_items(int32_t stage, const mlar_stage_args *args);

/* Runs one item of prepare, gather, attend_gathered, attend_direct or combine; not set_block, whose arguments
 * differ. */
void mlar_cpu_run(const mlar_cpu_kernels *kernels, int32_t stage, const mlar_stage_args *args, int64_t item,
                  void *scratch);

/* Live lengths -> schedule, for every row tile that begins in [row_begin, row_begin + row_count). Writes
 * nothing under policy batch_invariant. */
void mlar_cpu_prepare(const mlar_stage_args *args);
void mlar_cpu_set_block(const mlar_set_block_args *args);

/* What an item of gather is: up to MLAR_KEY_TILE entries of one list, and where their rows go. */
typedef struct mlar_cpu_gather_work {
    const mlar_scope_params *scope;
    const int32_t *entries; /* [count] */
    uint16_t *to;           /* bf16 [count][d_qk]; the rows of entries that do not count are left alone */
    int32_t count;          /* 0: nothing to do */
} mlar_cpu_gather_work;
mlar_cpu_gather_work mlar_cpu_gather_work_of(const mlar_stage_args *args, int64_t item);

/* The items of attend past the units are the rows that nobody lives in, where the layer asks for zeros: if
 * `item` is one of them, writes out = 0 and lse = -inf and returns 1. */
int32_t mlar_cpu_tail_item(const mlar_stage_args *args, int64_t item);

/* Adds to the counter of SPEC section 4, from any thread. */
void mlar_cpu_count_invalid(const mlar_stage_args *args, uint64_t entries);

/* ---- scratch ---- */

/* Each thread's scratch, the same for every variant so that the memory plan does not depend on the processor.
 * Variants use the regions as they like (a bf16 tile and its transposed copy take what one f32 tile takes). A
 * head count, and a row of elements, is rounded up to 16. */
typedef struct mlar_cpu_scratch {
    float *keys;    /* [MLAR_KEY_TILE][d_qk]: the converted key tile */
    float *queries; /* [heads][d_qk] */
    float *out;     /* [heads][d_v]: unnormalised */
    float *scores;  /* [heads][MLAR_KEY_TILE] */
    float *max;     /* [heads] */
    float *sum;     /* [heads] */
} mlar_cpu_scratch;

#define MLAR_CPU_SCRATCH_ALIGN 64

/* From the sizes alone; a multiple of MLAR_CPU_SCRATCH_ALIGN. */
uint64_t mlar_cpu_scratch_bytes(const mlar_shape *shape);
mlar_cpu_scratch mlar_cpu_scratch_carve(const mlar_shape *shape, void *scratch);

#endif
