/* SPDX-License-Identifier: Apache-2.0
 *
 * exact_host.c: a host that gives the engine exactly what the query asked for, and watches it stay inside.
 *
 * Host block and arena each stand between two inaccessible pages, flush with the lower one, then with the
 * upper one: a byte read or written outside is a fault. Exactly the queried bytes work, one fewer is refused
 * by name, and the same memory works again afterwards. Grown from nothing, every smaller size is refused. Ten
 * thousand decode steps (rebind, step, prepare, replay; enqueue) take no memory and start no thread: a
 * preloaded shim.c counts. `exact_host counted` insists on it, and first checks that it sees every such call.
 * Like host.c it knows the installed package and nothing else of this tree. */
#define _GNU_SOURCE /* MAP_ANONYMOUS */

#include <mlarena/mlarena.h>

#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { D = 512, BLOCK = 64, BLOCKS = 12, ROWS = 4, REPLAYS = 10000 };

unsigned long shim_calls(void) __attribute__((weak)); /* null unless the shim is preloaded */

static mlar_diag diag = {.struct_size = sizeof diag};

static void require(int condition, const char *what) {
    if (condition) return;
    fprintf(stderr, "failed: %s (%s: %s)\n", what, diag.field, diag.message);
    exit(1);
}

/* Bytes between two inaccessible pages. */
typedef struct fenced {
    unsigned char *low;  /* first usable byte, behind the lower fence */
    unsigned char *high; /* the upper fence */
} fenced;

static fenced fence(uint64_t bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t room = ((size_t)bytes + page - 1) / page * page;
    unsigned char *base = mmap(NULL, room + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    require(base != MAP_FAILED, "mmap");
    require(mprotect(base + page, room, PROT_READ | PROT_WRITE) == 0, "mprotect");
    return (fenced){.low = base + page, .high = base + page + room};
}

/* `bytes` that end at the upper fence, or as near to it as the alignment allows. */
static void *at_the_top(fenced memory, uint64_t bytes, uint64_t align) {
    return memory.high - (bytes + align - 1) / align * align;
}

/* The tensors of one layer of kind window + top-512. */
typedef struct tensors {
    uint16_t *q, *out;
    float *lse;
    uint8_t *cache;
    int32_t *indices[MLAR_SCOPES], *lens[MLAR_SCOPES];
} tensors;

static void *nothing(void *argument) {
    return argument;
}

/* Every call that must not happen in a step is one that the shim sees. Pointers to functions, because a
 * compiler may leave out an allocation that it sees freed. */
static void check_the_shim(void) {
    void *(*volatile take)(size_t) = malloc;
    void *(*volatile clear)(size_t, size_t) = calloc;
    void *(*volatile resize)(void *, size_t) = realloc;
    void (*volatile give)(void *) = free;
    unsigned long before = shim_calls();
    void *block = take(64), *other = clear(1, 64), *aligned = NULL, *mapped;
    require(block != NULL && other != NULL && shim_calls() == before + 2, "the shim sees malloc and calloc");
    block = resize(block, 128);
    require(block != NULL && shim_calls() == before + 3, "the shim sees realloc");
    give(block);
    give(other);
    require(shim_calls() == before + 5, "the shim sees free");
    require(posix_memalign(&aligned, 64, 64) == 0 && shim_calls() == before + 6,
            "the shim sees posix_memalign");
    free(aligned);
    before = shim_calls();
    mapped = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    require(mapped != MAP_FAILED && shim_calls() == before + 1, "the shim sees mmap");
    require(munmap(mapped, 4096) == 0 && shim_calls() == before + 2, "the shim sees munmap");
    require(sbrk(0) != NULL && shim_calls() == before + 3, "the shim sees sbrk");
    pthread_t thread;
    require(pthread_create(&thread, NULL, nothing, NULL) == 0 && shim_calls() > before + 3,
            "the shim sees pthread_create");
    require(pthread_join(thread, NULL) == 0, "pthread_join");
}

static void *zeros(size_t bytes) {
    void *memory = NULL;
    require(posix_memalign(&memory, 64, bytes) == 0, "posix_memalign");
    return memset(memory, 0, bytes);
}

static tensors make_tensors(const mlar_config *config, mlar_bindings *bindings) {
    size_t values = (size_t)ROWS * (size_t)config->heads * D;
    uint64_t stride;
    require(mlar_kv_block_stride_padded(MLAR_LAYOUT_DSV4, config->nope, config->rope, BLOCK, &stride) ==
                MLAR_OK,
            "block stride");
    tensors t = {.q = zeros(values * sizeof *t.q),
                 .out = zeros(values * sizeof *t.out),
                 .lse = zeros(values / D * sizeof *t.lse),
                 .cache = zeros(BLOCKS * stride)};
    require(mlar_bindings_init(bindings, config, 1) == MLAR_OK, "bindings_init");
    bindings->q = t.q;
    bindings->out = t.out;
    bindings->lse = t.lse;
    for (int s = 0; s < MLAR_SCOPES; s++) {
        size_t width = (size_t)config->kinds[1].scope[s].width;
        t.indices[s] = zeros(ROWS * width * sizeof(int32_t));
        t.lens[s] = zeros(ROWS * sizeof(int32_t));
        for (size_t j = 0; j < ROWS * width; j++) t.indices[s][j] = (int32_t)(j * 7 % (BLOCKS * BLOCK));
        bindings->cache[s] = (mlar_cache){
            .base = t.cache, .block_stride_bytes = stride, .num_blocks = BLOCKS, .block_size = BLOCK};
        bindings->list[s].indices = t.indices[s];
        bindings->list[s].lens = t.lens[s];
    }
    return t;
}

static void check_lse(const tensors *t, int32_t rows, int32_t heads) {
    for (int32_t i = 0; i < rows * heads; i++) {
        int keys = t->lens[0][i / heads] + t->lens[1][i / heads];
        float expected = keys > 0 ? logf((float)keys) : -INFINITY;
        require(t->lse[i] == expected || fabsf(t->lse[i] - expected) <= 1e-5f, "lse of a step");
    }
}

/* One step with other rows and lengths than the one before, twice: by replay, and as an enqueue. All keys
 * score 0 whatever the scale is, so lse is known; the scale is what a rebind changes. */
static void step(mlar_engine *engine, mlar_program *program, mlar_bindings *bindings, tensors *t,
                 int32_t heads, int number) {
    mlar_step now = {.struct_size = sizeof now, .rows = number % (ROWS + 1)};
    for (int r = 0; r < ROWS; r++) {
        t->lens[0][r] = (number + r) % 129;
        t->lens[1][r] = (number * 5 + r) % 513;
    }
    bindings->scale = 1.0f / (float)(1 + number % 3);
    require(mlar_program_rebind(program, 0, bindings, NULL, &diag) == MLAR_OK, "rebind");
    require(mlar_engine_step(engine, &now, NULL) == MLAR_OK, "step");
    require(mlar_engine_prepare(engine, 1, bindings, NULL, NULL, &diag) == MLAR_OK, "prepare");
    require(mlar_program_replay(program, NULL) == MLAR_OK, "replay");
    check_lse(t, now.rows, heads);
    memset(t->lse, 0xff, (size_t)(ROWS * heads) * sizeof *t->lse);
    require(mlar_engine_prepare(engine, 1, bindings, &now, NULL, &diag) == MLAR_OK, "prepare");
    require(mlar_engine_enqueue(engine, 1, bindings, ROWS, &now, NULL, &diag) == MLAR_OK, "enqueue");
    check_lse(t, now.rows, heads);
}

/* Init, self-test, capture, replays, deinit in the given memory. */
static void run(const mlar_config *config, void *host, uint64_t host_bytes, void *device,
                uint64_t device_bytes, int replays) {
    mlar_arena arena;
    mlar_engine *engine;
    mlar_program *program;
    mlar_bindings bindings;
    require(mlar_arena_from_caller(&arena, device, device_bytes, 1, &diag) == MLAR_OK, "arena_from_caller");
    require(mlar_engine_init(config, NULL, &arena, host, host_bytes, &engine, &diag) == MLAR_OK,
            "engine_init");
    require(mlar_engine_selftest(engine, NULL, &diag) == MLAR_OK, "selftest");
    tensors t = make_tensors(config, &bindings);
    require(mlar_engine_capture(engine, 1, &bindings, 1, ROWS, &program, &diag) == MLAR_OK, "capture");
    step(engine, program, &bindings, &t, config->heads, 1);
    unsigned long before = shim_calls != NULL ? shim_calls() : 0;
    for (int i = 0; i < replays; i++) step(engine, program, &bindings, &t, config->heads, i);
    if (shim_calls != NULL) require(shim_calls() == before, "steps take no memory and start no thread");
    require(mlar_program_destroy(program) == MLAR_OK, "program_destroy");
    require(mlar_engine_deinit(engine) == MLAR_OK, "engine_deinit");
    require(mlar_arena_release(&arena, &diag) == MLAR_OK, "arena_release");
    void *taken[] = {t.q, t.out, t.lse, t.cache, t.indices[0], t.indices[1], t.lens[0], t.lens[1]};
    for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++) free(taken[i]);
}

/* Init must refuse these sizes, and the diagnostic must give the exact requirement. */
static void refuse(const mlar_config *config, void *host, uint64_t host_bytes, void *device,
                   uint64_t device_bytes, uint64_t needed) {
    mlar_arena arena;
    mlar_engine *engine = NULL;
    char missing[40];
    memset(&diag, 0, sizeof diag);
    diag.struct_size = sizeof diag;
    mlar_status status = mlar_arena_from_caller(&arena, device, device_bytes, 1, &diag);
    if (status == MLAR_OK) {
        status = mlar_engine_init(config, NULL, &arena, host, host_bytes, &engine, &diag);
        require(mlar_arena_release(&arena, NULL) == MLAR_OK, "a refused init holds no arena");
        require(diag.needed == (int64_t)needed && diag.given < diag.needed,
                "the diagnostic names the bytes needed");
        snprintf(missing, sizeof missing, " %llu missing", (unsigned long long)(diag.needed - diag.given));
        require(strstr(diag.message, missing) != NULL, "the message names the missing bytes");
    } else {
        require(device_bytes == 0, "an arena of some bytes can be described");
    }
    require(status != MLAR_OK, "too little memory is refused");
}

int main(int argc, char **argv) {
    require(argc == 1 || (strcmp(argv[1], "counted") == 0 && shim_calls != NULL), "the shim is preloaded");
    mlar_config config;
    require(mlar_config_preset(&config, "dsv4-flash", 8, &diag) == MLAR_OK, "preset");
    config.max_rows = ROWS;
    config.max_programs = 1;
    config.max_layers = 1;
    config.threads = 3;
    mlar_memory need = {.struct_size = sizeof need};
    require(mlar_memory_query(&config, &need, &diag) == MLAR_OK, "query");
    const uint64_t host_bytes = need.host_bytes, device_bytes = need.device_bytes;
    fenced host = fence(host_bytes), device = fence(device_bytes);
    void *host_top = at_the_top(host, host_bytes, need.host_align_bytes);
    void *device_top = at_the_top(device, device_bytes, need.device_align_bytes);

    if (shim_calls != NULL) check_the_shim();
    run(&config, host.low, host_bytes, device.low, device_bytes, 10);
    run(&config, host_top, host_bytes, device_top, device_bytes, 10);
    refuse(&config, host.low, host_bytes, device.low, device_bytes - 1, device_bytes);
    refuse(&config, host.low, host_bytes - 1, device.low, device_bytes, host_bytes);
    for (uint64_t bytes = 0; bytes < device_bytes; bytes += 4096) {
        refuse(&config, host.low, host_bytes, at_the_top(device, bytes, need.device_align_bytes), bytes,
               device_bytes);
    }
    for (uint64_t bytes = 0; bytes < host_bytes; bytes += 64) {
        refuse(&config, at_the_top(host, bytes, need.host_align_bytes), bytes, device.low, device_bytes,
               host_bytes);
    }
    run(&config, host_top, host_bytes, device_top, device_bytes, REPLAYS);
    printf("exactly %llu + %llu bytes; %d steps%s\n", (unsigned long long)host_bytes,
           (unsigned long long)device_bytes, REPLAYS,
           shim_calls != NULL ? " without malloc, free, mmap, sbrk or thread creation" : "");
    return 0;
}
