"""Model configuration: a Hugging Face `config.json` read into one frozen, checked `ModelConfig`.

Four families, one description. A family differs from the next only in its defaults (transformers' own, for keys
that a config.json may leave out), its biases, its q/k norm and its sliding window.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilewright.errors import ModelError, UnsupportedModel

ROPE_KINDS = ("default", "linear", "llama3")


@dataclass(frozen=True)
class Rope:
    """Rotary embedding: base `theta` and how its frequencies are stretched for long contexts."""

    theta: float = 10000.0
    kind: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192


@dataclass(frozen=True)
class ModelConfig:
    """All that a forward pass must know about a decoder-only model; counts are in elements, `context` in tokens."""

    architecture: str
    vocab: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    norm_eps: float
    rope: Rope
    tied_embeddings: bool
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    qk_norm: bool
    windows: tuple[int | None, ...]  # per layer: how many tokens, itself included, a token attends to; None is all
    eos_ids: tuple[int, ...] = ()
    bos_id: int | None = None

    @property
    def qkv_rows(self) -> int:
        """Rows of the fused query, key and value projection."""
        return (self.heads + 2 * self.kv_heads) * self.head_dim

    @classmethod
    def from_folder(cls, folder: str | Path) -> ModelConfig:
        """The configuration in `folder/config.json`, with the end tokens of `generation_config.json` added.

        Raises ModelError where the file is missing or a value is malformed, UnsupportedModel where the model is sound
        but not one that Tilewright runs.
        """
        path = Path(folder) / "config.json"
        generation = Path(folder) / "generation_config.json"
        more = read_json(generation) if generation.is_file() else {}
        return cls.from_dict(read_json(path), where=str(path), generation=more)

    @classmethod
    def from_dict(
        cls, raw: Mapping[str, Any], where: str = "config.json", generation: Mapping[str, Any] | None = None
    ) -> ModelConfig:
        """The configuration held by the parsed JSON `raw`; `where` names it in messages."""
        family = _family(raw, where)
        fields = _Fields({**family.defaults, **raw}, where)
        _refuse_unsupported(fields)
        heads, hidden = fields.count("num_attention_heads"), fields.count("hidden_size")
        layers = fields.count("num_hidden_layers")
        config = cls(
            architecture=family.architecture,
            vocab=fields.count("vocab_size"),
            hidden=hidden,
            intermediate=fields.count("intermediate_size"),
            layers=layers,
            heads=heads,
            kv_heads=fields.count("num_key_value_heads", heads),
            head_dim=_head_dim(fields, hidden, heads),
            context=fields.count("max_position_embeddings"),
            norm_eps=fields.positive("rms_norm_eps"),
            rope=_rope(fields),
            tied_embeddings=fields.flag("tie_word_embeddings", False),
            qkv_bias=family.qkv_bias or fields.flag("attention_bias", False),
            output_bias=family.output_bias and fields.flag("attention_bias", False),
            mlp_bias=family.mlp_bias and fields.flag("mlp_bias", False),
            qk_norm=family.qk_norm,
            windows=_windows(fields, layers, family),
            eos_ids=_token_ids(fields, "eos_token_id", generation or {}),
            bos_id=fields.token("bos_token_id"),
        )
        if config.heads % config.kv_heads:
            raise ModelError(
                f"{where}: num_attention_heads {config.heads} is not a multiple of num_key_value_heads "
                f"{config.kv_heads}; correct one of them"
            )
        if config.head_dim % 2:
            raise ModelError(
                f"{where}: head_dim {config.head_dim} is odd; rotary embeddings turn pairs, use an even one"
            )
        return config


# ------------------------------------------------------------------------------------------ the families


@dataclass(frozen=True)
class _Family:
    """What an architecture adds to the common decoder, and transformers' defaults for absent keys."""

    architecture: str
    defaults: Mapping[str, Any]
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    window_by_layer: bool = False  # Qwen: a window only in the layers that use_sliding_window and layer_types name
    has_window: bool = True


_QWEN = {"max_position_embeddings": 32768, "num_key_value_heads": 32, "sliding_window": 4096, "max_window_layers": 28}
_COMMON = {"rms_norm_eps": 1e-6}
_FAMILIES = {
    family.architecture: family
    for family in (
        _Family(
            "LlamaForCausalLM",
            {**_COMMON, "max_position_embeddings": 2048},
            output_bias=True,
            mlp_bias=True,
            has_window=False,
        ),
        _Family(
            "MistralForCausalLM",
            {**_COMMON, "max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096},
        ),
        _Family("Qwen2ForCausalLM", {**_COMMON, **_QWEN}, qkv_bias=True, window_by_layer=True),
        _Family(
            "Qwen3ForCausalLM",
            {**_COMMON, **_QWEN, "head_dim": 128},
            output_bias=True,
            qk_norm=True,
            window_by_layer=True,
        ),
    )
}
SUPPORTED = tuple(_FAMILIES)


def _family(raw: Mapping[str, Any], where: str) -> _Family:
    """The family of the first architecture that `raw` names."""
    named = raw.get("architectures") or []
    if not isinstance(named, list) or not all(isinstance(n, str) for n in named) or not named:
        raise ModelError(f"{where}: `architectures` is missing; set it to one of {', '.join(SUPPORTED)}")
    if named[0] not in _FAMILIES:
        raise UnsupportedModel(f"{where}: architecture {named[0]} is not supported; use one of {', '.join(SUPPORTED)}")
    return _FAMILIES[named[0]]


def _refuse_unsupported(fields: _Fields) -> None:
    """UnsupportedModel for options that would change the result and that no kernel here computes."""
    if quantised := fields.raw.get("quantization_config"):
        method = quantised.get("quant_method", "unknown") if isinstance(quantised, dict) else quantised
        raise UnsupportedModel(f"{fields.where}: weights quantised by {method}; use the f32, f16 or bf16 checkpoint")
    activation = fields.raw.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise UnsupportedModel(f"{fields.where}: hidden_act {activation!r} is not supported; only 'silu' is")


def _head_dim(fields: _Fields, hidden: int, heads: int) -> int:
    """The explicit head size, or hidden size over heads."""
    if fields.raw.get("head_dim") is not None:
        return fields.count("head_dim")
    if hidden % heads:
        raise ModelError(
            f"{fields.where}: hidden_size {hidden} is not a multiple of num_attention_heads {heads} and there is no "
            "head_dim; add head_dim"
        )
    return hidden // heads


def _rope(fields: _Fields) -> Rope:
    """Rotary parameters from `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before)."""
    raw = fields.raw.get("rope_parameters") or fields.raw.get("rope_scaling") or {}
    if not isinstance(raw, dict):
        raise ModelError(f"{fields.where}: rope_parameters is {raw!r}; it must be an object")
    nested = [v for v in raw.values() if isinstance(v, dict)]
    if nested:  # one set per layer type: sound only if all are alike
        if any(v != nested[0] for v in nested):
            raise UnsupportedModel(f"{fields.where}: rope_parameters differ between layer types; they must be equal")
        raw = nested[0]
    theta = fields.raw.get("rope_theta")
    rope = _Fields({"rope_theta": 10000.0 if theta is None else theta, **raw}, fields.where)
    kind = raw.get("rope_type") or raw.get("type") or "default"
    if kind not in ROPE_KINDS:
        raise UnsupportedModel(f"{fields.where}: rope type {kind!r} is not supported; only {', '.join(ROPE_KINDS)} are")
    partial = raw.get("partial_rotary_factor", fields.raw.get("partial_rotary_factor"))
    if partial not in (None, 1, 1.0):
        raise UnsupportedModel(f"{fields.where}: partial_rotary_factor {partial} is not supported; only 1.0 is")
    base = rope.positive("rope_theta")
    if kind == "default":
        return Rope(base)
    if kind == "linear":
        return Rope(base, kind, rope.positive("factor"))
    low, high = rope.positive("low_freq_factor"), rope.positive("high_freq_factor")
    if low >= high:
        raise ModelError(
            f"{fields.where}: low_freq_factor is {low:g} and high_freq_factor {high:g}; the low one must be below the "
            "high one"
        )
    return Rope(
        base,
        kind,
        rope.positive("factor"),
        low,
        high,
        rope.count("original_max_position_embeddings", fields.count("max_position_embeddings")),
    )


def _windows(fields: _Fields, layers: int, family: _Family) -> tuple[int | None, ...]:
    """The attention window of every layer."""
    if not family.has_window or fields.raw.get("sliding_window") is None:
        return (None,) * layers
    if not family.window_by_layer:
        return (fields.count("sliding_window"),) * layers
    if not fields.flag("use_sliding_window", False):
        return (None,) * layers
    window, first = fields.count("sliding_window"), fields.count("max_window_layers", least=0)
    types = fields.raw.get("layer_types")
    if types is None:
        return tuple(window if i >= first else None for i in range(layers))
    if not isinstance(types, list) or len(types) != layers:
        raise ModelError(f"{fields.where}: layer_types must list one type for each of the {layers} layers")
    unknown = sorted({str(t) for t in types} - {"full_attention", "sliding_attention"})
    if unknown:
        raise UnsupportedModel(
            f"{fields.where}: layer type {unknown[0]!r} is not supported; use full_attention or sliding_attention"
        )
    return tuple(window if t == "sliding_attention" else None for t in types)


def _token_ids(fields: _Fields, key: str, generation: Mapping[str, Any]) -> tuple[int, ...]:
    """Every id that `key` has in config.json and in generation_config.json, in order, once each."""
    found: list[int] = []
    beside = str(Path(fields.where).with_name("generation_config.json"))
    for where, raw in ((fields.where, fields.raw.get(key)), (beside, generation.get(key))):
        ids = [] if raw is None else raw if isinstance(raw, list) else [raw]
        if any(isinstance(i, bool) or not isinstance(i, int) for i in ids):
            raise ModelError(f"{where}: {key} is {raw!r}; it must be an integer or a list of integers")
        found += ids
    return tuple(dict.fromkeys(found))


# ------------------------------------------------------------------------------------------- reading


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in the file at `path`; ModelError if there is no such file or it holds something else."""
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not valid JSON ({error}); fetch the file again") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path}: holds {type(value).__name__}, not a JSON object; fetch the file again")
    return value


def read_text(path: Path) -> str:
    """The text of a model's file; ModelError if it is missing, unreadable or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        what = f"no such file; give the folder of a Hugging Face model, which holds {path.name}"
    except OSError as error:
        what = f"cannot be read ({error.strerror}); correct its permissions or fetch it again"
    except UnicodeDecodeError as error:
        what = f"is not UTF-8 text ({error.reason}); fetch the file again"
    raise ModelError(f"{path}: {what}")


class _Fields:
    """Typed access to a JSON object; every refusal names the file, the key, its value and what was wanted."""

    def __init__(self, raw: Mapping[str, Any], where: str) -> None:
        self.raw = raw
        self.where = where

    def _wrong(self, key: str, wanted: str) -> ModelError:
        found = f"is {self.raw[key]!r}" if key in self.raw else "is missing"
        return ModelError(f"{self.where}: {key} {found}; it must be {wanted}")

    def count(self, key: str, default: int | None = None, least: int = 1) -> int:
        """An integer of at least `least`."""
        value = self.raw.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self._wrong(key, f"an integer of at least {least}")
        return value

    def positive(self, key: str) -> float:
        """A finite number above 0."""
        value = self.raw.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= sys.float_info.max:
            raise self._wrong(key, "a number above 0")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """true or false."""
        value = self.raw.get(key)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def token(self, key: str) -> int | None:
        """A token id, or None."""
        value = self.raw.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise self._wrong(key, "an integer or null")
        return value
