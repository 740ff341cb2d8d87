"""`tilewright simulate` for NVIDIA GPUs: steps of models by name on one or more of them, and single operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from tilewright.design.cost.gpu_rates import rates_of
from tilewright.errors import ArgumentError
from tilewright.machines.machine import Machine
from tilewright.operators import OPERATORS
from tilewright.runtime.compiled import check_sizes, dtypes_of
from tilewright.runtime.subject import program_named
from tilewright.simulate.chips.collectives import Link
from tilewright.simulate.chips.plan import Chip
from tilewright.simulate.chips.scaling import Scaling, scaling
from tilewright.simulate.decoder import DECODERS, Decoder
from tilewright.simulate.gpu.calls import Call, Step, calls
from tilewright.simulate.gpu.parallel import collective_seconds, link_of
from tilewright.simulate.gpu.step import LAUNCHES, Timed, call_timed, step_seconds, timed
from tilewright.simulate.simulation import Chart, Job, Part, Series, Simulation, Value, design_given
from tilewright.simulate.sweep import numbers

OPTIONS = ("batch", "context", "phase", "tokens", "launch", "all_reduce_us")
PHASES = ("decode", "prefill")
ASSUMPTIONS = (
    "Each operator runs under its default design, with its operands not in L2.",
    "Rates that the machine's description does not state are those measured on an H200.",
    "Operators and whole steps of decoding were compared with measurements on an H200; steps of prompts were not.",
    "In a graph a kernel that does nothing takes 1.08 us, as measured; that the host waits 10 us for a token is not.",
)
PARALLEL = (
    "Several GPUs are tensor parallel: heads, rows of the MLP and of the vocabulary are dealt, other operators are "
    "repeated.",
    "Collectives are rings that nothing overlaps, at the latency and bandwidth measured on 8 H200s (calls from the "
    "host; in a graph they take less: --set all_reduce_us=15), scaled by the GPU's own NVLink.",
)
KERNELS = 8
"""Kernels of a layer, as `calls` counts them."""


def simulate(job: Job) -> Simulation:
    """A model's step, or one operator at `job.sizes`.

    Options of models: `batch` (1), `context` (1024), `phase` (decode, or prefill: a prompt of `tokens`, all of the
    context unless given), `launch` (graph, alone), `all_reduce_us` (latency over 8 GPUs). ArgumentError for what is
    unknown or impossible.
    """
    _refuse(job)
    return _model_step(job, DECODERS[job.program]) if job.program in DECODERS else _operator(job)


def _refuse(job: Job) -> None:
    if job.program not in DECODERS:
        _refuse_operator(job)
        return
    if job.sizes:
        raise ArgumentError(f"{job.program} takes no sizes ({', '.join(job.sizes)}); give --batch and --context")
    for name in job.options:
        if name not in OPTIONS:
            raise ArgumentError(_unknown("option", name, OPTIONS))
    if job.options.get("phase", "decode") not in PHASES:
        raise ArgumentError(_unknown("phase", job.options["phase"], PHASES))
    if job.options.get("launch", "graph") not in LAUNCHES:
        raise ArgumentError(_unknown("launch", job.options["launch"], LAUNCHES))


def _refuse_operator(job: Job) -> None:
    if job.program not in OPERATORS and ":" not in job.program:
        raise ArgumentError(_unknown("program", job.program, (*DECODERS, *OPERATORS)))
    if other := [name for name in job.options if name != "design"]:
        raise ArgumentError(
            f"{', '.join(other)}: for models ({', '.join(DECODERS)}) only; an operator takes --set design=JSON"
        )
    if job.chips != 1:
        raise ArgumentError(f"--chips {job.chips}: an operator runs on one GPU; models ({', '.join(DECODERS)}) on many")


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, 3, 0.4) or known
    return f"no {what} {name!r} is known for GPUs; use {' or '.join(near)}"


def _number(job: Job, name: str, default: int) -> int:
    found = numbers(name, job.options.get(name, str(default)))
    if len(found) > 1:
        raise ArgumentError(f"{name}={job.options[name]}: one number; lists are for batch and context")
    return found[0]


def _step(job: Job, model: Decoder) -> Step:
    prompt = _number(job, "tokens", 1) if job.options.get("phase") == "prefill" else 1
    batch, context = _number(job, "batch", 1), _number(job, "context", max(1024, prompt))
    if context > model.context:
        raise ArgumentError(f"context={context}: {job.program} holds {model.context} tokens; ask for fewer")
    if job.options.get("phase") != "prefill":
        if "tokens" in job.options:
            raise ArgumentError("tokens is of a prompt; add phase=prefill")
        return Step(batch, 1, context)
    tokens = _number(job, "tokens", context)
    if batch != 1:
        raise ArgumentError(f"prompts pass one by one: batch={batch}; set batch=1")
    if tokens > context:
        raise ArgumentError(f"{tokens} tokens of a prompt do not fit context={context}; set context={tokens}")
    return Step(batch, tokens, context)


def _link(job: Job) -> Link | None:
    """How the GPUs of a job reach each other; None for one GPU that has no link."""
    given = job.options.get("all_reduce_us")
    try:
        latency = None if given is None else float(given) * 1e-6
    except ValueError:
        raise ArgumentError(f"all_reduce_us={given!r} is no number; write microseconds: all_reduce_us=15") from None
    if latency is not None and latency < 0:
        raise ArgumentError(f"all_reduce_us={given}: give 0 or more")
    if job.chips == 1 and "link_bytes_per_s" not in dict(job.machine.limits):
        return None
    return link_of(job.machine, latency)


# ------------------------------------------------------------------------------------------------- one step
@dataclass(frozen=True)
class _Made:
    """A step with its times: of one GPU's operators, and of what the GPUs tell each other."""

    step: Step
    ops: list[Timed]
    launches: float
    wait: float
    collectives: float

    @property
    def seconds(self) -> float:
        return sum(op.total for op in self.ops) + self.launches + self.wait + self.collectives

    def total(self) -> dict[str, float]:
        """Operations, bytes and seconds at least, of all calls on one GPU."""
        return {
            "flops": sum(op.call.count * op.work.flops for op in self.ops),
            "bytes": sum(op.call.count * float(op.work.bytes) for op in self.ops),
            "least": sum(op.call.count * op.roofline for op in self.ops),
        }


def _model_step(job: Job, model: Decoder) -> Simulation:
    step, link, share = _step(job, model), _link(job), model.share(job.chips)
    ops = [timed(call, job.machine) for call in calls(share, step, job.dtype or "bf16")]
    _, launches, wait = step_seconds(ops, job.machine, job.options.get("launch", "graph"))
    told = 0.0 if link is None else collective_seconds(model, step, job.chips, link)
    made = _Made(step, ops, launches, wait, told)
    parts = (*_parts(ops), Part("launches", launches), Part("synchronisation", wait))
    parts = (*parts, Part("collectives", told)) if job.chips > 1 else parts
    peak = job.machine.peak(job.dtype or "bf16")
    used = made.total()["flops"] / made.seconds / peak if peak else None
    grown = None if link is None or step.tokens > 1 else _scaling(job, model, step, link)
    bars = Series("us", tuple(p.name for p in parts), tuple(1e6 * p.seconds for p in parts))
    chart = Chart(f"{job.program} on {job.machine.name}: a step", "", "us", (bars,), kind="bar")
    return Simulation(
        job.program, job.machine.name, _sizes(job, step), made.seconds, None, used, parts,
        tuple(_row(op, job) for op in ops), _step_numbers(job, model, made, grown),
        (*ASSUMPTIONS, *(PARALLEL if job.chips > 1 else ())),
        (chart, *(grown.charts() if grown is not None and job.chips > 1 else ())),
    )  # fmt: skip


def _sizes(job: Job, step: Step) -> tuple[tuple[str, int], ...]:
    sizes = (("batch", step.batch), ("tokens", step.tokens), ("context", step.context))
    return (("chips", job.chips), *sizes) if job.chips > 1 else sizes


def _step_numbers(
    job: Job, model: Decoder, made: _Made, grown: Scaling | None
) -> tuple[tuple[str, Value, str], ...]:  # fmt: skip
    """What is worth knowing of a step; operations, bytes and rooflines are those of each GPU."""
    step, seconds, total = made.step, made.seconds, made.total()
    return (
        ("tokens per second", step.batch * step.tokens / seconds, "1/s"),
        ("seconds per token and sequence", seconds / step.tokens, "s"),
        ("kernels", sum(op.call.count for op in made.ops), "1"),
        ("operations", total["flops"], "flop"), ("bytes", total["bytes"], "byte"),
        ("bandwidth", total["bytes"] / seconds, "byte/s"), ("roofline", total["least"], "s at least"),
        ("share of the roofline", total["least"] / seconds, "1"),
        *_memory(job.machine, model.share(job.chips), step),
        *(grown.numbers() if grown is not None and job.chips > 1 else ()),
    )  # fmt: skip


def _parts(ops: Sequence[Timed]) -> list[Part]:
    """Seconds by role; the last layer of a prompt is added to the others."""
    totals: dict[str, float] = {}
    for op in ops:
        totals[op.call.role] = totals.get(op.call.role, 0.0) + op.total
    return [Part(role, seconds) for role, seconds in totals.items()]


def _memory(machine: Machine, share: Decoder, step: Step) -> list[tuple[str, Value, str]]:
    """What weights and cache take of a GPU, and whether it holds them."""
    weights, cache = 2.0 * share.parameters, float(step.batch * share.layers * share.cache_bytes(step.context))
    room = machine.memory.bytes
    fits = room is None or weights + cache <= room
    return [("weights", weights, "byte"), ("keys and values", cache, "byte"), ("fits the memory", fits, "")]


def _scaling(job: Job, model: Decoder, step: Step, link: Link) -> Scaling:
    rates, room = rates_of(job.machine), float(job.machine.memory.bytes or 0)
    chip = Chip(job.machine.peak(job.dtype or "bf16") or 1.0, rates.read, room, rates.next_launch_s)
    return scaling(model, chip, link, batch=step.batch, context=step.context, kernels=KERNELS)


def _row(op: Timed, job: Job) -> Simulation:
    """One operator of a step: all its calls."""
    numbers = (
        ("calls", op.call.count, "1"), ("seconds of a call", op.seconds, "s"), ("bound", op.bound, ""),
        ("bytes of a call", float(op.work.bytes), "byte"), ("operations of a call", op.work.flops, "flop"),
        ("intensity", op.work.intensity, "flop/byte"), ("roofline of a call", op.roofline, "s at least"),
        ("blocks", op.estimate.value("blocks"), "1"), ("waves", op.estimate.value("waves"), "1"),
        ("design", op.design.to_json(), ""),
    )  # fmt: skip
    peak = job.machine.peak(job.dtype or "bf16")
    used = op.work.flops / op.seconds / peak if peak else None
    return Simulation(
        f"{op.call.role} ({op.call.operator})", job.machine.name, tuple(op.call.sizes.items()), op.total, None, used,
        (Part(op.bound, op.total),), (), numbers,
    )  # fmt: skip


# -------------------------------------------------------------------------------------------------- operators
def _operator(job: Job) -> Simulation:
    """One operator by itself, or a user's program: its launch is part of its time."""
    program = program_named(job.program)
    dtypes = {n: str(getattr(d, "name", d)) for n, d in dtypes_of(program, job.dtype or "bf16").items()}
    kernel = program.trace(dtypes)
    check_sizes(kernel, dict(job.sizes))
    call = Call(job.program, job.program, dict(job.sizes), 1, dtypes)
    op = call_timed(call, kernel, job.machine, design_given(job))
    launch = op.estimate.value("launch")
    row = _row(op, job)
    parts = (Part(op.bound, op.seconds), Part("launch", launch))
    bars = tuple(Series(p.name, (job.program,), (1e6 * p.seconds,)) for p in parts)
    chart = Chart(f"{job.program} on {job.machine.name}: where the time goes", "", "us", bars, kind="stacked")
    return Simulation(
        job.program, job.machine.name, row.sizes, op.estimate.seconds, None, row.utilisation, parts, (), row.numbers,
        ASSUMPTIONS, (chart,),
    )  # fmt: skip


__all__ = ["simulate"]
