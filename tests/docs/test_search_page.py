"""docs/SEARCH.md: the kernel that it shows is designed by the command that it shows."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "SEARCH.md").read_text(encoding="utf-8")


def test_the_kernel_of_the_page_can_be_designed(tmp_path: Path):
    (program,) = re.findall(r"^`(\w+\.py)`:\n\n```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (tmp_path / program[0]).write_text(program[1])
    (command,) = re.findall(rf"^tilewright (design {program[0]}:\S+ .*)$", PAGE, re.MULTILINE)
    words = shlex.split(command)[:-2]  # without its budget, and smaller
    words = [re.sub(r"=\d+$", "=32", word) for word in words]
    run = subprocess.run(
        [sys.executable, "-m", "tilewright.cli", *words, "--budget", "2 trials", "--threads", "1", "--no-report",
         "--json"],
        cwd=tmp_path, capture_output=True, text=True, timeout=1200, check=False,
        env={"PYTHONPATH": ":".join(sys.path), "TILEWRIGHT_CACHE_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["operator"] in program[1] and found["trials"] == 2


def test_its_links_lead_somewhere():
    links = re.findall(r"\]\(((?!http)[^)#]+)", PAGE)
    assert links
    missing = [link for link in links if not (ROOT / "docs" / link).exists()]
    assert not missing
