"""A machine as plain data: memory levels, compute units and limits; frozen, hashable, JSON in and out."""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from tilewright.errors import MachineError
from tilewright.machines import isa
from tilewright.machines.possible import impossible

KINDS = ("x86", "arm", "generic", "nvidia", "systolic", "dataflow")
CPU_KINDS = ("x86", "arm", "generic")
_DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class MemoryLevel:
    """One level of memory.

    `bytes` is the capacity of one instance (None: it bounds no design), `shared_by` the number of
    cores that one instance serves.
    Bandwidths are bytes/s of the whole level: `bandwidth` by the data sheet, the others measured
    (a copy counts the bytes read plus the bytes written).
    """

    name: str
    bytes: int | None = None
    shared_by: int = 1
    bandwidth: float | None = None
    read: float | None = None
    copy: float | None = None
    copy_nontemporal: float | None = None


@dataclass(frozen=True)
class Atom:
    """A compute instruction: C[m, n] += A[m, k] * B[k, n] on `dtype` operands with an `accumulator` dtype.

    `flops_per_cycle` is what one core (SM, array) retires when it issues nothing else.
    """

    name: str
    dtype: str
    accumulator: str
    shape: tuple[int, int, int]
    flops_per_cycle: float | None = None


@dataclass(frozen=True)
class VectorISA:
    """The vector registers of a CPU: width in bits, how many, LLVM's feature names, per-lane masks or not."""

    bits: int
    registers: int
    features: tuple[str, ...] = ()
    masks: bool = False


@dataclass(frozen=True)
class Machine:
    """Where a kernel runs.

    `architecture` names the microarchitecture ("amd-26-2", "sm_90a"). `cores` counts what runs one
    thread block, stage or thread: CPU cores that this process may use, SMs, PCUs. `levels` go from
    the nearest to the farthest. `limits` are numbers that bound a design, `peaks` flop/s by dtype as
    the vendor states them, `ceilings` what was measured beyond that (names and units: the cost model
    that reads them), `habits` what was found out of how it goes about its work (names and units: the default designs
    that go by them), `notes` say where facts come from. `simulated` marks a description that stands for the machine:
    nothing is measured on it, so that its rates decide which designs are best.
    """

    name: str
    kind: str
    architecture: str
    cores: int
    levels: tuple[MemoryLevel, ...]
    atoms: tuple[Atom, ...] = ()
    clock_hz: float | None = None
    vector: VectorISA | None = None
    limits: tuple[tuple[str, int | float], ...] = ()
    peaks: tuple[tuple[str, float], ...] = ()
    notes: tuple[str, ...] = ()
    ceilings: tuple[tuple[str, float], ...] = ()
    habits: tuple[tuple[str, float], ...] = ()
    simulated: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise MachineError(f"machine {self.name!r}: unknown kind {self.kind!r}; it is one of {', '.join(KINDS)}")
        if reasons := list(impossible(self)):
            raise MachineError(f"machine {self.name!r}: {'; '.join(reasons)}")
        if self.kind in CPU_KINDS and self.vector is None:
            raise MachineError(f"machine {self.name!r}: kind {self.kind} needs `vector`, its vector registers")

    # ---------------------------------------------------------------------------------- where from
    @classmethod
    def detect(cls) -> Machine:
        """The machine that this process runs on, or the one that TILEWRIGHT_MACHINE names.

        Never fails for want of knowledge about the hardware. The first call on a host tries the
        instruction sets in a child process (about half a second); later ones read the result.
        """
        from tilewright.machines.host import detect

        return detect()

    @classmethod
    def of(cls, machine: Machine | str) -> Machine:
        """The machine itself, or the one of that name. MachineError for anything else."""
        if isinstance(machine, str):
            return cls.named(machine)
        if not isinstance(machine, Machine):
            raise MachineError(f"machine={machine!r} is none; give Machine.detect(), or a name such as 'h200'")
        return machine

    @classmethod
    def named(cls, name: str) -> Machine:
        """The shipped description called `name` ("h200", "x86-avx2", ...), the JSON file at that path, or the array
        that a name such as `systolic:32x32:ws` describes.

        Raises MachineError that names the nearest names known.
        """
        if name.startswith("systolic:"):
            from tilewright.machines.systolic import systolic

            return systolic(name)
        return _from_file(Path(name)) if name.endswith(".json") else _shipped(name.lower())

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Machine:
        """The machine that `to_dict` described; MachineError names the field that is missing or unknown."""
        try:
            fields = dict(data)
            fields["levels"] = tuple(MemoryLevel(**level) for level in fields["levels"])
            fields["atoms"] = tuple(Atom(**{**a, "shape": tuple(a["shape"])}) for a in fields.get("atoms", ()))
            if (vector := fields.get("vector")) is not None:
                fields["vector"] = VectorISA(**{**vector, "features": tuple(vector.get("features", ()))})
            for key in ("limits", "peaks", "ceilings", "habits"):
                fields[key] = tuple(sorted(dict(fields.get(key, {})).items()))
            fields["notes"] = tuple(fields.get("notes", ()))
            return cls(**fields)
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            name = data.get("name", "?") if isinstance(data, dict) else "?"
            raise MachineError(f"machine {name!r}: its description does not fit class Machine ({e})") from None

    @classmethod
    def from_json(cls, text: str) -> Machine:
        """The machine that `to_json` described."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as e:
            raise MachineError(f"a machine description is not JSON ({e})") from None
        return cls.from_dict(data)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; what is unknown is left out of levels and atoms."""
        data = asdict(self)
        data["levels"] = [_without_none(level) for level in data["levels"]]
        data["atoms"] = [_without_none(atom) for atom in data["atoms"]]
        for key in ("limits", "peaks", "ceilings", "habits"):
            data[key] = dict(getattr(self, key))
        return {name: value for name, value in data.items() if value or name not in ("simulated", "habits")}

    def to_json(self) -> str:
        """The description as JSON text; `Machine.from_json` reads it back as an equal machine."""
        return json.dumps(self.to_dict(), indent=1)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits, equal on machines for which the same designs are right and equally good.

        Hashes what bounds a design and nothing that varies from run to run or from host to host:
        measured rates, ceilings and habits, clock, names and notes stay out. Of a simulated machine all rates are in
        it, so that what was designed by a model is never taken for what was measured.
        """
        vector = None if self.vector is None else asdict(self.vector)
        facts = [
            self.kind, self.architecture, self.cores, vector,
            [(m.name, m.bytes, m.shared_by) for m in self.levels],
            [(a.name, a.dtype, a.accumulator, a.shape) for a in self.atoms],
            sorted(self.limits),
        ]  # fmt: skip
        if self.simulated:
            rates = [
                [asdict(m) for m in self.levels], [a.flops_per_cycle for a in self.atoms], self.clock_hz,
                sorted(self.peaks), sorted(self.ceilings),
            ]  # fmt: skip
            facts += ["simulated", rates]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    # ------------------------------------------------------------------------------------- questions
    @property
    def is_cpu(self) -> bool:
        """Whether kernels for it are LLVM IR."""
        return self.kind in CPU_KINDS

    @property
    def usual_dtype(self) -> str:
        """The element type that is meant where none is named: bf16 on a GPU, whose matrix units want it; else f32."""
        return "bf16" if self.kind == "nvidia" else "f32"

    @property
    def vector_bits(self) -> int:
        """Width of a vector register in bits: 512, 256 or 128. MachineError unless a CPU."""
        return self._vector.bits

    @property
    def vector_registers(self) -> int:
        """Vector registers that a kernel can hold values in: 16 or 32. MachineError unless a CPU."""
        return self._vector.registers

    def has(self, feature: str) -> bool:
        """Whether it executes an instruction-set feature, by LLVM's name: "avx2", "avx512bf16", "amx-int8", ...

        Features that start with "amx" need `request_amx()` in each process before their first use.
        """
        return self.vector is not None and feature in self.vector.features

    @property
    def llvm_cpu(self) -> str:
        """The CPU name to give LLVM, chosen from the features. MachineError unless a CPU."""
        vendor = self.architecture.partition("-")[0]
        return isa.llvm_cpu(vendor, self._vector.features) if self.kind == "x86" else ""

    @property
    def llvm_features(self) -> str:
        """The feature string to give LLVM: each known feature explicitly on or off. MachineError unless a CPU."""
        if self.kind == "x86":
            return isa.llvm_features(self._vector.features)
        return ",".join("+" + f for f in self._vector.features)

    def level(self, name: str) -> MemoryLevel:
        """The memory level called `name`; MachineError lists those there are."""
        for level in self.levels:
            if level.name == name:
                return level
        raise MachineError(f"machine {self.name!r} has no memory level {name!r}; it has {self._names()}")

    def limit(self, name: str) -> int | float:
        """The limit called `name`; MachineError lists those there are."""
        found = dict(self.limits)
        if name not in found:
            raise MachineError(f"machine {self.name!r} has no limit {name!r}; it has {', '.join(found) or 'none'}")
        return found[name]

    def habit(self, name: str) -> float | None:
        """What was found out of the habit called `name`; None where nobody looked."""
        return dict(self.habits).get(name)

    def atom(self, name: str) -> Atom:
        """The compute instruction called `name`; MachineError lists those there are."""
        for atom in self.atoms:
            if atom.name == name:
                return atom
        known = ", ".join(a.name for a in self.atoms) or "none"
        raise MachineError(f"machine {self.name!r} has no atom {name!r}; it has {known}")

    @property
    def l1_bytes(self) -> int:
        """Level-1 data cache of one core, in bytes."""
        return self._cache_per_core("l1")

    @property
    def l2_bytes(self) -> int:
        """Level-2 cache in bytes: one core's share of it."""
        return self._cache_per_core("l2")

    @property
    def l3_bytes(self) -> int:
        """Level-3 cache in bytes: the whole of one instance, shared by its cores; 0 where there is none."""
        return next((level.bytes or 0 for level in self.levels if level.name == "l3"), 0)

    @property
    def memory(self) -> MemoryLevel:
        """The level that holds the operands: DRAM, HBM, weight memory."""
        return next((m for m in self.levels if m.name in ("dram", "hbm", "gddr", "weights")), self.levels[-1])

    def peak(self, dtype: str) -> float | None:
        """Flop/s of the whole machine on `dtype`: as stated by the vendor, else by atoms; None where unknown."""
        stated = dict(self.peaks)
        if dtype in stated:
            return stated[dtype]
        rates = [a.flops_per_cycle for a in self.atoms if a.dtype == dtype and a.flops_per_cycle is not None]
        return max(rates) * self.cores * self.clock_hz if rates and self.clock_hz else None

    def as_simulated(self) -> Machine:
        """This description as a machine of its own, which only a model stands behind; another fingerprint."""
        return replace(self, simulated=True)

    def with_memory_rates(self, read: float, copy: float, copy_nontemporal: float) -> Machine:
        """This machine with measured bandwidths (bytes/s) of its main memory; the fingerprint does not change."""
        measured = replace(self.memory, read=read, copy=copy, copy_nontemporal=copy_nontemporal)
        return replace(self, levels=tuple(measured if m is self.memory else m for m in self.levels))

    @property
    def _vector(self) -> VectorISA:
        if self.vector is None:
            raise MachineError(f"machine {self.name!r} is of kind {self.kind} and has no vector registers; ask a CPU")
        return self.vector

    def _cache_per_core(self, name: str) -> int:
        level = self.level(name)
        return (level.bytes or 0) // level.shared_by

    def _names(self) -> str:
        return ", ".join(level.name for level in self.levels)


def machine_names() -> list[str]:
    """The machines that `Machine.named` knows."""
    return sorted(file.stem for file in _DATA.glob("*.json"))


@cache
def _shipped(name: str) -> Machine:
    name = {_plain(known): known for known in machine_names()}.get(_plain(name), name)
    if name not in machine_names():
        near = difflib.get_close_matches(name, machine_names(), 3, 0.5)
        hint = f"the nearest are {', '.join(near)}; " if near else ""
        raise MachineError(
            f"no machine is called {name!r}; {hint}there are {', '.join(machine_names())}, "
            f"arrays such as systolic:32x32:ws, or give the path of a .json description"
        )
    return Machine.from_json((_DATA / f"{name}.json").read_text(encoding="utf-8"))


def _plain(name: str) -> str:
    """A name as it is looked up: `tpu-v1` and `tpu_v1` are one."""
    return name.replace("_", "-")


def _from_file(path: Path) -> Machine:
    try:
        text = path.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise MachineError(f"the machine description {path} cannot be read ({e})") from None
    try:
        return Machine.from_json(text)
    except MachineError as e:
        raise MachineError(f"{path}: {e}") from None


def _without_none(data: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in data.items() if v is not None}
