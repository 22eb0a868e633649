/* SPDX-License-Identifier: Apache-2.0
 *
 * checked_size.h: size arithmetic in unsigned 64 bits that cannot wrap unnoticed.
 *
 * A mlar_checked remembers the first overflow of a whole computation, so a size formula reads like the
 * formula and is tested once at its end:
 *
 *     mlar_checked check = {0};
 *     uint64_t bytes = mlar_checked_mul3(&check, rows, heads, row_bytes);
 *     bytes = mlar_checked_align_up(&check, bytes, 256);
 *     if (check.failed) return MLAR_ERROR_OVERFLOW;
 *
 * A failed operation returns UINT64_MAX, which no limit lets pass even where somebody forgets the test. */
#ifndef MLAR_ARENA_CHECKED_SIZE_H
#define MLAR_ARENA_CHECKED_SIZE_H

#include <stdbool.h>
#include <stdint.h>

/* Sizes of buffers and arenas stop at 2^63 - 1: they fit a ptrdiff_t and the int64 fields of a mlar_diag. */
#define MLAR_SIZE_LIMIT ((uint64_t)INT64_MAX)

typedef struct mlar_checked {
    bool failed; /* some operation overflowed; never cleared by a later one */
} mlar_checked;

static inline uint64_t mlar_checked_fail(mlar_checked *check) {
    check->failed = true;
    return UINT64_MAX;
}

static inline uint64_t mlar_checked_add(mlar_checked *check, uint64_t a, uint64_t b) {
    return a > UINT64_MAX - b ? mlar_checked_fail(check) : a + b;
}

static inline uint64_t mlar_checked_mul(mlar_checked *check, uint64_t a, uint64_t b) {
    return b != 0 && a > UINT64_MAX / b ? mlar_checked_fail(check) : a * b;
}

/* Multiplies left to right: a product whose last factor is 0 still fails if the first two overflow. */
static inline uint64_t mlar_checked_mul3(mlar_checked *check, uint64_t a, uint64_t b, uint64_t c) {
    return mlar_checked_mul(check, mlar_checked_mul(check, a, b), c);
}

static inline bool mlar_is_power_of_two(uint64_t value) {
    return value != 0 && (value & (value - 1)) == 0;
}

/* The smallest multiple of align that is not below value; align must be a power of two, anything
 * else fails. */
static inline uint64_t mlar_checked_align_up(mlar_checked *check, uint64_t value, uint64_t align) {
    if (!mlar_is_power_of_two(align)) return mlar_checked_fail(check);
    uint64_t mask = align - 1;
    return value > UINT64_MAX - mask ? mlar_checked_fail(check) : (value + mask) & ~mask;
}

/* For mlar_diag.given and .needed: sizes above INT64_MAX are shown as INT64_MAX. */
static inline int64_t mlar_size_for_diag(uint64_t size) {
    return size > MLAR_SIZE_LIMIT ? INT64_MAX : (int64_t)size;
}

#endif
