"""Row C1: the model that ships, from its files to text, on Tilewright's kernels alone."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

import tilewright as tw

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "src" / "tilewright" / "models" / "shipped"
TEXT = ROOT / "tests" / "models" / "data" / "heldout.txt"


def evaluate_script():
    """The script of the model card: perplexity by transformers, in float32."""
    spec = importlib.util.spec_from_file_location("evaluate_script", ROOT / "training" / "evaluate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def perplexity(llm: tw.LLM, windows: list[list[int]]) -> float:
    """exp of the mean negative log-likelihood of every token but the first of each window."""
    nats, count = 0.0, 0
    for window, logits in zip(windows, llm.logits(windows), strict=True):
        scores = logits[:-1].astype(np.float64)
        top = scores.max(axis=1, keepdims=True)
        total = np.log(np.exp(scores - top).sum(axis=1)) + top[:, 0]
        nats += float((total - scores[np.arange(len(window) - 1), window[1:]]).sum())
        count += len(window) - 1
    return math.exp(nats / count)


def test_C1_perplexity_of_the_shipped_model_equals_that_of_transformers_to_four_digits():
    script = evaluate_script()
    ids = (
        Tokenizer.from_file(str(MODEL / "tokenizer.json")).encode(TEXT.read_text("utf-8"), add_special_tokens=False).ids
    )
    windows = [list(w) for w in script.windows(ids, 0, 1024)]
    reference = script.evaluate(MODEL, TEXT.read_text("utf-8"), 1024)["perplexity"]
    assert perplexity(tw.LLM(dtype="f32"), windows) == pytest.approx(reference, rel=5e-5)


def test_C1_sampling_and_chat_template_end_to_end():
    llm = tw.LLM()
    greedy = tw.SamplingParams(max_tokens=12, temperature=0)
    first, second = (llm.generate(["def fibonacci(n):"], greedy)[0] for _ in range(2))
    assert first.token_ids == second.token_ids and len(first.token_ids) == 12 and first.finish_reason == "length"
    drawn = tw.SamplingParams(max_tokens=12, temperature=0.9, top_p=0.95, seed=7, ignore_eos=True)
    assert llm.generate(["import os"], drawn)[0].token_ids == llm.generate(["import os"], drawn)[0].token_ids
    answer = llm.chat([{"role": "user", "content": "add two numbers"}], greedy)
    assert len(answer.token_ids) > 0
