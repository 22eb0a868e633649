/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_api.c: bytes -> calls of the API in any order, over one arena of exactly the queried bytes. A small
 * model of the state table in mlarena.h says what each call must return, and what lse must hold after a step
 * that ran.
 *
 * All queries are zero, so every key scores 0 and lse is the logarithm of how many entries count: a stale
 * step, a stale binding or a wrong layer shows. Out of contract, hence never called: an engine after its
 * deinit.
 *
 * Input: a configuration (1 byte), then calls: what, and two bytes of arguments. */
#define _POSIX_C_SOURCE 200112L

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include <mlarena/mlarena.h>

#include "tests/fuzz/require.h"

enum { HEADS = 2, D = 72, WIDTH = 4, MAX_ROWS = 3, KINDS = 2, PROGRAMS = 2, LAYERS = 3, NODES = 8 };
enum { BLOCK_BYTES = 4 * 88, BLOCKS = 2, LAYER_SETS = 4 };

/* One layer's tensors; `count` entries of every row are valid. */
typedef struct tensors {
    uint16_t q[MAX_ROWS * HEADS * D] __attribute__((aligned(64)));
    uint16_t out[MAX_ROWS * HEADS * D] __attribute__((aligned(64)));
    float lse[MAX_ROWS * HEADS];
    int32_t indices[MAX_ROWS * WIDTH], lens[MAX_ROWS];
} tensors;

typedef struct program_model {
    mlar_program *program; /* kept after destroy: its slot still answers */
    bool open;
    int32_t kind, capacity, layers;
    int set[LAYERS]; /* which tensors each layer is bound to */
} program_model;

static struct {
    mlar_config config;
    mlar_memory memory;
    void *host, *device;
    mlar_arena arena;
    mlar_engine *engine; /* NULL: none */
    program_model programs[PROGRAMS];
    bool step_begun, prepared[KINDS];
    int32_t rows;            /* of the step */
    int32_t schedule[KINDS]; /* 1 + the rows of the last prepare, 0: none is remembered */
} is;

static uint8_t cache[BLOCKS * BLOCK_BYTES] __attribute__((aligned(64)));
static tensors sets[LAYER_SETS];

/* ---- the world ---- */

static void *exactly(uint64_t bytes, uint64_t align) {
    void *memory = NULL;
    REQUIRE(posix_memalign(&memory, (size_t)align, (size_t)bytes) == 0);
    memset(memory, 0xff, (size_t)bytes);
    return memory;
}

static void begin(uint8_t what) {
    memset(&is, 0, sizeof is);
    REQUIRE(mlar_config_init(&is.config) == MLAR_OK);
    is.config.heads = HEADS;
    is.config.nope = 64;
    is.config.rope = 8;
    is.config.max_rows = MAX_ROWS;
    is.config.max_programs = PROGRAMS;
    is.config.max_layers = LAYERS;
    is.config.max_nodes = NODES;
    is.config.strategy = what & 1 ? MLAR_STRATEGY_GATHER : MLAR_STRATEGY_DIRECT;
    is.config.policy = what >> 1 & 1;
    is.config.update_route = what >> 2 & 1;
    is.config.guard_bytes = what & 8 ? 256 : 0;
    is.config.selftest = what >> 4 & 1;
    is.config.threads = 1 + (what >> 5 & 1);
    is.config.kind_count = KINDS;
    for (int k = 0; k < KINDS; k++) {
        is.config.kinds[k].scope_count = k + 1;
        for (int s = 0; s <= k; s++) is.config.kinds[k].scope[s].width = WIDTH;
    }
    is.memory.struct_size = sizeof is.memory;
    REQUIRE(mlar_memory_query(&is.config, &is.memory, NULL) == MLAR_OK);
    is.host = exactly(is.memory.host_bytes, is.memory.host_align_bytes);
    is.device = exactly(is.memory.device_bytes, is.memory.device_align_bytes);
    REQUIRE(mlar_arena_from_caller(&is.arena, is.device, is.memory.device_bytes, 1, NULL) == MLAR_OK);
    memset(sets, 0, sizeof sets);
    for (int i = 0; i < LAYER_SETS; i++)
        for (int r = 0; r < MAX_ROWS; r++) {
            sets[i].lens[r] = (i + r) % (WIDTH + 1);
            for (int j = 0; j < WIDTH; j++) sets[i].indices[r * WIDTH + j] = (i * 3 + j) % (BLOCKS * 4);
        }
}

static mlar_bindings bind(int32_t kind, int set) {
    mlar_bindings b;
    REQUIRE(mlar_bindings_init(&b, &is.config, kind) == MLAR_OK);
    b.q = sets[set].q;
    b.out = sets[set].out;
    b.lse = sets[set].lse;
    for (int s = 0; s <= kind; s++) {
        b.cache[s] = (mlar_cache){
            .base = cache, .block_stride_bytes = BLOCK_BYTES, .num_blocks = BLOCKS, .block_size = 4};
        b.list[s].indices = sets[set].indices;
        b.list[s].lens = sets[set].lens;
    }
    return b;
}

/* After a step of `rows` rows at `capacity`: lse of the live rows, and a zeroed tail. */
static void check_result(int set, int32_t kind, int32_t rows, int32_t capacity) {
    for (int32_t i = 0; i < capacity * HEADS; i++) {
        const int keys = i / HEADS < rows ? sets[set].lens[i / HEADS] * (kind + 1) : 0;
        const float wanted = keys > 0 ? logf((float)keys) : -INFINITY;
        REQUIRE(sets[set].lse[i] == wanted || fabsf(sets[set].lse[i] - wanted) <= 1e-5f);
    }
}

static bool balanced(void) {
    return is.config.policy == MLAR_POLICY_BALANCED;
}

static int32_t free_layers(void) {
    int32_t count = LAYERS;
    for (int i = 0; i < PROGRAMS; i++) count -= is.programs[i].open ? is.programs[i].layers : 0;
    return count;
}

/* Kernels of one layer: a row tile each of gather, attend and perhaps combine. */
static int32_t nodes_of(int32_t kind, int32_t capacity) {
    const int32_t per_tile = 1 + (is.memory.strategy == MLAR_STRATEGY_GATHER) + (is.memory.slots[kind] > 0);
    return (capacity + is.memory.row_tile[kind] - 1) / is.memory.row_tile[kind] * per_tile;
}

/* After an invalidate, a self-test and a deinit no step is begun and none prepared. */
static void forget(void) {
    is.step_begun = false;
    memset(is.prepared, 0, sizeof is.prepared);
    memset(is.schedule, 0, sizeof is.schedule);
}

/* ---- the calls ---- */

static void call_init(uint8_t a) {
    mlar_engine *engine = NULL;
    void *host = is.engine ? exactly(is.memory.host_bytes, is.memory.host_align_bytes) : is.host;
    const uint64_t fewer = a % 4 == 0;
    mlar_status status =
        mlar_engine_init(&is.config, NULL, &is.arena, host, is.memory.host_bytes - fewer, &engine, NULL);
    REQUIRE(status == (fewer ? MLAR_ERROR_MEMORY_SIZE : is.engine ? MLAR_ERROR_BUSY : MLAR_OK));
    REQUIRE((engine != NULL) == (status == MLAR_OK));
    if (is.engine) free(host);
    if (engine) is.engine = engine;
}

static void call_deinit(void) {
    REQUIRE(mlar_arena_release(&is.arena, NULL) == MLAR_ERROR_BUSY);
    REQUIRE(mlar_engine_deinit(is.engine) == MLAR_OK);
    is.engine = NULL;
    memset(is.programs, 0, sizeof is.programs);
    forget();
}

static void call_capture(uint8_t a, uint8_t b) {
    const int32_t kind = a % 4 - 1, layers = a / 4 % 5, capacity = b % (MAX_ROWS + 2);
    const bool real = kind >= 0 && kind < KINDS;
    mlar_bindings bindings[4];
    mlar_program *program = (mlar_program *)&is; /* must become NULL */
    program_model *slot = NULL;
    for (int i = 0; i < PROGRAMS; i++)
        if (!is.programs[i].open) slot = &is.programs[i];
    for (int i = 0; i < 4; i++) bindings[i] = bind(real ? kind : 0, (b / 8 + i) % LAYER_SETS);
    mlar_status wanted = MLAR_OK;
    if (!real || layers < 1)
        wanted = MLAR_ERROR_ARGUMENT;
    else if (capacity < 1 || capacity > MAX_ROWS)
        wanted = MLAR_ERROR_CAPACITY;
    else if (layers * nodes_of(kind, capacity) > NODES || slot == NULL || layers > free_layers())
        wanted = MLAR_ERROR_LIMIT;
    REQUIRE(mlar_engine_capture(is.engine, kind, bindings, layers, capacity, &program, NULL) == wanted);
    REQUIRE((program != NULL) == (wanted == MLAR_OK));
    if (wanted != MLAR_OK) return;
    *slot = (program_model){program, true, kind, capacity, layers, {0}};
    for (int i = 0; i < layers; i++) slot->set[i] = (b / 8 + i) % LAYER_SETS;
}

static void call_rebind(program_model *p, uint8_t b) {
    const int32_t layer = b % 5 - 1;
    const int set = b / 8 % LAYER_SETS;
    mlar_bindings bindings = bind(p->kind, set);
    mlar_status wanted = !p->open ? MLAR_ERROR_STATE : MLAR_OK;
    if (wanted == MLAR_OK && (layer < 0 || layer >= p->layers)) wanted = MLAR_ERROR_ARGUMENT;
    if (b & 0x80) {
        bindings.lse = NULL; /* was there at capture */
        if (wanted == MLAR_OK) wanted = MLAR_ERROR_BINDING;
    } else if (b & 0x40) {
        bindings.out = is.device; /* the arena */
        if (wanted == MLAR_OK) wanted = MLAR_ERROR_OVERLAP;
    }
    REQUIRE(mlar_program_rebind(p->program, layer, &bindings, NULL, NULL) == wanted);
    if (wanted == MLAR_OK) p->set[layer] = set;
}

static void call_step(uint8_t a) {
    const mlar_step step = {.struct_size = sizeof step, .rows = a % (MAX_ROWS + 3) - 1};
    const bool right = step.rows >= 0 && step.rows <= MAX_ROWS;
    REQUIRE(mlar_engine_step(is.engine, &step, NULL) == (right ? MLAR_OK : MLAR_ERROR_CAPACITY));
    if (!right) return;
    is.step_begun = true;
    is.rows = step.rows;
    memset(is.prepared, 0, sizeof is.prepared);
}

static void call_prepare(uint8_t a, uint8_t b) {
    const int32_t kind = a % 4 - 1;
    const bool real = kind >= 0 && kind < KINDS, own = a & 4;
    const mlar_step step = {.struct_size = sizeof step, .rows = b % (MAX_ROWS + 3) - 1};
    const mlar_bindings bindings = bind(real ? kind : 0, b / 8 % LAYER_SETS);
    mlar_status wanted = !real ? MLAR_ERROR_ARGUMENT : MLAR_OK;
    if (real && own && (step.rows < 0 || step.rows > MAX_ROWS)) wanted = MLAR_ERROR_CAPACITY;
    if (real && !own && !is.step_begun && balanced()) wanted = MLAR_ERROR_STATE;
    REQUIRE(mlar_engine_prepare(is.engine, kind, &bindings, own ? &step : NULL, NULL, NULL) == wanted);
    if (wanted != MLAR_OK) return;
    is.prepared[kind] = !own;
    is.schedule[kind] = 1 + (own ? step.rows : is.rows);
}

/* The schedule must be that of the lists which the first layer reads; layers of a kind share their lengths in
 * a model, here every layer has its own, so a program of several is prepared again for what it is checked on.
 */
static void call_replay(program_model *p) {
    mlar_status wanted = MLAR_OK;
    if (!p->open || !is.step_begun)
        wanted = MLAR_ERROR_STATE;
    else if (is.rows > p->capacity)
        wanted = MLAR_ERROR_CAPACITY;
    else if (balanced() && !is.prepared[p->kind])
        wanted = MLAR_ERROR_STATE;
    if (wanted == MLAR_OK && balanced()) {
        for (int i = 1; i < p->layers; i++) /* one schedule, one set of lengths */
            memcpy(sets[p->set[i]].lens, sets[p->set[0]].lens, sizeof sets[0].lens);
        const mlar_bindings bindings = bind(p->kind, p->set[0]);
        REQUIRE(mlar_engine_prepare(is.engine, p->kind, &bindings, NULL, NULL, NULL) == MLAR_OK);
        is.schedule[p->kind] = 1 + is.rows;
    }
    REQUIRE(mlar_program_replay(p->program, NULL) == wanted);
    for (int i = 0; wanted == MLAR_OK && i < p->layers; i++)
        check_result(p->set[i], p->kind, is.rows, p->capacity);
}

static void call_enqueue(uint8_t a, uint8_t b) {
    const int32_t kind = a % 4 - 1, capacity = a / 4 % (MAX_ROWS + 2);
    const bool real = kind >= 0 && kind < KINDS;
    const int set = b / 8 % LAYER_SETS;
    const mlar_step step = {.struct_size = sizeof step, .rows = b % (MAX_ROWS + 3) - 1};
    const mlar_bindings bindings = bind(real ? kind : 0, set);
    mlar_status wanted = MLAR_OK;
    if (capacity < 1 || capacity > MAX_ROWS || step.rows < 0 || step.rows > capacity)
        wanted = MLAR_ERROR_CAPACITY;
    else if (!real)
        wanted = MLAR_ERROR_ARGUMENT;
    if (wanted == MLAR_OK && b & 0x40) {
        /* Without a prepare of its own: any of as many rows will do, for every row here is one key tile. */
        if (balanced() && is.schedule[kind] != 1 + step.rows) wanted = MLAR_ERROR_STATE;
    } else if (wanted == MLAR_OK) {
        REQUIRE(mlar_engine_prepare(is.engine, kind, &bindings, &step, NULL, NULL) == MLAR_OK);
        is.prepared[kind] = false;
        is.schedule[kind] = 1 + step.rows;
    }
    REQUIRE(mlar_engine_enqueue(is.engine, kind, &bindings, capacity, &step, NULL, NULL) == wanted);
    if (wanted == MLAR_OK) check_result(set, kind, step.rows, capacity);
}

static void call_destroy(program_model *p) {
    REQUIRE(mlar_program_destroy(p->program) == (p->open ? MLAR_OK : MLAR_ERROR_STATE));
    p->open = false;
}

static void call_inspect(uint8_t a) {
    mlar_stats stats = {.struct_size = sizeof stats};
    int32_t open = 0;
    for (int i = 0; i < PROGRAMS; i++) open += is.programs[i].open;
    REQUIRE(mlar_engine_stats(is.engine, NULL, &stats) == MLAR_OK);
    REQUIRE(stats.programs == open && stats.invalid_indices == 0);
    REQUIRE(stats.device_bytes == is.memory.device_bytes && stats.host_bytes == is.memory.host_bytes);
    REQUIRE(mlar_engine_check_guards(is.engine, NULL, NULL) == MLAR_OK);
    switch (a % 4) {
    case 0:
        REQUIRE(mlar_engine_reset_counters(is.engine, NULL) == MLAR_OK);
        break;
    case 1:
        REQUIRE(mlar_engine_poison_scratch(is.engine, a, NULL) == MLAR_OK);
        break;
    case 2:
        REQUIRE(mlar_engine_invalidate(is.engine, NULL) == MLAR_OK);
        forget();
        break;
    default:
        REQUIRE(mlar_engine_selftest(is.engine, NULL, NULL) ==
                (is.config.selftest ? MLAR_OK : MLAR_ERROR_STATE));
        if (is.config.selftest) forget();
        break;
    }
}

/* Null pointers are refused in every state. */
static void call_nothing(void) {
    const mlar_step step = {.struct_size = sizeof step};
    REQUIRE(mlar_engine_step(is.engine, NULL, NULL) == MLAR_ERROR_ARGUMENT);
    REQUIRE(mlar_engine_step(NULL, &step, NULL) == MLAR_ERROR_ARGUMENT);
    REQUIRE(mlar_program_replay(NULL, NULL) == MLAR_ERROR_ARGUMENT);
    REQUIRE(mlar_engine_deinit(NULL) == MLAR_ERROR_ARGUMENT);
    REQUIRE(mlar_program_destroy(NULL) == MLAR_ERROR_ARGUMENT);
    REQUIRE(mlar_engine_prepare(is.engine, 0, NULL, &step, NULL, NULL) == MLAR_ERROR_ARGUMENT);
    REQUIRE(mlar_engine_enqueue(is.engine, 0, NULL, 1, &step, NULL, NULL) == MLAR_ERROR_ARGUMENT);
    REQUIRE(mlar_program_graph(NULL) == NULL);
}

static void call(uint8_t what, uint8_t a, uint8_t b) {
    program_model *p = &is.programs[a % PROGRAMS];
    what %= 12;
    if (what == 0) {
        call_init(a);
    } else if (is.engine == NULL) {
        REQUIRE(mlar_arena_release(&is.arena, NULL) == MLAR_OK);
        REQUIRE(mlar_arena_from_caller(&is.arena, is.device, is.memory.device_bytes, 1, NULL) == MLAR_OK);
    } else if (what == 1 && a % 4 == 0) {
        call_deinit();
    } else if (what <= 3) {
        call_capture(a, b);
    } else if (what == 4) {
        call_step(a);
    } else if (what == 5) {
        call_prepare(a, b);
    } else if (what == 6) {
        call_enqueue(a, b);
    } else if (what == 7) {
        call_inspect(a);
    } else if (p->program == NULL) {
        call_nothing();
    } else if (what == 8) {
        call_rebind(p, b);
    } else if (what == 9 && b % 4 == 0) {
        call_destroy(p);
    } else {
        call_replay(p);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    input from = {data, data + size};
    begin(take_byte(&from));
    for (int calls = 0; from.next < from.end && calls < 64; calls++) {
        const uint8_t what = take_byte(&from), a = take_byte(&from), b = take_byte(&from);
        call(what, a, b);
    }
    if (is.engine) call_deinit();
    REQUIRE(mlar_arena_release(&is.arena, NULL) == MLAR_OK);
    free(is.device);
    free(is.host);
    return 0;
}
