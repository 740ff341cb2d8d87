"""The analytical model of tiled products on NVIDIA GPUs.

    seconds = launch + fill + |memory, L2, tensor cores of all waves| + results + joining of splits + packs

What overlaps is joined by a norm of the fourth power: streams that are nearly as long as each other disturb each other.

Read from plain decisions, each with a default: `tile.AXIS`, `stages`, `cluster` or `cluster.AXIS`, `split.AXIS`,
`atom.DOT`, `warpgroups`, `persistent`. Programs without dots cost their bytes. Not modelled: bank conflicts of a
swizzle that is wrong (see `gpu_memory`), order of tiles in L2, work behind a product in its epilogue, kernels without
the matrix unit beyond their bytes and operations. Rates that no data sheet states: `gpu_rates`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tilewright.design.cost.gpu_epilogue import Tile, epilogue, stores
from tilewright.design.cost.gpu_nests import estimate_nests
from tilewright.design.cost.gpu_rates import GpuRates, flops_per_cycle, has_wgmma, joined, powered, rates_of
from tilewright.design.cost.occupancy import blocks_per_sm, limits_of
from tilewright.design.cost.program import Program, program_of
from tilewright.design.cost.roofline import Roofline
from tilewright.design.cost.term import Estimate, Term, largest
from tilewright.design.cost.usage import Usage
from tilewright.design.cost.waves import Waves
from tilewright.design.cost.work import bytes_of
from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.language import ir

_SHARED_BYTES, _REGISTERS, _OTHERS = 128.0, 168, 64


@dataclass(frozen=True)
class Product:
    """One dot at its sizes: rows, columns, depth; the points of each that a block covers; copies of it (`batch`)."""

    sizes: tuple[int, int, int]
    tiles: tuple[int, int, int]
    batch: int
    itemsize: int
    split: int
    rows_from: str  # what is multiplied, by name
    columns_from: str
    down: int  # blocks of a cluster along the rows; they share what is read for the columns
    across: int  # and along the columns
    axes: tuple[str, str]  # of rows and of columns
    joined_in_cluster: bool

    @property
    def cluster(self) -> int:
        """Blocks of a cluster."""
        return self.down * self.across

    @property
    def together(self) -> int:
        """Blocks that lie close: those of a cluster, and those that join parts of a sum there."""
        return self.cluster * (self.split if self.joined_in_cluster else 1)

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
    def result_bytes(self) -> float:
        """Bytes of an f32 result."""
        return 4.0 * self.sizes[0] * self.sizes[1] * self.batch


def issue_cycles(tiles: tuple[int, int, int], flops_per_cycle: float, itemsize: int, atom: str) -> float:
    """Cycles of the tensor cores of one SM for one step of a block.

    wgmma reads its operands from shared memory at 128 bytes a cycle for every 64 rows: below 64 columns that, and not
    the product, decides. Rows and columns are rounded up to the atom (64 x 8, 16 x 8 for mma, none for fma).
    """
    if atom == "fma":
        return 2.0 * math.prod(tiles) / flops_per_cycle
    rows, quantum = tiles[0], 64 if atom == "wgmma" else 16
    tm, tn = -(-rows // quantum) * quantum, -(-tiles[1] // 8) * 8
    math_cycles = 2.0 * tm * tn * tiles[2] / flops_per_cycle
    read = (tm / quantum) * (quantum + tn) * tiles[2] * itemsize / _SHARED_BYTES if atom == "wgmma" else 0.0
    return max(math_cycles, read)


def estimate_gpu(kernel: ir.Kernel, design: Design, facts: Facts, usage: Usage | None = None) -> Estimate:
    """Seconds of one call on `facts.machine` (kind nvidia), operands not in L2. MachineError for missing limits.

    `usage` is what the compiled kernel takes: blocks on an SM are then known, not guessed, and spills cost time.
    """
    program, rates = program_of(kernel), rates_of(facts.machine)
    dots = [let for let in program.values.values() if isinstance(let.expr, ir.Dot)]
    if not dots or _inside(program, dots):
        return estimate_nests(program, design, facts)
    products = [_product(program, design, facts, let) for let in dots]
    atom = next((str(v) for _, v in design.prefixed("atom")), "wgmma" if has_wgmma(facts.machine) else "mma")
    machine, first = facts.machine, products[0]
    ring = max(1, design.number("stages", 4)) * _step_bytes(products)
    sums = sum(math.prod(p.tiles[:2]) for p in products) // 128 * (2 if first.split > 1 else 1)
    resident = _resident(design, facts, atom, ring, sums // max(1, design.number("warpgroups", 2)), usage)
    cores = usable(machine.cores, first.together)
    active, rounds = min(cores, first.blocks), -(-first.blocks // cores)
    # What is in flight bounds an SM: bytes of its rings over the latency; one stage is being multiplied.
    stages = max(1, design.number("stages", 4))
    flying = ring * max(1, stages - 1) // stages
    per_sm = min(
        rates.l2_bytes_per_cycle * rates.clock, min(flying * resident, rates.in_flight_bytes) / rates.latency_s
    )
    step = sum(issue_cycles(p.tiles, flops_per_cycle(machine, atom), p.itemsize, atom) for p in products)
    coupled = 1.0 + rates.cluster_coupling * max(0, first.cluster - 2)
    tensor = powered(first.steps * step / rates.clock * rounds * coupled, rates)
    loaded, compulsory = _loaded_once(products), float(bytes_of(kernel, facts.sizes))
    fill = rates.latency_s + _step_bytes(products) / per_sm + rates.drain_s
    l2 = loaded / (active * per_sm)
    memory = _memory(compulsory, first.blocks, cores, resident, per_sm, rates.read, fill)
    join, (behind, results) = _join(products, design, rates), _after(program, first, design, facts, rounds, resident)
    packs = _packs(program, design, facts)
    peak = machine.cores * flops_per_cycle(machine, atom) * rates.clock
    roof = Roofline(sum(p.flops for p in products), compulsory, peak, rates.read)
    waves = Waves(first.blocks, machine.cores * resident)
    overlapping = (Term("memory", memory, "s"), Term("L2", l2, "s"), Term("tensor", tensor, "s"))
    alone: tuple[Term, ...] = (
        Term("epilogue", behind, "s"), Term("results", results, "s"), Term("join", join, "s"), Term("packs", packs, "s"),
    )  # fmt: skip
    if usage is not None and usage.spills:
        alone = (*alone, Term("spills", _spilled(usage, first.steps * rounds, rates), "s"))
    terms = (Term("launch", rates.launch_s, "s"), Term("fill", fill, "s"), *overlapping, *alone)
    counts = (*_bytes(compulsory, loaded), *_shape(waves, resident, roof))
    seconds = rates.launch_s + fill + joined(memory, l2, tensor) + sum(t.value for t in alone)
    return Estimate(seconds, largest(terms), (*terms, *counts))


def _memory(
    moved: float, blocks: int, cores: int, resident: int, per_sm: float, read: float, fill: float
) -> float:
    """Seconds of main memory: whole waves of blocks, and a last one whose few SMs draw less, and wait anew."""
    waves, rest = divmod(blocks, cores * resident)
    each = moved / blocks
    whole = waves * cores * resident * each / min(read, cores * per_sm)
    if not rest:
        return whole
    last = min(rest, cores) * per_sm
    return whole + rest * each / min(read, last) + (fill if waves and last < read else 0.0)


def _inside(program: Program, dots: list[ir.Let]) -> bool:
    """Whether some dot makes a tile along an axis that its block walks, as attention's scores."""
    own = {a.name for nest in program.nests for a in nest.loop.axes} | program.whole
    return any(axis not in own for let in dots for axis in let.type.axes)


def _step_bytes(products: list[Product]) -> int:
    """Bytes of operands that one step brings in; what several dots multiply comes once."""
    tiles: dict[str, int] = {}
    for p in products:
        tiles |= {p.rows_from: p.tiles[0] * p.tiles[2] * p.itemsize}
        tiles |= {p.columns_from: p.tiles[1] * p.tiles[2] * p.itemsize}
    return sum(tiles.values())


def _spilled(usage: Usage, steps: int, rates: GpuRates) -> float:
    """Seconds for local memory, in L1, as if all of it stood in the main loop: where it stands is not known."""
    return usage.threads * usage.spills * steps / (_SHARED_BYTES * rates.clock)


def _resident(
    design: Design, facts: Facts, atom: str, ring: int, accumulators: int, usage: Usage | None
) -> int:
    """Blocks that an SM holds at once: one where each stays until all tiles are done."""
    if design.get("persistent"):
        return 1
    if usage is not None:
        return max(1, usage.resident(facts.machine))
    groups = max(1, design.number("warpgroups", 2 if atom == "wgmma" else 1))
    if design.get("producer") == "warp":  # registers are what is needed, and not dealt out again
        threads, registers = 128 * groups + 32, min(255, accumulators + _OTHERS)
    else:
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


def _after(
    program: Program, p: Product, design: Design, facts: Facts, rounds: int, resident: int
) -> tuple[float, float]:
    """Seconds behind the main loop where nothing runs beside it: what is computed there, and the stores.

    Of several blocks on an SM another one multiplies meanwhile; the parts of a split sum have a share each.
    """
    tile, rates = _tile_of(program, p, design, facts), rates_of(facts.machine)
    engine = any(how == "tma" for _, how in design.prefixed("store"))
    waits = (rounds if resident == 1 else 1) / p.split
    blocks = min(facts.machine.cores, p.blocks)
    return waits * epilogue(program, tile, rates), waits * stores(tile, blocks, engine, rates)


def _tile_of(program: Program, p: Product, design: Design, facts: Facts) -> Tile:
    """The tile of a result, as its epilogue meets it."""
    extents = {a: min(t, n) for a, t, n in zip(p.axes, p.tiles[:2], p.sizes[:2], strict=True)}
    odd = any(_row_bytes(program, facts, t) % 4 for t in _stored(program))
    return Tile(extents, p.itemsize, odd, bool(design.get("swap")))


def _stored(program: Program) -> list[str]:
    return [s.ref.buffer for s in ir.walk(program.kernel.body) if isinstance(s, ir.Store)]


def _row_bytes(program: Program, facts: Facts, tensor: str) -> int:
    """Bytes of a row of a tensor."""
    p = program.kernel.param(tensor)
    last = (p.dims or (1,))[-1]
    return p.dtype.bytes * (facts.sizes.get(last, 1) if isinstance(last, str) else last)


def _packs(program: Program, design: Design, facts: Facts) -> float:
    """Copies of operands that come first: each a kernel, its bytes read and written."""
    rates = rates_of(facts.machine)
    alone = rates.next_launch_s + rates.latency_s + rates.drain_s
    seconds = 0.0
    for name, _ in design.prefixed("pack"):
        p = program.kernel.param(name)
        count = math.prod(facts.sizes.get(d, 1) if isinstance(d, str) else d for d in p.dims or ())
        seconds += alone + 2 * count * p.dtype.bytes / rates.copy
    return seconds


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
        max(1, design.number(f"split.{dot.axis}", 1)), *((dot.b, dot.a) if design.get("swap") else (dot.a, dot.b)),
        max(1, design.number(f"cluster.{m}", 1)), max(1, design.number(f"cluster.{n}", 1)), (m, n),
        _how(design) == "cluster",
    )  # fmt: skip


def _size(program: Program, facts: Facts, axis: str) -> int:
    while axis in program.axes:
        axis = program.axes[axis].over
    return facts.sizes.get(axis, 1)


def _tile(program: Program, design: Design, facts: Facts, axis: str, default: int) -> int:
    if axis not in program.axes:
        return _size(program, facts, axis)
    return max(1, design.number(f"tile.{axis}", default))


def _loaded_once(products: list[Product]) -> float:
    """Bytes of operands that all blocks take from L2; what a cluster shares comes once for all its blocks."""
    found: dict[str, float] = {}
    for p in products:
        (m, n, k), (tm, tn, _) = p.sizes, p.tiles
        down, across = -(-m // tm), -(-n // tn)
        found |= {p.rows_from: float(p.batch * k * p.itemsize * m * across / p.across)}
        found |= {p.columns_from: float(p.batch * k * p.itemsize * n * down / p.down)}
    return sum(found.values())


def _how(design: Design) -> str:
    return next((str(v) for _, v in design.prefixed("how")), "two_pass")


def _join(products: list[Product], design: Design, rates: GpuRates) -> float:
    """Parts of a split sum: in a cluster each block joins its share of the columns, else the last block all of them."""
    p = products[0]
    if p.split == 1:
        return 0.0
    part = sum(4.0 * q.tiles[0] * q.tiles[1] for q in products)
    how = _how(design)
    if how == "atomic":
        return part / rates.grid_join_bytes_per_s
    if how == "cluster":
        return rates.cluster_wait_s + part * (p.split - 1) / p.split / rates.join_bytes_per_s
    return rates.grid_wait_s + part * (p.split - 1) / rates.grid_join_bytes_per_s


__all__ = ["estimate_gpu", "issue_cycles"]
