#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""reference.py: one decode step evaluated in float64, from the written specification alone.

It shares no code with the library, decodes every number format by its definition and takes no short cut, so
that its results can stand in a test file as the expected ones. It also holds the small safetensors reader and
writer that the other scripts here use. /usr/bin/python3 and numpy, nothing else.

    tests/data/reference.py FILE...     evaluates each file and compares with the tensors it holds
"""
import json
import struct
import sys

import numpy as np

# -- safetensors ---------------------------------------------------------------------------------------------

# bf16 has no numpy type: its bits travel as uint16 and the file's own word says what they are.
DTYPES = {"U8": "<u1", "BF16": "<u2", "I32": "<i4", "I64": "<i8", "F32": "<f4", "F64": "<f8"}


def load(path):
    """({name: array}, {metadata}) of a safetensors file."""
    with open(path, "rb") as stream:
        blob = stream.read()
    (header_bytes,) = struct.unpack_from("<Q", blob)
    header = json.loads(blob[8 : 8 + header_bytes])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + header_bytes + offset for offset in entry["data_offsets"])
        tensors[name] = np.frombuffer(blob[begin:end], DTYPES[entry["dtype"]]).reshape(entry["shape"]).copy()
    return tensors, metadata


def save(path, tensors, metadata):
    """Writes tensors with the widest elements first, so that each is aligned; uint16 arrays are bf16."""
    words = {np.dtype(numpy_type): word for word, numpy_type in DTYPES.items()}
    order = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    header, offset = {"__metadata__": metadata}, 0
    for name in order:
        array = tensors[name]
        header[name] = {"dtype": words[array.dtype], "shape": list(array.shape),
                        "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            stream.write(np.ascontiguousarray(tensors[name]).tobytes())


# -- number formats ------------------------------------------------------------------------------------------


def bf16_to_float(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def float_to_bf16(values):
    """Round to nearest even, overflow to infinity, subnormals kept, every NaN to 0x7fc0 with its sign."""
    word = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = ((word + 0x7FFF + ((word >> 16) & 1)) >> 16).astype(np.uint16)
    nan = (word & 0x7FFFFFFF) > 0x7F800000
    return np.where(nan, ((word >> 16) & 0x8000 | 0x7FC0).astype(np.uint16), rounded)


def fp8_table(encoding):
    """The float32 value of each of the 256 bytes."""
    bias = {"e4m3fn": 7, "e4m3fnuz": 8}[encoding]
    table = np.empty(256, np.float32)
    for byte in range(256):
        sign, exponent, mantissa = byte >> 7, (byte >> 3) & 15, byte & 7
        if exponent:
            value = (8 + mantissa) * 2.0 ** (exponent - bias - 3)
        else:
            value = mantissa * 2.0 ** (1 - bias - 3)
        table[byte] = -value if sign else value
    nans = {"e4m3fn": [0x7F, 0xFF], "e4m3fnuz": [0x80]}[encoding]
    table[nans] = np.nan
    return table


def e8m0_table():
    return np.array([2.0 ** (byte - 127) for byte in range(255)] + [np.nan], np.float32)


# -- keys ----------------------------------------------------------------------------------------------------


def scaled(fp8_bytes, scales, encoding):
    """bf16(f32(fp8) * f32(scale)), one scale per element."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float_to_bf16(fp8_table(encoding)[fp8_bytes] * scales.astype(np.float32))


def decode_token(block, offset, block_size, nope, rope, layout, encoding):
    """The bf16 bits of one token's key; `block` is the bytes of its block."""
    if layout == "bf16":
        token = 2 * (nope + rope)
        return block[offset * token : (offset + 1) * token].view(np.uint16)
    if layout == "v32":
        record = block[offset * 656 : (offset + 1) * 656]
        scales = np.repeat(record[512:528].view(np.float32), 128)
        return np.concatenate([scaled(record[:512], scales, encoding), record[528:].view(np.uint16)])
    token = nope + 2 * rope
    record = block[offset * token : (offset + 1) * token]
    scale_at = block_size * token + 8 * offset
    scales = np.repeat(e8m0_table()[block[scale_at : scale_at + nope // 64]], 64)
    return np.concatenate([scaled(record[:nope], scales, encoding), record[nope:].view(np.uint16)])


class Scope:
    """One cache with its index list, under the names that a step file gives them."""

    NAMES = {"window": ("swa_k_cache", "swa_indices", "swa_lens", "swa_block_size", "swa_fp8"),
             "extra": ("kv_cache", "topk_indices", "topk_lens", "extra_block_size", "extra_fp8")}

    def __init__(self, kind, tensors, metadata):
        cache, indices, lens, block_size, fp8 = self.NAMES[kind]
        self.cache = tensors[cache]
        rows, self.width = tensors[indices].shape[0], tensors[indices].shape[-1]
        self.indices = tensors[indices].reshape(rows, self.width).astype(np.int64)
        if self.cache.ndim == 3:
            self.block_size = self.cache.shape[1]
        else:
            self.block_size = int(metadata.get(block_size, metadata.get("block_size", 0)))
        self.cache = self.cache.reshape(self.cache.shape[0], -1)
        self.encoding = metadata.get(fp8, "e4m3fn")
        rows_per_len = int(metadata.get("queries_per_request", 1))
        lens = tensors.get(lens, np.full(-(-rows // rows_per_len), self.width))
        self.lens = np.clip(np.repeat(lens, rows_per_len)[:rows].astype(np.int64), 0, self.width)

    def counting(self, row):
        """Which entries of a row take part."""
        slots = self.indices[row]
        inside = (slots >= 0) & (slots < self.cache.shape[0] * self.block_size)
        return inside & (np.arange(self.width) < self.lens[row])

    def counting_rows(self):
        """The same for all rows, one after the other: the mask of a gathered tensor."""
        return np.array([self.counting(row) for row in range(len(self.indices))], bool).reshape(-1)

    def keys(self, row, nope, rope, layout):
        """The bf16 bits [entries that count, nope + rope]."""
        size = self.block_size
        found = [decode_token(self.cache[slot // size], slot % size, size, nope, rope, layout, self.encoding)
                 for slot in self.indices[row][self.counting(row)]]
        return np.array(found, np.uint16).reshape(len(found), nope + rope)


# -- attention -----------------------------------------------------------------------------------------------

TOO_LARGE = 2.0**126  # a score of this magnitude leaves its head unspecified


def attend_head(q, keys, d_v, scale, sink):
    """(out, lse) of one row and head in float64; NaN throughout where the result is unspecified."""
    if len(keys) == 0:
        return np.zeros(d_v), -np.inf
    keys = np.where(np.isnan(keys), 0.0, keys)
    scores = scale * (keys @ q)
    if not np.all(np.abs(scores) < TOO_LARGE):
        return np.full(d_v, np.nan), np.nan
    largest = scores.max()
    weights = np.exp(scores - largest)
    lse = largest + np.log(weights.sum())
    out = (weights / weights.sum()) @ keys[:, :d_v]
    if sink is not None:
        with np.errstate(over="ignore"):
            out = out / (1 + np.exp(np.float64(sink) - lse))
    return (out, lse) if np.all(np.isfinite(out)) else (np.full(d_v, np.nan), np.nan)


class Step:
    """The inputs of a step file, and what SPEC says they give."""

    def __init__(self, tensors, metadata):
        self.layout = metadata.get("kv_layout", "dsv4")
        self.nope = int(metadata.get("nope_head_dim", 512 if self.layout == "v32" else 448))
        self.rope = int(metadata.get("rope_head_dim", 64))
        self.d_v = 512 if self.layout == "v32" else self.nope + self.rope
        if "scale_hex" in metadata:
            self.scale = float.fromhex(metadata["scale_hex"])
        else:
            self.scale = float(metadata.get("scale", (self.nope + self.rope) ** -0.5))
        self.q = bf16_to_float(tensors["q"]).astype(np.float64)
        self.sink = tensors.get("attn_sink")
        self.scopes = {"window": Scope("window", tensors, metadata)}
        if "kv_cache" in tensors:
            self.scopes["extra"] = Scope("extra", tensors, metadata)

    def row_keys(self, row):
        found = [scope.keys(row, self.nope, self.rope, self.layout) for scope in self.scopes.values()]
        return bf16_to_float(np.concatenate(found)).astype(np.float64)

    def attend(self):
        """out f64 [rows, heads, d_v] and lse f64 [rows, heads]."""
        rows, heads, _ = self.q.shape
        out, lse = np.zeros((rows, heads, self.d_v)), np.zeros((rows, heads))
        with np.errstate(invalid="ignore", over="ignore"):
            for row in range(rows):
                keys = self.row_keys(row)
                for head in range(heads):
                    sink = None if self.sink is None else self.sink[head]
                    result = attend_head(self.q[row, head], keys, self.d_v, self.scale, sink)
                    out[row, head], lse[row, head] = result
        return out, lse

    def gather(self, kind):
        """bf16 bits [rows * width, head_dim]; rows of entries that do not count are zero."""
        scope = self.scopes[kind]
        rows = scope.indices.shape[0]
        gathered = np.zeros((rows, scope.width, self.nope + self.rope), np.uint16)
        for row in range(rows):
            gathered[row, scope.counting(row)] = scope.keys(row, self.nope, self.rope, self.layout)
        return gathered.reshape(rows * scope.width, self.nope + self.rope)


# -- comparing with what a file holds ------------------------------------------------------------------------


def is_nan_bf16(bits):
    return (bits & 0x7FFF) > 0x7F80


def relative_l2(values, expected):
    """Over the heads where both are finite, and how many heads are left out."""
    finite = np.isfinite(expected).all(-1) & np.isfinite(values).all(-1)
    apart = np.linalg.norm(values[finite] - expected[finite])
    whole = np.linalg.norm(expected[finite])
    return (apart / whole if whole else apart), int((~finite).sum())


def check(path):
    tensors, metadata = load(path)
    step = Step(tensors, metadata)
    out, lse = step.attend()
    report = []
    for name in ("out_f64", "out"):
        if name in tensors:
            held = tensors[name] if name == "out_f64" else bf16_to_float(tensors[name]).astype(np.float64)
            figure, left_out = relative_l2(held, out)
            note = f" ({left_out} heads left out)" if left_out else ""
            report.append(f"{name}: relative L2 {figure:.2e}{note}")
    if "lse" in tensors:
        both = np.isfinite(lse) & np.isfinite(tensors["lse"])
        report.append(f"lse: max abs {np.abs(lse[both] - tensors['lse'][both]).max(initial=0):.1e}")
    for kind, name in (("window", "gathered_swa"), ("extra", "gathered_extra")):
        if name in tensors:
            counts = step.scopes[kind].counting_rows()
            held, made = tensors[name][counts], step.gather(kind)[counts]
            equal = (held == made) | (is_nan_bf16(held) & is_nan_bf16(made))
            report.append(f"{name}: {int((~equal).sum())} of {equal.size} elements differ")
    print(f"{path}: " + ", ".join(report))


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        check(argument)
