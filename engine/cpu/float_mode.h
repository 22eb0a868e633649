/* SPDX-License-Identifier: Apache-2.0
 *
 * float_mode.h: results do not depend on the caller's floating-point mode. Around every item the mode is the
 * default (to nearest, subnormals kept, exceptions masked), afterwards what it was. */
#ifndef MLAR_ENGINE_CPU_FLOAT_MODE_H
#define MLAR_ENGINE_CPU_FLOAT_MODE_H

#include <stdint.h>

#if defined(__x86_64__)
#include <xmmintrin.h>

typedef uint32_t mlar_float_mode;

static inline mlar_float_mode mlar_float_mode_enter(void) {
    mlar_float_mode before = _mm_getcsr();
    if ((before & 0xffc0u) != 0x1f80u) _mm_setcsr(0x1f80u); /* masks on, nearest, no FTZ, no DAZ */
    return before;
}

static inline void mlar_float_mode_leave(mlar_float_mode before) {
    if ((before & 0xffc0u) != 0x1f80u) _mm_setcsr(before);
}

#elif defined(__aarch64__)

typedef uint64_t mlar_float_mode;

static inline mlar_float_mode mlar_float_mode_enter(void) {
    uint64_t before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    if (before != 0) __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0));
    return before;
}

static inline void mlar_float_mode_leave(mlar_float_mode before) {
    if (before != 0) __asm__ volatile("msr fpcr, %0" : : "r"(before));
}

#else
#error "floating-point mode control is written for x86-64 and aarch64"
#endif
#endif
