"""transformers as the whole-model bench drives it, on a CPU: what is compiled gives the tokens of what is not."""

from __future__ import annotations

from functools import partial

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tilewright.bench.llm_peers import Compiled, Eager

PROMPTS = ([[5, 17, 200, 3, 99], [42, 8, 8, 250, 31]], [[1, 64, 128, 254, 19], [23, 7, 7, 90, 11]])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 256}
    config = transformers.LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, initializer_range=0.5)
    return transformers.LlamaForCausalLM(config).eval()


def chosen(side):
    """The tokens of two batches of prompts, one after the other: the second finds what the first left."""
    found = []
    for prompts in PROMPTS:
        side.prefill(prompts)
        found.append([side.tokens])
        for _ in range(4):
            side.steps(1)
            found[-1].append(side.tokens)
    return found


def test_the_compiled_peer_reads_prompt_after_prompt(model, monkeypatch):
    """Traced by the compiler as on a GPU, and run without what needs one: graphs, and a compiler of its output."""
    compiled = partial(torch.compile, backend="aot_eager", dynamic=False)
    monkeypatch.setattr(torch, "compile", lambda function, **_: compiled(function))
    assert chosen(Compiled(model)) == chosen(Eager(model))
