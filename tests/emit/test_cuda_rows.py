"""Rows as CUDA C++: what is read once is loaded once, sixteen bytes at a time, and nothing spills, on any GPU."""

import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from test_cuda_simt import built, sass

from tilewright.build.nvrtc import missing

pytestmark = pytest.mark.skipif(missing() is not None, reason="NVRTC is not installed")

# Tensors that have rows, and vectors that all rows want.
LOADS = {
    "rmsnorm": (1, 1), "add_rmsnorm": (2, 1), "layernorm": (1, 1), "softmax": (1, 0), "rmsnorm_backward": (2, 1),
    "softmax_backward": (2, 0),
}  # fmt: skip
# Sizes; loads of 16 bytes by a thread for each row that it holds a part of; such rows, where they share vectors.
SHAPES = [(8192, 4096, 4, 1), (16384, 8192, 4, 1), (4096, 1024, 2, 2), (1, 4096, 1, 1)]


def loads(name, held, several=1):
    """Loads of a thread; several rows lie in one where a vector that is needed late can serve them all."""
    rows, vectors = LOADS[name]
    early = name in ("rmsnorm", "add_rmsnorm", "layernorm")
    return (rows * several + vectors) * held if early else (rows + vectors) * several * held


def clean(report):
    return (report.spill_stores, report.spill_loads, report.stack) == (0, 0, 0)


@pytest.mark.parametrize("machine", ["a100", "h200"])
@pytest.mark.parametrize(("rows", "length", "held", "several"), SHAPES)
@pytest.mark.parametrize("name", LOADS)
def test_a_row_is_loaded_once_and_stays_in_registers(name, rows, length, held, several, machine):
    _, compiled = built(name, machine=machine, M=rows, D=length)
    text = sass(compiled.cubin)
    assert clean(compiled.report)
    assert len(re.findall(r"LDG\.E(?:\.NA)?\.128", text)) == len(re.findall(r"LDG", text)) == loads(name, held, several)
    assert not re.search(r"\b(LDL|STL)\b", text)
    assert "STG.E.128" in text


@pytest.mark.parametrize("element", ["f32", "f16"])
@pytest.mark.parametrize("name", LOADS)
def test_other_types_stay_too(name, element):
    _, compiled = built(name, element, M=8192, D=4096)
    assert clean(compiled.report)
    assert len(re.findall("LDG", sass(compiled.cubin))) == loads(name, 4)


@pytest.mark.parametrize(("length", "align"), [(4095, 2), (4100, 8), (100, 8), (1, 2)])
@pytest.mark.parametrize("name", [*LOADS, "argmax", "swiglu", "rmsnorm_weight_backward"])
def test_rows_of_any_length_at_any_address_do_not_spill(name, length, align):
    _, compiled = built(name, align=align, M=8192, D=length)
    assert clean(compiled.report)


@pytest.mark.parametrize("machine", ["a100", "h200"])
@pytest.mark.parametrize("name", ["softmax", "rmsnorm", "argmax", "topk"])
@pytest.mark.parametrize(("rows", "length"), [(1, 128256), (2048, 65536), (4, 1 << 20)])
def test_very_long_rows_do_not_spill(name, rows, length, machine):
    module, compiled = built(name, machine=machine, M=rows, D=length, K=8)
    assert clean(compiled.report)
    assert (module.grid.cluster > 1) == (machine == "h200")
    text = sass(compiled.cubin)
    assert ("UCGABAR" in text) == (machine == "h200")  # the barrier of a cluster


def test_blocks_of_a_cluster_send_their_parts_to_one_another_and_leave_nothing_in_memory():
    module, compiled = built("softmax", M=1, D=128256)
    text = sass(compiled.cubin)
    assert module.source.count("tw::join_blocks<8>") == 2
    assert module.scratch == ()
    assert not re.search(r"\b(ATOM|RED|MEMBAR)\b", text)
    assert "STAS" in text  # st.async to the shared memory of another block


def test_single_rows_ask_for_weights_before_they_wait_for_the_row():
    _, compiled = built("rmsnorm", M=1, D=4096)
    code = re.findall(r"/\*[0-9a-f]{4}\*/\s+(?:@!?\w+ +)?([A-Z][\w.]*)", sass(compiled.cubin))
    first, second = (n for n, word in enumerate(code) if word.startswith("LDG"))
    assert not any(word.startswith(("BAR", "SHFL", "FFMA", "FMUL")) for word in code[first:second])


def test_functions_of_short_results_take_the_special_units_and_those_of_f32_do_not():
    short, wide = (built("silu", element, M=64, D=4096)[0].source for element in ("bf16", "f32"))
    assert "tw::ApproxSigmoid{}" in short
    assert "tw::Sigmoid{}" in wide and "Approx" not in wide


def test_rows_without_a_length_of_their_own_share_a_kernel():
    module, compiled = built("softmax", any_length=True)
    assert "const int D = (int)args.words" in module.source
    assert "x0_kept" not in module.source
    assert clean(compiled.report)
