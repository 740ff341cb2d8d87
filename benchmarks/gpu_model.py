"""Errors of the cost model on the products that were measured on a GPU.

python benchmarks/gpu_model.py [benchmarks/results/gpu-h200-2026-11-24.json] [--machine h200] [--rows]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tilewright.bench.gpu_model import errors, measured
from tilewright.machines.machine import Machine

_RESULTS = Path(__file__).parent / "results" / "gpu-h200-2026-11-24.json"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="?", default=_RESULTS)
    parser.add_argument("--machine", default="h200")
    parser.add_argument("--rows", action="store_true", help="each design as well")
    args = parser.parse_args()
    rows = measured(json.loads(args.results.read_text()), Machine.named(args.machine))
    for r in rows if args.rows else ():
        off = r.predicted / r.seconds - 1
        print(f"{r.name:50} {r.seconds * 1e6:10.2f} us, predicted {r.predicted * 1e6:10.2f} ({off:+.1%})")
    print("| family | designs | mean error | median | corrected, new shape | median |\n|---|---|---|---|---|---|")
    for e in errors(rows):
        model, learned = e.model, e.corrected
        print(
            f"| {e.family} | {model.count} | {model.mean_error:.1%} | {model.median_error:.1%} "
            f"| {learned.mean_error:.1%} | {learned.median_error:.1%} |"
        )


if __name__ == "__main__":
    main()
