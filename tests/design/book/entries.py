"""Keys, records and trials that the tests of the book share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from programs import facts, traced

from tilewright.design.book.key import Key
from tilewright.design.book.record import Record
from tilewright.design.default import default_design
from tilewright.design.design import Design
from tilewright.design.trial import Outcome, Standing, Trial

MATMUL = traced("matmul")
DATE = "2026-01-02T03:04:05+00:00"


def key(machine: str = "zen5", threads: int = 2, **sizes: int) -> Key:
    """A key of matmul; the sizes are those of the other tests of designs, unless given."""
    return Key.of(MATMUL, facts(MATMUL, machine, **sizes), threads=threads)


def default(of: Key) -> Design:
    assert of.kernel is not None and of.facts is not None
    return default_design(of.kernel, of.facts)


def record(of: Key | None = None, design: Design | None = None, **fields: Any) -> Record:
    """A record of a search that ended here."""
    of = of or key()
    standard = {"seconds": 1e-3, "default_seconds": 1.25e-3, "noise": 0.01, "verified": True, "seed": 7}
    return Record(of, design or default(of), **{**standard, "created": DATE, **fields})


def standing(design: Design, ratio: float = 1.2) -> Standing:
    return Standing(design, ratio * 1e-3, ratio, ratio - 0.05, ratio + 0.05, 0.01)


def trial(design: Design, seconds: float | None = 1e-3, predicted: float = 0.9e-3, **fields: Any) -> Trial:
    """A trial that took `seconds`; one that crashed where that is None."""
    samples = () if seconds is None else (seconds, 1.01 * seconds, 1.02 * seconds)
    outcome = Outcome("ok", seconds, samples, 0.01) if seconds else Outcome("crash", reason="signal 11")
    return replace(Trial(design, predicted, outcome), **fields)
