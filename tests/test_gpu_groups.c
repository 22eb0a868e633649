/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gpu_groups.c: groups of tests/gpu, which run where there is a GPU, on the stand-in (tests/standin): each as it
 * is, and each with one runtime call failing while it sets itself up, which the group has to report, and after which it
 * holds nothing of the device's (and, under LeakSanitizer, of the host's). */
#include "tests/gpu/groups.h"
#include "tests/standin/session.h"

#include <string.h>

enum { UNKNOWN_ERROR = 999 };

typedef struct gpu_group {
    void (*run)(void);
    uint64_t last, step; /* calls to fail: every step-th, up to where the set-up has ended */
    int32_t needs_more;  /* calls that the stand-in has not: it cannot pass, so only leaks are looked for */
} gpu_group;

/* failing_call 0: none. */
static void run_group(const gpu_group *group, uint64_t failing_call) {
    const standin_settings settings = session_settings();
    const int64_t failures = gpu_failures;
    session s = session_begin(MLAR_TEST_STANDIN, &settings);
    MUST(session_open(&s, 0, MLAR_RUNTIME_WARN, NULL));
    place = (gpu_place){.device = s.device, .info = {.struct_size = sizeof place.info}};
    MUST(mlar_device_info_of(s.device, &place.info));
    s.control->fail_call(failing_call, UNKNOWN_ERROR, 0);
    group->run();
    const int happened = failing_call > 0 && s.control->failed();
    s.control->fail_call(0, 0, 0);
    MUST(mlar_device_wait(s.device, NULL));
    assert_int_equal(happened, failing_call > 0);
    if (!group->needs_more && (gpu_failures > failures) != happened)
        fail_msg("call %d fails: %d failures", (int)failing_call, (int)(gpu_failures - failures));
    session_end(&s); /* nothing is alive, or it fails */
}

static void run_all(void **state) {
    const gpu_group *group = *state;
    const uint64_t step = SANITIZED ? 6 * group->step : group->step;
    quick = 1;
    /* A whole group is minutes of sanitized work, which the tests of the library have had already. */
    for (uint64_t call = SANITIZED ? step : 0; call <= group->last; call += step) run_group(group, call);
}

/* A case takes 50 calls to set up, an engine and its program 40 or so. */
static gpu_group groups[] = {
    {capture_short, 130, 7, 0}, {queued_steps, 840, 83, 0}, {host_graph, 80, 13, 0},
    {child_graphs, 130, 7, 1},  {many_programs, 80, 7, 0},  {two_engines, 80, 7, 0},
    {bad_input, 20, 1, 0},      {host_cost, 70, 7, 0},      {changed_lists, 90, 7, 0},
};

int main(void) {
#define GROUP(index, name)                                                                                   \
    { name, run_all, NULL, NULL, &groups[index] }
    const struct CMUnitTest tests[] = {
        GROUP(0, "capture_short"), GROUP(1, "queued_steps"),  GROUP(2, "host_graph"),
        GROUP(3, "child_graphs"),  GROUP(4, "many_programs"), GROUP(5, "two_engines"),
        GROUP(6, "bad_input"),     GROUP(7, "host_cost"),     GROUP(8, "changed_lists"),
    };
#undef GROUP
    return cmocka_run_group_tests(tests, NULL, NULL);
}
