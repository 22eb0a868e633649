/* SPDX-License-Identifier: Apache-2.0
 *
 * replay.c: runs a fuzzer's entry point over a stored corpus, with no fuzzing engine: any compiler, any
 * sanitizer.
 *
 *     fuzz_plan DIRECTORY-OR-FILE...
 *
 * It knows nothing of what is fuzzed. Each input is handed over in a block of exactly its size, so that a
 * read past its end is seen. A directory with no input fails: it would prove nothing. */
#define _POSIX_C_SOURCE 200809L

#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int fail(const char *path, const char *what) {
    fprintf(stderr, "%s: %s\n", path, what);
    return -1;
}

/* Each replay_ function returns the number of inputs run, or -1 after a message. */

static int replay_file(const char *path, size_t size) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) return fail(path, strerror(errno));
    uint8_t *data = malloc(size);
    size_t got = data != NULL ? fread(data, 1, size, file) : 0;
    fclose(file);
    int runs = 1;
    if (data != NULL && got == size)
        LLVMFuzzerTestOneInput(data, size);
    else
        runs = fail(path, "cannot be read in full");
    free(data);
    return runs;
}

static int replay_path(const char *path);

static int is_input(const struct dirent *entry) {
    return entry->d_name[0] != '.';
}

static int replay_directory(const char *path) {
    struct dirent **entries = NULL;
    int count = scandir(path, &entries, is_input, alphasort);
    if (count < 0) return fail(path, strerror(errno));
    int runs = count > 0 ? 0 : fail(path, "no input to replay");
    for (int i = 0; i < count; i++) {
        char child[4096];
        int length = snprintf(child, sizeof child, "%s/%s", path, entries[i]->d_name);
        int added = length < (int)sizeof child ? replay_path(child) : fail(path, "path too long");
        runs = runs < 0 || added < 0 ? -1 : runs + added;
        free(entries[i]);
    }
    free(entries);
    return runs;
}

static int replay_path(const char *path) {
    struct stat status;
    if (stat(path, &status) != 0) return fail(path, strerror(errno));
    if (S_ISDIR(status.st_mode)) return replay_directory(path);
    if (S_ISREG(status.st_mode)) return replay_file(path, (size_t)status.st_size);
    return fail(path, "neither a file nor a directory");
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: %s DIRECTORY-OR-FILE...\n", argv[0]);
        return 2;
    }
    int total = 0;
    for (int i = 1; i < argc; i++) {
        int runs = replay_path(argv[i]);
        if (runs < 0) return 1;
        total += runs;
    }
    printf("%d inputs replayed\n", total);
    return 0;
}
