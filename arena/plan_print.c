/* SPDX-License-Identifier: Apache-2.0
 *
 * plan_print.c: formats a plan. It decides nothing about memory. */
#include "arena/plan_print.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef struct printer {
    mlar_plan_write write;
    void *context;
} printer;

/* Room for a 64-bit number with separators and for a size in words. */
enum { NUMBER_CHARS = 48, COLUMN_GAP = 2 };

static void put(const printer *out, const char *text) {
    out->write(out->context, text, strlen(text));
}

static void put_spaces(const printer *out, size_t count) {
    for (; count > 0; count--) out->write(out->context, " ", 1);
}

static void put_left(const printer *out, const char *text, size_t width) {
    put(out, text);
    put_spaces(out, COLUMN_GAP + (strlen(text) < width ? width - strlen(text) : 0));
}

static void put_right(const printer *out, const char *text, size_t width) {
    put_spaces(out, strlen(text) < width ? width - strlen(text) : 0);
    put(out, text);
    put_spaces(out, COLUMN_GAP);
}

/* 1234567 -> "1,234,567" */
static const char *grouped(uint64_t value, char text[NUMBER_CHARS]) {
    char digits[NUMBER_CHARS];
    int length = snprintf(digits, sizeof digits, "%" PRIu64, value);
    char *at = text;
    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0) *at++ = ',';
        *at++ = digits[i];
    }
    *at = '\0';
    return text;
}

/* 1572864 -> "1.5 MiB", rounded to nearest, in integers: the same text on every machine. */
static const char *in_units(uint64_t bytes, char text[NUMBER_CHARS]) {
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    uint64_t one = 1024, tenths = 0;
    if (bytes < one) {
        snprintf(text, NUMBER_CHARS, "%" PRIu64 " B", bytes);
        return text;
    }
    for (int unit = 0; unit < 6; unit++, one *= 1024) {
        tenths = bytes / one * 10 + (bytes % one * 10 + one / 2) / one;
        if (tenths >= 10240) continue;
        snprintf(text, NUMBER_CHARS, "%" PRIu64 ".%" PRIu64 " %s", tenths / 10, tenths % 10, units[unit]);
        break;
    }
    return text;
}

static const char *stage_name(const mlar_plan_view *view, int32_t stage, char text[NUMBER_CHARS]) {
    if (view->stage_names != NULL && stage < view->stage_name_count) return view->stage_names[stage];
    snprintf(text, NUMBER_CHARS, "%" PRId32, stage);
    return text;
}

/* The parts of "gather..attend", "gather" or "always"; missing parts are empty. */
typedef struct live_text {
    const char *first, *dots, *last;
    char first_number[NUMBER_CHARS], last_number[NUMBER_CHARS];
} live_text;

static size_t describe_life(const mlar_plan_view *view, const mlar_plan_request *request, live_text *live) {
    live->dots = live->last = "";
    if (mlar_plan_is_persistent(request)) {
        live->first = "always";
    } else {
        live->first = stage_name(view, request->first_stage, live->first_number);
        if (request->last_stage != request->first_stage) {
            live->dots = "..";
            live->last = stage_name(view, request->last_stage, live->last_number);
        }
    }
    return strlen(live->first) + strlen(live->dots) + strlen(live->last);
}

static void order_by_address(const mlar_plan *plan, uint8_t order[MLAR_PLAN_MAX_REQUESTS]) {
    for (int32_t i = 0; i < plan->count; i++) {
        int32_t at = i;
        for (; at > 0; at--) {
            int32_t other = order[at - 1];
            bool above = plan->offsets[other] > plan->offsets[i] ||
                         (plan->offsets[other] == plan->offsets[i] &&
                          plan->requests[other].first_stage > plan->requests[i].first_stage);
            if (!above) break;
            order[at] = (uint8_t)other;
        }
        order[at] = (uint8_t)i;
    }
}

static void widen(size_t *width, size_t needed) {
    if (needed > *width) *width = needed;
}

static void put_figure(const printer *out, const char *label, uint64_t value) {
    char text[NUMBER_CHARS];
    put(out, label);
    put(out, grouped(value, text));
}

static void put_totals(const printer *out, const mlar_plan *plan) {
    char text[NUMBER_CHARS];
    uint64_t bare = plan->total_bytes - plan->guard_bytes;
    put_figure(out, "total ", plan->total_bytes);
    put(out, " bytes (");
    put(out, in_units(plan->total_bytes, text));
    put_figure(out, "); lower bound ", plan->lower_bound_bytes);
    if (bare > plan->lower_bound_bytes) {
        put_figure(out, " (passed by ", bare - plan->lower_bound_bytes);
        put(out, ")");
    } else {
        put(out, " (reached)");
    }
    put_figure(out, "; without sharing ", plan->sum_bytes);
    put_figure(out, "; guards ", plan->guard_bytes);
    put_figure(out, "; base aligned to ", plan->align);
    put(out, "\n");
}

void mlar_plan_print_table(const mlar_plan_view *view, mlar_plan_write write, void *context) {
    const printer out = {write, context};
    const mlar_plan *plan = view->plan;
    char text[NUMBER_CHARS];
    live_text live;
    size_t name_width = strlen("buffer"), live_width = strlen("live"), size_width = strlen("1023.9 MiB");
    size_t number_width = strlen("offset");
    widen(&number_width, strlen(grouped(plan->total_bytes, text)));
    for (int32_t i = 0; i < plan->count; i++) {
        widen(&name_width, strlen(plan->requests[i].name));
        widen(&live_width, describe_life(view, &plan->requests[i], &live));
    }
    put_left(&out, "buffer", name_width);
    put_right(&out, "offset", number_width);
    put_right(&out, "bytes", number_width);
    put_right(&out, "size", size_width);
    put(&out, "live");
    if (view->shapes != NULL) {
        put_spaces(&out, live_width - strlen("live") + COLUMN_GAP);
        put(&out, "shape");
    }
    put(&out, "\n");
    uint8_t order[MLAR_PLAN_MAX_REQUESTS];
    order_by_address(plan, order);
    for (int32_t i = 0; i < plan->count; i++) {
        const mlar_plan_request *request = &plan->requests[order[i]];
        put_left(&out, request->name, name_width);
        put_right(&out, grouped(plan->offsets[order[i]], text), number_width);
        put_right(&out, grouped(request->bytes, text), number_width);
        put_right(&out, in_units(request->bytes, text), size_width);
        size_t length = describe_life(view, request, &live);
        put(&out, live.first);
        put(&out, live.dots);
        put(&out, live.last);
        if (view->shapes != NULL && view->shapes[order[i]] != NULL) {
            put_spaces(&out, live_width - length + COLUMN_GAP);
            put(&out, view->shapes[order[i]]);
        }
        put(&out, "\n");
    }
    put_totals(&out, plan);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static void put_string(const printer *out, const char *text) {
    put(out, "\"");
    for (; *text != '\0'; text++) {
        char escaped[8];
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') {
            snprintf(escaped, sizeof escaped, "\\%c", c);
        } else if (c < 0x20 || c == 0x7f) {
            snprintf(escaped, sizeof escaped, "\\u%04x", (unsigned)c);
        } else {
            snprintf(escaped, sizeof escaped, "%c", c);
        }
        put(out, escaped);
    }
    put(out, "\"");
}

static void put_member(const printer *out, const char *name, uint64_t value, const char *behind) {
    char line[96];
    snprintf(line, sizeof line, "\"%s\": %" PRIu64 "%s", name, value, behind);
    put(out, line);
}

static void put_buffer(const printer *out, const mlar_plan_view *view, int32_t index) {
    const mlar_plan_request *request = &view->plan->requests[index];
    bool persistent = mlar_plan_is_persistent(request);
    int32_t end = view->plan->stage_count == 0 ? 0 : view->plan->stage_count - 1;
    put(out, "{\"name\": ");
    put_string(out, request->name);
    put(out, ", ");
    put_member(out, "offset_bytes", view->plan->offsets[index], ", ");
    put_member(out, "bytes", request->bytes, ", ");
    put_member(out, "align_bytes", request->align, ", ");
    put_member(out, "first_stage", (uint64_t)request->first_stage, ", ");
    put_member(out, "last_stage", (uint64_t)(persistent ? end : request->last_stage), ", ");
    put(out, persistent ? "\"persistent\": true" : "\"persistent\": false");
    if (view->shapes != NULL && view->shapes[index] != NULL) {
        put(out, ", \"shape\": ");
        put_string(out, view->shapes[index]);
    }
    put(out, "}");
}

void mlar_plan_print_json(const mlar_plan_view *view, mlar_plan_write write, void *context) {
    const printer out = {write, context};
    const mlar_plan *plan = view->plan;
    put(&out, "{\n  ");
    put_member(&out, "plan_schema", 1, ",\n  ");
    put_member(&out, "total_bytes", plan->total_bytes, ",\n  ");
    put_member(&out, "lower_bound_bytes", plan->lower_bound_bytes, ",\n  ");
    put_member(&out, "sum_bytes", plan->sum_bytes, ",\n  ");
    put_member(&out, "guard_bytes", plan->guard_bytes, ",\n  ");
    put_member(&out, "guard_zone_bytes", plan->guard_zone_bytes, ",\n  ");
    put_member(&out, "align_bytes", plan->align, ",\n  ");
    put_member(&out, "stage_count", (uint64_t)plan->stage_count, ",\n  ");
    put(&out, "\"stages\": [");
    for (int32_t i = 0; view->stage_names != NULL && i < view->stage_name_count; i++) {
        if (i > 0) put(&out, ", ");
        put_string(&out, view->stage_names[i]);
    }
    put(&out, "],\n  \"buffers\": [");
    for (int32_t i = 0; i < plan->count; i++) {
        put(&out, i == 0 ? "\n    " : ",\n    ");
        put_buffer(&out, view, i);
    }
    put(&out, plan->count == 0 ? "]\n}" : "\n  ]\n}");
}
