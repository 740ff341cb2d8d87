"""The model of products of few rows, operands straight to registers: the time of the weights, and what spoils it.

    seconds = launch + first bytes + |weights at the rate of memory, x from L2, instructions| + the last results

Weights come at the rate at which memory is read, less what is lost where accesses are short, where few blocks share an
SM (the next begins when the last has gone), and where SMs get unequal shares. Fitted to probes on an H200 (note 0019).
"""

from __future__ import annotations

import math

from tilewright.design.cost.gpu_rates import GpuRates, joined, rates_of
from tilewright.design.cost.occupancy import blocks_per_sm, limits_of
from tilewright.design.cost.roofline import Roofline
from tilewright.design.cost.term import Estimate, Term, largest
from tilewright.design.cost.usage import Usage
from tilewright.design.cost.work import bytes_of
from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.gpu.product import Product
from tilewright.design.gpu.straight import Straight
from tilewright.language import ir

_SETUP = 0.7e-6  # seconds that other kernels take for barriers and descriptors
_STREAM = 1.04  # of the read rate, for a stream that nothing else disturbs
_SHORT = {"fma": 1.0, "mma": 0.92}  # of it, by accesses of 512 bytes of a row, and of 64
_ALONE = 0.28  # of it that is lost where one block has an SM to itself, and the next begins after it
_UNEQUAL = 0.5  # of the time that the fullest SM takes longer than all on average, that the others do not make up
_HIT, _HELD = 0.5, 64 << 10  # of what blocks read of x, that an SM has from another block, while it is so many bytes
_NARROW = {"fma": 1.0, "mma": 2.0}  # times as long do reads of x from L2 take, by rows and by 64 bytes of eight rows
_STEP, _LONGEST, _COLUMN = 0.3e-6, 1e-6, 0.05e-6  # seconds by which the last blocks end later: steps, columns of a warp
_STALLS = 1.35  # times as long as if every cycle issued
_SPARE = 16


def estimate_straight(
    kernel: ir.Kernel, p: Product, design: Design, facts: Facts, usage: Usage | None = None
) -> Estimate:
    """Seconds of one call, operands not in L2; `usage` is what the compiled kernel takes."""
    s, rates, sms = Straight(p, design, facts), rates_of(facts.machine), facts.machine.cores
    compulsory = float(bytes_of(kernel, facts.sizes))
    blocks, resident = _blocks(s), _resident(s, usage)
    share = blocks / sms
    unequal = 1.0 + _UNEQUAL * (math.ceil(share) / share - 1.0)
    lost = _ALONE / resident**2 if blocks > sms * resident else 0.0
    flying = min(1.0, s.flying * min(resident, math.ceil(share)) / (rates.read * rates.latency_s / sms))
    weights = 1.0 * p.size(p.n, facts) * p.size(p.k, facts) * p.itemsize * s.weights
    again = weights * (-(-p.size(p.m, facts) // s.tile(p.m.name)) - 1)  # by tiles of other rows, which come later
    memory = (compulsory + again) * unequal / (rates.read * _STREAM * _SHORT[s.atom] * (1.0 - lost) * flying)
    x = 1.0 * min(s.tile(p.m.name), p.size(p.m, facts)) * p.size(p.k, facts) * p.itemsize
    of_x = blocks * x * (1.0 - _HIT * min(1.0, _HELD / x))
    l2 = of_x * _NARROW[s.atom] / (rates.l2_bytes_per_cycle * rates.clock * min(sms, blocks))
    issue = _issue(s, rates) * unequal
    roof = Roofline(2.0 * p.size(p.m, facts) * p.size(p.n, facts) * p.size(p.k, facts), compulsory, 1e15, rates.read)
    last = min(_LONGEST, _STEP * (_steps(s) - 1)) + _COLUMN * s.fragments[1]
    overlapping = (Term("memory", memory, "s"), Term("L2", l2, "s"), Term("issue", issue, "s"))
    alone = (Term("launch", rates.launch_s - _SETUP, "s"), Term("fill", rates.latency_s + rates.drain_s, "s"))
    terms = (*alone, *overlapping, Term("join", last, "s"))
    counts = (
        Term("memory bytes", compulsory, "byte"), Term("L2 bytes", of_x, "byte"), Term("blocks", blocks, "1"),
        Term("waves", blocks / (sms * resident), "1"), Term("blocks per SM", resident, "1"),
        Term("intensity", roof.intensity, "flop/byte"), Term("roofline", roof.seconds, "s at least"),
    )  # fmt: skip
    seconds = sum(t.value for t in alone) + joined(memory, l2, issue) + last
    return Estimate(seconds, largest(terms), (*terms, *counts))


def _blocks(s: Straight) -> int:
    p, f = s.product, s.facts
    each = math.prod(f.sizes.get(a.over, 1) for a in p.each)
    return each * math.prod(-(-p.size(a, f) // s.tile(a.name)) for a in (p.m, p.n))


def _steps(s: Straight) -> int:
    """Times that a warp asks for all that its registers hold."""
    return -(-s.product.size(s.product.k, s.facts) // (s.tile(s.product.k.name) * s.along))


def _resident(s: Straight, usage: Usage | None) -> int:
    """Blocks that an SM holds at once."""
    if usage is not None:
        return max(1, usage.resident(s.facts.machine))
    asked = s.design.number("resident", 1)
    most = 65536 // (32 * s.warps * asked) // 8 * 8
    registers = min(most, 255, max(32, s.registers + _SPARE))
    held = s.shared_bytes if s.stages else 0
    return max(1, asked, blocks_per_sm(limits_of(s.facts.machine), 32 * s.warps, registers, held))


def _issue(s: Straight, rates: GpuRates) -> float:
    """Seconds of the instructions of one SM: an access for 512 bytes of weights, and what it feeds."""
    p, f = s.product, s.facts
    rows, columns, _ = s.fragments
    accesses = 1.0 * p.size(p.n, f) * p.size(p.k, f) * p.itemsize * s.weights / (32 * 16 * f.machine.cores)
    # Elements widened, x once for all rows of the weights, and products; or registers of x in order, and products.
    by_fma, by_mma = s.run + rows * (s.run / columns + s.run), 4.0 + rows * (12.0 / columns + 4.0)
    each = by_fma if s.atom == "fma" else by_mma
    reads = 4.0 * (1 + rows * (1 if s.atom == "fma" else 2) / columns)  # cycles of L1, at 128 bytes each
    return accesses * _STALLS * max((6.0 + each) / 4.0, reads) / rates.clock


__all__ = ["estimate_straight"]
