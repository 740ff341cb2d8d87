"""`tilewright simulate` for NVIDIA GPUs: steps of models by name, sweeps over batch and context, single operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from itertools import product

from tilewright.errors import ArgumentError
from tilewright.operators import OPERATORS
from tilewright.runtime.compiled import check_sizes, dtypes_of
from tilewright.simulate.decoder import DECODERS, Decoder
from tilewright.simulate.gpu.calls import Call, Step, calls
from tilewright.simulate.gpu.step import LAUNCHES, Timed, step_seconds, timed
from tilewright.simulate.simulation import Chart, Job, Part, Series, Simulation

OPTIONS = ("batch", "context", "phase", "tokens", "launch")
PHASES = ("decode", "prefill")
ASSUMPTIONS = (
    "Each operator runs under its default design, with its operands not in L2.",
    "Rates that the machine's description does not state are those measured on an H200.",
    "Products were compared with measurements on an H200; attention, row operators and launches in a graph were not.",
    "In a graph a kernel starts 2 us after the one before it, and the host waits 10 us for a token: not measured.",
)


def simulate(job: Job) -> Simulation:
    """A model's step, a sweep of steps (lists in `batch` and `context`), or one operator at `job.sizes`.

    Options: `batch` (1), `context` (1024), `phase` (decode, or prefill: a prompt of `tokens`, all of the context
    unless given), `launch` (graph, alone). ArgumentError for what is unknown or impossible.
    """
    _refuse(job)
    if job.program in OPERATORS:
        return _operator(job)
    if job.program not in DECODERS:
        raise ArgumentError(_unknown("program", job.program, (*DECODERS, *OPERATORS)))
    model = DECODERS[job.program]
    steps = [_step(job, model, b, c) for b, c in product(_numbers(job, "batch", 1), _numbers(job, "context", 1024))]
    made = [_model_step(job, model, s) for s in steps]
    return made[0] if len(made) == 1 else _sweep(job, steps, made)


def _refuse(job: Job) -> None:
    for name in job.options:
        if name not in OPTIONS:
            raise ArgumentError(_unknown("option", name, OPTIONS))
    if job.chips != 1:
        raise ArgumentError(f"chips={job.chips}: this model is of one GPU; leave --chips out")
    if job.options.get("phase", "decode") not in PHASES:
        raise ArgumentError(_unknown("phase", job.options["phase"], PHASES))
    if job.options.get("launch", "graph") not in LAUNCHES:
        raise ArgumentError(_unknown("launch", job.options["launch"], LAUNCHES))


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, 3, 0.4) or known
    return f"no {what} {name!r} is known for GPUs; use {' or '.join(near)}"


def _numbers(job: Job, name: str, default: int) -> list[int]:
    text = job.options.get(name, str(default))
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise ArgumentError(f"{name}={text!r} is no list of numbers from 1 on; write {name}=1,8,64")
    return found


def _step(job: Job, model: Decoder, batch: int, context: int) -> Step:
    if context > model.context:
        raise ArgumentError(f"context={context}: {job.program} holds {model.context} tokens; ask for fewer")
    if job.options.get("phase") != "prefill":
        if "tokens" in job.options:
            raise ArgumentError("tokens is of a prompt; add phase=prefill")
        return Step(batch, 1, context)
    tokens = _numbers(job, "tokens", context)[0]
    if batch != 1 or tokens > context:
        raise ArgumentError(
            f"prompts pass one by one, within their context: batch={batch}, tokens={tokens}; set batch=1"
        )
    return Step(batch, tokens, context)


# ------------------------------------------------------------------------------------------------- one step
def _model_step(job: Job, model: Decoder, step: Step) -> Simulation:
    ops = [timed(call, job.machine) for call in calls(model, step, job.dtype or "bf16")]
    work, launches, wait = step_seconds(ops, job.machine, job.options.get("launch", "graph"))
    seconds = work + launches + wait
    parts = (*_parts(ops), Part("launches", launches), Part("synchronisation", wait))
    flops, moved = (sum(op.call.count * n for op, n in zip(ops, of, strict=True)) for of in _totals(ops))
    new = step.batch * step.tokens
    least = sum(op.call.count * op.roofline for op in ops)
    numbers = (
        ("tokens per second", new / seconds, "1/s"), ("seconds per token and sequence", seconds / step.tokens, "s"),
        ("kernels", sum(op.call.count for op in ops), "1"), ("operations", flops, "flop"), ("bytes", moved, "byte"),
        ("bandwidth", moved / seconds, "byte/s"), ("roofline", least, "s at least"),
        ("share of the roofline", least / seconds, "1"), ("weights", 2.0 * model.parameters, "byte"),
        *_memory(job, model, step),
    )  # fmt: skip
    sizes = (("batch", step.batch), ("tokens", step.tokens), ("context", step.context))
    bars = Series("seconds", tuple(p.name for p in parts), tuple(p.seconds for p in parts))
    chart = Chart(f"{job.program} on {job.machine.name}: a step", "operator", "seconds", (bars,), kind="bar")
    layers = tuple(_row(op, job) for op in ops)
    peak = job.machine.peak(job.dtype or "bf16")
    used = flops / seconds / peak if peak else None
    return Simulation(
        job.program, job.machine.name, sizes, seconds, None, used, parts, layers, numbers, ASSUMPTIONS, (chart,)
    )


def _totals(ops: Sequence[Timed]) -> tuple[list[float], list[float]]:
    return [op.work.flops for op in ops], [float(op.work.bytes) for op in ops]


def _parts(ops: Sequence[Timed]) -> list[Part]:
    """Seconds by role; the last layer of a prompt is added to the others."""
    totals: dict[str, float] = {}
    for op in ops:
        totals[op.call.role] = totals.get(op.call.role, 0.0) + op.total
    return [Part(role, seconds) for role, seconds in totals.items()]


def _memory(job: Job, model: Decoder, step: Step) -> list[tuple[str, float | bool, str]]:
    """What weights and cache take, and whether the GPU holds them."""
    cache = 4.0 * step.batch * step.context * model.layers * model.kv_heads * model.head_dim
    room = job.machine.memory.bytes
    fits = room is None or 2.0 * model.parameters + cache <= room
    return [("keys and values", cache, "byte"), ("fits the memory", fits, "")]


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
    parts = (Part(op.bound, op.total),)
    return Simulation(
        f"{op.call.role} ({op.call.operator})", job.machine.name, tuple(op.call.sizes.items()), op.total, None, used,
        parts, (), numbers,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- sweeps and operators
def _sweep(job: Job, steps: Sequence[Step], made: Sequence[Simulation]) -> Simulation:
    """Each step once; its lines are tokens a second over the batch, one for each context."""
    rates = [float(m.number("tokens per second")) for m in made]
    parts = tuple(Part(f"batch {s.batch}, context {s.context}", m.seconds) for s, m in zip(steps, made, strict=True))
    by_batch = len({s.batch for s in steps}) > 1
    lines: dict[int, list[tuple[float, float]]] = {}
    for s, rate in zip(steps, rates, strict=True):
        key, x = (s.context, s.batch) if by_batch else (s.batch, s.context)
        lines.setdefault(key, []).append((x, rate))
    names = ("context", "batch") if by_batch else ("batch", "context")
    series = tuple(
        Series(f"{names[0]} {key}", tuple(x for x, _ in points), tuple(y for _, y in points))
        for key, points in lines.items()
    )
    title = f"{job.program} on {job.machine.name}"
    chart = Chart(title, names[1], "tokens per second", series, log_x=True, log_y=True)
    numbers = tuple((f"tokens per second, {p.name}", rate, "1/s") for p, rate in zip(parts, rates, strict=True))
    seconds = sum(p.seconds for p in parts)
    return Simulation(
        job.program, job.machine.name, (), seconds, parts=parts, layers=tuple(made), numbers=numbers,
        assumptions=("The seconds of a sweep are those of each step once.", *ASSUMPTIONS), charts=(chart,),
    )  # fmt: skip


def _operator(job: Job) -> Simulation:
    """One operator by itself: its launch is part of its time."""
    program = OPERATORS[job.program].kernel
    dtypes = {n: str(getattr(d, "name", d)) for n, d in dtypes_of(program, job.dtype or "bf16").items()}
    check_sizes(program.trace(dtypes), dict(job.sizes))
    op = timed(Call(job.program, job.program, dict(job.sizes), 1, dtypes), job.machine)
    launch = op.estimate.value("launch")
    row = _row(op, job)
    parts: Mapping[str, float] = {op.bound: op.seconds, "launch": launch}
    return Simulation(
        job.program, job.machine.name, row.sizes, op.estimate.seconds, None, row.utilisation,
        tuple(Part(n, s) for n, s in parts.items()), (), row.numbers, ASSUMPTIONS,
    )  # fmt: skip


__all__ = ["simulate"]
