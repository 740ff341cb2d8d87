"""What a search asks, is answered, and gives back: plain frozen data, and the protocol of an evaluator."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from tilewright.design.design import Design

Status = Literal["ok", "wrong", "crash", "hang", "illegal", "compile", "memory"]
Stopped = Literal["budget", "roofline", "target", "exhausted", "interrupted"]


@dataclass(frozen=True)
class Outcome:
    """What became of one candidate: `seconds` is None unless its status is ok.

    `samples` are seconds as measured, `noise` the spread that two measurements of one kernel would show, as a
    fraction of its time; `reason` says what was wrong. `code` names the machine code, where it is known: two designs of
    one code are one kernel.
    """

    status: Status
    seconds: float | None = None
    samples: tuple[float, ...] = ()
    noise: float = 0.0
    reason: str = ""
    code: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "status": self.status,
            "seconds": self.seconds,
            "samples": list(self.samples),
            "noise": self.noise,
            "reason": self.reason,
            "code": self.code,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Outcome:
        """What `to_dict` wrote; KeyError or ValueError for anything else."""
        seconds = None if data["seconds"] is None else float(data["seconds"])
        samples = tuple(map(float, data["samples"]))
        return cls(
            data["status"], seconds, samples, float(data["noise"]), str(data["reason"]), str(data.get("code", ""))
        )


@dataclass(frozen=True)
class Standing:
    """A finalist: `ratio` is the median of its seconds over those of the first finalist, within (low, high).

    `noise` is what the A/A control showed: how far from 1 the ratio of a kernel to itself came out.
    """

    design: Design
    seconds: float
    ratio: float
    low: float
    high: float
    noise: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; what is infinite, because the finalist failed, is None."""
        numbers = {n: getattr(self, n) for n in ("seconds", "ratio", "low", "high", "noise")}
        return {"design": self.design.to_json(), **{n: x if math.isfinite(x) else None for n, x in numbers.items()}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Standing:
        """What `to_dict` wrote; KeyError or ValueError for anything else."""
        numbers = {
            n: math.inf if data[n] is None else float(data[n]) for n in ("seconds", "ratio", "low", "high", "noise")
        }
        return cls(Design.from_json(data["design"]), **numbers)


@dataclass(frozen=True)
class Trial:
    """One candidate that was tried: what the model predicted, what was measured, and where it came from.

    `parent` is the hash of the design it was made from and `mutation` the change; both are None for what every search
    of the key tries. `at` is seconds since the search began, `met` the paired rounds that were held just before, by
    which it was decided what to try.
    """

    design: Design
    predicted: float
    outcome: Outcome
    parent: str | None = None
    mutation: str | None = None
    at: float = 0.0
    met: tuple[Standing, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "design": self.design.to_json(),
            "predicted": self.predicted,
            "outcome": self.outcome.to_dict(),
            "parent": self.parent,
            "mutation": self.mutation,
            "at": self.at,
            "met": [s.to_dict() for s in self.met],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Trial:
        """What `to_dict` wrote; KeyError or ValueError for anything else."""
        return cls(
            Design.from_json(data["design"]), float(data["predicted"]), Outcome.from_dict(data["outcome"]),
            data["parent"], data["mutation"], float(data["at"]), tuple(map(Standing.from_dict, data.get("met", ()))),
        )  # fmt: skip


class Evaluator(Protocol):
    """What measures: it compiles, verifies and times, and never raises for a bad candidate."""

    def evaluate(self, designs: Sequence[Design]) -> list[Outcome]:
        """An outcome for each design, in order."""
        ...

    def compare(self, designs: Sequence[Design]) -> list[Standing]:
        """All designs in paired, interleaved rounds; a standing for each, in order, beside the first."""
        ...


@dataclass(frozen=True)
class Budget:
    """How much a search may take: seconds, trials, or whichever of both is used up first; None is no limit."""

    seconds: float | None = None
    trials: int | None = None


@dataclass(frozen=True)
class Objective:
    """What is wanted: least latency, most throughput, or any design that takes at most `seconds` (target)."""

    kind: Literal["latency", "throughput", "target"] = "latency"
    seconds: float | None = None


@dataclass(frozen=True)
class Progress:
    """Where a search stands, after each batch: `new` are the trials of that batch, to be kept for a resumption."""

    trials: tuple[Trial, ...]
    new: tuple[Trial, ...]
    best: Trial | None
    seconds_left: float | None
    trials_left: int | None


@dataclass(frozen=True)
class Result:
    """The outcome of a search: the design chosen, its evidence, and every trial in order.

    `seconds` and `default_seconds` come from the same paired rounds where there were any; `noise` is that of the
    finals. `curve` is the best-so-far time after each trial.
    """

    winner: Design
    seconds: float
    default_seconds: float
    trials: tuple[Trial, ...]
    runner_up: Standing | None
    stopped: Stopped
    standings: tuple[Standing, ...] = ()
    noise: float = 0.0

    @property
    def curve(self) -> tuple[float, ...]:
        """Best seconds after each trial; infinite until one is ok."""
        return best_so_far(self.trials)


def best_so_far(trials: Sequence[Trial]) -> tuple[float, ...]:
    """The least seconds among the trials up to each one; infinite until one is ok."""
    best, curve = float("inf"), []
    for trial in trials:
        if trial.outcome.seconds is not None:
            best = min(best, trial.outcome.seconds)
        curve.append(best)
    return tuple(curve)
