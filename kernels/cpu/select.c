/* SPDX-License-Identifier: Apache-2.0
 *
 * select.c: which variants this build has, what the processor and its operating system offer, and the pick.
 * It must not know what a variant does. */
#if defined(__x86_64__) && defined(__linux__)
#define _GNU_SOURCE /* syscall */
#endif
#include "kernels/cpu/kernels.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

enum offered {
    OFFERS_NOTHING = 0,
    OFFERS_AVX2 = 1,      /* AVX2, FMA */
    OFFERS_AVX512 = 2,    /* F, BW, DQ, VL */
    OFFERS_FAST_BF16 = 4, /* and the bf16 dot product, */
    OFFERS_SLOW_BF16 = 8, /* which is slow where there are tiles to do that work (tests/bench/README.md) */
    OFFERS_AMX = 16,      /* tiles and their bf16 product, beside all of the above */
};

#if defined(__x86_64__)

/* The register state that the operating system saves (XCR0), without which an instruction faults. */
static uint64_t saved_state(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* Linux lets a process use the tile registers only after it has asked, once for all of its threads. */
static bool tiles_permitted(void) {
#if defined(__linux__)
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
    return false;
#endif
}

static uint32_t detect(void) {
    enum {
        LEAF1_ECX = (1 << 12) | (1 << 27) | (1 << 28) | (1 << 29), /* FMA, OSXSAVE, AVX, F16C */
        LEAF7_EBX_AVX2 = 1 << 5,
        LEAF7_EDX_AMX = (1 << 22) | (1 << 24), /* AMX-BF16, AMX-TILE */
        LEAF7_1_EAX_BF16 = 1 << 5,
    };
    const uint32_t leaf7_ebx_avx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; /* F, DQ, BW, VL */
    const uint64_t state_avx = 0x6, state_avx512 = 0xe6, state_amx = 0x60000;
    uint32_t eax, ebx, ecx, edx, ignored, leaf7_1_eax = 0;
    uint64_t state;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || (ecx & LEAF1_ECX) != LEAF1_ECX) return OFFERS_NOTHING;
    state = saved_state();
    if ((state & state_avx) != state_avx || !__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) ||
        !(ebx & LEAF7_EBX_AVX2))
        return OFFERS_NOTHING;
    if ((state & state_avx512) != state_avx512 || (ebx & leaf7_ebx_avx512) != leaf7_ebx_avx512)
        return OFFERS_AVX2;
    if (eax >= 1) __get_cpuid_count(7, 1, &leaf7_1_eax, &ignored, &ignored, &ignored);
    if (!(leaf7_1_eax & LEAF7_1_EAX_BF16)) return OFFERS_AVX2 | OFFERS_AVX512;
    if ((edx & LEAF7_EDX_AMX) != LEAF7_EDX_AMX) return OFFERS_AVX2 | OFFERS_AVX512 | OFFERS_FAST_BF16;
    if ((state & state_amx) != state_amx || !tiles_permitted())
        return OFFERS_AVX2 | OFFERS_AVX512 | OFFERS_SLOW_BF16;
    return OFFERS_AVX2 | OFFERS_AVX512 | OFFERS_SLOW_BF16 | OFFERS_AMX;
}

#else

static uint32_t detect(void) {
    return OFFERS_NOTHING;
}

#endif

typedef struct variant {
    const mlar_cpu_kernels *kernels;
    uint32_t needs;
} variant;

/* Best first. */
static const variant variants[] = {
#if defined(MLAR_HAVE_AMX) && MLAR_HAVE_AMX
    {&mlar_cpu_kernels_amx, OFFERS_AMX},
#endif
#if defined(MLAR_HAVE_AVX512BF16) && MLAR_HAVE_AVX512BF16
    {&mlar_cpu_kernels_avx512bf16, OFFERS_FAST_BF16},
#endif
#if defined(MLAR_HAVE_AVX512) && MLAR_HAVE_AVX512
    {&mlar_cpu_kernels_avx512, OFFERS_AVX512},
#endif
#if defined(MLAR_HAVE_AVX512BF16) && MLAR_HAVE_AVX512BF16
    {&mlar_cpu_kernels_avx512bf16, OFFERS_SLOW_BF16},
#endif
#if defined(MLAR_HAVE_AVX2) && MLAR_HAVE_AVX2
    {&mlar_cpu_kernels_avx2, OFFERS_AVX2},
#endif
    {&mlar_cpu_kernels_scalar, OFFERS_NOTHING},
};

const mlar_cpu_kernels *mlar_cpu_select(const char *isa) {
    const bool best = !isa || !strcmp(isa, "auto");
    const uint32_t offers = detect();
    for (size_t i = 0; i < sizeof variants / sizeof *variants; ++i) {
        if ((variants[i].needs & offers) != variants[i].needs) continue;
        if (best || !strcmp(isa, variants[i].kernels->isa)) return variants[i].kernels;
    }
    return NULL;
}

const char *mlar_cpu_offered(int32_t position) {
    const uint32_t offers = detect();
    for (size_t i = 0; i < sizeof variants / sizeof *variants; ++i) {
        if ((variants[i].needs & offers) != variants[i].needs) continue;
        if (position-- == 0) return variants[i].kernels->isa;
    }
    return NULL;
}
