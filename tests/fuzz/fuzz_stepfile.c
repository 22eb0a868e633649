/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_stepfile.c: any bytes as a step file. What is refused comes with one line of reason and owns nothing;
 * what is accepted keeps the promises of stepfile.h and survives being compared with itself.
 *
 * Each input is tried twice: as it is, and with the header length set to where the header seems to end.
 * Without the second, nearly every mutation of the JSON would stop at the length check.
 *
 * Inputs are files: seeds are made by tests/data/make_cases.py. No file is touched. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/stepfile/compare.h"
#include "tools/stepfile/stepfile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An ordinary assert() would vanish from a release build. */
static void require(bool holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "broken promise: %s\n", what);
    abort();
}

/* Reads every byte of an array that must be there in full: a sanitizer sees what is missing. */
static void touch(const void *array, uint64_t bytes) {
    static volatile uint8_t sink;
    if (!array) return;
    require((uintptr_t)array % STEPFILE_ALIGNMENT_BYTES == 0, "arrays are aligned");
    uint8_t sum = 0;
    for (uint64_t i = 0; i < bytes; i++) sum = (uint8_t)(sum + ((const uint8_t *)array)[i]);
    sink = sum;
    (void)sink;
}

static void check_scope(const stepfile *step, const stepfile_scope *scope, const uint16_t *gathered) {
    if (!scope->present) return;
    require(scope->cache && scope->indices, "a scope has a cache and indices");
    require(scope->block_size_tokens >= 1 && scope->rows_per_len >= 1, "nothing to divide by is zero");
    require(scope->num_blocks <= INT32_MAX / scope->block_size_tokens, "slots fit int32");
    require(scope->block_stride_bytes >= stepfile_block_bytes(step, scope->block_size_tokens),
            "a block fits");
    touch(scope->cache, scope->num_blocks * scope->block_stride_bytes);
    touch(scope->indices, sizeof(int32_t) * step->rows * scope->width);
    touch(scope->lens, sizeof(int32_t) * ((step->rows + scope->rows_per_len - 1) / scope->rows_per_len));
    touch(gathered, (uint64_t)2 * step->rows * scope->width * step->d_qk);
    for (uint32_t row = 0; row < step->rows; row++)
        for (uint32_t j = 0; j < scope->width; j++)
            require(!stepfile_entry_counts(scope, row, j) || j < stepfile_row_len(scope, row),
                    "only entries below the length count");
}

static void check_step(const stepfile *step) {
    uint64_t heads = (uint64_t)step->rows * step->heads;
    require(step->window.present && step->q, "a step has queries and a window");
    require(step->d_qk == step->nope + step->rope && step->d_v <= step->d_qk, "head dimensions agree");
    touch(step->q, heads * step->d_qk * sizeof step->q[0]);
    touch(step->attn_sink, step->heads * sizeof step->attn_sink[0]);
    touch(step->expected.out, heads * step->d_v * sizeof step->expected.out[0]);
    touch(step->expected.out_f64, heads * step->d_v * sizeof step->expected.out_f64[0]);
    touch(step->expected.lse, heads * sizeof step->expected.lse[0]);
    check_scope(step, &step->window, step->expected.gathered_window);
    check_scope(step, &step->extra, step->expected.gathered_extra);
}

static void compare_with_itself(const stepfile *step) {
    compare_report report;
    char line[64];
    compare_step(step, &step->expected, &report);
    if (step->expected.out_f64) {
        const compare_shape shape = {step->rows, step->heads, step->d_v, step->d_qk, step->q};
        const compare_array out = {step->expected.out_f64, COMPARE_F64};
        compare_out(&shape, out, out, &report.out);
    }
    compare_describe("out", &report.out, line, sizeof line);
    require(report.lse.pass || !report.lse.checked, "lse equals itself");
    require(report.gathered_window.pass || !report.gathered_window.checked,
            "the gathered window equals itself");
    require(report.gathered_extra.pass || !report.gathered_extra.checked, "the gathered extra equals itself");
}

static void try(const uint8_t *data, size_t size) {
    static const stepfile zeroed;
    stepfile step;
    step_error error;
    if (stepfile_read_memory(data, size, "INPUT", &step, &error)) {
        check_step(&step);
        compare_with_itself(&step);
        stepfile_free(&step);
    } else {
        require(strncmp(error.text, "INPUT: ", 7) == 0, "an error names the file");
        require(strpbrk(error.text, "\n\r\033") == NULL, "an error is one printable line");
        require(memcmp(&step, &zeroed, sizeof step) == 0, "a step that was not read is zeroed");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    try(data, size);

    uint64_t header_bytes = 0;
    for (size_t i = 8; i + 1 < size; i++)
        if (data[i] == '}' && data[i + 1] == '}') header_bytes = i + 2 - 8;
    if (header_bytes == 0) return 0;
    uint8_t *corrected = malloc(size);
    require(corrected != NULL, "there is memory");
    memcpy(corrected, data, size);
    memcpy(corrected, &header_bytes, sizeof header_bytes);
    try(corrected, size);
    free(corrected);
    return 0;
}
