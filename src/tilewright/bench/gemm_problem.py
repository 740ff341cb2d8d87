"""A product on the GPU as the bench sets it up: operands, the tile program, torch's way to compute it, and the judge.

The reference is computed in float64 on the GPU from the same 16-bit operands. Random rows, drawn anew for the final
check, are compared element by element within the bound of `runtime.tolerance`; all rows at once by their products with
random signs, drawn anew for each check, which no missing or misplaced tile survives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tilewright import operators
from tilewright.bench.gemm_cases import GemmCase
from tilewright.errors import VerificationError
from tilewright.language.dtypes import dtype
from tilewright.runtime import tolerance
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.cuda.evaluator import Problem
from tilewright.runtime.dispatch import Program

_ROWS = 48
"""Rows compared element by element in one check."""
_STEEPEST = 1.13  # slope of gelu and silu: an error before the activation grows by no more


@dataclass
class GemmProblem:
    """Operands of one case, drawn from `seed`; all tensors are torch's, on the GPU."""

    case: GemmCase
    seed: int

    def __post_init__(self) -> None:
        import torch

        self._torch = torch
        self._random = torch.Generator("cuda").manual_seed(self.seed)
        c = self.case
        self.a = self._normal(c.m, c.k)
        self.b = self._normal(c.n, c.k, scale=c.k**-0.5)
        self.up: Any = self._normal(c.n, c.k, scale=c.k**-0.5) if c.epilogue == "gate_up" else None
        self.bias: Any = self._normal(c.n) if c.epilogue == "bias_gelu" else None
        self.residual: Any = self._normal(c.m, c.n) if c.epilogue == "residual" else None
        self.c = torch.empty(c.m, c.n, dtype=self.a.dtype, device="cuda")
        self.peer_out = torch.empty_like(self.c)
        self.redraw()

    def _normal(self, *shape: int, scale: float = 1.0) -> Any:
        torch = self._torch
        values = torch.empty(shape, dtype=torch.bfloat16, device="cuda")
        return values.normal_(0.0, scale, generator=self._random)

    # --------------------------------------------------------------------------------------- the program
    def problem(self) -> Problem:
        """The case as a search sees it."""
        buffers = {name: Buffer.of(x) for name, x in self._operands.items()}
        dtypes = {name: b.dtype.name for name, b in buffers.items()}
        traced = self._operator.kernel.trace(dtypes, options=self._options)
        sizes = {"M": self.case.m, "N": self.case.n, "K": self.case.k}
        return Problem(Program.of(traced), buffers, sizes, self.poison, self.check, fixed=("M", "N", "K"))

    @property
    def _operator(self) -> Any:
        return operators.gate_up if self.case.epilogue == "gate_up" else operators.matmul

    @property
    def _options(self) -> dict[str, Any]:
        if self.case.epilogue == "gate_up":
            return {}
        return {"activation": "gelu" if self.case.epilogue == "bias_gelu" else None}

    @property
    def _operands(self) -> dict[str, Any]:
        if self.case.epilogue == "gate_up":
            return {"x": self.a, "gate": self.b, "up": self.up, "y": self.c}
        more = {"bias": self.bias, "residual": self.residual}
        return {"a": self.a, "b": self.b, "c": self.c, **{n: x for n, x in more.items() if x is not None}}

    # --------------------------------------------------------------------------------------- the peer
    def peer(self) -> Callable[[], object]:
        """What a user of torch runs: cuBLAS, then torch.compile's elementwise kernel where there is an epilogue."""
        torch, c = self._torch, self.case
        weights = self.b.t()
        if not c.epilogue:
            return lambda: torch.mm(self.a, weights, out=self.peer_out)
        if c.epilogue == "gate_up":
            after = _compiled(_silu_times)
            up = self.up.t()
            return lambda: after(torch.mm(self.a, weights), torch.mm(self.a, up))
        if c.epilogue == "residual":
            after = _compiled(_add)
            return lambda: after(torch.mm(self.a, weights), self.residual)
        after = _compiled(_bias_gelu)
        return lambda: after(torch.mm(self.a, weights), self.bias)

    # --------------------------------------------------------------------------------------- the judge
    def poison(self) -> None:
        """NaN in every element of the output."""
        self.c.fill_(float("nan"))

    def check(self) -> None:
        """VerificationError unless the output is within its bound of the float64 reference."""
        torch = self._torch
        if not bool(torch.isfinite(self.c).all()):
            raise VerificationError(f"{self.case.name}: elements are not finite, or were not written")
        self._check_rows(*self._expected)
        if not self.case.epilogue:
            self._check_projection()

    def _check_rows(self, rows: Any, value: Any, limit: Any) -> None:
        got = self.c[rows].double()
        error = (got - value).abs()
        if not bool((error <= limit).all()):
            worst = np.unravel_index(int((error - limit).argmax()), tuple(error.shape))
            at = (int(rows[worst[0]]), int(worst[1]))
            raise VerificationError(
                f"{self.case.name}: at {at} {got[worst].item():.6g} is {error[worst].item():.3g} off "
                f"{value[worst].item():.6g}; the bound is {limit[worst].item():.3g}"
            )

    def redraw(self) -> None:
        """Other rows are compared from now on."""
        torch, c = self._torch, self.case
        rows = torch.randperm(c.m, generator=self._random, device="cuda")[:_ROWS]
        value, magnitude = self._reference(self.a[rows].double(), rows)
        limit = tolerance.bound(dtype(c.dtype), c.k, magnitude.cpu().numpy(), value=value.cpu().numpy())
        self._expected = (rows, value, torch.from_numpy(limit).cuda())

    def _reference(self, a: Any, rows: Any) -> tuple[Any, Any]:
        """(value, magnitude) in float64 of some rows of the result."""
        torch, c = self._torch, self.case
        value, size = a @ self._wide.t(), a.abs() @ self._wide.abs().t()
        if c.epilogue == "bias_gelu":
            value, size = value + self.bias.double(), size + self.bias.double().abs()
            return torch.nn.functional.gelu(value), size * _STEEPEST
        if c.epilogue == "residual":
            more = self.residual[rows].double()
            return value + more, size + more.abs()
        if c.epilogue == "gate_up":
            up, up_size = a @ self.up.double().t(), a.abs() @ self.up.double().abs().t()
            gate = torch.nn.functional.silu(value)
            return gate * up, _STEEPEST * size * up.abs() + gate.abs() * up_size
        return value, size

    @cached_property
    def _wide(self) -> Any:
        return self.b.double()

    def _check_projection(self) -> None:
        """c s = a (b^T s) for random signs s: errors of the elements of a row add up to at most the row's bounds."""
        torch, c = self._torch, self.case
        signs = torch.randint(0, 2, (c.n, 1), generator=self._random, device="cuda").double() * 2 - 1
        exact = self.a.double() @ (self._wide.t() @ signs)
        got = torch.cat([part.double() @ signs for part in self.c.split(1024)])
        # Rounded elements err by at most 2^-9 of themselves, independently: the sum over a row by their norm, times 8.
        norms = torch.cat([part.double().norm(dim=1, keepdim=True) for part in self.c.split(1024)])
        limit = 8 * (2.0**-9 + 2.0**-20 * c.k**0.5) * norms + 1e-6
        if not bool(((got - exact).abs() <= limit).all()):
            worst = int(((got - exact).abs() / limit).argmax())
            raise VerificationError(f"{c.name}: row {worst} as a whole is {(got - exact).abs()[worst].item():.3g} off")


def _silu_times(gate: Any, up: Any) -> Any:
    import torch

    return torch.nn.functional.silu(gate) * up


def _add(x: Any, y: Any) -> Any:
    return x + y


def _bias_gelu(x: Any, bias: Any) -> Any:
    import torch

    return torch.nn.functional.gelu(x + bias)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` by torch.compile, for these shapes alone."""
    import torch

    compiled: Callable[..., Any] = torch.compile(function, dynamic=False)
    return compiled


__all__ = ["GemmProblem"]
