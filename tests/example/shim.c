/* SPDX-License-Identifier: Apache-2.0
 *
 * shim.c: preloaded into a host, counts what a decode step must not do: take or return memory, start threads.
 *
 * It counts calls that reach the C library from any object in the process, libmlarena.so among them, and
 * passes each on. It knows nothing of mlarena. */
#define _GNU_SOURCE /* RTLD_NEXT, syscall */

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_ulong calls;

unsigned long shim_calls(void);
unsigned long shim_calls(void) {
    return atomic_load(&calls);
}

/* glibc's own names for what is replaced here: dlsym itself may allocate, so it cannot be asked. */
extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t count, size_t bytes);
extern void *__libc_realloc(void *block, size_t bytes);
extern void *__libc_memalign(size_t align, size_t bytes);
extern void __libc_free(void *block);

void *malloc(size_t bytes) {
    atomic_fetch_add(&calls, 1);
    return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes) {
    atomic_fetch_add(&calls, 1);
    return __libc_calloc(count, bytes);
}

void *realloc(void *block, size_t bytes) {
    atomic_fetch_add(&calls, 1);
    return __libc_realloc(block, bytes);
}

void free(void *block) {
    atomic_fetch_add(&calls, 1);
    __libc_free(block);
}

void *aligned_alloc(size_t align, size_t bytes) {
    atomic_fetch_add(&calls, 1);
    return __libc_memalign(align, bytes);
}

int posix_memalign(void **block, size_t align, size_t bytes) {
    atomic_fetch_add(&calls, 1);
    *block = __libc_memalign(align, bytes);
    return *block != NULL ? 0 : ENOMEM;
}

void *mmap(void *at, size_t bytes, int protection, int flags, int file, off_t offset) {
    atomic_fetch_add(&calls, 1);
    return (void *)syscall(SYS_mmap, at, bytes, protection, flags, file, offset);
}

int munmap(void *at, size_t bytes) {
    atomic_fetch_add(&calls, 1);
    return (int)syscall(SYS_munmap, at, bytes);
}

/* The C library's own malloc() moves the break without calling this, and is counted above. */
void *sbrk(intptr_t bytes) {
    union {
        void *object;
        void *(*function)(intptr_t);
    } next = {.object = dlsym(RTLD_NEXT, "sbrk")};
    atomic_fetch_add(&calls, 1);
    return next.function(bytes);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                   void *argument) {
    union {
        void *object;
        int (*function)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    } next = {.object = dlsym(RTLD_NEXT, "pthread_create")};
    atomic_fetch_add(&calls, 1);
    return next.function(thread, attributes, start, argument);
}
