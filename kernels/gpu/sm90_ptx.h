/* SPDX-License-Identifier: Apache-2.0
 *
 * sm90_ptx.h: the instructions of sm_90a that the tuned NVIDIA engine is made of, each under a name.
 *
 * Barriers in shared memory, register hand-over between warpgroups, asynchronous copies, matrix loads and the two
 * families of matrix products: mma (a warp, operands in registers) and wgmma (four warps, operands in shared memory,
 * asynchronous). All inline PTX of the engine is here. This file knows no tile, no cache and no attention.
 *
 * Shared memory is named by its 32-bit address. Every bf16 matrix in it is made of panels: 64 columns wide, a row of
 * a panel is 128 bytes, and the 16-byte chunk c of row r stands at chunk c ^ (r & 7) (the 128-byte swizzle). Panels
 * begin at multiples of 1024 bytes. */
#ifndef MLAR_KERNELS_GPU_SM90_PTX_H
#define MLAR_KERNELS_GPU_SM90_PTX_H

#include "kernels/gpu/gpu.h"

MLAR_DEVICE uint32_t sm90_address(const void *shared) {
    return (uint32_t)__cvta_generic_to_shared(shared);
}

/* An address, once computed, is to stay in its register: else every use computes it again from the block's place in its
 * cluster. */
MLAR_DEVICE uint32_t sm90_keep(uint32_t value) {
    asm volatile("" : "+r"(value));
    return value;
}

/* ---- shared memory by address ---- */

MLAR_DEVICE void sm90_store16(uint32_t to, mlar_u32x4 v) {
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
                 : "memory");
}
MLAR_DEVICE void sm90_store8(uint32_t to, uint32_t low, uint32_t high) {
    asm volatile("st.shared.v2.b32 [%0], {%1, %2};" ::"r"(to), "r"(low), "r"(high) : "memory");
}
MLAR_DEVICE void sm90_store4(uint32_t to, uint32_t v) {
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(v) : "memory");
}

MLAR_DEVICE void sm90_store1(uint32_t to, uint32_t v) {
    asm volatile("st.shared.b8 [%0], %1;" ::"r"(to), "r"(v) : "memory");
}
MLAR_DEVICE void sm90_store_f32(uint32_t to, float v) {
    asm volatile("st.shared.f32 [%0], %1;" ::"r"(to), "f"(v) : "memory");
}
MLAR_DEVICE uint32_t sm90_read1(uint32_t from) {
    uint32_t v;
    asm volatile("ld.shared.u8 %0, [%1];" : "=r"(v) : "r"(from) : "memory");
    return v;
}
MLAR_DEVICE float sm90_read_f32(uint32_t from) {
    float v;
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(v) : "r"(from) : "memory");
    return v;
}
MLAR_DEVICE mlar_u32x4 sm90_read16(uint32_t from) {
    mlar_u32x4 v;
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(from)
                 : "memory");
    return v;
}

MLAR_DEVICE mlar_u32x2 sm90_read8(uint32_t from) {
    mlar_u32x2 v;
    asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(from) : "memory");
    return v;
}
MLAR_DEVICE uint64_t sm90_read_u64(uint32_t from) {
    const mlar_u32x2 v = sm90_read8(from);
    return (uint64_t)v.y << 32 | v.x;
}
MLAR_DEVICE uint32_t sm90_read4(uint32_t from) {
    uint32_t v;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(v) : "r"(from) : "memory");
    return v;
}

/* 16 bytes from device to shared memory, asynchronously; zeros if not `present` (then `from` is not read). */
MLAR_DEVICE void sm90_copy16(uint32_t to, const void *from, int32_t present) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to),
                 "l"(__cvta_generic_to_global(from)), "r"(present ? 16 : 0)
                 : "memory");
}
MLAR_DEVICE void sm90_copy8(uint32_t to, const void *from) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(to), "l"(__cvta_generic_to_global(from))
                 : "memory");
}
MLAR_DEVICE void sm90_copy4(uint32_t to, const void *from) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(__cvta_generic_to_global(from))
                 : "memory");
}
MLAR_DEVICE void sm90_copy_wait(void) {
    asm volatile("cp.async.wait_all;" ::: "memory");
}

/* This thread arrives at the barrier when all that it has asked for until here is there. */
MLAR_DEVICE void sm90_copy_arrive(uint32_t barrier) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

/* To the L2 cache. */
MLAR_DEVICE void sm90_prefetch(const void *from) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(__cvta_generic_to_global(from)));
}
/* 16 bytes of device memory that are read once. Nothing waits before the value is used; not moved across a barrier. */
MLAR_DEVICE mlar_u32x4 sm90_load16(uint64_t from) {
    mlar_u32x4 v;
    asm volatile("ld.global.L1::no_allocate.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from)
                 : "memory");
    return v;
}

/* ---- order and hand-over ---- */

/* What this thread wrote to shared memory is visible to wgmma once the thread has passed a barrier. */
MLAR_DEVICE void sm90_fence_async(void) {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* Among `threads` threads of the block; `id` 1 .. 15 tells barriers apart. They may stand at different places of the
 * code, which bar.sync, the aligned form, would not allow. */
MLAR_DEVICE void sm90_group_sync(int32_t id, int32_t threads) {
    asm volatile("barrier.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* A barrier object: 8 bytes. It completes a phase when `arrivals` arrivals are in; phases alternate in parity. */
MLAR_DEVICE void sm90_barrier_init(uint32_t barrier, uint32_t arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
MLAR_DEVICE void sm90_barrier_init_done(void) {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
MLAR_DEVICE void sm90_barrier_arrive(uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
MLAR_DEVICE int32_t sm90_barrier_test(uint32_t barrier, uint32_t parity) {
    uint32_t done;
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                 "selp.u32 %0, 1, 0, p;\n"
                 "}"
                 : "=r"(done)
                 : "r"(barrier), "r"(parity)
                 : "memory");
    return (int32_t)done;
}
/* Without patience, and for a warp: all its lanes must have seen it. */
MLAR_DEVICE int32_t sm90_barrier_passed(uint32_t barrier, uint32_t parity) {
    uint32_t done;
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                 "selp.u32 %0, 1, 0, p;\n"
                 "}"
                 : "=r"(done)
                 : "r"(barrier), "r"(parity)
                 : "memory");
    return !mlar_any(!done);
}
/* Returns when the phase of this parity is complete (the phase before the first counts as parity 1). */
MLAR_DEVICE void sm90_barrier_wait(uint32_t barrier, uint32_t parity) {
    while (!sm90_barrier_test(barrier, parity)) {
    }
}

/* Registers a thread of this warpgroup may use from here on; the block's sum stays within the file. */
#define SM90_REGISTERS_MORE(n) asm volatile("setmaxnreg.inc.sync.aligned.u32 " #n ";")
#define SM90_REGISTERS_LESS(n) asm volatile("setmaxnreg.dec.sync.aligned.u32 " #n ";")

/* ---- a cluster's blocks ----
 *
 * They run at the same time, and each can read what the others have in shared memory, as long as those are there. */

/* Clusters of the grid, and which this one is; blocks of a cluster, and which this one is. */
MLAR_DEVICE int32_t sm90_clusters(void) {
    int32_t n;
    asm("mov.u32 %0, %%nclusterid.x;" : "=r"(n));
    return n;
}
MLAR_DEVICE int32_t sm90_cluster(void) {
    int32_t n;
    asm("mov.u32 %0, %%clusterid.x;" : "=r"(n));
    return n;
}
MLAR_DEVICE int32_t sm90_cluster_blocks(void) {
    int32_t n;
    asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(n));
    return n;
}
MLAR_DEVICE int32_t sm90_cluster_rank(void) {
    int32_t n;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(n));
    return n;
}

/* Where block `rank` has what this one has at `address`. */
MLAR_DEVICE uint32_t sm90_cluster_address(uint32_t address, int32_t rank) {
    uint32_t there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
    return there;
}
/* Floats of any block, zeros unless they are wanted. */
MLAR_DEVICE void sm90_cluster_read(float (&to)[4], uint32_t from, int32_t wanted) {
    to[0] = to[1] = to[2] = to[3] = 0.0f;
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "setp.ne.b32 p, %5, 0;\n"
                 "@p ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];\n"
                 "}"
                 : "+f"(to[0]), "+f"(to[1]), "+f"(to[2]), "+f"(to[3])
                 : "r"(from), "r"(wanted)
                 : "memory");
}
MLAR_DEVICE void sm90_cluster_read(float (&to)[2], uint32_t from, int32_t wanted) {
    to[0] = to[1] = 0.0f;
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "setp.ne.b32 p, %3, 0;\n"
                 "@p ld.shared::cluster.v2.f32 {%0, %1}, [%2];\n"
                 "}"
                 : "+f"(to[0]), "+f"(to[1])
                 : "r"(from), "r"(wanted)
                 : "memory");
}

/* The cluster's barrier: all threads that have not ended must arrive before any may pass. */
MLAR_DEVICE void sm90_cluster_arrive(void) {
    asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
}
MLAR_DEVICE void sm90_cluster_wait(void) {
    asm volatile("barrier.cluster.wait;" ::: "memory");
}
/* Before arriving: what this thread wrote to its block's shared memory ... */
MLAR_DEVICE void sm90_cluster_release(void) {
    asm volatile("fence.release.sync_restrict::shared::cta.cluster;" ::: "memory");
}
/* ... can be read by those who have passed, anywhere. Nothing is said of other memory, for which the whole chip would
 * have to be waited for. */
MLAR_DEVICE void sm90_cluster_acquire(void) {
    asm volatile("fence.acquire.sync_restrict::shared::cluster.cluster;" ::: "memory");
}

/* ---- bits ---- */

MLAR_DEVICE uint32_t sm90_permute(uint32_t word, uint32_t selector) {
    uint32_t out;
    asm("prmt.b32 %0, %1, %1, %2;" : "=r"(out) : "r"(word), "r"(selector));
    return out;
}
/* 2^x, 0 where that would be subnormal. */
MLAR_DEVICE float sm90_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
/* Two bf16 products, each rounded once, subnormals kept. */
MLAR_DEVICE uint32_t sm90_mul_bf16x2(uint32_t a, uint32_t b) {
    uint32_t out;
    asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
    return out;
}
/* All ones in each half that is not NaN. */
MLAR_DEVICE uint32_t sm90_ordered_bf16x2(uint32_t a) {
    uint32_t out;
    asm("set.eq.u32.bf16x2 %0, %1, %1;" : "=r"(out) : "r"(a));
    return out;
}

/* ---- matrix products of one warp ---- */

/* Four 8 x 8 matrices; lane l gives the address of row l % 8 of matrix l / 8. Lane l receives, of each matrix, row
 * l / 4, columns 2 (l % 4) and the next; transposed: column l / 4, rows 2 (l % 4) and the next. */
MLAR_DEVICE void sm90_load_matrices(uint32_t to[4], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row)
                 : "memory");
}
MLAR_DEVICE void sm90_load_matrices_transposed(uint32_t to[4], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row)
                 : "memory");
}

/* d[16 x 8] += a[16 x 16] b[16 x 8], bf16 into f32. Lane l holds of d rows l / 4 and l / 4 + 8, columns 2 (l % 4) and
 * the next: d[0], d[1], then d[2], d[3]. */
MLAR_DEVICE void sm90_mma(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* ---- matrix products of a warpgroup ----
 *
 * d[64 x n] (+)= a[64 x 16] b[16 x n]; warp w of the group holds rows 16 w .. 16 w + 15 of d, block by block of 8
 * columns as sm90_mma: d[4 block + 0 .. 3]. Operands are described by descriptors and read asynchronously: between
 * issue and the wait for their group neither they nor d may be touched. */

/* An address in a descriptor: 18 bits, in units of 16. In a cluster the block's place there stands above them. */
MLAR_DEVICE uint32_t sm90_described(uint32_t address) {
    return address >> 4 & 0x3fffu;
}
/* The low word of a descriptor; the high one (8 rows of a panel are 1024 bytes, 128-byte swizzle) is always the same.
 * Rows along k (a, and b of the scores): the next 16 of k are 32 bytes on inside a panel. */
MLAR_DEVICE uint32_t sm90_descriptor_rows(uint32_t address) {
    return sm90_described(address) | 1u << 16;
}
/* Rows that are k (b of P V), columns over several panels of `panel_bytes`: the next 16 of k are 2048 bytes on. */
MLAR_DEVICE uint32_t sm90_descriptor_columns(uint32_t address, uint32_t panel_bytes) {
    return sm90_described(address) | panel_bytes >> 4 << 16;
}
#define SM90_DESCRIPTOR_HIGH (1u << 30 | 1024 >> 4)

MLAR_DEVICE void sm90_wgmma_begin(void) {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
MLAR_DEVICE void sm90_wgmma_commit(void) {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/* Returns when at most `n` of this warpgroup's newest groups are still under way. */
#define SM90_WGMMA_WAIT(n) asm volatile("wgmma.wait_group.sync.aligned " #n ";" ::: "memory")

/* The compiler may not move uses of d across this point. */
#define SM90_PIN(d, count)                                                                                   \
    MLAR_UNROLL for (int pin_ = 0; pin_ < (count); ++pin_) asm volatile("" : "+f"((d)[pin_])::"memory")

#define SM90_OPERANDS_8(d, i)                                                                                \
    "+f"((d)[(i) + 0]), "+f"((d)[(i) + 1]), "+f"((d)[(i) + 2]), "+f"((d)[(i) + 3]), "+f"((d)[(i) + 4]),      \
        "+f"((d)[(i) + 5]), "+f"((d)[(i) + 6]), "+f"((d)[(i) + 7])
#define SM90_OPERANDS_32(d, i)                                                                               \
    SM90_OPERANDS_8(d, i), SM90_OPERANDS_8(d, (i) + 8), SM90_OPERANDS_8(d, (i) + 16),                        \
        SM90_OPERANDS_8(d, (i) + 24)

/* n = 64, both operands with rows along k. The operands begin a_bytes and b_bytes behind what their descriptors say. */
template <int a_bytes, int b_bytes>
MLAR_DEVICE void sm90_wgmma_64(float d[32], uint32_t a, uint32_t b, int32_t accumulate) {
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 ".reg .b32 t;\n"
                 ".reg .b64 da, db;\n"
                 "setp.ne.b32 p, %34, 0;\n"
                 "add.u32 t, %32, %36;\n"
                 "mov.b64 da, {t, %35};\n"
                 "add.u32 t, %33, %37;\n"
                 "mov.b64 db, {t, %35};\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
                 "da, db, p, 1, 1, 0, 0;\n"
                 "}"
                 : SM90_OPERANDS_32(d, 0)
                 : "r"(a), "r"(b), "r"(accumulate), "r"(SM90_DESCRIPTOR_HIGH), "n"(a_bytes / 16),
                   "n"(b_bytes / 16));
}

/* n = 128, a with rows along k, b with rows that are k. The operands begin a_bytes and b_bytes behind what their
 * descriptors say. */
template <int a_bytes, int b_bytes>
MLAR_DEVICE void sm90_wgmma_128(float d[64], uint32_t a, uint32_t b, int32_t accumulate) {
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 ".reg .b32 t;\n"
                 ".reg .b64 da, db;\n"
                 "setp.ne.b32 p, %66, 0;\n"
                 "add.u32 t, %64, %68;\n"
                 "mov.b64 da, {t, %67};\n"
                 "add.u32 t, %65, %69;\n"
                 "mov.b64 db, {t, %67};\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
                 "da, db, p, 1, 1, 0, 1;\n"
                 "}"
                 : SM90_OPERANDS_32(d, 0), SM90_OPERANDS_32(d, 32)
                 : "r"(a), "r"(b), "r"(accumulate), "r"(SM90_DESCRIPTOR_HIGH), "n"(a_bytes / 16),
                   "n"(b_bytes / 16));
}

#endif
