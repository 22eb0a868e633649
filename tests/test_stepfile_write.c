/* SPDX-License-Identifier: Apache-2.0
 *
 * test_stepfile_write.c: what is written is what was read. The sources are all the step files of this tree;
 * they are compared as plain safetensors files, below the reader that test_stepfile.c checks. */
#define _POSIX_C_SOURCE 200809L

#include <dirent.h>
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

#define CORPUS MLAR_TEST_DATA_DIR "/../fuzz/corpus/stepfile/"

static char directory[] = "/tmp/test_stepfile_write.XXXXXX";
static char path[256]; /* of the file that the test at hand writes */

static int make_directory(void **state) {
    (void)state;
    if (!mkdtemp(directory)) return 1;
    snprintf(path, sizeof path, "%s/step.safetensors", directory);
    return 0;
}

static int remove_directory(void **state) {
    (void)state;
    unlink(path);
    return rmdir(directory);
}

static void expect_same_scope(const stepfile_scope *a, const stepfile_scope *b) {
    assert_int_equal(a->present, b->present);
    assert_int_equal(a->fp8, b->fp8);
    assert_int_equal(a->block_size_tokens, b->block_size_tokens);
    assert_int_equal(a->num_blocks, b->num_blocks);
    assert_int_equal(a->block_stride_bytes, b->block_stride_bytes);
    assert_int_equal(a->width, b->width);
    assert_int_equal(a->rows_per_len, b->rows_per_len);
}

/* What a step holds beside its arrays. */
static void expect_same_numbers(const stepfile *a, const stepfile *b) {
    assert_int_equal(a->layout, b->layout);
    assert_int_equal(a->rows, b->rows);
    assert_int_equal(a->heads, b->heads);
    assert_int_equal(a->nope, b->nope);
    assert_int_equal(a->rope, b->rope);
    assert_int_equal(a->d_qk, b->d_qk);
    assert_int_equal(a->d_v, b->d_v);
    assert_true(a->scale == b->scale);
    expect_same_scope(&a->window, &b->window);
    expect_same_scope(&a->extra, &b->extra);
}

/* Every tensor of the written file holds the source's bytes (indices may have been narrowed). */
static void expect_same_tensors(const char *source) {
    safetensors_file *from, *to;
    assert_true(safetensors_open(source, &from, NULL));
    assert_true(safetensors_open(path, &to, NULL));
    size_t ignored = 0; /* tensors of the source that a step does not hold */
    for (size_t i = 0; i < safetensors_tensor_count(from); i++) {
        const char *name = safetensors_tensor_at(from, i)->name;
        ignored += strncmp(name, "remapped_", 9) == 0 || strcmp(name, "out_nosink") == 0 ||
                   strcmp(name, "out_pr42576") == 0;
    }
    assert_int_equal(safetensors_tensor_count(to) + ignored, safetensors_tensor_count(from));
    for (size_t i = 0; i < safetensors_tensor_count(to); i++) {
        const safetensors_tensor *b = safetensors_tensor_at(to, i), *a = safetensors_find(from, b->name);
        assert_non_null(a);
        if (a->dtype != b->dtype) continue;
        assert_int_equal(a->bytes, b->bytes);
        uint8_t *a_data = malloc(a->bytes + 1), *b_data = malloc(b->bytes + 1);
        assert_true(safetensors_read(from, a, a_data, NULL));
        assert_true(safetensors_read(to, b, b_data, NULL));
        if (memcmp(a_data, b_data, a->bytes) != 0) fail_msg("%s: '%s' has changed", source, a->name);
        free(a_data);
        free(b_data);
    }
    safetensors_close(from);
    safetensors_close(to);
}

static void expect_round_trip(const char *source) {
    stepfile step, again;
    step_error error;
    if (!stepfile_read(source, &step, &error)) fail_msg("%s", error.text);
    if (!stepfile_write(path, &step, &error)) fail_msg("%s", error.text);
    if (!stepfile_read(path, &again, &error)) fail_msg("%s", error.text);
    expect_same_numbers(&step, &again);
    expect_same_tensors(source);
    stepfile_free(&step);
    stepfile_free(&again);
}

/* Every file of tests/data and of the fuzzer's corpus. */
static void every_shipped_step_survives_a_round_trip(void **state) {
    (void)state;
    static const char *const folders[] = {MLAR_TEST_DATA_DIR "/", CORPUS};
    int files = 0;
    for (size_t i = 0; i < 2; i++) {
        DIR *folder = opendir(folders[i]);
        assert_non_null(folder);
        for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
            char source[1024];
            const char *dot = strrchr(entry->d_name, '.');
            if (!dot || strcmp(dot, ".safetensors") != 0) continue;
            snprintf(source, sizeof source, "%s%s", folders[i], entry->d_name);
            expect_round_trip(source);
            files++;
        }
        closedir(folder);
    }
    assert_true(files >= 30);
}

static void results_are_written_alone(void **state) {
    (void)state;
    stepfile step;
    step_error error;
    assert_true(stepfile_read(CORPUS "dsv4.safetensors", &step, &error));
    step.scale = 1 / 3.0; /* takes 17 digits */
    const stepfile_results results = {.lse = step.expected.lse,
                                      .gathered_extra = step.expected.gathered_extra};
    assert_true(stepfile_write_results(path, &step, &results, &error));
    safetensors_file *file;
    assert_true(safetensors_open(path, &file, &error));
    assert_int_equal(safetensors_tensor_count(file), 2);
    assert_int_equal(safetensors_find(file, "gathered_extra")->shape[0], step.extra.width);
    assert_string_equal(safetensors_metadata(file, "nope_head_dim"), "64");
    assert_true(strtod(safetensors_metadata(file, "scale"), NULL) == step.scale);
    safetensors_close(file);
    stepfile_free(&step);
}

static void a_write_that_fails_says_why(void **state) {
    (void)state;
    stepfile step;
    step_error error;
    assert_true(stepfile_read(CORPUS "bf16.safetensors", &step, &error));
    assert_false(stepfile_write(directory, &step, &error));
    assert_non_null(strstr(error.text, directory));
    assert_non_null(strstr(error.text, "is not a regular file"));
    assert_false(stepfile_write_results("/no/such/place", &step, &step.expected, NULL));
    stepfile_free(&step);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_shipped_step_survives_a_round_trip),
        cmocka_unit_test(results_are_written_alone),
        cmocka_unit_test(a_write_that_fails_says_why),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
