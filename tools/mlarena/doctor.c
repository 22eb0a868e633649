/* SPDX-License-Identifier: Apache-2.0
 *
 * doctor.c: `mlarena doctor`: what this machine offers, what is known about its runtime, and the self-test.
 */
#include "commands.h"
#include "configure.h"
#include "format.h"
#include "session.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

static const char *const isas[] = {"amx", "avx512bf16", "avx512", "avx2", "scalar", NULL};

typedef struct findings {
    const char *offered[8]; /* CPU kernels that run here */
    int offered_count;
    mlar_status selftest[2];
    mlar_diag diag[2];
    mlar_stats stats[2];
} findings;

static const int32_t strategies[2] = {MLAR_STRATEGY_DIRECT, MLAR_STRATEGY_GATHER};

static int model(const options *o, mlar_config *config) {
    mlar_status status = mlar_config_preset(config, "dsv4-flash", 8, NULL);
    if (status != MLAR_OK) return unusable("%s", mlar_status_string(status));
    config->max_rows = 4;
    return configure_run(o, config);
}

/* An instruction set is offered if an engine can be made with it. */
static void find_isas(const options *o, findings *f) {
    place cpu = {0};
    for (int i = 0; isas[i] != NULL; i++) {
        mlar_config config;
        mlar_memory memory = {.struct_size = sizeof memory};
        session s = {.where = &cpu};
        if (model(o, &config) != 0) return;
        config.threads = 1;
        snprintf(config.cpu_isa, sizeof config.cpu_isa, "%s", isas[i]);
        if (mlar_memory_query(&config, &memory, NULL) != MLAR_OK) return;
        s.host_block = place_allocate(&cpu, memory.host_bytes);
        if (s.host_block != NULL && mlar_arena_from_malloc(&s.arena, memory.device_bytes, NULL) == MLAR_OK &&
            mlar_engine_init(&config, NULL, &s.arena, s.host_block, memory.host_bytes, &s.engine, NULL) ==
                MLAR_OK)
            f->offered[f->offered_count++] = isas[i];
        session_close(&s);
    }
}

static int self_test(const options *o, place *where, findings *f) {
    for (int i = 0; i < 2; i++) {
        mlar_config config;
        session s;
        int failed = model(o, &config);
        config.strategy = strategies[i];
        config.guard_bytes = 256;
        if (!failed) failed = session_open(&s, where, &config);
        if (failed) return failed;
        f->diag[i].struct_size = sizeof f->diag[i];
        f->stats[i].struct_size = sizeof f->stats[i];
        f->selftest[i] = mlar_engine_selftest(s.engine, NULL, &f->diag[i]);
        if (f->selftest[i] == MLAR_OK) f->selftest[i] = mlar_engine_check_guards(s.engine, NULL, &f->diag[i]);
        (void)mlar_engine_stats(s.engine, NULL, &f->stats[i]);
        session_close(&s);
    }
    return 0;
}

static void print_text(const place *where, const findings *f) {
    char device[256], memory[FORMAT_CHARS];
    printf("mlarena %d.%d.%d\n", MLAR_VERSION_MAJOR, MLAR_VERSION_MINOR, MLAR_VERSION_PATCH);
    printf("processors   %d\n", (int)processors());
    printf("CPU kernels ");
    for (int i = 0; i < f->offered_count; i++) printf(" %s", f->offered[i]);
    printf("%s\n", f->offered_count ? " (best first)" : " none");
    printf("device       %s\n", place_describe(where, device));
    if (where->device != NULL) {
        printf("             %d units of wave %d, %s, memory pools: %s\n",
               (int)where->info.profile.compute_units, (int)where->info.profile.wave_size,
               format_bytes(where->info.memory_bytes, memory), where->info.has_pools ? "yes" : "no");
        printf("runtime      %s\n", where->info.known_bad ? where->info.quirk : "no known trouble");
    } else if (where->reason[0]) {
        printf("no GPU       %s\n", where->reason);
    }
    for (int i = 0; i < 2; i++) {
        printf("self-test    %s, %s: %s\n", strategy_name(strategies[i]), f->stats[i].variant,
               f->selftest[i] == MLAR_OK ? "replay equals enqueue, bit for bit" : f->diag[i].message);
        if (where->device != NULL)
            printf("             pool: reserved %" PRIu64 ", used %" PRIu64 ", most used %" PRIu64
                   " bytes; arena %" PRIu64 "\n",
                   f->stats[i].pool_reserved_bytes, f->stats[i].pool_used_bytes,
                   f->stats[i].pool_used_high_bytes, f->stats[i].device_bytes);
    }
    printf("outside the arena: code objects, the runtime's graph storage, pool rounding, worker stacks (256 "
           "KiB each)\n");
}

static void print_json(const place *where, const findings *f) {
    char device[256];
    json_t *offered = json_array(), *tests = json_array();
    for (int i = 0; i < f->offered_count; i++) json_array_append_new(offered, json_string(f->offered[i]));
    for (int i = 0; i < 2; i++)
        json_array_append_new(tests,
                              json_pack("{s:s, s:s, s:b, s:s}", "strategy", strategy_name(strategies[i]),
                                        "kernels", f->stats[i].variant, "pass", f->selftest[i] == MLAR_OK,
                                        "message", f->selftest[i] == MLAR_OK ? "" : f->diag[i].message));
    json_t *root =
        json_pack("{s:i, s:s, s:i, s:o, s:s, s:s, s:b, s:o}", "schema", 1, "command", "doctor", "processors",
                  (int)processors(), "cpu_kernels", offered, "device", place_describe(where, device),
                  "no_gpu", where->device == NULL ? where->reason : "", "known_bad_runtime",
                  where->device != NULL && where->info.known_bad, "selftest", tests);
    if (root == NULL) return;
    json_dumpf(root, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    putchar('\n');
    json_decref(root);
}

int command_doctor(const options *o) {
    if (o->file != NULL) return unusable("doctor takes no file ('%s')", o->file);
    place where;
    findings f = {0};
    mlar_config config;
    int code = model(o, &config);
    if (code != 0) return code;
    code = place_open(&where, o);
    if (code == 0) {
        find_isas(o, &f);
        code = self_test(o, &where, &f);
    }
    if (code == 0) {
        if (o->json)
            print_json(&where, &f);
        else
            print_text(&where, &f);
        if (f.selftest[0] != MLAR_OK || f.selftest[1] != MLAR_OK) code = EXIT_MISMATCH;
    }
    place_close(&where);
    return code;
}
