"""Build the corpus and the tokenizer of the model that ships, from Python source that is installed here.

    python training/corpus.py --out .train

collect -> clean -> filter -> deduplicate -> split by content hash -> trim -> take excerpts -> train the tokenizer ->
tokenise -> pack.
The output folder holds `tokens.npz` (uint16 arrays `train` and `heldout`), the tokenizer's two files,
`heldout.txt` (the slice that the tests score) and `corpus.json` (what went in, with versions and licences).
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import re
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from random import Random

import numpy as np
from tokenizer import END_OF_TEXT, save_tokenizer, train_tokenizer
from trim import excerpts, parse, trim

# Distributions whose Python files may go in, with the SPDX licence of those files. (A wheel may declare more: it also
# names the licences of the compiled libraries inside.) A package under another kind of licence (MPL: hypothesis,
# pathspec, tqdm; CNRI: regex) stays out, and so does code that a package vendors.
LICENCES = {
    "aiohttp": "Apache-2.0",
    "algorithms": "MIT",
    "anyio": "MIT",
    "anytree": "Apache-2.0",
    "arrow": "Apache-2.0",
    "asgiref": "BSD-3-Clause",
    "attrs": "MIT",
    "babel": "BSD-3-Clause",
    "black": "MIT",
    "bokeh": "BSD-3-Clause",
    "boltons": "BSD-3-Clause",
    "bottle": "MIT",
    "cachetools": "MIT",
    "celery": "BSD-3-Clause",
    "click": "BSD-3-Clause",
    "coverage": "Apache-2.0",
    "cryptography": "Apache-2.0 OR BSD-3-Clause",
    "dask": "BSD-3-Clause",
    "distributed": "BSD-3-Clause",
    "Django": "BSD-3-Clause",
    "ecdsa": "MIT",
    "execnet": "MIT",
    "fabric": "BSD-2-Clause",
    "fastapi": "MIT",
    "filelock": "MIT",
    "Flask": "BSD-3-Clause",
    "fsspec": "BSD-3-Clause",
    "funcy": "BSD-3-Clause",
    "h11": "MIT",
    "httpx": "BSD-3-Clause",
    "huggingface_hub": "Apache-2.0",
    "intervaltree": "Apache-2.0",
    "invoke": "BSD-2-Clause",
    "ipython": "BSD-3-Clause",
    "isort": "MIT",
    "jedi": "MIT",
    "Jinja2": "BSD-3-Clause",
    "kombu": "BSD-3-Clause",
    "lark": "MIT",
    "Mako": "MIT",
    "markdown-it-py": "MIT",
    "marshmallow": "MIT",
    "Mesa": "Apache-2.0",
    "more-itertools": "MIT",
    "mypy": "MIT",
    "networkx": "BSD-3-Clause",
    "nltk": "Apache-2.0",
    "nose2": "BSD-2-Clause",
    "numpy": "BSD-3-Clause",
    "packaging": "Apache-2.0 OR BSD-2-Clause",
    "pandas": "BSD-3-Clause",
    "parso": "MIT",
    "peewee": "MIT",
    "pendulum": "MIT",
    "pip": "MIT",
    "pluggy": "MIT",
    "prompt_toolkit": "BSD-3-Clause",
    "psutil": "BSD-3-Clause",
    "PuLP": "MIT",
    "pycodestyle": "MIT",
    "pydantic": "MIT",
    "pydash": "MIT",
    "pydatastructs": "MIT",
    "pyflakes": "MIT",
    "pyglet": "BSD-3-Clause",
    "Pygments": "BSD-2-Clause",
    "pygorithm": "MIT",
    "pygtrie": "Apache-2.0",
    "pyparsing": "MIT",
    "pyrsistent": "MIT",
    "pytest": "MIT",
    "pytest-xdist": "MIT",
    "PyYAML": "MIT",
    "requests": "Apache-2.0",
    "rich": "MIT",
    "rsa": "Apache-2.0",
    "scikit-image": "BSD-3-Clause",
    "scikit-learn": "BSD-3-Clause",
    "scipy": "BSD-3-Clause",
    "setuptools": "MIT",
    "simpy": "MIT",
    "sortedcollections": "Apache-2.0",
    "sortedcontainers": "Apache-2.0",
    "Sphinx": "BSD-2-Clause",
    "SQLAlchemy": "MIT",
    "sqlparse": "BSD-3-Clause",
    "starlette": "BSD-3-Clause",
    "statsmodels": "BSD-3-Clause",
    "tabulate": "MIT",
    "textdistance": "MIT",
    "textual": "MIT",
    "tinydb": "MIT",
    "toolz": "BSD-3-Clause",
    "tornado": "Apache-2.0",
    "traitlets": "BSD-3-Clause",
    "treelib": "Apache-2.0",
    "trio": "MIT OR Apache-2.0",
    "Twisted": "MIT",
    "typer": "MIT",
    "urllib3": "MIT",
    "Werkzeug": "BSD-3-Clause",
    "WTForms": "BSD-3-Clause",
    "xarray": "Apache-2.0",
}
# How often a source is read for once of the others: the standard library is the plainest Python there is, and the
# small libraries of algorithms and of tools for functions and containers are what a short prompt asks for.
WEIGHTS = {
    "cpython": 2,
    **dict.fromkeys(("algorithms", "pygorithm", "pydatastructs"), 4),
    **dict.fromkeys(("boltons", "cachetools", "funcy", "intervaltree", "more-itertools", "networkx", "pydash"), 2),
    **dict.fromkeys(("pyrsistent", "sortedcontainers", "textdistance", "toolz", "treelib"), 2),
}
SOURCE_BYTES = 3_000_000  # of one distribution at most, so that none sets the tone
VENDORED = {"_vendor", "vendor", "_vendored", "third_party", "extern", "_distutils"}
SKIPPED = {"site-packages", "__pycache__", "pydoc_data", "encodings", "locale", "migrations"}
TESTS = re.compile(
    r"(^|/)(tests?|testing|_testing|idle_test|conftest|sandbox|datasets)(/|\.py$)|(^|/)_?test_|_tests?\.py$"
)
HELD_OUT_ONE_IN = 50
GENERATED = re.compile(r"do not edit|auto-?generated|generated (by|from|automatically)", re.IGNORECASE)
LICENCE_HEADER = re.compile(r"copyright|licen[sc]e", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """One origin of files: a distribution, or the standard library of CPython."""

    name: str
    version: str
    licence: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Document:
    """One cleaned file."""

    source: str
    path: str
    text: str
    tree: ast.Module = field(repr=False, compare=False)

    @property
    def rank(self) -> int:
        """A number drawn from the content."""
        return int.from_bytes(hashlib.sha256(self.text.encode()).digest()[:4], "big")

    @property
    def held_out(self) -> bool:
        """Whether the file is kept from training: decided by its content alone, so it never changes sides."""
        return self.rank % HELD_OUT_ONE_IN == 0

    def trimmed(self, reading: int = 0) -> str:
        """The file as the model reads it. Another reading keeps other docstrings."""
        return trim(self.text, self.tree, Random(self.rank + reading))

    def texts(self, reading: int = 0) -> list[str]:
        """The trimmed file, and its excerpts."""
        whole = self.trimmed(reading)
        return [whole, *excerpts(self.tree, whole, Random(self.rank + reading))]


# ------------------------------------------------------------------------------------------ collect
def standard_library(root: Path) -> Source:
    header = root.parent.parent / "include" / root.name / "patchlevel.h"
    match = re.search(r'PY_VERSION\s+"([^"]+)"', header.read_text("utf-8")) if header.exists() else None
    version = match.group(1) if match else root.name.removeprefix("python")
    return Source("cpython", version, "PSF-2.0", tuple(sorted(root.rglob("*.py"))))


def installed(site_packages: Path) -> Iterator[Source]:
    """The allowed distributions found in `site_packages`, each with the files its own record lists."""
    found = {item.metadata["Name"]: item for item in distributions(path=[str(site_packages)])}
    for name in sorted(LICENCES.keys() & found.keys()):
        files = [site_packages / str(entry) for entry in found[name].files or () if str(entry).endswith(".py")]
        yield Source(name, found[name].version, LICENCES[name], tuple(sorted(files)))


# ---------------------------------------------------------------------------------- clean and filter
def clean(text: str) -> str:
    """Unix line ends, no trailing blanks, at most two blank lines in a row, no licence header."""
    lines = [line.rstrip() for line in text.replace("\f", "").splitlines()]
    end = next((i for i, line in enumerate(lines) if line and not line.startswith("#")), len(lines))
    if any(LICENCE_HEADER.search(line) for line in lines[:end]):
        lines = lines[end:]
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines)).strip("\n") + "\n"


def is_source_code(text: str) -> bool:
    """Whether a file reads like code that someone wrote: not tiny, not generated, not a table of data."""
    lines = text.splitlines()
    if not 200 <= len(text) <= 400_000 or GENERATED.search(text[:1500]):
        return False
    dense = sum(len(line.lstrip()) for line in lines)
    letters = sum(character.isalpha() for character in text)
    return max(map(len, lines)) <= 400 and len(text) / len(lines) <= 80 and letters >= 0.55 * dense and text.isascii()


def documents(source: Source, root: Path) -> Iterator[Document]:
    for path in source.files:
        parts = set(path.relative_to(root).parts)
        name = path.relative_to(root).as_posix()
        if parts & VENDORED or parts & SKIPPED or TESTS.search(name) or not path.is_file():
            continue
        try:
            text = clean(path.read_text("utf-8"))
        except UnicodeDecodeError:
            continue
        if is_source_code(text) and (tree := parse(text)):
            yield Document(source.name, name, text, tree)


def deduplicate(items: Iterable[Document], limit: float = 0.5) -> Iterator[Document]:
    """Drop a file when over `limit` of the text in its longer lines stands in files kept before it."""
    seen: set[int] = set()
    for item in items:
        lines = [line for raw in item.text.splitlines() if len(line := raw.strip()) >= 20]
        hashes = [int.from_bytes(hashlib.blake2b(line.encode(), digest_size=8).digest(), "big") for line in lines]
        known = sum(len(line) for line, key in zip(lines, hashes, strict=True) if key in seen)
        if known <= limit * sum(map(len, lines)):
            seen.update(hashes)
            yield item


def bound(items: Iterable[Document]) -> list[Document]:
    """At most `SOURCE_BYTES` of each distribution, chosen by content hash; the standard library is whole."""
    size: Counter[str] = Counter()
    chosen = []
    for item in sorted(items, key=lambda item: item.rank):
        if item.source == "cpython" or size[item.source] + len(item.text) <= SOURCE_BYTES:
            size[item.source] += len(item.text)
            chosen.append(item)
    return chosen


# ------------------------------------------------------------------------------------ tokenise, pack
def held_out_slice(items: Iterable[Document], limit: int) -> list[Document]:
    """Whole held-out files of the standard library, shortest hash first, up to `limit` bytes in total."""
    ranked = sorted(items, key=lambda item: hashlib.sha256(item.text.encode()).digest())
    chosen: list[Document] = []
    for item in ranked:
        size = sum(len(other.trimmed()) for other in chosen)
        if item.source == "cpython" and len(item.trimmed()) <= min(limit - size, limit // 2):
            chosen.append(item)
    return chosen


def readings(items: Iterable[Document]) -> list[str]:
    """What the model reads of `items`, shuffled: each file and its excerpts, as often as its source weighs."""
    texts = [text for item in items for reading in range(WEIGHTS.get(item.source, 1)) for text in item.texts(reading)]
    Random(1).shuffle(texts)
    return texts


def tokenise(tokenizer, texts: list[str]) -> np.ndarray:  # type: ignore[no-untyped-def]
    """All texts in one uint16 array, each one preceded by the end-of-text token."""
    start = tokenizer.token_to_id(END_OF_TEXT)
    parts: list[np.ndarray] = []
    for at in range(0, len(texts), 1024):
        for encoding in tokenizer.encode_batch(texts[at : at + 1024], add_special_tokens=False):
            parts.append(np.array([start, *encoding.ids], np.uint16))
    return np.concatenate(parts)


def manifest(sources: list[Source], kept: list[Document]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for source in sources:
        own = [item for item in kept if item.source == source.name]
        if own:
            size = sum(len(item.text) for item in own)
            row = {"name": source.name, "version": source.version, "licence": source.licence}
            rows.append({**row, "weight": WEIGHTS.get(source.name, 1), "files": len(own), "bytes": size})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path(".train"))
    parser.add_argument("--stdlib", type=Path, default=Path(sysconfig.get_path("stdlib")))
    parser.add_argument("--site-packages", type=Path, default=Path(sysconfig.get_path("purelib")))
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--slice-bytes", type=int, default=24_000, help="size limit of heldout.txt")
    options = parser.parse_args()

    library = standard_library(options.stdlib)
    packages = list(installed(options.site_packages))
    found = [item for source in packages for item in documents(source, options.site_packages)]
    kept = bound(deduplicate([*documents(library, options.stdlib), *found]))
    train = [item for item in kept if not item.held_out]
    heldout = [item for item in kept if item.held_out]
    print(
        f"{len(kept)} files, {sum(len(item.text) for item in kept) / 1e6:.1f} MB, {len(heldout)} held out", flush=True
    )

    options.out.mkdir(parents=True, exist_ok=True)
    texts = {"train": readings(train), "heldout": readings(heldout)}
    # A sixth of the texts is plenty for 4,096 merges, and takes a sixth of the time.
    tokenizer = train_tokenizer(texts["train"][::6], options.vocab)
    save_tokenizer(tokenizer, options.out)
    arrays = {part: tokenise(tokenizer, items) for part, items in texts.items()}
    np.savez_compressed(options.out / "tokens.npz", **arrays)  # type: ignore[arg-type]
    chosen = held_out_slice(heldout, options.slice_bytes)
    (options.out / "heldout.txt").write_text("\n\n".join(item.trimmed() for item in chosen), "utf-8")
    report = {
        "sources": manifest([library, *packages], kept),
        "files": {"train": len(train), "heldout": len(heldout)},
        "texts": {part: len(items) for part, items in texts.items()},
        "bytes": {part: sum(map(len, items)) for part, items in texts.items()},
        "tokens": {name: int(array.size) for name, array in arrays.items()},
        "heldout_slice": [item.path for item in chosen],
    }
    (options.out / "corpus.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print(json.dumps({key: report[key] for key in ("files", "texts", "bytes", "tokens", "heldout_slice")}))


if __name__ == "__main__":
    main()
