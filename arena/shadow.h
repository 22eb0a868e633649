/* SPDX-License-Identifier: Apache-2.0
 *
 * shadow.h: what a sanitizer believes about a range of memory.
 *
 * To a sanitizer an arena is one allocation, so it sees neither an overrun from one buffer into the next nor
 * a read of a buffer whose stages are over. Told by hand, it sees both. Without a sanitizer all of this is
 * nothing. */
#ifndef MLAR_ARENA_SHADOW_H
#define MLAR_ARENA_SHADOW_H

#include <stddef.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MLAR_SHADOW_ADDRESS 1
#endif
#if __has_feature(memory_sanitizer)
#define MLAR_SHADOW_MEMORY 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define MLAR_SHADOW_ADDRESS 1
#endif

#if defined(MLAR_SHADOW_ADDRESS) || defined(MLAR_SHADOW_MEMORY)
#define MLAR_SHADOW_ACTIVE 1
#else
#define MLAR_SHADOW_ACTIVE 0
#endif

#if defined(MLAR_SHADOW_ADDRESS)
#include <sanitizer/asan_interface.h>
#endif
#if defined(MLAR_SHADOW_MEMORY)
#include <sanitizer/msan_interface.h>
/* A function that may read bytes nobody wrote: it is its purpose. */
#define MLAR_SHADOW_BLIND __attribute__((no_sanitize("memory")))
#else
#define MLAR_SHADOW_BLIND
#endif

/* The range may be touched. */
static inline void mlar_shadow_show(const void *base, size_t bytes) {
#if defined(MLAR_SHADOW_ADDRESS)
    ASAN_UNPOISON_MEMORY_REGION(base, bytes);
#else
    (void)base, (void)bytes;
#endif
}

/* The range holds nothing that may be relied on, but may be written. */
static inline void mlar_shadow_undefine(const void *base, size_t bytes) {
#if defined(MLAR_SHADOW_MEMORY)
    __msan_poison(base, bytes);
#else
    (void)base, (void)bytes;
#endif
}

/* Whatever is in the range counts as written. */
static inline void mlar_shadow_define(const void *base, size_t bytes) {
#if defined(MLAR_SHADOW_MEMORY)
    __msan_unpoison(base, bytes);
#else
    (void)base, (void)bytes;
#endif
}

/* The range may not be touched. */
static inline void mlar_shadow_hide(const void *base, size_t bytes) {
#if defined(MLAR_SHADOW_ADDRESS)
    ASAN_POISON_MEMORY_REGION(base, bytes);
#endif
    mlar_shadow_undefine(base, bytes);
}

#endif
