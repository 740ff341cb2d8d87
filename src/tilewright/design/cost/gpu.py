"""The analytical model of tiled products on NVIDIA GPUs.

    seconds = launch + fill + |memory, L2, tensor cores of all waves| + epilogue + results + joining of splits + packs

What overlaps is joined by a norm of the fourth power: streams that are nearly as long as each other disturb each other.

Read from plain decisions, each with a default: `tile.AXIS`, `stages`, `cluster` or `cluster.AXIS`, `split.AXIS`,
`atom.DOT`, `warpgroups`, `producer`, `persistent`, `store`, `pack`. Programs without dots: `gpu_nests`. Left out: bank
conflicts of a wrong swizzle (see `gpu_memory`), order of tiles in L2, kernels without the matrix unit beyond their
bytes and operations. Rates that no data sheet states: `gpu_rates`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

from tilewright.design.cost.gpu_epilogue import Tile, epilogue, stores
from tilewright.design.cost.gpu_nests import estimate_nests
from tilewright.design.cost.gpu_product import Product, how_joined, loaded_once, product_of, step_bytes
from tilewright.design.cost.gpu_rates import GpuRates, flops_per_cycle, has_wgmma, joined, powered, rates_of
from tilewright.design.cost.gpu_straight import estimate_straight
from tilewright.design.cost.occupancy import blocks_per_sm, limits_of
from tilewright.design.cost.program import Program, program_of
from tilewright.design.cost.roofline import Roofline
from tilewright.design.cost.term import Estimate, Term, largest
from tilewright.design.cost.usage import Usage
from tilewright.design.cost.waves import Waves, usable
from tilewright.design.cost.work import bytes_of
from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.gpu.packing import copy_design, copy_program
from tilewright.design.gpu.product import product
from tilewright.design.gpu.straight import is_straight
from tilewright.language import ir
from tilewright.machines.machine import Machine

_SHARED_BYTES = 128.0
_REGISTERS, _OTHERS = 168, 64  # of a thread: where groups deal them out, and beside the sums where they do not


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


def estimate_gpu(
    kernel: ir.Kernel, design: Design, facts: Facts, usage: Usage | None = None, copies: Design | None = None
) -> Estimate:
    """Seconds of one call on `facts.machine` (kind nvidia), operands not in L2. MachineError for missing limits.

    `usage` is what the compiled kernel takes: blocks on an SM are then known, not guessed, and spills cost time.
    `copies` is the design of the programs that pack operands, where it is not the default one.
    """
    if is_straight(design) and not isinstance(found := product(kernel), str):
        return estimate_straight(kernel, found, design, facts, usage)
    program, rates = program_of(kernel), rates_of(facts.machine)
    dots = [let for let in program.values.values() if isinstance(let.expr, ir.Dot)]
    if not dots or _inside(program, dots):
        return estimate_nests(program_of(kernel, design), design, facts, usage)
    products = [product_of(program, design, facts, let) for let in dots]
    atom = next((str(v) for _, v in design.prefixed("atom")), "wgmma" if has_wgmma(facts.machine) else "mma")
    use = _use(products, design, facts, atom, usage)
    moved = float(bytes_of(kernel, facts.sizes))
    overlapping = _overlapping(products, use, moved, facts.machine, atom)
    alone = (*_alone(program, products, design, facts, use), Term("packs", _packs(program, design, facts, copies), "s"))
    if usage is not None and usage.spills:
        alone = (*alone, Term("spills", _spilled(usage, products[0].steps * use.rounds, rates), "s"))
    peak = facts.machine.cores * flops_per_cycle(facts.machine, atom, products[0].itemsize) * rates.clock
    roof = Roofline(sum(p.flops for p in products), moved, peak, rates.read)
    counts = (*_bytes(moved, loaded_once(products)), *_shape(use, facts.machine, roof))
    terms = (Term("launch", rates.launch_s, "s"), *overlapping, *alone)
    seconds = rates.launch_s + joined(*(t.value for t in overlapping)) + sum(t.value for t in alone)
    return Estimate(seconds, largest(terms), (*terms, *counts))


@dataclass(frozen=True)
class _Use:
    """How blocks lie on the SMs that their clusters can fill: at once, and one round after the other.

    `per_sm` is what an SM draws (bytes/s), `fill` the seconds until its first step and after its last.
    """

    blocks: int
    cores: int
    resident: int
    per_sm: float
    fill: float

    @property
    def active(self) -> int:
        """SMs with a block."""
        return min(self.cores, self.blocks)

    @property
    def rounds(self) -> int:
        """Blocks of the SM that has most."""
        return -(-self.blocks // self.cores)


def _use(products: list[Product], design: Design, facts: Facts, atom: str, usage: Usage | None) -> _Use:
    first, rates, step = products[0], rates_of(facts.machine), step_bytes(products)
    stages = max(1, design.number("stages", 4))
    sums = sum(math.prod(p.tiles[:2]) for p in products) // 128 * (2 if first.split > 1 else 1)
    resident = _resident(design, facts, atom, stages * step, sums // max(1, design.number("warpgroups", 2)), usage)
    # What is in flight bounds an SM: bytes of its rings over the latency; one stage is being multiplied.
    flying = min(step * max(1, stages - 1) * resident, rates.in_flight_bytes)
    per_sm = min(rates.l2_bytes_per_cycle * rates.clock, flying / rates.latency_s)
    fill = rates.latency_s + step / per_sm + rates.drain_s
    return _Use(first.blocks, usable(facts.machine.cores, first.together), resident, per_sm, fill)


def _overlapping(
    products: list[Product], use: _Use, moved: float, machine: Machine, atom: str
) -> tuple[Term, ...]:  # fmt: skip
    """What runs side by side: main memory, L2, and the matrix unit of the SM that has most to do."""
    rates, first = rates_of(machine), products[0]
    rate = flops_per_cycle(machine, atom, first.itemsize)
    step = sum(issue_cycles(p.tiles, rate, p.itemsize, atom) for p in products)
    coupled = 1.0 + rates.cluster_coupling * max(0, first.cluster - 2)
    tensor = powered(first.steps * step / rates.clock * use.rounds * coupled, rates)
    l2 = loaded_once(products) / (use.active * use.per_sm)
    return Term("memory", _memory(moved, use, rates.read), "s"), Term("L2", l2, "s"), Term("tensor", tensor, "s")


def _memory(moved: float, use: _Use, read: float) -> float:
    """Seconds of main memory: whole waves of blocks, and a last one whose few SMs draw less, and wait anew."""
    waves, rest = divmod(use.blocks, use.cores * use.resident)
    each = moved / use.blocks
    whole = waves * use.cores * use.resident * each / min(read, use.cores * use.per_sm)
    if not rest:
        return whole
    last = min(rest, use.cores) * use.per_sm
    return whole + rest * each / min(read, last) + (use.fill if waves and last < read else 0.0)


def _alone(
    program: Program, products: list[Product], design: Design, facts: Facts, use: _Use
) -> tuple[Term, ...]:  # fmt: skip
    """What nothing runs beside."""
    rates, first = rates_of(facts.machine), products[0]
    behind, results = _after(program, first, design, facts, use)
    return (
        Term("fill", use.fill, "s"), Term("epilogue", behind, "s"), Term("results", results, "s"),
        Term("join", _join(products, design, rates), "s"),
    )  # fmt: skip


def _inside(program: Program, dots: list[ir.Let]) -> bool:
    """Whether some dot makes a tile along an axis that its block walks, as attention's scores."""
    own = {a.name for nest in program.nests for a in nest.loop.axes} | program.whole
    return any(axis not in own for let in dots for axis in let.type.axes)


def _spilled(usage: Usage, steps: int, rates: GpuRates) -> float:
    """Seconds for local memory, in L1, as if all of it stood in the main loop: where it stands is not known."""
    return usage.threads * usage.spills * steps / (_SHARED_BYTES * rates.clock)


def _resident(design: Design, facts: Facts, atom: str, ring: int, accumulators: int, usage: Usage | None) -> int:
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


def _shape(use: _Use, machine: Machine, roof: Roofline) -> tuple[Term, ...]:
    waves = Waves(use.blocks, machine.cores * use.resident)
    return (
        Term("blocks", waves.blocks, "1"),
        Term("waves", waves.count, "1"),
        Term("wave efficiency", waves.efficiency, "1"),
        Term("blocks per SM", use.resident, "1"),
        Term("intensity", roof.intensity, "flop/byte"),
        Term("roofline", roof.seconds, "s at least"),
    )


def _after(program: Program, p: Product, design: Design, facts: Facts, use: _Use) -> tuple[float, float]:
    """Seconds behind the main loop where nothing runs beside it: what is computed there, and the stores.

    Of several blocks on an SM another one multiplies meanwhile; the parts of a split sum have a share each.
    """
    tile, rates = _tile_of(program, p, design, facts), rates_of(facts.machine)
    engine = any(how == "tma" for _, how in design.prefixed("store"))
    waits = (use.rounds if use.resident == 1 else 1) / p.split
    stored = stores(tile, min(facts.machine.cores, p.blocks), engine, rates)
    return waits * epilogue(program, tile, rates), waits * stored


def _tile_of(program: Program, p: Product, design: Design, facts: Facts) -> Tile:
    """The tile of a result, as its epilogue meets it."""
    extents = {a: min(t, n) for a, t, n in zip(p.axes, p.tiles[:2], p.sizes[:2], strict=True)}
    stored = [s.ref.buffer for s in ir.walk(program.kernel.body) if isinstance(s, ir.Store)]
    odd = any(_row_bytes(program, facts, t) % 4 for t in stored)
    return Tile(extents, p.itemsize, odd, bool(design.get("swap")))


def _row_bytes(program: Program, facts: Facts, tensor: str) -> int:
    """Bytes of a row of a tensor."""
    p = program.kernel.param(tensor)
    last = (p.dims or (1,))[-1]
    return p.dtype.bytes * (facts.sizes.get(last, 1) if isinstance(last, str) else last)


def _packs(program: Program, design: Design, facts: Facts, copies: Design | None) -> float:
    """Copies of operands that come first: each is a kernel, by the model of its own program."""
    rates, seconds = rates_of(facts.machine), 0.0
    for name, _ in design.prefixed("pack"):
        param = program.kernel.param(name)
        extents = [facts.sizes.get(d, 1) if isinstance(d, str) else d for d in param.dims or ()]
        copy, made = _copy(len(extents), param.dtype.name, facts.machine)
        known = replace(made[1], sizes=dict(zip("BRC"[-len(extents) :], extents, strict=True)))
        found = estimate_nests(program_of(copy), copies or made[0], known, last=False)
        seconds += found.seconds - found.value("launch") + rates.next_launch_s
    return seconds


@cache
def _copy(dims: int, dtype: str, machine: Machine) -> tuple[ir.Kernel, tuple[Design, Facts]]:
    """The program that packs such tensors, with its design and what is known of its operands."""
    copy, unit = copy_program(dims, dtype), dict.fromkeys(("x", "y"), (dims - 1,))
    facts = Facts({}, unit, machine, frozenset("y"))
    return copy, (copy_design(copy, facts), facts)


def _join(products: list[Product], design: Design, rates: GpuRates) -> float:
    """Parts of a split sum: in a cluster each block joins its share of the columns, else the last block all of them."""
    p = products[0]
    if p.split == 1:
        return 0.0
    part = sum(4.0 * q.tiles[0] * q.tiles[1] for q in products)
    how = how_joined(design)
    if how == "atomic":
        # Every part passes through L2 once, several at a time; whoever comes last reads the sum.
        return rates.grid_wait_s + part / rates.grid_join_bytes_per_s
    if how == "cluster":
        return rates.cluster_wait_s + part * (p.split - 1) / p.split / rates.join_bytes_per_s
    return rates.grid_wait_s + part * (p.split - 1) / rates.grid_join_bytes_per_s


__all__ = ["estimate_gpu", "issue_cycles"]
