"""isa_count: the instructions that the attention kernels of the AMD targets spend on a tile of keys, by part of the loop
over tiles, and the cycles that these take of each unit. tools/isa_report prints them and goes on to times; of devices,
steps and times nothing is known here.

A build with MLAR_GPU=amd has an image (code object) for each kernel file and target. Each attention image is compiled
again with line tables added; the report goes on only if its instructions are those of the image, byte for byte. With
the line tables every instruction has its chain of inlined functions, and these say which part of the loop over key
tiles it belongs to (PHASES). What runs once a row or never on ordinary data is left out (COLD). A loop inside a part
runs as often as its work needs, which follows from the matrix instructions: there the products of a tile are known.

Issue cycles, for one wave, by these documents:
  * "AMD Instinct MI300 Instruction Set Architecture" (CDNA3) and "AMD Instinct CDNA4 Instruction Set Architecture":
    a wave of 64 lanes takes a 16-lane SIMD for 4 cycles; transcendental functions a quarter of that rate.
  * AMD Matrix Instruction Calculator (ROCm/amd_matrix_instruction_calculator): cycles of each MFMA; LLVM's
    SISchedule.td for those of CDNA4. The wave issues for 4 of them, vector instructions go on beside the others.
  * "AMD CDNA 3" and "AMD CDNA 4" white papers: LDS moves 128 bytes a cycle and compute unit, CDNA4 reads 256; L1
    returns 64. Conflicts of banks and latencies are not in the model.

A part (between two barriers, with one wave on a SIMD) takes the largest of: issue slots of its wave, matrix unit, LDS.
"serial" is the sum over parts, for kernels whose parts wait for each other; "overlapped" takes the largest over the
whole tile, what a kernel without waiting would reach. Both leave out latency.
"""
import collections
import importlib.machinery
import importlib.util
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
TILE = 64  # keys of a tile: MLAR_KEY_TILE
WAVES = 4  # of a block: MLAR_BLOCK_THREADS / 64

COLUMNS = 512  # of a key, in the models' caches

LDS_READ_BYTES = {"gfx942": 128, "gfx950": 256}  # a cycle
LDS_WRITE_BYTES = {"gfx942": 128, "gfx950": 128}
L1_BYTES = 64

MFMA_CYCLES = {  # of the matrix unit
    "v_mfma_f32_16x16x16_bf16": 16, "v_mfma_f32_32x32x8_bf16": 32,
    "v_mfma_f32_16x16x32_bf16": 16, "v_mfma_f32_32x32x16_bf16": 32,
}
SLOT = 4  # cycles in which a wave issues one instruction
QUARTER_RATE = re.compile(r"v_(exp|log|rcp|rsq|sqrt|sin|cos)_|v_mul_(lo|hi)_|v_mad_[ui]64|v_(lshl|lshr|ashr)rev_[bi]64")

# Function of the engines -> part of the loop; the innermost one that is listed decides. Both sides of a branch that
# is not COLD are counted, though a wave may take one only: figures are upper bounds, more so for the block engine.
PHASES = {
    "load": "load", "load_ahead": "load",
    "convert": "convert", "convert_ordinary": "convert", "convert_step": "convert",
    "partial_scores": "scores", "scores": "scores",
    "softmax": "softmax", "rescale_out": "rescale", "add_values": "values",
    "mlar_tiles_fetch": "walk", "mlar_tiles_resolve": "walk", "mlar_wave_walk_next": "walk", "entry_of": "walk",
}
COLD = {
    "convert_exact", "begin_part", "load_queries", "end_part", "mlar_next_part", "mlar_tiles_begin",
    "mlar_count_invalid", "mlar_fp8_times_f32", "mlar_chunk_load_any", "mlar_wave_walk_begin",
    "mlar_wave_walk_part", "count_invalid",
    "mask", "mlar_wave_engine::rescale_out",  # a list's last sub-tile; when a maximum is far exceeded: once a row or so
    "convert_ordinary<1>", "mlar_fp8_times_e8m0_placed",  # FNUZ: a sub-tile is converted as that or as OCP
}
ORDER = ("load", "convert", "scores", "walk", "softmax", "rescale", "values", "loop")
KINDS = ("matrix", "vector", "LDS", "memory", "scalar")

Instruction = collections.namedtuple("Instruction", "address name operands target")


# ---- reading ----

def kind_of(name):
    """None: costs no issue slot of the kinds that are counted."""
    if name.startswith(("v_mfma", "v_smfma")):
        return "matrix"
    if name.startswith("v_"):
        return "vector"
    if name.startswith("ds_"):
        return "LDS"
    if name.startswith(("global_", "buffer_", "flat_", "scratch_")):
        return "memory"
    return "scalar" if name.startswith("s_") else None


def read_disassembly(text):
    """{symbol: [Instruction]}; a branch has the address it goes to."""
    kernels, symbols, current = {}, {}, None
    for line in text.splitlines():
        heading = re.match(r"([0-9a-f]{8,}) <(.+)>:$", line)
        if heading:
            current = kernels.setdefault(heading[2], [])
            symbols[heading[2]] = int(heading[1], 16)
            continue
        match = re.match(r"\s+(\S+)\s*(.*?)\s*// ([0-9A-F]+):", line)
        if match and current is not None:
            goal = re.search(r"<([^>+]+)(?:\+0x([0-9a-f]+))?>$", line) if "branch" in match[1] else None
            current.append(Instruction(int(match[3], 16), match[1], match[2],
                                       symbols[goal[1]] + int(goal[2] or "0", 16) if goal else None))
    return kernels


def short_name(function):
    """mlar_block_engine<64, 16, false>::partial_scores() const -> partial_scores"""
    return re.sub(r"<.*>$", "", long_name(function))


def long_name(function):
    """bool mlar_wave_engine<64>::convert_ordinary<1>(...) -> convert_ordinary<1>"""
    name = function.split("(")[0].split("::")[-1]
    return re.sub(r"^.*?\s(?=\w+(<.*>)?$)", "", name)


ENGINE = re.compile(r"(mlar_\w+_engine)<(.*)>::run\(")


def part_of(chain):
    """Innermost function first -> (engine with its sizes, part), or None outside the loop over tiles."""
    depth = next((i for i, function in enumerate(chain) if ENGINE.search(function)), None)
    if depth is None:
        return None
    names = [short_name(function) for function in chain[:depth]]
    engine = ENGINE.search(chain[depth])
    if COLD.intersection(names + [long_name(f) for f in chain[:depth]] + [f"{engine[1]}::{name}" for name in names]):
        return None
    return f"{engine[1]}<{engine[2]}>", next((PHASES[name] for name in names if name in PHASES), "loop")


# ---- costs ----

class Cost:
    """Of one wave, for one sub-tile."""

    def __init__(self):
        self.count = collections.Counter()
        self.issue = self.matrix = self.lds = self.l1 = 0.0

    def add(self, instruction, target, times):
        kind = kind_of(instruction.name)
        if kind is None:
            return
        self.count[kind] += times
        self.issue += times * SLOT * (4 if QUARTER_RATE.match(instruction.name) else 1)
        if kind == "matrix":
            self.matrix += times * MFMA_CYCLES[re.sub(r"_e\d+$", "", instruction.name)]
        elif kind == "LDS" and "permute" not in instruction.name and "swizzle" not in instruction.name:
            rate = (LDS_WRITE_BYTES if "write" in instruction.name else LDS_READ_BYTES)[target]
            self.lds += times * 64 * lane_bytes(instruction.name) / rate
        elif kind == "memory":
            self.l1 += times * 64 * lane_bytes(instruction.name) / L1_BYTES

    def plus(self, other, factor=1):
        for kind, number in other.count.items():
            self.count[kind] += factor * number
        for unit in ("issue", "matrix", "lds", "l1"):
            setattr(self, unit, getattr(self, unit) + factor * getattr(other, unit))
        return self

    def cycles(self):
        """LDS and L1 serve all waves of the block."""
        return max(self.issue, self.matrix, self.lds * WAVES, self.l1 * WAVES)


def lane_bytes(name):
    widths = (("b128|x4", 16), ("b96|x3", 12), ("b64|x2", 8), ("short|[ui]16|write_b16", 2), ("byte|[ui]8|write_b8", 1))
    number = next((number for words, number in widths if re.search(words, name)), 4)
    return number * (2 if re.match(r"ds_(read|write)2", name) else 1)


# ---- loops ----

def blocks_of(instructions):
    """Basic blocks: ([first index of each], [successors of each])."""
    at = {instruction.address: i for i, instruction in enumerate(instructions)}
    starts = {0} | {at[i.target] for i in instructions if i.target is not None}
    starts |= {i + 1 for i, instruction in enumerate(instructions[:-1]) if instruction.target is not None}
    first = sorted(starts)
    number = {start: n for n, start in enumerate(first)}
    successors = []
    for n, _ in enumerate(first):
        last = instructions[(first[n + 1] if n + 1 < len(first) else len(instructions)) - 1]
        out = [] if last.target is None else [number[at[last.target]]]
        if last.name not in ("s_branch", "s_endpgm") and n + 1 < len(first):
            out.append(n + 1)
        successors.append(out)
    return first, successors


def natural_loops(successors):
    """[set of blocks], one for each header: bodies of the edges that lead back to a block that dominates them."""
    predecessors = [[] for _ in successors]
    for n, out in enumerate(successors):
        for to in out:
            predecessors[to].append(n)
    everything = (1 << len(successors)) - 1
    dominators, changed = [1] + [everything] * (len(successors) - 1), True
    while changed:
        changed = False
        for n in range(1, len(successors)):
            met = everything
            for before in predecessors[n]:
                met &= dominators[before]
            met |= 1 << n
            changed |= met != dominators[n]
            dominators[n] = met
    loops = {}
    for n, out in enumerate(successors):
        for header in out:
            if dominators[n] >> header & 1:
                body, todo = loops.setdefault(header, {header}), [n]
                while todo:
                    block = todo.pop()
                    if block not in body:
                        body.add(block)
                        todo += predecessors[block]
    return list(loops.values())


def tile_loops(instructions, parts):
    """{engine: indices of the instructions of its loop over sub-tiles}: the least loop with all its matrix work."""
    first, successors = blocks_of(instructions)
    bounds = zip(first, first[1:] + [len(instructions)])
    block_of = {i: n for n, (begin, end) in enumerate(bounds) for i in range(begin, end)}
    loops, found = sorted(natural_loops(successors), key=len), {}
    for engine in {part[0] for part in parts if part}:
        matrix = {block_of[i] for i, part in enumerate(parts)
                  if part and part[0] == engine and kind_of(instructions[i].name) == "matrix"}
        body = next((loop for loop in loops if matrix and matrix <= loop), None)
        if body is None:
            sys.exit(f"{engine}: no loop holds its matrix instructions; PHASES and COLD are older than the kernel")
        found[engine] = {i for i, block in block_of.items() if block in body}
    return found


def inner_loops(instructions, parts):
    """[(first address, last address, part)] of loops that stay in one part."""
    found = []
    for i, instruction in enumerate(instructions):
        part = parts[i]
        if instruction.target is None or instruction.target > instruction.address or part is None:
            continue
        inside = [p for other, p in zip(instructions, parts)
                  if instruction.target <= other.address <= instruction.address]
        if part[1] != "loop" and sum(p == part for p in inside) > len(inside) // 2:
            found.append((instruction.target, instruction.address, part))
    return found


class Engine:
    """One instantiation inside one kernel. Its numbers are those of a sub-tile, of the wave that has most to do."""

    def __init__(self, name, target):
        self.name, self.target = name, target
        sizes = [int(word) for word in re.findall(r"\b\d+\b", name.partition("<")[2])]
        self.heads = sizes[0]
        self.columns = 32 * sizes[1] if "block" in name else sizes[1] if len(sizes) > 1 else COLUMNS
        self.tokens = sub_tile_tokens(name, target, sizes)
        self.phases = {phase: Cost() for phase in ORDER}

    def trips(self, phase):
        """Of a loop inside a part (block engine): over 16 tokens, over a matrix instruction's, over waves."""
        step = 32 if self.target == "gfx950" else 16
        return {"scores": self.tokens // 16, "values": self.tokens // step, "softmax": 4}.get(phase, 1)

    def tile(self, phases=ORDER):
        total = Cost()
        for phase in phases:
            total.plus(self.phases[phase], TILE / self.tokens)
        return total

    def serial(self):
        return sum(self.tile([phase]).cycles() for phase in ORDER)

    def overlapped(self):
        return self.tile().cycles()


def sub_tile_tokens(name, target, sizes):
    """attend_sizes.h's MLAR_TOKENS_*, wave_keys.h's MLAR_WAVE_TOKENS."""
    if "wave" in name:
        return 32
    narrow = sizes[1] == 16
    if target == "gfx950":
        return 64 if narrow else 32
    return 32 if sizes[0] <= (32 if narrow else 16) else 16


# ---- the build ----

def gpu_gate():
    loader = importlib.machinery.SourceFileLoader("gpu_gate", str(ROOT / "tools" / "gpu_gate"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("gpu_gate", loader))
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    return module


def command_of(usage):
    """The compiler's command, which kernels/gpu/compile puts at the head of its report."""
    first = usage.partition("\n")[0]
    if not first.startswith("command\t"):
        sys.exit("the build is older than this tool: its reports do not begin with the command; build the images again")
    return first.split("\t")[1:]


def tool(command, name):
    """llvm-objdump of the compiler clang-22: llvm-objdump-22, beside it or on PATH."""
    version = re.search(r"(-\d+)?$", command[0])[0]
    beside = pathlib.Path(command[0]).resolve().parent / name
    return str(beside) if beside.exists() else name + version


def run(arguments, text=None):
    return subprocess.run(arguments, input=text, capture_output=True, check=True, text=True).stdout


def code_bytes(command, path):
    return run([tool(command, "llvm-objdump"), "-s", "--section=.text", str(path)]).partition("Contents of")[2]


def chains_of(command, path, addresses):
    """{address: [function, innermost first]}"""
    text = run([tool(command, "llvm-symbolizer"), f"--obj={path}", "--inlines", "--functions=linkage", "--demangle"],
               "".join(f"0x{address:x}\n" for address in addresses))
    chains = {}
    for address, block in zip(addresses, text.split("\n\n")):
        chains[address] = block.strip().splitlines()[::2]
    return chains


def read_image(image, scratch):
    """{kernel: {engine: Engine}} of one image."""
    target = image.name.split(".")[1]
    command = command_of((image.parent / (image.name + ".usage")).read_text())
    twin = scratch / image.name
    arguments = [word for word in command if not word.startswith("-Rpass")]
    for flag in ("-dependency-file", "-MT"):  # each stands between two -Xclang, with its value
        while flag in arguments:
            at = arguments.index(flag)
            del arguments[at - 1:at + 3]
    arguments[arguments.index("-o") + 1] = str(twin)
    run(arguments + ["-gline-tables-only", "-fdebug-info-for-profiling"])
    if code_bytes(command, twin) != code_bytes(command, image):
        sys.exit(f"{image}: line tables change its instructions; nothing can be said about it")
    disassembly = read_disassembly(run([tool(command, "llvm-objdump"), "-d", str(twin)]))
    chains = chains_of(command, twin, [i.address for body in disassembly.values() for i in body])
    kernels = {}
    for kernel, body in disassembly.items():
        parts = [part_of(chains[i.address]) for i in body]
        loops, engines = inner_loops(body, parts), {}
        inside = tile_loops(body, parts)
        for i, (instruction, part) in enumerate(zip(body, parts)):
            if part is None or i not in inside[part[0]]:
                continue
            engine = engines.setdefault(part[0], Engine(part[0], target))
            looped = any(first <= instruction.address <= last and part == loop for first, last, loop in loops)
            engine.phases[part[1]].add(instruction, target, engine.trips(part[1]) if looped else 1)
        if engines:
            kernels[kernel] = engines
    return kernels


# ---- self test ----

SAMPLE = """
0000000000001900 <kernel>:
\ts_load_dwordx2 s[4:5], s[0:1], 0x0                         // 000000001900: C0060100 00000000
\tv_mfma_f32_16x16x16_bf16 v[0:3], a[0:1], v[8:9], v[0:3]    // 000000001908: D3E10000 0C021100
\tds_read_b128 v[4:7], v1 offset:16                          // 000000001910: D9FE0010 04000001
\ts_cbranch_scc0 65533                                       // 000000001918: BF84FFFD <kernel+0x8>
\tv_exp_f32_e32 v0, v1                                       // 00000000191C: 7E004101
"""


def self_test():
    body = read_disassembly(SAMPLE)["kernel"]
    assert [kind_of(i.name) for i in body] == ["scalar", "matrix", "LDS", "scalar", "vector"], body
    assert body[3].target == 0x1908 and body[1].target is None, body
    chain = ["mlar_mfma16(unsigned int)", "mlar_block_engine<64, 16, false>::partial_scores() const",
             "mlar_block_engine<64, 16, false>::run(int, int, int)", "kernel"]
    assert part_of(chain) == ("mlar_block_engine<64, 16, false>", "scores"), part_of(chain)
    assert part_of(["mlar_next_part(x)"] + chain[2:]) is None and part_of(["kernel"]) is None
    assert part_of(chain[2:])[1] == "loop"
    wave = "mlar_wave_engine<64, mlar_wave_plain<true, 576> >"
    plain = ["mlar_wave_plain<true, 576>::load(mlar_stage_args const*, mlar_wave_tile const&, int)", wave + "::run(int)"]
    assert part_of(plain) == (wave, "load") and part_of(["x::convert_exact(unsigned short*) const"] + plain[1:]) is None
    assert (Engine(wave, "gfx942").heads, Engine(wave, "gfx942").columns) == (64, 576)
    assert Engine("mlar_wave_engine<16, mlar_wave_fp8>", "gfx950").columns == COLUMNS
    parts = [None, part_of(chain), part_of(chain), part_of(chain), None]
    assert inner_loops(body, parts) == [(0x1908, 0x1918, parts[1])]
    assert blocks_of(body) == ([0, 1, 4], [[1], [1, 2], []]), blocks_of(body)
    assert natural_loops([[1], [2, 3], [1], []]) == [{1, 2}]
    nested = natural_loops([[1], [2], [2, 3], [1, 4], []])
    assert sorted(nested, key=len) == [{2}, {1, 2, 3}], nested
    assert tile_loops(body, parts) == {parts[1][0]: {1, 2, 3}}, tile_loops(body, parts)
    tokens = [sub_tile_tokens(f"mlar_{engine}_engine", target, sizes)
              for target, engine, *sizes in (("gfx942", "wave", 64), ("gfx942", "block", 64, 16),
                                             ("gfx942", "block", 32, 16), ("gfx950", "block", 64, 18))]
    assert tokens == [32, 16, 32, 32], tokens
    cost = Cost()
    for instruction in body:
        cost.add(instruction, "gfx942", 2)
    assert (cost.issue, cost.matrix, cost.lds) == (2 * (4 * SLOT + 4 * SLOT), 32, 16), vars(cost)
    assert cost.cycles() == 64 and lane_bytes("ds_write2_b64") == 16 and lane_bytes("global_load_ubyte") == 1
    assert [lane_bytes(name) for name in ("ds_read_b64_tr_b16", "ds_write_b8", "global_load_dword")] == [8, 1, 4]
