import os
from pathlib import Path

import pytest

from tilewright.machines import cores


def groups(tmp_path: Path, membership: str, files: dict[str, str]) -> tuple[Path, Path]:
    """A /proc with this membership and a control-group tree of these files."""
    proc, tree = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(membership)
    for name, text in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return proc, tree


def v1(quota: int, period: int, group: str = "") -> dict[str, str]:
    return {f"{group}cpu.cfs_quota_us": f"{quota}\n", f"{group}cpu.cfs_period_us": f"{period}\n"}


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 3.0),
        ("0::/a/b\n", {"a/b/cpu.max": "200000 100000\n", "a/cpu.max": "300000 100000\n"}, 2.0),
        ("0::/not/below/the/mount\n", {"cpu.max": "400000 100000\n"}, 4.0),
        ("1:cpu:/\n0::/x\n", {"unified/x/cpu.max": "200000 100000"}, 2.0),
        ("4:cpu,cpuacct:/job\n", v1(250000, 100000, "cpu,cpuacct/job/"), 2.5),
        ("4:cpu,cpuacct:/job\n", v1(250000, 100000, "cpu/"), 2.5),
        ("4:cpu:/job\n", v1(-1, 100000, "cpu/job/"), None),
        ("4:cpu:/job\n", {**v1(-1, 100000, "cpu/job/"), **v1(100000, 50000, "cpu/")}, 2.0),
        ("4:cpuset:/job\n", v1(100000, 100000, "cpu/job/"), None),
        ("0::/\n", {"cpu.max": "nonsense"}, None),
    ],
)
def test_quota(tmp_path: Path, membership: str, files: dict[str, str], quota: float | None) -> None:
    assert cores.cpu_quota(*groups(tmp_path, membership, files)) == quota


def test_no_control_groups_no_quota(tmp_path: Path) -> None:
    assert cores.cpu_quota(tmp_path / "proc", tmp_path) is None


@pytest.mark.parametrize(("quota", "expected"), [(50_000, 1), (150_000, 1), (250_000, 2), (900_000, 4)])
def test_cores_are_bounded_by_the_quota_and_never_none(tmp_path: Path, quota: int, expected: int) -> None:
    proc, tree = groups(tmp_path, "0::/\n", {"cpu.max": f"{quota} 100000\n"})
    absent = frozenset(range(10_000, 10_004))  # without topology files, each is a core of its own
    assert cores.cores_available(absent, proc, tree) == expected


def test_hardware_threads_of_a_core_count_once(tmp_path: Path) -> None:
    for cpu, siblings in enumerate(["0,4", "1,5", "2,6", "3,7"] * 2):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings + "\n")
    assert cores.physical_cores(frozenset(range(8)), tmp_path) == 4
    assert cores.physical_cores(frozenset({0, 4, 1}), tmp_path) == 2
    assert cores.hardware_threads(0, tmp_path) == 2


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is of Linux")
def test_affinity_is_honoured() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cores.affinity() == {min(before)}
        assert cores.cores_available() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(("text", "count"), [("0", 1), ("0-3", 4), ("0-1,4-5\n", 4), ("0,2,4", 3)])
def test_cpu_lists(text: str, count: int) -> None:
    assert cores.count_cpus(text) == count


@pytest.mark.parametrize(
    ("machine", "kind"),
    [("x86_64", "x86"), ("AMD64", "x86"), ("arm64", "arm"), ("aarch64", "arm"), ("riscv64", "generic")],
)
def test_kind_of_host(machine: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert cores.host_kind() == kind
