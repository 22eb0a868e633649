/* SPDX-License-Identifier: Apache-2.0
 *
 * kernel_cases.h: cases for the GPU kernels that drawing seldom gives: every byte under every scale, the ends of what
 * SPEC allows, a cache beyond 4 GB. They are cases of tests/support like any other. */
#ifndef TESTS_GPU_KERNEL_CASES_H
#define TESTS_GPU_KERNEL_CASES_H

#include "tests/support/cases.h"

/* One row that reads 1024 tokens of 64 bytes, each under one scale: all 256 bytes under all 256 e8m0 scales; without
 * with_nan, zeros instead of NaN bytes. */
step_case *kernel_case_all_bytes(int32_t fp8, int32_t base_offset_bytes, int32_t with_nan);

enum { KERNEL_CASE_LIMITS = 5 };
step_case *kernel_case_limit(int32_t number);

/* A drawn case bent to what tuned engines serve: the caches that DeepSeek-V4 (layout dsv4) or DeepSeek-V3.2 (v32)
 * has, or bf16 ones of 512 columns, 16 bytes at a time. Layout -1: dsv4 and bf16 as they were drawn, of any
 * alignment, which tuned engines serve once they are gathered. Even seeds have no NaN, and no huge queries. */
step_case *kernel_case_tuned(uint64_t seed, int32_t layout, const case_bounds *bounds);

/* Slots that need 64-bit addresses. Takes 5 GB of the host's memory. */
step_case *kernel_case_far(void);

#endif
