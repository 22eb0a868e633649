/* SPDX-License-Identifier: Apache-2.0
 *
 * device.c: see device.h. The two families of names have the same shapes where they are used here. */
#include "tests/gpu/device.h"

#include "engine/gpu/runtime.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CUDA, HIP };
enum { CUDA_FUNCTION_DYNAMIC_LDS = 8 }; /* CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES */

/* Handles and device addresses are pointers here: both families pass them as such.
 * X(field, CUDA name, HIP name, parameters) */
#define NAMES(X)                                                                                             \
    X(init, "cuInit", "hipInit", (unsigned flags))                                                           \
    X(alloc, "cuMemAlloc_v2", "hipMalloc", (void **memory, size_t bytes))                                    \
    X(release, "cuMemFree_v2", "hipFree", (void *memory))                                                    \
    X(fill, "cuMemsetD8_v2", "hipMemset", (void *memory, int byte, size_t bytes))                            \
    X(write, "cuMemcpyHtoD_v2", "hipMemcpyHtoD", (void *memory, const void *from, size_t bytes))             \
    X(read, "cuMemcpyDtoH_v2", "hipMemcpyDtoH", (void *to, const void *memory, size_t bytes))                \
    X(copy, "cuMemcpyDtoDAsync_v2", "hipMemcpyDtoDAsync",                                                    \
      (void *to, const void *from, size_t bytes, void *stream))                                              \
    X(load, "cuModuleLoadData", "hipModuleLoadData", (void **module, const void *image))                     \
    X(function, "cuModuleGetFunction", "hipModuleGetFunction",                                               \
      (void **function, void *module, const char *name))                                                     \
    X(launch, "cuLaunchKernel", "hipModuleLaunchKernel",                                                     \
      (void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,                  \
       unsigned block_y, unsigned block_z, unsigned lds_bytes, void *stream, void **parameters,              \
       void **extra))                                                                                        \
    X(wait, "cuCtxSynchronize", "hipDeviceSynchronize", (void))
/* CUDA alone: X(field, name, parameters) */
#define CUDA_NAMES(X)                                                                                        \
    X(get_version, "cuDriverGetVersion", (int *version))                                                     \
    X(get_device, "cuDeviceGet", (int *handle, int ordinal))                                                 \
    X(get_name, "cuDeviceGetName", (char *name, int bytes, int handle))                                      \
    X(retain, "cuDevicePrimaryCtxRetain", (void **context, int handle))                                      \
    X(set_current, "cuCtxSetCurrent", (void *context))                                                       \
    X(set_attribute, "cuFuncSetAttribute", (void *function, int attribute, int value))                       \
    X(stream_new, "cuStreamCreate", (void **stream, unsigned flags))                                         \
    X(launch_extended, "cuLaunchKernelEx",                                                                   \
      (const mlar_cuda_launch_config *config, void *function, void **parameters, void **extra))

static struct {
    int family;
    int overlaps; /* as engine/gpu/backend.c decides it */
    void *library;
    void *stream; /* where launches go; null: the default one */
    char name[256];
#define FIELD(field, cuda, hip, parameters) int(*field) parameters;
    NAMES(FIELD)
#undef FIELD
#define FIELD(field, cuda, parameters) int(*field) parameters;
    CUDA_NAMES(FIELD)
#undef FIELD
} device;

static struct {
    const char *path;
    void *module;
} modules[64];

struct device_function {
    void *handle;
};

static void check(int error, const char *what) {
    if (error == 0) return;
    fprintf(stderr, "device: %s failed with %d\n", what, error);
    exit(3);
}
#define CALL(field, ...) check(device.field(__VA_ARGS__), #field)

/* ISO C has no cast from an object to a function pointer: the address is copied. */
static void find(void *pointer, const char *name) {
    void *found = dlsym(device.library, name);
    if (found == NULL) {
        fprintf(stderr, "device: the library has no %s\n", name);
        exit(3);
    }
    memcpy(pointer, &found, sizeof found);
}

int device_open(const char *library) {
    static const char *const usual[] = {"libcuda.so.1",     "libcuda.so",       "libamdhip64.so.7",
                                        "libamdhip64.so.6", "libamdhip64.so.5", "libamdhip64.so"};
    int handle, version;
    void *context;
    if (library)
        device.library = dlopen(library, RTLD_NOW);
    else
        for (size_t i = 0; device.library == NULL && i < sizeof usual / sizeof *usual; i++)
            device.library = dlopen(usual[i], RTLD_NOW);
    if (device.library == NULL) return 0;
    device.family = dlsym(device.library, "cuInit") ? CUDA : HIP;
#define FIELD(field, cuda, hip, parameters) find(&device.field, device.family == CUDA ? cuda : hip);
    NAMES(FIELD)
#undef FIELD
    if (device.init(0)) return 0;
    strcpy(device.name, "a HIP device");
    if (device.family == HIP) return 1;
#define FIELD(field, cuda, parameters) find(&device.field, cuda);
    CUDA_NAMES(FIELD)
#undef FIELD
    if (device.get_device(&handle, 0)) return 0;
    CALL(get_version, &version);
    device.overlaps = version >= MLAR_CUDA_VERSION_OVERLAP;
    CALL(get_name, device.name, (int)sizeof device.name, handle);
    CALL(retain, &context, handle);
    CALL(set_current, context);
    CALL(stream_new, &device.stream, 1);
    return 1;
}

const char *device_name(void) {
    return device.name;
}

void *device_new(size_t bytes) {
    void *memory = NULL;
    CALL(alloc, &memory, bytes ? bytes : (size_t)16);
    return memory;
}
void device_free(void *memory) {
    CALL(release, memory);
}
void device_fill(void *memory, int byte, size_t bytes) {
    if (bytes) CALL(fill, memory, byte, bytes);
    device_wait();
}
void device_write(void *memory, const void *from, size_t bytes) {
    device_wait();
    if (bytes) CALL(write, memory, from, bytes);
}
void device_copy(void *to, const void *from, size_t bytes) {
    CALL(copy, to, from, bytes, device.stream);
}
void device_read(void *to, const void *memory, size_t bytes) {
    device_wait();
    if (bytes) CALL(read, to, memory, bytes);
}

static void *read_file(const char *path) {
    FILE *file = fopen(path, "rb");
    long bytes;
    char *data;
    if (file == NULL || fseek(file, 0, SEEK_END) || (bytes = ftell(file)) < 0) {
        fprintf(stderr, "device: cannot read %s\n", path);
        exit(3);
    }
    rewind(file);
    data = malloc((size_t)bytes + 1);
    if (data == NULL || fread(data, 1, (size_t)bytes, file) != (size_t)bytes) exit(3);
    data[bytes] = 0;
    fclose(file);
    return data; /* runtimes may keep reading it */
}

static void *module_of(const char *path) {
    size_t i = 0;
    while (modules[i].path && strcmp(modules[i].path, path)) i++;
    if (modules[i].path == NULL) {
        char *copy = malloc(strlen(path) + 1);
        if (copy == NULL || i + 1 == sizeof modules / sizeof *modules) exit(3);
        modules[i].path = strcpy(copy, path);
        CALL(load, &modules[i].module, read_file(path));
    }
    return modules[i].module;
}

device_function *device_function_of(const char *images, const char *arch, const mlar_gpu_launch *launch) {
    static struct {
        char kernel[96];
        device_function function;
    } known[64];
    size_t i = 0;
    while (known[i].kernel[0] && strcmp(known[i].kernel, launch->kernel)) i++;
    if (known[i].kernel[0] == 0) {
        if (i + 1 == sizeof known / sizeof *known) exit(3);
        char path[512];
        snprintf(path, sizeof path, "%s/%s.%s.image", images, launch->unit,
                 strcmp(arch, "sm_90") ? arch : "sm_90a");
        CALL(function, &known[i].function.handle, module_of(path), launch->kernel);
        if (launch->dynamic_lds_bytes > 48 * 1024)
            CALL(set_attribute, known[i].function.handle, CUDA_FUNCTION_DYNAMIC_LDS,
                 (int)launch->dynamic_lds_bytes);
        snprintf(known[i].kernel, sizeof known[i].kernel, "%s", launch->kernel);
    }
    return &known[i].function;
}

void device_launch(const device_function *function, const mlar_gpu_launch *launch, const void *args) {
    void *parameters[] = {(void *)(uintptr_t)args};
    mlar_cuda_launch_attribute attributes[2];
    mlar_cuda_launch_config config = {.grid = {launch->grid_blocks, 1, 1},
                                      .block = {launch->block_threads, 1, 1},
                                      .lds_bytes = launch->dynamic_lds_bytes,
                                      .stream = device.stream,
                                      .attributes = attributes};
    if (launch->cluster_blocks > 1)
        attributes[config.attribute_count++] = (mlar_cuda_launch_attribute){
            .id = MLAR_CUDA_ATTRIBUTE_CLUSTER, .value = {(int32_t)launch->cluster_blocks, 1, 1}};
    if (launch->overlaps && device.overlaps)
        attributes[config.attribute_count++] =
            (mlar_cuda_launch_attribute){.id = MLAR_CUDA_ATTRIBUTE_OVERLAP, .value = {1}};
    if (config.attribute_count > 0)
        CALL(launch_extended, &config, function->handle, parameters, NULL);
    else
        CALL(launch, function->handle, launch->grid_blocks, 1u, 1u, launch->block_threads, 1u, 1u,
             launch->dynamic_lds_bytes, device.stream, parameters, (void **)NULL);
}

int device_overlaps(void) {
    return device.overlaps;
}

void device_wait(void) {
    check(device.wait(), "wait");
}
