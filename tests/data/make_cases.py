#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""make_cases.py: makes every .safetensors file of this folder and the seeds of the step-file fuzzer.

    tests/data/make_cases.py SHARED_CASES_DIR

Three kinds of file, told apart in README.md:
* cut from SHARED_CASES_DIR, the full-size cases whose `out` and gathered tensors were computed with vLLM's
  PyTorch reference: fewer rows and heads (both are independent of the others) and only the tokens that count,
  in new slots. Their expected values are slices of the source's, checked against reference.py before writing;
* the bundled step, of the true record shape, made from a fixed seed;
* small cases, one idea each, made from a fixed seed.
The expected tensors of the last two, and every `lse`, are computed by reference.py.
/usr/bin/python3 and numpy, nothing else.
"""
import pathlib
import sys

import numpy as np

import reference

HERE = pathlib.Path(__file__).resolve().parent
CORPUS = HERE.parent / "fuzz" / "corpus" / "stepfile"
POISON = 0xFF  # NaN in bf16, e4m3fn and e8m0: what no entry may ever read

# -- building blocks -----------------------------------------------------------------------------------------


def quantise(values, encoding):
    """Nearest fp8 byte of each value, given values within the encoding's range."""
    table = reference.fp8_table(encoding)
    usable = np.flatnonzero(~np.isnan(table))
    order = usable[np.argsort(table[usable], kind="stable")]
    middle = (table[order][1:].astype(np.float64) + table[order][:-1]) / 2
    return order[np.searchsorted(middle, values)].astype(np.uint8)


def quantise_tiles(values, encoding):
    """One power-of-two scale per 64 elements, the least with which the tile's largest element fits."""
    tiles = values.reshape(len(values), -1, 64)
    largest = {"e4m3fn": 448.0, "e4m3fnuz": 240.0}[encoding]
    exponents = np.ceil(np.log2(np.maximum(np.abs(tiles).max(-1), 1e-4) / largest))
    fp8 = quantise(tiles / 2.0 ** exponents[..., None], encoding)
    return fp8.reshape(values.shape), (exponents + 127).astype(np.uint8)


class Records:
    """Tokens as bytes, one row a token: what lies in the token record and, for dsv4, in the scale record."""

    def __init__(self, values, layout="dsv4", encoding="e4m3fn", rope=8):
        nope = values.shape[1] - rope
        tail = reference.float_to_bf16(values[:, nope:]).view(np.uint8)
        self.scales = np.zeros((len(values), 0), np.uint8)
        if layout == "bf16":
            self.tokens = reference.float_to_bf16(values).view(np.uint8)
        elif layout == "v32":
            tiles = values[:, :nope].reshape(len(values), 4, 128)
            scales = (np.abs(tiles).max(-1) / 448).astype(np.float32)
            fp8 = quantise(np.clip(tiles / scales[..., None], -448, 448), encoding).reshape(len(values), nope)
            self.tokens = np.concatenate([fp8, scales.view(np.uint8), tail], 1)
        else:
            fp8, scales = quantise_tiles(values[:, :nope], encoding)
            self.tokens = np.concatenate([fp8, tail], 1)
            self.scales = np.full((len(values), 8), POISON, np.uint8)  # poison where it is padding
            self.scales[:, : nope // 64] = scales

    def cache(self, block_size, stride=None):
        """[blocks, stride], token after token, the slots that are left over filled with poison."""
        token, scale = self.tokens.shape[1], self.scales.shape[1]
        blocks = -(-len(self.tokens) // block_size)
        cache = np.full((blocks, stride or block_size * (token + scale)), POISON, np.uint8)
        for slot in range(len(self.tokens)):
            block, offset = cache[slot // block_size], slot % block_size
            block[offset * token : (offset + 1) * token] = self.tokens[slot]
            at = block_size * token + offset * scale
            block[at : at + scale] = self.scales[slot]
        return cache


def scattered(random, rows, width, slots):
    """A row's slots are distinct where there are enough of them."""
    return np.array([random.permutation(slots)[:width] if width <= slots else random.integers(0, slots, width)
                     for _ in range(rows)], np.int32).reshape(rows, width)


def keys(random, count, head_dim):
    return random.standard_normal((count, head_dim)).astype(np.float32)


def queries(random, rows, heads, head_dim):
    return reference.float_to_bf16(1.5 * random.standard_normal((rows, heads, head_dim)))


def finish(name, tensors, metadata, gathered=("gathered_swa", "gathered_extra"), folder=HERE):
    """Adds the expected tensors and writes the file."""
    step = reference.Step(tensors, metadata)
    out, lse = step.attend()
    tensors = dict(tensors, out_f64=out, lse=lse.astype(np.float32))
    for kind, expected in (("window", "gathered_swa"), ("extra", "gathered_extra")):
        if kind in step.scopes and expected in gathered:
            tensors[expected] = step.gather(kind)
    path = folder / f"{name}.safetensors"
    reference.save(path, tensors, metadata)
    print(f"{path.stat().st_size:8} {path.name}")


SMALL = {"nope_head_dim": "64", "rope_head_dim": "8", "block_size": "4"}


def small(seed, rows=2, heads=4, slots=(10, 14), width=(6, 8)):
    """Inputs of the seed's own test shape (64/8, block 4), for a case to change; also the tokens' records."""
    random = np.random.default_rng(seed)
    window, extra = (Records(keys(random, count, 72)) for count in slots)
    tensors = {"q": queries(random, rows, heads, 72),
               "swa_k_cache": window.cache(4), "kv_cache": extra.cache(4),
               "swa_indices": scattered(random, rows, width[0], slots[0]),
               "topk_indices": scattered(random, rows, width[1], slots[1]),
               "attn_sink": random.standard_normal(heads).astype(np.float32)}
    return tensors, dict(SMALL), window, extra


# -- cut from the shared cases -------------------------------------------------------------------------------


def cut_scope(source, scope, names, rows, random):
    """The scope's tensors for `rows` over a cache of only the tokens that count there."""
    cache_name, indices_name, lens_name = names[:3]
    kept = np.unique(np.concatenate([scope.indices[row][scope.counting(row)] for row in rows]))
    kept = random.permutation(kept)  # scattered as before
    new_slot = {was: slot for slot, was in enumerate(kept)}
    old = source[cache_name]
    blocks, block_size, token_bytes = old.shape
    flat, new_blocks = old.reshape(blocks, -1), -(-len(kept) // block_size)
    new = np.full((new_blocks, block_size * token_bytes), POISON, np.uint8)
    record = token_bytes - 8
    for was, slot in new_slot.items():
        for length, base in ((record, 0), (8, block_size * record)):
            at, was_at = base + slot % block_size * length, base + was % block_size * length
            new[slot // block_size, at : at + length] = flat[was // block_size, was_at : was_at + length]
    # Entries past a row's length keep pointing into the cache, at poison where a slot is free.
    free = np.arange(len(kept), new_blocks * block_size)
    indices = np.full((len(rows), scope.width), -1, np.int32)
    for place, row in enumerate(rows):
        counting = scope.counting(row)
        masked = ~counting & (scope.indices[row] >= 0)
        indices[place, counting] = [new_slot[was] for was in scope.indices[row][counting]]
        indices[place, masked] = random.choice(free if len(free) else len(kept), masked.sum())
    return {cache_name: new.reshape(new_blocks, block_size, token_bytes), indices_name: indices,
            lens_name: source[lens_name][rows]}


def cut(shared, variant, rows, heads, gathered):
    source, metadata = reference.load(shared / f"dsv4-{variant}.safetensors")
    step = reference.Step(source, metadata)
    random = np.random.default_rng(42)
    tensors = {"attn_sink": source["attn_sink"][:heads]}
    for name in ("q", "out", "out_f64"):
        tensors[name] = source[name][rows][:, :heads]
    for kind, scope in step.scopes.items():
        tensors.update(cut_scope(source, scope, scope.NAMES[kind], rows, random))
        name = {"window": "gathered_swa", "extra": "gathered_extra"}[kind]
        if gathered:
            whole = source[name].reshape(len(scope.indices), scope.width, -1)
            tensors[name] = whole[rows].reshape(len(rows) * scope.width, -1)

    made = reference.Step(tensors, metadata)
    out, lse = made.attend()
    assert np.allclose(out, tensors["out_f64"], rtol=1e-11, atol=1e-12, equal_nan=True), variant
    for kind, scope in made.scopes.items():
        name = {"window": "gathered_swa", "extra": "gathered_extra"}[kind]
        if gathered:
            counting = scope.counting_rows()
            held, again = tensors[name][counting], made.gather(kind)[counting]
            both_nan = reference.is_nan_bf16(held) & reference.is_nan_bf16(again)
            assert ((held == again) | both_nan).all(), variant
    tensors["lse"] = lse.astype(np.float32)
    metadata["cut"] = f"rows {rows}, heads 0..{heads - 1}, only the tokens that count; lse added"
    path = HERE / f"dsv4-{variant}.safetensors"
    reference.save(path, tensors, metadata)
    print(f"{path.stat().st_size:8} {path.name}")


# -- the bundled step ----------------------------------------------------------------------------------------


def bundled():
    """448/64, 8 heads, window 128 + extra 512, block 64 with vLLM's padded stride, two rows."""
    random = np.random.default_rng(44842576)
    head_dim, rows, heads, widths, blocks = 512, 2, 8, (128, 512), (3, 9)
    values = [keys(random, count * 64, head_dim) for count in blocks]
    records = [Records(value, rope=64) for value in values]
    # Heads look for a few keys each, so that the softmax is neither flat nor a single spike.
    q = random.standard_normal((rows, heads, head_dim))
    for row in range(rows):
        for head in range(heads):
            q[row, head] += 0.25 * sum(value[random.integers(len(value), size=3)].sum(0) for value in values)
    tensors = {"q": reference.float_to_bf16(q.astype(np.float32)),
               "attn_sink": random.standard_normal(heads).astype(np.float32)}
    lens = ((128, 96), (512, 301))  # row 1 stands early in its sequence
    names = (("swa_k_cache", "swa_indices", "swa_lens"), ("kv_cache", "topk_indices", "topk_lens"))
    for (cache, index_list, length), record, width, count, live in zip(names, records, widths, blocks, lens):
        indices = scattered(random, rows, width, count * 64)
        indices[1, live[1] :] = -1
        indices[1, random.permutation(live[1])[:5]] = -1  # holes inside the length are masked too
        tensors.update({cache: record.cache(64, stride=37440), index_list: indices,
                        length: np.array(live, np.int32)})
    metadata = {"scale": repr(512**-0.5), "scale_hex": (512**-0.5).hex(), "nope_head_dim": "448",
                "rope_head_dim": "64", "block_size": "64"}
    # gathered_extra would take 1 MB by itself.
    finish("step-448-64-h8", tensors, metadata, gathered=("gathered_swa",))


# -- small cases ---------------------------------------------------------------------------------------------


def layouts():
    random = np.random.default_rng(1)
    metadata = {"kv_layout": "v32", "block_size": "4"}
    tensors = {"q": queries(random, 2, 2, 576)}
    for cache, indices, slots, width in (("swa_k_cache", "swa_indices", 7, 5),
                                         ("kv_cache", "topk_indices", 6, 6)):
        records = Records(keys(random, slots, 576) * 3, "v32", rope=64)
        tensors[cache] = records.cache(4).reshape(-1, 4, 656)
        tensors[indices] = scattered(random, 2, width, slots)
    tensors["swa_lens"] = np.array([5, 3], np.int32)
    tensors["swa_indices"][0, 2] = -1
    finish("layout-v32", tensors, metadata)

    # No metadata about sizes but the block's: 448/64 and scale 512^-0.5 are the defaults. Block size 1.
    tensors = {"q": queries(random, 1, 3, 512)}
    for cache, indices, slots, width in (("swa_k_cache", "swa_indices", 4, 3),
                                         ("kv_cache", "topk_indices", 5, 4)):
        tensors[cache] = Records(keys(random, slots, 512), "bf16", rope=64).cache(1)
        tensors[indices] = scattered(random, 1, width, slots)
    tensors["kv_cache"].view(np.uint16)[1, 7] = 0x7FC1  # NaN, -NaN: count as 0
    tensors["kv_cache"].view(np.uint16)[2, 511] = 0xFFFF
    finish("layout-bf16", tensors, {"kv_layout": "bf16", "block_size": "1"})


def encodings():
    tensors, metadata, _, extra = small(2, slots=(32, 32), width=(9, 9))
    random = np.random.default_rng(22)
    # Every byte in both scopes, read by different rules: 0x80 is NaN in one and -0 in the other, and 0x7f and
    # 0xff are 240 and -240 (times the scale) in one and NaN in the other.
    extra.tokens[:4, :64] = np.arange(256, dtype=np.uint8).reshape(4, 64)
    window = Records(keys(random, 32, 72), encoding="e4m3fnuz")
    window.tokens[:4, :64] = extra.tokens[:4, :64]
    for records in (window, extra):
        records.scales[:4, 0] = 121
    tensors.update(swa_k_cache=window.cache(4), kv_cache=extra.cache(4))
    tensors["swa_indices"][:, :4] = tensors["topk_indices"][:, :4] = np.arange(4)
    finish("fp8-fnuz-window-fn-extra", tensors, dict(metadata, swa_fp8="e4m3fnuz", extra_fp8="e4m3fn"))
    swapped = dict(tensors, swa_k_cache=tensors["kv_cache"], kv_cache=tensors["swa_k_cache"],
                   swa_indices=tensors["topk_indices"], topk_indices=tensors["swa_indices"])
    finish("fp8-fn-window-fnuz-extra", swapped, dict(metadata, extra_fp8="e4m3fnuz"))

    # NaN bytes in nope, NaN bits in rope, a token of nothing but NaN; each counts as 0, element by element.
    tensors, metadata, window, extra = small(3, rows=3)
    window.tokens[0, [0, 5, 63]] = (0x7F, 0xFF, 0x7F)
    window.tokens[1, 64:68] = (0xC0, 0x7F, 0xFF, 0xFF)
    extra.tokens[2] = POISON
    tensors.update(swa_k_cache=window.cache(4), kv_cache=extra.cache(4))
    tensors["swa_indices"][:, :2] = (0, 1)
    tensors["topk_indices"][:, 0] = 2
    tensors["topk_lens"] = np.array([8, 1, 0], np.int32)
    finish("nan-bytes", tensors, metadata)

    # Scale byte 0 is 2^-127 and not 0; 255 zeroes its tile only; 134 | 135 is where cheap conversions turn
    # inexact; 254 overflows, which leaves row 3 unspecified (NaN in out_f64 and lse). Two tiles a token.
    random = np.random.default_rng(4)
    records = Records(keys(random, 16, 136))
    records.scales[:, :2] = [(0, 121), (255, 121), (121, 255), (255, 255), (0, 0), (1, 119), (134, 121),
                             (135, 120), (136, 121), (4, 3), (150, 160), (254, 121), (121, 254), (2, 0),
                             (121, 121), (0, 255)]
    indices = [[0, 1, 2, 3, 4, 5, 14, 15], [6, 7, 8, 9, 1, 13, 0, 14], [10, 9, 3, 2, 4, 0, 14, 1],
               [11, 12, 0, 3, 4, 5, 6, 7]]
    tensors = {"q": queries(random, 4, 2, 136), "swa_k_cache": records.cache(4),
               "swa_indices": np.array(indices, np.int32)}
    finish("scale-bytes", tensors, dict(SMALL, nope_head_dim="128"))


def lists():
    # Lengths at and beyond their ends, unusable indices inside them, poison behind them.
    tensors, metadata, window, extra = small(5, rows=6)
    tensors["swa_lens"] = np.array([0, 1, 6, 7, -3, 3], np.int32)
    tensors["topk_lens"] = np.array([8, 0, 5, 2**31 - 1, 8, -(2**31)], np.int32)
    tensors["swa_indices"][1, 1:] = 11  # 10 and 11 are free slots: all poison
    tensors["topk_indices"][2, 5:] = 15
    tensors["topk_indices"][3] = (-1, 16, 3, 3, -2, 2**31 - 1, -(2**31), 5)  # 16 is the first past the pool
    finish("lens-and-wild-indices", tensors, metadata)
    # The same as int64 [rows, 1, width]. Where an index does not fit int32, its low half must not count.
    wide = dict(tensors, swa_indices=tensors["swa_indices"].astype(np.int64)[:, None, :],
                topk_indices=tensors["topk_indices"].astype(np.int64)[:, None, :])
    wide["topk_indices"][3, 0, [1, 4, 5, 6]] = (2**32 + 3, -(2**32) + 1, 2**63 - 1, -(2**63))
    finish("indices-int64", wide, metadata)

    tensors, metadata, _, _ = small(6, rows=5)
    tensors["swa_lens"] = np.array([6, 2, 4], np.int32)  # the last request has one row
    tensors["topk_lens"] = np.array([3, 0, 8], np.int32)
    finish("queries-per-request-2", tensors, dict(metadata, queries_per_request="2"))

    tensors, metadata, _, _ = small(7, rows=5)
    tensors["swa_lens"] = np.array([0, 6, 0, 6, 0], np.int32)
    tensors["topk_lens"] = np.array([0, 8, 8, 0, 8], np.int32)
    tensors["swa_indices"][1] = tensors["topk_indices"][1] = -1
    tensors["swa_indices"][3] = 12  # the first slot past the pool
    finish("empty-rows", tensors, metadata)
    del tensors["attn_sink"]
    finish("empty-rows-no-sink", tensors, metadata)

    tensors, metadata, _, _ = small(8, rows=0)
    finish("rows-0", tensors, metadata)
    tensors, metadata, _, _ = small(9, width=(0, 8))
    finish("window-width-0", tensors, metadata)
    # More entries than slots: an entry counts as often as it is listed.
    tensors, metadata, _, _ = small(10, slots=(3, 2), width=(7, 9))
    finish("duplicates", tensors, metadata)


def blocks():
    for name, shape, sizes, strides in (("block-53-61", (64, 8), (53, 61), (None, None)),
                                        ("block-69-576", (64, 0), (69, 576), (None, 576 * 72 + 2)),
                                        ("block-1-2", (448, 64), (1, 2), (None, 1728)),
                                        ("block-256-1", (64, 8), (256, 1), (23040, 90))):
        random = np.random.default_rng(sum(sizes))
        head_dim = sum(shape)
        metadata = {"nope_head_dim": str(shape[0]), "rope_head_dim": str(shape[1]),
                    "swa_block_size": str(sizes[0]), "extra_block_size": str(sizes[1])}
        tensors = {"q": queries(random, 2, 2, head_dim)}
        names = (("swa_k_cache", "swa_indices"), ("kv_cache", "topk_indices"))
        for (cache, indices), size, stride in zip(names, sizes, strides):
            slots = size + 9  # a few tokens into the next block
            records = Records(keys(random, slots, head_dim), rope=shape[1])
            tensors[cache] = records.cache(size, stride)
            tensors[indices] = scattered(random, 2, 6, slots)
            tensors[indices][0, :3] = (size - 1, size, slots - 1)
        finish(name, tensors, metadata)


def heads():
    tensors, metadata, _, _ = small(11, heads=6)
    tensors["attn_sink"] = np.array([np.inf, -np.inf, 0, 40, -200, 3], np.float32)
    tensors["swa_lens"] = np.array([6, 0], np.int32)
    tensors["topk_lens"] = np.array([8, 0], np.int32)  # row 1 is empty: 0 and -inf whatever the sink
    finish("sink-inf", tensors, metadata)

    # NaN in q makes that head NaN, infinity leaves it unspecified (written as NaN too); others are untouched.
    tensors, metadata, _, _ = small(12, rows=1)
    tensors["q"][0, 1, 3], tensors["q"][0, 2, 70] = 0x7FC0, 0x7F80
    finish("q-nan", tensors, metadata)

    tensors, metadata, _, _ = small(13, rows=1, heads=128, slots=(3, 2), width=(2, 2))
    finish("heads-128", tensors, metadata)
    tensors, metadata, _, _ = small(14, rows=3, heads=1)
    finish("heads-1-negative-scale", tensors, dict(metadata, scale="-0.11785113"))


def fuzz_seeds():
    """The least steps that reach every branch of the reader."""
    def seed(name, layout, head_dims, tokens_per_block, extra, **metadata):
        random = np.random.default_rng(15)
        nope, rope = head_dims
        records = Records(keys(random, 2, nope + rope), layout, rope=rope)
        tensors = {"q": queries(random, 1, 1, nope + rope), "swa_k_cache": records.cache(tokens_per_block),
                   "swa_indices": np.array([[1, -1]], np.int32)}
        if extra:
            token_bytes = records.tokens.shape[1] + records.scales.shape[1]
            tensors.update(kv_cache=records.cache(1).reshape(-1, 1, token_bytes),
                           topk_indices=np.array([[[0, 1, 7]]], np.int64), topk_lens=np.array([2], np.int32),
                           swa_lens=np.array([1], np.int32), attn_sink=np.zeros(1, np.float32))
        finish(name, tensors, dict(metadata, nope_head_dim=str(nope), rope_head_dim=str(rope)), folder=CORPUS)

    CORPUS.mkdir(parents=True, exist_ok=True)
    seed("dsv4", "dsv4", (64, 2), 2, True, swa_block_size="2", queries_per_request="1", scale="0.125")
    seed("dsv4-window-only", "dsv4", (64, 0), 2, False, block_size="2", scale_hex="0x1p-3",
         swa_fp8="e4m3fnuz")
    seed("bf16", "bf16", (64, 0), 1, True, block_size="1", kv_layout="bf16", extra_fp8="e4m3fn")
    seed("v32", "v32", (512, 64), 2, False, block_size="2", kv_layout="v32")


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: make_cases.py SHARED_CASES_DIR")
    shared = pathlib.Path(sys.argv[1])
    for variant in ("seed", "seedrand"):
        name = f"dsv4-{variant}.safetensors"
        (HERE / name).write_bytes((shared / name).read_bytes())
        print(f"{(HERE / name).stat().st_size:8} {name}")
    cut(shared, "normal", [0, 1, 2], 4, gathered=False)
    cut(shared, "special", [0], 8, gathered=True)
    cut(shared, "randbytes", [0], 2, gathered=True)
    cut(shared, "swaonly", [1, 2], 8, gathered=False)
    bundled()
    for make in (layouts, encodings, lists, blocks, heads, fuzz_seeds):
        make()


if __name__ == "__main__":
    main()
