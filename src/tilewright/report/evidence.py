"""All that a report shows, as plain data: the search, the random search beside it, and the ladder."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tilewright.design.design import Design
from tilewright.design.trial import Outcome, Trial
from tilewright.errors import ArgumentError
from tilewright.report.ladder import Rung
from tilewright.report.topic import Topic

FORMAT = 1


@dataclass(frozen=True)
class Evidence:
    """What was found about `topic`.

    `seconds` and `default_seconds` are those of the finals, `stopped` says why the search ended, `command` how to do
    it again. `random` are the trials of a search without guidance, equally many.
    """

    topic: Topic
    winner: Design
    seconds: float
    default_seconds: float
    noise: float
    stopped: str
    trials: tuple[Trial, ...]
    random: tuple[Trial, ...] = ()
    ladder: tuple[Rung, ...] = ()
    strategy: str = "evolve"
    seed: int = 0
    command: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, raw samples included."""
        return {
            "format": FORMAT,
            "topic": asdict(self.topic),
            "winner": self.winner.to_json(),
            **{n: getattr(self, n) for n in _PLAIN},
            "trials": [t.to_dict() for t in self.trials],
            "random": [t.to_dict() for t in self.random],
            "ladder": [_rung_dict(r) for r in self.ladder],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Evidence:
        """What `to_dict` wrote; ArgumentError for anything else."""
        try:
            topic = {**data["topic"], "sizes": tuple((str(d), int(n)) for d, n in data["topic"]["sizes"])}
            return cls(
                topic=Topic(**topic),
                winner=Design.from_json(data["winner"]),
                **{n: data[n] for n in _PLAIN},
                trials=_trials(data["trials"]),
                random=_trials(data["random"]),
                ladder=tuple(map(_rung, data["ladder"])),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ArgumentError(f"this is not the evidence of a search ({error}); write it with --report") from None


_PLAIN = ("seconds", "default_seconds", "noise", "stopped", "strategy", "seed", "command")


def _trials(data: Sequence[Mapping[str, Any]]) -> tuple[Trial, ...]:
    return tuple(map(Trial.from_dict, data))


def _rung_dict(rung: Rung) -> dict[str, Any]:
    plain = {n: getattr(rung, n) for n in ("mutation", "predicted", "bound", "reason", "terms")}
    return {**plain, "design": rung.design.to_json(), "outcome": rung.outcome.to_dict()}


def _rung(data: Mapping[str, Any]) -> Rung:
    terms = tuple((str(n), float(v), str(u)) for n, v, u in data["terms"])
    plain = {n: data[n] for n in ("mutation", "predicted", "bound", "reason")}
    design, outcome = Design.from_json(data["design"]), Outcome.from_dict(data["outcome"])
    return Rung(design=design, outcome=outcome, terms=terms, **plain)


def read(path: Path) -> Evidence:
    """The evidence in a file; ArgumentError, naming it, for anything else."""
    try:
        return Evidence.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ArgumentError) as error:
        raise ArgumentError(f"{path}: {error}") from None


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    handle, unfinished = tempfile.mkstemp(dir=path.parent, suffix=".unfinished")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    os.chmod(unfinished, 0o644)
    os.replace(unfinished, path)
