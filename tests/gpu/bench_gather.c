/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_gather.c: how near the gather kernel comes to a copy on the device.
 *
 *     bench_gather IMAGES ARCH [ROWS...]      IMAGES, ARCH: as for test_kernels_gpu
 *
 * For every number of rows [16 64 128]: the time of a gather of 128 + 512 entries of 448 + 64 dimensions a row,
 * beside that of a plain copy that moves as many bytes (read plus written), and of the same launch without live rows.
 * All are queued back to back over sets of inputs that together do not fit in any cache, turn by turn, and the
 * median of the rounds is printed. The first set's buffer is held against the reference, bit for bit. Exits 1 if it
 * differs. */
#define _POSIX_C_SOURCE 200809L

#include "kernels/gpu/launch.h"
#include "tests/gpu/device.h"
#include "tests/support/cases.h"
#include "tests/support/check.h"
#include "tests/support/reference.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { WINDOW = 128, EXTRA = 512, SETS = 6, ROUNDS = 15, TURNS = 4 };

typedef struct set {
    step_case *made;
    mlar_stage_args args;
    void *buffers[CASE_MAX_BUFFERS];
} set;

static const char *images, *arch;
static const device_function *gather;
static mlar_gpu_launch grid;
static void *counter;

static double now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e6 * (double)t.tv_sec + 1e-3 * (double)t.tv_nsec;
}

/* Distinct slots all over a cache of 24 MB a scope; the buffers are shared by all sets. */
static void make_set(set *one, int32_t rows, uint64_t seed, uint16_t *const gathered[2]) {
    case_spec spec = {.seed = seed,
                      .rows = rows,
                      .capacity_rows = rows,
                      .heads = 1,
                      .nope = 448,
                      .rope = 64,
                      .scope_count = 2};
    for (int s = 0; s < 2; s++)
        spec.scope[s] = (case_scope_spec){
            .block_size = 64, .num_blocks = 640, .width = s ? EXTRA : WINDOW, .rows_per_len = 1};
    one->made = case_new(&spec);
    mlar_stage_args *args = &one->args;
    *args = (mlar_stage_args){.shape = one->made->shape, .layer = one->made->layer};
    args->capacity_rows = args->rows = args->row_count = args->shape.row_tile = rows;
    args->shape.workers = 132;
    args->shape.splits = 1;
    args->invalid_indices = counter;
    for (int32_t i = 0; i < one->made->buffer_count; i++) {
        const case_buffer *buffer = &one->made->buffers[i];
        one->buffers[i] = device_new(buffer->bytes);
        device_write(one->buffers[i], buffer->memory, buffer->bytes);
        case_point(&args->layer, buffer, one->buffers[i]);
    }
    for (int s = 0; s < 2; s++) args->gathered[s] = gathered[s];
}

static void free_set(set *one) {
    for (int32_t i = 0; i < one->made->buffer_count; i++) device_free(one->buffers[i]);
    case_free(one->made);
}

static void find_kernel(const set *one) {
    if (!mlar_gpu_launch_of(arch, MLAR_STAGE_GATHER, &one->args, &one->args.layer, &grid)) exit(3);
    gather = device_function_of(images, arch, &grid);
}

static void run_gather(const set *one) {
    device_launch(gather, &grid, &one->args);
}

/* The launch alone: nothing is gathered. */
static void run_empty(const set *one) {
    set empty = *one;
    empty.args.rows = 0;
    run_gather(&empty);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int is_right(const set *one, int32_t rows) {
    reference *expected = reference_new(&one->made->layer, &one->made->shape, rows);
    int right = 1;
    run_gather(one);
    for (int s = 0; s < 2; s++) {
        size_t bytes = (size_t)rows * (s ? EXTRA : WINDOW) * 512 * 2;
        uint16_t *kept = malloc(bytes);
        char message[200] = "";
        device_read(kept, one->args.gathered[s], bytes);
        right &= check_gathered(expected, s, kept, -1, message, sizeof message);
        if (message[0]) printf("%s\n", message);
        free(kept);
    }
    reference_free(expected);
    return right;
}

static int one_size(int32_t rows) {
    set sets[SETS];
    uint16_t *gathered[2];
    size_t entries = (size_t)rows * (WINDOW + EXTRA);
    /* 448 bytes, 64 bf16 and 8 scale bytes of a record, an index, and the 512 bf16 that are written */
    size_t moved = entries * (584 + 4 + 1024), half = moved / 2;
    for (int s = 0; s < 2; s++) gathered[s] = device_new((size_t)rows * (s ? EXTRA : WINDOW) * 512 * 2);
    for (int i = 0; i < SETS; i++) make_set(&sets[i], rows, 1 + (uint64_t)i, gathered);
    uint8_t *from = device_new(half * SETS), *to = device_new(half);
    find_kernel(&sets[0]);
    int right = is_right(&sets[0], rows);
    double gathers[ROUNDS], copies[ROUNDS], launches[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        device_wait();
        double begin = now_us();
        for (int i = 0; i < SETS * TURNS; i++) run_gather(&sets[i % SETS]);
        device_wait();
        double between = now_us();
        for (int i = 0; i < SETS * TURNS; i++) device_copy(to, from + (size_t)(i % SETS) * half, half);
        device_wait();
        double after = now_us();
        for (int i = 0; i < SETS * TURNS; i++) run_empty(&sets[i % SETS]);
        device_wait();
        gathers[round] = (between - begin) / (SETS * TURNS);
        copies[round] = (after - between) / (SETS * TURNS);
        launches[round] = (now_us() - after) / (SETS * TURNS);
    }
    qsort(gathers, ROUNDS, sizeof *gathers, by_value);
    qsort(copies, ROUNDS, sizeof *copies, by_value);
    qsort(launches, ROUNDS, sizeof *launches, by_value);
    double us = gathers[ROUNDS / 2], copy_us = copies[ROUNDS / 2];
    printf("%6d %10.1f %10.1f %10.0f %10.1f %10.0f %9.2f %10.1f%s\n", (int)rows, 1e-6 * (double)moved, us,
           1e-3 * (double)moved / us, copy_us, 1e-3 * (double)moved / copy_us, copy_us / us,
           launches[ROUNDS / 2], right ? "" : "  WRONG");
    for (int i = 0; i < SETS; i++) free_set(&sets[i]);
    for (int s = 0; s < 2; s++) device_free(gathered[s]);
    device_free(from);
    device_free(to);
    return right;
}

int main(int argc, char **argv) {
    static const int32_t usual[] = {16, 64, 128};
    int right = 1;
    if (argc < 3) return 2;
    images = argv[1];
    arch = argv[2];
    if (!device_open(NULL)) {
        printf("skipped: no device\n");
        return 77;
    }
    counter = device_new(8);
    printf("%s; gather of %d + %d entries a row, medians of %d rounds\n", device_name(), WINDOW, EXTRA,
           ROUNDS);
    printf("%6s %10s %10s %10s %10s %10s %9s %10s\n", "rows", "MB moved", "gather us", "GB/s", "copy us",
           "GB/s", "of copy", "launch us");
    if (argc > 3)
        for (int i = 3; i < argc; i++) right &= one_size((int32_t)strtol(argv[i], NULL, 10));
    else
        for (size_t i = 0; i < sizeof usual / sizeof *usual; i++) right &= one_size(usual[i]);
    return !right;
}
