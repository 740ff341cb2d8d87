"""The model that ships: complete, small, valid, and as good as its card says."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import struct
from pathlib import Path
from types import ModuleType

import pytest
from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "src" / "tilewright" / "models" / "shipped"
TEXT = Path(__file__).parent / "data" / "heldout.txt"


@pytest.fixture(scope="module")
def config() -> dict:
    return json.loads((MODEL / "config.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def card() -> str:
    return (MODEL / "README.md").read_text("utf-8")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(MODEL / "tokenizer.json"))


def evaluate_script() -> ModuleType:
    """The script that the card names."""
    spec = importlib.util.spec_from_file_location("evaluate_script", ROOT / "training" / "evaluate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def safetensors_header(path: Path) -> dict:
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    return header


def test_folder_is_complete():
    wanted = {"config.json", "generation_config.json", "model.safetensors", "README.md"}
    assert {path.name for path in MODEL.iterdir()} == wanted | {"tokenizer.json", "tokenizer_config.json"}


def test_sizes():
    assert (MODEL / "model.safetensors").stat().st_size <= 16_000_000
    assert TEXT.stat().st_size <= 60_000


def test_tensors_are_bf16_and_fit_the_config(config):
    header = safetensors_header(MODEL / "model.safetensors")
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    query = config["num_attention_heads"] * config["head_dim"]
    key = config["num_key_value_heads"] * config["head_dim"]
    layer = {
        "input_layernorm": [hidden],
        "post_attention_layernorm": [hidden],
        "self_attn.q_proj": [query, hidden],
        "self_attn.k_proj": [key, hidden],
        "self_attn.v_proj": [key, hidden],
        "self_attn.o_proj": [hidden, query],
        "mlp.gate_proj": [inner, hidden],
        "mlp.up_proj": [inner, hidden],
        "mlp.down_proj": [hidden, inner],
    }
    wanted = {"model.embed_tokens.weight": [config["vocab_size"], hidden], "model.norm.weight": [hidden]}
    for number in range(config["num_hidden_layers"]):
        wanted |= {f"model.layers.{number}.{name}.weight": shape for name, shape in layer.items()}
    assert {name: entry["shape"] for name, entry in header.items()} == wanted
    assert {entry["dtype"] for entry in header.values()} == {"BF16"}
    assert config["architectures"] == ["LlamaForCausalLM"] and config["tie_word_embeddings"]


def test_tokenizer_fits_the_config(config, tokenizer):
    assert tokenizer.get_vocab_size() == config["vocab_size"]
    assert tokenizer.token_to_id("<|endoftext|>") == config["bos_token_id"] == config["eos_token_id"]


def test_tokenizer_round_trips_and_marks_the_beginning(config, tokenizer):
    text = TEXT.read_text("utf-8") + "\tif x:  # naïve 漢字 \u2028 🙂\r\n\x00"
    ids = tokenizer.encode(text).ids
    assert ids[0] == config["bos_token_id"]
    assert tokenizer.decode(ids[1:]) == text


def test_tokenizer_keeps_indentation_whole_and_splits_digits(tokenizer):
    tokens = tokenizer.encode("if x:\n            y = 1024", add_special_tokens=False).tokens
    assert tokens == ["if", "Ġx", ":", "Ċ", "Ġ" * 12, "y", "Ġ=", "Ġ", "1", "0", "2", "4"]


def test_chat_template_asks_in_a_docstring():
    from transformers import AutoTokenizer

    turns = [{"role": "user", "content": 'Sort a """list""".'}, {"role": "assistant", "content": "x.sort()"}]
    text = AutoTokenizer.from_pretrained(MODEL).apply_chat_template(turns, tokenize=False)
    assert text == '<|endoftext|>"""Sort a "list"."""\n\n\nx.sort()\n\n\n'


def test_greedy_continuation_is_python(tokenizer):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    prompt = tokenizer.encode("def fibonacci(n):").ids
    ids = model.generate(torch.tensor([prompt]), do_sample=False, repetition_penalty=1.0, max_new_tokens=110)[0]
    text = tokenizer.decode(ids[1:].tolist())
    function = text.split("\n\n\n")[0]  # the first top-level block
    assert ast.parse(function).body[0].name == "fibonacci"


def test_card_lists_every_source_with_a_licence(card):
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| [\d,]+ \| [\d.]+ \| \d \|$", card, re.MULTILINE)
    assert len(rows) > 10
    assert all(re.search(r"MIT|BSD|Apache|PSF", licence) for _, _, licence in rows)


def test_card_holds_the_loss_curve_of_the_best_checkpoint(card):
    curve = json.loads(re.search(r"```json\n(.*?)```", card, re.DOTALL).group(1))
    best = min(curve, key=lambda row: row["heldout"])
    assert best["step"] > 1000 and f"step {best['step']:,}," in card
    assert f"| bf16 autocast | {best['heldout']:.4f} |" in card
    assert best["heldout"] < 0.5 * curve[0]["heldout"]


def test_perplexity_is_the_one_on_the_card(card):
    row = re.search(r"heldout\.txt` \| ([\d,]+) \| float32 \| ([\d.]+) \| ([\d.]+) \|", card)
    measured = evaluate_script().evaluate(MODEL, TEXT.read_text("utf-8"), 1024)
    assert measured["tokens"] == int(row.group(1).replace(",", ""))
    # Float32 sums in another order move the mean by about 1e-6; half a unit in the fourth digit is 5e-4.
    assert measured["perplexity"] == pytest.approx(float(row.group(3)), abs=5e-4)
