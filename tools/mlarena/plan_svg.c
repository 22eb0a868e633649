/* SPDX-License-Identifier: Apache-2.0
 *
 * plan_svg.c: draws the answer of a memory query. From top to bottom: what it is and how much; the arena,
 * with one row per stage of each layer kind, a box for every buffer, and what is live beside each row; the
 * list of buffers, as most of them are too small to be labelled in the picture. */
#include "plan_svg.h"
#include "format.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

/* Pixels of a page of fixed width; its height follows from the rows. */
enum {
    PAGE_WIDTH = 1180,
    MARGIN = 24,
    PLOT_LEFT = 130,
    PLOT_WIDTH = 890,
    PLOT_TOP = 92,
    ROW = 32,
    KIND_GAP = 24, /* above each kind's rows; holds its name */
    AXIS = 40,
    LIST_ROW = 20,
    LETTER = 7, /* an average letter of a label */
    ROWS_MAX = MLAR_KINDS_MAX * 8 + 1
};

static const char style_sheet[] =
    "<style>\n"
    "text { font-family: 'DejaVu Sans', 'Helvetica Neue', Arial, sans-serif; font-size: 12px; fill: #1f2933; "
    "}\n"
    ".title { font-size: 18px; font-weight: bold; }\n"
    ".kind, .peak, .head { font-weight: bold; }\n"
    ".quiet { fill: #66727f; }\n"
    ".right { text-anchor: end; }\n"
    ".middle { text-anchor: middle; }\n"
    ".label { fill: #ffffff; text-anchor: middle; }\n"
    ".tick { stroke: #c4cbd3; stroke-width: 1; }\n"
    ".end { stroke: #1f2933; stroke-width: 1.5; }\n"
    ".box { stroke: #ffffff; stroke-width: 1; }\n"
    "</style>\n"
    "<defs><pattern id=\"free\" width=\"7\" height=\"7\" patternUnits=\"userSpaceOnUse\" "
    "patternTransform=\"rotate(45)\"><rect width=\"7\" height=\"7\" fill=\"#f5f6f8\"/>"
    "<line x1=\"0\" y1=\"0\" x2=\"0\" y2=\"7\" stroke=\"#dfe3e8\" stroke-width=\"2\"/></pattern></defs>\n";

static const char *const scratch_colours[] = {"#3b76af", "#d9822b", "#3f9150", "#9a5fa5",
                                              "#c94c4c", "#2f8f8b", "#8a6d3b", "#b5508a"};
static const char *const persistent_colours[] = {"#5d6b7c", "#7c8999", "#45515f"};
#define COUNT_OF(array) ((int)(sizeof(array) / sizeof(array)[0]))

typedef struct row {
    int kind, stage; /* -1: a plan without scratch has one row for all */
    int top;         /* below PLOT_TOP */
    uint64_t live_bytes;
} row;

typedef struct picture {
    FILE *out;
    const mlar_memory *memory;
    const char *title;
    const char *const *kind_names;
    int kinds; /* that have rows */
    int row_count;
    row rows[ROWS_MAX];
    int plot_height;
    int order[MLAR_BUFFERS_MAX]; /* by address, then as given */
    const char *colour[MLAR_BUFFERS_MAX];
} picture;

/* ---- what goes where ------------------------------------------------------------------------- */

static bool lives_in(const mlar_buffer_info *buffer, const row *r) {
    if (buffer->bytes == 0) return false;
    if (buffer->persistent) return true;
    return buffer->kind == r->kind && buffer->first_stage <= r->stage && r->stage <= buffer->last_stage;
}

static void lay_out_kind(picture *p, int kind) {
    int first = INT32_MAX, last = -1;
    for (int i = 0; i < p->memory->buffer_count; i++) {
        const mlar_buffer_info *buffer = &p->memory->buffers[i];
        if (buffer->persistent || buffer->kind != kind || buffer->bytes == 0) continue;
        if (buffer->first_stage < first) first = buffer->first_stage;
        if (buffer->last_stage > last) last = buffer->last_stage;
    }
    if (last < 0) return;
    p->kinds++;
    p->plot_height += KIND_GAP;
    for (int stage = first; stage <= last && p->row_count < ROWS_MAX; stage++) {
        p->rows[p->row_count++] = (row){.kind = kind, .stage = stage, .top = p->plot_height};
        p->plot_height += ROW;
    }
}

static void lay_out(picture *p) {
    for (int kind = 0; kind < MLAR_KINDS_MAX; kind++) lay_out_kind(p, kind);
    if (p->row_count == 0) {
        p->rows[p->row_count++] = (row){.kind = -1, .stage = -1, .top = KIND_GAP};
        p->plot_height = KIND_GAP + ROW;
    }
    for (int r = 0; r < p->row_count; r++) {
        for (int i = 0; i < p->memory->buffer_count; i++) {
            const mlar_buffer_info *buffer = &p->memory->buffers[i];
            if (lives_in(buffer, &p->rows[r])) p->rows[r].live_bytes += buffer->bytes;
        }
    }
}

/* Buffers of one name have one colour, in whichever kind they are; persistent ones are grey. */
static void choose_colours(picture *p) {
    int scratch = 0, persistent = 0;
    for (int i = 0; i < p->memory->buffer_count; i++) {
        const mlar_buffer_info *buffer = &p->memory->buffers[i];
        for (int j = 0; j < i && p->colour[i] == NULL; j++) {
            if (strcmp(p->memory->buffers[j].name, buffer->name) == 0) p->colour[i] = p->colour[j];
        }
        if (p->colour[i] != NULL) continue;
        p->colour[i] = buffer->persistent ? persistent_colours[persistent++ % COUNT_OF(persistent_colours)]
                                          : scratch_colours[scratch++ % COUNT_OF(scratch_colours)];
    }
}

static void sort_by_address(picture *p) {
    const mlar_buffer_info *buffers = p->memory->buffers;
    for (int i = 0; i < p->memory->buffer_count; i++) {
        int at = i;
        for (; at > 0 && buffers[p->order[at - 1]].offset_bytes > buffers[i].offset_bytes; at--) {
            p->order[at] = p->order[at - 1];
        }
        p->order[at] = i;
    }
}

static double x_of(const picture *p, uint64_t offset) {
    uint64_t total = p->memory->device_bytes == 0 ? 1 : p->memory->device_bytes;
    return PLOT_LEFT + PLOT_WIDTH * ((double)offset / (double)total);
}

/* ---- text ------------------------------------------------------------------------------------ */

enum { TEXT_BYTES = 160 };

static void put_escaped(FILE *out, const char *text) {
    for (; *text != '\0'; text++) {
        switch (*text) {
        case '<':
            fputs("&lt;", out);
            break;
        case '>':
            fputs("&gt;", out);
            break;
        case '&':
            fputs("&amp;", out);
            break;
        case '"':
            fputs("&quot;", out);
            break;
        default:
            fputc((unsigned char)*text < 0x20 ? ' ' : *text, out);
        }
    }
}

static void put_text(const picture *p, double x, double y, const char *classes, const char *text) {
    fprintf(p->out, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">", x, y, classes);
    put_escaped(p->out, text);
    fputs("</text>\n", p->out);
}

static const char *stage_name(const picture *p, int stage) {
    return stage >= 0 && stage < p->memory->stage_count ? p->memory->stages[stage] : "every stage";
}

static const char *kind_name(const picture *p, int kind, char text[TEXT_BYTES]) {
    if (p->kind_names != NULL && p->kind_names[kind] != NULL && p->kind_names[kind][0] != '\0') {
        return p->kind_names[kind];
    }
    snprintf(text, TEXT_BYTES, "kind %d", kind);
    return text;
}

/* ---- the parts of the page ------------------------------------------------------------------- */

static void put_header(const picture *p) {
    char line[2 * TEXT_BYTES], total[FORMAT_CHARS], bytes[FORMAT_CHARS], guards[TEXT_BYTES] = "",
                                                                         size[FORMAT_CHARS];
    const mlar_memory *m = p->memory;
    if (m->guard_bytes != 0) {
        snprintf(guards, sizeof guards, "without its guard zones (%s) ", format_units(m->guard_bytes, size));
    }
    int length = snprintf(line, sizeof line, "%s (%s bytes), base aligned to %" PRIu64 "; %s",
                          format_units(m->device_bytes, total), format_grouped(m->device_bytes, bytes),
                          m->device_align_bytes, guards);
    if (m->device_bytes - m->guard_bytes == m->lower_bound_bytes) {
        snprintf(line + length, sizeof line - (size_t)length, "equal to the lower bound");
    } else {
        snprintf(line + length, sizeof line - (size_t)length, "the lower bound is %s bytes",
                 format_grouped(m->lower_bound_bytes, bytes));
    }
    put_text(p, MARGIN, 34, "title", p->title == NULL ? "mlarena: device arena" : p->title);
    put_text(p, MARGIN, 56, "quiet", line);
    put_text(p, PLOT_LEFT + PLOT_WIDTH + 12, PLOT_TOP + KIND_GAP - 8, "quiet", "live bytes");
}

static void put_rows(const picture *p) {
    char text[TEXT_BYTES];
    uint64_t peak = 0;
    for (int r = 0; r < p->row_count; r++) {
        if (p->rows[r].live_bytes > peak) peak = p->rows[r].live_bytes;
    }
    for (int r = 0; r < p->row_count; r++) {
        const row *now = &p->rows[r];
        double middle = PLOT_TOP + now->top + ROW / 2.0 + 4;
        bool first_of_kind = r == 0 || p->rows[r - 1].kind != now->kind;
        if (first_of_kind && now->kind >= 0 && (p->kinds > 1 || p->kind_names != NULL)) {
            put_text(p, MARGIN, PLOT_TOP + now->top - 8, "kind", kind_name(p, now->kind, text));
        }
        fprintf(
            p->out,
            "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"url(#free)\" stroke=\"#e6e9ed\"/>\n",
            PLOT_LEFT, PLOT_TOP + now->top, PLOT_WIDTH, ROW);
        put_text(p, PLOT_LEFT - 10, middle, "right", stage_name(p, now->stage));
        format_units(now->live_bytes, text);
        if (now->live_bytes == peak) strcat(text, ", the peak");
        put_text(p, PLOT_LEFT + PLOT_WIDTH + 12, middle, now->live_bytes == peak ? "peak" : "", text);
    }
}

static void put_mark(const picture *p, uint64_t offset, const char *classes) {
    double x = x_of(p, offset);
    fprintf(p->out, "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" class=\"%s\"/>\n", x,
            PLOT_TOP + KIND_GAP, x, PLOT_TOP + p->plot_height + 6, classes);
}

/* Marks at the power of two that gives four to nine of them; the boxes are drawn over them. */
static void put_axis(const picture *p) {
    char text[FORMAT_CHARS];
    uint64_t total = p->memory->device_bytes;
    double label_y = PLOT_TOP + p->plot_height + 20;
    uint64_t step = 1;
    while (total / step > 8) step *= 2;
    for (uint64_t at = 0; at < total; at += step) {
        put_mark(p, at, "tick");
        bool room = x_of(p, total) - x_of(p, at) > 64; /* before the label of the end */
        if (room) put_text(p, x_of(p, at), label_y, "middle quiet", at == 0 ? "0" : format_units(at, text));
    }
    put_mark(p, total, "end");
    put_text(p, x_of(p, total), label_y, "middle kind", format_units(total, text));
}

static void put_label(const picture *p, const mlar_buffer_info *buffer, double x, double y, double width,
                      double height) {
    char size[FORMAT_CHARS], text[TEXT_BYTES];
    snprintf(text, sizeof text, "%s  %s", buffer->name, format_units(buffer->bytes, size));
    const char *shown = text;
    double needed = LETTER * (double)strlen(text) + 10;
    if (needed > width && needed > height) {
        shown = buffer->name;
        needed = LETTER * (double)strlen(shown) + 10;
    }
    double middle_x = x + width / 2, middle_y = y + height / 2;
    if (needed <= width) {
        put_text(p, middle_x, middle_y + 4, "label", shown);
    } else if (needed <= height && width >= 16) {
        fprintf(p->out, "<text class=\"label\" transform=\"translate(%.1f %.1f) rotate(-90)\">", middle_x + 4,
                middle_y);
        put_escaped(p->out, shown);
        fputs("</text>\n", p->out);
    }
}

/* One box over the rows in which the buffer lives; they follow each other. */
static void put_box(const picture *p, int index) {
    const mlar_buffer_info *buffer = &p->memory->buffers[index];
    int first = 0;
    while (first < p->row_count && !lives_in(buffer, &p->rows[first])) first++;
    if (first == p->row_count) return;
    int last = first;
    while (last + 1 < p->row_count && lives_in(buffer, &p->rows[last + 1])) last++;
    double x = x_of(p, buffer->offset_bytes);
    double width = x_of(p, buffer->offset_bytes + buffer->bytes) - x;
    if (width < 2) width = 2; /* to be seen at all */
    double y = PLOT_TOP + p->rows[first].top;
    double height = PLOT_TOP + p->rows[last].top + ROW - y;
    fprintf(p->out, "<rect x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%.1f\" fill=\"%s\"%s><title>", x, y,
            width, height, p->colour[index], width > 6 ? " class=\"box\"" : "");
    put_escaped(p->out, buffer->name);
    fprintf(p->out, ": %" PRIu64 " bytes at %" PRIu64 "</title></rect>\n", buffer->bytes,
            buffer->offset_bytes);
    put_label(p, buffer, x, y, width, height);
}

static void describe_life(const picture *p, const mlar_buffer_info *buffer, char text[TEXT_BYTES]) {
    char name[TEXT_BYTES] = "";
    if (buffer->persistent) {
        snprintf(text, TEXT_BYTES, "always");
        return;
    }
    const char *first = stage_name(p, buffer->first_stage), *last = stage_name(p, buffer->last_stage);
    bool several = p->kinds > 1 && buffer->kind >= 0;
    snprintf(text, TEXT_BYTES, "%s%s%s%s%.40s", first, first == last ? "" : " to ", first == last ? "" : last,
             several ? ", " : "", several ? kind_name(p, buffer->kind, name) : "");
}

static void put_list(const picture *p) {
    enum { NAME = MARGIN + 20, OFFSET = 270, BYTES = 390, SIZE = 490, LIVE = 520, SHAPE = 790 };
    char text[TEXT_BYTES];
    double y = PLOT_TOP + p->plot_height + AXIS + LIST_ROW;
    put_text(p, NAME, y, "head", "buffer");
    put_text(p, OFFSET, y, "head right", "offset");
    put_text(p, BYTES, y, "head right", "bytes");
    put_text(p, LIVE, y, "head", "live");
    put_text(p, SHAPE, y, "head", "shape");
    for (int i = 0; i < p->memory->buffer_count; i++) {
        const mlar_buffer_info *buffer = &p->memory->buffers[p->order[i]];
        y += LIST_ROW;
        fprintf(p->out, "<rect x=\"%d\" y=\"%.1f\" width=\"12\" height=\"12\" rx=\"2\" fill=\"%s\"/>\n",
                MARGIN, y - 10, p->colour[p->order[i]]);
        put_text(p, NAME, y, "", buffer->name);
        put_text(p, OFFSET, y, "right", format_grouped(buffer->offset_bytes, text));
        put_text(p, BYTES, y, "right", format_grouped(buffer->bytes, text));
        put_text(p, SIZE, y, "right quiet", format_units(buffer->bytes, text));
        describe_life(p, buffer, text);
        put_text(p, LIVE, y, "", text);
        put_text(p, SHAPE, y, "quiet", buffer->shape);
    }
}

int plan_svg_write(FILE *out, const mlar_memory *memory, const char *title, const char *const *kind_names) {
    picture p = {.out = out, .memory = memory, .title = title, .kind_names = kind_names};
    lay_out(&p);
    choose_colours(&p);
    sort_by_address(&p);
    int height = PLOT_TOP + p.plot_height + AXIS + (memory->buffer_count + 1) * LIST_ROW + MARGIN;
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\">\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n",
            PAGE_WIDTH, height, PAGE_WIDTH, height);
    fputs(style_sheet, out);
    put_header(&p);
    put_rows(&p);
    put_axis(&p);
    for (int i = 0; i < memory->buffer_count; i++) put_box(&p, i);
    put_list(&p);
    fputs("</svg>\n", out);
    return fflush(out) != 0 || ferror(out) != 0 ? -1 : 0;
}
