/* SPDX-License-Identifier: Apache-2.0
 *
 * status.c: names and meanings of the statuses, from the one table in status.h. */
#include <mlarena/status.h>
#include <stddef.h>

static const struct {
    const char *name, *text;
} statuses[] = {
#define X(name, value, text) [value] = {#name, text},
    MLAR_STATUS_TABLE(X)
#undef X
};

static int known(mlar_status status) {
    return status >= 0 && (size_t)status < sizeof statuses / sizeof *statuses;
}

const char *mlar_status_name(mlar_status status) {
    return known(status) ? statuses[status].name : "MLAR_STATUS_UNKNOWN";
}

const char *mlar_status_string(mlar_status status) {
    return known(status) ? statuses[status].text : "unknown status";
}
