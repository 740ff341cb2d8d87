"""Train the model that ships: plain torch, one device, a few minutes on a data-centre GPU.

    python training/train.py --data .train --out shipped --log run.json --minutes 6

Writes a folder that transformers loads (weights in bf16, of the best held-out loss) and the run's record with its
loss curve. Every evaluation that improves replaces the folder at once, so a run that is cut short leaves its best.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llama import Llama, Shape
from safetensors.torch import save_file
from torch import Tensor

GENERATION = {
    "bos_token_id": 0,
    "eos_token_id": 0,
    "do_sample": True,
    "temperature": 0.6,
    "top_p": 0.9,
    "repetition_penalty": 1.1,
}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class Recipe:
    """What decides a run, beside the data and the shape. The learning rate follows the clock, not a step count."""

    minutes: float = 6.0
    batch: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    dropout: float = 0.05
    warmup: float = 0.02
    begun_share: float = 0.5
    evaluate_every: float = 15.0
    seed: int = 1

    def rate(self, progress: float) -> float:
        """Learning rate at `progress` in 0..1 of the run: linear warm-up, then a cosine down to one hundredth."""
        if progress < self.warmup:
            return self.learning_rate * (0.01 + 0.99 * progress / self.warmup)
        turn = math.pi * (progress - self.warmup) / (1 - self.warmup)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(turn)))


# --------------------------------------------------------------------------------------------- data
class Windows:
    """Seeded random windows of the training tokens, as (ids, targets) of shape [batch, context] on the device.

    A share of them begins with a text, at its end-of-text token: as a prompt does, so the model must have met
    definitions at position 1.
    """

    def __init__(self, tokens: np.ndarray, shape: Shape, recipe: Recipe, device: str) -> None:
        self.tokens = torch.from_numpy(tokens.astype(np.int64)).to(device)
        starts = np.flatnonzero(tokens == 0)  # end-of-text
        fitting = starts[starts + shape.context < tokens.size]
        self.starts = torch.from_numpy(fitting).to(device)
        self.offsets = torch.arange(shape.context + 1, device=device)
        self.recipe = recipe
        self.random = torch.Generator(device).manual_seed(recipe.seed)

    def draw(self) -> tuple[Tensor, Tensor]:
        device, batch = self.tokens.device, self.recipe.batch
        begun = int(self.recipe.begun_share * batch)
        limit = self.tokens.numel() - self.offsets.numel()
        first = torch.randint(limit, (batch,), device=device, generator=self.random)
        pick = torch.randint(self.starts.numel(), (begun,), device=device, generator=self.random)
        first[:begun] = self.starts[pick]
        window = self.tokens[first[:, None] + self.offsets]
        return window[:, :-1], window[:, 1:]


def held_out_batches(tokens: np.ndarray, shape: Shape, batch: int, device: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Non-overlapping windows over the held-out tokens; the ragged tail is left out."""
    count = (tokens.size - 1) // shape.context
    ids = torch.from_numpy(tokens.astype(np.int64)[: count * shape.context + 1]).to(device)
    inputs, targets = ids[:-1].view(count, -1), ids[1:].view(count, -1)
    for at in range(0, count - count % batch or count, batch):
        yield inputs[at : at + batch], targets[at : at + batch]


# -------------------------------------------------------------------------------------------- output
def save_model(folder: Path, model: Llama, shape: Shape, tokenizer: Path) -> None:
    """Write the model folder beside its place, then swap it in: no reader meets a half-written one."""
    partial, old = (folder.with_name(f".{folder.name}.{state}") for state in ("partial", "old"))
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    weights = {
        f"model.{name}": value.to(torch.bfloat16).cpu().contiguous() for name, value in model.state_dict().items()
    }
    save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})
    for name, value in (("config.json", shape.config()), ("generation_config.json", GENERATION)):
        (partial / name).write_text(json.dumps(value, indent=2) + "\n", "utf-8")
    for name in TOKENIZER_FILES:
        shutil.copyfile(tokenizer / name, partial / name)
    for path in partial.iterdir():
        path.chmod(0o644)
    if folder.exists():
        os.replace(folder, old)
    os.replace(partial, folder)
    shutil.rmtree(old, ignore_errors=True)


def machine(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else platform.machine()


# ------------------------------------------------------------------------------------------ the run
class Trainer:
    """One run: `run()` steps until the time is up and returns the loss curve."""

    def __init__(self, shape: Shape, recipe: Recipe, *, data: Path, out: Path, device: str, compiled: bool) -> None:
        self.data, self.out, self.shape, self.recipe, self.device = data, out, shape, recipe, device
        torch.manual_seed(recipe.seed)
        tokens = np.load(data / "tokens.npz")
        self.windows = Windows(tokens["train"], shape, recipe, device)
        self.heldout = list(held_out_batches(tokens["heldout"], shape, recipe.batch, device))
        self.model = Llama(shape, recipe.dropout).to(device)
        self.loss = torch.compile(self.model) if compiled else self.model
        matrices = [value for value in self.model.parameters() if value.ndim == 2]
        vectors = [value for value in self.model.parameters() if value.ndim < 2]
        groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), fused=device == "cuda")
        self.best = math.inf

    def step(self, progress: float) -> Tensor:
        """One update; returns the loss without waiting for the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(progress)
        ids, targets = self.windows.draw()
        with torch.autocast(self.device, torch.bfloat16):
            loss: Tensor = self.loss(ids, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    @torch.no_grad()
    def evaluate(self) -> float:
        """Mean held-out loss in nats per token; keeps the model when it is the best so far."""
        self.model.eval()
        with torch.autocast(self.device, torch.bfloat16):
            losses = torch.stack([self.loss(ids, targets) for ids, targets in self.heldout])
        self.model.train()
        value = float(losses.float().mean())
        if value < self.best:
            self.best = value
            save_model(self.out, self.model, self.shape, self.data)
        return value

    def run(self) -> list[dict[str, float]]:
        budget = 60 * self.recipe.minutes
        curve = [{"step": 0, "seconds": 0.0, "heldout": round(self.evaluate(), 4)}]
        self.step(0.0).item()  # compile before the clock starts
        begin = last = time.perf_counter()
        count, losses = 1, []
        while (elapsed := time.perf_counter() - begin) < budget:
            losses.append(self.step(elapsed / budget))
            count += 1
            if count % 20 == 0:
                losses[-1].item()  # let the clock, and with it the learning rate, follow the device
            if time.perf_counter() - last > self.recipe.evaluate_every and elapsed < 0.97 * budget:
                curve.append(self.point(count, time.perf_counter() - begin, losses))
                last, losses = time.perf_counter(), []
        curve.append(self.point(count, time.perf_counter() - begin, losses))
        return curve

    def point(self, step: int, seconds: float, losses: list[Tensor]) -> dict[str, float]:
        train = torch.stack(losses).float().mean().item()
        row = {
            "step": step,
            "seconds": round(seconds, 1),
            "train": round(train, 4),
            "heldout": round(self.evaluate(), 4),
        }
        tokens = step * self.recipe.batch * self.shape.context
        print(f"{row}  {tokens / 1e6:.0f} M tokens, {tokens / seconds / 1e6:.2f} M/s", flush=True)
        return row


def main() -> None:
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(".train"))
    parser.add_argument("--out", type=Path, default=Path("shipped"))
    parser.add_argument("--log", type=Path, default=Path("run.json"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-compile", action="store_true")
    for item in (*fields(Shape), *fields(Recipe)):
        parser.add_argument(f"--{item.name.replace('_', '-')}", type=type(item.default), default=item.default)
    options = parser.parse_args()
    pick: dict[str, Any] = vars(options)
    shape = Shape(**{item.name: pick[item.name] for item in fields(Shape)})
    recipe = Recipe(**{item.name: pick[item.name] for item in fields(Recipe)})

    trainer = Trainer(
        shape,
        recipe,
        data=options.data,
        out=options.out,
        device=options.device,
        compiled=not options.no_compile,
    )
    parameters = sum(value.numel() for value in trainer.model.parameters())
    print(
        f"{parameters:,} parameters, {trainer.windows.tokens.numel():,} tokens, {machine(options.device)}", flush=True
    )
    curve = trainer.run()
    record = {
        "machine": machine(options.device),
        "torch": torch.__version__,
        "parameters": parameters,
        "recipe": asdict(recipe),
        "tokens_seen": int(curve[-1]["step"]) * recipe.batch * shape.context,
        "best_heldout": round(trainer.best, 4),
        "curve": curve,
    }
    partial = options.log.with_name(f".{options.log.name}.partial")
    partial.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    os.replace(partial, options.log)


if __name__ == "__main__":
    main()
