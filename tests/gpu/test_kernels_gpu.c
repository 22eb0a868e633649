/* SPDX-License-Identifier: Apache-2.0
 *
 * test_kernels_gpu.c: the GPU kernels alone, without the engine, held against the float64 reference.
 *
 *     test_kernels_gpu IMAGES ARCH [OPTION...]
 *
 *     --library L           the runtime: a path; else the CUDA driver or HIP, whichever is there
 *     --seeds FIRST COUNT   cases to draw [1 40]
 *     --heads N --rows N --width N --small   bounds of what is drawn
 *     --far                 also a cache beyond 4 GB
 *     --tuned               the engine that the launch table prefers, and cases that it serves, one of each layout for
 *                           a seed and one of both; without it, the portable one
 *     --verbose             names each case
 *
 * IMAGES is a folder of images named as kernels/gpu/CMakeLists.txt names them. For every seed a case of
 * tests/support is drawn, laid out in device memory, and run under each policy and strategy of the table
 * below, with the launches that kernels/gpu/launch.c gives. Checked: accuracy, the gather buffer bit for bit,
 * the schedule against the CPU's, bytes that must stay as they were, the count of invalid indices, the same
 * bits on a second run over differently poisoned memory, and the same bits from both strategies where one
 * engine serves both. The first run launches as the engine does, ahead of the last kernel's end where the table
 * allows it; the second one kernel after the other. Prints one line for each kind of check and exits 1 if any
 * failed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/kernels.h"
#include "kernels/gpu/launch.h"
#include "kernels/schedule.h"
#include "tests/gpu/device.h"
#include "tests/gpu/kernel_cases.h"
#include "tests/support/cases.h"
#include "tests/support/check.h"
#include "tests/support/reference.h"

/* ---- what is run ---- */

typedef struct variant {
    const char *name;
    int32_t gathered;
    int32_t splits;  /* 0: balanced */
    int32_t workers; /* also bounds the grid */
    int32_t cut_granule;
    int32_t row_tile; /* 0: all rows at once */
    int32_t blocks;   /* layer and step stand in device memory, written by set_block */
    int32_t same_as;  /* variant that must give the same bits, or -1 */
    int32_t merged_elements_per_tile;
    int32_t cluster_blocks; /* what the schedule is made for; 0: no clusters */
    int32_t merged;         /* blocks of the clusters that attend; 0: workers and combine do */
    int32_t half; /* the program is for half the live rows: device data may say that there are more */
} variant;

static const variant variants[] = {
    {"direct, balanced, 13 workers", 0, 0, 13, 1, 0, 0, -1, 0, 0, 0, 0},
    {"gathered, balanced, 13 workers", 1, 0, 13, 1, 0, 1, 0, 0, 0, 0, 0},
    {"direct, balanced, 132 workers", 0, 0, 132, 2, 0, 1, -1, 0, 0, 0, 0},
    {"direct, invariant, 1 part", 0, 1, 132, 1, 0, 0, -1, 0, 0, 0, 0},
    {"gathered, invariant, 1 part, row tile 2", 1, 1, 7, 1, 2, 0, 3, 0, 0, 0, 0},
    {"direct, invariant, 3 parts, row tile 1", 0, 3, 132, 1, 1, 1, -1, 0, 0, 0, 0},
    {"gathered, invariant, 3 parts", 1, 3, 5, 1, 0, 0, 5, 0, 0, 0, 0},
    {"gathered, balanced, 2 workers, row tile 2", 1, 0, 2, 1, 2, 0, -1, 0, 0, 0, 0},
    {"direct, balanced, splits cost time", 0, 0, 13, 1, 0, 0, -1, 5000, 0, 0, 0},
    {"direct, schedule for clusters of 8", 0, 0, 132, 1, 0, 0, -1, 0, 8, 0, 0},
    {"direct, clusters of 8", 0, 0, 132, 1, 0, 1, 9, 0, 8, 8, 0},
    {"gathered, schedule for clusters of 5", 1, 0, 132, 1, 0, 0, -1, 0, 5, 0, 0},
    {"gathered, clusters of 5", 1, 0, 132, 1, 0, 0, 11, 0, 5, 5, 0},
    {"direct, schedule for clusters of 3", 0, 0, 27, 1, 0, 1, -1, 0, 3, 0, 0},
    {"direct, clusters of 3", 0, 0, 27, 1, 0, 0, 13, 0, 3, 3, 0},
    {"direct, clusters of 3, schedule for 8", 0, 0, 132, 1, 0, 0, -1, 0, 8, 3, 0},
    {"direct, 3 parts, program for half the rows", 0, 3, 132, 1, 1, 1, -1, 0, 0, 0, 1},
    {"direct, program for half the rows", 0, 0, 132, 1, 0, 1, -1, 0, 0, 0, 1},
    {"gathered, program for half the rows", 1, 0, 13, 1, 2, 1, -1, 0, 0, 0, 1},
    {"direct, clusters of 8, program for half the rows", 0, 0, 132, 1, 0, 1, -1, 0, 8, 8, 1},
    {"direct, clusters of 2, program for half the rows", 0, 0, 132, 1, 0, 1, -1, 0, 2, 2, 1},
    {"gathered, clusters of 5, program for half the rows", 1, 0, 27, 1, 0, 1, -1, 0, 5, 5, 1},
};
enum { VARIANTS = sizeof variants / sizeof *variants };

enum {
    CHECK_STEP,
    CHECK_GATHERED,
    CHECK_UNTOUCHED,
    CHECK_TAIL,
    CHECK_INVALID,
    CHECK_SCHEDULE,
    CHECK_REPEAT,
    CHECK_SAME,
    CHECKS
};
static const char *const check_names[CHECKS] = {
    "out and lse within SPEC", "gather buffer, bit for bit",
    "nothing else written",    "tail rows zero",
    "invalid_indices",         "schedule equals the CPU's",
    "second run, same bits",   "same bits as the variant beside it",
};

static struct {
    long passed[CHECKS], failed[CHECKS];
    double worst_l2, difference2, sum2;
    const char *images, *arch;
    const mlar_layer_params
        *layer; /* of the case at hand, or null: the table then gives the portable engine */
    int tuned;
    int verbose;
    int ahead; /* kernels may begin before the one ahead of them has ended, where the table says so */
    long launched_ahead;
} run;

static void count(int check, int pass, const step_case *made, const variant *v, const char *message) {
    char line[512];
    if (pass) {
        run.passed[check]++;
        return;
    }
    if (run.failed[check]++ < 5)
        printf("FAIL %s: %s\n     %s: %s\n", check_names[check], message, v->name,
               case_describe(&made->spec, line, sizeof line));
}

/* ---- a case in device memory ---- */

typedef struct on_device {
    mlar_layer_params layer; /* device pointers */
    void *buffers[CASE_MAX_BUFFERS];
    void *gathered[MLAR_MAX_SCOPES];
    size_t gathered_bytes[MLAR_MAX_SCOPES];
    void *partial_out, *partial_ml, *schedule, *cuts, *rows, *counter, *layer_block, *step_block, *live;
    size_t partial_out_bytes, partial_ml_bytes, schedule_bytes, cuts_bytes, rows_bytes;
} on_device;

static void place_case(const step_case *made, on_device *at) {
    memset(at, 0, sizeof *at);
    at->layer = made->layer;
    run.layer = run.tuned ? &at->layer : NULL;
    for (int32_t i = 0; i < made->buffer_count; i++) {
        const case_buffer *buffer = &made->buffers[i];
        at->buffers[i] = device_new(buffer->bytes);
        device_write(at->buffers[i], buffer->memory, buffer->bytes);
        case_point(&at->layer, buffer, at->buffers[i]);
    }
    at->counter = device_new(8);
    at->layer_block = device_new(MLAR_SET_BLOCK_BYTES);
    at->step_block = device_new(MLAR_SET_BLOCK_BYTES);
    at->live = device_new(4);
}

static void remove_case(const step_case *made, on_device *at) {
    for (int32_t i = 0; i < made->buffer_count; i++) device_free(at->buffers[i]);
    device_free(at->counter);
    device_free(at->layer_block);
    device_free(at->step_block);
    device_free(at->live);
}

/* ---- launches ---- */

/* Kernels take the layer from `args`, or where it points; the table wants to see the bindings. */
static void launch(int32_t stage, const mlar_stage_args *args, const mlar_set_block_args *block) {
    mlar_gpu_launch what;
    if (!mlar_gpu_launch_of(run.arch, stage, args, run.layer, &what)) {
        fprintf(stderr, "no kernel of stage %d for %s\n", (int)stage, run.arch);
        exit(3);
    }
    what.overlaps = what.overlaps && run.ahead;
    run.launched_ahead += what.overlaps && device_overlaps();
    device_launch(device_function_of(run.images, run.arch, &what), &what,
                  block ? (const void *)block : (const void *)args);
}

static void set_block(void *to, const void *from, size_t bytes) {
    mlar_set_block_args block;
    memset(&block, 0, sizeof block);
    block.to = to;
    block.bytes = bytes;
    memcpy(block.payload, from, bytes);
    launch(MLAR_STAGE_SET_BLOCK, NULL, &block);
}

static int32_t max_tiles(const step_case *made) {
    int32_t tiles = 0;
    for (int32_t s = 0; s < made->layer.scope_count; s++)
        tiles += mlar_ceil_div(made->layer.scope[s].width, MLAR_KEY_TILE);
    return mlar_max_i32(tiles, 1);
}

/* What the program that attends is captured for; prepare, which serves all programs, always has the capacity. */
static int32_t program_rows(const step_case *made, const variant *v) {
    return v->half ? mlar_ceil_div(made->spec.rows, 2) : made->spec.capacity_rows;
}

/* Arguments of a variant, but for the row tile. */
static mlar_stage_args args_of(const step_case *made, const variant *v) {
    mlar_stage_args args;
    memset(&args, 0, sizeof args);
    args.shape = made->shape;
    args.capacity_rows = made->spec.capacity_rows;
    args.rows = made->spec.rows;
    args.shape.workers = v->workers;
    args.shape.cut_granule = v->cut_granule;
    args.shape.merged_elements_per_tile = v->merged_elements_per_tile;
    args.shape.cluster_blocks = v->cluster_blocks;
    args.shape.cluster_rows = v->cluster_blocks ? program_rows(made, v) : 0;
    args.shape.splits = v->splits;
    args.shape.row_tile =
        v->row_tile ? mlar_min_i32(v->row_tile, made->spec.capacity_rows) : made->spec.capacity_rows;
    args.shape.slot_limit =
        (int32_t)(v->splits ? (int64_t)args.shape.row_tile * v->splits
                            : mlar_balanced_slot_bound(v->workers, v->cut_granule, args.shape.row_tile,
                                                       max_tiles(made)));
    mlar_gpu_traits(run.arch, made->shape.heads, &args.shape.heads_per_group_min,
                    &args.shape.heads_per_group_max);
    return args;
}

static void new_scratch(const step_case *made, on_device *at, mlar_stage_args *args) {
    const int32_t row_tiles = mlar_ceil_div(args->shape.max_rows, args->shape.row_tile);
    const size_t slots = (size_t)args->shape.slot_limit * (size_t)args->shape.heads;
    at->partial_out_bytes = slots * (size_t)args->shape.d_v * 4;
    at->partial_ml_bytes = slots * 8;
    at->cuts_bytes = (size_t)row_tiles * (size_t)(args->shape.workers + 1) * sizeof(mlar_schedule_cut);
    args->partial_out = at->partial_out = device_new(at->partial_out_bytes);
    args->partial_ml = at->partial_ml = device_new(at->partial_ml_bytes);
    at->schedule_bytes = (size_t)row_tiles * sizeof(mlar_schedule_head);
    at->rows_bytes = (size_t)args->shape.max_rows * sizeof(mlar_schedule_row);
    args->schedule = at->schedule = device_new(at->schedule_bytes);
    args->cuts = at->cuts = device_new(at->cuts_bytes);
    args->schedule_rows = at->rows = device_new(at->rows_bytes);
    args->invalid_indices = at->counter;
    for (int32_t s = 0; s < made->layer.scope_count; s++) {
        at->gathered_bytes[s] =
            (size_t)args->shape.row_tile * (size_t)made->layer.scope[s].width * (size_t)made->shape.d_qk * 2;
        args->gathered[s] = at->gathered[s] = device_new(at->gathered_bytes[s]);
    }
}

static void free_scratch(const step_case *made, on_device *at) {
    void *const all[] = {at->partial_out, at->partial_ml, at->schedule, at->cuts, at->rows};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) device_free(all[i]);
    for (int32_t s = 0; s < made->layer.scope_count; s++) device_free(at->gathered[s]);
}

static void poison(const step_case *made, on_device *at, int byte) {
    device_fill(at->partial_out, byte, at->partial_out_bytes);
    device_fill(at->partial_ml, byte, at->partial_ml_bytes);
    device_fill(at->schedule, byte, at->schedule_bytes);
    device_fill(at->cuts, byte, at->cuts_bytes);
    device_fill(at->rows, byte, at->rows_bytes);
    for (int32_t s = 0; s < made->layer.scope_count; s++)
        device_fill(at->gathered[s], byte, at->gathered_bytes[s]);
    for (int32_t i = 0; i < made->buffer_count; i++)
        if (made->buffers[i].is_output) device_fill(at->buffers[i], CASE_PATTERN, made->buffers[i].bytes);
    device_fill(at->counter, 0, 8);
}

/* How the layer and the rows travel. */
static void carry(const step_case *made, on_device *at, const variant *v, mlar_stage_args *args) {
    const int32_t rows = made->spec.rows == made->spec.capacity_rows ? made->spec.rows + 9 : made->spec.rows;
    if (v->blocks) {
        const mlar_step_params step = {.rows_device = at->live};
        device_write(at->live, &rows, sizeof rows); /* device data above the capacity is clamped */
        set_block(at->layer_block, &at->layer, sizeof at->layer);
        set_block(at->step_block, &step, sizeof step);
        args->layer_block = at->layer_block;
        args->step_block = at->step_block;
    } else {
        args->layer = at->layer;
    }
}

/* The gather buffers of a row tile, into their place among all rows. */
static void keep_gathered(const step_case *made, const on_device *at, const mlar_stage_args *args,
                          uint16_t *const *kept) {
    for (int32_t s = 0; s < made->layer.scope_count; s++) {
        const size_t row_bytes = at->gathered_bytes[s] / (size_t)args->shape.row_tile;
        device_read((uint8_t *)kept[s] + (size_t)args->row_begin * row_bytes, at->gathered[s],
                    (size_t)args->row_count * row_bytes);
    }
}

static void check_schedule(const step_case *made, const on_device *at, const mlar_stage_args *args,
                           const variant *v) {
    mlar_stage_args host = *args;
    const int32_t row_tiles = mlar_ceil_div(args->shape.max_rows, args->shape.row_tile),
                  cuts = args->shape.workers + 1;
    mlar_schedule_head *heads = calloc((size_t)row_tiles * 2, sizeof *heads);
    mlar_schedule_cut *cut = calloc((size_t)(row_tiles * cuts) * 2, sizeof *cut);
    mlar_schedule_row *rows = calloc((size_t)args->shape.max_rows * 2, sizeof *rows);
    int same = 1;
    host.layer = made->layer;
    host.layer_block = NULL;
    host.step_block = NULL;
    host.rows = made->spec.rows;
    host.schedule = heads + row_tiles;
    host.cuts = cut + row_tiles * cuts;
    host.schedule_rows = rows + args->shape.max_rows;
    host.row_begin = 0;
    host.row_count = made->spec.capacity_rows;
    mlar_cpu_prepare(&host);
    device_read(heads, at->schedule, (size_t)row_tiles * sizeof *heads);
    device_read(cut, at->cuts, at->cuts_bytes);
    device_read(rows, at->rows, (size_t)args->shape.max_rows * sizeof *rows);
    for (int32_t t = 0; t < row_tiles; t++) {
        same &= memcmp(&heads[t], &host.schedule[t], sizeof *heads) == 0;
        same &= memcmp(&cut[t * cuts], &host.cuts[t * cuts],
                       (size_t)(host.schedule[t].workers + 1) * sizeof *cut) == 0;
        same &= heads[t].slots <= args->shape.slot_limit;
    }
    same &= memcmp(rows, host.schedule_rows, (size_t)made->spec.rows * sizeof *rows) == 0;
    count(CHECK_SCHEDULE, same, made, v, "differs");
    free(heads);
    free(cut);
    free(rows);
}

/* One step. What it wrote is read back into the case's own outputs and `kept`. */
static void run_step(step_case *made, on_device *at, const variant *v, int poison_byte,
                     uint16_t *const *kept) {
    mlar_stage_args args = args_of(made, v);
    new_scratch(made, at, &args);
    poison(made, at, poison_byte);
    carry(made, at, v, &args);
    if (v->splits == 0) {
        for (args.row_begin = 0; args.row_begin < args.capacity_rows; args.row_begin += args.shape.row_tile) {
            args.row_count = mlar_min_i32(args.shape.row_tile, args.capacity_rows - args.row_begin);
            launch(MLAR_STAGE_PREPARE, &args, NULL);
        }
        check_schedule(made, at, &args, v);
    }
    args.shape.cluster_blocks = v->merged;
    if (v->merged == 0) args.shape.cluster_rows = 0;
    args.capacity_rows = program_rows(made, v);
    for (args.row_begin = 0; args.row_begin < args.capacity_rows; args.row_begin += args.shape.row_tile) {
        const int32_t attend = v->gathered ? MLAR_STAGE_ATTEND_GATHERED : MLAR_STAGE_ATTEND_DIRECT;
        args.row_count = mlar_min_i32(args.shape.row_tile, args.capacity_rows - args.row_begin);
        if (v->gathered) launch(MLAR_STAGE_GATHER, &args, NULL);
        launch(attend, &args, NULL);
        if (args.shape.slot_limit > 0 && !mlar_gpu_merges(run.arch, attend, &args, run.layer))
            launch(MLAR_STAGE_COMBINE, &args, NULL);
        if (v->gathered) {
            keep_gathered(made, at, &args, kept);
            for (int32_t s = 0; s < made->layer.scope_count; s++)
                device_fill(at->gathered[s], poison_byte, at->gathered_bytes[s]);
        }
    }
    for (int32_t i = 0; i < made->buffer_count; i++)
        if (made->buffers[i].is_output)
            device_read(made->buffers[i].memory, at->buffers[i], made->buffers[i].bytes);
    free_scratch(made, at);
}

/* ---- what is checked ---- */

/* All outputs of the case, one after the other. */
static uint8_t *outputs_of(const step_case *made, size_t *bytes) {
    uint8_t *all;
    *bytes = 0;
    for (int32_t i = 0; i < made->buffer_count; i++)
        if (made->buffers[i].is_output) *bytes += made->buffers[i].bytes;
    all = malloc(*bytes + 1);
    *bytes = 0;
    for (int32_t i = 0; all && i < made->buffer_count; i++)
        if (made->buffers[i].is_output) {
            memcpy(all + *bytes, made->buffers[i].memory, made->buffers[i].bytes);
            *bytes += made->buffers[i].bytes;
        }
    return all;
}

/* `expected` is of the rows that the program computes. */
static void check_variant(step_case *made, on_device *at, const reference *expected, int number,
                          uint8_t **results) {
    const variant *v = &variants[number];
    const case_spec whole = made->spec;
    uint16_t *kept[MLAR_MAX_SCOPES] = {NULL, NULL};
    check_result result;
    uint64_t invalid;
    size_t bytes;
    uint8_t *again;
    char message[256];
    for (int32_t s = 0; s < made->layer.scope_count; s++)
        kept[s] = malloc((size_t)made->spec.capacity_rows * (size_t)made->layer.scope[s].width *
                             (size_t)made->shape.d_qk * 2 +
                         1);
    run.ahead = 1;
    run_step(made, at, v, 0xff, kept);
    made->spec.capacity_rows = program_rows(made, v);
    made->spec.rows = expected->rows;
    device_read(&invalid, at->counter, sizeof invalid);
    snprintf(message, sizeof message, "%llu, expected %llu", (unsigned long long)invalid,
             (unsigned long long)expected->invalid);
    count(CHECK_INVALID, invalid == expected->invalid, made, v, message);
    count(CHECK_STEP, check_step(made, expected, &check_spec, &result), made, v, result.message);
    if (result.relative_l2 > run.worst_l2) run.worst_l2 = result.relative_l2;
    run.difference2 += result.difference2;
    run.sum2 += result.sum2;
    count(CHECK_UNTOUCHED,
          check_untouched_beyond(made, made->spec.tail_zero ? made->spec.capacity_rows : made->spec.rows),
          made, v, "written");
    if (made->spec.tail_zero) count(CHECK_TAIL, check_tail_is_zero(made), made, v, "not zero");
    for (int32_t s = 0; v->gathered && s < made->layer.scope_count; s++) {
        const int ok = check_gathered(expected, s, kept[s], 0xff, message, sizeof message);
        count(CHECK_GATHERED, ok, made, v, message);
    }
    results[number] = outputs_of(made, &bytes);
    if (v->same_as >= 0 && (v->merged > 0 || !run.tuned))
        count(CHECK_SAME, memcmp(results[number], results[v->same_as], bytes) == 0, made, v, "bits differ");
    made->spec = whole;
    run.ahead = 0;
    run_step(made, at, v, 0x00, kept);
    again = outputs_of(made, &bytes);
    count(CHECK_REPEAT, memcmp(again, results[number], bytes) == 0, made, v, "bits differ");
    free(again);
    free(kept[0]);
    free(kept[1]);
}

/* Under every variant; frees the case. */
static void run_case(step_case *made) {
    const int32_t rows = made->spec.rows;
    reference *expected = reference_new(&made->layer, &made->shape, rows);
    reference *half = reference_new(&made->layer, &made->shape, mlar_ceil_div(rows, 2));
    uint8_t *results[VARIANTS] = {NULL};
    on_device at;
    char line[512];
    if (run.verbose) printf("%s\n", case_describe(&made->spec, line, sizeof line)), fflush(stdout);
    place_case(made, &at);
    for (int i = 0; i < VARIANTS; i++)
        if (rows > 1 || !variants[i].half)
            check_variant(made, &at, variants[i].half ? half : expected, i, results);
    for (int i = 0; i < VARIANTS; i++) free(results[i]);
    remove_case(made, &at);
    reference_free(expected);
    reference_free(half);
    case_free(made);
}

int main(int argc, char **argv) {
    const char *library = NULL;
    case_bounds bounds = {.heads = 128, .width = 300, .rows = 5};
    long first = 1, seeds = 40, failed = 0;
    int far = 0;
    for (int i = 3; i < argc; i++) {
        if (!strcmp(argv[i], "--library") && i + 1 < argc) library = argv[++i];
        if (!strcmp(argv[i], "--seeds") && i + 2 < argc)
            first = atol(argv[i + 1]), seeds = atol(argv[i + 2]), i += 2;
        if (!strcmp(argv[i], "--heads") && i + 1 < argc) bounds.heads = atoi(argv[++i]);
        if (!strcmp(argv[i], "--rows") && i + 1 < argc) bounds.rows = atoi(argv[++i]);
        if (!strcmp(argv[i], "--width") && i + 1 < argc) bounds.width = atoi(argv[++i]);
        if (!strcmp(argv[i], "--small")) bounds.dims = 1;
        if (!strcmp(argv[i], "--tuned")) run.tuned = 1;
        if (!strcmp(argv[i], "--far")) far = 1;
        if (!strcmp(argv[i], "--verbose")) run.verbose = 1;
    }
    if (argc < 3) return 2;
    run.images = argv[1];
    run.arch = argv[2];
    if (!device_open(library)) {
        printf("skipped: no device\n");
        return 77;
    }
    if (first == 1 && !run.tuned) {
        for (int32_t i = 0; i < 8; i++) run_case(kernel_case_all_bytes(i % 2, i / 2 % 2 * 2, i / 4));
        for (int32_t i = 0; i < KERNEL_CASE_LIMITS; i++) run_case(kernel_case_limit(i));
    }
    if (far) run_case(kernel_case_far());
    for (long seed = first; seed < first + seeds; seed++) {
        static const int32_t layouts[] = {MLAR_LAYOUT_DSV4, MLAR_LAYOUT_V32, MLAR_LAYOUT_BF16, -1};
        const case_spec spec = case_draw((uint64_t)seed, CASE_ALL, &bounds);
        if (!run.tuned) run_case(case_new(&spec));
        for (size_t i = 0; run.tuned && i < sizeof layouts / sizeof *layouts; i++)
            run_case(kernel_case_tuned((uint64_t)seed, layouts[i], &bounds));
    }
    printf("%s, %s, seeds %ld to %ld\n", device_name(), run.arch, first, first + seeds - 1);
    for (int i = 0; i < CHECKS; i++) {
        printf("  %-40s %6ld passed %6ld failed\n", check_names[i], run.passed[i], run.failed[i]);
        failed += run.failed[i];
    }
    printf("  %-40s %6ld\n", "launches ahead of the last one's end", run.launched_ahead);
    printf("  relative L2 of out, worst step           %.2e\n", run.worst_l2);
    return failed != 0;
}
