"""Write docs/machines.md and its figures: one matmul on several simulated machines, and how far the models are off.

python tools/machines_page.py
"""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

from tilewright.errors import TilewrightError
from tilewright.machines.machine import Machine
from tilewright.report.canvas import duration
from tilewright.report.charts import drawn
from tilewright.simulate.kinds import simulate
from tilewright.simulate.simulation import Chart, Job, Series, Simulation
from tilewright.simulate.systolic.run import batches
from tilewright.simulate.systolic.tpu import bound

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "docs" / "figures"
SIZES = {"M": 512, "N": 1024, "K": 1024}
MACHINES = ("systolic:32x32:ws", "systolic:128x128:os", "systolic:128x128:is", "tpu-v1", "sn40l", "h200")
RUNS = ROOT / "tests" / "simulate" / "systolic" / "scalesim.csv"
ROOFLINES = {"MLP0": (200, 13.60), "MLP1": (168, 11.42), "LSTM0": (64, 4.35), "LSTM1": (96, 6.53),
             "CNN0": (2888, 91.75), "CNN1": (1750, 91.75)}  # fmt: skip

PAGE = """# One matmul on several machines

Written by `python tools/machines_page.py`. The product is C[{M}, {N}] = A[{M}, {K}] B[{N}, {K}]^T; each machine runs
the scheduled program that lowering makes of the same tile program, under its default design. For one machine:
`tilewright simulate matmul M={M} N={N} K={K} --machine tpu-v1 --plot out.html`.

{table}
{missing}
![where the time goes](figures/machines-parts.png)

Parts that are not multiplication are what a design can win. An array without a second tile in its cells shifts weights
in, lets them work, and waits until the last sum has left before it begins again; the TPU v1 shifts the next tile in
while one computes, and then waits for its memory instead.

## Utilisation against batch

![utilisation against batch](figures/machines-batch.png)

A tile of weights takes 1,349 cycles to arrive on a TPU v1, and T cycles to be used by a batch of T rows. Below 1,349
rows the array waits for memory, whatever else is done; twice the batch is twice the utilisation.

## Errors against what others published

| what | cases | worst error |
|---|---|---|
{errors}

Not reproduced: the measured rates of the six applications on a TPU v1. Their rooflines are; between a roofline and a
measurement lie occupancy and stalls, which this model does not compute: it does not have the layers of those
applications.
"""


def main() -> None:
    told, missing = [], []
    for name in MACHINES:
        try:
            job = Job("matmul", Machine.named(name), SIZES, options={})
            told.append(replace(simulate(job), machine=name))
        except TilewrightError as error:
            missing.append(f"- {name}: {error}")
    _figure("machines-parts", _parts(told))
    _figure("machines-batch", _batches())
    page = PAGE.format(**SIZES, table=_table(told), missing=_listed(missing), errors="\n".join(_errors()))
    (ROOT / "docs" / "machines.md").write_text(page, encoding="utf-8")


def _listed(missing: list[str]) -> str:
    return "\n".join(["", "Not simulated here:", "", *missing, ""]) if missing else ""


def _table(told: list[Simulation]) -> str:
    rows = ["| machine | time | cycles | share of its peak | most of the rest |", "|---|---|---|---|---|"]
    for each in told:
        rest = max(each.parts[1:], key=lambda p: p.seconds, default=None)
        cycles = "-" if each.cycles is None else f"{each.cycles:,.0f}"
        used = "-" if each.utilisation is None else f"{each.utilisation:.1%}"
        most = "-" if rest is None else f"{rest.name}, {rest.seconds / each.seconds:.0%}"
        rows.append(f"| {each.machine} | {duration(each.seconds)} | {cycles} | {used} | {most} |")
    return "\n".join(rows)


def _parts(told: list[Simulation]) -> Chart:
    names = dict.fromkeys(p.name for each in told for p in each.parts)
    labels = tuple(each.machine.removeprefix("systolic:") for each in told)
    series = []
    for name in names:
        shares = [sum(p.seconds for p in each.parts if p.name == name) / each.seconds for each in told]
        series.append(Series(name, labels, tuple(100 * s for s in shares)))
    return Chart("where the time of one matmul goes", "", "% of the time", tuple(series), kind="stacked")


def _batches() -> Chart:
    charts = [batches(Job("matmul", Machine.named(n), SIZES)) for n in MACHINES if Machine.named(n).kind == "systolic"]
    return replace(charts[0], series=tuple(c.series[0] for c in charts))


def _figure(name: str, chart: Chart) -> None:
    FIGURES.mkdir(parents=True, exist_ok=True)
    (FIGURES / f"{name}.png").write_bytes(drawn(chart))


# --------------------------------------------------------------------------------------------- errors
def _errors() -> list[str]:
    rows = list(csv.DictReader(RUNS.open(encoding="utf-8")))
    off = [abs(_cycles(r) - int(r["total_cycles"])) for r in rows]
    tpu = Machine.named("tpu-v1")
    roofs = [abs(bound(tpu, macs) / 1e12 / tops - 1) for macs, tops in ROOFLINES.values()]
    single = simulate(Job("matmul", tpu, {"M": 2048, "N": 512, "K": 512}, options={"values": "no"})).cycles or 0
    fetched = 9 * 65536 / 34e9 * 1e6
    return [
        f"| SCALE-Sim 3.0.0: cycles, stalls included | {len(rows)} | {max(off)} cycles |",
        f"| TPU v1: rooflines of six applications | {len(roofs)} | {max(roofs):.2%} |",
        f"| TPU v1: 2048 x 512 x 512 with double-buffered weights | 1 | {abs(single - 8958):.0f} cycles |",
        f"| TPU v1: 600 x 600 weights, 18 us in the paper | 1 | {abs(fetched / 18 - 1):.1%} |",
    ]


def _cycles(row: dict[str, str]) -> int:
    machine = Machine.named(f"systolic:{row['R']}x{row['C']}:{row['df']}")
    limited = {"scratchpads": f"64x{row['bw']}"} if row["mode"] == "USER" else {}
    sizes = {d: int(row[d]) for d in ("M", "N", "K")}
    return int(simulate(Job("matmul", machine, sizes, options={"values": "no", **limited})).cycles or 0)


if __name__ == "__main__":
    main()
