"""From a design to a cubin: what is kept on disk, what is found again, and copies that come first."""

from __future__ import annotations

import pytest

from tilewright import operators
from tilewright.build import cuda_kernel
from tilewright.build.cuda_kernel import CudaStages, build_cuda, build_many, disk_cache, key_of
from tilewright.build.kernel_cache import Request
from tilewright.design.default import default_design
from tilewright.design.design import Design
from tilewright.emit.abi import TensorLayout
from tilewright.errors import ArgumentError, CacheWarning, IllegalDesign
from tilewright.machines.machine import Machine

H200 = Machine.named("h200")
MATMUL = operators.matmul.kernel.trace("bf16", options={"activation": None})
SIZES = (("M", 64), ("N", 256), ("K", 128))


def request_for(align: int = 128, design: Design | None = None, sizes=SIZES) -> Request:
    layouts = tuple((n, TensorLayout((None, 1), align)) for n in ("a", "b", "c"))
    bare = Request(MATMUL, Design(), layouts, sizes)
    return Request(MATMUL, design or default_design(MATMUL, bare.facts(H200)), layouts, sizes)


@pytest.fixture
def compilations(monkeypatch):
    """How often NVRTC is called."""
    calls = []
    compile_cuda = cuda_kernel.nvrtc.compile_cuda

    def counted(*args):
        calls.append(args[1])
        return compile_cuda(*args)

    monkeypatch.setattr(cuda_kernel.nvrtc, "compile_cuda", counted)
    return calls


def test_a_kernel_is_compiled_once_and_found_again(compilations):
    request = request_for(sizes=(("M", 72), ("N", 256), ("K", 128)))
    first, second = build_cuda(request, H200), build_cuda(request, H200)
    assert len(compilations) == 1
    assert second.cubin == first.cubin
    assert (second.module, second.report, second.seconds) == (first.module, first.report, 0.0)


def test_a_damaged_entry_is_compiled_again(compilations):
    request = request_for(sizes=(("M", 80), ("N", 256), ("K", 128)))
    build_cuda(request, H200)
    store, key = disk_cache(), key_of(request, H200)
    path = store.directory / key[:2] / f"{key}.cubin"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.warns(CacheWarning, match="damaged"):
        build_cuda(request, H200)
    assert len(compilations) == 2


def test_an_illegal_design_is_refused_before_anything_is_emitted(compilations):
    good = request_for()
    bad = Request(MATMUL, Design.of({**dict(good.design.decisions), "stages": 999}), good.layouts, good.sizes)
    with pytest.raises(IllegalDesign, match="stages=999"):
        build_cuda(bad, H200)
    assert compilations == []


def test_many_are_built_side_by_side_and_errors_stand_in_their_places():
    good = request_for()
    bad = Request(MATMUL, Design.of({**dict(good.design.decisions), "stages": 999}), good.layouts, good.sizes)
    found = build_many([good, bad, good], H200, 2)
    assert isinstance(found[1], IllegalDesign)
    assert found[0].cubin == found[2].cubin


def test_unaligned_operands_are_copied_by_programs_of_their_own():
    request = request_for(align=2)
    binary = build_cuda(request, H200)
    assert [tensor for tensor, _, _ in binary.packs] == ["a", "b"]
    for _, copy, built in binary.packs:
        assert copy.kernel.name == "pack"
        assert built.report.spills == 0
    # Both copies have one form, so they are one kernel.
    assert binary.packs[0][2].cubin == binary.packs[1][2].cubin
    text = CudaStages(request, H200).text("cu")
    assert text.index("// pack a") < text.index("// pack b") < text.rindex("__global__")


def test_stages_as_text(tmp_path):
    stages = CudaStages(request_for(), H200)
    assert stages.text("tile").startswith("kernel matmul")
    assert "role producer" in stages.text("sched")
    assert "#include" in stages.text("cu")
    assert "HGMMA" in stages.text("sass")
    with pytest.raises(ArgumentError, match="no stage 'll'"):
        stages.text("ll")
    names = {path.name for path in stages.save(tmp_path)}
    assert names == {
        "matmul.tile",
        "matmul.sched",
        "matmul.cu",
        "matmul.ptx",
        "matmul.sass",
        "matmul.cubin",
        "matmul.usage",
    }
