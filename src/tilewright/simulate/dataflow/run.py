"""Programs and models on a dataflow machine: what `tilewright simulate ... --machine sn40l` runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tilewright.design.design import Design
from tilewright.design.legality import check
from tilewright.errors import ArgumentError
from tilewright.lower.dataflow.fit import check_fit
from tilewright.machines.dataflow import DataflowArray
from tilewright.simulate.chips import plan
from tilewright.simulate.chips.collectives import Link
from tilewright.simulate.chips.published import PUBLISHED, PUBLISHED_BYTES, roofline
from tilewright.simulate.chips.scaling import scaling
from tilewright.simulate.dataflow import decoding
from tilewright.simulate.dataflow.gantt import gantt
from tilewright.simulate.dataflow.judge import scheduled, subject_on
from tilewright.simulate.dataflow.place import completed
from tilewright.simulate.dataflow.values import quick, verified
from tilewright.simulate.decoder import DECODERS, Decoder
from tilewright.simulate.simulation import Job, Part, Simulation, Value, design_given, notes_of

if TYPE_CHECKING:
    from tilewright.simulate.dataflow.timing import Piece

MODEL_OPTIONS = {"context": "4096", "batch": "1", "sync_us": "", "alpha_us": "", "link_GBps": ""}


def simulate(job: Job) -> Simulation:
    """A model's decoding step over `chips`, or an operator on one chip with the default design of the machine."""
    array = DataflowArray.of(job.machine)
    if job.program in DECODERS:
        return _model(job, DECODERS[job.program], array)
    wanted = _wanted(job)
    if job.chips != 1:
        raise ArgumentError(f"--chips {job.chips}: operators run on one chip; models ({', '.join(DECODERS)}) on many")
    return _operator(job, array, wanted)


# ------------------------------------------------------------------------------------------- operators
OPTIONS = {
    "values": "yes, no or auto: whether stages are executed and their results checked (auto: where that is quick)",
    "design": "a design as JSON, such as tilewright design found, instead of the default one",
}
"""Options that an operator takes, and what each says."""


def _wanted(job: Job) -> str:
    """Whether values are wanted: yes, no, or auto."""
    for name, value in job.options.items():
        if name not in OPTIONS:
            known = "; ".join(f"{n}: {says}" for n, says in OPTIONS.items())
            raise ArgumentError(f"{job.program} has no option {name!r} here; there are {known}")
        if name == "values" and value not in ("yes", "no", "auto"):
            raise ArgumentError(f"values={value}: takes yes, no or auto")
    return job.options.get("values", "auto")


def _operator(job: Job, array: DataflowArray, wanted: str) -> Simulation:
    subject = subject_on(job.machine, job.program, job.sizes, job.dtype)
    given = check(subject.kernel, design_given(job) or Design(), subject.facts)
    design = completed(subject.kernel, job.sizes, array, given)
    timing = scheduled(subject, design)
    fit = check_fit(timing.kernel, job.sizes, array)
    span = timing.whole()
    run = wanted == "yes" or (wanted == "auto" and quick(timing, span.flops))
    if run:
        verified(subject, timing)
    seconds, memory = span.cycles / array.clock_hz, min(span.memory_cycles, span.cycles) / array.clock_hz
    peak = 2 * array.macs_per_cycle * array.compute_units
    numbers: list[tuple[str, Value, str]] = [
        ("compute units", fit.compute_units(), ""), ("memory units", fit.memory_units(array), ""),
        ("copies", fit.copies, ""), ("design", design.to_json(), ""),
        ("values", "computed in the order of the schedule, and right" if run else "not computed", ""),
    ]  # fmt: skip
    facts, assumed = notes_of(job.machine)
    return Simulation(
        job.program, array.name, tuple(job.sizes.items()), seconds, span.cycles,
        min(1.0, span.flops / (span.cycles * peak)) if span.cycles else None,
        (Part("main memory", memory), Part("stages beyond memory", seconds - memory)),
        numbers=(*numbers, *_schedule_numbers(span)),
        assumptions=("loops whose bounds are data are counted in full", *assumed), facts=facts,
        charts=() if span.schedule is None else (gantt(span.schedule, f"{job.program} on {array.name}"),),
    )  # fmt: skip


def _schedule_numbers(span: Piece) -> list[tuple[str, Value, str]]:
    if span.schedule is None:
        return []
    found: list[tuple[str, Value, str]] = [
        ("initiation interval", span.schedule.interval, "cycles"), ("critical stage", span.schedule.critical, "")
    ]  # fmt: skip
    for channel in span.schedule.pipeline.channels:
        if channel.depth is not None:
            most, mean = span.schedule.occupancy(channel)
            found.append((f"slots of {channel.name}", f"{most} of {channel.depth}, {mean:.2f} on average", ""))
    return found


# ---------------------------------------------------------------------------------------------- models
@dataclass(frozen=True)
class _Settings:
    """What a model's job asks for."""

    context: int
    batch: int
    link: Link
    sync: float


def _model(job: Job, model: Decoder, array: DataflowArray) -> Simulation:
    asked = _settings(job)
    found = decoding.decode(
        model, array, job.chips, context=asked.context, batch=asked.batch, link=asked.link, sync=asked.sync
    )
    looped = found.way("looped")
    chip = plan.Chip(job.machine.peak("bf16") or 0.0, array.bandwidth, array.memory_bytes, asked.sync)
    grown = scaling(model, chip, asked.link, batch=asked.batch, context=asked.context, kernels=0)
    charts = grown.charts()
    if found.schedule is not None:
        charts.append(gantt(found.schedule, f"{job.program}: layers in one kernel"))
    rate: tuple[str, Value, str] = ("tokens per second", asked.batch / looped.seconds, "1/s")
    roofs = _roofs(model, array, job.chips, asked)
    return Simulation(
        job.program, array.name, (("chips", job.chips), ("batch", asked.batch), ("context", asked.context)),
        looped.seconds, parts=_parts(looped), layers=tuple(_way(w, array, asked.batch) for w in found.ways),
        numbers=(rate, *_way_numbers(found, asked.batch), *roofs, *grown.numbers()),
        assumptions=_assumptions(job, asked), charts=tuple(charts),
        facts=(*notes_of(job.machine)[0], *decoding.FACTS),
    )  # fmt: skip


def _assumptions(job: Job, asked: _Settings) -> tuple[str, ...]:
    costs = (
        f"a kernel call takes {asked.sync * 1e6:.1f} us; a link moves {asked.link.bandwidth / 1e9:.0f} GB/s, "
        f"{asked.link.alpha * 1e6:.1f} us a step"
    )
    return (*decoding.ASSUMPTIONS, costs, *notes_of(job.machine)[1])


def _settings(job: Job) -> _Settings:
    unknown = sorted(set(job.options) - set(MODEL_OPTIONS))
    if unknown or job.sizes:
        wrong = ", ".join([*unknown, *job.sizes])
        known = ", ".join(n for n in MODEL_OPTIONS if n not in ("batch", "context"))
        raise ArgumentError(f"{job.program} does not take {wrong}; it takes --batch, --context, and --set {known}")
    try:
        given = {n: float(v) for n, v in {**MODEL_OPTIONS, **job.options}.items() if v}
    except ValueError as error:
        raise ArgumentError(f"{job.program}: {error}; the values of --set are numbers") from None
    bandwidth = given.get("link_GBps", decoding.LINK.bandwidth / 1e9) * 1e9
    link = Link(bandwidth, given.get("alpha_us", decoding.LINK.alpha * 1e6) / 1e6, decoding.LINK.base)
    sync = given.get("sync_us", decoding.SYNC * 1e6) / 1e6
    if min(given["context"], given["batch"]) < 1 or sync < 0:
        raise ArgumentError("context and batch are 1 or more, sync_us 0 or more")
    model = DECODERS[job.program]
    if given["context"] > model.context:
        raise ArgumentError(
            f"context={given['context']:.0f}: {job.program} holds {model.context} tokens; ask for fewer"
        )
    return _Settings(int(given["context"]), int(given["batch"]), link, sync)


def _way(way: decoding.Way, array: DataflowArray, batch: int) -> Simulation:
    """One way as a row of the comparison."""
    numbers: tuple[tuple[str, Value, str], ...] = (
        ("tokens per second", batch / way.seconds, "1/s"), ("kernel calls", way.calls, "a step"),
        ("of peak bandwidth", way.bandwidth_share, ""),
    )  # fmt: skip
    return Simulation(way.name, array.name, (), way.seconds, parts=_parts(way), numbers=numbers)


def _parts(way: decoding.Way) -> tuple[Part, ...]:
    rest = way.seconds - way.memory - way.sync
    return Part("main memory", way.memory), Part("kernel calls", way.sync), Part("fill, all-reduce, compute", rest)


def _way_numbers(found: decoding.Decoding, batch: int) -> list[tuple[str, Value, str]]:
    looped = found.way("looped")
    numbers: list[tuple[str, Value, str]] = []
    for way in found.ways:
        numbers.append((f"{way.name}", round(batch / way.seconds, 1), "tok/s"))
        numbers.append((f"{way.name}: of peak bandwidth", round(way.bandwidth_share, 4), ""))
        numbers.append((f"{way.name}: calls", way.calls, "a step"))
        if way is not looped:
            numbers.append((f"looped against {way.name}", round(way.seconds / looped.seconds, 2), "times"))
    return [*numbers, ("all-reduce", found.all_reduce * 1e6, "us")]


def _roofs(model: Decoder, array: DataflowArray, chips: int, asked: _Settings) -> list[tuple[str, Value, str]]:
    own = asked.batch * roofline(model.token_bytes(asked.context, asked.batch), chips * array.bandwidth)
    roofs: list[tuple[str, Value, str]] = [("roofline of this system", round(own, 1), "tok/s")]
    if model == DECODERS["llama-3.1-8b"] and (asked.batch, asked.context) == (1, 4096):
        roofs += [(f"published roofline, {p.system}", round(roofline(PUBLISHED_BYTES, p.bandwidth)), "tok/s")
                  for p in PUBLISHED]  # fmt: skip
    return roofs
