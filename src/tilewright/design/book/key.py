"""The key of a design record: all that decides which design is best, and nothing else."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from tilewright.design.book.semantics import semantics
from tilewright.design.default import Facts
from tilewright.design.trial import Objective
from tilewright.errors import ArgumentError
from tilewright.knobs import NUMERICS
from tilewright.language import ir
from tilewright.machines.machine import Machine

SCHEMA = 1
"""Raised whenever what a field means changes: older entries are not found then."""

Layouts = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Key:
    """What a design is for.

    `semantics` hashes the traced program (static options are in it), `sizes` are exact, `dtypes` those of all
    parameters, `layouts` the dimensions of stride one of each tensor, `aligned` the tensors of which every row starts
    at a cache line; `machine` is a fingerprint. Where a key came from, its program and what was known (`kernel`,
    `facts`), may come along for checks of legality; both follow from the key, and are no part of it.
    """

    operator: str
    semantics: str
    sizes: tuple[tuple[str, int], ...]
    dtypes: tuple[tuple[str, str], ...]
    layouts: Layouts
    numerics: str
    objective: str
    machine: str
    threads: int
    aligned: tuple[str, ...] = ()
    kernel: ir.Kernel | None = field(default=None, compare=False, repr=False)
    facts: Facts | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("sizes", "dtypes", "layouts", "aligned"):
            object.__setattr__(self, name, tuple(sorted(getattr(self, name))))
        for problem in _problems(self):
            raise ArgumentError(f"a key of the book: {problem}")

    @classmethod
    def of(
        cls,
        kernel: ir.Kernel,
        facts: Facts,
        *,
        threads: int,
        objective: Objective | str = "latency",
        numerics: str = "free",
    ) -> Key:
        """The key of a traced program under `facts`, which give a size for each of its dims."""
        tensors = [p.name for p in kernel.params if p.dims is not None]
        return cls(
            kernel.name,
            semantics(kernel),
            tuple((d, facts.sizes[d]) for d in kernel.dims),
            tuple((p.name, p.dtype.name) for p in kernel.params),
            tuple((t, tuple(sorted(facts.unit.get(t, ())))) for t in tensors),
            numerics,
            objective if isinstance(objective, str) else objective_text(objective),
            facts.machine.fingerprint,
            threads,
            tuple(t for t in tensors if t in facts.aligned),
            kernel,
            facts,
        )

    @classmethod
    def from_dict(cls, data: Any) -> Key:
        """The key that `to_dict` described; ValueError for anything else."""
        if not isinstance(data, dict) or set(data) != {f.name for f in SEMANTIC}:
            raise ValueError("a key has the fields " + ", ".join(f.name for f in SEMANTIC))
        try:
            return cls(
                **{
                    **data,
                    "sizes": tuple(data["sizes"].items()),
                    "dtypes": tuple(data["dtypes"].items()),
                    "layouts": tuple((t, tuple(dims)) for t, dims in data["layouts"].items()),
                    "aligned": tuple(data["aligned"]),
                }
            )
        except (TypeError, AttributeError, ArgumentError) as error:
            raise ValueError(str(error)) from None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: the semantic fields."""
        data = {f.name: getattr(self, f.name) for f in SEMANTIC}
        layouts = {tensor: list(dims) for tensor, dims in self.layouts}
        return {**data, "sizes": dict(self.sizes), "dtypes": dict(self.dtypes), "layouts": layouts,
                "aligned": list(self.aligned)}  # fmt: skip

    @cached_property
    def text(self) -> str:
        """Canonical JSON: equal keys give equal text."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @cached_property
    def hash(self) -> str:
        """32 hex digits that name the key."""
        return hashlib.sha256(f"tilewright design key {SCHEMA}\n{self.text}".encode()).hexdigest()[:32]

    @property
    def unaligned(self) -> Key:
        """The same key with nothing known of where rows start; a design for it is legal for this key too."""
        return replace(self, aligned=(), facts=self.facts and replace(self.facts, aligned=frozenset()))

    @property
    def label(self) -> str:
        """The key as people write it: `matmul M=16 N=4096 K=4096 dtype=bf16`."""
        sizes = " ".join(f"{d}={n}" for d, n in self.sizes)
        return f"{self.operator} {sizes} dtype={self.dtype}".replace("  ", " ")

    @property
    def dtype(self) -> str:
        """The element type of the operands: the commonest among its tensors of floats."""
        tensors = [dict(self.dtypes).get(t, "f32") for t, _ in self.layouts]
        found = [t for t in tensors if not t.startswith(("i", "bool"))] or tensors or ["f32"]
        return max(found, key=found.count)

    def facts_on(self, machine: Machine) -> Facts:
        """What a design for this key may rely on: every size is exact."""
        sizes = dict(self.sizes)
        return Facts(sizes, dict(self.layouts), machine, frozenset(self.aligned), frozenset(sizes))


SEMANTIC = tuple(f for f in fields(Key) if f.compare)
"""The fields that make a key what it is."""


def objective_text(objective: Objective) -> str:
    """An objective as keys hold it: `latency`, `throughput`, `target:5e-05` (seconds)."""
    return objective.kind if objective.kind != "target" else f"target:{objective.seconds!r}"


def differences(one: Key, other: Key) -> tuple[str, ...]:
    """The fields in which two keys differ: `machine`, `sizes.M`, `dtypes.a` ..."""
    return tuple(name for f in SEMANTIC for name in _differing(f.name, getattr(one, f.name), getattr(other, f.name)))


_WEIGHTS = {"semantics": 8.0, "machine": 4.0, "dtypes": 4.0, "layouts": 2.0, "numerics": 2.0, "objective": 2.0}


def distance(one: Key, other: Key) -> float:
    """How far two keys are apart: each doubling of a size counts 1, other fields by how much they decide."""
    mine, theirs, total = dict(one.sizes), dict(other.sizes), 0.0
    for name in differences(one, other):
        kind, _, part = name.partition(".")
        if kind == "sizes" and part in mine and part in theirs:
            total += abs(math.log2((mine[part] + 1) / (theirs[part] + 1)))
        else:
            total += _WEIGHTS.get(kind, 1.0)
    return total


def _differing(name: str, one: Any, other: Any) -> Iterator[str]:
    if name in ("sizes", "dtypes", "layouts"):
        one, other = dict(one), dict(other)
        yield from (f"{name}.{part}" for part in sorted({*one, *other}) if one.get(part) != other.get(part))
    elif one != other:
        yield name


def _problems(key: Key) -> Iterator[str]:
    for f in ("operator", "semantics", "objective", "machine"):
        if not isinstance(getattr(key, f), str) or not getattr(key, f):
            yield f"{f} is {getattr(key, f)!r}; it is a word"
    if key.numerics not in NUMERICS:
        yield f"numerics is {key.numerics!r}; it is one of {', '.join(NUMERICS)}"
    if not _count(key.threads, 1):
        yield f"threads is {key.threads!r}; it is a whole number, 1 or more"
    if not all(isinstance(d, str) and _count(n, 0) for d, n in key.sizes):
        yield f"sizes are {key.sizes!r}; they are whole numbers by the names of dims"
    if not all(isinstance(t, str) and isinstance(x, str) for t, x in key.dtypes):
        yield f"dtypes are {key.dtypes!r}; they are words by the names of parameters"
    if not all(isinstance(t, str) and all(_count(d, 0) for d in dims) for t, dims in key.layouts):
        yield f"layouts are {key.layouts!r}; they are dimensions by the names of tensors"
    if not all(isinstance(t, str) for t in key.aligned):
        yield f"aligned is {key.aligned!r}; it names tensors"


def _count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
