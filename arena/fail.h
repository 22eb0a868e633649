/* SPDX-License-Identifier: Apache-2.0
 *
 * fail.h: one way to report a failure: fill the caller's optional mlar_diag and return the status. */
#ifndef MLAR_ARENA_FAIL_H
#define MLAR_ARENA_FAIL_H

#include <mlarena/status.h>
#include <stddef.h>
#include <stdint.h>

/* No later version's struct is longer by more: a larger struct_size was never set, and says nothing of the memory. */
#define MLAR_STRUCT_GROWTH_MAX 4096
/* Where `member`, a struct's last one in its first release, ends: a smaller struct_size was never set either. */
#define MLAR_STRUCT_UP_TO(type, member) (offsetof(type, member) + sizeof(((type *)0)->member))

/* Returns status. diag may be NULL; one that no version has the size of is left alone, and of a longer one its tail.
 * field and the formatted message are cut to fit; given and needed are 0 where there is no number to show. */
__attribute__((format(printf, 6, 7))) mlar_status mlar_fail(mlar_diag *diag, mlar_status status,
                                                            const char *field, int64_t given, int64_t needed,
                                                            const char *format, ...);

/* Adds the device runtime's error code to a diag that mlar_fail has just filled. */
void mlar_fail_device_error(mlar_diag *diag, int32_t error);

/* MLAR_ERROR_ARGUMENT for a pointer that must not be null, by its name. */
mlar_status mlar_fail_null(mlar_diag *diag, const char *name);

#endif
