/* SPDX-License-Identifier: Apache-2.0
 *
 * format.c: how figures are shown to people. */
#include "format.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

const char *format_grouped(uint64_t value, char text[FORMAT_CHARS]) {
    char digits[FORMAT_CHARS];
    int length = snprintf(digits, sizeof digits, "%" PRIu64, value);
    char *at = text;
    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0) *at++ = ',';
        *at++ = digits[i];
    }
    *at = '\0';
    return text;
}

const char *format_units(uint64_t bytes, char text[FORMAT_CHARS]) {
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    uint64_t one = 1024, tenths = 0;
    if (bytes < one) {
        snprintf(text, FORMAT_CHARS, "%" PRIu64 " B", bytes);
        return text;
    }
    for (int unit = 0; unit < 6; unit++, one *= 1024) {
        tenths = bytes / one * 10 + (bytes % one * 10 + one / 2) / one;
        if (tenths >= 10240) continue;
        snprintf(text, FORMAT_CHARS, "%" PRIu64 ".%" PRIu64 " %s", tenths / 10, tenths % 10, units[unit]);
        break;
    }
    return text;
}

const char *format_bytes(uint64_t bytes, char text[FORMAT_CHARS]) {
    if (bytes < 1024) {
        snprintf(text, FORMAT_CHARS, "%" PRIu64 " bytes", bytes);
    } else {
        const size_t used = strlen(format_units(bytes, text));
        snprintf(text + used, FORMAT_CHARS - used, " (%" PRIu64 " bytes)", bytes);
    }
    return text;
}

void format_totals(const mlar_config *config, const mlar_memory *memory) {
    char arena[FORMAT_CHARS], bound[FORMAT_CHARS], host[FORMAT_CHARS], minimum[FORMAT_CHARS],
        gather[FORMAT_CHARS];
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
