#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""torch_step.py MODULE: decode steps of a PyTorch process, through torch_host.c.

The arena is a uint8 tensor, the caches are tensors, the steps are captured by torch.cuda.graph (capture mode "global")
between operations of PyTorch, and replayed with other queries, lists, lengths and row counts. Each result is compared
with an evaluation in float64, written in PyTorch from the definition (tests/data has steps of vLLM's own reference).
PyTorch's allocator must not notice the replays. Prints one line a check; exit status 1 if one failed, 2 without a GPU.
"""
import ctypes
import sys

import torch

NOPE, ROPE, D, BLOCK, TILE = 448, 64, 512, 64, 64
RECORD = NOPE + 2 * ROPE
STRIDE = BLOCK * (RECORD + 8)
LIMIT = 2.6e-3  # relative L2 of a bf16 result
LSE_ABSOLUTE, LSE_RELATIVE = 1e-6, 8.01 / 65536  # of each lse; either will do


class Tensors(ctypes.Structure):
    """host_tensors of torch_host.c"""
    _fields_ = [(name, ctypes.c_void_p) for name in ("q", "out", "lse", "sink")] + [
        ("cache", ctypes.c_void_p * 2), ("indices", ctypes.c_void_p * 2), ("lens", ctypes.c_void_p * 2),
        ("rows", ctypes.c_void_p), ("num_blocks", ctypes.c_int64 * 2), ("block_stride_bytes", ctypes.c_uint64)]


class Layer:
    """Queries, caches, lists and results of one layer, in tensors whose addresses stay."""

    def __init__(self, heads, rows, widths, blocks):
        self.heads, self.rows, self.widths, self.blocks = heads, rows, widths, blocks
        empty = lambda *shape, dtype: torch.empty(shape, dtype=dtype, device="cuda")
        self.q = empty(rows, heads, D, dtype=torch.bfloat16)
        self.out = empty(rows, heads, D, dtype=torch.bfloat16)
        self.lse = empty(rows, heads, dtype=torch.float32)
        self.sink = empty(heads, dtype=torch.float32)
        self.cache = [empty(blocks, STRIDE, dtype=torch.uint8) for _ in widths]
        self.indices = [empty(rows, width, dtype=torch.int32) for width in widths]
        self.lens = [empty(rows, dtype=torch.int32) for _ in widths]
        self.live = empty(1, dtype=torch.int32)
        self.refill(rows)

    def refill(self, live):
        """Another step, in place."""
        self.live.fill_(live)
        self.q.copy_(torch.randn_like(self.q, dtype=torch.float32))
        self.sink.copy_(torch.randn_like(self.sink))
        for cache, indices, lens, width in zip(self.cache, self.indices, self.lens, self.widths):
            tokens = self.blocks * BLOCK
            fp8 = torch.randn(tokens, NOPE, device="cuda").mul_(16).to(torch.float8_e4m3fn)
            rope = torch.randn(tokens, ROPE, device="cuda").bfloat16()
            records = torch.cat([fp8.view(torch.uint8), self._bytes(rope)], dim=1)
            scales = torch.randint(120, 124, (tokens, 8), dtype=torch.uint8, device="cuda")
            cache.copy_(torch.cat([records.view(self.blocks, -1), scales.view(self.blocks, -1)], dim=1))
            indices.copy_(torch.randint(0, tokens, indices.shape, device="cuda"))
            indices[torch.rand(indices.shape, device="cuda") < 0.05] = -1
            lens.copy_(torch.randint(0, width + 1, lens.shape, device="cuda"))

    @staticmethod
    def _bytes(tensor):
        return tensor.contiguous().view(torch.uint8)

    def keys(self, scope):
        """Every token of a cache, decoded: float64 [tokens][512]."""
        records = self.cache[scope][:, :BLOCK * RECORD].reshape(-1, RECORD)
        scales = self.cache[scope][:, BLOCK * RECORD:].reshape(-1, 8)[:, :NOPE // TILE]
        nope = records[:, :NOPE].contiguous().view(torch.float8_e4m3fn).to(torch.float64)
        factor = torch.exp2(scales.to(torch.float64) - 127).repeat_interleave(TILE, dim=1)
        rope = records[:, NOPE:].contiguous().view(torch.bfloat16).to(torch.float64)
        return torch.cat([nope * factor, rope], dim=1)  # exact: a power of two times three bits

    def expected(self):
        """The definition, in float64: out and lse of the live rows; zeros and -inf behind them."""
        out = torch.zeros(self.rows, self.heads, D, dtype=torch.float64, device="cuda")
        lse = torch.full((self.rows, self.heads), -torch.inf, dtype=torch.float64, device="cuda")
        keys = [self.keys(scope) for scope in range(2)]
        for row in range(int(self.live)):
            chosen = []
            for scope in range(2):
                listed = self.indices[scope][row, :int(self.lens[scope][row])]
                chosen.append(keys[scope][listed[listed >= 0].long()])
            k = torch.cat(chosen)
            if len(k) == 0:
                continue
            scores = self.q[row].to(torch.float64) @ k.T * D**-0.5
            with_sink = torch.cat([scores, self.sink.to(torch.float64)[:, None]], dim=1)
            out[row] = torch.softmax(with_sink, dim=1)[:, :-1] @ k
            lse[row] = torch.logsumexp(scores, dim=1)  # without the sink
        return out, lse

    def tensors(self):
        t = Tensors()
        t.q, t.out, t.lse, t.sink = (x.data_ptr() for x in (self.q, self.out, self.lse, self.sink))
        for scope in range(2):
            t.cache[scope] = self.cache[scope].data_ptr()
            t.indices[scope] = self.indices[scope].data_ptr()
            t.lens[scope] = self.lens[scope].data_ptr()
            t.num_blocks[scope] = self.blocks
        t.rows, t.block_stride_bytes = self.live.data_ptr(), STRIDE
        return t


class Checks:
    passed = failed = 0

    def note(self, ok, what):
        self.passed, self.failed = self.passed + bool(ok), self.failed + (not ok)
        print(f"  {'ok' if ok else 'FAILED'}  {what}")

    def result(self, layer, what):
        out, lse = layer.expected()
        difference = (layer.out.to(torch.float64) - out).norm() / max(out.norm().item(), 1e-30)
        tail = bool((layer.out[int(layer.live):] == 0).all())
        self.note(difference <= LIMIT and tail,
                  f"{what}: relative L2 {difference:.2e}, tail {'zero' if tail else 'WRITTEN'}")
        apart = (layer.lse.to(torch.float64) - lse).abs()  # -inf, which has no distance, must be met exactly
        close = (layer.lse == lse) | (apart <= LSE_ABSOLUTE) | (apart <= LSE_RELATIVE * lse.abs()) & lse.isfinite()
        self.note(close.all(), f"{what}: lse, {int((~close).sum())} of {close.numel()} off")


def steps(library, checks, heads, rows, widths):
    layer = Layer(heads, rows, widths, blocks=40)
    arena_bytes = ctypes.c_uint64()

    def must(code):
        if code != 0:
            raise RuntimeError(library.host_error().decode())

    def attend():
        must(library.host_enqueue(ctypes.byref(layer.tensors()), rows,
                                  ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)))

    must(library.host_open(heads, rows, *widths, ctypes.byref(arena_bytes)))
    arena = torch.empty(arena_bytes.value, dtype=torch.uint8, device="cuda")
    must(library.host_init(ctypes.c_void_p(arena.data_ptr())))
    name = f"{heads} heads, {rows} rows, {widths[0]} + {widths[1]}, arena {arena_bytes.value} bytes"

    torch.cuda.synchronize()
    attend()
    checks.result(layer, f"{name}: eager")

    graph = torch.cuda.CUDAGraph()
    warmup = torch.cuda.Stream()
    with torch.cuda.stream(warmup):
        attend()
    warmup.synchronize()
    torch.cuda.synchronize()
    factor = torch.ones((), dtype=torch.bfloat16, device="cuda")
    with torch.cuda.graph(graph):  # capture_error_mode is "global"
        layer.q.mul_(factor)
        attend()
        doubled = layer.out * 2
    for live in (rows, 1, 0, rows - 1):
        layer.refill(live)
        torch.cuda.synchronize()
        layer.out.fill_(torch.nan)
        layer.lse.fill_(torch.nan)
        held = torch.cuda.memory_reserved(), torch.cuda.memory_allocated()
        for _ in range(50):
            graph.replay()
        torch.cuda.synchronize()
        checks.note(held == (torch.cuda.memory_reserved(), torch.cuda.memory_allocated()),
                    "PyTorch's allocator noticed nothing")
        checks.result(layer, f"{name}: PyTorch's graph, {live} live")
        checks.note(bool((doubled == layer.out * 2).all()), "what PyTorch captured behind it saw the result")
    del graph
    must(library.host_close())


def main():
    if not torch.cuda.is_available():
        print("PyTorch finds no GPU")
        return 2
    library = ctypes.CDLL(sys.argv[1])
    library.host_error.restype = ctypes.c_char_p
    checks = Checks()
    torch.manual_seed(1)
    print(f"PyTorch {torch.__version__}, {torch.cuda.get_device_name()}")
    for heads, rows, widths in ((8, 5, (128, 512)), (16, 33, (128, 512)), (64, 16, (128, 512)), (128, 7, (128, 1024))):
        steps(library, checks, heads, rows, widths)
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
