/* SPDX-License-Identifier: Apache-2.0
 *
 * require.h: what the fuzzers share: a promise that must hold in every build, and bytes handed out one by
 * one. */
#ifndef TESTS_FUZZ_REQUIRE_H
#define TESTS_FUZZ_REQUIRE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An ordinary assert() would vanish from a release build. */
#define REQUIRE(condition)                                                                                   \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: broken promise: %s\n", __FILE__, __LINE__, #condition);                  \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

/* The input, front to back; zeros once it is used up. */
typedef struct input {
    const uint8_t *next, *end;
} input;

static inline uint8_t take_byte(input *from) {
    return from->next < from->end ? *from->next++ : 0;
}

static inline uint64_t take_word(input *from, int bytes) {
    uint64_t word = 0;
    for (int i = 0; i < bytes; i++) word |= (uint64_t)take_byte(from) << (8 * i);
    return word;
}

#endif
