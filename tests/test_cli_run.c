/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cli_run.c: `mlarena run` from outside. Every golden step passes however it is run; expected tensors
 * are compared with and change nothing else; one changed bit of one of them is found where it is. What it
 * does with files is test_cli_files.c. */
#define _XOPEN_SOURCE 700

#include <dirent.h>
#include <jansson.h>
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

#include "tests/support/command.h"
#include "tools/stepfile/safetensors.h"
#include "tools/stepfile/stepfile.h"

#define DATA    MLAR_TEST_DATA_DIR "/"
#define NORMAL  DATA "dsv4-normal.safetensors"  /* 3 rows, 4 heads; out, out_f64, lse */
#define SPECIAL DATA "dsv4-special.safetensors" /* 1 row, 8 heads; gathered tensors too */
#define QUICKLY "--device", "cpu", "--replays", "1"

enum { COPY_BYTES_MAX = 4 << 20 };

static char directory[] = "/tmp/test_cli_run.XXXXXX";
static char input[256], output[256], other[256]; /* files in it that tests write */

static int make_directory(void **state) {
    (void)state;
    if (!mkdtemp(directory)) return 1;
    snprintf(input, sizeof input, "%s/input.safetensors", directory);
    snprintf(output, sizeof output, "%s/output.safetensors", directory);
    snprintf(other, sizeof other, "%s/other.safetensors", directory);
    return 0;
}

static int remove_directory(void **state) {
    (void)state;
    unlink(input);
    unlink(output);
    unlink(other);
    return rmdir(directory);
}

static size_t read_whole(const char *path, uint8_t *bytes) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) fail_msg("%s: cannot be read", path);
    size_t count = fread(bytes, 1, COPY_BYTES_MAX, file);
    assert_true(feof(file));
    fclose(file);
    return count;
}

static stepfile read_step(const char *path) {
    stepfile step;
    step_error error;
    if (!stepfile_read(path, &step, &error)) fail_msg("%s", error.text);
    return step;
}

static void write_step(const char *path, const stepfile *step) {
    step_error error;
    if (!stepfile_write(path, step, &error)) fail_msg("%s", error.text);
}

/* ---- every golden step ---- */

static const char *const strategies[] = {"direct", "gather"};

/* The least budget works, one byte less is refused with the exact number. */
static void run_at_the_minimum(const char *path, const char *strategy) {
    char text[32];
    command_refuses("budget_bytes: 1 given", "run", path, QUICKLY, "--strategy", strategy, "--budget", "1",
                    NULL);
    unsigned long long minimum = command_number("at least ");
    snprintf(text, sizeof text, "%llu", minimum);
    command_run("run", path, QUICKLY, "--strategy", strategy, "--budget", text, NULL);
    command_must_exit(0);
    snprintf(text, sizeof text, "%llu", minimum - 1);
    command_refuses("budget_bytes: ", "run", path, QUICKLY, "--strategy", strategy, "--budget", text, NULL);
    assert_int_equal(command_number("at least "), minimum);
}

/* Without its expected tensors a step gives the same file of results, byte for byte. */
static void run_without_expectations(const char *path, const char *strategy) {
    static uint8_t with[COPY_BYTES_MAX], without[COPY_BYTES_MAX];
    stepfile step = read_step(path);
    stepfile bare = step;
    bare.expected = (stepfile_results){0};
    write_step(input, &bare);
    stepfile_free(&step);
    command_run("run", path, QUICKLY, "--strategy", strategy, "-o", output, NULL);
    command_must_exit(0);
    assert_non_null(strstr(command_said.out, "all within SPEC"));
    command_run("run", input, QUICKLY, "--strategy", strategy, "-o", other, NULL);
    command_must_exit(0);
    assert_non_null(strstr(command_said.out, "nothing was compared"));
    size_t bytes = read_whole(output, with);
    assert_int_equal(read_whole(other, without), bytes);
    assert_memory_equal(with, without, bytes);
}

static void every_golden_step_passes(void **state) {
    (void)state;
    DIR *listing = opendir(DATA);
    int files = 0;
    assert_non_null(listing);
    for (const struct dirent *entry; (entry = readdir(listing)) != NULL;) {
        char path[1024];
        if (strstr(entry->d_name, ".safetensors") == NULL) continue;
        snprintf(path, sizeof path, "%s%s", DATA, entry->d_name);
        command_run("run", path, "--device", "cpu", NULL);
        command_must_exit(0);
        assert_string_equal(command_said.err, "");
        command_run("run", path, QUICKLY, "--policy", "invariant", NULL);
        command_must_exit(0);
        for (int i = 0; i < 2; i++) {
            run_at_the_minimum(path, strategies[i]);
            run_without_expectations(path, strategies[i]);
        }
        files++;
    }
    closedir(listing);
    assert_true(files >= 29);
    command_run("run", NORMAL, QUICKLY, "--graph", "off", "--guard", "256", "--update", "node-params", NULL);
    command_must_exit(0);
    assert_null(strstr(command_said.out, ", replay ")); /* there is none: what is timed is an enqueue */
    assert_non_null(strstr(command_said.out, ", enqueue "));
}

/* Rope 2: heads of 66 elements are no multiple of 16 bytes apart in the file. */
static void narrow_heads_are_padded(void **state) {
    (void)state;
    enum { ROWS = 2, HEADS = 3, D = 66 };
    stepfile step = {
        .rows = ROWS, .heads = HEADS, .nope = 64, .rope = 2, .d_qk = D, .d_v = D, .scale = 0.125};
    step.q = stepfile_allocate(ROWS * HEADS * D * 2);
    step.expected.out = stepfile_allocate(ROWS * HEADS * D * 2);
    step.expected.lse = stepfile_allocate(ROWS * HEADS * 4);
    step.window = (stepfile_scope){.present = true,
                                   .block_size_tokens = 2,
                                   .num_blocks = 1,
                                   .block_stride_bytes = 2 * (64 + 4 + 8),
                                   .cache = stepfile_allocate(2 * (64 + 4 + 8)),
                                   .width = 1,
                                   .rows_per_len = 1,
                                   .indices = stepfile_allocate(ROWS * 4)};
    /* Token t holds (t + 1) x 1.0 in nope: byte 0x38 with scale 2^t; its rope is t + 1 as well. */
    for (int t = 0; t < 2; t++) {
        uint8_t *record = step.window.cache + t * 68, *scales = step.window.cache + 2 * 68 + t * 8;
        const uint16_t rope = t ? 0x4000 : 0x3f80;
        memset(record, 0x38, 64);
        memcpy(record + 64, &rope, 2);
        memcpy(record + 66, &rope, 2);
        scales[0] = (uint8_t)(127 + t);
        step.window.indices[t] = t;
    }
    /* One key: the output is its value, whatever q is; the score of the first element alone is lse. */
    for (int r = 0; r < ROWS; r++)
        for (int h = 0; h < HEADS; h++) {
            step.q[(r * HEADS + h) * D + D - 1] = 0x3f80;
            step.expected.lse[r * HEADS + h] = 0.125f * (float)(r + 1);
            for (int d = 0; d < D; d++) step.expected.out[(r * HEADS + h) * D + d] = r ? 0x4000 : 0x3f80;
        }
    write_step(input, &step);
    stepfile_free(&step);
    command_run("run", input, QUICKLY, NULL);
    command_must_exit(0);
}

/* ---- one changed bit ---- */

/* What a written file of results holds. */
static double computed_at(const char *tensor, uint64_t index) {
    safetensors_file *file;
    step_error error;
    uint8_t *bytes = NULL;
    double value = NAN;
    if (!safetensors_open(output, &file, &error)) fail_msg("%s", error.text);
    const safetensors_tensor *found = safetensors_find(file, tensor);
    assert_non_null(found);
    bytes = malloc(found->bytes);
    assert_non_null(bytes);
    assert_true(safetensors_read(file, found, bytes, &error));
    float narrow;
    uint32_t word = 0;
    if (found->dtype == SAFETENSORS_BF16) {
        uint16_t bits;
        memcpy(&bits, bytes + 2 * index, 2);
        word = (uint32_t)bits << 16;
    } else {
        memcpy(&word, bytes + 4 * index, 4);
    }
    memcpy(&narrow, &word, 4);
    value = (double)narrow;
    free(bytes);
    safetensors_close(file);
    return value;
}

/* After a failing run with --json: the place and both values under checks.NAME of the first strategy. */
static void check_json(const char *name, uint32_t row, int64_t head, int64_t element, double computed,
                       double expected) {
    json_t *root = json_loads(command_said.out, 0, NULL), *one;
    assert_non_null(root);
    one = json_array_get(json_object_get(root, "results"), 0);
    assert_true(json_is_false(json_object_get(one, "pass")));
    one = json_object_get(json_object_get(one, "checks"), name);
    assert_true(json_is_false(json_object_get(one, "pass")));
    assert_int_equal(json_integer_value(json_object_get(one, "row")), row);
    if (head >= 0)
        assert_int_equal(json_integer_value(json_object_get(one, "head")), head);
    else
        assert_true(json_is_null(json_object_get(one, "head")));
    if (element >= 0) assert_int_equal(json_integer_value(json_object_get(one, "element")), element);
    if (isfinite(computed))
        assert_true(json_real_value(json_object_get(one, "computed")) == computed);
    else
        assert_true(json_is_null(json_object_get(one, "computed"))); /* JSON has no infinity */
    assert_true(json_real_value(json_object_get(one, "expected")) == expected);
    json_decref(root);
}

static double from_bf16(uint16_t bits) {
    uint32_t word = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &word, 4);
    return (double)value;
}

/* The exponent's lowest bit of one expected element: its value is halved or doubled. The largest element of
 * each head is taken, so that the change is far outside every tolerance. */
static void a_bit_of_out_is_found(void **state) {
    (void)state;
    stepfile step = read_step(NORMAL);
    command_run("run", NORMAL, QUICKLY, "--strategy", "direct", "-o", output, NULL);
    command_must_exit(0);
    for (uint32_t head = 0; head < step.rows * step.heads; head++) {
        double *exact = step.expected.out_f64 + (size_t)head * step.d_v;
        uint16_t *rounded = step.expected.out + (size_t)head * step.d_v;
        uint32_t d = 0;
        for (uint32_t i = 1; i < step.d_v; i++)
            if (fabs(exact[i]) > fabs(exact[d])) d = i;
        const double computed = computed_at("out", (uint64_t)head * step.d_v + d);
        for (int tensor = 0; tensor < 3; tensor++) {
            static const char *const names[] = {"out", "out_bf16", "lse"};
            float *lse = &step.expected.lse[head];
            const double kept_exact = exact[d];
            const uint16_t kept_rounded = rounded[d];
            const float kept_lse = *lse;
            uint64_t bits;
            uint32_t word;
            memcpy(&bits, &exact[d], 8);
            memcpy(&word, lse, 4);
            bits ^= (uint64_t)1 << (exact[d] == 0 ? 62 : 52); /* 0, in the row without keys, becomes 2 */
            word ^= (uint32_t)1 << 23;
            if (tensor == 0) memcpy(&exact[d], &bits, 8);
            if (tensor == 1) rounded[d] = (uint16_t)(rounded[d] ^ (rounded[d] == 0 ? 1 << 14 : 1 << 7));
            if (tensor == 2) memcpy(lse, &word, 4);
            const double wrong = tensor == 0 ? exact[d] : tensor == 1 ? from_bf16(rounded[d]) : (double)*lse;
            const double right = tensor == 2 ? computed_at("lse", head) : computed;
            char place[128];
            snprintf(place, sizeof place, "%s: MISMATCH (element) at row %u, head %u", names[tensor],
                     head / step.heads, head % step.heads);
            if (tensor < 2) snprintf(place + strlen(place), sizeof place - strlen(place), ", element %u", d);
            snprintf(place + strlen(place), sizeof place - strlen(place),
                     ": computed %.9g, expected %.9g; 1 of", right, wrong);
            write_step(input, &step);
            command_run("run", input, QUICKLY, "--strategy", "direct", NULL);
            command_must_exit(1);
            if (strstr(command_said.out, place) == NULL)
                fail_msg("'%s' is not in:\n%s", place, command_said.out);
            assert_null(strstr(command_said.out, "all within SPEC"));
            command_run("run", input, QUICKLY, "--strategy", "direct", "--json", NULL);
            command_must_exit(1);
            check_json(names[tensor], head / step.heads, head % step.heads, tensor < 2 ? (int64_t)d : -1,
                       right, wrong);
            exact[d] = kept_exact;
            rounded[d] = kept_rounded;
            *lse = kept_lse;
        }
    }
    stepfile_free(&step);
}

/* Bit for bit: the lowest bit of an entry that counts is found, any bit of one that does not is not looked
 * at. */
static void a_bit_of_a_gathered_key_is_found(void **state) {
    (void)state;
    stepfile step = read_step(SPECIAL);
    uint32_t seen[2] = {0, 0};
    for (uint32_t j = 0; j < step.window.width; j++) {
        int counts = stepfile_entry_counts(&step.window, 0, j);
        if (seen[counts]++ >= 3) continue;
        uint32_t element = (j * 37) % step.d_qk;
        uint16_t *value = &step.expected.gathered_window[(size_t)j * step.d_qk + element];
        if ((*value & 0x7fff) > 0x7f80) continue; /* NaN: all are equal */
        *value ^= 1;
        write_step(input, &step);
        command_run("run", input, QUICKLY, "--strategy", "gather", NULL);
        command_must_exit(counts ? 1 : 0);
        char place[128];
        snprintf(place, sizeof place,
                 "gathered_swa: MISMATCH (bits) at row 0, entry %u, element %u: computed ", j, element);
        if (counts) assert_non_null(strstr(command_said.out, place));
        *value ^= 1;
    }
    assert_true(seen[0] > 0 && seen[1] > 0);
    /* The lowest bit of a float64 is no mismatch: a tolerance is one. */
    uint64_t bits;
    memcpy(&bits, step.expected.out_f64, 8);
    bits ^= 1;
    memcpy(step.expected.out_f64, &bits, 8);
    write_step(input, &step);
    command_run("run", input, QUICKLY, NULL);
    command_must_exit(0);
    stepfile_free(&step);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_golden_step_passes),
        cmocka_unit_test(narrow_heads_are_padded),
        cmocka_unit_test(a_bit_of_out_is_found),
        cmocka_unit_test(a_bit_of_a_gathered_key_is_found),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
