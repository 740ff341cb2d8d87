"""Errors of the cost model on the kernels that were measured on a GPU.

python benchmarks/gpu_model.py [benchmarks/results/gpu-h200-2026-11-24.json] [--machine h200] [--rows]
python benchmarks/gpu_model.py --held-out    # rates fitted to three quarters of the shapes, judged on the rest
python benchmarks/gpu_model.py --fit         # rates fitted to all of them, as a machine's description gives them
python benchmarks/gpu_model.py --nests       # attention and row operators instead
python benchmarks/gpu_model.py --all         # every operator, by the newest results of each bench
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tilewright.bench.gpu_accuracy import by_family, by_operator, samples
from tilewright.bench.gpu_fit import fitted, held_out, rounded
from tilewright.bench.gpu_model import LADDER, Errors, errors, measured
from tilewright.bench.gpu_model_nests import measured_nests, nest_errors
from tilewright.machines.machine import Machine

_RESULTS = Path(__file__).parent / "results" / "gpu-h200-2026-11-24.json"
_NESTS = Path(__file__).parent / "results" / "probes" / "simulate-nests-h200.json"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="?")
    parser.add_argument("--nests", action="store_true", help="attention and row operators, not products")
    parser.add_argument("--all", action="store_true", help="every operator and family, by the newest results")
    parser.add_argument("--machine", default="h200")
    parser.add_argument("--rows", action="store_true", help="each design as well")
    parser.add_argument("--held-out", action="store_true", help="errors on shapes that no rate was fitted to")
    parser.add_argument("--fit", action="store_true", help="the rates that fit best")
    args = parser.parse_args()
    machine = Machine.named(args.machine)
    if args.all:
        found = samples(Path(__file__).parent / "results", machine)
        for of, lines in (("operator", by_operator(found)), ("family", by_family(found))):
            print(f"| {of} | designs | mean error | median | corrected, new shape | median |")
            print("|---|---|---|---|---|---|")
            for e in lines:
                shares = (e.mean, e.median, e.corrected, e.corrected_median)
                print(f"| {e.name} | {e.count} | {' | '.join(f'{x:.1%}' for x in shares)} |")
        return
    results = json.loads((args.results or (_NESTS if args.nests else _RESULTS)).read_text())
    if args.nests:
        nests = measured_nests(results, machine)
        for n in nests if args.rows else ():
            _print_row(n.name, n.seconds, n.predicted)
        _print_errors(nest_errors(nests))
        return
    rows = measured(results, machine)
    if args.fit or args.held_out:
        judged = [r for r in rows if r.case.family != LADDER]
        if args.fit:
            print(json.dumps(rounded(fitted(judged, machine)), indent=2))
        for family, (count, error) in held_out(judged, machine).items() if args.held_out else ():
            print(f"| {family} | {count} | {error:.1%} |")
        return
    for r in rows if args.rows else ():
        _print_row(r.name, r.seconds, r.predicted)
    _print_errors(errors(rows))


def _print_row(name: str, seconds: float, predicted: float) -> None:
    print(f"{name:50} {seconds * 1e6:10.2f} us, predicted {predicted * 1e6:10.2f} ({predicted / seconds - 1:+.1%})")


def _print_errors(found: list[Errors]) -> None:
    print("| family | designs | mean error | median | corrected, new shape | median |\n|---|---|---|---|---|---|")
    for e in found:
        model, learned = e.model, e.corrected
        print(
            f"| {e.family} | {model.count} | {model.mean_error:.1%} | {model.median_error:.1%} "
            f"| {learned.mean_error:.1%} | {learned.median_error:.1%} |"
        )


if __name__ == "__main__":
    main()
