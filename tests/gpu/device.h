/* SPDX-License-Identifier: Apache-2.0
 *
 * device.h: the few calls that the kernel test needs of a GPU runtime, found when the program runs: the CUDA
 * driver, or any library that speaks HIP. It knows nothing of the engine's runtime code, which has tests of its own,
 * but how a launch with clusters is described. A failing call ends the program with the call's name. */
#ifndef TESTS_GPU_DEVICE_H
#define TESTS_GPU_DEVICE_H

#include <stddef.h>
#include <stdint.h>

typedef struct device_function device_function;

/* library: a path or NULL for the usual names. Returns 0 if there is none, or no device. */
int device_open(const char *library);
const char *device_name(void); /* as the runtime gives it */

void *device_new(size_t bytes); /* at least 256-byte aligned */
void device_free(void *memory);
void device_fill(void *memory, int byte, size_t bytes);
void device_write(void *memory, const void *from, size_t bytes);
void device_read(void *to, const void *memory, size_t bytes);
void device_copy(void *to, const void *from, size_t bytes); /* on the device, queued behind the launches */

/* A kernel of the image of `unit` for `arch` in the folder `images`, by the names that kernels/gpu/CMakeLists.txt
 * gives; an image is loaded once. `dynamic_lds_bytes` is the most it will be launched with. */
device_function *device_function_of(const char *images, const char *unit, const char *arch,
                                    const char *kernel, uint32_t dynamic_lds_bytes);
void device_launch(const device_function *function, uint32_t blocks, uint32_t threads,
                   uint32_t dynamic_lds_bytes, uint32_t cluster_blocks, const void *args);
void device_wait(void);

#endif
