"""How fast one core of a CPU issues and moves: from the machine's description, else from stated defaults."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from tilewright.machines import bandwidth
from tilewright.machines.machine import Machine

LINE, PAGE = 64, 4096
"""Bytes of a cache line, and of the pages at whose ends prefetchers stop."""

WAYS = 8
"""Ways of the first two levels of cache: rows that start in one set share this many lines. Common; not probed."""

_CLOCK = 3.0e9  # Hz
_DRAM = 24e9  # bytes/s that one core reads, where nothing was measured
_DRAM_MORE = 1.8  # what several cores read together, over one
_STREAM = 0.9  # of that, for reads in step with stores around the caches
_L2_BYTES = 32.0  # bytes a cycle that one core draws from its second level
_L3_BYTES, _L3_SHARED = 24.0, 12.0  # from its third, alone and beside others (Zen 4: 85 GB/s; two together 96)
_L3_MESH = 10.0  # from a third level that all cores share by a mesh (Sapphire Rapids: 26 GB/s)
_PAGE_FOLLOWED, _PAGE_ANEW = 80e-9, 25e-9  # s: Zen 4 with several streams, Emerald Rapids (notes 0002)
_EVICTED = 9.8e-9  # s of a line written around the caches that has to leave L2 first (Emerald Rapids, notes 0002)
_FMA_LATENCY = 4.0
_PAIR_LATENCY = 6.0
_TILE_PRODUCT = 16.0  # cycles of a tile product (Intel 248966, chapter 20)


@dataclass(frozen=True)
class Rates:
    """One core: bytes are a cycle's unless a name says otherwise; `lanes` f32 fill a vector.

    A core loads as many whole vectors a cycle as it multiplies, stores half as many, and computes at most two whole
    vectors a cycle in all, one of which may be a shuffle. Narrower vectors issue at most twice as often. These hold
    within a fifth on the x86 cores of the last ten years; what a machine's atoms state comes first.
    """

    clock: float
    lanes: int
    registers: int
    fma: float  # whole vectors multiplied and added a cycle
    pairs: float  # the same for pairs of bf16
    tile: float  # cycles of a tile product
    width: float  # instructions a cycle
    latency: float  # cycles until a sum can be added to again
    pair_latency: float
    l1: int  # bytes
    l2: int
    l3: int
    l2_rate: float
    l3_rate: float
    page: float  # s until reads go on where a stream of them comes to another page, and prefetchers begin anew
    follows: bool  # whether prefetchers follow a lone stream to its next page
    memory: float  # bytes/s of all threads together, reads
    stream: float  # bytes/s of stores around the caches, reads in step with them
    evicted_s: float  # s of a line that is stored around the caches and has to leave L2; 0 where such lines stay there

    @property
    def vector_bytes(self) -> int:
        """Bytes of a vector register."""
        return 4 * self.lanes

    def slot(self, width: int, rate: float) -> float:
        """Cycles of an instruction on `width` lanes, where whole vectors issue at `rate` a cycle."""
        return max(width / self.lanes, 0.5) / rate

    def load(self, count: float) -> float:
        """Cycles of a load of `count` bytes."""
        return max(count / self.vector_bytes, 0.5) / self.fma

    def store(self, count: float) -> float:
        """Cycles of a store of `count` bytes."""
        return 2.0 * max(count / self.vector_bytes, 0.5) / self.fma


@lru_cache(maxsize=64)
def rates_of(machine: Machine, threads: int) -> Rates:
    """The rates of a core of `machine` while `threads` of its cores are busy."""
    vector = machine.vector
    assert vector is not None, f"{machine.name} is no CPU"
    lanes = vector.bits // 32
    flops = {a.name: a.flops_per_cycle for a in machine.atoms}
    known = bandwidth.remembered(machine, threads)
    memory = machine.memory
    default = _DRAM * (1 if threads == 1 else _DRAM_MORE)
    read = known.read if known else memory.read or memory.bandwidth or default
    stream = known.copy_nontemporal if known else memory.copy_nontemporal or _STREAM * read
    follows = bool(machine.habit("prefetches_across_pages"))
    fma = (flops.get("fma") or 4.0 * lanes) / (2.0 * lanes)
    return Rates(
        clock=machine.clock_hz or _CLOCK,
        lanes=lanes,
        registers=vector.registers,
        fma=fma,
        pairs=(flops.get("vdpbf16ps") or 4.0 * lanes) / (4.0 * lanes),
        tile=_TILE_PRODUCT if not flops.get("tdpbf16ps") else 2.0 * 16 * 16 * 32 / (flops["tdpbf16ps"] or 1.0),
        width=5.0,
        latency=_FMA_LATENCY,
        pair_latency=_PAIR_LATENCY,
        l1=machine.l1_bytes or 32 << 10,
        l2=machine.l2_bytes or 512 << 10,
        l3=machine.l3_bytes // max(1, threads),
        l2_rate=_L2_BYTES,
        page=_PAGE_FOLLOWED if follows else _PAGE_ANEW,
        follows=follows,
        l3_rate=_L3_MESH if not follows else _L3_BYTES if threads == 1 else _L3_SHARED,
        memory=read,
        stream=stream,
        evicted_s=0.0 if follows else _EVICTED,
    )
