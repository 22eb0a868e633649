/* SPDX-License-Identifier: Apache-2.0
 *
 * safetensors.c: the reader. Everything it learns from the file passes one of the checks here before it is
 * used: the source gives bounded reads, the header is parsed by jansson, and the tensor table is checked
 * entry by entry and then as a whole. */
#define _POSIX_C_SOURCE 200809L

#include "safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "safetensors data is little-endian and is read here as it stands"
#endif

#define LENGTH_BYTES 8 /* of the header length that opens a file */

struct safetensors_file {
    char *name;
    int descriptor;        /* -1: the file is in memory */
    const uint8_t *memory; /* NULL: the file is behind the descriptor */
    uint64_t file_bytes;
    json_t *header; /* owns every name and string that is handed out */
    safetensors_tensor *tensors;
    size_t tensor_count;
    uint64_t *shapes; /* every tensor's dimensions, one after the other */
};

static const struct {
    const char *name;
    uint32_t element_bits;
} dtype_table[] = {[SAFETENSORS_UNKNOWN] = {"(unknown)", 0},
#define SAFETENSORS_DTYPE_ROW(name, text, bits) [SAFETENSORS_##name] = {text, bits},
                   SAFETENSORS_DTYPES(SAFETENSORS_DTYPE_ROW)
#undef SAFETENSORS_DTYPE_ROW
};

static safetensors_dtype dtype_from_name(const char *name) {
    for (size_t i = SAFETENSORS_UNKNOWN + 1; i < sizeof dtype_table / sizeof dtype_table[0]; i++)
        if (strcmp(dtype_table[i].name, name) == 0) return (safetensors_dtype)i;
    return SAFETENSORS_UNKNOWN;
}

const char *safetensors_dtype_name(safetensors_dtype dtype) {
    return dtype_table[dtype].name;
}

bool safetensors_shape_bytes(safetensors_dtype dtype, uint32_t rank, const uint64_t *shape, uint64_t *bytes) {
    uint64_t product = dtype_table[dtype].element_bits / 8;
    for (uint32_t i = 0; i < rank; i++)
        if (__builtin_mul_overflow(product, shape[i], &product)) return false;
    *bytes = product;
    return true;
}

/* -- The source: a regular file or the caller's memory. ------------------------------------------------- */

static bool source_read(const safetensors_file *file, uint64_t offset_bytes, void *destination,
                        uint64_t bytes, step_error *error) {
    if (bytes == 0) return true;
    if (file->memory) {
        memcpy(destination, file->memory + offset_bytes, (size_t)bytes);
        return true;
    }
    for (uint64_t done = 0; done < bytes;) {
        ssize_t got = pread(file->descriptor, (uint8_t *)destination + done, (size_t)(bytes - done),
                            (off_t)(offset_bytes + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return step_error_set(error, "%s: cannot read: %s", file->name, strerror(errno));
        if (got == 0) return step_error_set(error, "%s: the file shrank while it was read", file->name);
        done += (uint64_t)got;
    }
    return true;
}

/* O_NONBLOCK keeps open() from waiting for the other end of a FIFO; it changes nothing for a regular file. */
static bool open_regular_file(safetensors_file *file, const char *path, step_error *error) {
    file->descriptor = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (file->descriptor < 0) return step_error_set(error, "%s: cannot open: %s", path, strerror(errno));
    struct stat status;
    if (fstat(file->descriptor, &status) != 0)
        return step_error_set(error, "%s: cannot stat: %s", path, strerror(errno));
    if (!S_ISREG(status.st_mode))
        return step_error_set(error, "%s: is %s, not a regular file", path,
                              S_ISDIR(status.st_mode)    ? "a directory"
                              : S_ISFIFO(status.st_mode) ? "a FIFO"
                                                         : "a device or socket");
    file->file_bytes = (uint64_t)status.st_size;
    return true;
}

/* -- The header. ---------------------------------------------------------------------------------------- */

static bool load_header(safetensors_file *file, uint64_t *data_offset_bytes, step_error *error) {
    const char *name = file->name;
    if (file->file_bytes < LENGTH_BYTES)
        return step_error_set(error, "%s: truncated: %" PRIu64 " bytes, a header length takes %d", name,
                              file->file_bytes, LENGTH_BYTES);
    uint64_t header_bytes;
    if (!source_read(file, 0, &header_bytes, LENGTH_BYTES, error)) return false;
    if (header_bytes > SAFETENSORS_MAX_HEADER_BYTES)
        return step_error_set(error, "%s: header of %" PRIu64 " bytes, the limit is %u", name, header_bytes,
                              SAFETENSORS_MAX_HEADER_BYTES);
    if (header_bytes > file->file_bytes - LENGTH_BYTES)
        return step_error_set(error, "%s: truncated: header of %" PRIu64 " bytes in a file of %" PRIu64, name,
                              header_bytes, file->file_bytes);
    if (header_bytes == 0) return step_error_set(error, "%s: the header is empty", name);

    char *text = malloc((size_t)header_bytes);
    if (!text)
        return step_error_set(error, "%s: no memory for a header of %" PRIu64 " bytes", name, header_bytes);
    bool read = source_read(file, LENGTH_BYTES, text, header_bytes, error);
    if (read && text[0] != '{') read = step_error_set(error, "%s: the header does not start with '{'", name);
    if (read) {
        json_error_t reason;
        file->header = json_loadb(text, (size_t)header_bytes, JSON_REJECT_DUPLICATES, &reason);
        if (!file->header) /* for a duplicate key the reason quotes the key */
            step_error_set(error, "%s: header is not valid: %s (byte %d of it)", name, reason.text,
                           reason.position);
    }
    free(text);
    *data_offset_bytes = LENGTH_BYTES + header_bytes;
    return file->header != NULL;
}

static bool check_metadata(const safetensors_file *file, step_error *error) {
    json_t *metadata = json_object_get(file->header, "__metadata__");
    if (metadata && !json_is_object(metadata))
        return step_error_set(error, "%s: __metadata__ is not an object", file->name);
    const char *key;
    json_t *value;
    json_object_foreach(metadata, key, value) {
        if (!json_is_string(value))
            return step_error_set(error, "%s: __metadata__ '%.80s' is not a string", file->name, key);
    }
    return true;
}

/* -- The tensor table. ---------------------------------------------------------------------------------- */

/* "FILE: tensor 'NAME': " and what is wrong with one number of an array. */
static bool read_size(const safetensors_file *file, const char *tensor, const char *field, json_t *number,
                      uint64_t *size, step_error *error) {
    if (!json_is_integer(number))
        return step_error_set(error, "%s: tensor '%.80s': %s holds something that is not an integer",
                              file->name, tensor, field);
    json_int_t value = json_integer_value(number);
    if (value < 0)
        return step_error_set(error, "%s: tensor '%.80s': %s holds the negative number %" JSON_INTEGER_FORMAT,
                              file->name, tensor, field, value);
    *size = (uint64_t)value;
    return true;
}

/* Checks one entry by itself; `shape` has room for all its dimensions. */
static bool read_tensor(const safetensors_file *file, const char *name, json_t *entry,
                        uint64_t data_offset_bytes, uint64_t *shape, safetensors_tensor *tensor,
                        step_error *error) {
    const char *path = file->name;
    json_t *dtype = json_object_get(entry, "dtype");
    json_t *dimensions = json_object_get(entry, "shape");
    json_t *offsets = json_object_get(entry, "data_offsets");
    if (!json_is_string(dtype))
        return step_error_set(error, "%s: tensor '%.80s': dtype is missing or not a string", path, name);
    if (!json_is_array(dimensions))
        return step_error_set(error, "%s: tensor '%.80s': shape is missing or not an array", path, name);
    if (!json_is_array(offsets) || json_array_size(offsets) != 2)
        return step_error_set(error, "%s: tensor '%.80s': data_offsets is missing or not a pair", path, name);

    uint64_t begin = 0, end = 0;
    if (!read_size(file, name, "data_offsets", json_array_get(offsets, 0), &begin, error)) return false;
    if (!read_size(file, name, "data_offsets", json_array_get(offsets, 1), &end, error)) return false;
    uint64_t data_bytes = file->file_bytes - data_offset_bytes;
    if (begin > end)
        return step_error_set(
            error, "%s: tensor '%.80s': data_offsets end at %" PRIu64 ", before their begin %" PRIu64, path,
            name, end, begin);
    if (end > data_bytes)
        return step_error_set(error,
                              "%s: tensor '%.80s': data_offsets end at %" PRIu64 ", the file holds %" PRIu64
                              " bytes of data (truncated?)",
                              path, name, end, data_bytes);

    size_t i;
    json_t *dimension;
    json_array_foreach(dimensions, i, dimension) {
        if (!read_size(file, name, "shape", dimension, &shape[i], error)) return false;
    }
    *tensor = (safetensors_tensor){
        .name = name,
        .dtype_name = json_string_value(dtype),
        .dtype = dtype_from_name(json_string_value(dtype)),
        .rank = (uint32_t)json_array_size(dimensions),
        .shape = shape,
        .offset_bytes = data_offset_bytes + begin,
        .bytes = end - begin,
    };
    uint64_t shape_bytes;
    if (tensor->dtype == SAFETENSORS_UNKNOWN) return true;
    if (!safetensors_shape_bytes(tensor->dtype, tensor->rank, shape, &shape_bytes))
        return step_error_set(error, "%s: tensor '%.80s': the size of its shape overflows 64 bits", path,
                              name);
    if (shape_bytes != tensor->bytes)
        return step_error_set(
            error, "%s: tensor '%.80s': its shape needs %" PRIu64 " bytes, data_offsets give %" PRIu64, path,
            name, shape_bytes, tensor->bytes);
    return true;
}

static int order_in_file(const void *left, const void *right) {
    const safetensors_tensor *a = left, *b = right;
    if (a->offset_bytes != b->offset_bytes) return a->offset_bytes < b->offset_bytes ? -1 : 1;
    return strcmp(a->name, b->name);
}

/* Sorts the table by place. Empty tensors claim no byte, so they overlap nothing. */
static bool check_overlap(safetensors_file *file, step_error *error) {
    qsort(file->tensors, file->tensor_count, sizeof file->tensors[0], order_in_file);
    const safetensors_tensor *before = NULL;
    for (size_t i = 0; i < file->tensor_count; i++) {
        const safetensors_tensor *tensor = &file->tensors[i];
        if (tensor->bytes == 0) continue;
        if (before && tensor->offset_bytes < before->offset_bytes + before->bytes)
            return step_error_set(error, "%s: tensor '%.80s' overlaps tensor '%.80s'", file->name,
                                  tensor->name, before->name);
        before = tensor;
    }
    return true;
}

static bool read_tensors(safetensors_file *file, uint64_t data_offset_bytes, step_error *error) {
    const char *name;
    json_t *entry;
    size_t tensor_count = 0, dimension_count = 0;
    json_object_foreach(file->header, name, entry) {
        if (strcmp(name, "__metadata__") == 0) continue;
        if (!json_is_object(entry))
            return step_error_set(error, "%s: tensor '%.80s': its header entry is not an object", file->name,
                                  name);
        tensor_count++;
        dimension_count += json_array_size(json_object_get(entry, "shape"));
    }
    file->tensors = calloc(tensor_count + 1, sizeof file->tensors[0]);
    file->shapes = calloc(dimension_count + 1, sizeof file->shapes[0]);
    if (!file->tensors || !file->shapes)
        return step_error_set(error, "%s: no memory for %zu tensors", file->name, tensor_count);

    uint64_t *shape = file->shapes;
    json_object_foreach(file->header, name, entry) {
        if (strcmp(name, "__metadata__") == 0) continue;
        safetensors_tensor *tensor = &file->tensors[file->tensor_count++];
        if (!read_tensor(file, name, entry, data_offset_bytes, shape, tensor, error)) return false;
        shape += tensor->rank;
    }
    return check_overlap(file, error);
}

/* -- What callers see. ---------------------------------------------------------------------------------- */

/* Exactly one of `path` and `data` is the source. */
static bool open_source(const char *path, const void *data, size_t data_bytes, const char *name,
                        safetensors_file **opened, step_error *error) {
    *opened = NULL;
    if (error) error->text[0] = '\0';
    safetensors_file *file = calloc(1, sizeof *file);
    if (!file) return step_error_set(error, "%s: no memory", name);
    file->descriptor = -1;
    file->name = strdup(name);
    uint64_t data_offset_bytes;
    bool ok = file->name || step_error_set(error, "%s: no memory", name);
    if (ok && path) {
        ok = open_regular_file(file, path, error);
    } else {
        file->memory = data;
        file->file_bytes = data_bytes;
    }
    if (!ok || !load_header(file, &data_offset_bytes, error) || !check_metadata(file, error) ||
        !read_tensors(file, data_offset_bytes, error)) {
        safetensors_close(file);
        return false;
    }
    *opened = file;
    return true;
}

bool safetensors_open(const char *path, safetensors_file **file, step_error *error) {
    return open_source(path, NULL, 0, path, file, error);
}

bool safetensors_open_memory(const void *data, size_t data_bytes, const char *name, safetensors_file **file,
                             step_error *error) {
    /* A non-null address even for an empty buffer, because it is what marks a file as being in memory. */
    return open_source(NULL, data ? data : "", data ? data_bytes : 0, name, file, error);
}

void safetensors_close(safetensors_file *file) {
    if (!file) return;
    if (file->descriptor >= 0) close(file->descriptor);
    json_decref(file->header);
    free(file->tensors);
    free(file->shapes);
    free(file->name);
    free(file);
}

const char *safetensors_name(const safetensors_file *file) {
    return file->name;
}
size_t safetensors_tensor_count(const safetensors_file *file) {
    return file->tensor_count;
}

const safetensors_tensor *safetensors_tensor_at(const safetensors_file *file, size_t index) {
    return &file->tensors[index];
}

const safetensors_tensor *safetensors_find(const safetensors_file *file, const char *name) {
    for (size_t i = 0; i < file->tensor_count; i++)
        if (strcmp(file->tensors[i].name, name) == 0) return &file->tensors[i];
    return NULL;
}

const char *safetensors_metadata(const safetensors_file *file, const char *key) {
    return json_string_value(json_object_get(json_object_get(file->header, "__metadata__"), key));
}

bool safetensors_read(const safetensors_file *file, const safetensors_tensor *tensor, void *destination,
                      step_error *error) {
    return source_read(file, tensor->offset_bytes, destination, tensor->bytes, error);
}
