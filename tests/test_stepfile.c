/* SPDX-License-Identifier: Apache-2.0
 *
 * test_stepfile.c: what a step file may and may not hold. One well-formed step is described in a table; each
 * malformed one differs from it in one tensor or one string and stands beside what its error must say. */
#define _POSIX_C_SOURCE 200809L

#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tools/stepfile/safetensors.h"
#include "tools/stepfile/stepfile.h"

#define CORPUS      MLAR_TEST_DATA_DIR "/../fuzz/corpus/stepfile/"
#define ZEROS_BYTES (16u << 20)

static char directory[] = "/tmp/test_stepfile.XXXXXX";
static char path[256]; /* of the file that the test at hand writes */
static void *zeros;    /* the data of every tensor of a described step */

static int make_directory(void **state) {
    (void)state;
    zeros = calloc(1, ZEROS_BYTES);
    if (!zeros || !mkdtemp(directory)) return 1;
    snprintf(path, sizeof path, "%s/step.safetensors", directory);
    return 0;
}

static int remove_directory(void **state) {
    (void)state;
    free(zeros);
    unlink(path);
    return rmdir(directory);
}

/* -- A described step, and what differs from it. -------------------------------------------------------- */

typedef struct tensor {
    const char *name;
    safetensors_dtype dtype; /* in a change: SAFETENSORS_UNKNOWN removes the tensor */
    uint32_t rank;
    uint64_t shape[4];
} tensor;

static const tensor well_formed[] = {
    {"q", SAFETENSORS_BF16, 3, {2, 3, 72}},
    {"attn_sink", SAFETENSORS_F32, 1, {3}},
    {"swa_k_cache", SAFETENSORS_U8, 3, {2, 4, 88}},
    {"swa_indices", SAFETENSORS_I32, 2, {2, 5}},
    {"swa_lens", SAFETENSORS_I32, 1, {2}},
    {"kv_cache", SAFETENSORS_U8, 2, {3, 354}},
    {"topk_indices", SAFETENSORS_I64, 3, {2, 1, 6}},
    {"topk_lens", SAFETENSORS_I32, 1, {2}},
    {"out", SAFETENSORS_BF16, 3, {2, 3, 72}},
    {"out_f64", SAFETENSORS_F64, 3, {2, 3, 72}},
    {"lse", SAFETENSORS_F32, 2, {2, 3}},
    {"gathered_swa", SAFETENSORS_BF16, 2, {10, 72}},
    {"gathered_extra", SAFETENSORS_BF16, 2, {12, 72}},
    {"remapped_swa", SAFETENSORS_F16, 4, {1, 2, 3, 4}}, /* unknown: ignored, whatever it is */
};
#define TENSOR_COUNT (sizeof well_formed / sizeof well_formed[0])

static const safetensors_pair strings[] = {
    {"nope_head_dim", "64"}, {"rope_head_dim", "8"}, {"extra_block_size", "4"},
    {"scale", "0.25"},       {"torch", "1.13"},
};
#define STRING_COUNT (sizeof strings / sizeof strings[0])

/* Writes the described step with one tensor and one string changed (each may be NULL) or added. */
static void write_changed(const tensor *changed, const safetensors_pair *string) {
    safetensors_entry entries[TENSOR_COUNT + 1];
    safetensors_pair pairs[STRING_COUNT + 1];
    size_t entry_count = 0, pair_count = 0;
    for (size_t i = 0; i <= TENSOR_COUNT; i++) {
        bool same = changed && i < TENSOR_COUNT && strcmp(changed->name, well_formed[i].name) == 0;
        const tensor *use = i == TENSOR_COUNT || same ? changed : &well_formed[i];
        if (!use || use->dtype == SAFETENSORS_UNKNOWN) continue;
        if (same) changed = NULL;
        safetensors_entry *entry = &entries[entry_count++];
        *entry =
            (safetensors_entry){.name = use->name, .dtype = use->dtype, .rank = use->rank, .data = zeros};
        memcpy(entry->shape, use->shape, sizeof use->shape);
        uint64_t bytes;
        assert_true(safetensors_shape_bytes(entry->dtype, entry->rank, entry->shape, &bytes));
        assert_true(bytes <= ZEROS_BYTES);
    }
    for (size_t i = 0; i < STRING_COUNT; i++)
        if (!string || strcmp(string->key, strings[i].key) != 0) pairs[pair_count++] = strings[i];
    if (string && string->value) pairs[pair_count++] = *string;
    step_error error;
    if (!safetensors_write(path, entries, entry_count, pairs, pair_count, &error)) fail_msg("%s", error.text);
}

static void expect_failure(const char *needle) {
    static const stepfile zeroed;
    stepfile step;
    step_error error;
    memset(&step, 0xff, sizeof step);
    assert_false(stepfile_read(path, &step, &error));
    assert_memory_equal(&step, &zeroed, sizeof step);
    if (strncmp(error.text, path, strlen(path)) != 0 || !strstr(error.text, needle))
        fail_msg("error is '%s', it should mention '%s'", error.text, needle);
}

static void expect_success(stepfile *step) {
    step_error error;
    if (!stepfile_read(path, step, &error)) fail_msg("%s", error.text);
}

/* -- Malformed steps. ----------------------------------------------------------------------------------- */

static const struct {
    tensor changed;
    const char *error;
} bad_tensors[] = {
    {{"q", 0, 0, {0}}, "tensor 'q' is missing"},
    {{"q", SAFETENSORS_F16, 3, {2, 3, 72}}, "tensor 'q': dtype F16, needed BF16"},
    {{"q", SAFETENSORS_BF16, 2, {6, 72}},
     "tensor 'q': shape [6, 72], needed [rows 0..65536, heads 1..128, 72]"},
    {{"q", SAFETENSORS_BF16, 3, {2, 3, 73}}, "tensor 'q': shape [2, 3, 73]"},
    {{"q", SAFETENSORS_BF16, 3, {2, 0, 72}}, "heads 1..128"},
    {{"q", SAFETENSORS_BF16, 3, {2, 129, 72}}, "heads 1..128"},
    {{"q", SAFETENSORS_BF16, 3, {65537, 1, 72}}, "rows 0..65536"},
    {{"q", SAFETENSORS_BF16, 3, {UINT64_C(1) << 40, 0, 72}}, "rows 0..65536"},
    {{"attn_sink", SAFETENSORS_F32, 1, {4}}, "tensor 'attn_sink': shape [4], needed [3]"},
    {{"attn_sink", SAFETENSORS_BF16, 1, {3}}, "tensor 'attn_sink': dtype BF16, needed F32"},
    {{"swa_k_cache", 0, 0, {0}}, "tensor 'swa_k_cache' is missing"},
    {{"swa_k_cache", SAFETENSORS_I8, 3, {2, 4, 88}}, "tensor 'swa_k_cache': dtype I8, needed U8"},
    {{"swa_k_cache", SAFETENSORS_U8, 1, {704}}, "needed [blocks, block_size, bytes_per_token]"},
    {{"swa_k_cache", SAFETENSORS_U8, 4, {2, 4, 1, 88}}, "needed [blocks, block_size, bytes_per_token]"},
    {{"swa_k_cache", SAFETENSORS_U8, 3, {2, 4, 87}}, "at least 88] (bytes per token, layout dsv4)"},
    {{"swa_k_cache", SAFETENSORS_U8, 3, {2, 0, 88}}, "(block size)"},
    {{"swa_k_cache", SAFETENSORS_U8, 3, {1, 65537, 88}}, "needed [blocks, 65536, ...] (block size)"},
    {{"swa_k_cache", SAFETENSORS_U8, 3, {0, 4, UINT64_C(1) << 63}}, "tensor 'swa_k_cache'"},
    {{"swa_k_cache", SAFETENSORS_U8, 2, {2, 352}}, "metadata 'swa_block_size' or 'block_size' is missing"},
    {{"kv_cache", SAFETENSORS_U8, 2, {3, 350}}, "an even block stride of at least 352 bytes"},
    {{"kv_cache", SAFETENSORS_U8, 2, {3, 353}}, "an even block stride"},
    {{"kv_cache", SAFETENSORS_U8, 3, {3, 5, 88}}, "needed [blocks, 4, ...] (block size)"},
    {{"kv_cache", SAFETENSORS_U8, 2, {UINT64_C(1) << 40, 0}}, "tensor 'kv_cache': shape [1099511627776, 0]"},
    {{"kv_cache", 0, 0, {0}}, "tensor 'kv_cache' is missing"},
    {{"topk_indices", 0, 0, {0}}, "tensor 'topk_indices' is missing"},
    {{"swa_indices", 0, 0, {0}}, "tensor 'swa_indices' is missing"},
    {{"swa_indices", SAFETENSORS_U32, 2, {2, 5}}, "tensor 'swa_indices': dtype U32, needed I32"},
    {{"swa_indices", SAFETENSORS_I32, 2, {3, 5}}, "needed [2 rows, width 0..65536] or [2, 1, width]"},
    {{"swa_indices", SAFETENSORS_I32, 3, {2, 2, 5}}, "tensor 'swa_indices': shape [2, 2, 5]"},
    {{"swa_indices", SAFETENSORS_I32, 1, {10}}, "tensor 'swa_indices': shape [10]"},
    {{"swa_indices", SAFETENSORS_I64, 2, {2, 65537}}, "width 0..65536"},
    {{"swa_lens", SAFETENSORS_I64, 1, {2}}, "tensor 'swa_lens': dtype I64, needed I32"},
    {{"topk_lens", SAFETENSORS_I32, 1, {3}}, "tensor 'topk_lens': shape [3], needed [2]"},
    {{"topk_lens", SAFETENSORS_I32, 2, {2, 1}}, "tensor 'topk_lens': shape [2, 1], needed [2]"},
    {{"out", SAFETENSORS_F32, 3, {2, 3, 72}}, "tensor 'out': dtype F32, needed BF16"},
    {{"out", SAFETENSORS_BF16, 3, {2, 3, 71}}, "tensor 'out': shape [2, 3, 71], needed [2, 3, 72]"},
    {{"out_f64", SAFETENSORS_F64, 2, {6, 72}}, "tensor 'out_f64': shape [6, 72], needed [2, 3, 72]"},
    {{"lse", SAFETENSORS_F32, 2, {3, 2}}, "tensor 'lse': shape [3, 2], needed [2, 3]"},
    {{"lse", SAFETENSORS_F64, 2, {2, 3}}, "tensor 'lse': dtype F64, needed F32"},
    {{"gathered_swa", SAFETENSORS_BF16, 2, {12, 72}},
     "tensor 'gathered_swa': shape [12, 72], needed [10, 72]"},
    {{"gathered_extra", SAFETENSORS_BF16, 3, {2, 6, 72}},
     "tensor 'gathered_extra': shape [2, 6, 72], needed [12, 72]"},
};

static void malformed_tensors_are_refused(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bad_tensors / sizeof bad_tensors[0]; i++) {
        write_changed(&bad_tensors[i].changed, NULL);
        expect_failure(bad_tensors[i].error);
    }
}

static const struct {
    safetensors_pair string;
    const char *error;
} bad_strings[] = {
    {{"nope_head_dim", "96"}, "metadata 'nope_head_dim': '96', needed 64..512, a multiple of 64"},
    {{"nope_head_dim", "0"}, "metadata 'nope_head_dim': '0'"},
    {{"nope_head_dim", "576"}, "metadata 'nope_head_dim': '576'"},
    {{"nope_head_dim", "64.0"}, "metadata 'nope_head_dim': '64.0'"},
    {{"nope_head_dim", " 64"}, "metadata 'nope_head_dim'"},
    {{"nope_head_dim", "-64"}, "metadata 'nope_head_dim'"},
    {{"nope_head_dim", "18446744073709551680"}, "metadata 'nope_head_dim'"}, /* 2^64 + 64 */
    {{"nope_head_dim", ""}, "metadata 'nope_head_dim': ''"},
    {{"nope_head_dim", "128"}, "tensor 'q': shape [2, 3, 72], needed"},
    {{"nope_head_dim", NULL}, "(nope 448 + rope 8)"},
    {{"rope_head_dim", "7"}, "metadata 'rope_head_dim': '7', needed 0..128, a multiple of 2"},
    {{"rope_head_dim", "130"}, "metadata 'rope_head_dim': '130'"},
    {{"block_size", "0"}, "metadata 'block_size': '0', needed 1..65536"},
    {{"swa_block_size", "65537"}, "metadata 'swa_block_size'"},
    {{"swa_block_size", "8"}, "tensor 'swa_k_cache': shape [2, 4, 88], needed [blocks, 8, ...]"},
    {{"extra_block_size", "8"}, "at least 704 bytes (8 tokens, layout dsv4)"},
    {{"extra_block_size", NULL}, "metadata 'extra_block_size' or 'block_size' is missing"},
    {{"queries_per_request", "0"}, "metadata 'queries_per_request'"},
    {{"queries_per_request", "2"}, "tensor 'swa_lens': shape [2], needed [1]"},
    {{"scale", "nan"}, "metadata 'scale': 'nan', needed a number that is finite as f32"},
    {{"scale", "inf"}, "metadata 'scale': 'inf'"},
    {{"scale", "1e39"}, "metadata 'scale': '1e39'"},
    {{"scale", "0.25x"}, "metadata 'scale': '0.25x'"},
    {{"scale", " 0.25"}, "metadata 'scale': ' 0.25'"},
    {{"scale", ""}, "metadata 'scale': ''"},
    {{"scale_hex", "0x1p-3"}, "metadata 'scale': '0.25', needed the number that 'scale_hex' gives"},
    {{"scale_hex", "zero"}, "metadata 'scale_hex': 'zero'"},
    {{"swa_fp8", "e5m2"}, "metadata 'swa_fp8': 'e5m2', needed e4m3fn or e4m3fnuz"},
    {{"extra_fp8", "E4M3FN"}, "metadata 'extra_fp8'"},
    {{"kv_layout", "dsv3"}, "metadata 'kv_layout': 'dsv3', needed dsv4 or v32 or bf16"},
    {{"kv_layout", "v32"}, "metadata 'nope_head_dim': '64', needed 512..512"},
    {{"kv_layout", "bf16"}, "tensor 'swa_k_cache': shape [2, 4, 88], needed [blocks, block_size, 144]"},
};

static void malformed_metadata_is_refused(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bad_strings / sizeof bad_strings[0]; i++) {
        write_changed(NULL, &bad_strings[i].string);
        expect_failure(bad_strings[i].error);
    }
}

/* 2^31 slots need a file of 176 GiB; a sparse one will do, because nothing is read before it is refused. */
static void two_to_the_31_slots_are_refused(void **state) {
    (void)state;
    char header[256];
    const uint64_t blocks = UINT64_C(1) << 29, cache_bytes = blocks * 352;
    int length =
        snprintf(header, sizeof header,
                 "{\"__metadata__\":{\"nope_head_dim\":\"64\",\"rope_head_dim\":\"8\"},"
                 "\"q\":{\"dtype\":\"BF16\",\"shape\":[0,1,72],\"data_offsets\":[0,0]},"
                 "\"swa_k_cache\":{\"dtype\":\"U8\",\"shape\":[%llu,4,88],\"data_offsets\":[0,%llu]}}",
                 (unsigned long long)blocks, (unsigned long long)cache_bytes);
    uint64_t header_bytes = (uint64_t)length;
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_int_equal(write(file, &header_bytes, 8), 8);
    assert_int_equal(write(file, header, header_bytes), length);
    bool sparse = ftruncate(file, (off_t)(8 + header_bytes + cache_bytes)) == 0;
    close(file);
    if (!sparse) skip(); /* a file system without files of this size */
    expect_failure("tensor 'swa_k_cache': shape [536870912, 4, 88], needed fewer than 2^31 slots");
    unlink(path);
}

static uint8_t *slurp(const char *from, size_t *count) {
    FILE *file = fopen(from, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    *count = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = malloc(*count);
    assert_int_equal(fread(bytes, 1, *count, file), *count);
    fclose(file);
    return bytes;
}

static void every_truncation_is_refused(void **state) {
    (void)state;
    size_t whole_bytes;
    uint8_t *whole = slurp(CORPUS "dsv4.safetensors", &whole_bytes);
    for (size_t count = 0; count < whole_bytes; count++) {
        uint8_t *part = malloc(count + (count == 0));
        memcpy(part, whole, count);
        stepfile step;
        step_error error;
        assert_false(stepfile_read_memory(part, count, "FILE", &step, &error));
        assert_memory_equal(error.text, "FILE: ", 6);
        free(part);
    }
    free(whole);
}

static void a_directory_is_refused(void **state) {
    (void)state;
    stepfile step;
    step_error error;
    assert_false(stepfile_read(directory, &step, &error));
    assert_non_null(strstr(error.text, "is a directory"));
    stepfile_free(&step);
}

/* -- Well-formed steps. --------------------------------------------------------------------------------- */

static void the_described_step_is_read(void **state) {
    (void)state;
    stepfile step;
    write_changed(NULL, NULL);
    expect_success(&step);
    assert_int_equal(step.rows, 2);
    assert_int_equal(step.heads, 3);
    assert_int_equal(step.d_qk, 72);
    assert_int_equal(step.d_v, 72);
    assert_true(step.scale == 0.25);
    assert_int_equal(step.window.block_size_tokens, 4);
    assert_int_equal(step.window.block_stride_bytes, 352);
    assert_int_equal(step.window.width, 5);
    assert_true(step.extra.present);
    assert_int_equal(step.extra.num_blocks, 3);
    assert_int_equal(step.extra.block_stride_bytes, 354);
    const void *arrays[] = {step.q,
                            step.attn_sink,
                            step.window.cache,
                            step.window.indices,
                            step.window.lens,
                            step.extra.cache,
                            step.extra.indices,
                            step.extra.lens,
                            step.expected.out,
                            step.expected.out_f64,
                            step.expected.lse,
                            step.expected.gathered_window,
                            step.expected.gathered_extra};
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++) {
        assert_non_null(arrays[i]);
        assert_int_equal((uintptr_t)arrays[i] % STEPFILE_ALIGNMENT_BYTES, 0);
    }
    stepfile_free(&step);
    assert_null(step.q);
    stepfile_free(&step);
}

static void what_is_optional_may_be_absent(void **state) {
    (void)state;
    static const char *const optional[] = {"attn_sink", "swa_lens", "topk_lens",    "out",
                                           "out_f64",   "lse",      "gathered_swa", "gathered_extra"};
    for (size_t i = 0; i < sizeof optional / sizeof optional[0]; i++) {
        stepfile step;
        const tensor removed = {optional[i], SAFETENSORS_UNKNOWN, 0, {0}};
        write_changed(&removed, NULL);
        expect_success(&step);
        const void *arrays[] = {step.attn_sink,
                                step.window.lens,
                                step.extra.lens,
                                step.expected.out,
                                step.expected.out_f64,
                                step.expected.lse,
                                step.expected.gathered_window,
                                step.expected.gathered_extra};
        for (size_t j = 0; j < sizeof arrays / sizeof arrays[0]; j++)
            assert_int_equal(arrays[j] == NULL, i == j);
        stepfile_free(&step);
    }
}

static void defaults_and_precedence(void **state) {
    (void)state;
    stepfile step;
    safetensors_pair string = {"scale", NULL};
    write_changed(NULL, &string);
    expect_success(&step);
    assert_true(fabs(step.scale - sqrt(1.0 / 72)) <= 1e-16);
    stepfile_free(&step);

    string = (safetensors_pair){"scale_hex", "0x1.000000001p-2"}; /* more exact than `scale`, which agrees */
    write_changed(NULL, &string);
    expect_success(&step);
    assert_true(step.scale == 0x1.000000001p-2);
    stepfile_free(&step);

    string =
        (safetensors_pair){"block_size", "2"}; /* extra_block_size says 4, and so does the window's shape */
    write_changed(NULL, &string);
    expect_failure("tensor 'swa_k_cache': shape [2, 4, 88], needed [blocks, 2, ...]");
    string.value = "4";
    write_changed(NULL, &string);
    expect_success(&step);
    stepfile_free(&step);

    const tensor between = {"swa_k_cache", SAFETENSORS_U8, 3, {2, 4, 146}}; /* 144 of bf16 and 2 of what? */
    string = (safetensors_pair){"kv_layout", "bf16"};
    write_changed(&between, &string);
    expect_failure("needed [blocks, block_size, 144]");
    const tensor padded = {"swa_k_cache", SAFETENSORS_U8, 3, {2, 4, 90}};
    write_changed(&padded, NULL);
    expect_success(&step);
    assert_int_equal(step.window.block_stride_bytes, 360);
    stepfile_free(&step);
}

static void indices_are_narrowed(void **state) {
    (void)state;
    step_error error;
    stepfile step;
    assert_true(stepfile_read(MLAR_TEST_DATA_DIR "/indices-int64.safetensors", &step, &error));
    const int32_t expected[] = {
        -1, STEPFILE_WILD_INDEX, 3, 3, STEPFILE_WILD_INDEX, STEPFILE_WILD_INDEX, STEPFILE_WILD_INDEX, 5};
    assert_int_equal(step.extra.width, 8);
    assert_memory_equal(step.extra.indices + 3 * 8, expected, sizeof expected);
    assert_true(stepfile_entry_counts(&step.extra, 3, 2));
    for (uint32_t j = 4; j < 7; j++) assert_false(stepfile_entry_counts(&step.extra, 3, j));
    assert_true(stepfile_entry_counts(&step.extra, 3, 7));
    stepfile_free(&step);
}

static void lengths_are_clamped(void **state) {
    (void)state;
    int32_t indices[4 * 3] = {0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 7, 8}, lens[2] = {-5, 2};
    stepfile_scope scope = {.num_blocks = 2, .block_size_tokens = 4, .width = 3, .rows_per_len = 2};
    scope.indices = indices;
    assert_int_equal(stepfile_row_len(&scope, 3), 3);
    assert_true(stepfile_entry_counts(&scope, 3, 1));
    assert_false(stepfile_entry_counts(&scope, 3, 2)); /* slot 8 of 8 */
    scope.lens = lens;
    assert_int_equal(stepfile_row_len(&scope, 1), 0);
    assert_int_equal(stepfile_row_len(&scope, 2), 2);
    assert_false(stepfile_entry_counts(&scope, 2, 2));
    lens[1] = INT32_MAX;
    assert_int_equal(stepfile_row_len(&scope, 3), 3);
}

/* One byte more of header: every tensor then starts at an odd byte. */
static void tensors_may_start_at_any_byte(void **state) {
    (void)state;
    size_t count;
    uint64_t header_bytes;
    uint8_t *even = slurp(CORPUS "dsv4.safetensors", &count), *odd = malloc(count + 1);
    memcpy(&header_bytes, even, 8);
    memcpy(odd, even, 8 + header_bytes);
    odd[8 + header_bytes] = ' ';
    memcpy(odd + 9 + header_bytes, even + 8 + header_bytes, count - 8 - header_bytes);
    header_bytes++;
    memcpy(odd, &header_bytes, 8);
    stepfile a, b;
    assert_true(stepfile_read_memory(even, count, "even", &a, NULL));
    assert_true(stepfile_read_memory(odd, count + 1, "odd", &b, NULL));
    assert_memory_equal(a.q, b.q, 2 * a.d_qk);
    assert_memory_equal(a.expected.out_f64, b.expected.out_f64, 8 * a.d_v);
    assert_memory_equal(a.extra.indices, b.extra.indices, 4 * a.extra.width);
    stepfile_free(&a);
    stepfile_free(&b);
    free(even);
    free(odd);
}

static void absurd_allocations_fail(void **state) {
    (void)state;
    assert_null(stepfile_allocate(UINT64_MAX));
    assert_null(stepfile_allocate(INT64_MAX));
    void *nothing = stepfile_allocate(0);
    assert_non_null(nothing);
    free(nothing);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_tensors_are_refused),
        cmocka_unit_test(malformed_metadata_is_refused),
        cmocka_unit_test(two_to_the_31_slots_are_refused),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(a_directory_is_refused),
        cmocka_unit_test(the_described_step_is_read),
        cmocka_unit_test(what_is_optional_may_be_absent),
        cmocka_unit_test(defaults_and_precedence),
        cmocka_unit_test(indices_are_narrowed),
        cmocka_unit_test(lengths_are_clamped),
        cmocka_unit_test(tensors_may_start_at_any_byte),
        cmocka_unit_test(absurd_allocations_fail),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
