"""The cache of artefacts: what it keeps, what it refuses, and what many processes do to it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from tilewright.build.cache import Cache, cache_key
from tilewright.errors import ArgumentError, CacheWarning


def key(text: str) -> str:
    return cache_key(text, "a target", "a compiler")


def test_keys_differ_when_any_part_does() -> None:
    parts = [("t", "m", "c"), ("t2", "m", "c"), ("t", "m2", "c"), ("t", "m", "c2"), ("tm", "", "c"), ("", "tm", "c")]
    assert len({cache_key(*p) for p in parts}) == len(parts)
    assert cache_key("t", "m", "c") == cache_key("t", "m", "c")


def test_an_artefact_comes_back_in_another_object(tmp_path: Path) -> None:
    data = bytes(range(256)) * 3 + b"\n\n"
    Cache(tmp_path).put(key("a"), "o", data)
    assert Cache(tmp_path).get(key("a"), "o") == data
    assert Cache(tmp_path).get(key("a"), "ll") is None
    assert Cache(tmp_path).get(key("b"), "o") is None
    assert (tmp_path / key("a")[:2] / f"{key('a')}.o").is_file()


def test_the_empty_artefact_is_one(tmp_path: Path) -> None:
    Cache(tmp_path).put(key("a"), "asm", b"")
    assert Cache(tmp_path).get(key("a"), "asm") == b""


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "header", "grow", "other key"])
def test_a_damaged_entry_is_dropped_with_a_warning(tmp_path: Path, damage: str) -> None:
    cache = Cache(tmp_path)
    cache.put(key("a"), "o", b"machine code")
    path = next(tmp_path.glob("*/*.o"))
    raw = path.read_bytes()
    cache.put(key("b"), "o", b"other code")
    other = cache.directory / key("b")[:2] / f"{key('b')}.o"
    path.write_bytes(
        {
            "flip": raw[:-1] + bytes([raw[-1] ^ 1]),
            "cut": raw[:-1],
            "empty": b"",
            "header": b"# tilewright-cache 1 00\nmachine code",
            "grow": raw + b"\0",
            "other key": other.read_bytes(),
        }[damage]
    )
    with pytest.warns(CacheWarning, match="is damaged"):
        assert cache.get(key("a"), "o") is None
    assert not path.exists()
    cache.put(key("a"), "o", b"machine code")
    assert cache.get(key("a"), "o") == b"machine code"


def test_a_folder_that_cannot_be_written_warns_once(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    cache = Cache(blocked / "cache")
    with pytest.warns(CacheWarning, match="cannot write to the cache folder"):
        cache.put(key("a"), "o", b"x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.put(key("b"), "o", b"x")
        assert cache.get(key("a"), "o") is None
    assert blocked.read_text() == "not a folder"


def test_a_full_disk_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> int:
        with open(path, "wb") as file:
            file.write(data[:3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.warns(CacheWarning, match="No space left"):
        Cache(tmp_path).put(key("a"), "o", b"machine code")
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, max_bytes=20_000)
    for i in range(40):
        cache.put(key(str(i)), "o", bytes(1000))
        os.utime(cache._path(key(str(i)), "o"), (i, i))
        cache.get(key("0"), "o")  # stays in use, and so in the cache
    held = [i for i in range(40) if cache.get(key(str(i)), "o") is not None]
    assert sum(p.stat().st_size for p in tmp_path.rglob("*.o")) <= 20_000
    assert held == [0, *range(41 - len(held), 40)]
    assert len(held) >= 15
    cache.put(key("huge"), "o", bytes(20_001))
    assert cache.get(key("huge"), "o") is None
    assert cache.get(key("0"), "o") is not None


def test_leftovers_of_a_kill_are_swept(tmp_path: Path) -> None:
    folder = tmp_path / "ab"
    folder.mkdir()
    old, new = folder / "x.o.1.tmp", folder / "y.o.2.tmp"
    for file in (old, new):
        file.write_bytes(b"part")
    os.utime(old, (time.time() - 7200,) * 2)
    Cache(tmp_path).put(key("a"), "o", b"x")
    assert not old.exists()
    assert new.exists()


def test_an_override_wins_and_never_ages(tmp_path: Path) -> None:
    cache = Cache(tmp_path, max_bytes=1000)
    cache.put(key("a"), "ll", b"define void @f()\n")
    assert cache.override(key("a"), "ll") is None
    edited = cache.override_path(key("a"), "ll")
    edited.write_bytes(next(tmp_path.glob("*/*.ll")).read_bytes() + b"; edited\n")
    assert cache.override(key("a"), "ll") == b"define void @f()\n; edited\n"
    edited.write_bytes(b"; written by hand\n; second\n")
    assert cache.override(key("a"), "ll") == b"; written by hand\n; second\n"
    for i in range(20):
        cache.put(key(str(i)), "o", bytes(300))
    assert cache.override(key("a"), "ll") is not None
    cache.override_path(key("a"), "o").write_bytes(b"anything")
    assert cache.override(key("a"), "o") is None
    assert cache.overridden(key("a"))
    cache.override_path(key("b"), "o").parent.mkdir(exist_ok=True)
    cache.override_path(key("b"), "o").write_bytes(b"anything")
    assert not cache.overridden(key("b"))


@pytest.mark.parametrize("bad", ["", "abc", "../../etc/passwd", "A" * 64])
def test_a_key_cannot_leave_the_folder(tmp_path: Path, bad: str) -> None:
    with pytest.raises(ArgumentError, match="not a cache key"):
        Cache(tmp_path).get(bad, "o")
    with pytest.raises(ArgumentError, match="unknown stage"):
        Cache(tmp_path).put(key("a"), "../o", b"")


WRITER = """
import sys, hashlib
from tilewright.build.cache import Cache, cache_key
cache = Cache(sys.argv[1], 200_000)
print("ready", flush=True)
i = int(sys.argv[2])
while True:
    i += 1
    key = cache_key(str(i % 50), "t", "c")
    expected = hashlib.sha256(key.encode()).digest() * 500
    found = cache.get(key, "o")
    assert found is None or found == expected
    cache.put(key, "o", expected)
"""


def test_many_processes_and_kill_9(tmp_path: Path) -> None:
    """Writers are killed at any moment; whoever reads meanwhile sees whole entries or none, and no warning."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PYTHONWARNINGS": "error"}
    for round in range(2):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(tmp_path), str(17 * n + round)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for n in range(3)
        ]
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
        time.sleep(0.2)
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            _, errors = writer.communicate()
            assert writer.returncode == -signal.SIGKILL, errors.decode()
    cache = Cache(tmp_path, 200_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        held = [i for i in range(50) if cache.get(cache_key(str(i), "t", "c"), "o") is not None]
    assert held
