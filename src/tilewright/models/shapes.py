"""Every operator and shape that a model meets: found by recording its passes, with no weights in memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.errors import WeightsError
from tilewright.language.dtypes import DType, bf16
from tilewright.models.config import ModelConfig
from tilewright.models.decoder import PREFILL_CHUNK, Decoder, Want
from tilewright.models.safetensors import Checkpoint
from tilewright.models.weights import Weights, compute_dtype, layer_weights
from tilewright.operators import Operator
from tilewright.ops import using
from tilewright.runtime.buffer import Buffer

CONTEXT = 1024
"""Tokens that attention looks back on, unless the model's context is shorter."""


@dataclass(frozen=True)
class Met:
    """An operator as a model calls it: sizes by dim, dtypes by operand, static options, and where it is met."""

    operator: Operator
    sizes: tuple[tuple[str, int], ...]
    dtypes: tuple[tuple[str, str], ...]
    options: tuple[tuple[str, Any], ...]
    where: str

    @property
    def name(self) -> str:
        """`matmul M=1 N=3072 K=2048 (decode)`."""
        return f"{self.operator.name} {' '.join(f'{d}={n}' for d, n in self.sizes)} ({self.where})"


def shapes_of(
    folder: Path, *, prompt: int = PREFILL_CHUNK, batch: int = 1, context: int = CONTEXT, chosen_there: bool = False
) -> list[Met]:
    """What the model in a folder meets: a prompt of `prompt` tokens, then decoding `batch` sequences at `context`.

    Only config.json is needed; without weights bf16 is assumed. Each is listed once, in the order in which a pass
    calls them. `chosen_there`: with the choice of tokens, which a GPU makes itself. Raises ModelError for a folder that
    holds no model which Tilewright runs.
    """
    config = ModelConfig.from_folder(folder)
    return met_by(config, _dtype(folder), prompt=prompt, batch=batch, context=context, chosen_there=chosen_there)


def _dtype(folder: Path) -> DType:
    try:
        return compute_dtype(Checkpoint(folder), "auto")
    except WeightsError:
        return bf16


def met_by(
    config: ModelConfig, dtype: DType, *, prompt: int, batch: int, context: int, chosen_there: bool = False
) -> list[Met]:
    """As `shapes_of`, for a configuration and a dtype."""
    windows = 2 * tuple(dict.fromkeys(config.windows))  # twice: of a prompt, the last layer works on one token only
    config = replace(config, layers=len(windows), windows=windows)
    context = min(context, config.context)
    decoder = Decoder(config, _hollow_weights(config, dtype))
    cache = decoder.new_cache(batch, context)
    decoder.reserve(cache, batch, context)
    met: dict[tuple[Any, ...], Met] = {}
    want = Want.BEST if chosen_there else Want.LAST
    for where, rows, tokens in (("prefill", 1, min(prompt, context)), ("decode", batch, 1)):
        with using(_Watch(where, met)):
            decoder.plan(cache, 0, rows, tokens, want)
    return list(met.values())


class _Watch:
    """A backend that notes what is bound and runs nothing."""

    def __init__(self, where: str, met: dict[tuple[Any, ...], Met]) -> None:
        self._where = where
        self._met = met

    def __call__(
        self, operator: Operator, buffers: Mapping[str, Buffer], scalars: object, options: Mapping[str, object]
    ) -> Any:
        dtypes = tuple((n, b.dtype.name) for n, b in buffers.items())
        program = operator.kernel.trace(dict(dtypes), options=dict(options))
        known = {d: n for p in program.params if p.dims is not None for d, n in _dims(p, buffers[p.name])}
        chosen = tuple(sorted((n, o) for n, o in options.items() if o is not None))
        sizes = tuple((d, known[d]) for d in program.dims)
        self._met.setdefault((operator.name, sizes, dtypes, chosen), Met(operator, sizes, dtypes, chosen, self._where))
        return lambda: None


def _dims(param: Any, buffer: Buffer) -> Iterable[tuple[str, int]]:
    return ((d, n) for d, n in zip(param.dims, buffer.shape, strict=True) if isinstance(d, str))


class _Hollow:
    """A reader whose tensors all lie in the same memory, which nobody touches."""

    def __init__(self, dtype: DType, most: int) -> None:
        self._memory = np.empty(most, dtype.numpy)

    def take(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """A tensor of that shape."""
        return self._memory[: math.prod(shape)].reshape(shape)

    def stack(self, parts: list[tuple[str, tuple[int, ...]]]) -> npt.NDArray[Any]:
        """Tensors below one another, as one."""
        return self.take("", (sum(shape[0] for _, shape in parts), *parts[0][1][1:]))


def _hollow_weights(config: ModelConfig, dtype: DType) -> Weights:
    reader = _Hollow(dtype, config.hidden * max(config.vocab, config.intermediate, config.qkv_rows, config.hidden))
    embedding = reader.take("", (config.vocab, config.hidden))
    layers = tuple(layer_weights(reader, config, i) for i in range(config.layers))
    return Weights(dtype, embedding, layers, reader.take("", (config.hidden,)), embedding)
