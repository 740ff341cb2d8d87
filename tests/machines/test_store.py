import warnings
from pathlib import Path

import pytest

from tilewright.errors import CacheWarning
from tilewright.machines import _store


def test_what_is_saved_is_loaded(empty_cache: Path) -> None:
    assert _store.load("thing") is None
    assert _store.save("thing", {"a": [1, 2]})
    assert _store.load("thing") == {"a": [1, 2]}
    assert [p.name for p in (empty_cache / "machines").iterdir()] == ["thing.json"]


def test_a_damaged_record_is_a_miss_with_a_warning(empty_cache: Path) -> None:
    _store.save("thing", {"a": 1})
    path = empty_cache / "machines" / "thing.json"
    for damage in (b"{", b"\xff\xfe\x00", b""):
        path.write_bytes(damage)
        _store._warned.clear()
        with pytest.warns(CacheWarning, match=r"thing\.json cannot be read"):
            assert _store.load("thing") is None
    path.write_text("[1]")
    assert _store.load("thing") is None


def test_an_unwritable_folder_warns_once_and_names_the_fix(unwritable_cache: Path) -> None:
    with pytest.warns(CacheWarning, match="cannot be written .*set TILEWRIGHT_CACHE_DIR"):
        assert not _store.save("thing", {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not _store.save("thing", {})


def test_a_full_disk_leaves_nothing_behind(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _store.save("thing", {"a": 1})

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("json.dump", full)
    with pytest.warns(CacheWarning, match="No space left"):
        assert not _store.save("thing", {"a": 2})
    assert _store.load("thing") == {"a": 1}
    assert [p.name for p in (empty_cache / "machines").iterdir()] == ["thing.json"]


def test_frozen_mode_writes_nothing(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_MODE", "frozen")
    assert not _store.save("thing", {})
    assert not empty_cache.exists()
