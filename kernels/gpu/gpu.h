/* SPDX-License-Identifier: Apache-2.0
 *
 * gpu.h: what differs between compilers and wave sizes, once.
 *
 * The kernels are HIP source compiled without any HIP header (clang, gfx90a, gfx942, gfx950, gfx1100) and the
 * same source compiled by nvcc (sm_90a). Everything that either compiler spells in its own way stands here:
 * kernel and launch attributes, indices, barriers, lane exchange, atomics, global accesses of fixed width,
 * fast exponentials, inline assembly. Matrix instructions are in mma.h. This file knows no cache layout and
 * no attention.
 *
 * Words used: a block is a workgroup; a wave is what executes in step (32 or 64 lanes); a compute unit is an
 * SM. */
#ifndef MLAR_KERNELS_GPU_GPU_H
#define MLAR_KERNELS_GPU_GPU_H

/* Without always_inline a helper may become a call, and a call may need a private segment. */
#if defined(__HIP__)
#define MLAR_DEVICE static __attribute__((device, always_inline)) inline
#else
#define MLAR_DEVICE static __device__ __forceinline__
#endif
#define MLAR_FN MLAR_DEVICE /* numeric.h and schedule.h follow */
#if defined(__HIP__)
#define MLAR_MEMBER __attribute__((device, always_inline)) inline
#else
#define MLAR_MEMBER __device__ __forceinline__
#endif

#include "kernels/numeric.h"
#include "kernels/params.h"

#define MLAR_INF   __builtin_huge_valf()
#define MLAR_LOG2E 1.44269504088896340736f
#define MLAR_LN2   0.69314718055994530942f

/* 16, 8 and 4 bytes that move as one. */
#if defined(__HIP__)
typedef uint32_t mlar_u32x4 __attribute__((ext_vector_type(4)));
typedef uint32_t mlar_u32x2 __attribute__((ext_vector_type(2)));
typedef float mlar_f32x4 __attribute__((ext_vector_type(4)));
typedef float mlar_f32x2 __attribute__((ext_vector_type(2)));
#else
typedef uint4 mlar_u32x4;
typedef uint2 mlar_u32x2;
typedef float4 mlar_f32x4;
typedef float2 mlar_f32x2;
#endif

#if defined(__HIP__)

/* ---- clang, AMD ---- */

#if defined(__GFX9__)
#define MLAR_WAVE 64
#elif defined(__GFX11__)
#define MLAR_WAVE 32
#elif !defined(__HIP_DEVICE_COMPILE__)
#define MLAR_WAVE 64 /* the host pass reads the source and keeps nothing of it */
#else
#error "no wave size is known for this target"
#endif

#define MLAR_KERNEL extern "C" __attribute__((global))
#define MLAR_SHARED __attribute__((shared))
/* Blocks of exactly `threads`, one at a time on a compute unit if need be: registers before occupancy. */
#define MLAR_BLOCK(threads) __attribute__((amdgpu_flat_work_group_size(threads, threads)))
/* The same, `count` of them on a compute unit at once. (clang needs no such advice.) */
#define MLAR_BLOCKS(threads, count) MLAR_BLOCK(threads)
#define MLAR_UNROLL                 _Pragma("unroll")
#define MLAR_NO_UNROLL              _Pragma("nounroll")
#define MLAR_GLOBAL                 __attribute__((address_space(1)))
/* Kernels take their struct by value and read it where the runtime put it: an address taken of the parameter
 * itself would be one of a private copy. */
#define MLAR_ARGS(type, by_value) ((void)(by_value), (const type *)__builtin_amdgcn_kernarg_segment_ptr())
#define MLAR_BY_VALUE(type)       type

MLAR_DEVICE int32_t mlar_thread(void) {
    return (int32_t)__builtin_amdgcn_workitem_id_x();
}
MLAR_DEVICE int32_t mlar_block(void) {
    return (int32_t)__builtin_amdgcn_workgroup_id_x();
}
/* Blocks of the grid, of `threads` each. */
MLAR_DEVICE int32_t mlar_blocks(int32_t threads) {
    return (int32_t)(__builtin_amdgcn_grid_size_x() / (uint32_t)threads);
}

/* Everything written before by any thread of the block is visible after. */
MLAR_DEVICE void mlar_block_sync(void) {
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
    __builtin_amdgcn_s_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}
/* The same among the lanes of a wave. They execute in step and LDS keeps their order: the compiler must too.
 */
MLAR_DEVICE void mlar_wave_sync(void) {
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "wavefront");
    __builtin_amdgcn_wave_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "wavefront");
}

/* The same value, but not known to be: what is computed from it is computed here and not kept in registers
 * for long. */
MLAR_DEVICE int32_t mlar_here(int32_t value) {
    asm volatile("" : "+v"(value));
    return value;
}

/* Of a value that every lane of the wave holds: scalar registers can run out, too. */
MLAR_DEVICE uint32_t mlar_uniform_here(uint32_t value) {
    asm volatile("" : "+s"(value));
    return value;
}

/* A value that every lane of the wave holds: into a scalar register, where there are such. */
MLAR_DEVICE int32_t mlar_uniform(int32_t value) {
    return __builtin_amdgcn_readfirstlane(value);
}

MLAR_DEVICE uint64_t mlar_ballot(int32_t predicate) {
#if MLAR_WAVE == 64
    return __builtin_amdgcn_ballot_w64(predicate != 0);
#else
    return __builtin_amdgcn_ballot_w32(predicate != 0);
#endif
}
MLAR_DEVICE int32_t mlar_popcount(uint64_t bits) {
    return __builtin_popcountll(bits);
}

/* The value of lane `from` (0 .. MLAR_WAVE - 1). */
MLAR_DEVICE uint32_t mlar_lane_get_u32(uint32_t value, int32_t from) {
    return (uint32_t)__builtin_amdgcn_ds_bpermute(from << 2, (int32_t)value);
}

MLAR_DEVICE void mlar_atomic_add_u64(uint64_t *where, uint64_t value) {
    __hip_atomic_fetch_add((MLAR_GLOBAL uint64_t *)where, value, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
}

/* What launch.h calls overlap is not there. */
MLAR_DEVICE void mlar_let_next_begin(void) {}
MLAR_DEVICE void mlar_wait_for_last(void) {}

MLAR_DEVICE float mlar_exp2(float x) {
    return __builtin_amdgcn_exp2f(x);
}
MLAR_DEVICE float mlar_log(float x) {
    return __builtin_logf(x);
}
MLAR_DEVICE float mlar_max(float a, float b) {
    return __builtin_fmaxf(a, b);
}

/* The upper halves of two words: low | high << 16. */
MLAR_DEVICE uint32_t mlar_pack_high(uint32_t low, uint32_t high) {
    return __builtin_amdgcn_perm(high, low, 0x07060302u);
}
MLAR_DEVICE uint32_t mlar_pack_low(uint32_t low, uint32_t high) {
    return __builtin_amdgcn_perm(high, low, 0x05040100u);
}

#else

/* ---- nvcc ---- */

#define MLAR_WAVE                   32
#define MLAR_KERNEL                 extern "C" __global__
#define MLAR_SHARED                 __shared__
#define MLAR_BLOCK(threads)         __launch_bounds__(threads, 1)
#define MLAR_BLOCKS(threads, count) __launch_bounds__(threads, count)
#define MLAR_UNROLL                 _Pragma("unroll")
#define MLAR_NO_UNROLL              _Pragma("unroll 1")
#define MLAR_GLOBAL
#define MLAR_ARGS(type, by_value) (&(by_value))
#define MLAR_BY_VALUE(type)       const __grid_constant__ type

MLAR_DEVICE int32_t mlar_thread(void) {
    return (int32_t)threadIdx.x;
}
MLAR_DEVICE int32_t mlar_block(void) {
    return (int32_t)blockIdx.x;
}
MLAR_DEVICE int32_t mlar_blocks(int32_t threads) {
    return (void)threads, (int32_t)gridDim.x;
}

MLAR_DEVICE void mlar_block_sync(void) {
    __syncthreads();
}
MLAR_DEVICE void mlar_wave_sync(void) {
    __syncwarp();
}
MLAR_DEVICE int32_t mlar_here(int32_t value) {
    asm volatile("" : "+r"(value));
    return value;
}
MLAR_DEVICE uint32_t mlar_uniform_here(uint32_t value) {
    return value;
}
MLAR_DEVICE int32_t mlar_uniform(int32_t value) {
    return value;
}
MLAR_DEVICE uint64_t mlar_ballot(int32_t predicate) {
    return __ballot_sync(0xffffffffu, predicate);
}
MLAR_DEVICE int32_t mlar_popcount(uint64_t bits) {
    return __popcll(bits);
}
MLAR_DEVICE uint32_t mlar_lane_get_u32(uint32_t value, int32_t from) {
    return __shfl_sync(0xffffffffu, value, from);
}
MLAR_DEVICE void mlar_atomic_add_u64(uint64_t *where, uint64_t value) {
    asm volatile("red.relaxed.gpu.global.add.u64 [%0], %1;" ::"l"(__cvta_generic_to_global(where)), "l"(value)
                 : "memory");
}

/* Overlap (launch.h): once every block has said so or ended, the next kernel may begin ... */
MLAR_DEVICE void mlar_let_next_begin(void) {
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}
/* ... and here it waits until this one has ended and what it wrote can be seen. Every block of it must: else it could
 * be over before this one, and the kernel after it would begin too early. */
MLAR_DEVICE void mlar_wait_for_last(void) {
    asm volatile("griddepcontrol.wait;" ::: "memory");
}

MLAR_DEVICE float mlar_exp2(float x) {
    float y;
    asm("ex2.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
MLAR_DEVICE float mlar_log(float x) {
    return logf(x);
}
MLAR_DEVICE float mlar_max(float a, float b) {
    return fmaxf(a, b);
}

MLAR_DEVICE uint32_t mlar_pack_high(uint32_t low, uint32_t high) {
    return __byte_perm(low, high, 0x7632);
}
MLAR_DEVICE uint32_t mlar_pack_low(uint32_t low, uint32_t high) {
    return __byte_perm(low, high, 0x5410);
}

#endif

/* ---- built on the above ---- */

MLAR_DEVICE int32_t mlar_lane(void) {
    return mlar_thread() & (MLAR_WAVE - 1);
}
/* Number of the wave in its block. */
MLAR_DEVICE int32_t mlar_wave(void) {
    return mlar_uniform(mlar_thread() / MLAR_WAVE);
}

MLAR_DEVICE int32_t mlar_any(int32_t predicate) {
    return mlar_ballot(predicate) != 0;
}

MLAR_DEVICE int32_t mlar_lane_get_i32(int32_t value, int32_t from) {
    return (int32_t)mlar_lane_get_u32((uint32_t)value, from);
}
MLAR_DEVICE float mlar_lane_get_f32(float value, int32_t from) {
    return mlar_f32_from_bits(mlar_lane_get_u32(mlar_f32_bits(value), from));
}
MLAR_DEVICE float mlar_lane_xor(float value, int32_t mask) {
#if defined(__HIP__)
    return mlar_f32_from_bits(mlar_lane_get_u32(mlar_f32_bits(value), mlar_lane() ^ mask));
#else
    return __shfl_xor_sync(0xffffffffu, value, mask);
#endif
}

/* Over `lanes` neighbours (a power of two), the same result in each, combined in the same order always. */
MLAR_DEVICE float mlar_lanes_max(float value, int32_t lanes) {
    MLAR_UNROLL for (int32_t mask = 1; mask < lanes; mask *= 2) value =
        mlar_max(value, mlar_lane_xor(value, mask));
    return value;
}
MLAR_DEVICE float mlar_lanes_sum(float value, int32_t lanes) {
    MLAR_UNROLL for (int32_t mask = 1; mask < lanes; mask *= 2) value += mlar_lane_xor(value, mask);
    return value;
}

/* exp in the natural domain; -inf gives 0, NaN stays. */
MLAR_DEVICE float mlar_exp(float x) {
    return mlar_exp2(x * MLAR_LOG2E);
}

/* Device memory that nobody writes while the kernel runs, by width. Addresses are naturally aligned for the
 * width. */
#if defined(__HIP__)
#define MLAR_LOAD(type, from) (*(const MLAR_GLOBAL type *)(from))
#else
#define MLAR_LOAD(type, from) __ldg((const type *)(from))
#endif
MLAR_DEVICE mlar_u32x4 mlar_load16(const void *from) {
    return MLAR_LOAD(mlar_u32x4, from);
}
MLAR_DEVICE mlar_u32x2 mlar_load8(const void *from) {
    return MLAR_LOAD(mlar_u32x2, from);
}
MLAR_DEVICE uint32_t mlar_load4(const void *from) {
    return MLAR_LOAD(uint32_t, from);
}
MLAR_DEVICE uint32_t mlar_load2(const void *from) {
    return MLAR_LOAD(uint16_t, from);
}
MLAR_DEVICE uint32_t mlar_load1(const void *from) {
    return MLAR_LOAD(uint8_t, from);
}
MLAR_DEVICE float mlar_load_f32(const float *from) {
    return MLAR_LOAD(float, from);
}

/* Two or four neighbours, zeros unless they are wanted, from device memory that the kernel before this one may have
 * written while this one was there already (overlap): from where all writes meet, and not before this is reached. */
#if defined(__HIP__)
MLAR_DEVICE void mlar_load_fresh(float (&to)[2], const float *from, int32_t wanted) {
    mlar_f32x2 v = {0.0f, 0.0f};
    if (wanted) v = MLAR_LOAD(mlar_f32x2, from);
    to[0] = v.x, to[1] = v.y;
}
MLAR_DEVICE void mlar_load_fresh(float (&to)[4], const float *from, int32_t wanted) {
    mlar_f32x4 v = {0.0f, 0.0f, 0.0f, 0.0f};
    if (wanted) v = MLAR_LOAD(mlar_f32x4, from);
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}
#else
MLAR_DEVICE void mlar_load_fresh(float (&to)[2], const float *from, int32_t wanted) {
    to[0] = to[1] = 0.0f;
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "setp.ne.b32 p, %3, 0;\n"
                 "@p ld.global.cg.v2.f32 {%0, %1}, [%2];\n"
                 "}"
                 : "+f"(to[0]), "+f"(to[1])
                 : "l"(__cvta_generic_to_global(from)), "r"(wanted));
}
MLAR_DEVICE void mlar_load_fresh(float (&to)[4], const float *from, int32_t wanted) {
    to[0] = to[1] = to[2] = to[3] = 0.0f;
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "setp.ne.b32 p, %5, 0;\n"
                 "@p ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];\n"
                 "}"
                 : "+f"(to[0]), "+f"(to[1]), "+f"(to[2]), "+f"(to[3])
                 : "l"(__cvta_generic_to_global(from)), "r"(wanted));
}
#endif

MLAR_DEVICE void mlar_store16(void *to, mlar_u32x4 value) {
#if defined(__HIP__)
    *(MLAR_GLOBAL mlar_u32x4 *)to = value;
#else /* written as an assignment it may become four stores */
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "r"(value.x),
                 "r"(value.y), "r"(value.z), "r"(value.w)
                 : "memory");
#endif
}
MLAR_DEVICE void mlar_store4(void *to, uint32_t value) {
    *(MLAR_GLOBAL uint32_t *)to = value;
}
MLAR_DEVICE void mlar_store_f32(float *to, float value) {
    *(MLAR_GLOBAL float *)to = value;
}
MLAR_DEVICE void mlar_store_f32x2(float *to, float x, float y) {
    mlar_f32x2 pair;
    pair.x = x;
    pair.y = y;
    *(MLAR_GLOBAL mlar_f32x2 *)to = pair;
}

/* An f32 whose upper half is its bf16, to nearest even; NaN stays NaN. numeric.h's rounding, in 32 bits
 * throughout. */
MLAR_DEVICE uint32_t mlar_bf16_above(float value) {
    const uint32_t bits = mlar_f32_bits(value);
    return mlar_f32_bits_is_nan(bits) ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1u);
}

/* Two f32 to bf16. */
MLAR_DEVICE uint32_t mlar_bf16x2(float low, float high) {
#if defined(__HIP__)
    return mlar_pack_high(mlar_bf16_above(low), mlar_bf16_above(high));
#else
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#endif
}

#endif
