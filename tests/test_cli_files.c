/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cli_files.c: `mlarena run` and the file system: results are written whole or not at all, and a broken
 * step file of any kind is refused in one line that names the file, the place and what is wrong. */
#define _XOPEN_SOURCE 700

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/command.h"

#define SEED    MLAR_TEST_DATA_DIR "/dsv4-seed.safetensors"
#define QUICKLY "--device", "cpu", "--replays", "1"

enum { COPY_BYTES_MAX = 1 << 16 };

static char directory[] = "/tmp/test_cli_files.XXXXXX";
static char input[256], output[256]; /* files in it that tests write */

static int make_directory(void **state) {
    (void)state;
    if (!mkdtemp(directory)) return 1;
    snprintf(input, sizeof input, "%s/input.safetensors", directory);
    snprintf(output, sizeof output, "%s/output.safetensors", directory);
    return 0;
}

static int remove_directory(void **state) {
    (void)state;
    unlink(input);
    unlink(output);
    return rmdir(directory);
}

static int files_in_directory(void) {
    DIR *listing = opendir(directory);
    int count = 0;
    assert_non_null(listing);
    for (const struct dirent *entry; (entry = readdir(listing)) != NULL;) count += entry->d_name[0] != '.';
    closedir(listing);
    return count;
}

static size_t read_whole(const char *path, uint8_t *bytes) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) fail_msg("%s: cannot be read", path);
    size_t count = fread(bytes, 1, COPY_BYTES_MAX, file);
    assert_true(feof(file));
    fclose(file);
    return count;
}

static void write_whole(const char *path, const uint8_t *bytes, size_t count) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    assert_int_equal(fclose(file), 0);
}

/* ---- writing ---- */

static void results_are_written_whole_or_not_at_all(void **state) {
    (void)state;
    struct stat status;
    unlink(input);
    write_whole(output, (const uint8_t *)"old", 3);
    mode_t mask = umask(027);
    command_run("run", SEED, QUICKLY, "-o", output, NULL);
    umask(mask);
    command_must_exit(0);
    assert_int_equal(files_in_directory(), 1);
    assert_int_equal(stat(output, &status), 0);
    assert_true(status.st_size > 1000); /* replaced */
    unlink(output);
    command_run("run", SEED, QUICKLY, "-o", output, NULL);
    command_must_exit(0);
    assert_int_equal(files_in_directory(), 1);
    unlink(output);

    command_under.file_bytes = 1000; /* as on a full disk */
    command_run("run", SEED, QUICKLY, "-o", output, NULL);
    command_under.file_bytes = 0;
    command_must_exit(2);
    assert_non_null(strstr(command_said.err, "output.safetensors: cannot write: File too large\n"));
    assert_int_equal(files_in_directory(), 0);

    command_run("run", SEED, QUICKLY, "-o", directory, NULL);
    command_must_exit(2);
    assert_non_null(strstr(command_said.err, "exists and is not a regular file\n"));
    command_run("run", SEED, QUICKLY, "-o", "/nowhere/x", NULL);
    command_must_exit(2);
    assert_non_null(
        strstr(command_said.err, "mlarena: /nowhere/x: cannot write: No such file or directory\n"));
    command_run("run", "/nowhere/x", QUICKLY, "-o", output, NULL);
    command_must_exit(2);
    assert_int_equal(files_in_directory(), 0);
}

/* Under any name: the step would be gone. Nothing is computed first: standard output stays empty. */
static void the_step_itself_is_no_output(void **state) {
    (void)state;
    static uint8_t bytes[COPY_BYTES_MAX], after[COPY_BYTES_MAX];
    size_t count = read_whole(SEED, bytes);
    write_whole(input, bytes, count);
    command_refuses("input.safetensors: is the step file itself", "run", input, "-o", input, NULL);
    unlink(output);
    assert_int_equal(link(input, output), 0);
    command_refuses("output.safetensors: is the step file itself", "run", input, "-o", output, NULL);
    unlink(output);
    assert_int_equal(symlink(input, output), 0);
    command_refuses("output.safetensors: is the step file itself", "run", input, "-o", output, NULL);
    unlink(output);
    assert_int_equal(read_whole(input, after), count);
    assert_memory_equal(bytes, after, count);
    command_refuses("exists and is not a regular file", "run", input, "-o", "/dev/null", NULL);
    command_refuses(": cannot write: No such file", "run", input, "-o", "", NULL);
    command_refuses("/nowhere/x.svg: cannot write: No such file", "bench", "--svg", "/nowhere/x.svg", NULL);
    unlink(input);
}

static void a_read_only_directory_stays_as_it_is(void **state) {
    (void)state;
    command_under.unprivileged = true;
    assert_int_equal(chmod(directory, 0555), 0);
    if (command_run("run", SEED, QUICKLY, NULL) ==
        0) { /* else that user cannot reach the command or the step */
        command_run("run", SEED, QUICKLY, "-o", output, NULL);
        command_must_exit(2);
        assert_non_null(strstr(command_said.err, "output.safetensors: cannot write: Permission denied\n"));
        assert_int_equal(files_in_directory(), 0);
    }
    command_under.unprivileged = false;
    assert_int_equal(chmod(directory, 0700), 0);
}

/* ---- broken files ---- */

/* dsv4-seed with one piece of its header replaced. */
static void write_edited(const char *old, const char *new) {
    static uint8_t bytes[COPY_BYTES_MAX], edited[COPY_BYTES_MAX];
    size_t count = read_whole(SEED, bytes), old_bytes = strlen(old), new_bytes = strlen(new);
    uint64_t header;
    memcpy(&header, bytes, 8);
    size_t at = 8;
    while (at + old_bytes <= 8 + header && memcmp(bytes + at, old, old_bytes) != 0) at++;
    if (at + old_bytes > 8 + header) fail_msg("'%s' is not in the header", old);
    memcpy(edited, bytes, at);
    memcpy(edited + at, new, new_bytes);
    memcpy(edited + at + new_bytes, bytes + at + old_bytes, count - at - old_bytes);
    header += new_bytes - old_bytes;
    memcpy(edited, &header, 8);
    write_whole(input, edited, count + new_bytes - old_bytes);
}

static void refused(const char *needle) {
    command_refuses(needle, "run", input, QUICKLY, "-o", output, NULL);
    assert_non_null(strstr(command_said.err, input));
    assert_int_not_equal(access(output, F_OK), 0);
}

static void a_broken_header_is_named(void **state) {
    (void)state;
    static const struct {
        const char *old, *new, *needle;
    } rows[] = {
        {"\"q\": {\"dtype\": \"BF16\"", "\"q\": {\"dtype\": \"F16\"", "tensor 'q': dtype F16, needed BF16"},
        {"\"q\": {", "\"p\": {", "tensor 'q' is missing"},
        {"\"swa_k_cache\": {", "\"x\": {", "tensor 'swa_k_cache' is missing"},
        {"\"topk_indices\": {", "\"x\": {", "tensor 'topk_indices' is missing"},
        {"[18520, 20248]", "[18520, 99999]", "tensor 'q': data_offsets end at 99999"},
        {"[18520, 20248]", "[18519, 20247]", "tensor 'q' overlaps tensor 'out_pr42576'"},
        {"[18520, 20248]", "[20248, 18520]", "tensor 'q': data_offsets end at 18520, before their begin"},
        {"[18520, 20248]", "[18520]", "tensor 'q': data_offsets is missing or not a pair"},
        {"[18520, 20248]", "[-1, 20248]", "tensor 'q': data_offsets holds the negative number -1"},
        {"[6, 4, 88]", "[1099511627776, 4, 88]", "tensor 'kv_cache': its shape needs"},
        {"[6, 4, 88]", "[4611686018427387904, 4, 88]", "tensor 'kv_cache': the size of its shape overflows"},
        {"[6, 4, 88]", "[6, 4, 1.5]", "tensor 'kv_cache': shape holds something that is not an integer"},
        {"[6, 4, 88]", "[4, 6, 88]", "tensor 'kv_cache': shape [4, 6, 88], needed [blocks, 4, ...]"},
        {"\"shape\": [3, 4, 72], \"data_offsets\": [18520, 20248]",
         "\"shape\": [0, 4, 72], \"data_offsets\": [0, 0]",
         "tensor 'swa_indices': shape [3, 6], needed [0 rows"},
        {"\"shape\": [3, 4, 72], \"data_offsets\": [18520, 20248]",
         "\"shape\": [3, 0, 72], \"data_offsets\": [0, 0]", "tensor 'q': shape [3, 0, 72], needed [rows"},
        {"\"nope_head_dim\": \"64\"", "\"nope_head_dim\": \"63\"", "metadata 'nope_head_dim': '63'"},
        {"\"rope_head_dim\": \"8\"", "\"rope_head_dim\": \"nan\"", "metadata 'rope_head_dim': 'nan'"},
        {"\"scale\": \"0.11785113019775793\"", "\"scale\": \"inf\"", "metadata 'scale': 'inf'"},
        {"\"block_size\": \"4\"", "\"block_size\": \"0\"", "metadata 'block_size': '0'"},
        {"\"seed\": \"0\"", "\"extra_fp8\": \"e5m2\"", "metadata 'extra_fp8': 'e5m2'"},
        {"\"seed\": \"0\"", "\"seed\": 0", "__metadata__ 'seed' is not a string"},
        {"\"seed\": \"0\"", "\"torch\": \"2\"", "header is not valid: duplicate object key"},
        {"{\"__metadata__\"", "[\"__metadata__\"", "the header does not start with '{'"},
        {"\"q\": {", "\"q\": ", "header is not valid"},
    };
    unlink(output);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        write_edited(rows[i].old, rows[i].new);
        refused(rows[i].needle);
    }
    write_edited("\"seed\": \"0\"", "\"seed\": \"1\""); /* the editing itself breaks nothing */
    command_run("run", input, QUICKLY, NULL);
    command_must_exit(0);
}

static void a_broken_file_is_named(void **state) {
    (void)state;
    static uint8_t bytes[COPY_BYTES_MAX];
    size_t count = read_whole(SEED, bytes);
    static const struct {
        size_t bytes;
        const char *needle;
    } cuts[] = {{0, "truncated: 0 bytes"},
                {7, "truncated: 7 bytes"},
                {8, "truncated: header of"},
                {500, "truncated: header of"},
                {20000, "(truncated?)"}};
    unlink(output);
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        write_whole(input, bytes, cuts[i].bytes);
        refused(cuts[i].needle);
    }
    write_whole(input, bytes, count - 1);
    refused("tensor 'swa_k_cache': data_offsets end at");
    const uint64_t absurd = (uint64_t)1 << 40;
    memcpy(bytes, &absurd, 8);
    write_whole(input, bytes, count);
    refused("header of 1099511627776 bytes, the limit is 100000000");

    unlink(input);
    refused("cannot open: No such file or directory");
    assert_int_equal(mkfifo(input, 0600), 0);
    refused("is a FIFO, not a regular file");
    unlink(input);
    assert_int_equal(mkdir(input, 0700), 0);
    refused("is a directory, not a regular file");
    rmdir(input);
    command_refuses("/dev/zero: is a device or socket, not a regular file", "run", "/dev/zero", NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results_are_written_whole_or_not_at_all),
        cmocka_unit_test(the_step_itself_is_no_output),
        cmocka_unit_test(a_read_only_directory_stays_as_it_is),
        cmocka_unit_test(a_broken_header_is_named),
        cmocka_unit_test(a_broken_file_is_named),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
