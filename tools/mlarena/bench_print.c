/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_print.c: a benchmark as a table, as JSON and as a plot. */
#include "bench.h"
#include "configure.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static double gb_s(const bench_point *p) {
    return p->us > 0 ? 1e-3 * (double)p->kv_bytes / p->us : 0;
}
static double tflop_s(const bench_point *p) {
    return p->us > 0 ? 1e-6 * p->flops / p->us : 0;
}
static double share(const bench_point *p) {
    return p->us > 0 ? 100 * p->floor_us / p->us : 0;
}

void bench_print_table(const bench_report *report) {
    const mlar_config *c = &report->config;
    printf("device %s, kernels %s, %d heads, %d threads; floor: %.0f GB/s", report->device, report->variant,
           (int)c->heads, (int)c->threads, report->gb_s);
    if (report->tflops > 0) printf(", %.0f TFLOP/s", report->tflops);
    printf("\n%-10s %6s %-8s %10s %10s %10s %9s %8s %8s %7s %10s %9s\n", "kind", "rows", "strategy",
           "median us", "p10", "p90", "prepare", "GB/s", "TFLOP/s", "floor %", "arena MB", "rel L2");
    for (int i = 0; i < report->count; i++) {
        const bench_point *p = &report->points[i];
        printf("%-10s %6d %-8s %10.1f %10.1f %10.1f %9.1f %8.2f %8.3f %7.1f %10.2f %9.2e\n",
               c->kinds[p->kind].name, (int)p->rows, strategy_name(p->strategy), p->us, p->us_p10, p->us_p90,
               p->prepare_us, gb_s(p), tflop_s(p), share(p), 1e-6 * (double)p->arena_bytes, p->relative_l2);
    }
}

void bench_print_json(const bench_report *report) {
    json_t *points = json_array();
    for (int i = 0; i < report->count; i++) {
        const bench_point *p = &report->points[i];
        json_array_append_new(
            points, json_pack("{s:s, s:i, s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:o}", "kind",
                              report->config.kinds[p->kind].name, "rows", (int)p->rows, "strategy",
                              strategy_name(p->strategy), "us", p->us, "us_p10", p->us_p10, "us_p90",
                              p->us_p90, "prepare_us", p->prepare_us, "floor_us", p->floor_us, "gb_s",
                              gb_s(p), "tflop_s", tflop_s(p), "kv_bytes", (json_int_t)p->kv_bytes,
                              "arena_bytes", (json_int_t)p->arena_bytes, "relative_l2",
                              isfinite(p->relative_l2) ? json_real(p->relative_l2) : json_null()));
    }
    json_t *root =
        json_pack("{s:i, s:s, s:s, s:s, s:i, s:i, s:f, s:f, s:o}", "schema", 1, "command", "bench", "device",
                  report->device, "kernels", report->variant, "heads", (int)report->config.heads, "threads",
                  (int)report->config.threads, "ceiling_gb_s", report->gb_s, "ceiling_tflop_s",
                  report->tflops, "points", points);
    if (root == NULL) return;
    json_dumpf(root, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    putchar('\n');
    json_decref(root);
}

/* ---- plot ---- */

enum { WIDTH = 760, HEIGHT = 460, LEFT = 70, RIGHT = 190, TOP = 46, BOTTOM = 56 };

typedef struct axes {
    double x0, x1, y0, y1; /* decimal logarithms */
} axes;

static double at_x(const axes *a, double rows) {
    double span = a->x1 > a->x0 ? a->x1 - a->x0 : 1;
    return LEFT + (log10(rows) - a->x0) / span * (WIDTH - LEFT - RIGHT);
}

static double at_y(const axes *a, double us) {
    return HEIGHT - BOTTOM - (log10(us) - a->y0) / (a->y1 - a->y0) * (HEIGHT - TOP - BOTTOM);
}

static axes find_axes(const bench_report *report) {
    axes a = {INFINITY, -INFINITY, INFINITY, -INFINITY};
    for (int i = 0; i < report->count; i++) {
        const bench_point *p = &report->points[i];
        double low = p->floor_us > 0 && p->floor_us < p->us ? p->floor_us : p->us;
        a.x0 = fmin(a.x0, log10(p->rows));
        a.x1 = fmax(a.x1, log10(p->rows));
        a.y0 = fmin(a.y0, log10(low));
        a.y1 = fmax(a.y1, log10(p->us));
    }
    a.y0 = floor(a.y0);
    a.y1 = ceil(a.y1 + 0.05);
    return a;
}

static void draw_axes(FILE *f, const bench_report *report, const axes *a) {
    fprintf(f, "<text x='%d' y='24' font-size='15' font-weight='bold'>%d heads, %s</text>\n", LEFT,
            (int)report->config.heads, report->variant);
    for (int decade = (int)a->y0; decade <= (int)a->y1; decade++) {
        double y = at_y(a, pow(10, decade));
        fprintf(f, "<line x1='%d' y1='%.1f' x2='%d' y2='%.1f' stroke='#ddd'/>", LEFT, y, WIDTH - RIGHT, y);
        fprintf(f, "<text x='%d' y='%.1f' text-anchor='end'>%g</text>\n", LEFT - 8, y + 4, pow(10, decade));
    }
    for (int i = 0; i < report->count; i++) {
        double x = at_x(a, report->points[i].rows);
        fprintf(f, "<text x='%.1f' y='%d' text-anchor='middle'>%d</text>\n", x, HEIGHT - BOTTOM + 20,
                (int)report->points[i].rows);
    }
    fprintf(f, "<text x='%d' y='%d' text-anchor='middle'>rows</text>\n", (LEFT + WIDTH - RIGHT) / 2,
            HEIGHT - 14);
    fprintf(
        f,
        "<text x='16' y='%d' transform='rotate(-90 16 %d)' text-anchor='middle'>microseconds a call</text>\n",
        HEIGHT / 2, HEIGHT / 2);
}

/* One line through the points of a kind and strategy (or their floor); returns 0 if there are none. */
static int draw_line(FILE *f, const bench_report *report, const axes *a, int kind, int strategy, int is_floor,
                     const char *colour, double *last_y) {
    int drawn = 0;
    for (int i = 0; i < report->count; i++) {
        const bench_point *p = &report->points[i];
        double us = is_floor ? p->floor_us : p->us;
        if (p->kind != kind || p->strategy != strategy || !(us > 0)) continue;
        fprintf(f, "%s%.1f,%.1f ", drawn ? "" : "<polyline fill='none' stroke-width='2' points='",
                at_x(a, p->rows), at_y(a, us));
        *last_y = at_y(a, us);
        drawn++;
    }
    if (drawn) fprintf(f, "' stroke='%s'%s/>\n", colour, is_floor ? " stroke-dasharray='3 4'" : "");
    return drawn;
}

int bench_write_svg(const char *path, const bench_report *report) {
    static const char *const colours[] = {"#1b6ca8", "#c8553d", "#3a7d44", "#7a4fa3",
                                          "#b8860b", "#444444", "#0f8b8d", "#a23b72"};
    FILE *f = fopen(path, "w");
    if (f == NULL) return -1;
    axes a = find_axes(report);
    fprintf(f,
            "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d' font-family='sans-serif' "
            "font-size='12'>\n",
            WIDTH, HEIGHT);
    fprintf(f, "<rect width='100%%' height='100%%' fill='white'/>\n");
    if (report->count > 0) draw_axes(f, report, &a);
    int line = 0;
    for (int kind = 0; kind < report->config.kind_count; kind++)
        for (int strategy = MLAR_STRATEGY_GATHER; strategy <= MLAR_STRATEGY_DIRECT; strategy++) {
            double y = 0, floor_y = 0;
            const char *colour = colours[line % 8];
            if (!draw_line(f, report, &a, kind, strategy, 0, colour, &y)) continue;
            int floor = draw_line(f, report, &a, kind, strategy, 1, colour, &floor_y);
            int key = TOP + 10 + 34 * line++;
            fprintf(
                f, "<rect x='%d' y='%d' width='14' height='4' fill='%s'/><text x='%d' y='%d'>%s, %s</text>\n",
                WIDTH - RIGHT + 14, key - 4, colour, WIDTH - RIGHT + 34, key, report->config.kinds[kind].name,
                strategy_name(strategy));
            if (floor)
                fprintf(f, "<text x='%d' y='%d' fill='#777'>dotted: its floor</text>\n", WIDTH - RIGHT + 34,
                        key + 14);
        }
    fprintf(f, "</svg>\n");
    int failed = ferror(f);
    return fclose(f) != 0 || failed ? -1 : 0;
}
