/* SPDX-License-Identifier: Apache-2.0
 *
 * config.c: configurations: neutral values, presets, device profiles, and the one validator.
 *
 * Every rejection names the field, the value and the limit. Knows no memory: what a valid configuration costs
 * is decided in dims.c and memory.c. */
#include "arena/checked_size.h"
#include "arena/fail.h"
#include "engine/structs.h"
#include "kernels/params.h"

#include <mlarena/mlarena.h>
#include <stdio.h>
#include <string.h>

int32_t mlar_version(void) {
    return MLAR_VERSION;
}

static const struct profile_row {
    const char *name, *arch;
    int32_t device, compute_units, wave_size;
    uint64_t pool_granularity_bytes;
} profiles[] = {
#define X(name, arch, device, units, wave, pool) {name, arch, device, units, wave, pool},
#include "engine/profiles.def"
#undef X
};

static const struct preset_row {
    const char *name;
    int32_t heads, nope, rope, layout, window, topk, all;
} presets[] = {
#define X(name, heads, nope, rope, layout, window, topk, all)                                                \
    {name, heads, nope, rope, layout, window, topk, all},
#include "engine/presets.def"
#undef X
};

#define COUNT_OF(table) ((int)(sizeof(table) / sizeof *(table)))

mlar_status mlar_device_profile_named(mlar_device_profile *profile, const char *name, mlar_diag *diag) {
    if (profile == NULL || name == NULL) return mlar_fail_null(diag, profile == NULL ? "profile" : "name");
    for (int i = 0; i < COUNT_OF(profiles); i++) {
        if (strcmp(profiles[i].name, name) != 0) continue;
        *profile = (mlar_device_profile){.device = profiles[i].device,
                                         .compute_units = profiles[i].compute_units,
                                         .wave_size = profiles[i].wave_size,
                                         .pool_granularity_bytes = profiles[i].pool_granularity_bytes};
        snprintf(profile->arch, sizeof profile->arch, "%s", profiles[i].arch);
        return MLAR_OK;
    }
    return mlar_fail(
        diag, MLAR_ERROR_CONFIG, "device", 0, 0,
        "device: no profile is named '%.32s' (cpu, mi250x, mi300x, mi325x, mi355x, rx7900xtx, h100, "
        "h200)",
        name);
}

static mlar_config neutral(void) {
    mlar_config config = {.struct_size = sizeof config,
                          .heads = 64,
                          .nope = 448,
                          .rope = 64,
                          .max_rows = 1,
                          .max_programs = 64,
                          .max_layers = 64,
                          .max_nodes = 128,
                          .selftest = 1,
                          .threads = 1};
    (void)mlar_device_profile_named(&config.device, "cpu", NULL);
    return config;
}

mlar_status mlar_config_init_sized(mlar_config *config, size_t struct_size) {
    if (config == NULL) return MLAR_ERROR_ARGUMENT;
    const mlar_config own = neutral();
    return MLAR_STRUCT_START(config, struct_size, &own);
}

static void add_kind(mlar_config *config, const struct preset_row *preset, const char *what, int32_t extra) {
    mlar_kind_config *kind = &config->kinds[config->kind_count++];
    if (preset->window > 0)
        kind->scope[kind->scope_count++] =
            (mlar_scope_config){.width = preset->window, .layout = preset->layout};
    if (extra > 0)
        kind->scope[kind->scope_count++] = (mlar_scope_config){.width = extra, .layout = preset->layout};
    if (extra > 0)
        snprintf(kind->name, sizeof kind->name, "%s-%d", what, (int)extra);
    else
        snprintf(kind->name, sizeof kind->name, "%s", what);
}

mlar_status mlar_config_preset_sized(mlar_config *config, size_t struct_size, const char *name, int32_t tp,
                                     mlar_diag *diag) {
    if (config == NULL || name == NULL) return mlar_fail_null(diag, config == NULL ? "config" : "name");
    const struct preset_row *preset = NULL;
    for (int i = 0; i < COUNT_OF(presets); i++)
        if (strcmp(presets[i].name, name) == 0) preset = &presets[i];
    if (preset == NULL)
        return mlar_fail(diag, MLAR_ERROR_CONFIG, "preset", 0, 0,
                         "preset: none is named '%.32s' (dsv4-flash, dsv4-pro, v32)", name);
    if (tp != 1 && tp != 2 && tp != 4 && tp != 8)
        return mlar_fail(diag, MLAR_ERROR_CONFIG, "tp", tp, 8, "tp: %d given, must be 1, 2, 4 or 8", (int)tp);
    mlar_config own = neutral();
    own.heads = preset->heads / tp;
    own.nope = preset->nope;
    own.rope = preset->rope;
    if (preset->window > 0) add_kind(&own, preset, "window", 0);
    if (preset->topk > 0) add_kind(&own, preset, "top", preset->topk);
    if (preset->all > 0) add_kind(&own, preset, "all", preset->all);
    mlar_status status = MLAR_STRUCT_START(config, struct_size, &own);
    if (status == MLAR_OK) return MLAR_OK;
    return mlar_fail(diag, status, "struct_size", mlar_size_for_diag(struct_size), sizeof own,
                     "struct_size: %zu given, this version knows %zu", struct_size, sizeof own);
}

static mlar_status out_of_range(mlar_diag *diag, const char *field, int64_t value, int64_t least,
                                int64_t most) {
    return mlar_fail(diag, MLAR_ERROR_CONFIG, field, value, value < least ? least : most,
                     "%s: %lld given, must be %lld..%lld", field, (long long)value, (long long)least,
                     (long long)most);
}

/* d_qk of one scope's layout; every scope of an engine must agree with the heads' q. */
static mlar_status check_scope(const mlar_config *config, int k, int s, mlar_diag *diag) {
    const mlar_scope_config *scope = &config->kinds[k].scope[s];
    char field[48];
#define SCOPE_RANGE(member, least, most)                                                                     \
    if (scope->member < (least) || scope->member > (most)) {                                                 \
        snprintf(field, sizeof field, "kinds[%d].scope[%d]." #member, k, s);                                 \
        return out_of_range(diag, field, scope->member, least, most);                                        \
    }
    SCOPE_RANGE(width, 0, 65536)
    SCOPE_RANGE(layout, MLAR_LAYOUT_DSV4, MLAR_LAYOUT_BF16)
    SCOPE_RANGE(fp8, MLAR_FP8_E4M3FN, MLAR_FP8_E4M3FNUZ)
#undef SCOPE_RANGE
    /* The value vector's size follows from the layout (v32: nope alone), so scopes cannot mix it. */
    int v32 = scope->layout == MLAR_LAYOUT_V32;
    if (v32 != (config->kinds[0].scope[0].layout == MLAR_LAYOUT_V32)) {
        snprintf(field, sizeof field, "kinds[%d].scope[%d].layout", k, s);
        return mlar_fail(diag, MLAR_ERROR_CONFIG, field, scope->layout, config->kinds[0].scope[0].layout,
                         "%s: v32 cannot be mixed with other layouts (their d_v differs)", field);
    }
    if (v32 && config->nope % 128 != 0)
        return mlar_fail(diag, MLAR_ERROR_CONFIG, "nope", config->nope, 128,
                         "nope: %d given, layout v32 needs a multiple of 128", (int)config->nope);
    return MLAR_OK;
}

/* A host that sets them means something that this version cannot do. */
static mlar_status check_reserved(const mlar_config *config, mlar_diag *diag) {
    int64_t given = config->reserved | config->device.reserved;
    uint64_t wide = config->device.reserved64[0] | config->device.reserved64[1];
    for (int k = 0; k < config->kind_count; k++) {
        given |= config->kinds[k].reserved;
        for (int s = 0; s < MLAR_SCOPES; s++)
            for (int i = 0; i < COUNT_OF(config->kinds[k].scope[s].reserved); i++)
                given |= config->kinds[k].scope[s].reserved[i];
    }
    if (given == 0 && wide == 0) return MLAR_OK;
    return mlar_fail(diag, MLAR_ERROR_CONFIG, "reserved", given != 0 ? given : 1, 0,
                     "reserved: every field of that name must be 0");
}

static mlar_status check_kind(const mlar_config *config, int k, mlar_diag *diag) {
    const mlar_kind_config *kind = &config->kinds[k];
    char field[48];
    if (kind->scope_count < 1 || kind->scope_count > MLAR_SCOPES) {
        snprintf(field, sizeof field, "kinds[%d].scope_count", k);
        return out_of_range(diag, field, kind->scope_count, 1, MLAR_SCOPES);
    }
    if (memchr(kind->name, 0, sizeof kind->name) == NULL) {
        snprintf(field, sizeof field, "kinds[%d].name", k);
        return mlar_fail(diag, MLAR_ERROR_CONFIG, field, 0, 0, "%s: not terminated", field);
    }
    for (int s = 0; s < kind->scope_count; s++) {
        mlar_status status = check_scope(config, k, s, diag);
        if (status != MLAR_OK) return status;
    }
    return MLAR_OK;
}

mlar_status mlar_config_validate(const mlar_config *given, mlar_diag *diag) {
    if (given == NULL) return mlar_fail_null(diag, "config");
    mlar_config own, *config = &own;
    mlar_status status = MLAR_STRUCT_READ(&own, given);
    if (status != MLAR_OK)
        return mlar_fail(diag, status, "config.struct_size", given->struct_size, sizeof own,
                         "config.struct_size: %u given, this version knows %zu", given->struct_size,
                         sizeof own);
#define X(field, least, most)                                                                                \
    if (config->field < (least) || config->field > (most))                                                   \
        return out_of_range(diag, #field, config->field, least, most);
#include "engine/config_limits.def"
#undef X
    if (config->nope % 64 != 0)
        return mlar_fail(diag, MLAR_ERROR_CONFIG, "nope", config->nope, 64,
                         "nope: %d given, must be a multiple of 64 in 64..512", (int)config->nope);
    if (config->rope % 2 != 0)
        return mlar_fail(diag, MLAR_ERROR_CONFIG, "rope", config->rope, 2,
                         "rope: %d given, must be even in 0..128", (int)config->rope);
    if (config->guard_bytes % 256 != 0)
        return mlar_fail(diag, MLAR_ERROR_CONFIG, "guard_bytes", config->guard_bytes, 256,
                         "guard_bytes: %d given, must be a multiple of 256 in 0..65536",
                         (int)config->guard_bytes);
    if (memchr(config->device.arch, 0, sizeof config->device.arch) == NULL)
        return mlar_fail(diag, MLAR_ERROR_CONFIG, "device.arch", 0, 0, "device.arch: not terminated");
    if (memchr(config->cpu_isa, 0, sizeof config->cpu_isa) == NULL)
        return mlar_fail(diag, MLAR_ERROR_CONFIG, "cpu_isa", 0, 0, "cpu_isa: not terminated");
    for (int k = 0; k < config->kind_count; k++)
        if ((status = check_kind(config, k, diag)) != MLAR_OK) return status;
    return check_reserved(config, diag);
}
