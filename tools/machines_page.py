"""Write docs/machines.md and its figures: one matmul and one model on machines that are not at hand, and all errors.

python tools/machines_page.py
"""

from __future__ import annotations

import re
from pathlib import Path

import machines_tables as tables
from machines_figures import MODEL, SIZES, figures

from tilewright.report.charts import drawn

ROOT = Path(__file__).parents[1]

PAGE = """# One matmul on five machines

Written by `python tools/machines_page.py`. The product is C[{M}, {N}] = A[{M}, {K}] B[{N}, {K}]^T; each machine runs
the scheduled program that lowering makes of the same tile program, under its default design. For one machine:
`tilewright simulate matmul M={M} N={N} K={K} --machine tpu-v1 --plot out.html`.

| machine | time | cycles | share of its peak | most of the rest |
|---|---|---|---|---|
{matmul}

![where the time goes](figures/machines-parts.png)

Parts that are not multiplication are what a design can win. An array without a second tile in its cells shifts weights
in, lets them work, and waits until the last sum has left before it begins again; the TPU v1 shifts the next tile in
while one computes, and then waits for its memory instead. Of a GPU, the model names the one part that bounds it.
`tilewright design matmul ... --machine sn40l` searches with the simulated machine as the judge; what that wins is in
[note 0011](notes/0011-dataflow.md).

## Utilisation against batch

![utilisation against batch](figures/machines-batch.png)

A tile of weights takes 1,349 cycles to arrive on a TPU v1, and T cycles to be used by a batch of T rows. Below 1,349
rows the array waits for memory, whatever else is done; twice the batch is twice the utilisation.

## Every stage in time

![timeline of a matmul](figures/machines-matmul-timeline.png)

On a dataflow machine the loops of the same program are pipelines of stages. Loads (`a`, `b`) take turns on main memory
and run ahead as far as buffers allow; the product waits for both.

![timeline of decoder layers](figures/machines-decoder-timeline.png)

Three layers of {model} in one kernel on 8 SN40L sockets. Weights are loaded without a gap, one layer ahead: `wq1` of
the next layer arrives while `down` of this one computes. That is what kernel looping wins:

| sockets | way | kernel calls | tokens/s | of peak bandwidth |
|---|---|---|---|---|
{ways}

{grounds}

## Batch and context

![tokens against batch](figures/machines-sweep.png)

`tilewright simulate {model} --machine h200 --batch 1,8,64 --context 1024,8192 --plot out.html` draws one machine.
Beyond some 8 sequences on SN40L attention decides: it loads keys and values inside its loop over heads, where loads do
not run ahead from layer to layer.

## Many chips

![one step as chips grow](figures/machines-chips.png)

![tokens against chips](figures/machines-thousands.png)

Where the next doubling gains less than a tenth, what takes most of the time there, and whether the chips hold it all:

| batch | plan | stops at | tokens/s | most of a step | fits |
|---|---|---|---|---|---|
{stops}

Tensor parallel stops where two all-reduces a layer take as long as the weights that each chip still reads. Pipelines
and copies make no sequence faster: they stop where there are no more layers, or sequences, to deal.

## Errors against what others published

| what | cases | worst error |
|---|---|---|
{exact}

### Six applications on a TPU v1

Facts of tables 1, 3 and 7 of Jouppi et al., ISCA 2017; in TOPS. Given are always the share of cells that hold weights,
and by "all stalls" every cycle in which the matrix unit does not work, as counted; by "stalls with a cause" the same
without idle cycles that no counter explains; by "from memory" the idle cycles that have a cause, while the machine says
how long weights are awaited ("waits": predicted, counted).

| application | measured | roofline | all stalls | stalls with a cause | from memory | waits | Google's own model |
|---|---|---|---|---|---|---|---|
{applications}

The rates of the paper are of production code, without the time of the host; its counters are of other runs, and it says
itself that the two do not agree. Of CNN0's cycles 15% are idle without a cause that is counted: with them it could not
reach its 86 TOPS. Taken as time outside of the program, here and in both MLPs, they leave the rates within 4%. That
they are the host's is inferred.

What the model lacks: the layers. They are not published, so that no program can be made of them. CNN1 has four layers
that meet each weight 32 times among 72 that reuse it often; without their sizes its waits cannot be predicted, and with
all stalls as counted its rate is still 46% off: its counters say 21 TOPS where 14 were measured. That LSTMs take two
cycles an input (8-bit weights, 16-bit inputs) is inferred: at one, LSTM0's counters would mean 7.5 TOPS where its
memory allows 4.35. Google's errors are of cycles. What else was tried: [note 0014](notes/0014-simulated-machines.md).

### Products on an H200

Mean errors of the GPU model against `benchmarks/results/gpu-h200-2026-11-24.json`. "Held out": rates fitted to three
quarters of the shapes, judged on the others. "Corrected": by trees that were trained on other shapes.
`python benchmarks/gpu_model.py` and `--held-out` print them; the ladder's kernels are slow on purpose, and in no mean.

| family | designs | model | held out | corrected |
|---|---|---|---|---|
{products_measured}

### Every operator on an H200

Mean errors of the GPU model against the newest results of each bench (`gpu-h200`, `decode-gpu-h200`, `rows-gpu-h200`
in `benchmarks/results`). "Corrected": by trees that were trained on other shapes only. Rates are fitted to products of
2026-11-24 and to the probe `probes/simulate-rows-h200-2026-11-29.json`, 107 designs of which most have other shapes;
the line before the last is what the benches hold beside those. `python benchmarks/gpu_model.py --all` prints both
tables; a test holds 12% and 6% for every operator ([note 0014](notes/0014-simulated-machines.md)).

| operator | designs | model | corrected |
|---|---|---|---|
{by_operator_measured}

| family | designs | model | corrected |
|---|---|---|---|
{by_family_measured}
"""


def page() -> str:
    """The text of the page."""
    names = re.findall(r"^\{(\w+)\}$", PAGE, re.M)
    rows = {name: "\n".join(getattr(tables, name)()) for name in names}
    return PAGE.format(**SIZES, model=MODEL, **rows)


def main() -> None:
    """Figures first, then the page."""
    folder = ROOT / "docs" / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for name, chart in figures():
        (folder / f"{name}.png").write_bytes(drawn(chart))
    (ROOT / "docs" / "machines.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
