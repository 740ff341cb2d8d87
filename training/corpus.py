"""Build the corpus and the tokenizer of the model that ships, from Python source that is installed here.

    python training/corpus.py --out .train

collect -> clean -> filter -> deduplicate -> split by content hash -> train the tokenizer -> tokenise -> pack.
The output folder holds `tokens.npz` (uint16 arrays `train` and `heldout`), the tokenizer's two files,
`heldout.txt` (the slice that the tests score) and `corpus.json` (what went in, with versions and licences).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

import numpy as np
from tokenizer import END_OF_TEXT, save_tokenizer, train_tokenizer

# Distributions whose Python files may go in, with the SPDX licence of those files. (A wheel may declare more: it also
# names the licences of the compiled libraries inside.) A package under another kind of licence (MPL: hypothesis,
# pathspec, tqdm; CNRI: regex) stays out, and so does code that a package vendors.
LICENCES = {
    "anyio": "MIT",
    "click": "BSD-3-Clause",
    "execnet": "MIT",
    "filelock": "MIT",
    "fsspec": "BSD-3-Clause",
    "grimp": "BSD-2-Clause",
    "h11": "MIT",
    "huggingface_hub": "Apache-2.0",
    "import-linter": "BSD-2-Clause",
    "Jinja2": "BSD-3-Clause",
    "llvmlite": "BSD-2-Clause",
    "markdown-it-py": "MIT",
    "mpmath": "BSD-3-Clause",
    "mypy": "MIT",
    "networkx": "BSD-3-Clause",
    "numpy": "BSD-3-Clause",
    "packaging": "Apache-2.0 OR BSD-2-Clause",
    "pip": "MIT",
    "pluggy": "MIT",
    "psutil": "BSD-3-Clause",
    "pydantic": "MIT",
    "Pygments": "BSD-2-Clause",
    "pytest": "MIT",
    "pytest-xdist": "MIT",
    "PyYAML": "MIT",
    "rich": "MIT",
    "setuptools": "MIT",
    "sortedcontainers": "Apache-2.0",
    "sympy": "BSD-3-Clause",
    "torch": "BSD-3-Clause",
    "transformers": "Apache-2.0",
    "typer": "MIT",
    "typing_extensions": "PSF-2.0",
}
VENDORED = {"_vendor", "vendor", "_vendored", "third_party", "extern", "_distutils"}
SKIPPED = {"site-packages", "__pycache__", "rubi"}  # rubi: thousands of generated integration rules
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

    @property
    def held_out(self) -> bool:
        """Whether the file is kept from training: decided by its content alone, so it never changes sides."""
        return int.from_bytes(hashlib.sha256(self.text.encode()).digest()[:4], "big") % HELD_OUT_ONE_IN == 0


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
        if parts & VENDORED or parts & SKIPPED or not path.is_file():
            continue
        try:
            text = clean(path.read_text("utf-8"))
        except UnicodeDecodeError:
            continue
        if is_source_code(text):
            yield Document(source.name, path.relative_to(root).as_posix(), text)


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


# ------------------------------------------------------------------------------------ tokenise, pack
def held_out_slice(items: Iterable[Document], limit: int) -> list[Document]:
    """Whole held-out files of the standard library, shortest hash first, up to `limit` bytes in total."""
    ranked = sorted(items, key=lambda item: hashlib.sha256(item.text.encode()).digest())
    chosen: list[Document] = []
    for item in ranked:
        size = sum(len(other.text) for other in chosen)
        if item.source == "cpython" and size + len(item.text) <= limit and len(item.text) <= limit // 4:
            chosen.append(item)
    return chosen


def tokenise(tokenizer, items: list[Document]) -> np.ndarray:  # type: ignore[no-untyped-def]
    """All documents in one uint16 array, each one preceded by the end-of-text token."""
    start = tokenizer.token_to_id(END_OF_TEXT)
    parts: list[np.ndarray] = []
    for at in range(0, len(items), 256):
        for encoding in tokenizer.encode_batch([item.text for item in items[at : at + 256]], add_special_tokens=False):
            parts.append(np.array([start, *encoding.ids], np.uint16))
    return np.concatenate(parts)


def manifest(sources: list[Source], kept: list[Document]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for source in sources:
        own = [item for item in kept if item.source == source.name]
        if own:
            size = sum(len(item.text) for item in own)
            row = {"name": source.name, "version": source.version, "licence": source.licence}
            rows.append({**row, "files": len(own), "bytes": size})
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
    kept = list(deduplicate([*documents(library, options.stdlib), *found]))
    train = [item for item in kept if not item.held_out]
    heldout = [item for item in kept if item.held_out]
    print(
        f"{len(kept)} files, {sum(len(item.text) for item in kept) / 1e6:.1f} MB, {len(heldout)} held out", flush=True
    )

    options.out.mkdir(parents=True, exist_ok=True)
    # A quarter of the files is plenty for 4,096 merges, and takes a quarter of the time.
    tokenizer = train_tokenizer([item.text for item in train[::4]], options.vocab)
    save_tokenizer(tokenizer, options.out)
    arrays = {"train": tokenise(tokenizer, train), "heldout": tokenise(tokenizer, heldout)}
    np.savez_compressed(options.out / "tokens.npz", **arrays)  # type: ignore[arg-type]
    chosen = held_out_slice(heldout, options.slice_bytes)
    (options.out / "heldout.txt").write_text("\n\n".join(item.text for item in chosen), "utf-8")
    report = {
        "sources": manifest([library, *packages], kept),
        "files": {"train": len(train), "heldout": len(heldout)},
        "bytes": {"train": sum(len(i.text) for i in train), "heldout": sum(len(i.text) for i in heldout)},
        "tokens": {name: int(array.size) for name, array in arrays.items()},
        "heldout_slice": [item.path for item in chosen],
    }
    (options.out / "corpus.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print(json.dumps({key: report[key] for key in ("files", "bytes", "tokens", "heldout_slice")}))


if __name__ == "__main__":
    main()
