"""A machine that executes thread listings, to show that they compute what the program means.

A listing is close to Python: registers are NumPy vectors, and a few forms are rewritten (`acc0 .. acc7 = 0.0`).
Buffers start as NaN, loads and stores that leave a tensor without a mask fail.
"""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import numpy as np

_RUN = re.compile(r"([A-Za-z_]\w*?)(\d+) \.\. \1(\d+)")
_BUFFER = re.compile(r"# (\w+): \w+\[([^\]]*)\](?:, panels of \d+ along (\w+))?\s*$")
_REGISTER = re.compile(r"(?<![\w])\(([a-z]\w*\d(?:, [a-z]\w*\d){1,3})\)(?! =)")


def execute(listing: str, tensors: dict[str, Any], scalars: dict[str, Any], sizes: dict[str, int]) -> None:
    """Run a listing on f32 tensors, as the only thread; outputs are written in place."""
    assert " more: " not in listing, "a shortened listing cannot be run"
    machine = _Machine(dict(tensors))
    program = "\n".join(_python(line) for line in listing.splitlines() if not machine.declares(line, sizes))
    names = {**sizes, **{n: n for n in machine.memory}, **scalars, "team": None}
    exec(compile(program, "listing", "exec"), {**names, **machine.instructions()})


def _python(line: str) -> str:
    """A line of a listing as a line of Python."""
    line = _RUN.sub(lambda m: ", ".join(f"{m[1]}{n}" for n in range(int(m[2]), int(m[3]) + 1)), line)
    left, equals, right = line.partition(" = ")
    if equals and "(" not in right and re.fullmatch(r"-?(inf|\d[\d.e+]*)", right) and not left.lstrip().startswith("#"):
        names = re.findall(r"\w+", left)
        return left[: len(left) - len(left.lstrip())] + " = ".join([*names, f"float({right!r})"])
    computed = right if equals else line
    return (left + equals if equals else "") + _REGISTER.sub(r"register(\1)", computed)


class _Machine:
    def __init__(self, memory: dict[str, Any]) -> None:
        self.memory = memory
        self.along: dict[str, int] = {}  # the dimension that vectors of a panel run along
        self.scratch: set[str] = set()

    def declares(self, line: str, sizes: dict[str, int]) -> bool:
        """Whether a line declares a buffer; it is made, full of NaN and with room to spare."""
        found = _BUFFER.match(line.strip())
        if not found:
            return False
        dims = [d.strip() for d in found[2].split(",")]
        self.memory[found[1]] = np.full([sizes.get(d, 64) + 64 for d in dims], np.nan, np.float32)
        self.along[found[1]] = dims.index(found[3]) if found[3] else len(dims) - 1
        self.scratch.add(found[1])
        return True

    def _places(self, name: str, at: tuple[Any, ...], vec: int, masked: bool) -> tuple[Any, Any]:
        """(index arrays of `vec` neighbours, which of them exist)."""
        shape, along = self.memory[name].shape, self.along.get(name, len(at) - 1)
        index = [np.full(vec, int(i)) for i in at]
        index[along] = index[along] + np.arange(vec)
        exists = np.all([(i >= 0) & (i < n) for i, n in zip(index, shape, strict=True)], axis=0)
        assert masked or exists.all(), f"{name}{at} leaves {shape} without a mask"
        return tuple(np.minimum(i, n - 1) for i, n in zip(index, shape, strict=True)), exists

    def load(
        self, name: str, at: tuple[Any, ...], *, vec: int, mask: Any = None, clamp: Any = None, **_hints: Any
    ) -> Any:
        if clamp is not None:
            along, ends = self.along.get(name, len(at) - 1), self.memory[name].shape
            at = tuple(i if d == along and vec > 1 else min(i, ends[d] - 1) for d, i in enumerate(at))
        places, exists = self._places(name, at, vec, mask is not None)
        values = np.where(exists, self.memory[name][places], 0)
        return values if vec > 1 else values[0]

    def store(self, name: str, at: tuple[Any, ...], value: Any, *, vec: int, mask: Any = None, **_hints: Any) -> None:
        places, exists = self._places(name, at, vec, mask is not None)
        self.memory[name][tuple(p[exists] for p in places)] = np.broadcast_to(value, (vec,))[exists]

    def instructions(self) -> dict[str, Any]:
        def lanes(fold: Any) -> Any:
            return lambda *rows: fold(rows[0]) if len(rows) == 1 else np.array([fold(r) for r in rows])

        def share(*ranges: Any) -> Any:
            return ranges[0] if len(ranges) == 1 else itertools.product(*ranges)

        one = np.float32(1)
        return {
            "load": self.load, "store": self.store, "barrier": lambda _team: None,
            **dict.fromkeys(("share", "turns", "drawn"), share),
            "register": lambda *lanes: np.array(lanes), "pack": lambda *lanes: np.array(lanes),
            "transpose": lambda *rows: np.array(rows).T, "fma": lambda x, y, z: x * y + z,
            "sum_lanes": lanes(np.sum), "max_lanes": lanes(np.max), "min_lanes": lanes(np.min),
            "max": lambda *xs: _folded(np.maximum, xs), "min": lambda *xs: _folded(np.minimum, xs),
            "select": lambda c, x, y: np.where(c, x, y)[()], "arange": np.arange, "exp": np.exp, "exp2": np.exp2,
            "rsqrt": lambda x: one / np.sqrt(x), "sigmoid": lambda x: one / (one + np.exp(-x)), "tanh": np.tanh,
            "f32": lambda x: np.asarray(x).astype(np.float32)[()], "i32": lambda x: np.asarray(x).astype(np.int32)[()],
            "i64": lambda x: np.asarray(x).astype(np.int64)[()], "inf": math.inf, "thread": 0,
            "ca": "ca", "cg": "cg", "cs": "cs",
        }  # fmt: skip


def _folded(op: Any, values: Any) -> Any:
    result = values[0]
    for value in values[1:]:
        result = op(result, value)
    return result
