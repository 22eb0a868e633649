/* SPDX-License-Identifier: Apache-2.0
 *
 * recorded.h: a recorded step in an engine: its tensors where the device can read them, the step run and timed, the
 * results brought back. What is printed of it is run.c's business. */
#ifndef MLARENA_TOOL_RECORDED_H
#define MLARENA_TOOL_RECORDED_H

#include "options.h"
#include "session.h"

#include "../stepfile/compare.h"
#include "../stepfile/stepfile.h"

/* One strategy's outcome. */
typedef struct recorded_outcome {
    int32_t strategy;
    stepfile_results results;
    compare_report report;
    int by_graph; /* 0: enqueued each time, and replay_us is the time of an enqueue */
    double step_us, replay_us;
    uint64_t invalid, arena_bytes;
} recorded_outcome;

/* The step's tensors where the engine can read them. */
typedef struct recorded_tensors {
    void *q, *sink, *cache[MLAR_SCOPES], *indices[MLAR_SCOPES], *lens[MLAR_SCOPES], *out, *lse;
    uint64_t out_bytes, lse_bytes;
    uint16_t *padded_q;            /* a copy of q with padded heads, or NULL: the file's own does */
    uint32_t q_stride, out_stride; /* elements from head to head: a multiple of 16 bytes */
} recorded_tensors;

const stepfile_scope *recorded_scope(const stepfile *step, int s);
int recorded_scope_count(const stepfile *step);

/* Device copies of the step's tensors, and room for its outputs. 0 or EXIT_UNUSABLE; free either way. */
int recorded_upload(place *p, const stepfile *step, recorded_tensors *t);
void recorded_free(place *p, const stepfile *step, recorded_tensors *t);

/* Host memory for what out->strategy gives. 0 or EXIT_UNUSABLE; free either way. */
int recorded_allocate_results(const stepfile *step, recorded_outcome *out);
void recorded_free_results(recorded_outcome *out);

/* Runs the step by --graph, keeps the results, then times it. */
mlar_status recorded_run(session *s, const options *o, const stepfile *file, const recorded_tensors *t,
                         recorded_outcome *out, mlar_diag *diag);

#endif
