"""The public names: there, lazily, and nothing heavy is imported before it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tilewright as tw

HEAVY = ("torch", "llvmlite", "numpy", "ml_dtypes", "transformers", "typer", "rich", "tokenizers", "jinja2")


def imported_after(program: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after `program`."""
    code = f"{program}\nimport sys\nprint(' '.join(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(ended.stdout.split())


def test_importing_the_package_imports_nothing_heavy():
    assert imported_after("import tilewright").isdisjoint(HEAVY)


@pytest.mark.parametrize(
    "use",
    ["tilewright.kernel, tilewright.Tensor", "tilewright.operators.matmul", "tilewright.ops", "tilewright.Machine"],
)
def test_operators_and_machines_need_neither_llvm_nor_torch(use):
    assert imported_after(f"import tilewright; {use}").isdisjoint({"torch", "llvmlite"})


def test_kernels_need_no_torch():
    program = "import tilewright as tw; tw.compile(tw.operators.scale_add, M=1, D=4).source"
    found = imported_after(program)
    assert "llvmlite" in found and "torch" not in found


@pytest.mark.parametrize("name", [n for n in dir(tw) if not n.startswith("__")])
def test_every_listed_name_is_there(name):
    assert getattr(tw, name) is not None


def test_the_faces_names():
    wanted = {"ops", "operators", "LLM", "SamplingParams", "Machine", "Design", "compile", "kernel", "launch", "bind",
              "Tensor", "Scalar", "parallel", "tiles", "each", "dot", "zeros", "errors", "TilewrightError"}  # fmt: skip
    assert wanted <= set(dir(tw))
    from tilewright import language

    assert set(language.__all__) <= set(dir(tw))


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'linear'"):
        tw.linear  # noqa: B018
