import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tilewright.knobs import VARIABLES
from tilewright.machines import _store, bandwidth, host


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that all tests of a session fill together, so that instruction sets are tried once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def clean_settings(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(shared_cache))
    _forget()
    yield
    _forget()


def _forget() -> None:
    host._detect.cache_clear()
    host._with_rates.cache_clear()
    bandwidth._remembered.clear()
    _store._warned.clear()


@pytest.fixture
def forget() -> Callable[[], None]:
    """A function that makes this process forget what it detected and warned of, as a new one would."""
    return _forget


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def unwritable_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder that not even the superuser can create: its parent is a file."""
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "cache"
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(folder))
    assert not os.path.isdir(folder)
    return folder
