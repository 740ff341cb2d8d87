"""What a model meets: its real passes, recorded without weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tilewright.errors import ModelError
from tilewright.language.dtypes import bf16, f32
from tilewright.models.config import ModelConfig, Rope
from tilewright.models.shapes import met_by, shapes_of

CONFIG = ModelConfig(
    "LlamaForCausalLM", 1000, 64, 96, 16, 4, 2, 16, 256, 1e-6, Rope(), False, False, False, False, False, (None,) * 16
)


def sizes(name: str, met, where: str) -> set[tuple[int, ...]]:
    return {tuple(n for _, n in sorted(m.sizes)) for m in met if m.operator.name == name and m.where == where}


def test_products_of_a_prompt_and_of_a_token():
    met = met_by(CONFIG, bf16, prompt=32, batch=4, context=128)
    assert sizes("matmul", met, "prefill") == {  # (K, M, N)
        (64, 32, 128), (64, 32, 64), (96, 32, 64), (64, 1, 64), (96, 1, 64), (64, 1, 1000),
    }  # fmt: skip
    assert sizes("matmul", met, "decode") == {(64, 4, 128), (64, 4, 64), (96, 4, 64), (64, 4, 1000)}
    assert sizes("gate_up", met, "decode") == {(64, 4, 96)}


def test_attention_is_met_with_its_options_and_at_the_context():
    found = [m for m in met_by(CONFIG, f32, prompt=32, batch=1, context=128) if m.operator.name == "attention"]
    assert {dict(m.sizes)["S"] for m in found} == {32, 1}
    assert {dict(m.sizes)["T"] for m in found} == {128}
    assert all(dict(m.options)["causal"] is True and dict(m.dtypes)["lengths"] == "i32" for m in found)


def test_each_is_listed_once_however_many_layers():
    few, many = (
        met_by(replace(CONFIG, layers=n, windows=(None,) * n), f32, prompt=8, batch=1, context=64) for n in (2, 40)
    )
    assert [m.name for m in few] == [m.name for m in many]
    assert len({m.name for m in many}) == len(many)


def test_windows_that_differ_are_all_met():
    config = replace(CONFIG, layers=3, windows=(None, 32, None))
    met = met_by(config, f32, prompt=8, batch=1, context=64)
    assert {dict(m.options).get("window") for m in met if m.operator.name == "attention"} == {None, 32}


def test_a_folder_needs_no_weights(tmp_path: Path):
    shipped = Path("src/tilewright/models/shipped")
    (tmp_path / "config.json").write_bytes((shipped / "config.json").read_bytes())
    bare = shapes_of(tmp_path)
    assert all(dict(m.dtypes).get("b", "bf16") == "bf16" for m in bare)
    assert [m.sizes for m in bare] == [m.sizes for m in shapes_of(shipped)]


def test_weights_of_a_large_model_take_no_memory():
    large = replace(
        CONFIG, vocab=128_256, hidden=4096, intermediate=14336, heads=32, kv_heads=8, head_dim=128, context=8192
    )
    met = met_by(large, bf16, prompt=512, batch=1, context=1024)
    assert (4096, 512, 28672 // 2) in sizes("gate_up", met, "prefill")
    assert np.prod([n for _, n in met[0].sizes]) > 0


def test_a_folder_without_a_model_is_refused(tmp_path: Path):
    with pytest.raises(ModelError, match=r"config\.json"):
        shapes_of(tmp_path)
