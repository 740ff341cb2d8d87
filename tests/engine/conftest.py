"""What the tests of the engine share: the helper modules of the tests of models, and one tiny model."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

import plain_operators
from far_memory import far_llm
from model_folders import make_model, make_tokenizer

from tilewright.engine.llm import LLM

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<bot>{% endif %}"
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A tiny Llama in f32 with a tokenizer of letters and a chat template."""
    path = tmp_path_factory.mktemp("llm")
    make_model("llama", path, vocab_size=258, bos_token_id=256, eos_token_id=257)
    make_tokenizer(path, letters=True, chat_template=TEMPLATE)
    return path


@pytest.fixture(params=["plain", "compiled", "remote"])
def llm(request, folder, monkeypatch):
    """The model on operators in NumPy, on compiled kernels, and in memory that the host does not see; four at once."""
    if request.param == "remote":
        return far_llm(folder, monkeypatch)
    return LLM(folder, max_batch=4, operators=plain_operators if request.param == "plain" else None)
