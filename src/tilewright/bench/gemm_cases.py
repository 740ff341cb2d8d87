"""The cases of `tilewright bench gemm`: products of Llama's shapes in bf16, fused epilogues, and odd sizes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

PAIRS = (
    (3072, 2048), (2048, 2048), (16384, 2048), (2048, 8192), (6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336),
    (128256, 4096), (57344, 8192), (8192, 28672),
)  # fmt: skip
"""(N, K) of the weights of Llama 3.2 1B, Llama 3.1 8B and 70B."""
SMALL, LARGE = (1, 4, 16, 64, 128), (512, 2048, 8192)
ODD = ((1000, 777, 333), (4095, 4097, 1031), (17, 4099, 4096), (513, 1025, 2047), (8191, 257, 4095), (127, 5000, 1001))


@dataclass(frozen=True)
class GemmCase:
    """One product c[M, N] = a[M, K] b[N, K]^T: its family in tables and floors, sizes, and epilogue.

    `epilogue` is "", "bias_gelu", "residual" or "gate_up".
    """

    family: str
    m: int
    n: int
    k: int
    epilogue: str = ""
    dtype: str = field(default="bf16")

    @property
    def name(self) -> str:
        """As tables show it."""
        what = f" {self.epilogue}" if self.epilogue else ""
        return f"{self.dtype} {self.m}x{self.n}x{self.k}{what}"

    @property
    def links(self) -> bool:
        """Whether it is timed as a link of a chain: of a lone call a large part is what any call takes."""
        return self.family == "gemm_chain"

    @property
    def flops(self) -> float:
        """Operations."""
        return 2.0 * self.m * self.n * self.k * (2 if self.epilogue == "gate_up" else 1)

    @property
    def bytes(self) -> int:
        """Bytes that must move at least: operands once, the result once (16-bit elements)."""
        weights = self.n * self.k * (2 if self.epilogue == "gate_up" else 1)
        more = {"bias_gelu": self.n, "residual": self.m * self.n}.get(self.epilogue, 0)
        return 2 * (self.m * self.k + weights + self.m * self.n + more)


def gemm_cases() -> tuple[GemmCase, ...]:
    """Every case, in the order of the tables."""
    small = [GemmCase("gemm_small", m, n, k) for n, k in PAIRS for m in SMALL]
    large = [GemmCase("gemm_large", m, n, k) for n, k in PAIRS for m in LARGE]
    fused = [
        GemmCase("gemm_fused", m, n, k, epilogue)
        for n, k in ((6144, 4096), (14336, 4096))
        for m in (16, 512, 2048)
        for epilogue in ("bias_gelu", "residual", "gate_up")
    ]
    odd = [GemmCase("gemm_odd", m, n, k) for m, n, k in ODD]
    chained = [replace(c, family="gemm_chain") for c in small]
    return (*small, *chained, *large, *fused, *odd)


__all__ = ["LARGE", "ODD", "PAIRS", "SMALL", "GemmCase", "gemm_cases"]
