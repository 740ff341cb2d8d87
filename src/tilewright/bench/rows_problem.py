"""A row operator on the GPU as the bench sets it up: operands, the tile program, torch's way to compute it, the judge.

The judge is the operator's own float64 reference, on rows (of sums over rows: columns) drawn anew for each check and
compared element by element within the bound of `runtime.tolerance`; that every element was written is asked of all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tilewright import operators
from tilewright.bench.peers import TORCH_DTYPES
from tilewright.bench.rows_cases import RowCase
from tilewright.bench.rows_peers import peer_of
from tilewright.design.gpu.rows import fixed_dims
from tilewright.errors import VerificationError
from tilewright.runtime import tolerance
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.cuda.evaluator import Problem
from tilewright.runtime.dispatch import Program

_COMPARED = 24
"""Rows or columns compared in one check."""


@dataclass
class RowProblem:
    """Operands of one case, drawn from `seed`; all tensors are torch's, on the GPU."""

    case: RowCase
    seed: int = 0
    device: str = "cuda"

    def __post_init__(self) -> None:
        import torch

        self._torch = torch
        self._random = torch.Generator(self.device).manual_seed(self.seed)
        self.operator, self.program = operators.OPERATORS[self.case.operator], self.case.traced()
        shapes = self.case.shapes()
        kinds = {p.name: p.dtype.name for p in self.program.params}
        self.tensors = {name: self._drawn(name, kinds[name], shape) for name, shape in shapes.items()}
        self.poison()
        self.redraw()

    def _drawn(self, name: str, kind: str, shape: tuple[int, ...]) -> Any:
        torch, sizes = self._torch, dict(self.case.sizes)
        if kind in ("i32", "i64"):
            high = sizes["V"] if name == "ids" else sizes.get("P", 1)
            integers = torch.int32 if kind == "i32" else torch.int64
            return torch.randint(0, high, shape, generator=self._random, device=self.device, dtype=integers)
        element = TORCH_DTYPES[kind]
        if name in ("cos", "sin"):
            return self._table(name, shape).to(element)
        room = torch.empty(int(np.prod(shape)) + self.case.offset, dtype=element, device=self.device)
        values = room.normal_(0.0, 1.0, generator=self._random)[self.case.offset :].view(self._stored(name, shape))
        if values.shape != shape:
            values = values.transpose(-1, -2)
        if self.case.operator == "softmax_backward" and name == "y":
            values.copy_(torch.softmax(values.float(), -1))
        return values.abs_() if name == "scale" else values

    def _stored(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape in the order of memory: halves of heads side by side, or pairs of neighbours."""
        swapped = self.case.interleaved and name in ("x", "y")
        return (*shape[:-2], shape[-1], shape[-2]) if swapped else shape

    def _table(self, name: str, shape: tuple[int, ...]) -> Any:
        """Both halves alike, as models have them."""
        torch = self._torch
        positions = torch.arange(shape[0], device=self.device)[:, None]
        angles = positions * 10000.0 ** -(torch.arange(shape[2], device=self.device) / shape[2])
        return getattr(torch, name)(angles)[:, None].expand(shape).contiguous()

    # --------------------------------------------------------------------------------------- the program
    def problem(self) -> Problem:
        """The case as a search sees it."""
        program = Program.of(self.program)
        buffers = {name: Buffer.of(x) for name, x in self.tensors.items()}
        fixed = (*fixed_dims(self.program), *program.whole)
        sizes = {str(d): n for d, n in self.case.sizes}
        return Problem(program, buffers, sizes, self.poison, self.check, self.case.scalars, fixed)

    def peer(self, compiled: bool) -> Callable[[], object]:
        """What a user of torch runs: eager, or the same by torch.compile for these shapes alone."""
        return peers([self], compiled)[0]

    # --------------------------------------------------------------------------------------- the judge
    def poison(self) -> None:
        """What no kernel writes, in every element of the outputs."""
        for name in self.operator.outputs:
            if name in self.tensors:
                out = self.tensors[name]
                out.fill_(float("nan") if out.is_floating_point() else -1)

    def redraw(self) -> None:
        """Other rows are compared from now on."""
        dim = self._compared
        count = dict(self.case.sizes)[dim]
        self._picked = self._torch.randperm(count, generator=self._random, device=self.device)[:_COMPARED].sort().values

    @property
    def _compared(self) -> str:
        """The dim of which some positions are compared: what the operator treats alike, one by one."""
        return {"rmsnorm_weight_backward": "D", "embedding": "N", "rope": "S"}.get(self.case.operator, "M")

    def _sliced(self, name: str) -> Any:
        """A tensor at the positions compared, as NumPy."""
        x, dim = self.tensors[name], self._compared
        dims = self.program.param(name).dims or ()
        tables = dim == "S" and "positions" not in self.tensors  # token s has row s of the tables
        where = (dim, "P") if tables else (dim,)
        for n, d in enumerate(dims):
            if d in where:
                x = x.index_select(n, self._picked)
        x = x.cpu()
        return x.float().numpy() if x.dtype == self._torch.bfloat16 else x.numpy()

    def check(self) -> None:
        """VerificationError unless the outputs are within their bounds of the float64 reference."""
        outputs = [n for n in self.operator.outputs if n in self.tensors]
        for name in outputs:
            out = self.tensors[name]
            bad = ~self._torch.isfinite(out) if out.is_floating_point() else out < 0
            if bool(bad.any()):
                raise VerificationError(f"{self.case.name}: elements of {name} are not finite, or were not written")
        inputs = {n: self._sliced(n) for n in self.tensors if n not in outputs}
        expected = self.operator.reference(**inputs, **self.case.scalars, **dict(self.case.options))
        for name in outputs:
            kind = self.program.param(name).dtype
            tolerance.check(name, self._sliced(name).astype(kind.numpy), expected[name])


def peers(setups: Sequence[RowProblem], compiled: bool) -> list[Callable[[], object]]:
    """What a user of torch runs on the operands of each setup of one case; what is compiled is compiled once."""
    import torch

    function, _ = peer_of(setups[0].case, setups[0].tensors)
    if compiled:
        function = torch.compile(function, dynamic=False)
    return [partial(function, *peer_of(s.case, s.tensors)[1]) for s in setups]


__all__ = ["RowProblem", "peers"]
