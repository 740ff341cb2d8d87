from pathlib import Path

import pytest

from tilewright.machines import caches
from tilewright.machines.caches import Cache, host_caches


def sysfs(root: Path, *entries: tuple[str, str, str, str]) -> Path:
    for i, (level, kind, size, shared) in enumerate(entries):
        folder = root / "cpu0" / "cache" / f"index{i}"
        folder.mkdir(parents=True)
        for name, text in (("level", level), ("type", kind), ("size", size), ("shared_cpu_list", shared)):
            (folder / name).write_text(text + "\n")
    return root


def test_sysfs(tmp_path: Path) -> None:
    root = sysfs(
        tmp_path,
        ("1", "Data", "48K", "0,16"),
        ("1", "Instruction", "32K", "0,16"),
        ("2", "Unified", "1024K", "0,16"),
        ("3", "Unified", "32768K", "0-7,16-23"),
    )
    assert host_caches(0, root) == (Cache(1, 48 * 2**10, 2), Cache(2, 2**20, 2), Cache(3, 32 * 2**20, 16))


def test_without_sysfs_there_are_caches_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = host_caches(0, tmp_path)
    assert [c.level for c in found][:2] == [1, 2]
    monkeypatch.setattr(caches, "_from_sysconf", list)
    monkeypatch.setattr(caches, "_from_sysctl", list)
    assert host_caches(0, tmp_path) == (Cache(1, 32 * 2**10, 1), Cache(2, 2**20, 1))


def test_a_level_that_sysfs_does_not_show_is_filled_in(tmp_path: Path) -> None:
    root = sysfs(tmp_path, ("1", "Data", "48K", "0"), ("2", "Unified", "garbage", "0"))
    assert host_caches(0, root) == (Cache(1, 48 * 2**10, 1), Cache(2, 2**20, 1))


@pytest.mark.parametrize(("text", "size"), [("48K\n", 49152), ("32M", 33554432), ("512", 512), ("1G", 2**30)])
def test_sizes(text: str, size: int) -> None:
    assert caches.parse_size(text) == size


def test_levels_of_this_host() -> None:
    levels = caches.host_levels()
    assert [level.name for level in levels][:2] == ["l1", "l2"]
    assert levels[-1].name == "dram" and levels[-1].bytes is None
    assert all(level.shared_by >= 1 for level in levels)
