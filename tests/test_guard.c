/* SPDX-License-Identifier: Apache-2.0
 *
 * test_guard.c: guard zones overwritten by a single byte, poison per element type, high-water marks. */
#include "arena/guard.h"
#include "arena/fingerprint.h"

#include <math.h>
#include <mlarena/status.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <setjmp.h>
#include <cmocka.h>

/* Two layer kinds: a, b, c in stages 0..2 and d in stage 3, which lies over them. */
enum { COUNTERS, A, B, C, D, COUNT };
enum { ZONE = 256, LAST_STAGE = 3 };

static const mlar_plan_request requests[COUNT] = {
    [COUNTERS] = {"counters", 64, 256, 0, MLAR_STAGE_FOREVER},
    [A] = {"a", 1000, 256, 0, 1},
    [B] = {"b", 777, 256, 1, 2},
    [C] = {"c", 600, 256, 2, 2},
    [D] = {"d", 3000, 256, 3, 3},
};
static const mlar_element elements[COUNT] = {MLAR_ELEMENT_U64, MLAR_ELEMENT_BF16, MLAR_ELEMENT_F32,
                                             MLAR_ELEMENT_E4M3FN, MLAR_ELEMENT_I32};

typedef struct fixture {
    mlar_plan plan;
    mlar_arena_core arena;
    mlar_guards guards;
} fixture;

static void set_up(fixture *f, uint64_t zone) {
    const mlar_arena_source source = mlar_arena_source_malloc();
    assert_int_equal(mlar_plan_make(requests, COUNT, zone, &f->plan, NULL), MLAR_OK);
    assert_int_equal(mlar_arena_open(&f->arena, &source, f->plan.total_bytes, 256, NULL), MLAR_OK);
    memset(f->arena.base, 0, f->plan.total_bytes);
    assert_int_equal(mlar_arena_hold(&f->arena, f, &f->plan, NULL), MLAR_OK);
    mlar_guards_init(&f->guards, &f->plan);
}

static void tear_down(fixture *f) {
    assert_int_equal(mlar_arena_drop(&f->arena, f, NULL), MLAR_OK);
    assert_int_equal(mlar_arena_close(&f->arena, NULL), MLAR_OK);
}

/* ---- guard zones ----------------------------------------------------------------------------- */

static void write_buffers(fixture *f, int32_t stage, int value) {
    for (int32_t i = 0; i < COUNT; i++) {
        if (!mlar_plan_is_live(&requests[i], stage)) continue;
        memset(mlar_arena_pointer(&f->arena, i), value, requests[i].bytes);
    }
}

static void test_buffers_may_be_filled_to_the_last_byte(void **state) {
    (void)state;
    fixture f;
    set_up(&f, ZONE);
    mlar_guards_fill(&f.guards, &f.arena, 0, LAST_STAGE);
    for (int32_t stage = 0; stage <= LAST_STAGE; stage++) {
        mlar_arena_enter_stage(&f.arena, stage);
        mlar_guards_fill(&f.guards, &f.arena, stage, stage);
        write_buffers(&f, stage, 0xff);
        assert_int_equal(mlar_guards_check(&f.guards, &f.arena, stage, stage, NULL), MLAR_OK);
    }
    mlar_arena_enter_stage(&f.arena, MLAR_STAGE_BETWEEN);
    assert_int_equal(mlar_guards_check(&f.guards, &f.arena, 0, LAST_STAGE, NULL), MLAR_OK);
    tear_down(&f);
}

/* Overwrites one guard byte `distance` away from a buffer's side and expects exactly that to be reported. */
static void overwrite(fixture *f, int32_t index, mlar_guard_side side, uint64_t distance, int32_t stage) {
    mlar_diag diag = {.struct_size = sizeof diag};
    uint64_t offset = side == MLAR_GUARD_FRONT ? f->plan.offsets[index] - 1 - distance
                                               : f->plan.offsets[index] + requests[index].bytes + distance;
    mlar_guards_fill(&f->guards, &f->arena, stage, stage);
    assert_int_equal(mlar_guards_check(&f->guards, &f->arena, stage, stage, &diag), MLAR_OK);
    static const unsigned char flips[] = {0x01, 0x80, 0xff};
    for (size_t i = 0; i < sizeof flips; i++) {
        f->arena.base[offset] ^= flips[i];
        assert_int_equal(mlar_guards_check(&f->guards, &f->arena, stage, stage, &diag), MLAR_ERROR_GUARD);
        /* Neighbours share zones, and the first of them in the plan is named. */
        bool named = strcmp(diag.field, requests[index].name) == 0;
        if (named) assert_int_equal(diag.given, distance);
        if (named) assert_non_null(strstr(diag.message, side == MLAR_GUARD_FRONT ? "front" : "back"));
        mlar_guard_zone zone;
        assert_true(mlar_guard_zone_of(&f->plan, index, side, stage, stage, &zone));
        assert_true(offset >= zone.offset && offset < zone.offset + zone.bytes);
        assert_int_equal(mlar_guards_check_zone(&f->guards, index, side, f->arena.base + zone.offset, &diag),
                         MLAR_ERROR_GUARD);
        assert_string_equal(diag.field, requests[index].name);
        assert_int_equal(diag.given, distance);
        f->arena.base[offset] ^= flips[i];
    }
    assert_int_equal(mlar_guards_check(&f->guards, &f->arena, stage, stage, &diag), MLAR_OK);
}

static void test_one_byte_at_each_side(void **state) {
    (void)state;
    static const uint64_t zones[] = {1, 64, ZONE, 1000};
    for (size_t z = 0; z < sizeof zones / sizeof zones[0]; z++) {
        fixture f;
        set_up(&f, zones[z]);
        for (int32_t i = 0; i < COUNT; i++) {
            int32_t stage = requests[i].first_stage;
            uint64_t padding = (256 - requests[i].bytes % 256) % 256;
            overwrite(&f, i, MLAR_GUARD_FRONT, 0, stage);
            overwrite(&f, i, MLAR_GUARD_FRONT, zones[z] - 1, stage);
            overwrite(&f, i, MLAR_GUARD_BACK, 0, stage);
            overwrite(&f, i, MLAR_GUARD_BACK, padding + zones[z] - 1, stage);
        }
        tear_down(&f);
    }
}

static void test_the_nearest_byte_is_named(void **state) {
    (void)state;
    fixture f;
    mlar_diag diag = {.struct_size = sizeof diag};
    set_up(&f, ZONE);
    mlar_guards_fill(&f.guards, &f.arena, 3, 3);
    memset(f.arena.base + f.plan.offsets[D] + requests[D].bytes + 5, 0, 40);
    assert_int_equal(mlar_guards_check(&f.guards, &f.arena, 3, 3, &diag), MLAR_ERROR_GUARD);
    assert_string_equal(diag.field, "d");
    assert_int_equal(diag.given, 5);
    mlar_guards_fill(&f.guards, &f.arena, 3, 3);
    memset(f.arena.base + f.plan.offsets[COUNTERS] - 30, 0xff, 20);
    assert_int_equal(mlar_guards_check(&f.guards, &f.arena, 3, 3, &diag), MLAR_ERROR_GUARD);
    assert_string_equal(diag.field, "counters");
    assert_int_equal(diag.given, 10);
    assert_non_null(strstr(diag.message, "front"));
    tear_down(&f);
}

static void test_watched_zones(void **state) {
    (void)state;
    fixture f;
    mlar_guard_zone zone;
    set_up(&f, ZONE);
    /* Not live there: not watched. No range watches a zone that somebody in it may write. */
    assert_false(mlar_guard_zone_of(&f.plan, A, MLAR_GUARD_FRONT, 2, 3, &zone));
    assert_true(mlar_guard_zone_of(&f.plan, COUNTERS, MLAR_GUARD_FRONT, 0, LAST_STAGE, &zone));
    assert_true(zone.offset == 0 && zone.bytes == ZONE);
    int watched = 0, inside = 0;
    for (int32_t i = 0; i < COUNT; i++) {
        for (int side = 0; side < MLAR_GUARD_SIDES; side++) {
            watched += mlar_guard_zone_of(&f.plan, i, (mlar_guard_side)side, 0, LAST_STAGE, &zone);
            if (i == D || i == COUNTERS) continue;
            inside += !mlar_guard_zone_of(&f.plan, i, (mlar_guard_side)side, 0, LAST_STAGE, &zone);
            /* In its own stages every zone of every buffer is watched. */
            assert_true(mlar_guard_zone_of(&f.plan, i, (mlar_guard_side)side, requests[i].first_stage,
                                           requests[i].last_stage, &zone));
        }
    }
    assert_true(watched >= 4); /* counters and d: both sides */
    assert_true(inside >= 2);  /* d lies over zones of the others */
    tear_down(&f);

    set_up(&f, 0);
    for (int32_t i = 0; i < COUNT; i++) {
        assert_false(mlar_guard_zone_of(&f.plan, i, MLAR_GUARD_BACK, 0, LAST_STAGE, &zone));
    }
    mlar_guards_fill(&f.guards, &f.arena, 0, LAST_STAGE);
    write_buffers(&f, 0, 0x77);
    assert_int_equal(mlar_guards_check(&f.guards, &f.arena, 0, LAST_STAGE, NULL), MLAR_OK);
    tear_down(&f);
}

static void test_pattern(void **state) {
    (void)state;
    enum { BYTES = 1 << 16 };
    static unsigned char whole[BYTES], piece[100];
    int seen[256] = {0};
    mlar_guard_pattern(0, BYTES, whole);
    for (int i = 0; i < BYTES; i++) seen[whole[i]]++;
    assert_int_equal(seen[0x00], 0);
    assert_int_equal(seen[0xff], 0);
    for (int value = 1; value < 255; value++) assert_in_range(seen[value], 100, 600);
    mlar_guard_pattern(12345, sizeof piece, piece); /* it belongs to the place, not to the call */
    assert_memory_equal(piece, whole + 12345, sizeof piece);
}

/* ---- poison ---------------------------------------------------------------------------------- */

static float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void test_poison_words(void **state) {
    (void)state;
    static const uint64_t sizes[MLAR_ELEMENT_COUNT] = {2, 4, 1, 1, 4, 8};
    for (int element = 0; element < MLAR_ELEMENT_COUNT; element++) {
        assert_true(mlar_element_bytes((mlar_element)element) == sizes[element]);
    }
    for (uint32_t seed = 0; seed < 100000; seed += 1 + seed / 100) {
        uint32_t word = mlar_poison_word(MLAR_ELEMENT_BF16, seed);
        assert_true(isnan(float_of(word << 16)) && isnan(float_of(word & 0xffff0000u)));
        assert_true(isnan(float_of(mlar_poison_word(MLAR_ELEMENT_F32, seed))));
        word = mlar_poison_word(MLAR_ELEMENT_E4M3FN, seed);
        assert_true((word & 0x7f7f7f7fu) == 0x7f7f7f7fu);
        assert_true(mlar_poison_word(MLAR_ELEMENT_E4M3FNUZ, seed) == 0x80808080u);
        assert_true((int32_t)mlar_poison_word(MLAR_ELEMENT_I32, seed) < -2130706432);
        uint64_t half = mlar_poison_word(MLAR_ELEMENT_U64, seed);
        assert_true((half << 32 | half) > 10000000000000000000u);
    }
    assert_true(mlar_poison_word(MLAR_ELEMENT_BF16, 0) == 0xffffffffu);
    assert_true(mlar_poison_word(MLAR_ELEMENT_BF16, 1) != mlar_poison_word(MLAR_ELEMENT_BF16, 2));
}

static void test_high_water_of_bytes(void **state) {
    (void)state;
    enum { BYTES = 67 };
    const uint32_t word = 0x11223344u;
    for (size_t shift = 0; shift < 4; shift++) { /* any alignment, any size */
        for (uint64_t count = 0; count < BYTES; count++) {
            unsigned char bytes[BYTES + 8];
            memset(bytes, 0, sizeof bytes);
            mlar_poison_fill(bytes + shift, count, word);
            assert_int_equal(bytes[shift + count], 0); /* not a byte too many */
            assert_true(mlar_poison_high_water(bytes + shift, count, word) == 0);
            for (uint64_t at = 0; at < count; at++) {
                bytes[shift + at] ^= 1;
                assert_true(mlar_poison_high_water(bytes + shift, count, word) == at + 1);
                bytes[shift + at] ^= 1;
            }
        }
    }
}

static void test_segments(void **state) {
    (void)state;
    mlar_poison_segment segments[MLAR_POISON_MAX_SEGMENTS];
    fixture f;
    set_up(&f, 0);
    int32_t count = mlar_poison_segments(&f.plan, segments);
    /* Byte by byte: the owner is the last scratch buffer that has the byte. */
    for (uint64_t offset = 0; offset < f.plan.total_bytes; offset++) {
        int32_t owner = -1, found = -1;
        for (int32_t i = 0; i < COUNT; i++) {
            bool covers = f.plan.offsets[i] <= offset && offset < f.plan.offsets[i] + requests[i].bytes;
            if (i != COUNTERS && covers) owner = i;
        }
        for (int32_t i = 0; i < count; i++) {
            if (offset < segments[i].offset || offset >= segments[i].offset + segments[i].bytes) continue;
            assert_int_equal(found, -1);
            found = segments[i].index;
        }
        assert_int_equal(found, owner);
    }
    tear_down(&f);
}

static void test_poison_over_the_arena(void **state) {
    (void)state;
    fixture f;
    set_up(&f, ZONE);
    mlar_guards_fill(&f.guards, &f.arena, 0, LAST_STAGE);
    for (uint32_t seed = 0; seed < 3; seed++) {
        mlar_arena_enter_stage(&f.arena, MLAR_STAGE_BETWEEN);
        mlar_arena_poison(&f.arena, elements, seed);
        assert_true(mlar_arena_high_water(&f.arena, elements, seed) == 0);
        assert_int_equal(((unsigned char *)mlar_arena_pointer(&f.arena, COUNTERS))[0], 0); /* left alone */
        assert_int_equal(mlar_guards_check(&f.guards, &f.arena, 0, LAST_STAGE, NULL), MLAR_OK);
        mlar_arena_enter_stage(&f.arena, MLAR_STAGE_ANY);
        for (int32_t i = A; i < COUNT; i++) { /* one byte anywhere in any buffer moves the mark to it */
            uint64_t at = requests[i].bytes / 2;
            unsigned char *bytes = mlar_arena_pointer(&f.arena, i);
            bytes[at] ^= 1;
            assert_true(mlar_arena_high_water(&f.arena, elements, seed) == f.plan.offsets[i] + at + 1);
            bytes[at] ^= 1;
        }
    }
    tear_down(&f);
}

static void test_high_water_by_stage(void **state) {
    (void)state;
    static const uint64_t written[COUNT] = {64, 999, 0, 123, 3000};
    uint64_t marks[MLAR_PLAN_MAX_REQUESTS] = {0};
    fixture f;
    set_up(&f, ZONE);
    for (int32_t stage = 0; stage <= LAST_STAGE; stage++) {
        mlar_arena_enter_stage(&f.arena, stage);
        mlar_arena_poison_stage(&f.arena, elements, 5, stage);
        for (int32_t i = A; i < COUNT; i++) {
            if (requests[i].first_stage != stage || written[i] == 0) continue;
            memset(mlar_arena_pointer(&f.arena, i), 0, written[i]);
        }
        mlar_arena_measure_stage(&f.arena, elements, 5, stage, marks);
    }
    assert_true(marks[COUNTERS] == 0); /* persistent buffers are not poisoned */
    for (int32_t i = A; i < COUNT; i++) assert_true(marks[i] == written[i]);
    tear_down(&f);
}

/* ---- fingerprint ----------------------------------------------------------------------------- */

static void test_fingerprint(void **state) {
    (void)state;
    mlar_plan plan;
    const unsigned char config[] = {1, 2, 3, 4, 5, 6, 7, 8};
    unsigned char other[sizeof config];
    assert_int_equal(mlar_plan_make(requests, COUNT, ZONE, &plan, NULL), MLAR_OK);
    uint64_t print = mlar_plan_fingerprint(config, sizeof config, &plan);
    assert_true(print == mlar_plan_fingerprint(config, sizeof config, &plan));
    assert_true(print == 0x1bd445d9a859c86bu); /* the same on every machine */
    for (size_t i = 0; i < sizeof config; i++) {
        memcpy(other, config, sizeof config);
        other[i] ^= 1;
        assert_true(print != mlar_plan_fingerprint(other, sizeof other, &plan));
    }
    assert_true(print != mlar_plan_fingerprint(config, sizeof config - 1, &plan));
    assert_true(print != mlar_plan_fingerprint(NULL, 0, &plan));
#define CHANGES(place)                                                                                       \
    do {                                                                                                     \
        mlar_plan changed = plan;                                                                            \
        changed.place += 1;                                                                                  \
        assert_true(print != mlar_plan_fingerprint(config, sizeof config, &changed));                        \
    } while (0)
    CHANGES(total_bytes);
    CHANGES(lower_bound_bytes);
    CHANGES(sum_bytes);
    CHANGES(guard_bytes);
    CHANGES(stage_count);
    CHANGES(guard_zone_bytes);
    CHANGES(align);
    for (int32_t i = 0; i < COUNT; i++) {
        CHANGES(offsets[i]);
        CHANGES(requests[i].bytes);
        CHANGES(requests[i].align);
        CHANGES(requests[i].first_stage);
    }
    CHANGES(requests[A].last_stage);
#undef CHANGES
    mlar_plan renamed = plan;
    renamed.requests[A].name = "z"; /* names are for people */
    assert_true(print == mlar_plan_fingerprint(config, sizeof config, &renamed));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buffers_may_be_filled_to_the_last_byte),
        cmocka_unit_test(test_one_byte_at_each_side),
        cmocka_unit_test(test_the_nearest_byte_is_named),
        cmocka_unit_test(test_watched_zones),
        cmocka_unit_test(test_pattern),
        cmocka_unit_test(test_poison_words),
        cmocka_unit_test(test_high_water_of_bytes),
        cmocka_unit_test(test_segments),
        cmocka_unit_test(test_poison_over_the_arena),
        cmocka_unit_test(test_high_water_by_stage),
        cmocka_unit_test(test_fingerprint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
