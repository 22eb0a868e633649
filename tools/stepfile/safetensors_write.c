/* SPDX-License-Identifier: Apache-2.0
 *
 * safetensors_write.c: the writer. A file appears whole or not at all, because it is written under another
 * name in the same directory and renamed at the end. */
#define _POSIX_C_SOURCE 200809L

#include "safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER_ALIGNMENT_BYTES  8 /* the widest element: with it, every tensor stands aligned in the file */
#define TEMPORARY_NAME_ATTEMPTS 100

/* Wider elements first; within a width the caller's order, which the address of an entry gives. */
static int wider_first(const void *left, const void *right) {
    const safetensors_entry *a = *(const safetensors_entry *const *)left;
    const safetensors_entry *b = *(const safetensors_entry *const *)right;
    uint64_t a_bytes, b_bytes; /* of one element: a shape of rank 0 */
    safetensors_shape_bytes(a->dtype, 0, NULL, &a_bytes);
    safetensors_shape_bytes(b->dtype, 0, NULL, &b_bytes);
    if (a_bytes != b_bytes) return a_bytes > b_bytes ? -1 : 1;
    return a < b ? -1 : a > b;
}

static json_t *describe_entry(const safetensors_entry *entry, uint64_t begin, uint64_t end) {
    json_t *shape = json_array();
    for (uint32_t i = 0; i < entry->rank; i++)
        json_array_append_new(shape, json_integer((json_int_t)entry->shape[i]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", safetensors_dtype_name(entry->dtype), "shape", shape,
                     "data_offsets", (json_int_t)begin, (json_int_t)end);
}

/* The JSON header of `order`, or NULL with a reason. */
static json_t *make_header(const char *path, const safetensors_entry *const *order, size_t entry_count,
                           const safetensors_pair *metadata, size_t metadata_count, step_error *error) {
    json_t *header = json_object(), *strings = json_object();
    bool ok = header && strings;
    if (!ok) step_error_set(error, "%s: no memory", path);
    for (size_t i = 0; ok && i < metadata_count; i++)
        if (json_object_set_new(strings, metadata[i].key, json_string(metadata[i].value)) != 0)
            ok = step_error_set(error, "%s: metadata '%.80s' is not UTF-8", path, metadata[i].key);
    ok = ok && json_object_set(header, "__metadata__", strings) == 0;
    json_decref(strings);

    uint64_t begin = 0;
    for (size_t i = 0; ok && i < entry_count; i++) {
        const safetensors_entry *entry = order[i];
        uint64_t bytes, end;
        if (entry->dtype == SAFETENSORS_UNKNOWN || entry->rank > SAFETENSORS_MAX_WRITE_RANK ||
            !safetensors_shape_bytes(entry->dtype, entry->rank, entry->shape, &bytes) ||
            __builtin_add_overflow(begin, bytes, &end) || end > INT64_MAX)
            ok = step_error_set(error, "%s: tensor '%.80s': its dtype or shape cannot be written", path,
                                entry->name);
        else if (json_object_get(header, entry->name))
            ok = step_error_set(error, "%s: tensor '%.80s' is given twice", path, entry->name);
        else if (json_object_set_new(header, entry->name, describe_entry(entry, begin, end)) != 0)
            ok = step_error_set(error, "%s: tensor '%.80s': its name is not UTF-8", path, entry->name);
        else
            begin = end;
    }
    if (ok) return header;
    json_decref(header);
    return NULL;
}

static bool write_all(int descriptor, const void *data, uint64_t bytes) {
    for (uint64_t done = 0; done < bytes;) {
        ssize_t put = write(descriptor, (const uint8_t *)data + done, (size_t)(bytes - done));
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return false;
        done += (uint64_t)put;
    }
    return true;
}

static bool write_contents(int descriptor, const char *header, const safetensors_entry *const *order,
                           size_t entry_count) {
    uint64_t text_bytes = strlen(header);
    uint64_t header_bytes =
        (text_bytes + HEADER_ALIGNMENT_BYTES - 1) / HEADER_ALIGNMENT_BYTES * HEADER_ALIGNMENT_BYTES;
    static const char padding[HEADER_ALIGNMENT_BYTES + 1] = "        ";
    if (!write_all(descriptor, &header_bytes, sizeof header_bytes) ||
        !write_all(descriptor, header, text_bytes) ||
        !write_all(descriptor, padding, header_bytes - text_bytes))
        return false;
    for (size_t i = 0; i < entry_count; i++) {
        uint64_t bytes;
        safetensors_shape_bytes(order[i]->dtype, order[i]->rank, order[i]->shape, &bytes);
        if (!write_all(descriptor, order[i]->data, bytes)) return false;
    }
    return fsync(descriptor) == 0;
}

/* A rename would put a file in the place of a device or a FIFO, which nobody wants of `-o /dev/null`. */
bool safetensors_can_write(const char *path, step_error *error) {
    struct stat status;
    if (stat(path, &status) == 0 && !S_ISREG(status.st_mode))
        return step_error_set(error, "%s: exists and is not a regular file", path);
    char folder[PATH_MAX];
    if (path[0] == '\0')
        errno = ENOENT;
    else if (snprintf(folder, sizeof folder, "%s", path) >= (int)sizeof folder)
        errno = ENAMETOOLONG;
    else if (access(dirname(folder), W_OK) == 0)
        return true;
    return step_error_set(error, "%s: cannot write: %s", path, strerror(errno));
}

/* Plain O_EXCL rather than mkstemp(), which would give the file mode 0600 instead of what umask says. */
static int open_temporary(const char *path, char *temporary, size_t temporary_bytes) {
    int descriptor = -1;
    for (int attempt = 0; attempt < TEMPORARY_NAME_ATTEMPTS; attempt++) {
        snprintf(temporary, temporary_bytes, "%s.%ld-%d.tmp", path, (long)getpid(), attempt);
        descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (descriptor >= 0 || errno != EEXIST) break;
    }
    return descriptor;
}

/* Makes the new name survive a power cut. The file is whole either way: a failure here is not the write's. */
static void sync_directory_of(char *path) {
    int descriptor = open(dirname(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) return;
    (void)!fsync(descriptor);
    close(descriptor);
}

static bool replace_file(const char *path, const char *header, const safetensors_entry *const *order,
                         size_t entry_count, step_error *error) {
    size_t temporary_bytes = strlen(path) + 48;
    char *temporary = malloc(temporary_bytes);
    if (!temporary) return step_error_set(error, "%s: no memory", path);
    int descriptor = open_temporary(path, temporary, temporary_bytes);
    bool ok = descriptor >= 0;
    if (ok) {
        ok = write_contents(descriptor, header, order, entry_count);
        ok = close(descriptor) == 0 && ok;
        ok = ok && rename(temporary, path) == 0;
        int reason = errno;
        if (!ok) unlink(temporary);
        errno = reason;
    }
    if (!ok) step_error_set(error, "%s: cannot write: %s", path, strerror(errno));
    if (ok) sync_directory_of(temporary);
    free(temporary);
    return ok;
}

bool safetensors_write(const char *path, const safetensors_entry *entries, size_t entry_count,
                       const safetensors_pair *metadata, size_t metadata_count, step_error *error) {
    if (error) error->text[0] = '\0';
    if (!safetensors_can_write(path, error)) return false;
    const safetensors_entry **order = calloc(entry_count + 1, sizeof *order);
    if (!order) return step_error_set(error, "%s: no memory", path);
    for (size_t i = 0; i < entry_count; i++) order[i] = &entries[i];
    qsort(order, entry_count, sizeof *order, wider_first);

    json_t *header = make_header(path, order, entry_count, metadata, metadata_count, error);
    char *text = header ? json_dumps(header, JSON_COMPACT) : NULL;
    if (header && !text) step_error_set(error, "%s: no memory", path);
    bool ok = text && replace_file(path, text, order, entry_count, error);
    free(text);
    json_decref(header);
    free(order);
    return ok;
}
