"""A tiny model with random weights, a tokenizer of bytes and a chat template, behind a server on a free port."""

from __future__ import annotations

import json
import threading

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tilewright.bench.checkpoint import Shape, write_checkpoint
from tilewright.engine.llm import LLM
from tilewright.serve.server import Server

from .client import PATIENCE

SHAPE = Shape(hidden=32, layers=2, heads=4, kv_heads=2, head_dim=16, intermediate=48, vocabulary=256, context=256)
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
    "{{ m.role }}: {{ m.content }}\n{% endfor %}{% if loud %}LOUD{% endif %}"
    "{% if add_generation_prompt %}bot:{% endif %}"
)


@pytest.fixture(scope="session", autouse=True)
def packages():
    """What the extra `serve` brings."""
    for name in ("starlette", "uvicorn", "prometheus_client"):
        pytest.importorskip(name)


@pytest.fixture(autouse=True)
def pinned(monkeypatch):
    """A request gives the same tokens alone and among others."""
    monkeypatch.setenv("TILEWRIGHT_NUMERICS", "pinned")


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The model's folder, called `tiny`."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    path.mkdir()
    write_checkpoint(path, SHAPE)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    (path / "generation_config.json").write_text(json.dumps({"temperature": 0.5, "top_k": 50}))
    return path


@pytest.fixture(scope="session")
def alone(folder):
    """The model by itself: what the server's answers are compared with."""
    return LLM(folder, max_batch=1)


@pytest.fixture(scope="module")
def server(folder):
    """The model behind HTTP, four completions at once."""
    with Server(LLM(folder, max_batch=4), port=0) as running:
        yield running


class Gate:
    """The engine of a server, which makes a step only when it is let."""

    def __init__(self, engine, monkeypatch) -> None:
        self.open, self.closed = threading.Event(), threading.Event()
        step = engine.step

        def gated() -> None:
            self.closed.set()  # it stands before a step
            assert self.open.wait(PATIENCE)
            step()

        monkeypatch.setattr(engine, "step", gated)

    def reached(self) -> None:
        """Wait until the engine stands before a step."""
        assert self.closed.wait(PATIENCE)


@pytest.fixture
def gated(folder, monkeypatch):
    """Makes servers whose engine waits: (server, gate, llm); all are stopped at the end."""
    begun = []

    def make(**settings):
        llm = LLM(folder, max_batch=settings.pop("max_batch", 2))
        gate, made = Gate(llm.engine, monkeypatch), Server(llm, port=0, **settings)
        begun.append((gate, made.__enter__()))
        return made, gate, llm

    yield make
    for gate, made in begun:
        gate.open.set()
        made.__exit__()
