"""The figures of docs/machines.md, as charts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from tilewright.machines.dataflow import DataflowArray
from tilewright.machines.machine import Machine
from tilewright.simulate.chips.plan import Chip
from tilewright.simulate.chips.scaling import Scaling, scaling
from tilewright.simulate.dataflow.decoding import LINK, SYNC
from tilewright.simulate.decoder import DECODERS
from tilewright.simulate.kinds import simulate
from tilewright.simulate.simulation import Chart, Job, Series, Simulation
from tilewright.simulate.systolic.run import batches

SIZES = {"M": 512, "N": 1024, "K": 1024}
MACHINES = ("systolic:32x32:ws", "systolic:128x128:os", "tpu-v1", "sn40l", "h200")
MODEL = "llama-3.1-8b"
BATCHES, CONTEXTS = "1,2,4,8,16,32,64", "1024,8192"
SHARED = (("sn40l", "8"), ("h200", "1"))
"""Machines of the sweep, and how many of each."""


@cache
def products() -> list[Simulation]:
    """The matmul of the page on every machine."""
    return [replace(simulate(Job("matmul", Machine.named(n), SIZES)), machine=n) for n in MACHINES]


@cache
def looped(chips: int) -> Simulation:
    """The model's layers as one kernel, and the other ways, on so many sockets."""
    return simulate(Job(MODEL, Machine.named("sn40l"), chips=chips))


@cache
def grown(batch: int) -> Scaling:
    """The model on more and more sockets."""
    machine = Machine.named("sn40l")
    array = DataflowArray.of(machine)
    chip = Chip(machine.peak("bf16") or 0.0, array.bandwidth, array.memory_bytes, SYNC)
    return scaling(DECODERS[MODEL], chip, LINK, batch=batch, context=4096, kernels=0)


def figures() -> Iterator[tuple[str, Chart]]:
    """Each figure by the name of its file."""
    yield "machines-parts", _parts()
    yield "machines-batch", _batches()
    yield "machines-matmul-timeline", next(p for p in products() if p.machine == "sn40l").charts[0]
    yield "machines-decoder-timeline", looped(8).charts[-1]
    yield "machines-sweep", _sweep()
    yield "machines-chips", next(c for c in grown(1).charts() if c.title.startswith("tensor"))
    yield "machines-thousands", _thousands()


def _parts() -> Chart:
    told = products()
    names = dict.fromkeys(p.name for each in told for p in each.parts)
    labels = tuple(each.machine.removeprefix("systolic:") for each in told)
    series = []
    for name in names:
        shares = [sum(p.seconds for p in each.parts if p.name == name) / each.seconds for each in told]
        series.append(Series(name, labels, tuple(100 * s for s in shares)))
    return Chart("where the time of one matmul goes", "", "% of the time", tuple(series), kind="stacked")


def _batches() -> Chart:
    arrays = [n for n in MACHINES if Machine.named(n).kind == "systolic"]
    charts = [batches(Job("matmul", Machine.named(n), SIZES)) for n in arrays]
    return replace(charts[0], series=tuple(c.series[0] for c in charts))


def _sweep() -> Chart:
    """Tokens a second against batch, by machine and context."""
    options, lines = {"batch": BATCHES, "context": CONTEXTS}, []
    for name, chips in SHARED:
        told = simulate(Job(MODEL, Machine.named(name), chips=int(chips), options=options))
        lines += [replace(s, name=f"{chips} x {name}, {s.name}") for s in told.charts[0].series]
    return replace(told.charts[0], title=f"decoding {MODEL}", series=tuple(lines))


def _thousands() -> Chart:
    """Tokens a second against chips, on paper: few sequences and many."""
    lines = []
    for batch in (1, 4096):
        chart = grown(batch).charts()[-1]
        lines += [replace(s, name=f"{s.name}, batch {batch}") for s in chart.series]
    return replace(chart, title=f"{MODEL} on SN40L sockets, on paper (context 4096)", series=tuple(lines))


__all__ = ["CONTEXTS", "MACHINES", "MODEL", "SIZES", "figures", "grown", "looped", "products"]
