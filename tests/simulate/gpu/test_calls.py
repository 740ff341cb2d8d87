"""What a step calls is what the engine calls, operator by operator, and models have the weights that they have."""

from __future__ import annotations

from collections import Counter

import pytest

from tilewright.language.dtypes import bf16
from tilewright.models.config import ModelConfig
from tilewright.models.shapes import met_by
from tilewright.simulate.decoder import DECODERS, Decoder
from tilewright.simulate.gpu.calls import Step, calls


def config(d: Decoder) -> ModelConfig:
    return ModelConfig.from_dict(
        {
            "architectures": ["LlamaForCausalLM"], "vocab_size": d.vocab, "hidden_size": d.hidden,
            "intermediate_size": d.intermediate, "num_hidden_layers": d.layers, "num_attention_heads": d.heads,
            "num_key_value_heads": d.kv_heads, "head_dim": d.head_dim, "max_position_embeddings": d.context,
            "rms_norm_eps": 1e-5, "tie_word_embeddings": d.tied,
        }
    )  # fmt: skip


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("where", ["decode", "prefill"])
def test_the_calls_are_those_of_the_engine(name, where):
    """Operators, sizes, dtypes and options of every call, as the engine's recorder meets them."""
    model = DECODERS[name]
    met = [m for m in met_by(config(model), bf16, prompt=512, batch=8, context=1024) if m.where == where]
    engine = {(m.operator.name, frozenset(m.sizes), frozenset(m.dtypes), frozenset(m.options)) for m in met}
    step = Step(8, 1, 1024) if where == "decode" else Step(1, 512, 1024)
    ours = {
        (c.operator, frozenset(c.sizes.items()), _tensors(c.dtypes), frozenset(c.options.items()))
        for c in calls(model, step, "bf16")
    }
    assert engine == ours


def _tensors(dtypes: dict[str, str]) -> frozenset[tuple[str, str]]:
    """Scalars are no operands in memory."""
    return frozenset((n, d) for n, d in dtypes.items() if n not in ("eps", "scale"))


def test_every_layer_is_counted():
    counts = Counter()
    for call in calls(DECODERS["llama-3.1-8b"], Step(1, 1, 1024), "bf16"):
        counts[call.operator] += call.count
    assert counts == {
        "embedding": 1, "rmsnorm": 1, "matmul": 3 * 32 + 1, "rope_cache": 32, "attention": 32, "add_rmsnorm": 64,
        "gate_up": 32,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "billions"),
    [("llama-3.2-1b", 1.2358), ("llama-3.2-3b", 3.2127), ("llama-3.1-8b", 8.0303), ("llama-3.1-70b", 70.5537)],
)
def test_models_have_the_parameters_that_their_makers_state(name, billions):
    assert DECODERS[name].parameters / 1e9 == pytest.approx(billions, rel=1e-4)
