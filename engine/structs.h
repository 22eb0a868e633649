/* SPDX-License-Identifier: Apache-2.0
 *
 * structs.h: the struct_size rule of the public API, once.
 *
 * A caller compiled against another version may pass a shorter or longer struct. Shorter than the first
 * released version is refused; longer is accepted only if everything past what this library knows is zero. */
#ifndef MLAR_ENGINE_STRUCTS_H
#define MLAR_ENGINE_STRUCTS_H

#include "arena/fail.h"

#include <mlarena/status.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* `given` begins with its uint32 struct_size. least: size in the first release; known: size now. */
static inline mlar_status mlar_struct_check(const void *given, size_t least, size_t known) {
    uint32_t size;
    memcpy(&size, given, sizeof size);
    if (size < least || size > known + MLAR_STRUCT_GROWTH_MAX) return MLAR_ERROR_STRUCT_SIZE;
    const unsigned char *bytes = given;
    for (size_t i = known; i < size; i++)
        if (bytes[i] != 0) return MLAR_ERROR_STRUCT_SIZE;
    return MLAR_OK;
}

/* Copies what is known into *own, whose struct_size becomes `known`; fields a shorter struct lacks are zero.
 */
static inline mlar_status mlar_struct_read(void *own, const void *given, size_t least, size_t known) {
    mlar_status status = mlar_struct_check(given, least, known);
    if (status != MLAR_OK) return status;
    uint32_t size, own_size = (uint32_t)known;
    memcpy(&size, given, sizeof size);
    memset(own, 0, known);
    memcpy(own, given, size < known ? size : known);
    memcpy(own, &own_size, sizeof own_size);
    return MLAR_OK;
}

/* Copies *own out over a struct the caller sized; its struct_size stays, its unknown tail is left alone. */
static inline mlar_status mlar_struct_write(void *given, const void *own, size_t least, size_t known) {
    uint32_t size;
    memcpy(&size, given, sizeof size);
    if (size < least) return MLAR_ERROR_STRUCT_SIZE;
    memcpy((char *)given + sizeof size, (const char *)own + sizeof size,
           (size < known ? size : known) - sizeof size);
    return MLAR_OK;
}

#define MLAR_STRUCT_READ(own, given)  mlar_struct_read((own), (given), sizeof *(own), sizeof *(own))
#define MLAR_STRUCT_WRITE(given, own) mlar_struct_write((given), (own), sizeof *(own), sizeof *(own))

#endif
