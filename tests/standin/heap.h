/* SPDX-License-Identifier: Apache-2.0
 *
 * heap.h: counts what a test program asks of the host's heap, where no sanitizer has replaced malloc. Included by one
 * file of a program: it defines the allocation functions. */
#ifndef TESTS_STANDIN_HEAP_H
#define TESTS_STANDIN_HEAP_H

#include <stdlib.h>

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#if !defined(__has_feature)
#define __has_feature(x) 0
#endif
#if !__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer) && !__has_feature(memory_sanitizer)
#define COUNTS_HEAP 1
#endif
#endif

#ifdef COUNTS_HEAP
static unsigned long heap_calls;
extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t count, size_t bytes);
extern void *__libc_realloc(void *block, size_t bytes);
void *malloc(size_t bytes) {
    heap_calls++;
    return __libc_malloc(bytes);
}
void *calloc(size_t count, size_t bytes) {
    heap_calls++;
    return __libc_calloc(count, bytes);
}
void *realloc(void *block, size_t bytes) {
    heap_calls++;
    return __libc_realloc(block, bytes);
}
#else
static const unsigned long heap_calls = 0; /* a sanitizer has replaced malloc already */
#endif

#endif
