"""`tilewright bench rope`: rotary embedding forward and backward, by sequence length and head size.

Every contestant is checked against float64 before it is timed, both ways; all of a case are timed in the same rounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from tilewright.bench.peers import TORCH_DTYPES, keep_freed_memory
from tilewright.bench.peers import angles as angles_of
from tilewright.bench.result import Result, rounded
from tilewright.bench.rope_peers import EAGER, IN_PLACE, OURS, Contestant, contestants, in_place
from tilewright.errors import ArgumentError, MachineError, TilewrightError, VerificationError
from tilewright.language.dtypes import dtype
from tilewright.operators.operator import roundoff
from tilewright.runtime.cuda import measure as gpu
from tilewright.runtime.measure import Comparison, compare

FAMILY = "rope"
LENGTHS = (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
HEAD_DIMS = (64, 128, 256)
WAYS = ("forward", "backward")


@dataclass(frozen=True)
class RopeRequest:
    """x is [batch, length, heads, head_dim] of `dtype` on `device`; `seconds` for each comparison."""

    device: str = "cpu"
    lengths: tuple[int, ...] = LENGTHS
    head_dims: tuple[int, ...] = HEAD_DIMS
    batch: int = 1
    heads: int = 32
    dtype: str = "f32"
    threads: int = 1
    seconds: float = 1.0

    def check(self) -> None:
        """ArgumentError or MachineError for what cannot be measured."""
        if self.device not in ("cpu", "cuda"):
            raise ArgumentError(f"--device {self.device}: choose cpu or cuda")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise MachineError("--device cuda: torch finds no GPU here; use --device cpu")
        if self.dtype not in TORCH_DTYPES:
            raise ArgumentError(f"--dtype {self.dtype}: choose one of {', '.join(TORCH_DTYPES)}")
        if min(*self.lengths, self.batch, self.heads, 1) < 1 or any(d < 2 or d % 2 for d in self.head_dims):
            raise ArgumentError("lengths, batch and heads are at least 1, head dims even and at least 2")


def measure(request: RopeRequest) -> Iterator[Result]:
    """A result for each case and way, as they come; a case that fails says why and the others go on."""
    request.check()
    keep_freed_memory()
    torch.set_num_threads(request.threads)
    everyone = contestants(request.device)
    for size in request.head_dims:
        for length in request.lengths:
            yield from _case(request, everyone, length, size)


def _case(request: RopeRequest, everyone: dict[str, Contestant], length: int, size: int) -> Iterator[Result]:
    torch._dynamo.reset()  # what it compiles is for one size: it would give up after some
    x, cos, sin, dy = operands(request, length, size)
    name = f"{request.batch}x{length}x{request.heads}x{size} {request.dtype}"
    ways = {"forward": _forward, "backward": _backward}
    for way, prepare in ways.items():
        label = f"{name} {way}"
        timing = _OnGpu(request) if request.device == "cuda" else _OnCpu(request)
        try:
            with timing.place():
                calls = {who: prepare(rope, x, cos, sin, dy) for who, rope in everyone.items()}
                for who, rope in in_place(request.device, way).items():
                    calls[who] = prepare(rope, x.detach().clone().requires_grad_(), cos, sin, dy.clone())
                errors = {who: checked(label, who, call(), way, x, cos, sin, dy) for who, call in calls.items()}
                host = timing.host_us(calls)
            comparison = timing.compare(calls)
        except (TilewrightError, RuntimeError) as error:
            yield Result(FAMILY, label, request.threads, error=f"{type(error).__name__}: {error}")
            continue
        facts = {"length": length, "head_dim": size, **host}
        yield _result(label, request, comparison, errors, 2 * x.numel() * x.element_size(), facts)


def _result(
    name: str,
    request: RopeRequest,
    comparison: Comparison,
    errors: dict[str, float],
    moved: int,
    facts: Mapping[str, float],
) -> Result:
    ours = comparison.median_ns(OURS)
    values = {**facts, "us": ours / 1e3, "gb_per_s": moved / ours, "noise": comparison.noise}
    for who in comparison.order:
        if who != OURS:
            values[f"ratio {who}"] = comparison.ratio(who, to=OURS).median
            values[f"us {who}"] = comparison.median_ns(who) / 1e3
    raw = {**comparison.to_json(), "errors": rounded(errors), "device": request.device}
    return Result(FAMILY, name, request.threads, rounded(values), raw)


def operands(request: RopeRequest, length: int, size: int) -> tuple[Any, Any, Any, Any]:
    """x, cos, sin and dy, the gradient that comes in; seeded by the case."""
    generator = torch.Generator(request.device).manual_seed(1000 * size + length)
    element = TORCH_DTYPES[request.dtype]
    shape = (request.batch, length, request.heads, size)
    x, dy = (torch.empty(shape, dtype=element, device=request.device).normal_(generator=generator) for _ in range(2))
    tables = angles_of(length, size, element)
    return x.requires_grad_(), tables["cos"].to(request.device), tables["sin"].to(request.device), dy


def _forward(rope: Contestant, x: Any, cos: Any, sin: Any, dy: Any) -> Callable[[], Any]:
    def call() -> Any:
        with torch.no_grad():
            return rope(x, cos, sin)

    return call


def _backward(rope: Contestant, x: Any, cos: Any, sin: Any, dy: Any) -> Callable[[], Any]:
    """The way back through a graph that is made once."""
    y = rope(x, cos, sin)

    def call() -> Any:
        return torch.autograd.grad(y, x, dy, retain_graph=True)[0]

    return call


def checked(label: str, who: str, actual: Any, way: str, x: Any, cos: Any, sin: Any, dy: Any) -> float:
    """The largest error as a share of what is allowed; VerificationError beyond it.

    Allowed: four roundings of each element's two terms. Eager torch rounds both products and the sum to the element
    type, and its tables may be rounded once more; ours rounds once.
    """
    source, sign = (x.detach(), 1.0) if way == "forward" else (dy, -1.0)
    worst = 0.0
    unit = 4 * roundoff(dtype(str(actual.dtype).removeprefix("torch.")))
    for part in range(source.shape[0]):  # one sequence at a time: float64 takes room
        a, c, s = source[part].double(), cos.double()[:, None], sign * sin.double()[:, None]
        half = a.shape[-1] // 2
        crossed = torch.cat((-a[..., half:], a[..., :half]), dim=-1)
        bound = unit * ((a * c).abs() + (crossed * s).abs()) + 1e-37
        share = ((actual[part].double() - (a * c + crossed * s)).abs() / bound).max().item()
        worst = max(worst, math.inf if math.isnan(share) else share)
    if worst > 1:
        raise VerificationError(f"{label}: {who} is {worst:.3g} times the bound away from float64")
    return worst


class _OnCpu:
    """Calls timed as they are."""

    def __init__(self, request: RopeRequest) -> None:
        self.request = request

    def place(self) -> AbstractContextManager[object]:
        """Where calls are made."""
        return nullcontext()

    def host_us(self, _calls: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
        """What calls cost the host, where that is not all that they cost."""
        return {}

    def compare(self, calls: Mapping[str, Callable[[], Any]]) -> Comparison:
        """Side by side."""
        return compare(calls, seconds=self.request.seconds, min_rounds=6)


class _OnGpu(_OnCpu):
    """Calls timed as replays of CUDA graphs, so that no host's pace is in a time; what they cost it stands apart."""

    def __init__(self, request: RopeRequest) -> None:
        super().__init__(request)
        self.stream = torch.cuda.Stream()

    def place(self) -> AbstractContextManager[object]:
        """A stream of its own: autograd goes back on it."""
        self.stream.wait_stream(torch.cuda.current_stream())
        place: AbstractContextManager[object] = torch.cuda.stream(self.stream)
        return place

    def host_us(self, calls: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
        """Microseconds of the host for each call."""
        return {f"host us {who}": gpu.host_us(call) for who, call in calls.items()}

    def compare(self, calls: Mapping[str, Callable[[], Any]]) -> Comparison:
        """Side by side."""
        torch.cuda.synchronize()
        graphs = {who: gpu.captured(call, self.stream) for who, call in calls.items()}
        return gpu.compare(graphs, rounds=max(20, int(40 * self.request.seconds)))


def profile(request: RopeRequest, length: int = 2048, size: int = 128) -> str:
    """torch.profiler's table of one forward and backward pass of each contestant."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    x, cos, sin, dy = operands(request, length, size)
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if request.device == "cuda" else [])]
    pages = []
    for who, rope in contestants(request.device).items():
        rope(x, cos, sin).backward(dy)
        with profiler(activities=kinds) as seen:
            for _ in range(3):
                rope(x, cos, sin).backward(dy)
        key = "self_cuda_time_total" if request.device == "cuda" else "self_cpu_time_total"
        pages.append(f"{who}: 3 passes\n{seen.key_averages().table(sort_by=key, row_limit=12)}")
    return "\n\n".join(pages) + "\n"


__all__ = ["EAGER", "FAMILY", "HEAD_DIMS", "IN_PLACE", "LENGTHS", "OURS", "WAYS", "RopeRequest", "measure", "profile"]
