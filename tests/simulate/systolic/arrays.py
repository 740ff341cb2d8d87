"""Arrays and products for the tests of simulated systolic arrays."""

from __future__ import annotations

import csv
from pathlib import Path

from tilewright.design.default import default_design
from tilewright.design.design import Design
from tilewright.machines import Machine
from tilewright.runtime.subject import Subject
from tilewright.simulate.systolic.closed import Account, account
from tilewright.simulate.systolic.judge import planned, subject_on

SCALESIM = tuple(csv.DictReader((Path(__file__).parent / "scalesim.csv").open(encoding="utf-8")))
"""Runs of SCALE-Sim 3.0.0."""


def on(machine: str, m: int, n: int, k: int, dtype: str | None = None, **changes: int | str) -> tuple[Subject, Design]:
    """A matmul on an array with its default design, some decisions changed (dots written `__`)."""
    subject = subject_on(Machine.named(machine), "matmul", {"M": m, "N": n, "K": k}, dtype)
    return subject, default_design(subject.kernel, subject.facts).with_(**changes)


def spent(machine: str, m: int, n: int, k: int, **changes: int | str) -> Account:
    """The cycles of that matmul."""
    return account(planned(*on(machine, m, n, k, **changes))[1])
