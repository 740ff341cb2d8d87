"""Stages of a build: shown, saved, kept beside the cache, and replaced by files of the user."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tilewright.build.kernel_cache import Request, build, disk_cache, key_of, target_of
from tilewright.build.stages import STAGES, Stages
from tilewright.errors import ArgumentError, CompileError, ParseError, VerifyError
from tilewright.language.parser import parse
from tilewright.runtime import dispatch, launch
from tilewright.runtime.buffer import Buffer


@pytest.fixture
def request_(monkeypatch, tmp_path) -> Request:
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(tmp_path / "cache"))
    return tw.compile(tw.operators.scale_add, M=4, D=32).stages.request


def run(request: Request) -> np.ndarray:
    """alpha a + b with alpha 2, a = 1, b = 10, by a kernel built anew."""
    binary = build(request, dispatch.machine())
    kernel = dispatch.Kernel("scale_add", request.kernel, request.design, binary, (), launch.PROTOTYPE(binary.address))
    arrays = {"a": np.full((4, 32), 1, "f"), "b": np.full((4, 32), 10, "f"), "c": np.full((4, 32), np.nan, "f")}
    kernel.bind({n: Buffer.of(x) for n, x in arrays.items()}, {"alpha": 2.0}, {"M": 4, "D": 32})()
    return arrays["c"]


def override(request: Request, stage: str, text: str) -> None:
    path = disk_cache().override_path(key_of(request, dispatch.machine()), stage)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def text(request: Request, stage: str) -> str:
    return Stages(request, dispatch.machine(), target_of(dispatch.machine())).text(stage)


def test_every_stage_is_saved(request_, tmp_path):
    stages = Stages(request_, dispatch.machine(), target_of(dispatch.machine()))
    written = stages.save(tmp_path / "out")
    assert [p.name for p in written] == [f"scale_add.{s}" for s in STAGES]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(p.name for p in written)
    assert parse(written[0].read_text()) == request_.kernel
    assert parse(written[1].read_text()) == stages.sched
    assert written[4].read_bytes().startswith(b"\x7fELF")


def test_a_folder_that_cannot_be_written(request_, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match="cannot be saved"):
        Stages(request_, dispatch.machine(), target_of(dispatch.machine())).save(tmp_path / "file")


def test_an_unknown_stage_names_those_there_are(request_):
    with pytest.raises(ArgumentError, match=r"'ptx'.*tile, sched, thread, ll, asm"):
        text(request_, "ptx")


def test_an_override_of_the_schedule_is_compiled(request_, capfd):
    assert np.all(run(request_) == 12)
    changed = text(request_, "sched").replace("add0 = add ", "add0 = sub ")
    assert "add0 = sub " in changed
    override(request_, "sched", changed)
    assert np.all(run(request_) == 2 - 10)
    assert "stage sched of scale_add is " in capfd.readouterr().err


def test_an_override_of_llvm_ir_is_compiled_and_never_cached(request_, capfd):
    changed = text(request_, "ll").replace("fadd contract", "fmul contract")
    override(request_, "ll", changed)
    assert np.all(run(request_) == 20)
    assert "stage ll of scale_add is " in capfd.readouterr().err
    disk_cache().override_path(key_of(request_, dispatch.machine()), "ll").unlink()
    assert np.all(run(request_) == 12)


@pytest.mark.parametrize(
    "stage, edit, error",
    [
        ("sched", lambda s: s.replace("kernel", "kernle", 1), ParseError),
        ("sched", lambda s: s.replace("store c[m, d] = add0", "store c[m, d] = gone"), VerifyError),
        (
            "sched",
            lambda s: s.replace("alpha: f32", "alpha: i32").replace("full alpha : f32", "full alpha : i32"),
            Exception,
        ),
        ("ll", lambda s: s.replace("define", "defien", 1), CompileError),
    ],
)
def test_an_override_that_is_no_program(request_, stage, edit, error):
    override(request_, stage, edit(text(request_, stage)))
    with pytest.raises(error) as raised:
        run(request_)
    assert isinstance(raised.value, tw.TilewrightError)


def test_an_override_with_other_parameters(request_):
    override(
        request_, "sched", text(request_, "sched").replace("kernel scale_add(", "kernel scale_add(extra: f32[M], ", 1)
    )
    with pytest.raises(CompileError, match="other parameters"):
        run(request_)


def test_builds_are_observed_with_their_stages(request_):
    seen = []
    for _ in range(2):
        build(request_, dispatch.machine(), lambda key, stages, binary: seen.append((key, stages, binary)))
    assert [key for key, _, _ in seen] == [key_of(request_, dispatch.machine())] * 2
    assert seen[0][2].seconds > 0 and seen[1][2].seconds == 0


def test_kept_stages_lie_where_an_override_is_looked_for(request_):
    machine = dispatch.machine()
    key = key_of(request_, machine)
    stages = Stages(request_, machine, target_of(machine))
    path = stages.keep(disk_cache(), key)
    kept = disk_cache().get(key, "sched")
    assert kept is not None
    path.write_bytes(kept.replace(b"add0 = add ", b"add0 = sub "))
    assert np.all(run(request_) == -8)
