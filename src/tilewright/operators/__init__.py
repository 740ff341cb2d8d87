"""The operators of a decoder-only LLM, each a few lines of the tile language beside a plain float64 reference."""

from __future__ import annotations

from tilewright.operators.activation import geglu, geglu_backward, gelu, silu, swiglu, swiglu_backward
from tilewright.operators.argmax import argmax, topk
from tilewright.operators.attention import attention, paged_attention
from tilewright.operators.embedding import embedding
from tilewright.operators.levels import level_again, level_begin, level_join, level_parts
from tilewright.operators.likeliest import likeliest_join, likeliest_parts
from tilewright.operators.matmul import batched_matmul, gate_up, matmul
from tilewright.operators.norm import add_rmsnorm, layernorm, rmsnorm, rmsnorm_backward, rmsnorm_weight_backward
from tilewright.operators.operator import Exact, Operator, operator
from tilewright.operators.packed import key_ranges, packed_attention
from tilewright.operators.penalties import mark, penalise
from tilewright.operators.rope import paged_rope_cache, rope, rope_cache
from tilewright.operators.sample import sample_join, sample_parts
from tilewright.operators.scale_add import scale_add
from tilewright.operators.softmax import softmax, softmax_backward

OPERATORS: dict[str, Operator] = {
    op.name: op
    for op in (
        matmul, gate_up, batched_matmul, rmsnorm, add_rmsnorm, layernorm, softmax, silu, gelu, swiglu, geglu, scale_add,
        rope, rope_cache, paged_rope_cache, attention, paged_attention, packed_attention, key_ranges,
        embedding, argmax, topk,
        sample_parts, sample_join, level_begin, level_parts, level_join, level_again,
        penalise, mark, likeliest_parts, likeliest_join,
        rmsnorm_backward, rmsnorm_weight_backward, softmax_backward, swiglu_backward, geglu_backward,
    )
}  # fmt: skip

__all__ = [
    "OPERATORS",
    "Exact",
    "Operator",
    "add_rmsnorm",
    "argmax",
    "attention",
    "batched_matmul",
    "embedding",
    "gate_up",
    "geglu",
    "geglu_backward",
    "gelu",
    "key_ranges",
    "layernorm",
    "level_again",
    "level_begin",
    "level_join",
    "level_parts",
    "likeliest_join",
    "likeliest_parts",
    "mark",
    "matmul",
    "operator",
    "packed_attention",
    "paged_attention",
    "paged_rope_cache",
    "penalise",
    "rmsnorm",
    "rmsnorm_backward",
    "rmsnorm_weight_backward",
    "rope",
    "rope_cache",
    "sample_join",
    "sample_parts",
    "scale_add",
    "silu",
    "softmax",
    "softmax_backward",
    "swiglu",
    "swiglu_backward",
    "topk",
]
