"""The pool's compiled code under ThreadSanitizer: the very text that is compiled for users, called by several threads.

Needs LLVM's `opt` and `llc` and a C compiler with ThreadSanitizer; a pool whose orderings are weakened must be caught.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tilewright.runtime import pool_ir

HERE = Path(__file__).parent
PLACES = ("LINE", "WORKERS", "THREADS", "SPIN", "POOL", "INDEX", "CORE")


def run(*command, **options):
    words = [str(word) for word in command]
    return subprocess.run(words, check=False, capture_output=True, text=True, timeout=1200, **options)


def missing(folder: Path) -> str | None:
    """Why nothing can be sanitized here."""
    absent = [tool for tool in ("opt", "llc", "cc") if shutil.which(tool) is None]
    if absent:
        return f"no {absent[0]} on this machine"
    (folder / "none.c").write_text("int main() { return 0; }\n")
    built = run("cc", "-fsanitize=thread", "-o", folder / "none", folder / "none.c")
    ran = None if built.returncode else run(*fixed_addresses(), folder / "none")
    return "the C compiler has no ThreadSanitizer that runs" if ran is None or ran.returncode else None


def fixed_addresses() -> list[str]:
    """ThreadSanitizer wants memory where it expects it, which the kernel's random places may not be."""
    return ["setarch", "-R"] if shutil.which("setarch") else []


def sanitized(text: str, folder: Path) -> Path:
    """The callers and a pool of this text, with each access of both watched."""
    watched = re.sub(r"^(define [^{]*\)[^{]*)\{", r"\1 sanitize_thread {", text, flags=re.M)
    assert watched.count("sanitize_thread") == len(re.findall(r"^define", text, re.M))
    (folder / "pool.ll").write_text(watched)
    first = run("opt", "--version").stdout
    version = int(re.search(r"version (\d+)", first)[1])
    opaque = ["-opaque-pointers"] if version < 15 else []
    steps = (
        ("opt", *opaque, "-passes=module(tsan-module),function(tsan)", folder / "pool.ll", "-o", folder / "pool.bc"),
        ("llc", *opaque, "-O2", "-relocation-model=pic", "-filetype=obj", folder / "pool.bc", "-o", folder / "pool.o"),
        (
            "cc", "-O1", "-g", "-fsanitize=thread", *(f"-D{n}={getattr(pool_ir, n)}" for n in PLACES),
            HERE / "pool_callers.c", folder / "pool.o", "-o", folder / "callers", "-lpthread",
        ),
    )  # fmt: skip
    for step in steps:
        done = run(*step)
        assert done.returncode == 0, done.stderr
    return folder / "callers"


def races(program: Path, threads: int, regions: int, callers: int) -> tuple[int, str]:
    """How many data races were seen, and all that was said."""
    environment = {**os.environ, "TSAN_OPTIONS": "exitcode=0 report_thread_leaks=1"}
    done = run(*fixed_addresses(), program, threads, regions, callers, env=environment)
    said = done.stdout + done.stderr
    return said.count("WARNING: ThreadSanitizer"), f"{done.returncode}: {said}"


@pytest.fixture
def folder(tmp_path):
    if why := missing(tmp_path):
        pytest.skip(why)
    return tmp_path


@pytest.mark.parametrize(("threads", "callers"), [(2, 1), (4, 1), (4, 3), (7, 2)])
def test_no_access_of_the_pool_races(folder, threads, callers):
    seen, said = races(sanitized(pool_ir.pool_ir(), folder), threads, 400, callers)
    assert seen == 0, said
    assert said.endswith(f"0 wrong of {400 * callers}\n"), said


@pytest.mark.parametrize("order", ["acquire", "release"])
def test_a_pool_of_weaker_orderings_is_caught(folder, order):
    weaker = re.sub(rf" {order}(, align|$)", r" monotonic\1", pool_ir.pool_ir(), flags=re.M)
    assert weaker != pool_ir.pool_ir()
    seen, said = races(sanitized(weaker, folder), 4, 400, 2)
    assert seen > 0, said
