"""Blocks of documents: found, extracted and executed with the lines of the document."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = """# Title

```python
x = 1
```

## Start

```sh
first
```

Text, and a fence of four around one of three:

````text
```sh
not a block of its own
```
````

```bash
second
again
```

## Next

```python
assert x == 1
```
"""


@pytest.fixture(scope="module")
def docs():
    spec = importlib.util.spec_from_file_location("run_docs", ROOT / "tools" / "run_docs.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["run_docs"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def document(tmp_path):
    path = tmp_path / "DOC.md"
    path.write_text(DOCUMENT)
    return path


def test_shell_blocks_of_a_section(docs, document, capsys):
    assert docs.main(["block", str(document), "Start", "2"]) == 0
    assert capsys.readouterr().out == "second\nagain\n"
    for title, number in (("Start", 3), ("Start", 0), ("Nowhere", 1)):
        with pytest.raises(SystemExit):
            docs.shell_block(document, title, number)


def test_python_blocks_keep_their_lines(docs, document):
    lines = docs.python_program(document).splitlines()
    assert lines[3] == DOCUMENT.splitlines()[3] == "x = 1"
    assert lines[-1] == "assert x == 1" and len(lines) == DOCUMENT[: DOCUMENT.index("assert")].count("\n") + 1


def test_a_document_that_runs_and_one_that_does_not(docs, document, capfd):
    assert docs.main(["run", str(document)]) == 0
    document.write_text(DOCUMENT.replace("assert x == 1", "assert x == 2"))
    assert docs.main(["run", str(document)]) == 1
    assert f"line {DOCUMENT[: DOCUMENT.index('assert')].count(chr(10)) + 1}" in capfd.readouterr().err


def test_the_readme_s_start_has_exactly_two_shell_blocks(docs):
    text = docs.section((ROOT / "README.md").read_text(), "Start")
    assert [b.language in docs.SHELL for b in docs.blocks(text)] == [True, True]
    assert "tilewright generate" in docs.shell_block(ROOT / "README.md", "Start", 1)
    assert "pytest" in docs.shell_block(ROOT / "README.md", "Start", 2)
