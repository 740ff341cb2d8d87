"""The analytical model of tiled products on NVIDIA GPUs.

    seconds = launch + fill + |memory, L2, tensor cores of all waves| + results + joining of splits + packs

What overlaps is joined by a norm of the fourth power: streams that are nearly as long as each other disturb each other.

Read from plain decisions, each with a default: `tile.AXIS`, `stages`, `cluster` or `cluster.AXIS`, `split.AXIS`,
`atom.DOT`, `warpgroups`, `persistent`. Programs without dots cost their bytes. Not modelled: bank conflicts of a
swizzle that is wrong (see `gpu_memory`), order of tiles in L2, clocks under power limits beyond one factor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tilewright.design.cost.occupancy import blocks_per_sm, limits_of
from tilewright.design.cost.program import Program, program_of
from tilewright.design.cost.roofline import Roofline
from tilewright.design.cost.term import Estimate, Term, largest
from tilewright.design.cost.waves import Waves
from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.language import ir

LAUNCH = 2.5e-6  # s: a launch seen from a stream that is kept busy
LATENCY = 1.0e-6  # s: from asking HBM to having it, address translation of a cold page included
POWER = 0.80  # of the peak that tensor cores keep up on random data (700-815 of 989 TFLOP/s measured on an H200)
L2_BYTES = 40.0  # bytes a cycle and SM that L2 delivers with all of them asking
CLUSTER_WAIT, GRID_WAIT = 0.3e-6, 1.2e-6  # s: until whoever joins the parts of a sum knows that they are there
JOIN = 12e9  # bytes/s of f32 parts that one block takes in and adds
EPILOGUE = 0.5e-6  # s: the last results from registers to memory, where nothing overlaps them
DIRECT = 14e9  # bytes/s that one SM stores from the registers of the matrix unit, eight rows at a time
COUPLING = 0.012  # share of its time that a block waits for each further block of its cluster
OVERLAP = 4.0  # the power of the norm that joins what overlaps
_CLOCK, _READ, _SHARED_BYTES, _REGISTERS = 1.7e9, 2.0e12, 128.0, 168
_MOST_IN_FLIGHT = 200 << 10  # bytes that an SM can have under way


@dataclass(frozen=True)
class Product:
    """One dot at its sizes: rows, columns, depth; the points of each that a block covers; copies of it (`batch`)."""

    sizes: tuple[int, int, int]
    tiles: tuple[int, int, int]
    batch: int
    itemsize: int
    split: int
    down: int  # blocks of a cluster along the rows; they share what is read for the columns
    across: int  # and along the columns

    @property
    def cluster(self) -> int:
        """Blocks of a cluster."""
        return self.down * self.across

    @property
    def flops(self) -> float:
        """Two operations for each product."""
        return 2.0 * math.prod(self.sizes) * self.batch

    @property
    def blocks(self) -> int:
        """Tiles of the result, times the parts of the sum."""
        (m, n, _), (tm, tn, _) = self.sizes, self.tiles
        return -(-m // tm) * -(-n // tn) * self.batch * self.split

    @property
    def steps(self) -> int:
        """Steps of the main loop of one block."""
        return -(-self.sizes[2] // (self.tiles[2] * self.split))

    @property
    def step_bytes(self) -> int:
        """Bytes of both operands that one step brings in."""
        tm, tn, tk = self.tiles
        return (tm + tn) * tk * self.itemsize

    @property
    def result_bytes(self) -> float:
        """Bytes of an f32 result."""
        return 4.0 * self.sizes[0] * self.sizes[1] * self.batch


def issue_cycles(tiles: tuple[int, int, int], flops_per_cycle: float, itemsize: int, atom: str) -> float:
    """Cycles of the tensor cores of one SM for one step of a block.

    wgmma reads its operands from shared memory at 128 bytes a cycle for every 64 rows: below 64 columns that, and not
    the product, decides. Rows and columns are rounded up to the atom (64 x 8, or 16 x 8 for mma).
    """
    rows, quantum = tiles[0], 64 if atom == "wgmma" else 16
    tm, tn = -(-rows // quantum) * quantum, -(-tiles[1] // 8) * 8
    math_cycles = 2.0 * tm * tn * tiles[2] / flops_per_cycle
    read = (tm / quantum) * (quantum + tn) * tiles[2] * itemsize / _SHARED_BYTES if atom == "wgmma" else 0.0
    return joined(math_cycles, read)


def joined(*times: float) -> float:
    """The time of streams that overlap."""
    return float(sum(t**OVERLAP for t in times) ** (1 / OVERLAP))


def estimate_gpu(kernel: ir.Kernel, design: Design, facts: Facts) -> Estimate:
    """Seconds of one call on `facts.machine` (kind nvidia), operands not in L2. MachineError for missing limits."""
    program = program_of(kernel)
    dots = [let for let in program.values.values() if isinstance(let.expr, ir.Dot)]
    if not dots:
        return _stream(program, facts)
    products = [_product(program, design, facts, let) for let in dots]
    atom = next((str(v) for _, v in design.prefixed("atom")), "wgmma" if _has_wgmma(facts) else "mma")
    machine, first = facts.machine, products[0]
    clock, read = machine.clock_hz or _CLOCK, machine.memory.read or machine.memory.bandwidth or _READ
    ring = max(1, design.number("stages", 4)) * sum(p.step_bytes for p in products)
    resident = _resident(design, facts, atom, ring)
    cores = usable(machine.cores, first.cluster)
    active, rounds = min(cores, first.blocks), -(-first.blocks // cores)
    # What is in flight bounds an SM: bytes of its rings over the latency; one stage is being multiplied.
    stages = max(1, design.number("stages", 4))
    flying = ring * max(1, stages - 1) // stages
    per_sm = min(L2_BYTES * clock, min(flying * resident, _MOST_IN_FLIGHT) / LATENCY)
    step = sum(issue_cycles(p.tiles, POWER * _tensor_rate(facts, atom), p.itemsize, atom) for p in products)
    tensor = first.steps * step / clock * rounds * (1.0 + COUPLING * max(0, first.cluster - 2))
    loaded, compulsory = sum(_loaded(p) for p in products), _compulsory(program, facts)
    l2, memory = loaded / (active * per_sm), compulsory / min(read, active * per_sm)
    fill = LATENCY + sum(p.step_bytes for p in products) / per_sm + EPILOGUE
    join, results = _join(products, design), _results(first, design, rounds)
    packs = _packs(program, design, facts)
    roof = Roofline(
        sum(p.flops for p in products), compulsory, machine.cores * _tensor_rate(facts, atom) * clock, read
    )  # fmt: skip
    waves = Waves(first.blocks, machine.cores * resident)
    overlapping = (Term("memory", memory, "s"), Term("L2", l2, "s"), Term("tensor", tensor, "s"))
    alone = (Term("results", results, "s"), Term("join", join, "s"), Term("packs", packs, "s"))
    terms = (Term("launch", LAUNCH, "s"), Term("fill", fill, "s"), *overlapping, *alone)
    counts = (*_bytes(compulsory, loaded), *_shape(waves, resident, roof))
    seconds = LAUNCH + fill + joined(memory, l2, tensor) + sum(t.value for t in alone)
    return Estimate(seconds, largest(terms), (*terms, *counts))


def _resident(design: Design, facts: Facts, atom: str, ring: int) -> int:
    """Blocks that an SM holds at once: one where each stays until all tiles are done."""
    if design.get("persistent"):
        return 1
    groups = max(1, design.number("warpgroups", 2 if atom == "wgmma" else 1))
    threads = 128 * (groups + (atom == "wgmma"))  # wgmma has a group that copies
    registers = _REGISTERS if atom == "wgmma" else 128
    return max(1, blocks_per_sm(limits_of(facts.machine), threads, registers, ring))


def _bytes(compulsory: float, loaded: float) -> tuple[Term, ...]:
    return Term("memory bytes", compulsory, "byte"), Term("L2 bytes", loaded, "byte")


def _shape(waves: Waves, resident: int, roof: Roofline) -> tuple[Term, ...]:
    return (
        Term("blocks", waves.blocks, "1"),
        Term("waves", waves.count, "1"),
        Term("wave efficiency", waves.efficiency, "1"),
        Term("blocks per SM", resident, "1"),
        Term("intensity", roof.intensity, "flop/byte"),
        Term("roofline", roof.seconds, "s at least"),
    )


def usable(cores: int, cluster: int) -> int:
    """SMs that clusters can fill: they lie in groups of 16 or 18, and a cluster in one of them."""
    return cores if cluster <= 2 else max(1, (cores - cores // 16) // cluster) * cluster


def _results(p: Product, design: Design, rounds: int) -> float:
    """Seconds of storing tiles from registers while the matrix unit waits; the copy engine makes nobody wait."""
    if design.get("persistent") and any(how == "tma" for _, how in design.prefixed("store")):
        return 0.0
    (m, n, _), (tm, tn, _) = p.sizes, p.tiles
    return rounds * min(tm, m) * min(tn, n) * p.itemsize / DIRECT / p.split


def _packs(program: Program, design: Design, facts: Facts) -> float:
    """Copies of operands that come first: each a launch, its bytes read and written."""
    rate = facts.machine.memory.copy or facts.machine.memory.bandwidth or _READ
    tensors = [program.kernel.param(name) for name, _ in design.prefixed("pack")]
    sizes = [math.prod(facts.sizes.get(d, 1) if isinstance(d, str) else d for d in p.dims or ()) for p in tensors]
    return sum(LAUNCH + 2 * n * p.dtype.bytes / rate for n, p in zip(sizes, tensors, strict=True))


def _has_wgmma(facts: Facts) -> bool:
    return any(a.name.startswith("wgmma") for a in facts.machine.atoms)


def _tensor_rate(facts: Facts, atom: str) -> float:
    """Flop a cycle and SM: of tensor cores on bf16, or of scalar multiplications."""
    atoms = facts.machine.atoms
    if atom != "fma":
        rates = [a.flops_per_cycle for a in atoms if a.dtype in ("bf16", "f16") and a.flops_per_cycle]
        if rates:
            return max(rates) * (1.0 if atom == "wgmma" or not _has_wgmma(facts) else 0.62)  # mma.sync on Hopper
    return next((a.flops_per_cycle for a in atoms if a.dtype == "f32" and a.flops_per_cycle), 256.0)


def _product(program: Program, design: Design, facts: Facts, let: ir.Let) -> Product:
    assert isinstance(let.expr, ir.Dot)
    dot = let.expr
    rows = [a for a in program.values[dot.a].type.axes if a != dot.axis]
    columns = [a for a in let.type.axes if a not in rows]
    m, n = rows[0] if rows else let.type.axes[0], columns[0] if columns else let.type.axes[-1]
    if design.get("swap"):
        m, n = n, m
    sizes = tuple(_size(program, facts, a) for a in (m, n, dot.axis))
    tiles = tuple(_tile(program, design, facts, a, d) for a, d in ((m, 128), (n, 128), (dot.axis, 64)))
    each = [a for nest in program.nests for a in nest.loop.axes if a.each]
    return Product(
        (sizes[0], sizes[1], sizes[2]), (tiles[0], tiles[1], tiles[2]),
        math.prod(_size(program, facts, a.name) for a in each), program.values[dot.a].type.dtype.bytes,
        max(1, design.number(f"split.{dot.axis}", 1)),
        max(1, design.number(f"cluster.{m}", 1)), max(1, design.number(f"cluster.{n}", 1)),
    )  # fmt: skip


def _size(program: Program, facts: Facts, axis: str) -> int:
    while axis in program.axes:
        axis = program.axes[axis].over
    return facts.sizes.get(axis, 1)


def _tile(program: Program, design: Design, facts: Facts, axis: str, default: int) -> int:
    if axis not in program.axes:
        return _size(program, facts, axis)
    return max(1, design.number(f"tile.{axis}", default))


def _loaded(p: Product) -> float:
    """Bytes of operands that all blocks take from L2; what a cluster shares comes once for all its blocks."""
    (m, n, k), (tm, tn, _) = p.sizes, p.tiles
    down, across = -(-m // tm), -(-n // tn)
    return float(p.batch * k * p.itemsize * (m * across / p.across + n * down / p.down))


def _compulsory(program: Program, facts: Facts) -> float:
    """Bytes of all operands, each once."""
    total = 0
    for p in program.kernel.params:
        if p.dims:
            total += p.dtype.bytes * math.prod(facts.sizes.get(d, 1) if isinstance(d, str) else d for d in p.dims)
    return float(total)


def _join(products: list[Product], design: Design) -> float:
    """Parts of a split sum: one block takes in those of all others, one after the other."""
    p = products[0]
    if p.split == 1:
        return 0.0
    part = sum(4.0 * q.tiles[0] * q.tiles[1] for q in products) / JOIN
    how = next((str(v) for _, v in design.prefixed("how")), "two_pass")
    if how == "atomic":
        return part
    return (CLUSTER_WAIT if how == "cluster" else GRID_WAIT) + part * (p.split - 1)


def _stream(program: Program, facts: Facts) -> Estimate:
    """A program without dots: its bytes at the rate of a copy."""
    machine = facts.machine
    moved = _compulsory(program, facts)
    rate = machine.memory.copy or machine.memory.bandwidth or _READ
    terms = (Term("launch", LAUNCH, "s"), Term("fill", LATENCY, "s"), Term("memory", moved / rate, "s"))
    seconds = sum(t.value for t in terms)
    return Estimate(seconds, largest(terms), (*terms, Term("memory bytes", moved, "byte")))


__all__ = ["estimate_gpu", "issue_cycles"]
