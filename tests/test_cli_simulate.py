"""`tilewright simulate`: sweeps as options, many chips of every kind, and errors that name the fix."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from tilewright import cli
from tilewright.errors import TilewrightError


def run(*words: str):
    return CliRunner().invoke(cli.app, ["simulate", *words])


def told(*words: str):
    ran = run(*words, "--json")
    assert ran.exit_code == 0, ran.output
    return json.loads(ran.stdout)


@pytest.mark.parametrize("machine", [("sn40l", "--chips", "8"), ("h200",), ("h200", "--chips", "8")], ids=" ".join)
def test_a_sweep_is_printed_and_drawn(machine, tmp_path):
    page = tmp_path / "out.html"
    found = told(
        "llama-3.1-8b", "--machine", *machine, "--batch", "1,16", "--context", "1024,4096", "--plot", str(page)
    )
    assert len(found["layers"]) == 4
    rate = found["numbers"]["tokens per second, batch 16, context 4096"]["value"]
    assert rate > found["numbers"]["tokens per second, batch 1, context 4096"]["value"]
    assert "data:image/png" in page.read_text(encoding="utf-8")


def test_the_comparison_of_the_issue_is_printed():
    ran = run("llama-3.1-8b", "--machine", "sn40l", "--chips", "8")
    assert ran.exit_code == 0, ran.output
    ways = ("kernel by kernel: ", "one kernel a layer: ", "looped: ", "looped against kernel by kernel")
    for line in (*ways, "published: ", "assumed: "):
        assert f"  {line}" in ran.output


def test_an_operators_rows_are_swept():
    found = told("matmul", "N=256", "K=256", "--machine", "tpu-v1", "--batch", "1,64,1024")
    used = [layer["utilisation"] for layer in found["layers"]]
    assert used == sorted(used)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("matmul", "M=1", "N=8", "K=8", "--machine", "tpu-v9"), "tpu"),
        (("matmul", "M=1", "N=8", "K=8", "--machine", "systolic:0x8:ws"), "rows"),
        (("matmul", "M=1", "N=8", "K=8", "--machine", "systolic:8x8:ws:bandwidth=-1"), "more than 0"),
        (("matmul", "M=1", "N=8", "K=8", "--machine", "tpu-v1", "--chips", "2"), "sn40l or h200"),
        (("matmul", "M=1", "N=8", "K=8", "--machine", "h200", "--chips", "2"), "models"),
        (("llama-3.1-8b", "--machine", "l40s", "--chips", "2"), "link_bytes_per_s"),
        (("llama-3.1-8b", "--machine", "sn40l"), "memory units of 1040"),
        (("llama-3.1-9b", "--machine", "h200"), "llama-3.1-8b"),
        (("matmul", "M=8", "N=8", "K=8", "--machine", "sn40l", "--set", "design=none"), "tilewright design matmul"),
        (
            ("matmul", "M=8", "N=8", "K=8", "--machine", "sn40l", "--set", 'design={"tile.q": 2}'),
            "has no axis with tiles",
        ),
        (("matmul", "M=8", "N=8", "K=8", "--machine", "h200", "--set", "design=[]"), "write the JSON"),
        (("matmul", "M=8", "N=8", "K=100000000", "--machine", "sn40l"), "take a larger tile.k"),
        (("matmul", "M=8", "N=8", "K=8", "--machine", "h200", "--set", "colour=1"), "takes --set design=JSON"),
        (("llama-3.1-8b", "--machine", "h200", "--batch", "one"), "batch=1,8,64"),
    ],
)
def test_what_cannot_be_simulated_names_the_fix(words, says):
    ran = run(*words)
    assert isinstance(ran.exception, TilewrightError) or ran.exit_code
    assert says in f"{ran.output} {ran.exception}"


@pytest.mark.parametrize("machine", ["systolic:8x8:ws", "sn40l", "h200"])
def test_a_call_stands_for_the_operator_that_it_runs(machine):
    words = ("--machine", machine, "M=64", "N=64", "K=64")
    assert told("linear", *words) == told("matmul", *words)
