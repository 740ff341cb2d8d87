import os
from dataclasses import fields
from pathlib import Path

import pytest

from tilewright import knobs as module
from tilewright.errors import KnobError
from tilewright.knobs import VARIABLES, Knobs, default_cache_dir, knob_docs, knobs, reset_knobs


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (*VARIABLES, "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    reset_knobs()


def test_defaults() -> None:
    found = knobs()
    assert (found.debug, found.cache_bytes, found.threads, found.mode) == (0, 2**30, None, "learn")
    assert (found.numerics, found.machine) == ("free", None)
    assert found.cache_dir.is_absolute() and found.cache_dir == default_cache_dir()


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("DEBUG", "7", "debug", 7),
        ("DEBUG", " 0 ", "debug", 0),
        ("DEBUG", "", "debug", 0),
        ("TILEWRIGHT_THREADS", "16", "threads", 16),
        ("TILEWRIGHT_MODE", "frozen", "mode", "frozen"),
        ("TILEWRIGHT_NUMERICS", "pinned", "numerics", "pinned"),
        ("TILEWRIGHT_MACHINE", "h200", "machine", "h200"),
        ("TILEWRIGHT_CACHE_BYTES", "1000", "cache_bytes", 1000),
        ("TILEWRIGHT_CACHE_BYTES", "512M", "cache_bytes", 2**29),
        ("TILEWRIGHT_CACHE_BYTES", "2GiB", "cache_bytes", 2**31),
        ("TILEWRIGHT_CACHE_BYTES", "4kb", "cache_bytes", 4096),
        ("TILEWRIGHT_CACHE_DIR", "/some/where", "cache_dir", Path("/some/where")),
    ],
)
def test_values(variable: str, text: str, name: str, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, text)
    assert getattr(knobs(), name) == value


@pytest.mark.parametrize(
    ("variable", "text", "allowed"),
    [
        ("DEBUG", "8", "from 0 to 7"),
        ("DEBUG", "-1", "from 0 to 7"),
        ("DEBUG", "yes", "from 0 to 7"),
        ("DEBUG", "²", "from 0 to 7"),
        ("TILEWRIGHT_THREADS", "0", "from 1 to 4096"),
        ("TILEWRIGHT_THREADS", "2.5", "from 1 to 4096"),
        ("TILEWRIGHT_MODE", "Learn", "learn, frozen, generic"),
        ("TILEWRIGHT_NUMERICS", "exact", "free, pinned"),
        ("TILEWRIGHT_CACHE_BYTES", "lots", "512M"),
        ("TILEWRIGHT_CACHE_BYTES", "-5", "512M"),
        ("TILEWRIGHT_CACHE_BYTES", "M", "512M"),
    ],
)
def test_bad_values_name_the_variable_the_value_and_what_is_allowed(
    variable: str, text: str, allowed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(KnobError) as caught:
        knobs()
    message = str(caught.value)
    assert variable in message and repr(text) in message and allowed in message


def test_a_changed_environment_is_seen_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert knobs() is knobs()
    monkeypatch.setenv("DEBUG", "3")
    assert knobs().debug == 3
    monkeypatch.delenv("DEBUG")
    assert knobs().debug == 0


@pytest.mark.skipif(os.name == "nt", reason="XDG folders")
def test_cache_folder_follows_xdg_and_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache_dir() == tmp_path / "xdg" / "tilewright"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    reset_knobs()
    assert default_cache_dir() == tmp_path / ".cache" / "tilewright"


@pytest.mark.skipif(os.name == "nt", reason="users and modes of POSIX")
def test_without_a_home_the_cache_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    first = default_cache_dir()
    assert first.parent == tmp_path and first.stat().st_mode & 0o077 == 0
    first.chmod(0o777)  # as if another user had prepared it
    reset_knobs()
    second = default_cache_dir()
    assert second != first and second.stat().st_mode & 0o077 == 0


def test_a_home_relative_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", "~/kernels")
    assert knobs().cache_dir == Path("~/kernels").expanduser()


def test_every_knob_is_documented() -> None:
    assert list(knob_docs()) == list(VARIABLES)
    assert all(len(doc) > 20 for doc in knob_docs().values())
    assert len(fields(Knobs)) == len(VARIABLES) == 9
    assert set(module.MODES) == {"learn", "frozen", "generic"}
