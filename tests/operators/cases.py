"""Cases for operators: operands in awkward shapes and layouts, run by the interpreter against the reference."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from tilewright.language.dtypes import dtype
from tilewright.language.interpreter import run
from tilewright.operators import Exact, Operator
from tilewright.runtime import tolerance

FLOATS = (np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16))
SIZES = st.sampled_from((0, 1, 2, 3, 5, 7, 8, 13))
SOME = st.sampled_from((1, 2, 3, 5, 8))
STEPS = st.sampled_from((1, 3, 4, 16))
element = st.sampled_from(FLOATS)

thorough = settings(max_examples=40, deadline=None, derandomize=True)


@dataclass
class Case:
    """One call of an operator: inputs in the kernel's layout, and the shape and dtype of each output."""

    operator: Operator
    inputs: dict[str, Any]
    outputs: dict[str, tuple[tuple[int, ...], Any]]
    scalars: dict[str, float] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def expected(self) -> dict[str, Exact]:
        found = self.operator.reference(**self.inputs, **self.scalars, **self.options)
        # A case without outputs only asks for what is expected.
        return {n: exact for n, exact in found.items() if n in self.outputs or not self.outputs}

    def check(self, memory: Memory, steps: int) -> None:
        """Interpreted with tiles of `steps` in the dtypes of the case, and exactly in float64: both agree."""
        expected = self.expected()
        written = self._run(memory, steps, exact=False)
        assert set(written) == set(expected)
        for name, actual in written.items():
            tolerance.check(f"{self.operator.name}.{name}", actual, expected[name])
        for name, actual in self._run(memory, steps, exact=True).items():
            value, size = np.asarray(expected[name].value, np.float64), expected[name].magnitude
            same = (actual == value) | (np.isnan(actual) & np.isnan(value))
            with np.errstate(invalid="ignore"):
                assert np.all(same | (np.abs(actual - value) <= 1e-12 * np.abs(size) + 1e-30)), name

    def _run(self, memory: Memory, steps: int, exact: bool) -> dict[str, Any]:
        outputs = {}
        for name, (shape, kind) in self.outputs.items():
            wide = exact and np.dtype(kind).kind != "i"
            outputs[name] = memory.poisoned(shape, np.float64 if wide else kind)
        for name in self.operator.updates:
            outputs[name][...] = self.inputs[name]
        tensors = {**{n: x for n, x in self.inputs.items() if x is not None}, **outputs}
        element_types = {n: dtype(self._element(n)) for n in tensors}
        kernel = self.operator.kernel.trace(element_types, options=self.options)
        run(kernel, tensors, self.scalars, steps=steps, seed=steps, exact=exact)
        return outputs

    def _element(self, name: str) -> Any:
        return np.dtype(self.outputs[name][1]) if name in self.outputs else self.inputs[name].dtype


class Memory:
    """Seeded arrays whose memory order, gaps and direction are drawn: any strides, never contiguous by habit."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def normal(self, shape: tuple[int, ...], kind: Any = np.float32) -> Any:
        """Values around 0 with exact zeros among them."""
        values = self.random.standard_normal(shape)
        values[self.random.random(shape) < 0.05] = 0.0
        return self.laid_out(values.astype(kind))

    def integers(self, low: int, high: int, shape: tuple[int, ...]) -> Any:
        kind = self.random.choice([np.int32, np.int64])
        return self.laid_out(self.random.integers(low, max(high, low + 1), shape).astype(kind))

    def poisoned(self, shape: tuple[int, ...], kind: Any) -> Any:
        """An output that nobody has written: NaN, or -1 for integers."""
        fill = -1 if np.dtype(kind).kind == "i" else np.nan
        return self.laid_out(np.full(shape, fill, kind))

    def laid_out(self, values: Any) -> Any:
        """The same values at other strides."""
        order = self.random.permutation(values.ndim)
        room = np.zeros([values.shape[i] + int(self.random.integers(0, 3)) for i in order], values.dtype)
        view = room[tuple(slice(0, values.shape[i]) for i in order)].transpose(np.argsort(order))
        if values.ndim and self.random.random() < 0.25:
            view = view[::-1]
        view[...] = values
        return view


memories = st.integers(0, 2**32 - 1).map(Memory)
