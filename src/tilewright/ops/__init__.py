"""`tw.ops`: the operators as functions of torch tensors or NumPy arrays.

Each takes operands of any strides and gives a result of the same kind as its first operand (`out=` gives it a
place); nothing is copied on the way. A call checks every shape, dtype and device and raises ArgumentError or
DTypeError naming the operand. `op.bind(..., out=y)` does the checks once and gives a function without arguments
that computes each time it is called. Of an operand that asks for a gradient autograd records rope, rmsnorm, softmax,
swiglu and geglu; other ops refuse it.
"""

from tilewright.ops.attention import attention, paged_attention
from tilewright.ops.backend import Launch, using
from tilewright.ops.elementwise import embedding, geglu, geglu_backward, gelu, scale_add, silu, swiglu, swiglu_backward
from tilewright.ops.levels import level_again, level_begin, level_join, level_parts
from tilewright.ops.linear import gate_up, linear, matmul
from tilewright.ops.rope import paged_rope_cache, rope, rope_cache
from tilewright.ops.rows import (
    add_rmsnorm,
    argmax,
    layernorm,
    rmsnorm,
    rmsnorm_backward,
    softmax,
    softmax_backward,
    topk,
)
from tilewright.ops.sampling import likeliest_join, likeliest_parts, mark, penalise, sample_join, sample_parts
from tilewright.ops.varlen import varlen_attention

__all__ = [
    "Launch",
    "add_rmsnorm",
    "argmax",
    "attention",
    "embedding",
    "gate_up",
    "geglu",
    "geglu_backward",
    "gelu",
    "layernorm",
    "level_again",
    "level_begin",
    "level_join",
    "level_parts",
    "likeliest_join",
    "likeliest_parts",
    "linear",
    "mark",
    "matmul",
    "paged_attention",
    "paged_rope_cache",
    "penalise",
    "rmsnorm",
    "rmsnorm_backward",
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
    "using",
    "varlen_attention",
]
