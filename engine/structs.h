/* SPDX-License-Identifier: Apache-2.0
 *
 * structs.h: the struct_size rule of the public API (mlarena.h, "Rules that hold everywhere"), once.
 *
 * In the functions `size` is the caller's, `least` the struct's size in its first release, `known` its size in this
 * version. The macros find the last two by the type of the library's own copy. */
#ifndef MLAR_ENGINE_STRUCTS_H
#define MLAR_ENGINE_STRUCTS_H

#include "arena/fail.h"

#include <mlarena/mlarena.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* By the last member of each struct in its first release. A struct that grows keeps its line. */
#define MLAR_STRUCT_LEAST(own)                                                                               \
    _Generic(*(own), mlar_config                                                                             \
             : MLAR_STRUCT_UP_TO(mlar_config, kinds), mlar_memory                                            \
             : MLAR_STRUCT_UP_TO(mlar_memory, buffers), mlar_device_options                                  \
             : MLAR_STRUCT_UP_TO(mlar_device_options, library), mlar_device_info                             \
             : MLAR_STRUCT_UP_TO(mlar_device_info, quirk), mlar_bindings                                     \
             : MLAR_STRUCT_UP_TO(mlar_bindings, list), mlar_step                                             \
             : MLAR_STRUCT_UP_TO(mlar_step, rows_device), mlar_stats                                         \
             : MLAR_STRUCT_UP_TO(mlar_stats, variant), mlar_diag                                             \
             : MLAR_STRUCT_UP_TO(mlar_diag, message))

static inline uint32_t mlar_struct_size(const void *given) {
    uint32_t size; /* every such struct begins with it */
    memcpy(&size, given, sizeof size);
    return size;
}

static inline mlar_status mlar_struct_check_size(size_t size, size_t least, size_t known) {
    return size < least || size > known + MLAR_STRUCT_GROWTH_MAX ? MLAR_ERROR_STRUCT_SIZE : MLAR_OK;
}

/* Copies what is known into *own, whose struct_size becomes `known`; fields a shorter struct lacks are zero. */
static inline mlar_status mlar_struct_read(void *own, const void *given, size_t least, size_t known) {
    const uint32_t size = mlar_struct_size(given), own_size = (uint32_t)known;
    mlar_status status = mlar_struct_check_size(size, least, known);
    if (status != MLAR_OK) return status;
    const unsigned char *bytes = given;
    for (size_t i = known; i < size; i++)
        if (bytes[i] != 0) return MLAR_ERROR_STRUCT_SIZE;
    memset(own, 0, known);
    memcpy(own, given, size < known ? size : known);
    memcpy(own, &own_size, sizeof own_size);
    return MLAR_OK;
}

/* Copies *own out over a struct the caller sized; its struct_size stays, its unknown tail is left alone. */
static inline mlar_status mlar_struct_write(void *given, const void *own, size_t least, size_t known) {
    const uint32_t size = mlar_struct_size(given);
    mlar_status status = mlar_struct_check_size(size, least, known);
    if (status != MLAR_OK) return status;
    memcpy((char *)given + sizeof size, (const char *)own + sizeof size,
           (size < known ? size : known) - sizeof size);
    return MLAR_OK;
}

/* Copies *own out over `size` bytes that hold nothing yet: an unknown tail is zeroed, struct_size becomes `size`. */
static inline mlar_status mlar_struct_start(void *given, size_t size, const void *own, size_t least,
                                            size_t known) {
    mlar_status status = mlar_struct_check_size(size, least, known);
    if (status != MLAR_OK) return status;
    const uint32_t given_size = (uint32_t)size;
    memset(given, 0, size);
    memcpy(given, own, size < known ? size : known);
    memcpy(given, &given_size, sizeof given_size);
    return MLAR_OK;
}

#define MLAR_STRUCT_READ(own, given)  mlar_struct_read((own), (given), MLAR_STRUCT_LEAST(own), sizeof *(own))
#define MLAR_STRUCT_WRITE(given, own) mlar_struct_write((given), (own), MLAR_STRUCT_LEAST(own), sizeof *(own))
#define MLAR_STRUCT_START(given, size, own)                                                                  \
    mlar_struct_start((given), (size), (own), MLAR_STRUCT_LEAST(own), sizeof *(own))

#endif
