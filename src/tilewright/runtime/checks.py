"""What a candidate is checked on: operands with the results that they must give, kept in files for another process.

A check is plain data: raw arrays and a description in JSON; nothing in it is code, and arrays are mapped read-only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tilewright.errors import ArgumentError
from tilewright.language import ir
from tilewright.language.dtypes import dtype
from tilewright.language.rounding import run_bounded
from tilewright.machines.free_memory import free_memory
from tilewright.operators import Exact
from tilewright.runtime import tolerance
from tilewright.runtime.inputs import Array, Drawn, Kind, Operands, draw
from tilewright.runtime.subject import Subject

ODD, ONE_MORE = 67, 131
"""Larger sizes become these in the small checks: odd, and past a whole tile by a few."""


@dataclass
class Check:
    """Operands, and for each output its float64 (or integer) value with the largest error allowed.

    `high`: the operands' last bytes are guarded, else their first. `named` says which check it is.
    """

    named: str
    operands: Operands
    values: dict[str, Array]
    limits: dict[str, Array]
    high: bool = True

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the arrays; the description that `load` reads."""
        groups = {"tensors": self.operands.tensors, "values": self.values, "limits": self.limits}
        saved = {
            group: {n: _save(x, folder / f"{self.named}.{group}.{n}") for n, x in arrays.items()}
            for group, arrays in groups.items()
        }
        plain = {"sizes": self.operands.sizes, "scalars": self.operands.scalars, "high": self.high}
        return {"named": self.named, **plain, **saved}

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> Check:
        """What `save` wrote, in its files still."""
        arrays = {g: {n: _load(x) for n, x in data[g].items()} for g in ("tensors", "values", "limits")}
        operands = Operands(dict(data["sizes"]), arrays["tensors"], dict(data["scalars"]))
        return cls(data["named"], operands, arrays["values"], arrays["limits"], data["high"])

    def compare(self, name: str, actual: Array) -> float:
        """The worst error as a share of what is allowed; VerificationError where it is more."""
        return tolerance.compare(name, actual, self.values[name], self.limits[name])


def checks_for(subject: Subject, seed: int, kept: Drawn | None = None) -> list[Check]:
    """The checks of a subject: random and hard operands at its own sizes, then smaller odd ones.

    A kernel takes any sizes but those that are a part of it; the smaller checks change all others. Sizes that the
    program does not allow together are left out there. Operands may be found among `kept` ones. Raises ArgumentError
    for sizes whose operands and exact results this host has no memory for.
    """
    check_room(subject)
    found = [_check(subject, "random", subject.sizes, seed, "random", kept=kept)]
    ranged = subject.constant is not None  # then the smaller ones are of the same kernel, and hard ones among them
    if not ranged:
        found.append(_check(subject, "hard", subject.sizes, seed, "hard", kept=kept))
    rows = {p.dims[subject.unit[p.name]] for p in subject.kernel.params if p.dims}
    small = {
        "odd": ({d: _near(n, -1, ODD) for d, n in subject.sizes.items()}, True),
        "more": ({d: _near(n, 1, ONE_MORE) for d, n in subject.sizes.items()}, False),
        "rows": ({d: n if d in rows else _near(n, 1, ONE_MORE) for d, n in subject.sizes.items()}, False),
    }
    whole = {d: subject.sizes[d] for d in (*subject.program.whole, *subject.settled)}
    for named, (sizes, high) in small.items():
        if {**sizes, **whole} not in [c.operands.sizes for c in found]:
            kind: Kind = "hard" if ranged and named == "odd" else "mixed"
            found.append(_check(subject, named, {**sizes, **whole}, seed, kind, high, kept))
    return found


def check_room(subject: Subject) -> None:
    """ArgumentError unless the operands of two checks, and what they must give in float64, fit the free memory."""
    shapes = {
        p.name: math.prod(d if isinstance(d, int) else subject.sizes[d] for d in p.dims)
        for p in subject.kernel.params
        if p.dims is not None
    }
    operands = sum(shapes[p.name] * p.dtype.bytes for p in subject.kernel.params if p.name in shapes)
    needed, free = 2 * (operands + 2 * 8 * sum(shapes[n] for n in subject.outputs)), free_memory()
    if needed > free:
        sizes = " ".join(f"{d}={n}" for d, n in subject.sizes.items())
        raise ArgumentError(
            f"{subject.kernel.name} {sizes}: its operands take {operands / 2**30:,.1f} GiB, to verify kernels takes "
            f"{needed / 2**30:,.1f}, of which {free / 2**30:,.1f} are free here; give smaller sizes"
        )


def _near(n: int, by: int, most: int) -> int:
    """A size beside `n`; never the larger of two becomes the smaller."""
    return max(1, min(n + by, most))


def _check(
    subject: Subject, named: str, sizes: dict[str, int], seed: int, kind: Kind, high: bool = True,
    kept: Drawn | None = None,
) -> Check:  # fmt: skip
    own = seed + sum(map(ord, named))
    drawn = draw(subject.kernel, sizes, seed=own, kind=kind, updates=subject.updates, unit=subject.unit, kept=kept)
    values, limits = {}, {}
    for name, exact in expected(subject, drawn).items():
        values[name] = np.asarray(exact.value)
        limits[name] = tolerance.limits(dtype(drawn.tensors[name].dtype), exact)
    return Check(named, drawn, values, limits, high)


def expected(subject: Subject, drawn: Operands) -> dict[str, Exact]:
    """What the outputs must be: by the operator's reference, else by the interpreter in float64."""
    if subject.operator is None:
        return _interpreted(subject.kernel, drawn, subject.outputs)
    inputs = {n: x for n, x in drawn.tensors.items() if n not in subject.outputs}
    earlier = {n: drawn.tensors[n].copy() for n in subject.updates}
    found = subject.operator.reference(**inputs, **earlier, **drawn.scalars, **dict(subject.options))
    return {n: exact for n, exact in found.items() if n in subject.outputs}


def _interpreted(kernel: ir.Kernel, drawn: Operands, outputs: tuple[str, ...]) -> dict[str, Exact]:
    wide = {n: x.astype(np.float64) if dtype(x.dtype).kind == "float" else x.copy() for n, x in drawn.tensors.items()}
    bounds = run_bounded(kernel, wide, drawn.scalars)
    return {n: Exact(wide[n], np.zeros(wide[n].shape), 0, bounds[n]) for n in outputs}


# ------------------------------------------------------------------------------------------------ files
def _save(x: Array, path: Path) -> dict[str, Any]:
    """Elements in the order of memory, and that order."""
    order = sorted(range(x.ndim), key=lambda d: -abs(x.strides[d]))
    np.ascontiguousarray(x.transpose(order)).view(np.uint8).tofile(path) if x.size and x.ndim else path.write_bytes(
        np.ascontiguousarray(x).tobytes()
    )
    return {"file": str(path), "dtype": dtype(x.dtype).name, "shape": list(x.shape), "order": order}


def _load(data: Mapping[str, Any]) -> Array:
    shape, order = data["shape"], data["order"]
    element = dtype(data["dtype"]).numpy
    if not math.prod(shape):
        return np.empty(shape, element)
    raw = np.memmap(data["file"], np.uint8, "r").view(element)
    return raw.reshape([shape[d] for d in order]).transpose(np.argsort(order))


__all__ = ["Check", "checks_for", "expected"]
