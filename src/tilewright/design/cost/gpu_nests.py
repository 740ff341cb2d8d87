"""The analytical model of everything that is no plain product on NVIDIA GPUs: rows, gathers, attention.

    rows:      launch + requests beside 16 bytes + max(life of a block + |streams, chains|, starts of blocks)
    attention: launch + life of a block + join + max(|memory, L2, walks, arithmetic, elements|, turns)
    copies:    launch + life of a block + requests beside 16 bytes + |memory, L2, arithmetic, turns|

Read from the structure of the program: a block for each tile of a nest's parallel axes; it loads what its tiles index,
serial axes in full. Each block draws at most what an SM can; SMs without a block draw nothing. A block waits for what
it loads and for those that it joins sums with (`gpu_life`): many take turns on the places that the SMs have. Streams
are main memory, L2 and loads that wait for one another; chains what blocks compute (`gpu_elements`) and the waits that
no other block on their SM fills. The shorter of both shows once for as many turns as an SM takes.
"""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.design.cost.gpu_elements import of_products, work_of
from tilewright.design.cost.gpu_grid import Grid, grids, l2_bytes, parts_of, resident
from tilewright.design.cost.gpu_life import Life, life_of_products, life_of_rows
from tilewright.design.cost.gpu_rates import GpuRates, flops_per_cycle, has_wgmma, joined, powered, rates_of
from tilewright.design.cost.gpu_visited import there, uneven, visited
from tilewright.design.cost.program import Program
from tilewright.design.cost.roofline import Roofline
from tilewright.design.cost.term import Estimate, Term, largest
from tilewright.design.cost.usage import Usage
from tilewright.design.cost.waves import Waves, usable
from tilewright.design.cost.work import bytes_of, flops_of
from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.language import ir
from tilewright.machines.machine import Machine


def estimate_nests(
    program: Program, design: Design, facts: Facts, usage: Usage | None = None, *, last: bool = True
) -> Estimate:
    """Seconds of one call on `facts.machine` (kind nvidia), operands not in L2.

    `usage` is what the compiled kernel takes of an SM, where it is known.
    `last`: what it leaves in L2 is written back when nobody counts it any more; not so if a kernel follows at once.
    """
    rates, atom = rates_of(facts.machine), _atom(program, design, facts)
    dots = any(isinstance(let.expr, ir.Dot) for let in program.values.values())
    rowwise = last and not dots
    share = visited(program, design, facts)
    use = _use(grids(program, design, facts, share), resident(program, design, facts, usage), facts.machine)
    life = (life_of_rows if rowwise else life_of_products)(program, design, facts, rates)
    moved = there(program, facts) * bytes_of(program.kernel, facts.sizes)
    flops = share * (use.waste if atom != "fma" else 1.0) * flops_of(program.kernel, facts.sizes)
    memory, l2 = _streams(use, moved, facts.machine, rowwise, last)
    peak = flops_per_cycle(facts.machine, atom) * rates.clock
    busy = flops / (peak * facts.machine.cores * use.by_core.efficiency) if use.blocks else 0.0
    arithmetic = busy if atom == "fma" else powered(busy, rates)
    elements, beside = _elements(program, design, facts, use, share if dots else 0.0, atom)
    work = joined(arithmetic, elements)
    if rowwise:
        turns, dispatch, join = (use.waves - 1) * (life.fill + life.meets), use.blocks * rates.block_s, 0.0
        behind = _rows(use, life, joined(memory, l2), work, rates)
        seconds = rates.launch_s + beside + max(life.fill + life.meets + behind, dispatch)
    else:
        turns, dispatch = life.fill * max(0.0, use.blocks / (facts.machine.cores * use.places) - 1), 0.0
        # Parts of a range are joined by the last block: a fence, a ticket, and a look at what the others left.
        split = any(parts_of(program, nest, design, facts) > 1 for nest in program.nests)
        join = 3 * rates.latency_s if split else 0.0
        alone = life.walk * uneven(program, design, facts)
        walk = 0.0 if life.shows or alone else life.walk
        alone += life.shows * life.walk * use.active / max(1, use.blocks) if not alone else 0.0
        behind = _products(use, (memory, l2, walk), work, turns, last) + alone
        seconds = rates.launch_s + beside + life.fill + life.meets + join + behind
    terms = tuple(Term(name, value, "s") for name, value in (
        ("launch", rates.launch_s), ("fill", life.fill), ("meets", life.meets), ("walk", life.walk), ("memory", memory),
        ("L2", l2), ("arithmetic", arithmetic), ("elements", elements), ("beside", beside), ("turns", turns),
        ("dispatch", dispatch), ("join", join),
    ))  # fmt: skip
    roof = Roofline(flops, moved, peak * facts.machine.cores, rates.read)
    return Estimate(seconds, largest(terms), (*terms, *_counts(use, moved, roof)))


@dataclass(frozen=True)
class _Use:
    """How the blocks of all nests lie on the SMs: how many, bytes that they load and store and those stored, SMs that
    their clusters can fill, `places` for them on each, and what is computed over what is wanted."""

    blocks: int
    bytes: float
    stored: float
    cores: int
    places: int
    cluster: int
    waste: float

    @property
    def active(self) -> int:
        """SMs with a block."""
        return min(self.cores, self.blocks)

    @property
    def waves(self) -> int:
        """Rounds of blocks that are on the SMs together, the last counted whole."""
        return max(1, Waves(self.blocks, self.cores * self.places).count)

    @property
    def by_core(self) -> Waves:
        """Rounds of one block on each SM."""
        return Waves(self.blocks, self.cores)


def _use(found: list[Grid], places: int, machine: Machine) -> _Use:
    cluster = max((g.cluster for g in found), default=1)
    loaded, stored = (sum(g.blocks * n for g, n in zip(found, each, strict=True)) for each in (
        [g.bytes for g in found], [g.stored for g in found],
    ))  # fmt: skip
    waste = max((g.waste for g in found), default=1.0)
    blocks = sum(g.blocks for g in found)
    return _Use(blocks, loaded, stored, usable(machine.cores, cluster), places, cluster, waste)


def _counts(use: _Use, moved: float, roof: Roofline) -> tuple[Term, ...]:
    return (
        Term("memory bytes", moved, "byte"), Term("L2 bytes", use.bytes, "byte"), Term("blocks", use.blocks, "1"),
        Term("waves", use.by_core.count, "1"), Term("wave efficiency", use.by_core.efficiency, "1"),
        Term("blocks per SM", use.places, "1"), Term("cluster", use.cluster, "1"),
        Term("intensity", roof.intensity, "flop/byte"), Term("roofline", roof.seconds, "s at least"),
    )  # fmt: skip


def _rows(use: _Use, life: Life, streams: float, work: float, rates: GpuRates) -> float:
    """Seconds of rows behind the life of their first block.

    Blocks that began together wait together: of few on an SM, one's wait is not another's time to compute.
    """
    walks = joined(streams, use.waves * life.walk)
    chains = work + (use.waves - 1) * life.seconds * min(1.0, rates.in_step / use.places)
    turns = use.blocks / max(1, use.active) * life.steps
    return max(walks, chains) + min(walks, chains) / max(1.0, turns)


def _products(use: _Use, streams: tuple[float, ...], work: float, turns: float, last: bool) -> float:
    """Seconds of attention, or of a copy before a product, behind the life of its first block.

    The rates of products were fitted with copies before them whose parts are joined; by itself,
    turns hide behind the rest.
    Where an SM has place for one block only, nothing hides its turn.
    """
    waits, alone = (turns, 0.0) if use.places > 1 else (0.0, turns)
    if not last:
        return joined(*streams, work, waits) + alone
    return max(joined(*streams, work), waits) + alone


def _streams(use: _Use, moved: float, machine: Machine, rowwise: bool, last: bool) -> tuple[float, float]:
    """Seconds of main memory, and of what SMs draw from L2.

    Nobody waits for what is stored last: L2 keeps half of its bytes, as each half holds what the other one has; of rows
    no more than it held of others before, which goes first: a sixth of what is stored, and at most a fifth of L2.
    """
    rates, stored = rates_of(machine), min(use.stored, moved)
    drawn = use.active * min(rates.l2_bytes_per_cycle * rates.clock, rates.in_flight_bytes / rates.latency_s)
    if not drawn:
        return 0.0, 0.0
    kept = min(stored / 6, l2_bytes(machine) / 5) if rowwise else min(stored, l2_bytes(machine) / 2)
    written = stored - (kept if last else 0.0)
    # A copy moves as much each way: what it takes beyond reading is what writing takes.
    write = 1.0 / (2.0 / rates.copy - 1.0 / rates.read) if rates.read < rates.copy * 2 else rates.copy
    memory = (moved - stored) / rates.read + written / write
    return max(memory, (moved - stored + written) / drawn), use.bytes / drawn


def _elements(
    program: Program, design: Design, facts: Facts, use: _Use, share: float, atom: str
) -> tuple[float, float]:  # fmt: skip
    """Seconds of what is computed element by element, and of requests beside 16 bytes, on the SM that has most.

    `share` is the part of what products compute that is visited, 0 where there are none.
    """
    rates = rates_of(facts.machine)
    together = max(1, use.active) * rates.clock
    if share:
        return (share * use.waste * of_products(program, design, facts) / together if atom != "fma" else 0.0), 0.0
    work = work_of(program, design, facts)
    return work.cycles / (together * use.by_core.fullness), work.beside * rates.beside_cycles / together


def _atom(program: Program, design: Design, facts: Facts) -> str:
    """What does the arithmetic: the matrix unit only where dots have it."""
    if not any(isinstance(let.expr, ir.Dot) for let in program.values.values()):
        return "fma"
    return next((str(v) for _, v in design.prefixed("atom")), "wgmma" if has_wgmma(facts.machine) else "mma")


__all__ = ["estimate_nests"]
