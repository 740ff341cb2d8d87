"""compute-sanitizer over small calls of every operator, and over products by designs of every kind, on the GPU at hand.

The calls run without a tool first, which compiles their kernels and checks results against float64; then memcheck and
racecheck run side by side, each over shares of the calls. A tool that finds
anything, or does not end, makes the exit status 1.

    python tools/sanitize.py [--tools memcheck,racecheck] [--shares 3] [--seconds 200] [--out FOLDER] [NAMES ...]
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "gpu"), str(ROOT / "src")]

SEEDS = (0, 1)
_OPTIONS = ("--print-limit", "20", "--report-api-errors", "no")
_WGMMA = {"tile.m": 128, "tile.n": 128, "tile.k": 64, "atom.dot0": "wgmma", "warpgroups": 2, "stages": 3}
_FEW = {
    "tile.m": 16, "tile.n": 64, "tile.k": 64, "atom.dot0": "wgmma", "warpgroups": 1, "stages": 4, "swap": True,
    "producer": "warp",
}  # fmt: skip
_TMA = {**_WGMMA, "persistent": True, "grid.order": "grouped", "grid.group": 2, "store.c": "tma"}
_RING = {
    "tile.m": 64, "tile.n": 64, "tile.k": 64, "atom.dot0": "mma", "warps": 4, "stages": 3,
    "engine.a": "cp_async", "engine.b": "cp_async",
}  # fmt: skip
_PLAIN = {**_RING, "engine.a": "plain", "engine.b": "plain", "stages": 2}
PRODUCTS: dict[str, tuple[tuple[int, int, int], str, str, dict[str, Any] | None]] = {
    "wgmma": ((256, 256, 192), "bf16", "", _WGMMA),
    "wgmma-ragged": ((200, 264, 136), "f16", "bias_gelu", _WGMMA),
    "persistent": ((520, 520, 128), "bf16", "residual", _TMA),
    "cluster": ((512, 256, 128), "bf16", "", {**_TMA, "cluster.m": 2}),
    "staggered": ((520, 264, 320), "bf16", "residual", {
        **_TMA, "cluster.m": 2, "stagger": 1, "early.residual": True,
    }),
    "early": ((200, 264, 136), "bf16", "bias_gelu", {**_WGMMA, "early.bias": True, "stagger": 1}),
    "tf32": ((256, 264, 128), "f32", "tf32", {**_WGMMA, "tile.k": 32}),
    "atomic": ((256, 256, 512), "bf16", "bias_gelu", {**_WGMMA, "split.k": 2, "how.k": "atomic"}),
    "pingpong": ((512, 256, 128), "bf16", "", {**_TMA, "schedule": "pingpong", "tile.m": 64, "tile.n": 128}),
    "few": ((16, 256, 512), "bf16", "bias_gelu", _FEW),
    "few-short": ((16, 264, 520), "bf16", "residual", {**_FEW, "swap": False, "tile.n": 48}),
    "few-ahead": ((5, 256, 1024), "bf16", "", {
        "atom.dot0": "mma", "tile.m": 16, "tile.n": 8, "tile.k": 64, "warps": 8, "warps.k": 8, "stages": 2,
    }),
    "few-flowing": ((5, 250, 1016), "bf16", "", {
        "atom.dot0": "mma", "tile.m": 16, "tile.n": 8, "tile.k": 64, "warps": 8, "warps.k": 8, "stages": 1,
    }),
    "few-cluster": ((16, 256, 512), "bf16", "", {**_FEW, "split.k": 2, "how.k": "cluster"}),
    "few-two-pass": ((16, 256, 512), "bf16", "residual", {**_FEW, "split.k": 2, "how.k": "two_pass"}),
    "few-atomic": ((16, 256, 512), "bf16", "residual", {**_FEW, "split.k": 2, "how.k": "atomic"}),
    "ring": ((130, 136, 200), "bf16", "bias_gelu", _RING),
    "plain": ((129, 131, 77), "bf16", "residual", _PLAIN),
    "fma": ((129, 131, 77), "f32", "bias_gelu", {**_PLAIN, "atom.dot0": "fma", "tile.k": 32}),
    "default": ((1, 512, 512), "bf16", "", None),
    "default-odd": ((33, 333, 777), "bf16", "bias_gelu", None),
    "default-many": ((257, 384, 256), "bf16", "residual", None),
}  # fmt: skip
"""Sizes M, N, K, elements, what follows the product, and the design; None is the default one."""


def names() -> list[str]:
    """Every call by name: `operator.seed`, or a product."""
    from operator_cases import NAMES

    return [*(f"{name}.{seed}" for name in NAMES for seed in SEEDS), *PRODUCTS]


def call_of(name: str) -> tuple[Any, Any]:
    """A call with its operands as NumPy arrays, and the design it goes by (None: the default one)."""
    from operator_cases import TYPES, Call, Draw, draw

    from tilewright.design.design import Design
    from tilewright.operators import OPERATORS

    if name not in PRODUCTS:
        operator, _, seed = name.partition(".")
        return draw(operator, int(seed), ("bf16", "f32")[int(seed) % 2]), None
    (m, n, k), element, after, decisions = PRODUCTS[name]
    d = Draw(0, element)
    inputs = {"a": d.normal(m, k), "b": d.normal(n, k)}
    inputs |= {"residual": d.normal(m, n)} if after == "residual" else {}
    inputs |= {"bias": d.normal(n)} if after == "bias_gelu" else {}
    options = {"activation": "gelu" if after == "bias_gelu" else None}
    options |= {"precision": "tf32"} if after == "tf32" else {}
    call = Call(OPERATORS["matmul"], inputs, {"c": ((m, n), TYPES[element])}, {}, options)
    return call, None if decisions is None else Design.of(decisions)


def run(name: str) -> str:
    """Make one call and compare it with its reference; what came of it."""
    import numpy as np
    import torch
    from gpu_programs import run_operator, to_gpu, to_numpy

    from tilewright.runtime import tolerance
    from tilewright.runtime.compiled import bind

    call, design = call_of(name)
    outputs = {}
    for output, (shape, kind) in call.outputs.items():
        poison = np.full(shape, -1 if np.dtype(kind).kind == "i" else np.nan, kind)
        outputs[output] = to_gpu(call.inputs[output] if output in call.operator.updates else poison)
    tensors = {n: to_gpu(x) for n, x in call.inputs.items() if n not in call.outputs} | outputs
    if design is None:
        bind(call.operator, **tensors, **call.scalars, **call.options)()
    else:
        run_operator(call.operator, tensors, design, call.options, fixed=("K",))
    torch.cuda.synchronize()
    worst = max(
        tolerance.check(output, to_numpy(outputs[output], call.outputs[output][1]), exact)
        for output, exact in call.expected().items()
    )
    return f"ok, {worst:.2f} of the bound"


# ------------------------------------------------------------------------------------------------ processes
class Share:
    """One process over some of the calls, under a tool or under none, its output in a file."""

    def __init__(self, tool: str, number: int, calls: list[str], folder: Path) -> None:
        self.tool, self.number, self.calls = tool, number, calls
        self.path = folder / f".{tool}-{number}.log"
        command = [sys.executable, "-u", __file__, "--child", *calls]
        environment = dict(os.environ)
        if tool != "plain":
            command = ["compute-sanitizer", "--tool", tool, *_OPTIONS, *command]
            environment["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"  # an allocation of its own for every tensor
        self.log: IO[bytes] = self.path.open("wb")
        self.process = subprocess.Popen(
            command, stdout=self.log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )

    def wait(self, deadline: float) -> None:
        """Until it ends, or is ended at the deadline."""
        try:
            self.process.wait(max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)  # the tool and what it runs
            self.process.wait()
        self.log.close()

    @property
    def text(self) -> str:
        """What it said."""
        return self.path.read_text(errors="replace")

    @property
    def trouble(self) -> list[str]:
        """In a line each: calls that failed or were not made, and what the tool found."""
        done = {line.split(": ")[0][2:]: line for line in self.text.splitlines() if line.startswith("# ")}
        wrong = [name for name in self.calls if "ok, " not in done.get(name, "ok, ")]
        found = [done[name][2:] for name in wrong]
        if missed := [name for name in self.calls if name not in done]:
            found.append(f"not made, status {self.process.returncode}: {' '.join(missed)}")
        if self.tool != "plain":
            said = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: .*", self.text)
            found += [s for s in said if not re.search(r"SUMMARY: 0 (errors|hazards)", s)] if said else ["no summary"]
        return found


def main() -> None:
    """All calls without a tool, then under each tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", default="memcheck,racecheck")
    parser.add_argument("--shares", type=int, default=3, help="processes of each tool")
    parser.add_argument("--seconds", type=float, default=200.0, help="for each of the two steps")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of one log for each tool")
    parser.add_argument("names", nargs="*")
    given = parser.parse_args()
    calls = given.names or names()
    given.out.mkdir(parents=True, exist_ok=True)
    if shutil.which("compute-sanitizer") is None:
        sys.exit("compute-sanitizer is not on the path; it comes with the CUDA toolkit")
    bad = _step(["plain"], calls, 2 * given.shares, given)
    bad += _step(given.tools.split(","), calls, given.shares, given)
    sys.exit(1 if bad else 0)


def _step(tools: list[str], calls: list[str], shares: int, given: argparse.Namespace) -> int:
    """Run shares of the calls under each tool side by side; how many were in trouble."""
    begun = time.monotonic()
    running = [Share(t, i, calls[i::shares], given.out) for t in tools for i in range(shares) if calls[i::shares]]
    for share in running:
        share.wait(begun + given.seconds)
    bad = 0
    for tool in tools:
        mine = [s for s in running if s.tool == tool]
        (given.out / f"sanitize-{tool}.log").write_text("\n".join(s.text for s in mine))
        trouble = [line for s in mine for line in s.trouble]
        bad += bool(trouble)
        print(f"{tool:10} {sum(len(s.calls) for s in mine)} calls, {time.monotonic() - begun:.0f} s: ", end="")
        print("clean" if not trouble else "\n  ".join(["TROUBLE", *trouble]), flush=True)
        for share in mine:
            share.path.unlink()
    return bad


def _child(calls: list[str]) -> None:
    for name in calls:
        try:
            said = run(name)
        except Exception as error:  # the line says what happened
            said = f"{type(error).__name__}: {str(error)[:600]!r}"
        print(f"# {name}: {said}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(sys.argv[2:])
    else:
        main()
