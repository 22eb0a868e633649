/* SPDX-License-Identifier: Apache-2.0
 *
 * test_config.c: every field of a configuration at its limits and beyond them, presets, profiles, struct
 * sizes. */
#include "tests/support/engine_case.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static mlar_config valid(void) {
    mlar_config config;
    MUST(mlar_config_preset(&config, "dsv4-flash", 8, NULL));
    return config;
}

static int32_t *at(mlar_config *config, size_t offset) {
    return (int32_t *)(void *)((char *)config + offset);
}

/* ---- ranges -------------------------------------------------------------------------------------- */

/* `step`: values between the limits that the field accepts are multiples of it. */
static const struct range {
    const char *field;
    size_t offset;
    int32_t least, most, step;
} ranges[] = {
    {"strategy", offsetof(mlar_config, strategy), 0, 2, 1},
    {"policy", offsetof(mlar_config, policy), 0, 1, 1},
    {"heads", offsetof(mlar_config, heads), 1, 128, 1},
    {"nope", offsetof(mlar_config, nope), 64, 512, 64},
    {"rope", offsetof(mlar_config, rope), 0, 128, 2},
    {"max_rows", offsetof(mlar_config, max_rows), 1, 65536, 1},
    {"max_programs", offsetof(mlar_config, max_programs), 0, 1024, 1},
    {"max_layers", offsetof(mlar_config, max_layers), 0, 1024, 1},
    {"splits", offsetof(mlar_config, splits), 0, 64, 1},
    {"max_nodes", offsetof(mlar_config, max_nodes), 8, 4096, 1},
    {"guard_bytes", offsetof(mlar_config, guard_bytes), 0, 65536, 256},
    {"selftest", offsetof(mlar_config, selftest), 0, 1, 1},
    {"threads", offsetof(mlar_config, threads), 1, 256, 1},
    {"runtime_check", offsetof(mlar_config, runtime_check), 0, 2, 1},
    {"update_route", offsetof(mlar_config, update_route), 0, 1, 1},
    {"device.device", offsetof(mlar_config, device.device), 0, 2, 1},
    {"device.compute_units", offsetof(mlar_config, device.compute_units), 1, 1024, 1},
    {"device.wave_size", offsetof(mlar_config, device.wave_size), 1, 64, 1},
    {"kind_count", offsetof(mlar_config, kind_count), 1, 8, 1},
    {"kinds[0].scope_count", offsetof(mlar_config, kinds[0].scope_count), 1, 2, 1},
    {"kinds[2].scope[1].width", offsetof(mlar_config, kinds[2].scope[1].width), 0, 65536, 1},
    {"kinds[1].scope[0].width", offsetof(mlar_config, kinds[1].scope[0].width), 0, 65536, 1},
    {"kinds[1].scope[1].layout", offsetof(mlar_config, kinds[1].scope[1].layout), 0, 2, 2},
    {"kinds[1].scope[1].fp8", offsetof(mlar_config, kinds[1].scope[1].fp8), 0, 1, 1},
};

static void refused(const mlar_config *config, const struct range *range, int32_t value, int32_t limit) {
    mlar_diag diag;
    char number[16];
    MUST_NAME(MLAR_ERROR_CONFIG, range->field, diag, mlar_config_validate(config, &diag));
    assert_int_equal(diag.given, value);
    assert_int_equal(diag.needed, limit);
    snprintf(number, sizeof number, "%d", value);
    if (!strstr(diag.message, range->field) || !strstr(diag.message, number))
        fail_msg("'%s' does not name %s and %s", diag.message, range->field, number);
    MUST_BE(MLAR_ERROR_CONFIG, mlar_config_validate(config, NULL));
    mlar_memory memory = {.struct_size = sizeof memory};
    MUST_NAME(MLAR_ERROR_CONFIG, range->field, diag, mlar_memory_query(config, &memory, &diag));
}

static void test_every_number_has_its_range(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        const struct range *range = &ranges[i];
        mlar_config config = valid();
        for (int32_t k = config.kind_count; k < MLAR_KINDS_MAX; k++) config.kinds[k] = config.kinds[0];
        int32_t *field = at(&config, range->offset);
        const int32_t accepted[] = {range->least, range->most, range->most - range->step};
        for (size_t v = 0; v < sizeof accepted / sizeof *accepted; v++) {
            *field = accepted[v];
            mlar_diag diag = DIAG_INIT;
            if (mlar_config_validate(&config, &diag) != MLAR_OK)
                fail_msg("%d: %s", accepted[v], diag.message);
        }
        const int32_t below[] = {range->least - 1, -1 - range->least, INT32_MIN};
        const int32_t above[] = {range->most + 1, 2 * range->most + 1, INT32_MAX};
        for (size_t v = 0; v < 3; v++) {
            *field = below[v];
            refused(&config, range, below[v], range->least);
            *field = above[v];
            refused(&config, range, above[v], range->most);
        }
    }
}

static void test_multiples(void **state) {
    (void)state;
    static const struct {
        const char *field;
        size_t offset;
        int32_t value, unit;
    } rows[] = {
        {"nope", offsetof(mlar_config, nope), 65, 64},
        {"nope", offsetof(mlar_config, nope), 96, 64},
        {"rope", offsetof(mlar_config, rope), 63, 2},
        {"guard_bytes", offsetof(mlar_config, guard_bytes), 1, 256},
        {"guard_bytes", offsetof(mlar_config, guard_bytes), 1000, 256},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        mlar_config config = valid();
        mlar_diag diag;
        *at(&config, rows[i].offset) = rows[i].value;
        MUST_NAME(MLAR_ERROR_CONFIG, rows[i].field, diag, mlar_config_validate(&config, &diag));
        assert_int_equal(diag.given, rows[i].value);
        assert_int_equal(diag.needed, rows[i].unit);
    }
}

static void test_v32_stands_alone(void **state) {
    (void)state;
    mlar_config config = valid();
    mlar_diag diag;
    config.kinds[1].scope[1].layout = MLAR_LAYOUT_V32;
    MUST_NAME(MLAR_ERROR_CONFIG, "kinds[1].scope[1].layout", diag, mlar_config_validate(&config, &diag));
    MUST(mlar_config_preset(&config, "v32", 8, NULL));
    config.nope = 448; /* a multiple of 64, not of 128 */
    MUST_NAME(MLAR_ERROR_CONFIG, "nope", diag, mlar_config_validate(&config, &diag));
    assert_int_equal(diag.needed, 128);
    config = valid();
    config.kinds[0].scope[0].layout = MLAR_LAYOUT_BF16; /* these two may be mixed */
    MUST(mlar_config_validate(&config, NULL));
}

static void test_text_must_end(void **state) {
    (void)state;
    mlar_diag diag;
    mlar_config config = valid();
    memset(config.kinds[2].name, 'x', sizeof config.kinds[2].name);
    MUST_NAME(MLAR_ERROR_CONFIG, "kinds[2].name", diag, mlar_config_validate(&config, &diag));
    config = valid();
    memset(config.device.arch, 'x', sizeof config.device.arch);
    MUST_NAME(MLAR_ERROR_CONFIG, "device.arch", diag, mlar_config_validate(&config, &diag));
    config = valid();
    memset(config.cpu_isa, 'x', sizeof config.cpu_isa);
    MUST_NAME(MLAR_ERROR_CONFIG, "cpu_isa", diag, mlar_config_validate(&config, &diag));
}

static void test_reserved_is_zero(void **state) {
    (void)state;
    mlar_config config[6];
    mlar_diag diag;
    for (int i = 0; i < 6; i++) config[i] = valid();
    config[0].reserved = 1;
    config[1].device.reserved = -1;
    config[2].device.reserved64[1] = UINT64_MAX;
    config[3].kinds[2].reserved = 1;
    config[4].kinds[0].scope[1].reserved[4] = INT32_MIN; /* of a scope that the kind does not use */
    config[5].kinds[2].scope[1].reserved[0] = 7;
    for (int i = 0; i < 6; i++)
        MUST_NAME(MLAR_ERROR_CONFIG, "reserved", diag, mlar_config_validate(&config[i], &diag));
}

/* ---- presets and profiles -------------------------------------------------------------------------- */

static void test_presets(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int32_t heads, nope, layout, kinds, width[3][2];
    } rows[] = {
        {"dsv4-flash", 64, 448, MLAR_LAYOUT_DSV4, 3, {{128, 0}, {128, 512}, {128, 8192}}},
        {"dsv4-pro", 128, 448, MLAR_LAYOUT_DSV4, 3, {{128, 0}, {128, 1024}, {128, 8192}}},
        {"v32", 128, 512, MLAR_LAYOUT_V32, 1, {{2048, 0}}},
    };
    static const int32_t degrees[] = {1, 2, 4, 8};
    for (size_t i = 0; i < 3; i++)
        for (size_t d = 0; d < 4; d++) {
            mlar_config config;
            MUST(mlar_config_preset(&config, rows[i].name, degrees[d], NULL));
            assert_int_equal(config.heads, rows[i].heads / degrees[d]);
            assert_int_equal(config.nope, rows[i].nope);
            assert_int_equal(config.rope, 64);
            assert_int_equal(config.max_rows, 1);
            assert_int_equal(config.kind_count, rows[i].kinds);
            for (int32_t k = 0; k < config.kind_count; k++) {
                assert_int_equal(config.kinds[k].scope_count, rows[i].width[k][1] ? 2 : 1);
                for (int32_t s = 0; s < config.kinds[k].scope_count; s++) {
                    assert_int_equal(config.kinds[k].scope[s].width, rows[i].width[k][s]);
                    assert_int_equal(config.kinds[k].scope[s].layout, rows[i].layout);
                }
            }
            mlar_memory memory = {.struct_size = sizeof memory};
            MUST(mlar_memory_query(&config, &memory, NULL));
        }
}

static void test_unknown_names(void **state) {
    (void)state;
    mlar_config config;
    mlar_device_profile profile;
    mlar_diag diag;
    MUST_NAME(MLAR_ERROR_CONFIG, "preset", diag, mlar_config_preset(&config, "dsv5", 1, &diag));
    assert_non_null(strstr(diag.message, "dsv5"));
    static const int32_t wrong[] = {0, 3, 16, -1, INT32_MAX};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        MUST_NAME(MLAR_ERROR_CONFIG, "tp", diag, mlar_config_preset(&config, "v32", wrong[i], &diag));
        assert_int_equal(diag.given, wrong[i]);
    }
    MUST_NAME(MLAR_ERROR_CONFIG, "device", diag, mlar_device_profile_named(&profile, "mi300", &diag));
    MUST_BE(MLAR_ERROR_ARGUMENT, mlar_config_preset(NULL, "v32", 1, NULL));
    MUST_BE(MLAR_ERROR_ARGUMENT, mlar_config_preset(&config, NULL, 1, NULL));
    MUST_BE(MLAR_ERROR_ARGUMENT, mlar_config_init(NULL));
    MUST_BE(MLAR_ERROR_ARGUMENT, mlar_config_validate(NULL, NULL));
    MUST_BE(MLAR_ERROR_ARGUMENT, mlar_device_profile_named(NULL, "cpu", NULL));
}

static void test_profiles(void **state) {
    (void)state;
    static const struct {
        const char *name, *arch;
        int32_t device, units, wave;
    } rows[] = {
        {"cpu", "cpu", MLAR_DEVICE_CPU, 16, 1},
        {"mi250x", "gfx90a", MLAR_DEVICE_HIP, 110, 64},
        {"mi300x", "gfx942", MLAR_DEVICE_HIP, 304, 64},
        {"mi355x", "gfx950", MLAR_DEVICE_HIP, 256, 64},
        {"rx7900xtx", "gfx1100", MLAR_DEVICE_HIP, 96, 32},
        {"h100", "sm_90", MLAR_DEVICE_CUDA, 132, 32},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        mlar_device_profile profile;
        MUST(mlar_device_profile_named(&profile, rows[i].name, NULL));
        assert_string_equal(profile.arch, rows[i].arch);
        assert_int_equal(profile.device, rows[i].device);
        assert_int_equal(profile.compute_units, rows[i].units);
        assert_int_equal(profile.wave_size, rows[i].wave);
    }
    mlar_config config = valid();
    mlar_memory memory = {.struct_size = sizeof memory};
    mlar_diag diag;
    config.device.device = MLAR_DEVICE_HIP;
    snprintf(config.device.arch, sizeof config.device.arch, "gfx000");
    MUST_NAME(MLAR_ERROR_UNSUPPORTED, "device.arch", diag, mlar_memory_query(&config, &memory, &diag));
    assert_non_null(strstr(diag.message, "gfx000"));
}

/* ---- struct_size ----------------------------------------------------------------------------------- */

static void test_struct_size(void **state) {
    (void)state;
    struct {
        mlar_config config;
        unsigned char tail[64];
    } longer = {.config = valid()};
    mlar_diag diag;
    static const uint32_t small[] = {0, 4, sizeof(mlar_config) - 1};
    for (size_t i = 0; i < 3; i++) {
        longer.config.struct_size = small[i];
        MUST_NAME(MLAR_ERROR_STRUCT_SIZE, "config.struct_size", diag,
                  mlar_config_validate(&longer.config, &diag));
        assert_int_equal(diag.given, small[i]);
    }
    longer.config.struct_size = sizeof longer;
    MUST(mlar_config_validate(&longer.config, NULL));
    for (size_t i = 0; i < sizeof longer.tail; i++) {
        longer.tail[i] = 1;
        MUST_BE(MLAR_ERROR_STRUCT_SIZE, mlar_config_validate(&longer.config, NULL));
        longer.tail[i] = 0;
    }
}

/* A caller's diag of an unknown size is left alone. */
static void test_diag_of_another_size(void **state) {
    (void)state;
    mlar_config config = valid();
    config.heads = 0;
    mlar_diag diag, before;
    memset(&diag, 0x5a, sizeof diag);
    before = diag;
    MUST_BE(MLAR_ERROR_CONFIG, mlar_config_validate(&config, &diag));
    assert_memory_equal(&diag, &before, sizeof diag);
}

/* Success leaves the caller's diag alone, and the validator its configuration. */
static void test_pure(void **state) {
    (void)state;
    mlar_config config = valid(), before = config;
    mlar_diag diag, untouched;
    memset(&diag, 0x5a, sizeof diag);
    diag.struct_size = sizeof diag;
    untouched = diag;
    MUST(mlar_config_validate(&config, &diag));
    assert_memory_equal(&diag, &untouched, sizeof diag);
    assert_memory_equal(&config, &before, sizeof config);
    assert_int_equal(mlar_version(), MLAR_VERSION);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_number_has_its_range),
        cmocka_unit_test(test_multiples),
        cmocka_unit_test(test_v32_stands_alone),
        cmocka_unit_test(test_text_must_end),
        cmocka_unit_test(test_reserved_is_zero),
        cmocka_unit_test(test_presets),
        cmocka_unit_test(test_unknown_names),
        cmocka_unit_test(test_profiles),
        cmocka_unit_test(test_struct_size),
        cmocka_unit_test(test_diag_of_another_size),
        cmocka_unit_test(test_pure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
