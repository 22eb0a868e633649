/* SPDX-License-Identifier: Apache-2.0
 *
 * session.h: an engine with the memory it asked for, on the CPU or a GPU, and copies of host tensors where it
 * can read them. */
#ifndef MLARENA_TOOL_SESSION_H
#define MLARENA_TOOL_SESSION_H

#include "options.h"

#include <mlarena/mlarena.h>

/* Where engines run. */
typedef struct place {
    mlar_device *device; /* NULL: the CPU */
    void *memory;        /* what the device lives in */
    mlar_device_info info;
    char reason[256]; /* auto: why no GPU was taken */
} place;

/* By --device, --ordinal and --runtime-check. 0, or EXIT_UNUSABLE after one line. */
int place_open(place *p, const options *o);
void place_close(place *p);
/* "cpu", "gfx942 (AMD Instinct MI300X, HIP 60443483)" */
const char *place_describe(const place *p, char text[256]);

typedef struct session {
    place *where;
    mlar_config config;
    mlar_memory memory;
    mlar_arena arena;
    mlar_engine *engine;
    void *host_block;
} session;

/* Query, arena, init. config.device is set to the place's. 0, or EXIT_UNUSABLE after one line; then nothing
 * is open. */
int session_open(session *s, place *where, const mlar_config *config);
void session_close(session *s);

/* A copy of host bytes that the engine can read, or zeroed memory it can write (host NULL). On the CPU a host
 * pointer is its own copy. NULL if there is no memory. */
void *place_upload(place *p, const void *host, uint64_t bytes);
void *place_allocate(place *p, uint64_t bytes);
void place_free(place *p, void *address, const void *host);
mlar_status place_write(place *p, void *to, const void *host, uint64_t bytes);
mlar_status place_read(place *p, void *host, const void *from, uint64_t bytes);
void place_wait(place *p);

/* Seconds on a clock that only goes forward. */
double seconds_now(void);
/* values[count] are sorted; returns the one at `fraction` (0.5: median). */
double percentile(double *values, int count, double fraction);

#endif
