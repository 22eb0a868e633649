/* SPDX-License-Identifier: Apache-2.0
 *
 * safetensors.h: reads and writes safetensors files, trusting nothing that the file says about itself.
 *
 *     step_error error;
 *     safetensors_file *file;
 *     if (!safetensors_open("step.safetensors", &file, &error)) return complain(error.text);
 *     const safetensors_tensor *q = safetensors_find(file, "q");
 *     ... allocate q->bytes ... safetensors_read(file, q, destination, &error);
 *     safetensors_close(file);
 *
 * A file is: u64 little-endian header length, a JSON header, the data. Opening reads and checks the whole
 * header against the size of the file; tensor data is read later, one tensor at a time, straight into the
 * caller's memory, so nothing is ever allocated because a file claims to be large. Tensors may start at any
 * byte. Bytes that no tensor claims are ignored; bytes that two tensors claim are an error. A tensor whose
 * dtype this table does not know is listed (SAFETENSORS_UNKNOWN) and can be read as bytes.
 *
 * It must not know what a decode step is: that is stepfile.h. */
#ifndef STEPFILE_SAFETENSORS_H
#define STEPFILE_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

#define SAFETENSORS_MAX_HEADER_BYTES 100000000u /* the format's own limit */
#define SAFETENSORS_MAX_WRITE_RANK   4

/* X(name in C, name in the file, bits per element) */
#define SAFETENSORS_DTYPES(X)                                                                                \
    X(BOOL, "BOOL", 8)                                                                                       \
    X(U8, "U8", 8)                                                                                           \
    X(I8, "I8", 8)                                                                                           \
    X(F8_E4M3, "F8_E4M3", 8)                                                                                 \
    X(F8_E5M2, "F8_E5M2", 8)                                                                                 \
    X(F8_E8M0, "F8_E8M0", 8)                                                                                 \
    X(I16, "I16", 16)                                                                                        \
    X(U16, "U16", 16)                                                                                        \
    X(F16, "F16", 16)                                                                                        \
    X(BF16, "BF16", 16)                                                                                      \
    X(I32, "I32", 32)                                                                                        \
    X(U32, "U32", 32)                                                                                        \
    X(F32, "F32", 32)                                                                                        \
    X(I64, "I64", 64)                                                                                        \
    X(U64, "U64", 64)                                                                                        \
    X(F64, "F64", 64)

typedef enum safetensors_dtype {
    SAFETENSORS_UNKNOWN,
#define SAFETENSORS_DTYPE_ENUM(name, text, bits) SAFETENSORS_##name,
    SAFETENSORS_DTYPES(SAFETENSORS_DTYPE_ENUM)
#undef SAFETENSORS_DTYPE_ENUM
} safetensors_dtype;

const char *safetensors_dtype_name(safetensors_dtype dtype); /* as a file spells it */
/* The bytes of a tensor; false if they do not fit 64 bits. */
bool safetensors_shape_bytes(safetensors_dtype dtype, uint32_t rank, const uint64_t *shape, uint64_t *bytes);

typedef struct safetensors_tensor {
    const char *name;
    const char *dtype_name; /* as the file spells it */
    safetensors_dtype dtype;
    uint32_t rank;
    const uint64_t *shape; /* [rank]; its product times the element size was checked to be `bytes` */
    uint64_t offset_bytes; /* from the start of the file; any alignment */
    uint64_t bytes;
} safetensors_tensor;

typedef struct safetensors_file safetensors_file;

/* Opens a regular file (anything else is refused without blocking) and checks its header. */
bool safetensors_open(const char *path, safetensors_file **file, step_error *error);
/* The same over memory that the caller keeps alive until close; `name` stands for the path in messages. */
bool safetensors_open_memory(const void *data, size_t data_bytes, const char *name, safetensors_file **file,
                             step_error *error);
void safetensors_close(safetensors_file *file); /* NULL is fine */

const char *safetensors_name(const safetensors_file *file); /* the path, for messages */
size_t safetensors_tensor_count(const safetensors_file *file);
/* In the order of their bytes in the file; index < safetensors_tensor_count(). */
const safetensors_tensor *safetensors_tensor_at(const safetensors_file *file, size_t index);
const safetensors_tensor *safetensors_find(const safetensors_file *file, const char *name); /* or NULL */
const char *safetensors_metadata(const safetensors_file *file, const char *key);            /* or NULL */
/* Copies tensor->bytes bytes to `destination`. Fails if the file has shrunk since it was opened. */
bool safetensors_read(const safetensors_file *file, const safetensors_tensor *tensor, void *destination,
                      step_error *error);

typedef struct safetensors_entry {
    const char *name;
    safetensors_dtype dtype;
    uint32_t rank;
    uint64_t shape[SAFETENSORS_MAX_WRITE_RANK];
    const void *data;
} safetensors_entry;

typedef struct safetensors_pair {
    const char *key;
    const char *value;
} safetensors_pair;

/* Whether safetensors_write could put a file there, for callers who would rather know before there is one to write. */
bool safetensors_can_write(const char *path, step_error *error);

/* Writes a file that appears under `path` whole or not at all: a temporary file in the same directory, fsync,
 * rename. Wider elements come first and the header is padded, so every tensor is aligned to its element. An
 * existing `path` that is not a regular file (a directory, a device) is refused and left alone. */
bool safetensors_write(const char *path, const safetensors_entry *entries, size_t entry_count,
                       const safetensors_pair *metadata, size_t metadata_count, step_error *error);

#endif
