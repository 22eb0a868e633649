/* SPDX-License-Identifier: Apache-2.0
 *
 * attend_block.hip: the kernels of the portable attention engine, one for each largest head group, width of
 * key and source of keys. launch.c has the same table; which kernels exist on a target is said by the sizes
 * there.
 *
 * A kernel holds the engine for its head groups and for every smaller one, because under policy balanced the
 * size of a group is decided on the device. */
#include "kernels/gpu/attend_block.h"

template <int HEADS, int UNITS, bool GATHERED> struct mlar_block_kernel {
    static MLAR_MEMBER void run(const mlar_stage_args *args, void *lds, int32_t heads) {
        if (HEADS > 16 && heads <= HEADS / 2)
            mlar_block_kernel<(HEADS > 16 ? HEADS / 2 : 16), UNITS, GATHERED>::run(args, lds, heads);
        else
            mlar_block_attend<HEADS, UNITS, GATHERED>(args, lds);
    }
};

template <int HEADS, int UNITS> struct mlar_block_lds {
    enum {
        SMALLER = HEADS > 16 ? mlar_block_lds<(HEADS > 16 ? HEADS / 2 : 16), UNITS>::BYTES : 0,
        OWN = sizeof(mlar_block_shared<HEADS, UNITS>),
        BYTES = (int)OWN > (int)SMALLER ? (int)OWN : (int)SMALLER
    };
};
template <int UNITS> struct mlar_block_lds<16, UNITS> {
    enum { BYTES = sizeof(mlar_block_shared<16, UNITS>) };
};

#if defined(__HIP__)
#define LDS(heads, units) MLAR_SHARED static mlar_u32x4 lds[(mlar_block_lds<heads, units>::BYTES + 15) / 16]
#else
#define LDS(heads, units) extern MLAR_SHARED mlar_u32x4 lds[]
#endif

#define KERNEL(name, heads, units, gathered)                                                                 \
    MLAR_KERNEL MLAR_BLOCK(MLAR_BLOCK_THREADS) void name(MLAR_BY_VALUE(mlar_stage_args) by_value) {          \
        LDS(heads, units);                                                                                   \
        const mlar_stage_args *args = MLAR_ARGS(mlar_stage_args, by_value);                                  \
        mlar_block_kernel<heads, units, gathered>::run(args, lds,                                            \
                                                       mlar_uniform(mlar_heads_per_group_now(args)));        \
    }
#if defined(__HIP__)
#define LDS_IS_ENOUGH(heads, units, lds_bytes) 1
#else
#define LDS_IS_ENOUGH(heads, units, lds_bytes) ((lds_bytes) >= mlar_block_lds<heads, units>::BYTES)
#endif

#define X(name, heads, units, lds_bytes)                                                                     \
    static_assert(LDS_IS_ENOUGH(heads, units, lds_bytes), "attend_kernels.def");                             \
    KERNEL(mlar_attend_direct_##name, heads, units, false)                                                   \
    KERNEL(mlar_attend_gathered_##name, heads, units, true)
#if defined(__GFX11__)
#define LARGE(name, heads, units, lds_bytes)
#endif
#include "kernels/gpu/attend_kernels.def"
