/* SPDX-License-Identifier: Apache-2.0
 *
 * test_plan.c: the planner against the independent checker, against an exhaustive search where that is
 * possible, and against bad requests. */
#include "arena/plan.h"
#include "arena/plan_check.h"

#include <mlarena/status.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <setjmp.h>
#include <cmocka.h>

enum { REQUESTS = MLAR_PLAN_MAX_REQUESTS };
#define TOP ((uint64_t)1 << 63)

/* ---- random request sets --------------------------------------------------------------------- */

static uint64_t random_state;

static uint64_t random_below(uint64_t limit) {
    random_state += 0x9e3779b97f4a7c15u; /* splitmix64 */
    uint64_t z = random_state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % limit;
}

/* What a family of random sets looks like, and how often its plans must reach the lower bound (in
 * thousandths). */
typedef struct family {
    const char *name;
    int32_t count_max, stages;
    uint64_t units_max; /* sizes: 1..units_max times the alignment, sometimes less a few bytes */
    int32_t align_log_lo, align_log_hi;
    int32_t persistent_percent, empty_percent;
    int32_t bound_floor;
} family;

static const family families[] = {
    {"like an engine's", 12, 4, 4096, 8, 8, 30, 5, 1000},
    {"several layer kinds", 32, 16, 4096, 8, 8, 20, 5, 995},
    {"as many as fit", 64, 40, 1000, 8, 8, 10, 5, 990},
    {"few sizes", 24, 10, 4, 8, 8, 10, 5, 990},
    {"mixed alignments", 12, 6, 64, 0, 12, 20, 5, 990},
    {"many mixed alignments", 64, 24, 64, 0, 12, 20, 5, 900},
    {"huge", 20, 8, (uint64_t)1 << 44, 8, 14, 20, 5, 980},
};

static int32_t make_random(const family *f, mlar_plan_request *requests) {
    int32_t count = (int32_t)random_below((uint64_t)f->count_max + 1);
    for (int32_t i = 0; i < count; i++) {
        mlar_plan_request *r = &requests[i];
        uint64_t logs = (uint64_t)(f->align_log_hi - f->align_log_lo + 1);
        r->name = "b";
        r->align = (uint64_t)1 << (f->align_log_lo + (int32_t)random_below(logs));
        r->bytes = r->align * (1 + random_below(f->units_max));
        if (random_below(3) == 0) r->bytes -= random_below(r->align);
        if (random_below(100) < (uint64_t)f->empty_percent) r->bytes = 0;
        r->first_stage = (int32_t)random_below((uint64_t)f->stages);
        r->last_stage = r->first_stage + (int32_t)random_below(4);
        if (random_below(100) < (uint64_t)f->persistent_percent) {
            r->first_stage = 0;
            r->last_stage = MLAR_STAGE_FOREVER;
        }
    }
    return count;
}

static void plan_well(const mlar_plan_request *requests, int32_t count, uint64_t guard, mlar_plan *plan) {
    mlar_diag diag = {.struct_size = sizeof diag};
    mlar_status status = mlar_plan_make(requests, count, guard, plan, &diag);
    if (status != MLAR_OK) print_error("%s\n", diag.message);
    assert_int_equal(status, MLAR_OK);
    status = mlar_plan_check(requests, count, plan, &diag);
    if (status != MLAR_OK) print_error("%s\n", diag.message);
    assert_int_equal(status, MLAR_OK);
}

static void shuffle(mlar_plan_request *requests, int32_t count) {
    for (int32_t i = count - 1; i > 0; i--) {
        int32_t other = (int32_t)random_below((uint64_t)i + 1);
        mlar_plan_request kept = requests[i];
        requests[i] = requests[other];
        requests[other] = kept;
    }
}

static void check_properties(const mlar_plan_request *requests, int32_t count, const mlar_plan *plan) {
    static mlar_plan again, guarded;
    mlar_plan_request shuffled[REQUESTS];
    assert_true(plan->lower_bound_bytes <= plan->total_bytes && plan->total_bytes <= plan->sum_bytes);
    assert_true(plan->guard_bytes == 0);
    plan_well(requests, count, 0, &again);
    assert_memory_equal(plan, &again, sizeof again);

    static const uint64_t zones[] = {1, 256, 1000, 65536};
    for (size_t i = 0; i < sizeof zones / sizeof zones[0]; i++) {
        plan_well(requests, count, zones[i], &guarded);
        assert_true(guarded.total_bytes - guarded.guard_bytes == plan->total_bytes);
        assert_true(guarded.lower_bound_bytes == plan->lower_bound_bytes);
        assert_true(guarded.total_bytes == 0 || guarded.guard_bytes >= 2 * zones[i]);
    }

    memcpy(shuffled, requests, (size_t)count * sizeof shuffled[0]);
    shuffle(shuffled, count);
    plan_well(shuffled, count, 65536, &again);
    assert_true(again.total_bytes == guarded.total_bytes && again.guard_bytes == guarded.guard_bytes);
    assert_true(again.sum_bytes == plan->sum_bytes && again.lower_bound_bytes == plan->lower_bound_bytes);
    assert_true(again.align == plan->align && again.stage_count == plan->stage_count);
}

static void test_random_sets(void **state) {
    (void)state;
    enum { SETS = 1000 };
    for (size_t f = 0; f < sizeof families / sizeof families[0]; f++) {
        int reached = 0;
        double excess_max = 0;
        random_state = f + 1;
        for (int set = 0; set < SETS; set++) {
            static mlar_plan plan;
            mlar_plan_request requests[REQUESTS];
            int32_t count = make_random(&families[f], requests);
            plan_well(requests, count, 0, &plan);
            check_properties(requests, count, &plan);
            reached += plan.total_bytes == plan.lower_bound_bytes;
            double excess = (double)(plan.total_bytes - plan.lower_bound_bytes);
            if (excess > 0) excess /= (double)plan.lower_bound_bytes;
            if (excess > excess_max) excess_max = excess;
        }
        print_message("%-22s %4d of %d at the lower bound, largest excess %.1f %%\n", families[f].name,
                      reached, SETS, 100 * excess_max);
        assert_true(reached >= families[f].bound_floor * SETS / 1000);
    }
}

/* ---- against every order --------------------------------------------------------------------- */

static bool together(const mlar_plan_request *a, const mlar_plan_request *b) {
    return a->first_stage <= b->last_stage && b->first_stage <= a->last_stage;
}

/* The least total over all orders in which the buffers can lie above each other. */
static uint64_t least_total(const mlar_plan_request *requests, int32_t count, uint32_t placed, uint64_t *ends,
                            uint64_t total, uint64_t best) {
    if (total >= best) return best;
    if (placed == ((uint32_t)1 << count) - 1) return total;
    for (int32_t i = 0; i < count; i++) {
        if ((placed >> i & 1) != 0) continue;
        uint64_t offset = 0;
        for (int32_t j = 0; j < count; j++) {
            if ((placed >> j & 1) == 0 || !together(&requests[i], &requests[j])) continue;
            if (ends[j] > offset) offset = ends[j];
        }
        uint64_t mask = requests[i].align - 1;
        ends[i] = ((offset + mask) & ~mask) + ((requests[i].bytes + mask) & ~mask);
        best = least_total(requests, count, placed | (uint32_t)1 << i, ends,
                           ends[i] > total ? ends[i] : total, best);
    }
    return best;
}

static void test_small_sets_are_optimal(void **state) {
    (void)state;
    static const family small[] = {
        {"", 7, 5, 6, 8, 8, 0, 0, 0},
        {"", 7, 5, 6, 0, 4, 10, 0, 0},
    };
    int above = 0;
    random_state = 77;
    for (int set = 0; set < 2000; set++) {
        static mlar_plan plan;
        mlar_plan_request requests[REQUESTS];
        uint64_t ends[REQUESTS];
        int32_t count = make_random(&small[set % 2], requests);
        plan_well(requests, count, 0, &plan);
        assert_true(plan.total_bytes == least_total(requests, count, 0, ends, 0, UINT64_MAX));
        above += plan.total_bytes > plan.lower_bound_bytes;
    }
    print_message("%d of 2000 small sets cannot reach their lower bound\n", above);
    assert_true(above > 0);
}

/* ---- the sequences an engine has ------------------------------------------------------------- */

#define ALWAYS 0, MLAR_STAGE_FOREVER
#define MIB    ((uint64_t)1 << 20)

static void expect_bound(const mlar_plan_request *requests, int32_t count, uint64_t total) {
    static mlar_plan plan;
    plan_well(requests, count, 0, &plan);
    assert_true(plan.total_bytes == total);
    assert_true(plan.lower_bound_bytes == total);
    plan_well(requests, count, 256, &plan);
    assert_true(plan.total_bytes - plan.guard_bytes == total);
}

static void test_sequences_reach_the_bound(void **state) {
    (void)state;
    const mlar_plan_request gather_attend_combine[] = {
        {"counters", 64, 256, ALWAYS},         {"step", 64, 256, ALWAYS},
        {"schedule", 4100, 256, ALWAYS},       {"gather.window", 8 * MIB, 256, 1, 2},
        {"gather.extra", 32 * MIB, 256, 1, 2}, {"partial.out", 33 * MIB, 256, 2, 3},
        {"partial.ml", 66000, 256, 2, 3},
    };
    expect_bound(gather_attend_combine, 7, 256 + 256 + 4352 + 73 * MIB + 66048);

    /* Three layer kinds, each with its own stages; the largest decides. */
    const mlar_plan_request kinds[] = {
        {"counters", 64, 256, ALWAYS},
        {"gather.window/0", 8 * MIB, 256, 1, 2},
        {"partial.out/0", 9 * MIB, 256, 2, 3},
        {"gather.window/1", 8 * MIB, 256, 5, 6},
        {"gather.extra/1", 32 * MIB, 256, 5, 6},
        {"partial.out/1", 11 * MIB, 256, 6, 7},
        {"gather.window/2", 8 * MIB, 256, 9, 10},
        {"gather.extra/2", 7 * MIB, 256, 9, 10},
        {"partial.out/2", 40 * MIB, 256, 10, 11},
    };
    expect_bound(kinds, 9, 256 + 55 * MIB);

    /* An indexer whose logits die before the gather buffers are born. */
    const mlar_plan_request indexer[] = {
        {"kv_write", 3 * MIB, 256, 0, 0}, {"logits", 64 * MIB, 256, 1, 2},  {"top_k", 1 * MIB, 256, 2, 3},
        {"gather", 40 * MIB, 256, 3, 4},  {"partial", 25 * MIB, 256, 4, 5}, {"rotated", 2 * MIB, 256, 5, 6},
        {"counters", 64, 256, ALWAYS},
    };
    expect_bound(indexer, 7, 256 + 65 * MIB);

    /* A chain in which neighbours overlap: buffers must alternate between the ends of the arena. */
    const mlar_plan_request chain[] = {
        {"a", 5 * MIB, 256, 0, 1}, {"b", 7 * MIB, 256, 1, 2}, {"c", 5 * MIB, 256, 2, 3},
        {"d", 7 * MIB, 256, 3, 4}, {"e", 4 * MIB, 256, 4, 5}, {"f", 8 * MIB, 256, 5, 6},
    };
    expect_bound(chain, 6, 12 * MIB);

    /* Small alignments beside large ones cost nothing. */
    const mlar_plan_request mixed[] = {
        {"flag", 1, 1, ALWAYS}, {"page", 4096, 4096, ALWAYS}, {"word", 4, 4, 0, 0}, {"line", 64, 64, 0, 0}};
    expect_bound(mixed, 4, 4096 + 64 + 4 + 1);
}

static void test_persistent_buffers_lie_first(void **state) {
    (void)state;
    static mlar_plan plan;
    const mlar_plan_request requests[] = {
        {"scratch", MIB, 256, 0, 1},
        {"counters", 64, 256, ALWAYS},
        {"late", 2 * MIB, 256, 2, 2},
        {"step", 64, 256, ALWAYS},
    };
    plan_well(requests, 4, 0, &plan);
    assert_true(plan.offsets[1] == 0 && plan.offsets[3] == 256);
    assert_true(plan.offsets[0] == 512 && plan.offsets[2] == 512);
    assert_int_equal(plan.stage_count, 3);
    plan_well(requests, 4, 512, &plan);
    assert_true(plan.offsets[1] == 512 && plan.offsets[3] == 512 + 256 + 512);
    assert_true(plan.guard_bytes == 4 * 512);
}

/* ---- edges and bad requests ------------------------------------------------------------------ */

static void test_edges(void **state) {
    (void)state;
    static mlar_plan plan;
    plan_well(NULL, 0, 0, &plan);
    assert_true(plan.total_bytes == 0 && plan.align == 1 && plan.stage_count == 0);
    plan_well(NULL, 0, UINT64_MAX, &plan);
    assert_true(plan.total_bytes == 0 && plan.guard_bytes == 0);

    const mlar_plan_request empty = {"empty", 0, TOP, 3, 7};
    plan_well(&empty, 1, 64, &plan);
    assert_true(plan.total_bytes == 0 && plan.align == 1 && plan.offsets[0] == 0 && plan.stage_count == 8);

    const mlar_plan_request latest = {"latest", 1, 1, MLAR_STAGE_FOREVER - 1, MLAR_STAGE_FOREVER - 1};
    plan_well(&latest, 1, 0, &plan);
    assert_true(plan.total_bytes == 1 && plan.stage_count == INT32_MAX);

    const mlar_plan_request largest = {"largest", TOP - 1, 1, 0, 0};
    plan_well(&largest, 1, 0, &plan);
    assert_true(plan.total_bytes == TOP - 1);

    mlar_plan_request many[REQUESTS];
    for (int32_t i = 0; i < REQUESTS; i++) {
        many[i] = (mlar_plan_request){"same", 1000, 1, i, i};
    }
    plan_well(many, REQUESTS, 0, &plan);
    assert_true(plan.total_bytes == 1000 && plan.sum_bytes == 64000);
}

typedef struct bad_case {
    const char *why;
    mlar_plan_request request;
    uint64_t guard;
    mlar_status status;
    const char *field;
} bad_case;

static const bad_case bad_cases[] = {
    {"no name", {NULL, 1, 1, 0, 0}, 0, MLAR_ERROR_ARGUMENT, "requests[1].name"},
    {"alignment 0", {"x", 1, 0, 0, 0}, 0, MLAR_ERROR_ARGUMENT, "requests[1].align"},
    {"alignment 24", {"x", 1, 24, 0, 0}, 0, MLAR_ERROR_ARGUMENT, "requests[1].align"},
    {"alignment 24, empty", {"x", 0, 24, 0, 0}, 0, MLAR_ERROR_ARGUMENT, "requests[1].align"},
    {"first > last", {"x", 1, 1, 3, 2}, 0, MLAR_ERROR_ARGUMENT, "requests[1].last_stage"},
    {"first < 0", {"x", 1, 1, -1, 2}, 0, MLAR_ERROR_ARGUMENT, "requests[1].first_stage"},
    {"both < 0", {"x", 1, 1, INT32_MIN, INT32_MIN}, 0, MLAR_ERROR_ARGUMENT, "requests[1].first_stage"},
    {"persistent, born late",
     {"x", 1, 1, 1, MLAR_STAGE_FOREVER},
     0,
     MLAR_ERROR_ARGUMENT,
     "requests[1].first_stage"},
    {"2^63 bytes", {"x", TOP, 1, 0, 0}, 0, MLAR_ERROR_OVERFLOW, "requests[1].bytes"},
    {"2^64 - 1 bytes", {"x", UINT64_MAX, 1, 0, 0}, 0, MLAR_ERROR_OVERFLOW, "requests[1].bytes"},
    {"2^64 - 1, aligned", {"x", UINT64_MAX, 4096, 0, 0}, 0, MLAR_ERROR_OVERFLOW, "requests[1].bytes"},
    {"rounds up to 2^63", {"x", 1, TOP, 0, 0}, 0, MLAR_ERROR_OVERFLOW, "requests[1].bytes"},
    {"sum is 2^63", {"x", TOP - 16, 16, 0, 0}, 0, MLAR_ERROR_OVERFLOW, "requests[1].bytes"},
    {"guards of 2^63", {"x", 1, 1, 0, 0}, TOP, MLAR_ERROR_OVERFLOW, "guard_zone_bytes"},
    {"guards of 2^64 - 1", {"x", 1, 1, 0, 0}, UINT64_MAX, MLAR_ERROR_OVERFLOW, "guard_zone_bytes"},
    {"guards beside 2^62", {"x", TOP / 2, 1, 0, 0}, TOP / 4, MLAR_ERROR_OVERFLOW, "guard_zone_bytes"},
};

static void test_bad_requests(void **state) {
    (void)state;
    static mlar_plan plan, untouched;
    memset(&untouched, 0xab, sizeof untouched);
    for (size_t i = 0; i < sizeof bad_cases / sizeof bad_cases[0]; i++) {
        mlar_diag diag = {.struct_size = sizeof diag};
        const mlar_plan_request requests[] = {{"good", 16, 16, 0, 0}, bad_cases[i].request};
        memset(&plan, 0xab, sizeof plan);
        mlar_status status = mlar_plan_make(requests, 2, bad_cases[i].guard, &plan, &diag);
        if (status != bad_cases[i].status || strcmp(diag.field, bad_cases[i].field) != 0) {
            print_error("%s: %s: %s\n", bad_cases[i].why, diag.message, diag.field);
        }
        assert_int_equal(status, bad_cases[i].status);
        assert_int_equal(diag.status, status);
        assert_string_equal(diag.field, bad_cases[i].field);
        assert_true(strlen(diag.message) > 10);
        assert_memory_equal(&plan, &untouched, sizeof plan);
        assert_int_equal(mlar_plan_make(requests, 2, bad_cases[i].guard, &plan, NULL), status);
    }
}

static void test_bad_calls(void **state) {
    (void)state;
    static mlar_plan plan;
    mlar_diag diag = {.struct_size = sizeof diag};
    mlar_plan_request requests[REQUESTS + 1];
    for (int32_t i = 0; i <= REQUESTS; i++) requests[i] = (mlar_plan_request){"b", 1, 1, 0, 0};
    assert_int_equal(mlar_plan_make(requests, 1, 0, NULL, &diag), MLAR_ERROR_ARGUMENT);
    assert_int_equal(mlar_plan_make(NULL, 1, 0, &plan, &diag), MLAR_ERROR_ARGUMENT);
    assert_int_equal(mlar_plan_make(requests, -1, 0, &plan, &diag), MLAR_ERROR_ARGUMENT);
    assert_int_equal(mlar_plan_make(requests, REQUESTS + 1, 0, &plan, &diag), MLAR_ERROR_LIMIT);
    assert_int_equal(diag.given, REQUESTS + 1);
    assert_int_equal(diag.needed, REQUESTS);
    assert_int_equal(mlar_plan_make(requests, REQUESTS, 0, &plan, &diag), MLAR_OK);
    /* A diag of another version's size is left alone. */
    mlar_diag other = {.struct_size = 8};
    assert_int_equal(mlar_plan_make(NULL, 1, 0, &plan, &other), MLAR_ERROR_ARGUMENT);
    assert_int_equal(other.status, MLAR_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_sets),
        cmocka_unit_test(test_small_sets_are_optimal),
        cmocka_unit_test(test_sequences_reach_the_bound),
        cmocka_unit_test(test_persistent_buffers_lie_first),
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_bad_requests),
        cmocka_unit_test(test_bad_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
