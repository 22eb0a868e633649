/* SPDX-License-Identifier: Apache-2.0
 *
 * format.c: how figures are shown to people. */
#include "format.h"

#include <inttypes.h>
#include <stdio.h>

const char *format_bytes(uint64_t bytes, char text[64]) {
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
    double value = (double)bytes / 1024;
    int unit = 0;
    while (value >= 1024 && unit < 4) {
        value /= 1024;
        unit++;
    }
    if (bytes < 1024)
        snprintf(text, 64, "%" PRIu64 " bytes", bytes);
    else
        snprintf(text, 64, "%.1f %s (%" PRIu64 " bytes)", value, units[unit], bytes);
    return text;
}

void format_totals(const mlar_config *config, const mlar_memory *memory) {
    char arena[64], bound[64], host[64], minimum[64], gather[64];
    uint64_t keys = 0;
    for (int32_t k = 0; k < config->kind_count; k++) {
        uint64_t sum = 0;
        for (int s = 0; s < config->kinds[k].scope_count; s++)
            sum += (uint64_t)config->kinds[k].scope[s].width;
        if (sum > keys) keys = sum;
    }
    printf("arena      %s (lower bound %s, guards %" PRIu64 " bytes)\n",
           format_bytes(memory->device_bytes, arena), format_bytes(memory->lower_bound_bytes, bound),
           memory->guard_bytes);
    printf("host block %s\n", format_bytes(memory->host_bytes, host));
    printf("budget     any from %s on\n", format_bytes(memory->minimum_budget_bytes, minimum));
    printf("for comparison: per-token gather (vLLM #42576) takes %s of bf16 keys for %d rows; full-pool\n"
           "           dequantisation (before #41812) %" PRIu64 " bytes for every slot of the pool\n",
           format_bytes((uint64_t)config->max_rows * keys * memory->full_pool_bytes_per_slot, gather),
           (int)config->max_rows, memory->full_pool_bytes_per_slot);
}

void format_write_stdout(void *context, const char *text, size_t bytes) {
    (void)context;
    fwrite(text, 1, bytes, stdout);
}
