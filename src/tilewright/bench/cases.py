"""The cases of `tilewright bench cpu`: which operators, at which sizes, and what each one costs."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tilewright.errors import ArgumentError
from tilewright.language.dtypes import dtype

Sizes = dict[str, int]

OURS, PEER = "tilewright", "peer"
"""Names of the two sides in every comparison."""

FAMILIES = (
    *("matmul_f32", "matmul_bf16", "decode_linear", "rows", "rows_best"),
    *("compile", "memory", "decoder", "startup"),
)
"""Every family of results; those of the first line are operator cases, each further one is a job of its own."""

LARGE_FLOPS = 1 << 36
"""A call of more operations takes seconds on two cores: such a case is timed in few rounds."""

LLAMA_WEIGHTS = ((3072, 2048), (2048, 2048), (16384, 2048), (2048, 8192), (6144, 4096), (4096, 4096))
"""(N, K) of the projections of Llama 3.2 1B (fused QKV, output, fused gate-up, down) and of 8B (QKV, output)."""

CUBES = (512, 1024, 2048, 4096)
PREFILL_ROWS = (16, 128, 512)
ROW_SHAPE = {"M": 4096, "D": 4096}
HEAD_DIM = 128


@dataclass(frozen=True)
class Workload:
    """One operator as the bench sees it: its operands by name, its result, and its arithmetic.

    `operands` maps a name to its dims; `result` holds the dims of the output; `flops` counts the floating-point
    operations that the mathematics needs (a fused multiply-add is two, an exponential one). `rows` is the dim
    whose positions are independent; a check on large sizes looks at a sample of them.
    """

    name: str
    operands: dict[str, tuple[str, ...]]
    result: tuple[str, ...]
    flops: Callable[[Sizes], int]
    rows: str


def _elements(dims: tuple[str, ...], sizes: Sizes) -> int:
    return math.prod(sizes[d] for d in dims)


def _row_workload(name: str, flops: int, **operands: tuple[str, ...]) -> Workload:
    """An operator on `[M, D]` with `flops` operations an element."""
    return Workload(name, operands, ("M", "D"), lambda s: flops * s["M"] * s["D"], "M")


WORKLOADS: dict[str, Workload] = {
    w.name: w
    for w in (
        Workload("matmul", {"a": ("M", "K"), "b": ("K", "N")}, ("M", "N"), lambda s: 2 * s["M"] * s["N"] * s["K"], "M"),
        Workload("linear", {"x": ("M", "K"), "w": ("N", "K")}, ("M", "N"), lambda s: 2 * s["M"] * s["N"] * s["K"], "M"),
        _row_workload("rmsnorm", 4, x=("M", "D"), weight=("D",)),
        _row_workload("softmax", 5, x=("M", "D")),
        _row_workload("swiglu", 5, gate=("M", "D"), up=("M", "D")),
        _row_workload("scale_add", 2, a=("M", "D"), b=("M", "D")),
        Workload(
            "rope",
            {"x": ("B", "S", "H", "C"), "cos": ("S", "C"), "sin": ("S", "C")},
            ("B", "S", "H", "C"),
            lambda s: 3 * s["B"] * s["S"] * s["H"] * s["C"],
            "S",
        ),
    )
}


@dataclass(frozen=True)
class Case:
    """One line of the bench: an operator at fixed sizes and element type, against one peer.

    `family` groups cases for the floors and the tables. `peer` names the expression in `peers.PEERS`; several
    peers of one operator are several cases.
    """

    family: str
    operator: str
    dtype: str
    sizes: tuple[tuple[str, int], ...]
    peer: str = "torch"
    slow: bool = False

    @property
    def workload(self) -> Workload:
        """The operator's operands and arithmetic."""
        return WORKLOADS[self.operator]

    @property
    def name(self) -> str:
        """`rmsnorm bf16 4096x4096`, followed by the peer where it is not the ordinary one."""
        shape = "x".join(str(size) for _, size in self.sizes)
        return f"{self.operator} {self.dtype} {shape}" + ("" if self.peer == "torch" else f" ({self.peer})")

    @property
    def flops(self) -> int:
        """Floating-point operations of one call."""
        return self.workload.flops(dict(self.sizes))

    @property
    def bytes(self) -> int:
        """Compulsory memory traffic of one call: every operand read once and the result written once."""
        sizes = dict(self.sizes)
        shapes = (*self.workload.operands.values(), self.workload.result)
        return sum(_elements(dims, sizes) for dims in shapes) * dtype(self.dtype).bytes

    @property
    def streams(self) -> tuple[str, ...]:
        """The memory streams that bound this case and are timed beside it; none where arithmetic is the bound."""
        if self.family == "decode_linear":
            return ("read",)
        return ("copy", "copy_nontemporal") if self.family in ("rows", "rows_best") else ()

    def copies(self, cache_bytes: int, limit: int = 64) -> int:
        """Sets of operands in one timed pass: enough to move three times `cache_bytes`, of LARGE_FLOPS / 2 at most.

        What takes that much arithmetic is bound by it, wherever its operands lie.
        """
        return max(1, min(limit, math.ceil(3 * cache_bytes / self.bytes), LARGE_FLOPS // 2 // self.flops))

    @property
    def rounds(self) -> int:
        """The fewest rounds of a comparison: 6 hold the median with 95% confidence, 3 (large cases) with 75%."""
        return 3 if self.flops > LARGE_FLOPS else 6


def _case(family: str, operator: str, dtype_: str, sizes: Sizes, *, peer: str = "torch", slow: bool = False) -> Case:
    return Case(family, operator, dtype_, tuple(sizes.items()), peer, slow)


def _matmuls(dtype_: str) -> Iterator[Case]:
    family = f"matmul_{dtype_}"
    for n in CUBES:
        yield _case(family, "matmul", dtype_, {"M": n, "N": n, "K": n}, slow=n > 1024)
    for n, k in LLAMA_WEIGHTS:
        for m in PREFILL_ROWS if dtype_ == "bf16" else (1, *PREFILL_ROWS):
            yield _case(family, "linear", dtype_, {"M": m, "N": n, "K": k}, slow=m > 16 or n > 4096)


def _rows(dtype_: str) -> Iterator[Case]:
    for operator in ("rmsnorm", "softmax", "swiglu", "scale_add"):
        yield _case("rows", operator, dtype_, ROW_SHAPE)
    yield _case("rows", "rope", dtype_, {"B": 1, "S": 4096, "H": 4096 // HEAD_DIM, "C": HEAD_DIM})
    # torch can do this one in a single call; said here too, though a user who writes alpha * a + b does not get it.
    yield _case("rows_best", "scale_add", dtype_, ROW_SHAPE, peer="torch.add")


def cpu_cases() -> list[Case]:
    """Every operator case of `tilewright bench cpu`, in the order of its tables."""
    cases = [*_matmuls("f32"), *_matmuls("bf16")]
    cases += [_case("decode_linear", "linear", "bf16", {"M": 1, "N": n, "K": k}) for n, k in LLAMA_WEIGHTS]
    cases += [*_rows("f32"), *_rows("bf16")]
    return cases


def select(cases: list[Case], only: str | None, quick: bool) -> list[Case]:
    """Those whose name or family fits the pattern `only` (shell wildcards, or a part); `quick` leaves slow ones out."""
    return [c for c in cases if not (quick and c.slow) and (only is None or matches(only, c.name, c.family))]


def none_fits(only: str | None, families: Sequence[str]) -> ArgumentError:
    """What to say where the pattern `only` fits no case of these families."""
    return ArgumentError(f"no case fits {only!r}; the families are {', '.join(families)}")


def matches(pattern: str, *names: str) -> bool:
    """Whether one of `names` contains `pattern`, or fits it as a shell wildcard."""
    return any(pattern in name or fnmatch.fnmatch(name, pattern) for name in names)
