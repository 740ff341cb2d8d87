"""Decoding a token of each sequence on dataflow chips: kernel by kernel, a kernel a layer, one for all layers."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.lower.dataflow.fit import check_fit
from tilewright.lower.dataflow.stages import lower_dataflow
from tilewright.machines.dataflow import DataflowArray
from tilewright.simulate.chips import collectives, looping
from tilewright.simulate.chips.collectives import Link
from tilewright.simulate.dataflow.decoder import REDUCED, decoder_program, sizes
from tilewright.simulate.dataflow.place import with_units
from tilewright.simulate.dataflow.schedule import Schedule
from tilewright.simulate.dataflow.timing import Piece, Timing
from tilewright.simulate.decoder import Decoder

KERNELS = 10
"""Kernels of a decoder layer where each operator is one: about what GPUs launch."""
OUTSIDE = 3
"""Kernels of a token outside the layers: the embedding, the head, and the choice of the token (Gandhi et al., 2026)."""
SYNC = looping.sync_of(2.12, 32, 1 / 774 / 32)
"""Seconds of a kernel call, not published: t_sync = 1.2 t_layer of the paper's example, t_layer by its roofline."""
LINK = Link(bandwidth=200e9, alpha=1e-6, base=2e-6)
"""Sockets to sockets: assumed, not published."""

FACTS = (
    f"{KERNELS} kernels a decoder layer where each operator is one, and four kernels a token with kernel looping: the "
    "embedding, all layers, the head, the choice of the token (Gandhi et al., MLSys 2026)",
    "T_loop = L t_layer + t_sync (Koeplinger et al., arXiv 2410.23668)",
)
ASSUMPTIONS = (
    "memory moves at its peak while it is asked",
    "sequences are as long as each other; every chip holds its share of heads and of the MLP's rows; weights and cache "
    "lie in HBM",
    "the output projection is computed by lanes and reduction trees, everything else that multiplies as a product",
    "the looped kernel holds each weight tile in memory units twice, so that loads run one layer ahead",
    "an all-reduce is the best of ring, tree and one-shot; it stops the layer, but not the loads that run ahead (it is "
    "published to stream beside the product before it; how much of it is hidden is not)",
    "kernel by kernel: loads and compute overlap within a kernel, not between kernels",
    "calls of the layers wait for each other, each for one t_sync; those outside the layers are queued beside them and "
    "cost none, as in the published formula",
)


@dataclass(frozen=True)
class Way:
    """One way to decode: seconds of a step, kernel calls, seconds of them, and of memory at its peak."""

    name: str
    calls: int
    seconds: float
    sync: float
    memory: float

    @property
    def bandwidth_share(self) -> float:
        """The part of peak bandwidth that is reached."""
        return self.memory / self.seconds


@dataclass(frozen=True)
class Decoding:
    """The three ways, the seconds of one all-reduce, and the schedule of the looped layers."""

    ways: tuple[Way, ...]
    all_reduce: float
    schedule: Schedule | None

    def way(self, name: str) -> Way:
        """The way called so."""
        return next(w for w in self.ways if w.name == name)


def decode(
    model: Decoder, array: DataflowArray, chips: int, *,
    context: int = 4096, batch: int = 1, link: Link = LINK, sync: float = SYNC,
) -> Decoding:  # fmt: skip
    """A token of each of `batch` sequences; IllegalDesign, with what to split, where the layers do not fit."""
    reduce = collectives.best(chips, batch * model.hidden * model.bytes, link)[1]
    one, all_layers = (_layers(model, array, chips, context, batch, n, reduce) for n in (1, model.layers))
    head_memory, head = _head(model, array, chips, batch)
    clock, count = array.clock_hz, model.layers
    memory = all_layers.memory_cycles / clock + head_memory
    busy = max(one.memory_cycles, one.flops / (2 * array.macs_per_cycle * array.compute_units))
    serial = (busy + KERNELS * array.latency) / clock + len(REDUCED) * reduce
    found = []
    for name, calls, layers in (
        ("kernel by kernel", count * KERNELS, count * serial),
        ("one kernel a layer", count, count * one.cycles / clock),
        ("looped", 1, all_layers.cycles / clock),
    ):
        called = calls * sync
        found.append(Way(name, calls + OUTSIDE, layers + head + called, called, memory))
    return Decoding(tuple(found), reduce, all_layers.schedule)


def _head(model: Decoder, array: DataflowArray, chips: int, batch: int) -> tuple[float, float]:
    """Seconds of memory for the matrix that gives logits, and of its product: whichever of the two takes longer."""
    memory = model.head_weights * model.bytes / chips / array.bandwidth
    macs = array.macs_per_cycle * array.compute_units * array.clock_hz
    return memory, max(memory, batch * model.head_weights / chips / macs)


def _layers(
    model: Decoder, array: DataflowArray, chips: int, context: int, batch: int, layers: int, reduce: float
) -> Piece:  # fmt: skip
    program, shares = decoder_program(), sizes(model, chips, context, layers, batch)
    design = with_units(program, shares, array, {})
    lowered = lower_dataflow(program, design, array.name)
    # The whole model is spread over the chips by `sizes`; the HBM of each must hold its share of all layers.
    check_fit(lowered, {**shares, "L": model.layers}, array)
    extra = dict.fromkeys(REDUCED, reduce * array.clock_hz)
    return Timing(lowered, shares, array, extra).whole()
