"""The book's file under all that can happen to one: kills, damage, disks that are full or read-only, later versions."""

from __future__ import annotations

import os
import random
import resource
import signal
import sqlite3
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from entries import default, key, record, trial

from tilewright.design.book import database, filesystem, healing, schema
from tilewright.design.book.record import Record
from tilewright.design.book.store import Book
from tilewright.errors import BookWarning

SIZES = range(1, 7)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "book.sqlite"


def filled(path: Path, count: int = len(SIZES)) -> Path:
    """A closed book with a winner for M = 1 .. count, and measurements that make it some pages long."""
    book = Book.open(path)
    for n in range(1, count + 1):
        book.put(record(key(M=n)))
        book.add_trials(key(M=n), "run", [trial(default(key(M=n)), at=float(i)) for i in range(5)])
    book.close()
    return path


def integrity(path: Path) -> str:
    with sqlite3.connect(path) as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


def held(book: Book) -> set[int]:
    return {dict(r.key.sizes)["M"] for r in book.list()}


# ---------------------------------------------------------------------------------------------------- kill -9
def in_a_child(work: Callable[[], None]) -> int:
    """Fork; the child does `work` and ends without the parent's clean-up."""
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    finally:
        os._exit(0)


@pytest.mark.parametrize("local", [True, False], ids=["write-ahead log", "rollback journal"])
def test_kill_9_at_any_moment_loses_no_committed_winner(path: Path, monkeypatch, local: bool):
    """50 times: a child writes winners and says so after each; it is killed, and all it spoke of are there."""
    monkeypatch.setattr(filesystem, "is_local", lambda path: local)
    rng, promised = random.Random(3), 0
    made = [record(key(M=n)) for n in range(1, 1000)]
    for number in range(50):
        out, into = os.pipe()
        pid = in_a_child(lambda start=promised, into=into: write_winners(path, made[start:], into))
        os.close(into)
        promised += len(os.read(out, 1)) if number % 2 else 0  # a busy machine may take longer than that to one winner
        time.sleep(rng.uniform(0.0, 0.04))
        os.kill(pid, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        promised += len(os.read(out, 65536))
        os.close(out)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            book = Book.open(path)
            assert {n + 1 for n in range(promised)} <= held(book)
            assert book.rows("PRAGMA integrity_check") == [("ok",)]
            book.close()
    assert promised >= 25
    assert not list(path.parent.glob("*damaged*"))


def write_winners(path: Path, made: list[Record], into: int) -> None:
    """Write winners for ever, and a byte for each that is in the book."""
    book = Book.open(path)
    for r in made:
        book.put(r)
        os.write(into, b".")
        book.add_trials(r.key, "run", [trial(r.design)])
    time.sleep(60)


def test_a_child_may_use_the_book_of_its_parent(path: Path):
    book = Book.open(path)
    book.put(record(key(M=1)))
    pid = in_a_child(lambda: book.put(record(key(M=2))) and None)
    book.put(record(key(M=3)))
    assert os.waitpid(pid, 0)[1] == 0
    assert held(book) == {1, 2, 3}
    assert book.rows("PRAGMA integrity_check") == [("ok",)]


# ----------------------------------------------------------------------------------------------- damaged files
DAMAGE: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "truncated": lambda data, rng: data[: rng.randrange(200, len(data) - 4096)],
    "half a page": lambda data, rng: data[:2048],
    "text": lambda data, rng: b"this is a letter to my aunt, and no database at all\n" * 30,
    "another database": lambda data, rng: foreign(),
    "header only": lambda data, rng: data[:100],
    "noise": lambda data, rng: rng.randbytes(len(data)),
    "no tables": lambda data, rng: without_tables(),
}


def made(statements: list[str]) -> bytes:
    connection = sqlite3.connect(":memory:")
    for statement in statements:
        connection.execute(statement)
    data = connection.serialize()
    connection.close()
    return data


def foreign() -> bytes:
    return made(["CREATE TABLE letters (text)", "INSERT INTO letters VALUES ('dear aunt')"])


def without_tables() -> bytes:
    marked = [f"PRAGMA application_id = {schema.APPLICATION}", f"PRAGMA user_version = {schema.VERSION}"]
    return made([*marked, "CREATE TABLE designs (key)"])


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_moved_aside_and_a_fresh_book_begun(path: Path, kind: str):
    for seed in range(3):
        filled(path)
        damaged = DAMAGE[kind](path.read_bytes(), random.Random(seed))
        path.write_bytes(damaged)
        with pytest.warns(BookWarning, match=rf"is damaged \(.*it is now book.sqlite.damaged-{seed + 1}"):
            book = Book.open(path)
            found = [r for n in SIZES if (r := book.get(key(M=n))) is not None] + book.list()
            book.measurements()
            book.put(record(key(M=99)))
        assert found == []  # a fresh book: nothing of a damaged one is believed
        assert book.get(key(M=99)) == record(key(M=99))
        assert integrity(path) == "ok"
        assert path.with_name(f"{path.name}.damaged-{seed + 1}").exists()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert Book.open(path).get(key(M=99)) == record(key(M=99))
        book.close()
        path.unlink()


@pytest.mark.parametrize("kind", ["text", "another database", "truncated"])
def test_what_a_user_named_and_is_no_book_is_left_alone(path: Path, kind: str, monkeypatch: pytest.MonkeyPatch):
    filled(path)
    damaged = DAMAGE[kind](path.read_bytes(), random.Random(1))
    path.write_bytes(damaged)
    monkeypatch.setenv("TILEWRIGHT_BOOK", str(path))
    ours = kind == "truncated"  # its header says so: what was a book is mended wherever it lies
    with pytest.warns(BookWarning, match="is damaged" if ours else "it is no book; name another file"):
        book = Book.open()
        book.put(record(key(M=99)))
    assert book.get(key(M=99)) == record(key(M=99))
    assert book.database.in_memory is not ours
    assert bool(list(path.parent.glob("*.damaged-*"))) is ours
    assert (path.read_bytes() == damaged) is not ours


def test_what_is_whole_in_a_damaged_file_is_saved(path: Path):
    """The table of designs survives noise over the pages of measurements, which are the most and the last."""
    filled(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 4096] + b"\xaa" * 4096)
    with pytest.warns(BookWarning, match="of its rows were saved"):
        book = Book.open(path)
        book.measurements()
        assert held(book) == set(SIZES)
    assert book.get(key(M=3)) == record(key(M=3))


def test_damage_while_the_book_is_open(path: Path):
    filled(path)
    book = Book.open(path)
    assert book.get(key(M=1)) is not None
    path.write_bytes(b"\0" * 50)
    with pytest.warns(BookWarning, match="is damaged"):
        book.get(key(M=2))
        book.put(record(key(M=7)))
    assert Book.open(path).get(key(M=7)) is not None


@pytest.mark.parametrize("page", range(1, 12))
def test_noise_over_any_page_is_found_out_and_healed(path: Path, page: int):
    """A page may be one that no look-up reads: then `verify` finds it."""
    filled(path)
    data = path.read_bytes()
    assert len(data) >= 12 * 4096
    path.write_bytes(data[: page * 4096] + random.Random(page).randbytes(4096) + data[(page + 1) * 4096 :])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        book = Book.open(path)
        found = [r for n in SIZES if (r := book.get(key(M=n))) is not None]
        findings = book.verify(drop=True)
    assert caught
    assert caught[0].category is BookWarning
    assert all(r == record(key(**r.sizes)) for r in found)
    assert "damaged" in str(caught[0].message) or findings.problems
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Book.open(path).verify().problems == ()
    assert integrity(path) == "ok"
    assert path.with_name("book.sqlite.damaged-1").exists()


def test_all_parts_of_a_damaged_file_go_together(path: Path):
    """A log that stayed would be replayed on the fresh file."""
    path.parent.mkdir()
    parts = ("", "-wal", "-shm", "-journal")
    for number in (1, 2):
        for part in parts:
            Path(f"{path}{part}").write_text(f"{number}{part}")
        assert healing.move_aside(path) == path.with_name(f"book.sqlite.damaged-{number}")
    assert [Path(f"{path}.damaged-2{part}").read_text() for part in parts] == [f"2{part}" for part in parts]
    assert not path.exists()


def test_a_file_that_was_deleted_under_an_open_book_comes_back(path: Path):
    book = Book.open(path)
    book.put(record(key(M=1)))
    for part in path.parent.iterdir():
        part.unlink()
    assert book.get(key(M=1)) is None
    book.put(record(key(M=2)))
    assert held(Book.open(path)) == {2}


def test_two_that_find_the_damage_at_once_move_the_file_once(path: Path):
    filled(path)
    path.write_bytes(b"noise" * 100)
    pids = []
    for n in range(4):

        def write(n: int = n) -> None:
            warnings.simplefilter("ignore")
            Book.open(path).put(record(key(M=50 + n)))

        pids.append(in_a_child(write))
    for pid in pids:
        os.waitpid(pid, 0)
    assert held(Book.open(path)) == {50, 51, 52, 53}
    assert len(list(path.parent.glob("*.damaged-*"))) == 1


# ------------------------------------------------------------------------------------------- files out of reach
def test_an_empty_file_is_a_new_book(path: Path):
    path.parent.mkdir()
    path.touch()
    book = Book.open(path)
    book.put(record())
    assert book.path == path


def test_a_book_of_a_later_version_is_left_alone(path: Path):
    filled(path)
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.warns(BookWarning, match="a later version of Tilewright wrote it"):
        book = Book.open(path)
        assert book.get(key(M=1)) is None
    book.put(record(key(M=1)))
    assert book.get(key(M=1)) == record(key(M=1))
    assert book.path is None
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_made(tmp_path: Path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.warns(BookWarning, match="cannot be used"):
        book = Book.open(blocked / "cache" / "book.sqlite")
        book.put(record())
    assert book.get(key()) == record()
    assert blocked.read_text() == "not a folder"


def as_a_guest(work: Callable[[], None]) -> int:
    """Run `work` in a child that may not write what root may."""

    def guest() -> None:
        if os.getuid() == 0:
            os.setuid(65534)
        code = 1
        try:
            work()
            code = 0
        except BaseException as error:
            os.write(2, repr(error).encode())
        os._exit(code)

    return os.waitstatus_to_exitcode(os.waitpid(in_a_child(guest), 0)[1])


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_a_read_only_home(tmp_path_factory, journal: str):
    """What is there is read; what is new lasts for the process; nothing is changed."""
    home = Path("/tmp") / f"tilewright-read-only-{os.getpid()}-{journal}"  # guests may not enter pytest's own folders
    home.mkdir()
    path = filled(home / "cache" / "book.sqlite")
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal}")
    connection.close()
    path.chmod(0o444)
    path.parent.chmod(0o555)
    before = sorted((p.name, p.read_bytes()) for p in path.parent.iterdir())

    def work() -> None:
        book = Book.open(path)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert book.get(key(M=1)) == record(key(M=1))
            book.put(record(key(M=77)))
            assert book.get(key(M=77)) == record(key(M=77))
            assert held(book) == {*SIZES, 77}
            missing = Book.open(path.parent / "deeper" / "book.sqlite")
            missing.put(record())
            assert missing.get(key()) == record()
        assert [w.category for w in caught] == [BookWarning, BookWarning], [str(w.message) for w in caught]

    try:
        assert as_a_guest(work) == 0
        assert sorted((p.name, p.read_bytes()) for p in path.parent.iterdir()) == before
    finally:
        path.parent.chmod(0o755)
        for file in path.parent.iterdir():
            file.unlink()
        path.parent.rmdir()
        home.rmdir()


def test_a_full_disk(path: Path):
    """The system refuses to make files longer, as a quota does: the book goes on in memory, the file stays whole."""
    filled(path, 3)

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20_000, resource.RLIM_INFINITY))
        book = Book.open(path)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for n in range(4, 40):
                book.put(record(key(M=n)))
        assert held(book) == set(range(1, 40))
        assert len(caught) == 1, [str(w.message) for w in caught]
        assert "cannot be written" in str(caught[0].message)
        assert book.path is None

    pid = in_a_child(lambda: os._exit(in_a_grandchild(work)))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    book = Book.open(path)
    assert {1, 2, 3} <= held(book)
    assert book.rows("PRAGMA integrity_check") == [("ok",)]
    book.put(record(key(M=99)))
    assert 99 in held(Book.open(path))


def in_a_grandchild(work: Callable[[], None]) -> int:
    try:
        work()
    except BaseException as error:
        os.write(2, repr(error).encode())
        return 1
    return 0


def test_a_quota_of_pages(path: Path):
    book = Book.open(path)
    book.put(record(key(M=1)))
    pages = book.rows("PRAGMA page_count")[0][0]
    book.rows(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.warns(BookWarning, match="database or disk is full"):
        for n in range(2, 30):
            book.put(record(key(M=n)))
    assert held(book) == set(range(1, 30))
    assert held(Book.open(path)) >= {1, 2}


def test_a_writer_that_never_ends_is_not_waited_for_for_ever(path: Path):
    filled(path)
    with sqlite3.connect(path, isolation_level=None) as stuck:
        stuck.execute("BEGIN IMMEDIATE")
        book = Book.open(path, patience=0.05)
        with pytest.warns(BookWarning, match="database is locked"):
            book.put(record(key(M=9)))
        assert held(book) == {*SIZES, 9}
    stuck.close()


def test_frozen_mode_reads_and_writes_nothing(path: Path, monkeypatch):
    filled(path)
    before = path.read_bytes()
    monkeypatch.setenv("TILEWRIGHT_MODE", "frozen")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        book = Book.open(path)
        assert book.get(key(M=1)) == record(key(M=1))
        book.put(record(key(M=9)))
        assert Book.open(path.parent / "no" / "book.sqlite").get(key()) is None
    book.close()
    assert path.read_bytes() == before
    assert not (path.parent / "no").exists()


def test_frozen_mode_writes_no_index_of_a_log_that_a_kill_left_behind(path: Path, monkeypatch):
    pid = os.fork()
    if not pid:
        Book.open(path).put(record(key(M=1)))
        os._exit(0)  # as a kill: the log stays, and with it its index
    os.waitpid(pid, 0)
    before = {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in path.parent.iterdir()}
    assert f"{path.name}-shm" in before
    monkeypatch.setenv("TILEWRIGHT_MODE", "frozen")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        book = Book.open(path)
        assert book.get(key(M=1)) == record(key(M=1))
        book.close()
    assert {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in path.parent.iterdir()} == before


# --------------------------------------------------------------------------------------- network file systems
def journal(path: Path) -> str:
    return "wal" if path.read_bytes()[18:20] == b"\2\2" else "rollback"


def test_the_log_is_used_on_local_file_systems_only(tmp_path: Path, monkeypatch):
    for kind in ("ext4", "tmpfs", "nfs4", "cifs", "9p", "fuse.sshfs", "lustre", "unknown"):
        monkeypatch.setattr(filesystem, "kind_of", lambda path, kind=kind: kind)
        path = filled(tmp_path / kind / "book.sqlite", 1)
        assert journal(path) == ("wal" if kind in ("ext4", "tmpfs") else "rollback")
        assert held(Book.open(path)) == {1}


def test_a_book_that_came_to_a_network_file_system_loses_its_log(path: Path, monkeypatch):
    filled(path)
    assert journal(path) == "wal"
    monkeypatch.setattr(filesystem, "kind_of", lambda path: "nfs4")
    book, second = Book.open(path), Book.open(path)
    assert held(book) == set(SIZES)
    assert journal(path) == "rollback"
    book.put(record(key(M=9)))
    second.put(record(key(M=10)))
    assert held(book) == {*SIZES, 9, 10}
    assert not path.with_name("book.sqlite-shm").exists()


def test_where_no_log_can_be_had_a_journal_serves(path: Path, monkeypatch):
    real = database.connect

    class NoLog(sqlite3.Connection):
        def execute(self, sql: str, *values):  # type: ignore[no-untyped-def]
            if "journal_mode = WAL" in sql:
                raise sqlite3.OperationalError("locking protocol")
            return super().execute(sql, *values)

    def connect(path: Path, patience: float, how: str = "mode=rwc") -> sqlite3.Connection:
        real(path, patience, how).close()
        return sqlite3.connect(path, timeout=patience, isolation_level=None, factory=NoLog)

    monkeypatch.setattr(database, "connect", connect)
    Book.open(path).put(record())
    assert journal(path) == "rollback"
    assert Book.open(path).get(key()) == record()


MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:50 / /home rw - nfs4 server:/home rw
31 22 0:51 / /home/me/my\\040disk rw shared:3 - ext4 /dev/vdb rw
32 22 0:52 / /home rw - tmpfs none rw
"""


def test_the_innermost_and_last_mount_counts(tmp_path: Path, monkeypatch):
    table = tmp_path / "mountinfo"
    table.write_text(MOUNTS)
    monkeypatch.setattr(filesystem, "_MOUNTS", table)
    assert [m[1:] for m in map(filesystem._mount, MOUNTS.splitlines()) if m] == [
        ("/", "ext4"), ("/home", "nfs4"), ("/home/me/my disk", "ext4"), ("/home", "tmpfs"),
    ]  # fmt: skip
    monkeypatch.setattr(filesystem, "_MOUNTS", tmp_path / "none")
    assert filesystem.kind_of(tmp_path) == "unknown"
    assert not filesystem.is_local(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="mount tables of Linux")
def test_this_hosts_file_systems():
    assert filesystem.kind_of(Path("/proc/self")) == "proc"
    assert filesystem.kind_of(Path("/dev/shm/no/such/file")) == "tmpfs"
    assert not filesystem.is_local(Path("/sys/kernel"))
