/* SPDX-License-Identifier: Apache-2.0
 *
 * test_api_abi.c: the binary interface as released: sizes, offsets, enum values, status values and their
 * names. What compiles as C99 and as C++ is checked beside it, by the tests header_* of tests/CMakeLists.txt.
 */
#include "tests/support/engine_case.h"

#include <string.h>

static void test_layout(void **state) {
    (void)state;
    static const struct {
        const char *what;
        size_t is, was;
    } rows[] = {
#define STRUCT(type, bytes)         {"sizeof " #type, sizeof(type), bytes},
#define FIELD(type, member, offset) {#type "." #member, offsetof(type, member), offset},
#define FUNCTION(name)              /* tests/check_symbols */
#include "tests/api_layout.def"
#undef FUNCTION
#undef STRUCT
#undef FIELD
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].is != rows[i].was) fail_msg("%s is %zu, was %zu", rows[i].what, rows[i].is, rows[i].was);
}

/* Padding would carry stack bytes into comparisons: the last member of each struct ends where the struct
 * does. */
static void test_structs_end_with_their_last_member(void **state) {
    (void)state;
#define ENDS(type, member)                                                                                   \
    assert_int_equal(offsetof(type, member) + sizeof(((type *)0)->member), sizeof(type))
    ENDS(mlar_device_profile, reserved64);
    ENDS(mlar_scope_config, reserved);
    ENDS(mlar_kind_config, scope);
    ENDS(mlar_config, kinds);
    ENDS(mlar_buffer_info, persistent);
    ENDS(mlar_memory, buffers);
    ENDS(mlar_device_options, library);
    ENDS(mlar_device_info, quirk);
    ENDS(mlar_cache, reserved);
    ENDS(mlar_index_list, reserved);
    ENDS(mlar_bindings, list);
    ENDS(mlar_step, rows_device);
    ENDS(mlar_stats, variant);
    ENDS(mlar_diag, message);
#undef ENDS
    assert_int_equal(offsetof(mlar_config, struct_size), 0);
    assert_int_equal(offsetof(mlar_memory, struct_size), 0);
    assert_int_equal(offsetof(mlar_bindings, struct_size), 0);
    assert_int_equal(offsetof(mlar_step, struct_size), 0);
    assert_int_equal(offsetof(mlar_stats, struct_size), 0);
    assert_int_equal(offsetof(mlar_diag, struct_size), 0);
    assert_int_equal(offsetof(mlar_device_options, struct_size), 0);
    assert_int_equal(offsetof(mlar_device_info, struct_size), 0);
}

static void test_values(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int64_t is, was;
    } rows[] = {
#define VALUE(name, value) {#name, name, value}
        VALUE(MLAR_SCOPE_WINDOW, 0),
        VALUE(MLAR_SCOPE_EXTRA, 1),
        VALUE(MLAR_SCOPES, 2),
        VALUE(MLAR_KINDS_MAX, 8),
        VALUE(MLAR_BUFFERS_MAX, 64),
        VALUE(MLAR_STRATEGY_AUTO, 0),
        VALUE(MLAR_STRATEGY_GATHER, 1),
        VALUE(MLAR_STRATEGY_DIRECT, 2),
        VALUE(MLAR_POLICY_BALANCED, 0),
        VALUE(MLAR_POLICY_BATCH_INVARIANT, 1),
        VALUE(MLAR_DEVICE_CPU, 0),
        VALUE(MLAR_DEVICE_HIP, 1),
        VALUE(MLAR_DEVICE_CUDA, 2),
        VALUE(MLAR_RUNTIME_WARN, 0),
        VALUE(MLAR_RUNTIME_REFUSE, 1),
        VALUE(MLAR_RUNTIME_ACCEPT, 2),
        VALUE(MLAR_UPDATE_STEP_BLOCK, 0),
        VALUE(MLAR_UPDATE_NODE_PARAMS, 1),
        VALUE(MLAR_OUT_BF16, 0),
        VALUE(MLAR_OUT_F32, 1),
        VALUE(MLAR_TAIL_ZERO, 0),
        VALUE(MLAR_TAIL_UNTOUCHED, 1),
        VALUE(MLAR_LAYOUT_DSV4, 0),
        VALUE(MLAR_LAYOUT_V32, 1),
        VALUE(MLAR_LAYOUT_BF16, 2),
        VALUE(MLAR_FP8_E4M3FN, 0),
        VALUE(MLAR_FP8_E4M3FNUZ, 1),
        VALUE(MLAR_LIST_DENSE, 0),
        VALUE(MLAR_LIST_RAGGED, 1),
        VALUE(MLAR_VERSION, 100),
#undef VALUE
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].is != rows[i].was)
            fail_msg("%s is %ld, was %ld", rows[i].name, (long)rows[i].is, (long)rows[i].was);
}

static void test_statuses(void **state) {
    (void)state;
    static const char *const names[] = {
        "MLAR_OK",
        "MLAR_ERROR_ARGUMENT",
        "MLAR_ERROR_STRUCT_SIZE",
        "MLAR_ERROR_CONFIG",
        "MLAR_ERROR_UNSUPPORTED",
        "MLAR_ERROR_OVERFLOW",
        "MLAR_ERROR_BUDGET",
        "MLAR_ERROR_MEMORY_SIZE",
        "MLAR_ERROR_MEMORY_ALIGNMENT",
        "MLAR_ERROR_MEMORY_KIND",
        "MLAR_ERROR_OUT_OF_MEMORY",
        "MLAR_ERROR_BINDING",
        "MLAR_ERROR_OVERLAP",
        "MLAR_ERROR_CAPACITY",
        "MLAR_ERROR_STATE",
        "MLAR_ERROR_BUSY",
        "MLAR_ERROR_LIMIT",
        "MLAR_ERROR_FINGERPRINT",
        "MLAR_ERROR_GUARD",
        "MLAR_ERROR_SELFTEST",
        "MLAR_ERROR_FORKED",
        "MLAR_ERROR_THREAD",
        "MLAR_ERROR_NO_DEVICE",
        "MLAR_ERROR_RUNTIME_BLOCKED",
        "MLAR_ERROR_DEVICE",
        "MLAR_ERROR_DEVICE_LOST",
        "MLAR_ERROR_CAPTURING",
        "MLAR_ERROR_PLAN",
    };
    const int32_t count = sizeof names / sizeof *names;
    for (int32_t i = 0; i < count; i++) {
        assert_string_equal(mlar_status_name(i), names[i]);
        assert_true(strlen(mlar_status_string(i)) > 4);
        for (int32_t j = 0; j < i; j++) assert_string_not_equal(mlar_status_string(i), mlar_status_string(j));
    }
    static const int32_t unknown[] = {-1, 28, 1000, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        assert_string_equal(mlar_status_name(unknown[i]), "MLAR_STATUS_UNKNOWN");
        assert_string_equal(mlar_status_string(unknown[i]), "unknown status");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_structs_end_with_their_last_member),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_statuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
