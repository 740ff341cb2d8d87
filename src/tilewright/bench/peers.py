"""The expressions that are timed: what a user of Tilewright writes, and what a user of torch writes instead.

torch is imported here and nowhere else in the bench. Both sides get the same tensors and return a new one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from tilewright import ops
from tilewright.bench.cases import Case
from tilewright.bench.reference import ALPHA, EPSILON
from tilewright.runtime.buffer import Buffer

Tensors = Mapping[str, Any]
Expression = Callable[[Tensors], Any]

OURS: dict[str, Callable[..., Any]] = {
    "matmul": lambda t, out=None: ops.matmul(t["a"], t["b"], out=out),
    "linear": lambda t, out=None: ops.linear(t["x"], t["w"], out=out),
    "rmsnorm": lambda t, out=None: ops.rmsnorm(t["x"], t["weight"], EPSILON, out=out),
    "softmax": lambda t, out=None: ops.softmax(t["x"], out=out),
    "swiglu": lambda t, out=None: ops.swiglu(t["gate"], t["up"], out=out),
    "scale_add": lambda t, out=None: ops.scale_add(t["a"], ALPHA, t["b"], out=out),
    "rope": lambda t, out=None: ops.rope(t["x"], t["cos"], t["sin"], out=out),
}
"""What is timed as Tilewright; the check calls the same with an `out` that is full of NaN."""


def _rope(t: Tensors) -> Any:
    """Rotary embedding as the models of transformers write it."""
    x = t["x"]
    half = x.shape[-1] // 2
    rotated = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * t["cos"][None, :, None] + rotated * t["sin"][None, :, None]


PEERS: dict[tuple[str, str], Expression] = {
    ("matmul", "torch"): lambda t: torch.matmul(t["a"], t["b"]),
    ("linear", "torch"): lambda t: F.linear(t["x"], t["w"]),
    ("rmsnorm", "torch"): lambda t: F.rms_norm(t["x"], t["weight"].shape, t["weight"], EPSILON),
    ("softmax", "torch"): lambda t: torch.softmax(t["x"], dim=-1),
    ("swiglu", "torch"): lambda t: F.silu(t["gate"]) * t["up"],
    ("scale_add", "torch"): lambda t: ALPHA * t["a"] + t["b"],
    ("scale_add", "torch.add"): lambda t: torch.add(t["b"], t["a"], alpha=ALPHA),
    ("rope", "torch"): _rope,
}

TORCH_DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def operands(case: Case, seed: int) -> dict[str, Any]:
    """Random operands of `case`: normal activations, weights scaled so that results stay near 1, true angles."""
    generator = torch.Generator().manual_seed(seed)
    sizes = dict(case.sizes)
    tensors = {}
    for name, dims in case.workload.operands.items():
        shape = tuple(sizes[d] for d in dims)
        value = torch.randn(shape, generator=generator)
        if name in ("b", "w") and "K" in sizes:
            value *= sizes["K"] ** -0.5
        tensors[name] = value.to(TORCH_DTYPES[case.dtype])
    if case.operator == "rope":
        tensors.update(angles(sizes["S"], sizes["C"], TORCH_DTYPES[case.dtype]))
    return tensors


def angles(positions: int, channels: int, dtype: torch.dtype) -> dict[str, Any]:
    """cos and sin `[positions, channels]`, both halves alike, for the usual base of 10,000."""
    frequency = 10_000.0 ** (-torch.arange(0, channels, 2, dtype=torch.float64) / channels)
    angle = torch.outer(torch.arange(positions, dtype=torch.float64), frequency).repeat(1, 2)
    return {"cos": angle.cos().to(dtype), "sin": angle.sin().to(dtype)}


def poisoned(case: Case) -> Any:
    """A tensor for the result of `case`, full of NaN. Once freed, its block is likely to hold the next result."""
    sizes = dict(case.sizes)
    shape = tuple(sizes[d] for d in case.workload.result)
    return torch.full(shape, float("nan"), dtype=TORCH_DTYPES[case.dtype])


def to_numpy(tensor: Any) -> Any:
    """The tensor's memory as an array of its own element type (bf16 is ml_dtypes')."""
    return Buffer.of(tensor).numpy()


def keep_freed_memory() -> bool:
    """Let the C library reuse large blocks instead of returning them to the system; whether it could be told so.

    By default glibc maps a fresh block for every result of 32 MiB and more, and the page faults of that cost as
    much as the operator. Both sides would pay; neither is what is compared here, and torch gains the most.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    trim_threshold, mmap_threshold, huge = -1, -3, 2**30
    return bool(mallopt(mmap_threshold, huge) and mallopt(trim_threshold, 2**31 - 1))


def set_threads(count: int) -> None:
    """Let torch use `count` threads."""
    torch.set_num_threads(count)


def version() -> str:
    """The version of torch."""
    return str(torch.__version__)


class Transformers:
    """Greedy decoding with transformers in bf16, as lean as its interface allows (no `generate` around it)."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM

        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
        self._cache: Any = None
        self._token: Any = None

    def prefill(self, ids: list[int]) -> None:
        """Read a new prompt and choose the first token."""
        self._cache = None
        self._run(torch.tensor([ids]))

    def step(self) -> None:
        """Choose one more token."""
        self._run(self._token)

    def _run(self, ids: Any) -> None:
        with torch.inference_mode():
            output = self._model(ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        self._cache = output.past_key_values
        self._token = output.logits[:, -1].argmax(dim=-1, keepdim=True)
