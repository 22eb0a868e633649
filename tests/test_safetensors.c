/* SPDX-License-Identifier: Apache-2.0
 *
 * test_safetensors.c: the file format by itself. Most files are made in memory from a header text, so that
 * each malformed one stands in a table beside what its error must say. It knows nothing of decode steps. */
#define _POSIX_C_SOURCE 200809L

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tools/stepfile/safetensors.h"

static char directory[] = "/tmp/test_safetensors.XXXXXX";

static const char *in_directory(const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static int make_directory(void **state) {
    (void)state;
    alarm(60); /* a reader that waits for a FIFO must not hang the suite */
    return mkdtemp(directory) == NULL;
}

static int remove_directory(void **state) {
    (void)state;
    return rmdir(directory); /* fails if a test or the writer left a file behind */
}

/* A file in a block of exactly its size, so that ASan sees a read past its end. */
typedef struct blob {
    uint8_t *bytes;
    size_t count;
} blob;

static blob make_blob(uint64_t stated_header_bytes, const char *header, size_t header_bytes,
                      size_t data_bytes) {
    blob made = {.count = 8 + header_bytes + data_bytes};
    made.bytes = calloc(1, made.count);
    assert_non_null(made.bytes);
    memcpy(made.bytes, &stated_header_bytes, 8);
    memcpy(made.bytes + 8, header, header_bytes);
    return made;
}

static void expect_failure(blob file, const char *needle) {
    safetensors_file *opened;
    step_error error;
    assert_false(safetensors_open_memory(file.bytes, file.count, "FILE", &opened, &error));
    assert_null(opened);
    assert_null(strpbrk(error.text, "\n\r\033"));
    if (strncmp(error.text, "FILE: ", 6) != 0 || !strstr(error.text, needle))
        fail_msg("error is '%s', it should mention '%s'", error.text, needle);
    assert_false(safetensors_open_memory(file.bytes, file.count, "FILE", &opened, NULL));
}

/* -- Malformed headers. --------------------------------------------------------------------------------- */

#define DATA_BYTES 64

static const struct {
    const char *header, *error;
} malformed[] = {
    {"{", "header is not valid"},
    {"[]", "does not start with '{'"},
    {" {}", "does not start with '{'"},
    {"{}x", "header is not valid"},
    {"{\"q\":1}", "tensor 'q': its header entry is not an object"},
    {"{\"q\":{}}", "tensor 'q': dtype is missing"},
    {"{\"q\":{\"dtype\":3,\"shape\":[1],\"data_offsets\":[0,1]}}",
     "tensor 'q': dtype is missing or not a string"},
    {"{\"q\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", "tensor 'q': shape is missing"},
    {"{\"q\":{\"dtype\":\"U8\",\"shape\":4,\"data_offsets\":[0,4]}}", "tensor 'q': shape is missing or not"},
    {"{\"q\":{\"dtype\":\"U8\",\"shape\":[1]}}", "tensor 'q': data_offsets is missing"},
    {"{\"q\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}",
     "tensor 'q': data_offsets is missing or not"},
    {"{\"q\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,2]}}", "not a pair"},
    {"{\"q\":{\"dtype\":\"U8\",\"shape\":[1.0],\"data_offsets\":[0,1]}}",
     "shape holds something that is not"},
    {"{\"q\":{\"dtype\":\"U8\",\"shape\":[\"1\"],\"data_offsets\":[0,1]}}",
     "shape holds something that is not"},
    {"{\"q\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,null]}}", "data_offsets holds something"},
    {"{\"q\":{\"dtype\":\"U8\",\"shape\":[-1],\"data_offsets\":[0,1]}}",
     "shape holds the negative number -1"},
    {"{\"q\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[-1,0]}}",
     "data_offsets holds the negative number"},
    {"{\"q\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[8,4]}}", "end at 4, before their begin 8"},
    {"{\"q\":{\"dtype\":\"U8\",\"shape\":[65],\"data_offsets\":[0,65]}}", "the file holds 64 bytes of data"},
    {"{\"q\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[65,65]}}", "the file holds 64 bytes of data"},
    {"{\"q\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,9223372036854775807]}}",
     "the file holds 64 bytes"},
    {"{\"q\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,9223372036854775808]}}", "too big integer"},
    {"{\"q\":{\"dtype\":\"U8\",\"shape\":[99999999999999999999999],\"data_offsets\":[0,1]}}",
     "too big integer"},
    {"{\"q\":{\"dtype\":\"U8\",\"shape\":[1e999],\"data_offsets\":[0,1]}}", "header is not valid"},
    {"{\"q\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,4]}}", "needs 3 bytes, data_offsets give 4"},
    {"{\"q\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[0,4]}}",
     "needs 8 bytes, data_offsets give 4"},
    {"{\"q\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":[0,4]}}", "needs 8 bytes, data_offsets give 4"},
    {"{\"q\":{\"dtype\":\"U8\",\"shape\":[1099511627776,1099511627776],\"data_offsets\":[0,0]}}",
     "overflows 64 bits"},
    {"{\"q\":{\"dtype\":\"F64\",\"shape\":[2305843009213693952],\"data_offsets\":[0,0]}}",
     "overflows 64 bits"},
    {"{\"q\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
     "\"k\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[3,7]}}",
     "tensor 'k' overlaps tensor 'q'"},
    {"{\"q\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]},"
     "\"k\":{\"dtype\":\"U8\",\"shape\":[16],\"data_offsets\":[0,16]}}",
     "tensor 'q' overlaps tensor 'k'"},
    {"{\"q\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
     "\"k\":{\"dtype\":\"FUTURE\",\"shape\":[9],\"data_offsets\":[3,7]}}",
     "tensor 'k' overlaps tensor 'q'"},
    {"{\"q\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
     "\"q\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
     "duplicate object key near '\"q\"'"},
    {"{\"q\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
     "\"\\u0071\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
     "duplicate object key"},
    {"{\"q\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
     "duplicate object key"},
    {"{\"__metadata__\":{\"scale\":\"1\",\"scale\":\"2\"}}", "duplicate object key near '\"scale\"'"},
    {"{\"__metadata__\":{\"scale\":{\"nested\":\"1\"}}}", "__metadata__ 'scale' is not a string"},
    {"{\"__metadata__\":{\"scale\":1}}", "__metadata__ 'scale' is not a string"},
    {"{\"__metadata__\":[\"scale\"]}", "__metadata__ is not an object"},
    {"{\"__metadata__\":null}", "__metadata__ is not an object"},
    {"{\"q\xff\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", "header is not valid"},
    {"{\"q\\u0000z\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", "header is not valid"},
    {"{\"\\u001b[2J\\n\\u009b\\u00e9\":{}}", "tensor '?[2J???\xc3\xa9'"},
};

static void malformed_headers_are_refused(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++) {
        size_t header_bytes = strlen(malformed[i].header);
        blob file = make_blob(header_bytes, malformed[i].header, header_bytes, DATA_BYTES);
        expect_failure(file, malformed[i].error);
        free(file.bytes);
    }
}

static const char good[] =
    "{\"__metadata__\":{\"a\":\"1\"},"
    "\"wide\":{\"dtype\":\"F64\",\"shape\":[2],\"data_offsets\":[1,17]},"
    "\"none\":{\"dtype\":\"I64\",\"shape\":[0,1099511627776],\"data_offsets\":[9,9]},"
    "\"odd\":{\"dtype\":\"BF16\",\"shape\":[1,2,1,1,1,1,1,1,1,1],\"data_offsets\":[21,25]},"
    "\"new\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[19,21],\"more\":[]}}    ";

static void the_stated_header_length_may_lie(void **state) {
    (void)state;
    static const struct {
        uint64_t stated;
        const char *error;
    } lies[] = {
        {0, "the header is empty"},
        {1, "header is not valid"},
        {sizeof good - 40, "header is not valid"},
        {sizeof good + DATA_BYTES, "truncated: header of"},
        {100000000, "truncated: header of 100000000 bytes"},
        {100000001, "the limit is 100000000"},
        {INT64_MAX, "the limit is 100000000"},
        {UINT64_MAX - 7, "the limit is 100000000"}, /* 8 + this is 0 */
        {UINT64_MAX, "the limit is 100000000"},
    };
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        blob file = make_blob(lies[i].stated, good, sizeof good - 1, DATA_BYTES);
        expect_failure(file, lies[i].error);
        free(file.bytes);
    }
}

static void every_truncation_is_refused(void **state) {
    (void)state;
    blob whole = make_blob(sizeof good - 1, good, sizeof good - 1, 25);
    for (size_t count = 0; count < whole.count; count++) {
        blob part = {malloc(count + (count == 0)), count};
        memcpy(part.bytes, whole.bytes, count);
        expect_failure(part, "");
        free(part.bytes);
    }
    free(whole.bytes);
    blob nothing = {NULL, 0};
    expect_failure(nothing, "truncated: 0 bytes");
}

static void absurd_nesting_is_refused(void **state) {
    (void)state;
    size_t depth = 1000000;
    char *header = malloc(depth);
    memset(header, '[', depth);
    memcpy(header, "{\"q\":", 5);
    blob file = make_blob(depth, header, depth, 0);
    expect_failure(file, "header is not valid");
    free(file.bytes);
    free(header);
}

/* -- Well-formed files. --------------------------------------------------------------------------------- */

static void a_file_is_read_as_it_stands(void **state) {
    (void)state;
    blob file = make_blob(sizeof good - 1, good, sizeof good - 1, DATA_BYTES);
    uint8_t *data = file.bytes + file.count - DATA_BYTES;
    for (int i = 0; i < DATA_BYTES; i++) data[i] = (uint8_t)i;

    safetensors_file *opened;
    step_error error;
    assert_true(safetensors_open_memory(file.bytes, file.count, "FILE", &opened, &error));
    assert_string_equal(error.text, "");
    assert_string_equal(safetensors_name(opened), "FILE");
    assert_string_equal(safetensors_metadata(opened, "a"), "1");
    assert_null(safetensors_metadata(opened, "b"));
    assert_null(safetensors_find(opened, "__metadata__"));
    assert_int_equal(safetensors_tensor_count(opened), 4);
    static const char *const order[] = {"wide", "none", "new",
                                        "odd"}; /* by place, holes and a tail between */
    for (size_t i = 0; i < 4; i++) assert_string_equal(safetensors_tensor_at(opened, i)->name, order[i]);

    const safetensors_tensor *odd = safetensors_find(opened, "odd");
    assert_int_equal(odd->dtype, SAFETENSORS_BF16);
    assert_int_equal(odd->rank, 10);
    assert_int_equal(odd->shape[1], 2);
    uint8_t read[4];
    assert_true(safetensors_read(opened, odd, read, &error));
    assert_memory_equal(read, data + 21, 4);

    const safetensors_tensor *unknown = safetensors_find(opened, "new");
    assert_int_equal(unknown->dtype, SAFETENSORS_UNKNOWN);
    assert_string_equal(unknown->dtype_name, "F4");
    assert_int_equal(unknown->bytes, 2);
    assert_int_equal(safetensors_find(opened, "none")->bytes, 0);
    assert_true(safetensors_read(opened, safetensors_find(opened, "none"), NULL, &error));
    safetensors_close(opened);
    free(file.bytes);
    safetensors_close(NULL);
}

/* -- Files that are no files. --------------------------------------------------------------------------- */

static void expect_open_failure(const char *path, const char *needle) {
    safetensors_file *opened;
    step_error error;
    int lowest_free = dup(0);
    close(lowest_free);
    assert_false(safetensors_open(path, &opened, &error));
    if (strncmp(error.text, path, strlen(path)) != 0 || !strstr(error.text, needle))
        fail_msg("error is '%s', it should mention '%s'", error.text, needle);
    int still_free = dup(0);
    close(still_free);
    assert_int_equal(lowest_free, still_free); /* no descriptor is left open */
}

static void only_regular_files_are_opened(void **state) {
    (void)state;
    expect_open_failure(in_directory("absent"), "cannot open: No such file");
    expect_open_failure(directory, "is a directory, not a regular file");
    expect_open_failure("/dev/null", "is a device or socket, not a regular file");

    const char *path = in_directory("fifo");
    assert_int_equal(mkfifo(path, 0600), 0);
    expect_open_failure(path, "is a FIFO, not a regular file");
    unlink(path);

    path = in_directory("empty");
    close(open(path, O_WRONLY | O_CREAT, 0600));
    expect_open_failure(path, "truncated: 0 bytes");
    unlink(path);
}

static void a_file_that_shrinks_is_noticed(void **state) {
    (void)state;
    const char *path = in_directory("shrinks");
    static const uint8_t data[4096];
    const safetensors_entry entry = {"q", SAFETENSORS_U8, 1, {sizeof data}, data};
    safetensors_file *opened;
    step_error error;
    assert_true(safetensors_write(path, &entry, 1, NULL, 0, &error));
    assert_true(safetensors_open(path, &opened, &error));
    assert_int_equal(truncate(path, 2000), 0);
    uint8_t *read = malloc(sizeof data);
    assert_false(safetensors_read(opened, safetensors_find(opened, "q"), read, &error));
    assert_non_null(strstr(error.text, "shrank"));
    free(read);
    safetensors_close(opened);
    unlink(path);
}

/* -- Writing. ------------------------------------------------------------------------------------------- */

static const uint8_t bytes[5] = {1, 2, 3, 4, 5};
static const double doubles[2] = {1.5, -2.5};
static const uint16_t halves[3] = {7, 8, 9};
static const safetensors_entry entries[] = {
    {"bytes", SAFETENSORS_U8, 2, {1, 5}, bytes},
    {"doubles \"\xc3\xa9\"", SAFETENSORS_F64, 1, {2}, doubles},
    {"halves", SAFETENSORS_BF16, 3, {1, 3, 1}, halves},
    {"nothing", SAFETENSORS_F32, 2, {0, 4}, NULL},
    {"scalar", SAFETENSORS_F64, 0, {0}, doubles},
};
#define ENTRY_COUNT (sizeof entries / sizeof entries[0])

static void expect_read_back(const char *note) {
    const char *path = in_directory("written");
    const safetensors_pair pairs[] = {{"scale", "0.5"}, {"note", note}};
    safetensors_file *opened;
    step_error error;
    assert_true(safetensors_write(path, entries, ENTRY_COUNT, pairs, 2, &error));
    assert_true(safetensors_open(path, &opened, &error));
    assert_int_equal(safetensors_tensor_count(opened), ENTRY_COUNT);
    for (size_t i = 0; i < 2; i++)
        assert_string_equal(safetensors_metadata(opened, pairs[i].key), pairs[i].value);
    for (size_t i = 0; i < ENTRY_COUNT; i++) {
        const safetensors_tensor *tensor = safetensors_find(opened, entries[i].name);
        uint64_t size, element;
        assert_non_null(tensor);
        assert_int_equal(tensor->dtype, entries[i].dtype);
        assert_int_equal(tensor->rank, entries[i].rank);
        assert_memory_equal(tensor->shape, entries[i].shape, tensor->rank * sizeof tensor->shape[0]);
        assert_true(safetensors_shape_bytes(tensor->dtype, tensor->rank, tensor->shape, &size));
        assert_true(safetensors_shape_bytes(tensor->dtype, 0, NULL, &element));
        assert_int_equal(tensor->bytes, size);
        assert_int_equal(tensor->offset_bytes % element, 0);
        uint8_t read[16];
        assert_true(safetensors_read(opened, tensor, read, &error));
        if (size > 0) assert_memory_equal(read, entries[i].data, size);
    }
    safetensors_close(opened);
}

/* Headers of every length modulo 8; each file replaces the one before. */
static void what_is_written_is_read_back(void **state) {
    (void)state;
    const char *note = "\t\"a\"\\ \xc3\xa9 1234567";
    for (size_t skipped = 0; note[skipped]; skipped++)
        if (note[skipped] != '\xa9') expect_read_back(note + skipped);
    unlink(in_directory("written"));
}

static void what_cannot_be_written_is_refused(void **state) {
    (void)state;
    const char *path = in_directory("refused");
    step_error error;
    const safetensors_entry twice[] = {entries[0], entries[0]};
    const safetensors_entry unknown = {"q", SAFETENSORS_UNKNOWN, 1, {5}, bytes};
    const safetensors_entry huge = {"q", SAFETENSORS_F64, 2, {UINT64_C(1) << 40, UINT64_C(1) << 40}, bytes};
    const safetensors_entry not_utf8 = {"q\xff", SAFETENSORS_U8, 1, {5}, bytes};
    const safetensors_pair bad_pair = {"scale", "\xff"};
    assert_false(safetensors_write(path, twice, 2, NULL, 0, &error));
    assert_non_null(strstr(error.text, "tensor 'bytes' is given twice"));
    assert_false(safetensors_write(path, &unknown, 1, NULL, 0, &error));
    assert_false(safetensors_write(path, &huge, 1, NULL, 0, &error));
    assert_non_null(strstr(error.text, "cannot be written"));
    assert_false(safetensors_write(path, &not_utf8, 1, NULL, 0, &error));
    assert_false(safetensors_write(path, entries, 1, &bad_pair, 1, &error));
    assert_non_null(strstr(error.text, "metadata 'scale' is not UTF-8"));
    assert_int_equal(access(path, F_OK), -1);

    assert_false(safetensors_write(directory, entries, 1, NULL, 0, &error));
    assert_non_null(strstr(error.text, "is not a regular file"));
    assert_false(safetensors_write("/dev/null", entries, 1, NULL, 0, &error));
    assert_false(safetensors_write(in_directory("no/such/place"), entries, 1, NULL, 0, &error));
    assert_non_null(strstr(error.text, "cannot write: No such file"));
}

static int count_files(void) {
    DIR *opened = opendir(directory);
    int count = 0;
    assert_non_null(opened);
    for (const struct dirent *entry; (entry = readdir(opened)) != NULL;) count += entry->d_name[0] != '.';
    closedir(opened);
    return count;
}

/* A limit on file size plays the full disk: the old file stays, and nothing else. */
static void a_failed_write_leaves_the_old_file(void **state) {
    (void)state;
    const char *path = in_directory("old");
    step_error error;
    assert_true(safetensors_write(path, entries, 1, NULL, 0, &error));
    static const uint8_t large[65536];
    const safetensors_entry entry = {"large", SAFETENSORS_U8, 1, {sizeof large}, large};
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 4096;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    bool wrote = safetensors_write(path, &entry, 1, NULL, 0, &error);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_false(wrote);
    assert_non_null(strstr(error.text, "cannot write: File too large"));

    assert_int_equal(count_files(), 1);

    safetensors_file *opened;
    assert_true(safetensors_open(path, &opened, &error));
    assert_non_null(safetensors_find(opened, "bytes"));
    safetensors_close(opened);
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_headers_are_refused),
        cmocka_unit_test(the_stated_header_length_may_lie),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(absurd_nesting_is_refused),
        cmocka_unit_test(a_file_is_read_as_it_stands),
        cmocka_unit_test(only_regular_files_are_opened),
        cmocka_unit_test(a_file_that_shrinks_is_noticed),
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(what_cannot_be_written_is_refused),
        cmocka_unit_test(a_failed_write_leaves_the_old_file),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
