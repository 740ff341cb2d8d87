"""config.json -> ModelConfig, against transformers' own reading of the same file; and every refusal."""

from __future__ import annotations

import json

import pytest
from model_folders import MODELS

from tilewright.errors import ModelError, UnsupportedModel
from tilewright.models.config import SUPPORTED, ModelConfig, Rope

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 256,
    "hidden_size": 128,
    "intermediate_size": 176,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
QWEN2 = {**LLAMA, "architectures": ["Qwen2ForCausalLM"], "num_key_value_heads": 2}


def read(**changes):
    return ModelConfig.from_dict({**LLAMA, **changes})


def test_defaults_of_llama():
    config = read()
    assert (config.kv_heads, config.head_dim, config.context, config.norm_eps) == (4, 32, 2048, 1e-6)
    assert config.rope == Rope(10000.0)
    assert not (config.tied_embeddings or config.qkv_bias or config.output_bias or config.mlp_bias or config.qk_norm)
    assert config.windows == (None, None, None)
    assert config.qkv_rows == 12 * 32


@pytest.mark.parametrize("name", sorted(MODELS))
def test_agrees_with_transformers(name):
    transformers = pytest.importorskip("transformers")
    family, options = MODELS[name]
    theirs = getattr(transformers, f"{family}Config")(architectures=[f"{family}ForCausalLM"], **options)
    ours = ModelConfig.from_dict(json.loads(theirs.to_json_string(use_diff=False)))
    assert ours.kv_heads == theirs.num_key_value_heads
    assert ours.head_dim == (getattr(theirs, "head_dim", None) or theirs.hidden_size // theirs.num_attention_heads)
    assert (ours.context, ours.norm_eps) == (theirs.max_position_embeddings, theirs.rms_norm_eps)
    assert ours.tied_embeddings == theirs.tie_word_embeddings
    assert ours.rope.theta == theirs.rope_parameters["rope_theta"]
    assert ours.rope.kind == theirs.rope_parameters["rope_type"]


@pytest.mark.parametrize("name", sorted(MODELS))
def test_absent_keys_take_transformers_defaults(name):
    """A file with only the keys that differ from the defaults reads like one with all of them."""
    transformers = pytest.importorskip("transformers")
    family, options = MODELS[name]
    theirs = getattr(transformers, f"{family}Config")(architectures=[f"{family}ForCausalLM"], **options)
    whole = json.loads(theirs.to_json_string(use_diff=False))
    required = {key: whole[key] for key in LLAMA}
    rope = {"rope_parameters": whole["rope_parameters"]}
    short = {**required, **rope, **{k: v for k, v in options.items() if k in whole}}
    assert ModelConfig.from_dict(short) == ModelConfig.from_dict({**whole, "bos_token_id": None, "eos_token_id": None})


def test_llama3_rope_before_transformers_5():
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config = read(rope_theta=5e5, rope_scaling={**scaling, "original_max_position_embeddings": 8192})
    assert config.rope == Rope(5e5, "llama3", 8.0, 1.0, 4.0, 8192)


def test_linear_rope_with_the_oldest_key():
    assert read(rope_scaling={"type": "linear", "factor": 2}).rope == Rope(10000.0, "linear", 2.0)


def test_rope_parameters_of_transformers_5():
    assert read(rope_parameters={"rope_type": "default", "rope_theta": 7.0}).rope == Rope(7.0)


def test_rope_nested_by_layer_type():
    same = {"rope_type": "default", "rope_theta": 9.0}
    nested = {"full_attention": same, "sliding_attention": same}
    assert read(rope_parameters=nested).rope == Rope(9.0)
    with pytest.raises(UnsupportedModel, match="differ between layer types"):
        read(rope_parameters={**nested, "full_attention": {**same, "rope_theta": 8.0}})


def qwen2_windows(**changes):
    return ModelConfig.from_dict({**QWEN2, "sliding_window": 64, **changes}).windows


def test_windows_of_qwen2():
    assert qwen2_windows() == (None, None, None)
    assert qwen2_windows(use_sliding_window=True, max_window_layers=1) == (None, 64, 64)
    assert qwen2_windows(use_sliding_window=True, max_window_layers=3) == (None, None, None)
    types = ["sliding_attention", "full_attention", "sliding_attention"]
    assert qwen2_windows(use_sliding_window=True, layer_types=types) == (64, None, 64)


def test_windows_of_mistral():
    mistral = {**LLAMA, "architectures": ["MistralForCausalLM"], "num_key_value_heads": 4}
    assert ModelConfig.from_dict(mistral).windows == (4096,) * 3
    assert ModelConfig.from_dict({**mistral, "sliding_window": None}).windows == (None,) * 3


def test_end_tokens_of_both_files():
    config = ModelConfig.from_dict({**LLAMA, "eos_token_id": 2}, generation={"eos_token_id": [7, 2]})
    assert config.eos_ids == (2, 7)
    with pytest.raises(ModelError, match=r"generation_config.json: eos_token_id is \[7, '2'\]"):
        ModelConfig.from_dict({**LLAMA, "eos_token_id": 2}, generation={"eos_token_id": [7, "2"]})


def test_from_folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, "eos_token_id": [3, 4], "bos_token_id": 1}))
    config = ModelConfig.from_folder(tmp_path)
    assert (config.eos_ids, config.bos_id) == ((3, 4), 1)


# ------------------------------------------------------------------------------------------- refusals


def test_unknown_architecture_names_itself_and_the_supported():
    with pytest.raises(
        UnsupportedModel, match=r"architecture GPT2LMHeadModel is not supported.*" + ".*".join(SUPPORTED)
    ):
        read(architectures=["GPT2LMHeadModel"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu"}, r"hidden_act 'gelu' is not supported; only 'silu'"),
        ({"quantization_config": {"quant_method": "awq"}}, r"weights quantised by awq; use the f32, f16 or bf16"),
        ({"quantization_config": "awq"}, r"weights quantised by awq; use the f32, f16 or bf16"),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 2}},
            r"rope type 'yarn' is not supported; only default, linear",
        ),
        ({"partial_rotary_factor": 0.5}, r"partial_rotary_factor 0.5 is not supported"),
    ],
)
def test_unsupported(changes, message):
    with pytest.raises(UnsupportedModel, match=message):
        read(**changes)


def test_unknown_layer_type():
    with pytest.raises(UnsupportedModel, match="layer type 'chunked_attention'"):
        qwen2_windows(use_sliding_window=True, layer_types=["chunked_attention"] * 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": None}, r"hidden_size is None; it must be an integer of at least 1"),
        ({"num_hidden_layers": "two"}, r"num_hidden_layers is 'two'"),
        ({"num_attention_heads": 0}, r"num_attention_heads is 0"),
        ({"num_attention_heads": True}, r"num_attention_heads is True"),
        ({"rms_norm_eps": -1}, r"rms_norm_eps is -1; it must be a number above 0"),
        ({"tie_word_embeddings": "no"}, r"tie_word_embeddings is 'no'; it must be true or false"),
        ({"num_key_value_heads": 3}, r"num_attention_heads 4 is not a multiple of num_key_value_heads 3"),
        ({"hidden_size": 130}, r"hidden_size 130 is not a multiple of num_attention_heads 4"),
        ({"head_dim": 33}, r"head_dim 33 is odd"),
        ({"architectures": []}, r"`architectures` is missing"),
        ({"rope_parameters": 3}, r"rope_parameters is 3; it must be an object"),
        ({"rope_scaling": {"rope_type": "linear"}}, r"factor is missing"),
        ({"architectures": [["LlamaForCausalLM"]]}, r"`architectures` is missing"),
        ({"rope_theta": 0}, r"rope_theta is 0; it must be a number above 0"),
        ({"rms_norm_eps": 10**400}, r"rms_norm_eps is 1000.*; it must be a number above 0"),
        (
            {"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4.0, "high_freq_factor": 4}},
            r"low_freq_factor is 4 and high_freq_factor 4; the low one must be below",
        ),
        ({"eos_token_id": "two"}, r"config.json: eos_token_id is 'two'"),
        ({"bos_token_id": 1.5}, r"bos_token_id is 1.5"),
    ],
)
def test_malformed(changes, message):
    with pytest.raises(ModelError, match=message):
        read(**changes)


def test_missing_key_is_named():
    with pytest.raises(ModelError, match=r"config.json: vocab_size is missing"):
        ModelConfig.from_dict({k: v for k, v in LLAMA.items() if k != "vocab_size"})


def test_layer_types_of_wrong_length():
    with pytest.raises(ModelError, match="layer_types must list one type for each of the 3 layers"):
        qwen2_windows(use_sliding_window=True, layer_types=["full_attention"])


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not valid JSON"), ("[" * 10**6, "not valid JSON"), ("[1]", "holds list, not a JSON object")],
)
def test_damaged_file(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match=message):
        ModelConfig.from_folder(tmp_path)


def test_not_text(tmp_path):
    (tmp_path / "config.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ModelError, match=r"config.json: is not UTF-8 text .*; fetch the file again"):
        ModelConfig.from_folder(tmp_path)


def test_unreadable(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(ModelError, match=r"config.json: cannot be read \(Is a directory\); correct its permissions"):
        ModelConfig.from_folder(tmp_path)


def test_missing_file(tmp_path):
    with pytest.raises(ModelError, match=r"config.json: no such file; give the folder of a Hugging Face model"):
        ModelConfig.from_folder(tmp_path)
