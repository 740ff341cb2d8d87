"""Perplexity of a model folder over a text file, by transformers in float32.

    python training/evaluate.py src/tilewright/models/shipped tests/models/data/heldout.txt

The text's tokens are cut into windows of `context - 1`; each window is scored on its own after the begin token, so
that every token of the text counts once. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM


def windows(ids: list[int], begin: int, context: int) -> list[list[int]]:
    """`ids` in runs of up to `context - 1` tokens, each one after `begin`."""
    return [[begin, *ids[at : at + context - 1]] for at in range(0, len(ids), context - 1)]


@torch.no_grad()
def evaluate(folder: Path, text: str, context: int) -> dict[str, float]:
    """Tokens scored, mean nats per token, perplexity and bits per UTF-8 byte of `text`."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text, add_special_tokens=False).ids
    nats = 0.0
    for window in windows(ids, model.config.bos_token_id, context):
        tokens = torch.tensor([window])
        loss = torch.nn.functional.cross_entropy(model(tokens).logits[0, :-1], tokens[0, 1:], reduction="none")
        nats += loss.double().sum().item()
    mean = nats / len(ids)
    bits = nats / math.log(2) / len(text.encode())
    return {"tokens": len(ids), "nats_per_token": mean, "perplexity": math.exp(mean), "bits_per_byte": bits}


def main() -> None:
    parser = argparse.ArgumentParser(description="Perplexity of a model folder over a text file.")
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--context", type=int, default=1024)
    options = parser.parse_args()
    print(json.dumps(evaluate(options.model, options.text.read_text("utf-8"), options.context)))


if __name__ == "__main__":
    main()
