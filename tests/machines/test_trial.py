import platform
import sys
from pathlib import Path

import pytest

from tilewright.machines import isa, trial
from tilewright.machines.cores import host_kind

pytestmark = pytest.mark.skipif(host_kind() != "x86", reason="trials are of x86 instruction sets")

_SABOTAGE = """
import os, signal, time
from tilewright.machines import trial
real = trial.{function}
def fake(argument):
    {condition}
    return real(argument)
trial.{function} = fake
trial.child()
"""


def sabotage(monkeypatch: pytest.MonkeyPatch, condition: str, function: str = "execute") -> None:
    monkeypatch.setattr(trial, "CHILD", _SABOTAGE.format(function=function, condition=condition))


@pytest.fixture(scope="module")
def outcome() -> trial.Outcome:
    found = trial.try_features()
    assert found is not None
    return found


def test_what_is_found_was_reported(outcome: trial.Outcome) -> None:
    from llvmlite.binding import get_host_cpu_features

    reported = {f for f, on in get_host_cpu_features().items() if on}
    assert set(isa.BASE) - {"64bit"} <= set(outcome.features) <= reported
    assert set(outcome.failed).isdisjoint(outcome.features)


@pytest.mark.parametrize("family", trial.TRIALS, ids=lambda t: t.feature)
def test_each_family_computes_what_it_should(family: trial.Trial, outcome: trial.Outcome) -> None:
    if family.feature not in outcome.features:
        pytest.skip(f"this processor has no {family.feature}")
    if family.feature.startswith("amx"):
        assert trial.request_amx()
    assert trial.execute(family)


def test_a_wrong_result_is_noticed() -> None:
    addition = next(t for t in trial.TRIALS if t.feature == "avx")
    wrong = trial.Trial("avx", addition.asm, addition.a, addition.b, addition.c, addition.c, addition.bytes)
    assert trial.execute(addition) and not trial.execute(wrong)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_illegal_instruction_loses_only_its_family(monkeypatch: pytest.MonkeyPatch, outcome: trial.Outcome) -> None:
    sabotage(monkeypatch, "argument.feature == 'f16c' and os.kill(os.getpid(), signal.SIGILL)")
    found = trial.try_features()
    assert found is not None and "f16c" in found.failed
    assert found.features == isa.without(outcome.features, ["f16c"])
    assert found.cpu == outcome.cpu


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_two_illegal_instructions_lose_two_families(monkeypatch: pytest.MonkeyPatch, outcome: trial.Outcome) -> None:
    sabotage(monkeypatch, "argument.feature in ('avx2', 'avx') and os.kill(os.getpid(), signal.SIGILL)")
    found = trial.try_features()
    assert found is not None and found.features == isa.without(outcome.features, ["avx"])


def test_a_family_that_hangs_is_lost(monkeypatch: pytest.MonkeyPatch, outcome: trial.Outcome) -> None:
    monkeypatch.setattr(trial, "_TIMEOUT", 8.0)
    sabotage(monkeypatch, "argument.feature == 'fma' and time.sleep(60)")
    found = trial.try_features()
    assert found is not None and found.features == isa.without(outcome.features, ["fma"])


def test_a_family_with_a_wrong_result_is_lost(monkeypatch: pytest.MonkeyPatch, outcome: trial.Outcome) -> None:
    sabotage(monkeypatch, "if argument.feature == 'fma': return False")
    found = trial.try_features()
    assert found is not None and found.features == isa.without(outcome.features, ["fma"])


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_broken_timing_costs_the_rates_only(monkeypatch: pytest.MonkeyPatch, outcome: trial.Outcome) -> None:
    sabotage(monkeypatch, "os.kill(os.getpid(), signal.SIGKILL)", "measure_speed")
    found = trial.try_features()
    assert found is not None and found.features == outcome.features
    assert found.per_cycle == {} and found.clock_hz is None


def test_where_nothing_can_run_there_is_no_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "CHILD", "raise SystemExit(1)")
    assert trial.try_features() is None
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    assert trial.try_features() is None
    monkeypatch.setattr(sys, "executable", "")
    assert trial.try_features() is None


def test_rates_are_those_of_a_real_core(outcome: trial.Outcome) -> None:
    assert outcome.clock_hz is not None and 0.5e9 < outcome.clock_hz < 8e9
    assert set(outcome.per_cycle) == {n for n in ("fma", "vdpbf16ps", "vpdpbusd") if isa.has_atom(n, outcome.features)}
    assert all(0.5 <= rate <= 4 for rate in outcome.per_cycle.values())


@pytest.mark.skipif(platform.system() != "Linux", reason="/proc/cpuinfo")
def test_cpuid_says_what_the_kernel_says() -> None:
    first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    kernel = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in first.splitlines())}
    found = trial.cpuid()
    assert (found["family"], found["model"]) == (int(kernel["cpu family"]), int(kernel["model"]))
    assert found["brand"] == kernel["model name"]
    assert found["vendor"] == {"AuthenticAMD": "amd", "GenuineIntel": "intel"}.get(kernel["vendor_id"], found["vendor"])
