/* SPDX-License-Identifier: Apache-2.0
 *
 * test_memory.c: the size query is pure, fast, within SPEC section 8, and exact: init lives on the queried
 * bytes between two inaccessible pages, and names what is missing with one byte fewer. */
#define _GNU_SOURCE /* mmap, clock_gettime */
#include "tests/support/engine_case.h"
#include "tests/support/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static mlar_memory query(const mlar_config *config) {
    mlar_memory memory = {.struct_size = sizeof memory};
    mlar_diag diag = DIAG_INIT;
    if (mlar_memory_query(config, &memory, &diag) != MLAR_OK) fail_msg("%s", diag.message);
    return memory;
}

/* ---- golden figures -------------------------------------------------------------------------------- */

enum { GATHER = MLAR_STRATEGY_GATHER, DIRECT = MLAR_STRATEGY_DIRECT };
enum { BALANCED = MLAR_POLICY_BALANCED, INVARIANT = MLAR_POLICY_BATCH_INVARIANT };

static const struct golden {
    const char *preset;
    int32_t tp, strategy, policy, rows;
    uint64_t floor, ceiling; /* of device_bytes, self-test included, one CPU thread */
} goldens[] = {
    {"dsv4-flash", 1, GATHER, BALANCED, 1, 11300000, 11500000},
    {"dsv4-flash", 1, GATHER, BALANCED, 64, 546000000, 551000000},
    {"dsv4-flash", 1, DIRECT, BALANCED, 64, 4900000, 5050000},
    {"dsv4-flash", 8, GATHER, INVARIANT, 64, 545200000, 546000000},
    {"dsv4-flash", 8, DIRECT, BALANCED, 1, 690000, 710000},
    {"dsv4-flash", 8, DIRECT, BALANCED, 64, 970000, 1000000},
    {"dsv4-flash", 8, DIRECT, INVARIANT, 64, 480000, 500000},
    {"dsv4-pro", 1, DIRECT, INVARIANT, 1, 5400000, 5600000},
    {"dsv4-pro", 8, GATHER, BALANCED, 1, 9400000, 9600000},
    {"dsv4-pro", 8, DIRECT, BALANCED, 64, 1500000, 1550000},
    {"v32", 1, GATHER, BALANCED, 64, 158000000, 161000000},
    {"v32", 8, DIRECT, BALANCED, 64, 1500000, 1550000},
};

static mlar_config golden_config(const struct golden *row) {
    mlar_config config;
    MUST(mlar_config_preset(&config, row->preset, row->tp, NULL));
    config.max_rows = row->rows;
    config.strategy = row->strategy;
    config.policy = row->policy;
    return config;
}

static uint64_t least(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

/* SPEC section 8, kind by kind, from the configuration alone. */
static void check_spec_bounds(const mlar_config *config, const mlar_memory *memory) {
    const uint64_t units = (uint64_t)config->device.compute_units;
    for (int32_t b = 0; b < memory->buffer_count; b++) {
        const mlar_buffer_info *buffer = &memory->buffers[b];
        if (buffer->kind < 0 || buffer->persistent) continue;
        const mlar_kind_config *kind = &config->kinds[buffer->kind];
        const uint64_t rows = (uint64_t)memory->row_tile[buffer->kind];
        const uint64_t d_qk = (uint64_t)(config->nope + config->rope);
        const uint64_t d_v = kind->scope[0].layout == MLAR_LAYOUT_V32 ? (uint64_t)config->nope : d_qk;
        uint64_t keys = 0, partial = 0;
        for (int32_t s = 0; s < kind->scope_count; s++) keys += (uint64_t)kind->scope[s].width;
        if (config->policy == MLAR_POLICY_BALANCED)
            partial = least(rows * ((keys + 63) / 64), units + least(rows, units));
        else
            partial = rows * (config->splits ? (uint64_t)config->splits : 64);
        const int gathered = strncmp(buffer->name, "gather.", 7) == 0;
        const uint64_t bound =
            gathered ? rows * keys * d_qk * 2 : partial * (uint64_t)config->heads * (d_v + 2) * 4;
        if (gathered) assert_int_equal(memory->strategy, MLAR_STRATEGY_GATHER);
        if (buffer->bytes > bound)
            fail_msg("%s: %lu bytes, SPEC allows %lu", buffer->name, buffer->bytes, bound);
    }
}

/* Buffers that live at one time stay apart, aligned and inside the arena. */
static void check_map(const mlar_memory *memory) {
    for (int32_t a = 0; a < memory->buffer_count; a++) {
        const mlar_buffer_info *x = &memory->buffers[a];
        assert_true(x->bytes > 0 && x->name[0] && x->shape[0]);
        assert_int_equal(x->offset_bytes % x->align_bytes, 0);
        assert_true(x->offset_bytes + x->bytes <= memory->device_bytes);
        assert_true(x->first_stage <= x->last_stage && x->last_stage < memory->stage_count);
        for (int32_t b = 0; b < a; b++) {
            const mlar_buffer_info *y = &memory->buffers[b];
            const int together =
                x->persistent || y->persistent ||
                (x->kind == y->kind && x->first_stage <= y->last_stage && y->first_stage <= x->last_stage);
            if (together && x->offset_bytes < y->offset_bytes + y->bytes &&
                y->offset_bytes < x->offset_bytes + x->bytes)
                fail_msg("%s[%d] lies over %s[%d]", x->name, x->kind, y->name, y->kind);
        }
    }
}

static void test_golden_bytes(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof goldens / sizeof *goldens; i++) {
        const struct golden *row = &goldens[i];
        mlar_config config = golden_config(row);
        mlar_memory memory = query(&config);
        if (memory.device_bytes < row->floor || memory.device_bytes > row->ceiling)
            fail_msg("%s tp %d rows %d: %lu bytes, golden %lu .. %lu", row->preset, row->tp, row->rows,
                     memory.device_bytes, row->floor, row->ceiling);
        assert_int_equal(memory.device_bytes, memory.lower_bound_bytes + memory.guard_bytes);
        assert_true(memory.host_bytes > 30000 && memory.host_bytes < 200000);
        assert_int_equal(memory.host_bytes % memory.host_align_bytes, 0);
        assert_true(memory.persistent_bytes < memory.device_bytes);
        assert_true(memory.minimum_budget_bytes <= memory.device_bytes);
        assert_int_equal(memory.strategy, row->strategy);
        check_spec_bounds(&config, &memory);
        check_map(&memory);
        config.guard_bytes = 512;
        mlar_memory guarded = query(&config);
        assert_true(guarded.guard_bytes >= 512 * 2);
        assert_int_equal(guarded.device_bytes, guarded.lower_bound_bytes + guarded.guard_bytes);
        assert_int_equal(guarded.lower_bound_bytes, memory.lower_bound_bytes);
        assert_int_not_equal(guarded.fingerprint, memory.fingerprint);
        check_map(&guarded);
    }
}

static void test_auto_is_direct_and_has_no_gather_buffer(void **state) {
    (void)state;
    mlar_config config = golden_config(&goldens[0]);
    config.strategy = MLAR_STRATEGY_AUTO;
    mlar_memory memory = query(&config);
    assert_int_equal(memory.strategy, MLAR_STRATEGY_DIRECT);
    for (int32_t b = 0; b < memory.buffer_count; b++)
        assert_int_not_equal(strncmp(memory.buffers[b].name, "gather.", 7), 0);
}

/* ---- pure and fast --------------------------------------------------------------------------------- */

static void test_query_is_pure(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof goldens / sizeof *goldens; i++) {
        mlar_config config = golden_config(&goldens[i]), before = config;
        mlar_memory first, second;
        memset(&first, 0, sizeof first);
        memset(&second, 0xff, sizeof second);
        first.struct_size = second.struct_size = sizeof first;
        MUST(mlar_memory_query(&config, &first, NULL));
        MUST(mlar_memory_query(&config, &second, NULL));
        assert_memory_equal(&first, &second, sizeof first);
        assert_memory_equal(&config, &before, sizeof config);
        config.parallel_context = &config; /* an address is no part of a plan's identity */
        assert_int_equal(query(&config).fingerprint, first.fingerprint);
        config.heads--;
        assert_int_not_equal(query(&config).fingerprint, first.fingerprint);
    }
}

static void test_query_takes_less_than_10_ms(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof goldens / sizeof *goldens; i++) {
        mlar_config config = golden_config(&goldens[i]);
        config.max_rows = 4096;
        double best = 1;
        for (int n = 0; n < 5; n++) {
            struct timespec begin, end;
            clock_gettime(CLOCK_MONOTONIC, &begin);
            (void)query(&config);
            clock_gettime(CLOCK_MONOTONIC, &end);
            const double seconds =
                (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec);
            if (seconds < best) best = seconds;
        }
        if (!(best < (SANITIZED ? 0.200 : 0.010))) fail_msg("%s: %g s", goldens[i].preset, best);
    }
}

static void test_memory_struct_size(void **state) {
    (void)state;
    struct {
        mlar_memory memory;
        unsigned char tail[16];
    } longer;
    mlar_config config = golden_config(&goldens[0]);
    mlar_diag diag;
    memset(&longer, 0x77, sizeof longer);
    longer.memory.struct_size = sizeof longer.memory - 1;
    MUST_NAME(MLAR_ERROR_STRUCT_SIZE, "memory.struct_size", diag,
              mlar_memory_query(&config, &longer.memory, &diag));
    assert_int_equal(longer.memory.device_bytes, 0x7777777777777777); /* nothing was written */
    longer.memory.struct_size = sizeof longer;
    MUST(mlar_memory_query(&config, &longer.memory, NULL));
    assert_int_equal(longer.memory.struct_size, sizeof longer);
    for (size_t i = 0; i < sizeof longer.tail; i++) assert_int_equal(longer.tail[i], 0x77);
    MUST_BE(MLAR_ERROR_ARGUMENT, mlar_memory_query(NULL, &longer.memory, NULL));
    MUST_BE(MLAR_ERROR_ARGUMENT, mlar_memory_query(&config, NULL, NULL));
}

static void append(void *context, const char *text, size_t bytes) {
    char *all = context;
    size_t used = strlen(all);
    assert_true(used + bytes < 65536);
    memcpy(all + used, text, bytes);
    all[used + bytes] = 0;
}

static void test_printed_map_names_every_buffer(void **state) {
    (void)state;
    mlar_config config = golden_config(&goldens[0]);
    mlar_memory memory = query(&config);
    for (int32_t json = 0; json < 2; json++) {
        char *text = calloc(1, 65536), bytes[32];
        MUST(mlar_memory_print(&memory, json, append, text));
        assert_int_equal(text[0] == '{', json);
        for (int32_t b = 0; b < memory.buffer_count; b++)
            if (!strstr(text, memory.buffers[b].name))
                fail_msg("no %s in:\n%s", memory.buffers[b].name, text);
        snprintf(bytes, sizeof bytes, "%lu", (unsigned long)memory.device_bytes);
        if (json && !strstr(text, bytes)) fail_msg("no %s in:\n%s", bytes, text);
        free(text);
    }
    MUST_BE(MLAR_ERROR_ARGUMENT, mlar_memory_print(NULL, 0, append, NULL));
    MUST_BE(MLAR_ERROR_ARGUMENT, mlar_memory_print(&memory, 0, NULL, NULL));
    for (int32_t b = 0; b < memory.buffer_count; b++) { /* stages that the sequence does not have */
        const int32_t wrong[][2] = {
            {-40, 0}, {0, -1}, {0, memory.stage_count}, {INT32_MIN, INT32_MAX}, {2, 1}};
        if (memory.buffers[b].persistent) continue;
        for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
            mlar_memory bad = memory;
            bad.buffers[b].first_stage = wrong[i][0];
            bad.buffers[b].last_stage = wrong[i][1];
            MUST_BE(MLAR_ERROR_ARGUMENT, mlar_memory_print(&bad, 0, append, NULL));
        }
    }
}

/* Kernels for one vendor's devices run under no other's runtime. */
static void test_an_architecture_has_one_vendor(void **state) {
    (void)state;
    static const char *const profiles[] = {"mi300x", "h100"};
    mlar_memory memory = {.struct_size = sizeof memory};
    mlar_diag diag;
    for (int i = 0; i < 2; i++) {
        mlar_config config = golden_config(&goldens[0]);
        MUST(mlar_device_profile_named(&config.device, profiles[i], NULL));
        MUST(mlar_memory_query(&config, &memory, NULL));
        config.device.device = i ? MLAR_DEVICE_HIP : MLAR_DEVICE_CUDA;
        MUST_NAME(MLAR_ERROR_UNSUPPORTED, "device.arch", diag, mlar_memory_query(&config, &memory, &diag));
    }
}

/* SPEC section 8, where scopes do not fill their last tiles: no more slots than if they could share one. */
static void test_slots_stay_below_the_ceiling(void **state) {
    (void)state;
    static const int32_t widths[] = {1, 40, 64, 65, 130, 200}, rows[] = {1, 2, 5};
    enum { WIDTHS = sizeof widths / sizeof *widths };
    for (int32_t i = 0; i < WIDTHS * WIDTHS * 3; i++) {
        const int32_t window = widths[i % WIDTHS], extra = widths[i / WIDTHS % WIDTHS];
        mlar_config config;
        mlar_config_init(&config);
        config.heads = 8;
        config.max_rows = rows[i / WIDTHS / WIDTHS];
        config.kind_count = 1;
        config.kinds[0].scope_count = 2;
        config.kinds[0].scope[0].width = window;
        config.kinds[0].scope[1].width = extra;
        const mlar_memory memory = query(&config);
        if (memory.slots[0] > config.max_rows * ((window + extra + 63) / 64))
            fail_msg("%d + %d keys, %d rows: %d slots", (int)window, (int)extra, (int)config.max_rows,
                     (int)memory.slots[0]);
    }
}

/* ---- exactly the bytes ----------------------------------------------------------------------------- */

/* `bytes` between two inaccessible pages, touching the one behind. */
typedef struct fenced {
    unsigned char *map, *base;
    size_t map_bytes;
} fenced;

static fenced fence(uint64_t bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), inner = ((size_t)bytes + page - 1) / page * page;
    fenced f = {.map_bytes = inner + 2 * page};
    f.map = mmap(NULL, f.map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(f.map != MAP_FAILED);
    assert_int_equal(mprotect(f.map + page, inner, PROT_READ | PROT_WRITE), 0);
    f.base = f.map + page + inner - bytes;
    memset(f.base, 0xff, (size_t)bytes);
    return f;
}

static void unfence(fenced *f) {
    assert_int_equal(munmap(f->map, f->map_bytes), 0);
}

typedef struct fixture {
    step_case *made;
    mlar_config config;
    mlar_memory memory;
    mlar_arena arena;
    fenced device, host;
    mlar_engine *engine;
} fixture;

static void set_up(fixture *f, int32_t strategy, int32_t policy, int32_t guard_bytes) {
    case_spec spec = engine_case_spec(1, 3, 4, 70, 200);
    memset(f, 0, sizeof *f);
    f->made = case_new(&spec);
    f->config = engine_case_config((const step_case *const *)&f->made, 1);
    f->config.strategy = strategy;
    f->config.policy = policy;
    f->config.guard_bytes = guard_bytes;
    f->config.threads = 2;
    f->config.selftest = 1;
    f->memory = query(&f->config);
    f->device = fence(f->memory.device_bytes);
    f->host = fence(f->memory.host_bytes);
}

static void tear_down(fixture *f) {
    case_free(f->made);
    unfence(&f->device);
    unfence(&f->host);
}

static mlar_status init(fixture *f, uint64_t device_bytes, uint64_t host_bytes, mlar_diag *diag) {
    MUST(mlar_arena_from_caller(&f->arena, f->device.base, device_bytes, 1, NULL));
    f->engine = (mlar_engine *)(uintptr_t)1;
    return mlar_engine_init(&f->config, NULL, &f->arena, f->host.base, host_bytes, &f->engine, diag);
}

static void run_and_close(fixture *f) {
    const reference *expected = reference_new(&f->made->layer, &f->made->shape, f->made->spec.rows);
    engine_case run = {.engine = f->engine};
    check_result result;
    mlar_program *program = engine_case_capture(&run, 0, f->made, 4);
    engine_case_eager(&run, 0, f->made);
    if (!check_step(f->made, expected, &check_spec_cpu, &result)) fail_msg("%s", result.message);
    engine_case_replay(&run, program, 0, f->made, 3);
    if (!check_step(f->made, expected, &check_spec_cpu, &result)) fail_msg("%s", result.message);
    MUST(mlar_engine_selftest(f->engine, NULL, NULL));
    MUST(mlar_engine_deinit(f->engine));
    MUST(mlar_arena_release(&f->arena, NULL));
    reference_free((reference *)(uintptr_t)expected);
}

static void fails_one_short(fixture *f, const char *field, uint64_t device_bytes, uint64_t host_bytes,
                            uint64_t given, uint64_t needed) {
    mlar_diag diag;
    MUST_NAME(MLAR_ERROR_MEMORY_SIZE, field, diag, init(f, device_bytes, host_bytes, &diag));
    assert_int_equal(diag.given, given);
    assert_int_equal(diag.needed, needed);
    char missing[32];
    snprintf(missing, sizeof missing, "%lu", (unsigned long)(needed - given));
    assert_non_null(strstr(diag.message, missing));
    assert_null(f->engine);
    MUST(mlar_arena_release(&f->arena, NULL)); /* nobody holds it */
}

static void test_exactly_the_queried_bytes(void **state) {
    (void)state;
    for (int32_t strategy = GATHER; strategy <= DIRECT; strategy++)
        for (int32_t policy = BALANCED; policy <= INVARIANT; policy++)
            for (int32_t guard_bytes = 0; guard_bytes <= 256; guard_bytes += 256) {
                fixture f;
                set_up(&f, strategy, policy, guard_bytes);
                const uint64_t device = f.memory.device_bytes, host = f.memory.host_bytes;
                MUST(init(&f, device, host, NULL));
                run_and_close(&f);
                fails_one_short(&f, "arena.bytes", device - 1, host, device - 1, device);
                fails_one_short(&f, "host_bytes", device, host - 1, host - 1, host);
                MUST(init(&f, device, host, NULL));
                run_and_close(&f);
                tear_down(&f);
            }
}

static void test_grown_from_nothing(void **state) {
    (void)state;
    fixture f;
    set_up(&f, GATHER, BALANCED, 0);
    const uint64_t device = f.memory.device_bytes, host = f.memory.host_bytes;
    for (int i = 0; i < 50; i++)
        fails_one_short(&f, "host_bytes", device, host * (uint64_t)i / 50, host * (uint64_t)i / 50, host);
    for (int i = 0; i < 50; i++)
        fails_one_short(&f, "arena.bytes", device * (uint64_t)i / 50, host, device * (uint64_t)i / 50,
                        device);
    MUST(init(&f, device, host, NULL));
    run_and_close(&f);
    tear_down(&f);
}

static void test_misaligned_memory_is_refused(void **state) {
    (void)state;
    fixture f;
    mlar_diag diag;
    set_up(&f, DIRECT, BALANCED, 0);
    const uint64_t device = f.memory.device_bytes, host = f.memory.host_bytes;
    for (uint64_t off = 1; off < f.memory.device_align_bytes; off *= 2) {
        fenced wider = fence(device + f.memory.device_align_bytes), kept = f.device;
        f.device.base = wider.base + off;
        MUST_NAME(MLAR_ERROR_MEMORY_ALIGNMENT, "arena.base", diag, init(&f, device, host, &diag));
        assert_int_equal(diag.given, off);
        assert_int_equal(diag.needed, f.memory.device_align_bytes);
        assert_null(f.engine);
        unfence(&wider);
        f.device = kept;
    }
    for (uint64_t off = 1; off < f.memory.host_align_bytes; off *= 2) {
        fenced wider = fence(host + f.memory.host_align_bytes), kept = f.host;
        f.host.base = wider.base + off;
        MUST_NAME(MLAR_ERROR_MEMORY_ALIGNMENT, "host_memory", diag, init(&f, device, host, &diag));
        assert_int_equal(diag.given, off);
        unfence(&wider);
        f.host = kept;
    }
    MUST(init(&f, device, host, NULL));
    run_and_close(&f);
    tear_down(&f);
}

static void test_memory_of_the_wrong_kind(void **state) {
    (void)state;
    fixture f;
    mlar_diag diag;
    set_up(&f, DIRECT, BALANCED, 0);
    MUST(mlar_arena_from_caller(&f.arena, f.device.base, f.memory.device_bytes, 0, NULL));
    MUST_NAME(
        MLAR_ERROR_MEMORY_KIND, "arena", diag,
        mlar_engine_init(&f.config, NULL, &f.arena, f.host.base, f.memory.host_bytes, &f.engine, &diag));
    MUST(mlar_arena_release(&f.arena, NULL));
    MUST(init(&f, f.memory.device_bytes, f.memory.host_bytes, NULL));
    run_and_close(&f);
    tear_down(&f);
}

/* An arena may be larger than the plan, and come from malloc. */
static void test_a_larger_arena(void **state) {
    (void)state;
    fixture f;
    set_up(&f, GATHER, INVARIANT, 0);
    MUST(mlar_arena_from_malloc(&f.arena, f.memory.device_bytes + 12345, NULL));
    MUST(mlar_engine_init(&f.config, NULL, &f.arena, f.host.base, f.memory.host_bytes, &f.engine, NULL));
    run_and_close(&f);
    MUST(mlar_arena_release(&f.arena, NULL)); /* twice is fine */
    tear_down(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_bytes),
        cmocka_unit_test(test_auto_is_direct_and_has_no_gather_buffer),
        cmocka_unit_test(test_query_is_pure),
        cmocka_unit_test(test_query_takes_less_than_10_ms),
        cmocka_unit_test(test_memory_struct_size),
        cmocka_unit_test(test_printed_map_names_every_buffer),
        cmocka_unit_test(test_slots_stay_below_the_ceiling),
        cmocka_unit_test(test_an_architecture_has_one_vendor),
        cmocka_unit_test(test_exactly_the_queried_bytes),
        cmocka_unit_test(test_grown_from_nothing),
        cmocka_unit_test(test_misaligned_memory_is_refused),
        cmocka_unit_test(test_memory_of_the_wrong_kind),
        cmocka_unit_test(test_a_larger_arena),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
