/* SPDX-License-Identifier: Apache-2.0
 *
 * status.h: every outcome a public function can report, and the optional diagnostic that explains one.
 *
 * A status is an int32 with a fixed value: 0 is success, everything else names a class of failure that a host
 * can act on. The details (which field, what was given, what was needed) go into a caller-owned mlar_diag;
 * nothing is printed, nothing is allocated, nothing aborts. */
#ifndef MLARENA_STATUS_H
#define MLARENA_STATUS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define MLAR_API __attribute__((visibility("default")))
#else
#define MLAR_API
#endif

typedef int32_t mlar_status;

/* X(name, value, what the host did wrong or what went wrong) */
#define MLAR_STATUS_TABLE(X)                                                                                 \
    X(MLAR_OK, 0, "success")                                                                                 \
    X(MLAR_ERROR_ARGUMENT, 1, "a pointer is null, or an argument is outside its domain")                     \
    X(MLAR_ERROR_STRUCT_SIZE, 2, "struct_size is unknown to this version, or its unknown tail is not zero")  \
    X(MLAR_ERROR_CONFIG, 3, "a configuration field is outside its limits")                                   \
    X(MLAR_ERROR_UNSUPPORTED, 4, "valid, but this build or device does not provide it")                      \
    X(MLAR_ERROR_OVERFLOW, 5, "a size does not fit in 64 bits")                                              \
    X(MLAR_ERROR_BUDGET, 6, "budget_bytes is below the minimum for this configuration")                      \
    X(MLAR_ERROR_MEMORY_SIZE, 7, "the memory given is smaller than the memory queried")                      \
    X(MLAR_ERROR_MEMORY_ALIGNMENT, 8, "the memory given is not aligned as queried")                          \
    X(MLAR_ERROR_MEMORY_KIND, 9, "a pointer is not memory of the kind the device needs")                     \
    X(MLAR_ERROR_OUT_OF_MEMORY, 10, "the memory source could not provide the arena")                         \
    X(MLAR_ERROR_BINDING, 11, "a binding is outside its limits or misaligned")                               \
    X(MLAR_ERROR_OVERLAP, 12, "an output overlaps an input or the arena")                                    \
    X(MLAR_ERROR_CAPACITY, 13, "the step has more rows than the captured capacity")                          \
    X(MLAR_ERROR_STATE, 14, "the call is not valid in this state")                                           \
    X(MLAR_ERROR_BUSY, 15, "another engine holds the arena")                                                 \
    X(MLAR_ERROR_LIMIT, 16, "a table fixed at init (programs, layers, graph nodes) is full")                 \
    X(MLAR_ERROR_FINGERPRINT, 17, "the program was captured for another plan")                               \
    X(MLAR_ERROR_GUARD, 18, "a guard zone was overwritten")                                                  \
    X(MLAR_ERROR_SELFTEST, 19, "replay and eager disagree")                                                  \
    X(MLAR_ERROR_FORKED, 20, "the process was forked after init; worker threads do not exist here")          \
    X(MLAR_ERROR_THREAD, 21, "a worker thread could not be started")                                         \
    X(MLAR_ERROR_NO_DEVICE, 22, "no runtime library or no device of this kind was found")                    \
    X(MLAR_ERROR_RUNTIME_BLOCKED, 23,                                                                        \
      "the device runtime's version is known to be bad and config refuses it")                               \
    X(MLAR_ERROR_DEVICE, 24, "a device runtime call failed; see mlar_diag.device_error")                     \
    X(MLAR_ERROR_DEVICE_LOST, 25, "the device no longer answers; only deinit is valid")                      \
    X(MLAR_ERROR_CAPTURING, 26, "not allowed while a stream is being captured")                              \
    X(MLAR_ERROR_PLAN, 27, "a memory plan is inconsistent (checker verdict)")

enum {
#define MLAR_STATUS_ENUM(name, value, text) name = value,
    MLAR_STATUS_TABLE(MLAR_STATUS_ENUM)
#undef MLAR_STATUS_ENUM
};

/* Why a call failed. Caller-owned, optional everywhere (NULL is accepted); written only on failure, and where
 * MLAR_RUNTIME_WARN accepts a runtime and says why it should not have. */
typedef struct mlar_diag {
    uint32_t struct_size; /* sizeof(mlar_diag), set by the caller */
    mlar_status status;   /* what the call returned */
    int32_t device_error; /* the HIP or CUDA driver error code, 0 if none */
    int32_t reserved;     /* 0 */
    int64_t given;        /* the offending value, where it is a number */
    int64_t needed;       /* the limit or the requirement, where it is a number */
    char field[64];       /* "kinds[1].scope[0].width", "host_bytes", "hipGraphInstantiate" ... */
    char message[192];    /* one line that names the field, the value and the limit */
} mlar_diag;

/* "MLAR_ERROR_BUDGET"; never NULL ("MLAR_STATUS_UNKNOWN" for other values). Static storage. */
MLAR_API const char *mlar_status_name(mlar_status status);
/* The one-line meaning above; never NULL. Static storage. */
MLAR_API const char *mlar_status_string(mlar_status status);

#ifdef __cplusplus
}
#endif
#endif
