/* SPDX-License-Identifier: Apache-2.0
 *
 * calls.c: what every entry point goes through (the lock, the count, the failure that a test has ordered), the calls
 * about the runtime and its devices, modules, and the control table. */
#define _GNU_SOURCE /* a recursive mutex, initialised statically */
#include "tests/standin/state.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

standin_state standin_now;

/* Recursive, so that a fault while work runs fails one test and does not stop the rest. */
static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static standin_entry *entries;
static uint64_t call_count;
static const char *last_call = "";
/* initial-exec: MemorySanitizer's shadow of a library's own thread-local storage is not reliable when the library is
 * opened late (its __tls_get_addr writes to wherever the block seemed to be). */
static _Thread_local int current_device __attribute__((tls_model("initial-exec")));

static struct {
    uint64_t at; /* the call that fails, by count; 0: none */
    int error, lasting, happened;
} order;

/* ---- entry ---- */

int standin_begin(standin_entry *entry) {
    pthread_mutex_lock(&lock);
    if (entry->calls++ == 0) {
        const standin_entry *known = entries;
        while (known != NULL && known != entry) known = known->next;
        if (known == NULL) entry->next = entries, entries = entry;
    }
    call_count++;
    int now = order.at != 0 && (order.lasting ? call_count >= order.at : call_count == order.at);
    if (!order.happened) last_call = entry->name;
    order.happened |= now;
    return now ? order.error : 0;
}

int standin_end(int error) {
    pthread_mutex_unlock(&lock);
    return error;
}

int standin_release_goes_on(void) {
    return !order.lasting;
}

int standin_current(void) {
    return current_device;
}

void standin_violate(const char *format, ...) {
    if (standin_now.violation[0] != 0) return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(standin_now.violation, sizeof standin_now.violation, format, arguments);
    va_end(arguments);
}

/* ---- runtime and devices ---- */

static int put(int *to, int value) {
    if (to == NULL) return HIP_INVALID_VALUE;
    *to = value;
    return 0;
}

static int no_device(int device) {
    return device >= 0 && device < standin_now.settings.devices ? 0 : HIP_INVALID_DEVICE;
}

static int attribute(int *value, int which, int device) {
    const standin_settings *s = &standin_now.settings;
    if (no_device(device)) return HIP_INVALID_DEVICE;
    switch (which) {
    case 63:
        return put(value, s->units + device);
    case 87:
        return put(value, s->wave);
    case 88:
        return put(value, s->pools);
    default:
        return HIP_INVALID_VALUE;
    }
}

static int device_name(char *name, int bytes, int device) {
    if (no_device(device)) return HIP_INVALID_DEVICE;
    snprintf(name, (size_t)bytes, "Stand-in %d (gfx-like, not a GPU)", device);
    return 0;
}

static int total_memory(size_t *bytes, int device) {
    if (no_device(device)) return HIP_INVALID_DEVICE;
    *bytes = (size_t)standin_now.settings.memory_bytes;
    return 0;
}

/* hipDeviceProp_t as far as anybody looks: garbage but for the name and, at `arch_at`, gcnArchName. */
static int properties(void *to, size_t bytes, size_t arch_at, int device) {
    if (no_device(device)) return HIP_INVALID_DEVICE;
    memset(to, 0x5a, bytes);
    snprintf(to, 256, "AMD gfx000 Stand-in");
    snprintf((char *)to + arch_at, 256, "%s", standin_now.settings.arch);
    return 0;
}

static int set_device(int device) {
    if (no_device(device)) return HIP_INVALID_DEVICE;
    current_device = device;
    return 0;
}

HIP(hipInit, (unsigned flags),
    flags != 0                          ? HIP_INVALID_VALUE
    : standin_now.settings.devices == 0 ? HIP_NO_DEVICE
                                        : 0)
HIP(hipDriverGetVersion, (int *version), put(version, standin_now.settings.version))
HIP(hipRuntimeGetVersion, (int *version), put(version, standin_now.settings.version))
HIP(hipGetDeviceCount, (int *count), put(count, standin_now.settings.devices))
HIP(hipDeviceGetAttribute, (int *value, int which, int device), attribute(value, which, device))
HIP(hipDeviceGetName, (char *name, int bytes, int device), device_name(name, bytes, device))
HIP(hipDeviceTotalMem, (size_t * bytes, int device), total_memory(bytes, device))
HIP(hipGetDevice, (int *device), put(device, current_device))
HIP(hipSetDevice, (int device), set_device(device))
#ifdef STANDIN_OLD
HIP(hipGetDeviceProperties, (void *to, int device), properties(to, 792, 396, device))
#else
HIP(hipGetDevicePropertiesR0600, (void *to, int device), properties(to, 1472, 1160, device))
#endif

EXPORT const char *hipGetErrorName(int error);
const char *hipGetErrorName(int error) {
    static const struct {
        int code;
        const char *name;
    } names[] = {{0, "hipSuccess"},
                 {HIP_INVALID_VALUE, "hipErrorInvalidValue"},
                 {HIP_OUT_OF_MEMORY, "hipErrorOutOfMemory"},
                 {HIP_NO_DEVICE, "hipErrorNoDevice"},
                 {HIP_INVALID_DEVICE, "hipErrorInvalidDevice"},
                 {HIP_INVALID_IMAGE, "hipErrorInvalidImage"},
                 {HIP_NO_BINARY, "hipErrorNoBinaryForGpu"},
                 {HIP_INVALID_HANDLE, "hipErrorInvalidHandle"},
                 {HIP_ILLEGAL_STATE, "hipErrorIllegalState"},
                 {HIP_NOT_FOUND, "hipErrorNotFound"},
                 {700, "hipErrorIllegalAddress"},
                 {HIP_CONTEXT_DESTROYED, "hipErrorContextIsDestroyed"},
                 {719, "hipErrorLaunchFailure"},
                 {HIP_CAPTURE_UNSUPPORTED, "hipErrorStreamCaptureUnsupported"},
                 {HIP_CAPTURE_INVALIDATED, "hipErrorStreamCaptureInvalidated"},
                 {HIP_CAPTURE_IMPLICIT, "hipErrorStreamCaptureImplicit"},
                 {HIP_CAPTURE_WRONG_THREAD, "hipErrorStreamCaptureWrongThread"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].code == error) return names[i].name;
    return "hipErrorUnknown";
}

/* ---- modules ---- */

static int module_load(void **handle, const void *image) {
    int error = standin_unsafe();
    if (error != 0) return error;
    char unit[24], target[24];
    if (handle == NULL || image == NULL) return HIP_INVALID_VALUE;
    if (sscanf(image, "stand-in image: %23s for %23s", unit, target) != 2) return HIP_INVALID_IMAGE;
    if (strncmp(standin_now.settings.arch, target, strlen(target)) != 0) return HIP_NO_BINARY;
    for (int i = 0; i < MAX_MODULES; i++) {
        standin_module *module = &standin_now.modules[i];
        if (module->alive) continue;
        *module = (standin_module){.alive = 1, .device = current_device};
        snprintf(module->unit, sizeof module->unit, "%s", unit);
        *handle = module;
        return 0;
    }
    return HIP_OUT_OF_MEMORY;
}

static standin_module *module_of(void *handle) {
    for (int i = 0; i < MAX_MODULES; i++)
        if (&standin_now.modules[i] == handle && standin_now.modules[i].alive) return handle;
    return NULL;
}

static int module_unload(void *handle) {
    standin_module *module = module_of(handle);
    if (module == NULL) return HIP_INVALID_HANDLE;
    for (int i = 0; i < MAX_OPS; i++)
        if (standin_now.ops[i].kind == OP_KERNEL && standin_now.ops[i].launch.function->module == module)
            standin_violate("hipModuleUnload: %s has launches that wait", module->unit);
    for (int i = 0; i < MAX_FUNCTIONS; i++)
        if (standin_now.functions[i].module == module) standin_now.functions[i].module = NULL;
    module->alive = 0;
    return 0;
}

/* Which kernels an image has, by how their names begin. */
static const struct {
    const char *unit, *prefix;
    int32_t stage;
} kernels[] = {{"set_block", "mlar_set_block", MLAR_STAGE_SET_BLOCK},
               {"prepare", "mlar_prepare", MLAR_STAGE_PREPARE},
               {"gather", "mlar_gather", MLAR_STAGE_GATHER},
               {"combine", "mlar_combine", MLAR_STAGE_COMBINE},
               {"attend_block", "mlar_attend_direct_", MLAR_STAGE_ATTEND_DIRECT},
               {"attend_block", "mlar_attend_gathered_", MLAR_STAGE_ATTEND_GATHERED},
               {"attend_wave", "mlar_attend_direct_", MLAR_STAGE_ATTEND_DIRECT},
               {"attend_wave", "mlar_attend_gathered_", MLAR_STAGE_ATTEND_GATHERED}};

static int module_function(void **function, void *handle, const char *name) {
    standin_module *module = module_of(handle);
    if (module == NULL || function == NULL || name == NULL) return HIP_INVALID_HANDLE;
    for (size_t k = 0; k < sizeof kernels / sizeof *kernels; k++) {
        if (strcmp(kernels[k].unit, module->unit) != 0) continue;
        if (strncmp(kernels[k].prefix, name, strlen(kernels[k].prefix)) != 0) continue;
        for (int i = 0; i < MAX_FUNCTIONS; i++) {
            if (standin_now.functions[i].module != NULL) continue;
            standin_now.functions[i] = (standin_function){module, kernels[k].stage};
            *function = &standin_now.functions[i];
            return 0;
        }
    }
    return HIP_NOT_FOUND;
}

HIP(hipModuleLoadData, (void **module, const void *image), module_load(module, image))
HIP_RELEASE(hipModuleUnload, (void *module), module_unload(module))
HIP(hipModuleGetFunction, (void **function, void *module, const char *name),
    module_function(function, module, name))

/* ---- control ---- */

static void reset(const standin_settings *settings) {
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MAX_OPS; i++) /* the large tables by what marks an entry as free: a reset is cheap */
        if (standin_now.ops[i].kind != OP_NONE) standin_now.ops[i].kind = OP_NONE;
    for (int i = 0; i < MAX_NODES; i++)
        if (standin_now.nodes[i].graph != NULL) standin_now.nodes[i].graph = NULL;
    memset(&standin_now, 0, offsetof(standin_state, nodes));
    memset(&order, 0, sizeof order);
    standin_now.settings = *settings;
    for (int d = 0; d < STANDIN_DEVICES; d++)
        standin_now.defaults[d] = (standin_stream){.alive = 1, .device = d};
    standin_memory_reset();
    for (standin_entry *entry = entries; entry != NULL; entry = entry->next) entry->calls = 0;
    entries = NULL;
    call_count = 0;
    current_device = 0;
    pthread_mutex_unlock(&lock);
}

static uint64_t alive(char *text, size_t bytes) {
    uint64_t streams = 0, modules = 0, graphs = 0, execs = 0;
    char memory[80] = "";
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MAX_STREAMS; i++) streams += standin_now.streams[i].alive != 0;
    for (int i = 0; i < MAX_MODULES; i++) modules += standin_now.modules[i].alive != 0;
    for (int i = 0; i < MAX_GRAPHS; i++) {
        if (!standin_now.graphs[i].alive) continue;
        graphs += !standin_now.graphs[i].executable;
        execs += standin_now.graphs[i].executable != 0;
    }
    uint64_t count = standin_memory_alive(memory, sizeof memory) + streams + modules + graphs + execs;
    pthread_mutex_unlock(&lock);
    if (text != NULL)
        snprintf(text, bytes, "%d streams, %d modules, %d graphs, %d executable graphs, %s", (int)streams,
                 (int)modules, (int)graphs, (int)execs, memory);
    return count;
}

static const char *violation(void) {
    return standin_now.violation[0] != 0 ? standin_now.violation : NULL;
}

static void fail_call(uint64_t nth, int error, int lasting) {
    pthread_mutex_lock(&lock);
    memset(&order, 0, sizeof order);
    if (nth != 0) {
        order.at = call_count + nth;
        order.error = error;
        order.lasting = lasting;
    }
    pthread_mutex_unlock(&lock);
}

static int failed(void) {
    return order.happened;
}

static uint64_t calls(const char *name) {
    uint64_t count = name == NULL ? call_count : 0;
    pthread_mutex_lock(&lock);
    for (const standin_entry *entry = entries; name != NULL && entry != NULL; entry = entry->next)
        if (strcmp(entry->name, name) == 0) count += entry->calls;
    pthread_mutex_unlock(&lock);
    return count;
}

static const char *name_of_last(void) {
    return last_call;
}

static uint64_t queued(void) {
    return standin_now.queued;
}

static void make_current(int device) {
    current_device = device;
}

const standin_control *standin(void) {
    static const standin_control control = {.reset = reset,
                                            .alive = alive,
                                            .violation = violation,
                                            .fail_call = fail_call,
                                            .failed = failed,
                                            .calls = calls,
                                            .last_call = name_of_last,
                                            .queued = queued,
                                            .current_device = standin_current,
                                            .make_current = make_current,
                                            .new_stream = standin_new_stream,
                                            .end_stream = standin_end_stream,
                                            .pin = standin_pin};
    return &control;
}
