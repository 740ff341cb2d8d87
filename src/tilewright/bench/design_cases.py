"""What `tilewright bench design` designs: shapes timed beside torch, and families that the search is judged on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tilewright.bench.vendor import COMPILED, NAME
from tilewright.design.design import Choice

Sizes = Mapping[str, int]

FAMILIES = ("design_f32", "design_bf16", "design_amx", "design_rows", "design_model", "design_race", "design_agree")


@dataclass(frozen=True)
class DesignCase:
    """An operator at fixed sizes, by its tile program's own names; `peer` is what it is timed against, if anything."""

    family: str
    operator: str
    dtype: str
    sizes: tuple[tuple[str, int], ...]
    peer: str = NAME
    slow: bool = False

    @property
    def name(self) -> str:
        """`matmul f32 M=512 N=512 K=512`."""
        return f"{self.operator} {self.dtype} {' '.join(f'{d}={n}' for d, n in self.sizes)}"

    @property
    def arguments(self) -> dict[str, Any]:
        """Of `tilewright.search`: the operator, its dtype and its sizes."""
        return {"operator": self.operator, "dtype": self.dtype, **dict(self.sizes)}


def case(family: str, operator: str, dtype: str, *, peer: str = NAME, slow: bool = False, **sizes: int) -> DesignCase:
    """A case from its sizes."""
    return DesignCase(family, operator, dtype, tuple(sizes.items()), peer, slow)


# (M, N, K): cubes, tall, wide, odd; those that a quick run takes come first in each line.
PRODUCTS = (
    *((512, 512, 512), (1024, 1024, 1024), (128, 128, 128), (256, 256, 256), (2048, 2048, 2048)),
    *((4096, 256, 256), (8192, 64, 512)),
    *((256, 4096, 256), (64, 8192, 512)),
    *((1000, 777, 333), (127, 129, 131), (513, 1025, 257)),
)
# (N, K) of Llama 3.2 1B (fused QKV, down), and its rows: decoding, a batch, a draft to verify, prompts.
LLAMA = ((3072, 2048), (2048, 8192))
LLAMA_ROWS = (1, 7, 16, 64, 512)
MORE_LLAMA = ((1, 8192, 2048), (16, 8192, 2048), (512, 8192, 2048))
_QUICK_PRODUCTS = frozenset(
    [(512, 512, 512), (1024, 1024, 1024), (4096, 256, 256), (256, 4096, 256), (1000, 777, 333), (127, 129, 131)]
    + [(m, 3072, 2048) for m in LLAMA_ROWS]
)


def product_cases(dtype: str, family: str) -> Iterator[DesignCase]:
    """Matrix products beside torch; at least 24."""
    shapes = [*PRODUCTS, *((m, n, k) for n, k in LLAMA for m in LLAMA_ROWS), *MORE_LLAMA]
    for m, n, k in shapes:
        slow = (m, n, k) not in _QUICK_PRODUCTS
        yield case(family, "matmul", dtype, slow=slow, M=m, N=n, K=k)


ROW_OPERATORS = ("rmsnorm", "add_rmsnorm", "layernorm", "softmax", "swiglu", "gelu", "scale_add")
_QUICK_ROWS = frozenset({"rmsnorm", "softmax", "swiglu"})


def row_cases() -> Iterator[DesignCase]:
    """Row operators beside torch.compile."""
    for dtype in ("f32", "bf16"):
        for name in ROW_OPERATORS:
            slow = name not in _QUICK_ROWS or dtype == "bf16"
            yield case("design_rows", name, dtype, peer=COMPILED, slow=slow, M=4096, D=4096)


def speed_cases(amx: bool) -> list[DesignCase]:
    """Every case that is timed beside torch; bf16 products are a family of their own where the machine has AMX."""
    bf16 = "design_amx" if amx else "design_bf16"
    return [*product_cases("f32", "design_f32"), *product_cases("bf16", bf16), *row_cases()]


@dataclass(frozen=True)
class Grid:
    """A part of a space that is measured whole: every legal combination of `choices` over the decisions `base`."""

    case: DesignCase
    choices: Mapping[str, Sequence[Choice | None]]
    base: Mapping[str, Choice]


def grids(quick: bool) -> list[Grid]:
    """Three families of kernels, each with a grid: register tiles and packing, rows in three passes, one row."""
    few = 2 if quick else 1
    return [
        Grid(
            case("design_model", "matmul", "f32", M=384, N=384, K=384),
            {
                "tile.m": (1, 2, 4, 8, 12)[:: 1 if few == 1 else 2],
                "tile.n": (16, 32, 48),
                "unroll.k": (None, 4),
                "pack.a": (None, "panel"),
                "pack.b": (None, "panel"),
            },
            {"lanes": ("n",), "tile.k": 1},
        ),
        Grid(
            case("design_model", "softmax", "f32", M=1024, D=1024),
            {
                "tile.m": (1, 2, 4)[::few],
                **{f"tile.{d}": (16, 64) for d in ("d", "d1", "d2")},
                "keep.exp1": (None, True),
                "nontemporal.y": (None, True)[: 3 - few],
            },
            {"lanes": ("d2", "d1", "d")},
        ),
        Grid(
            case("design_model", "matmul", "bf16", M=1, N=2048, K=2048),
            {
                "tile.n": (1, 2, 4, 8),
                "tile.k": (16, 32, 64, 128, 256)[::few],
                "unroll.k": (None, 2),
                "atom.dot0": (None, "bf16x2"),
            },
            {"lanes": ("k", "n"), "tile.m": 1},
        ),
    ]


RACES = (
    case("design_race", "matmul", "f32", M=512, N=512, K=512),
    case("design_race", "matmul", "bf16", M=16, N=2048, K=2048),
    case("design_race", "softmax", "f32", M=1024, D=2048),
    case("design_race", "rmsnorm", "f32", M=1024, D=2048),
    case("design_race", "attention", "f32", B=1, H=4, G=2, S=128, T=256, D=64, E=64),
    case("design_race", "gate_up", "f32", M=16, N=1024, K=1024),
)
"""Families on which the search races against random designs."""

KEYS = (
    *(case("design_agree", "matmul", "f32", M=m, N=n, K=k) for m, n, k in (
        (64, 64, 64), (128, 128, 128), (256, 256, 256), (1, 1024, 1024), (4, 1024, 1024), (16, 1024, 1024),
        (64, 1024, 512), (200, 100, 50), (1, 2048, 512),
    )),
    *(case("design_agree", "matmul", "bf16", M=m, N=n, K=k) for m, n, k in (
        (1, 1024, 1024), (16, 1024, 1024), (128, 256, 256),
    )),
    *(case("design_agree", name, "f32", M=256, D=1024) for name in ("rmsnorm", "softmax", "layernorm", "silu")),
    *(case("design_agree", name, "bf16", M=256, D=1024) for name in ("rmsnorm", "swiglu", "scale_add")),
    case("design_agree", "attention", "f32", B=1, H=2, G=2, S=64, T=64, D=64, E=64),
)  # fmt: skip
"""Twenty keys, each designed twice."""
