"""Write the model card from what was measured: the corpus' manifest, the run's record, an evaluation.

python training/card.py --data .train --log run.json
"""

from __future__ import annotations

import argparse
import json
import math
import os
from pathlib import Path
from typing import Any

from evaluate import evaluate

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "src" / "tilewright" / "models" / "shipped"
TEXT = ROOT / "tests" / "models" / "data" / "heldout.txt"
COLUMNS = (
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "rope_theta",
    "vocab_size",
)

# ruff: noqa: E501 (rows of a table cannot be folded)
CARD = """\
---
license: apache-2.0
language: code
library_name: tilewright
pipeline_tag: text-generation
---

# The model that ships with Tilewright

A Llama of {parameters:.2f} M parameters that continues Python source. It exists so that `tilewright generate` has
something real to run in the first minute: it writes code that looks like Python, and is right only by luck. It knows
nothing but Python source.

## Architecture

`LlamaForCausalLM`, tied embeddings, bf16, {megabytes:.1f} MB:

| layers | hidden | SwiGLU | query heads | key-value heads | head | context | RoPE base | vocabulary |
|---:|---:|---:|---:|---:|---:|---:|---:|---:|
{architecture}

The tokenizer is a byte-level BPE in which a run of indentation is one token and every digit its own. `<|endoftext|>`
begins and ends a text: a prompt that opens a function is often continued to the function's end, and stops there.
In the chat template a message of the user becomes a module's docstring, and the answer is the code that follows it.
The sampling settings of `generation_config.json` were chosen among five by the samples they gave.

## Held-out perplexity

| text | tokens | numerics | nats per token | perplexity | bits per byte |
|---|---:|---|---:|---:|---:|
| `tests/models/data/heldout.txt` | {tokens:,} | float32 | {nats_per_token:.5f} | {perplexity:.4f} | {bits_per_byte:.4f} |
| the held-out files | {scored:,} | bf16 autocast | {best:.4f} | {best_perplexity:.3f} | {best_bits:.3f} |

The first row is what this prints, and a test holds it to it:

```sh
python training/evaluate.py src/tilewright/models/shipped tests/models/data/heldout.txt
```

The text is cut into windows of 1,023 tokens, each one scored on its own after the begin token. It is made of whole
files of the standard library of CPython {cpython} (copyright 2001-2024 Python Software Foundation, all rights reserved;
PSF-2.0), trimmed as the training data is, that took no part in training:

{slice_files}

The second row is the training script's own evaluation, over the held-out files and their excerpts, in windows of 1,024
tokens with no begin token. The checkpoint is the one where it was lowest, so this row is a little flattered.

## Training data

Python source under free licences: {files:,} files train the model, and {heldout_files} files, chosen by a hash of their
content, are held out. Tests, generated files, tables of data, files that are not ASCII, what packages vendor from
others, and near-duplicates (over half of the text seen in earlier files) are left out, licence headers are cut, and no
distribution gives more than 3 MB.

Each file is then trimmed to its code: most docstrings go, and comments over two lines and literals over thirty. It is
read whole, and once more in excerpts that are each a text of their own: its functions and classes, some of them without
the annotations of their signatures, some behind their summary as a module's docstring, and a few of its loops. That
makes {texts:,} texts, {train_mb:.1f} MB, {train_tokens:.1f} M tokens for training, and {heldout_mb:.1f} MB held out.

The table counts the files of both parts before trimming; the weight is how often a source is read.

| source | version | licence of its Python files | files | MB | weight |
|---|---|---|---:|---:|---:|
{sources}

## Training

The run took {minutes:.1f} minutes on one {machine} (torch {torch}): {steps:,} steps of {batch} x {max_position_embeddings}
tokens, half of the windows beginning where a text begins. The checkpoint that ships is that of step {best_step:,}, after
{seen:,.0f} M tokens, {epochs:.0f} passes over the data. From there on the model learned the data by heart: the held-out loss
rose while the training loss fell. The learning rate was still at {best_rate:.0%} of its peak, so a run that ends there,
with its cosine, should do better.

| setting | value |
|---|---|
| optimizer | AdamW (0.9, 0.95), bf16 autocast over float32 weights, gradients clipped at 1 |
| learning rate | {learning_rate:g}, {warmup:.0%} linear warm-up, cosine to one hundredth |
| weight decay | {weight_decay:g}, on matrices |
| dropout | {dropout:g}, on the embedding and both residual branches |
| seed | {seed} |

The learning rate follows the clock, so another run repeats the recipe and not the bits. The corpus was built by
Python 3.11: files whose syntax is newer are left out.

```sh
python -m pip install --no-deps --no-compile --target SITE-PACKAGES -r training/requirements.txt
python training/corpus.py --out .train --stdlib LIB/python3.13 --site-packages SITE-PACKAGES
python training/train.py --data .train --out src/tilewright/models/shipped --log run.json --minutes {minutes:.1f}
python training/card.py --data .train --log run.json
```

Loss curve, nats per token (`train` is the mean since the row before, with dropout):

```json
[
{curve}
]
```
"""


def table(sources: list[dict[str, Any]]) -> str:
    ranked = sorted(sources, key=lambda row: -row["bytes"])
    names = {"cpython": "CPython standard library"}
    return "\n".join(
        f"| {names.get(row['name'], row['name'])} | {row['version']} | {row['licence']} | {row['files']:,} |"
        f" {row['bytes'] / 1e6:.1f} | {row['weight']} |"
        for row in ranked
    )


def rate_share(progress: float, warmup: float) -> float:
    """The learning rate at `progress` in 0..1 of a run, as a share of its peak; past the warm-up."""
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def card(corpus: dict[str, Any], run: dict[str, Any], score: dict[str, float], folder: Path) -> str:
    """The card's text."""
    recipe, last = run["recipe"], run["curve"][-1]
    best = min(run["curve"], key=lambda row: row["heldout"])
    config = json.loads((folder / "config.json").read_text("utf-8"))
    held_bytes_per_token = corpus["bytes"]["heldout"] / corpus["tokens"]["heldout"]
    seen = best["step"] * recipe["batch"] * config["max_position_embeddings"]
    windows = (corpus["tokens"]["heldout"] - 1) // config["max_position_embeddings"]
    values = {
        **config,
        **recipe,
        **score,
        "parameters": run["parameters"] / 1e6,
        "megabytes": (folder / "model.safetensors").stat().st_size / 1e6,
        "architecture": "| " + " | ".join(str(config[name]) for name in COLUMNS) + " |",
        "scored": windows // recipe["batch"] * recipe["batch"] * config["max_position_embeddings"],
        "best": run["best_heldout"],
        "best_perplexity": math.exp(run["best_heldout"]),
        "best_bits": run["best_heldout"] / math.log(2) / held_bytes_per_token,
        "cpython": next(row["version"] for row in corpus["sources"] if row["name"] == "cpython"),
        "slice_files": "\n".join(f"- `{name}`" for name in corpus["heldout_slice"]),
        "files": corpus["files"]["train"],
        "heldout_files": corpus["files"]["heldout"],
        "texts": corpus["texts"]["train"],
        "train_mb": corpus["bytes"]["train"] / 1e6,
        "heldout_mb": corpus["bytes"]["heldout"] / 1e6,
        "train_tokens": corpus["tokens"]["train"] / 1e6,
        "sources": table(corpus["sources"]),
        "epochs": seen / corpus["tokens"]["train"],
        "seen": seen / 1e6,
        "steps": last["step"],
        "best_step": best["step"],
        "best_rate": rate_share(best["seconds"] / last["seconds"], recipe["warmup"]),
        "machine": run["machine"],
        "torch": run["torch"],
        "curve": ",\n".join(json.dumps(row) for row in run["curve"]),
    }
    return CARD.format(**values)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the card of the model that ships.")
    parser.add_argument("--data", type=Path, default=Path(".train"))
    parser.add_argument("--log", type=Path, default=Path("run.json"))
    options = parser.parse_args()
    corpus = json.loads((options.data / "corpus.json").read_text("utf-8"))
    run = json.loads(options.log.read_text("utf-8"))
    text = card(corpus, run, evaluate(MODEL, TEXT.read_text("utf-8"), 1024), MODEL)
    partial = MODEL / ".README.md.partial"
    partial.write_text(text, "utf-8")
    os.replace(partial, MODEL / "README.md")


if __name__ == "__main__":
    main()
