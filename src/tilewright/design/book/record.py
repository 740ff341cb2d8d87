"""What the book holds: the record of a design, and the measurements that it rests on. Plain data, JSON in and out."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from functools import cache
from typing import Any, get_args

from tilewright import __version__
from tilewright.design.book.key import Key
from tilewright.design.design import Design
from tilewright.design.trial import Result, Standing, Status, Trial

ORIGINS = ("search", "import", "starter")
HERE = "here"


@dataclass(frozen=True)
class Record:
    """A design for a key, with what was measured of it.

    `seconds` and `default_seconds` come from the same paired rounds, `noise` from their A/A control; `runner_up` is
    the next best of those rounds, its ratio and interval being relative to this design. A record is `verified` where
    its design was checked against the reference on this host; any other (`origin` import or starter) is only a hint.
    `created` is a UTC date, `version` that of Tilewright.
    """

    key: Key
    design: Design
    seconds: float
    default_seconds: float
    noise: float
    verified: bool
    seed: int
    created: str
    version: str = __version__
    origin: str = "search"
    runner_up: Standing | None = None

    @classmethod
    def of(cls, key: Key, result: Result, seed: int) -> Record:
        """The record of a search that has just ended here; its winner has been verified."""
        times = (result.seconds, result.default_seconds, result.noise)
        return cls(key, result.winner, *times, True, seed, now(), runner_up=result.runner_up)

    @property
    def sizes(self) -> Mapping[str, int]:
        """The sizes of the key."""
        return dict(self.key.sizes)

    @property
    def dtype(self) -> str:
        """The element type of the operands."""
        return self.key.dtype

    @property
    def speedup(self) -> float:
        """How many times faster than the default design."""
        return self.default_seconds / self.seconds

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        runner_up = None if self.runner_up is None else _standing_data(self.runner_up)
        return {**plain, "key": self.key.to_dict(), "design": _design_data(self.design), "runner_up": runner_up}

    @classmethod
    def from_dict(cls, data: Any) -> Record:
        """What `to_dict` wrote; ValueError that says what is wrong for anything else."""
        wanted = {f.name for f in fields(cls)}
        if not isinstance(data, dict) or set(data) != wanted:
            raise ValueError("a record has the fields " + ", ".join(sorted(wanted)))
        runner_up = None if data["runner_up"] is None else _standing(data["runner_up"])
        read = {"key": Key.from_dict(data["key"]), "design": _design(data["design"]), "runner_up": runner_up}
        if problem := _problem(data):
            raise ValueError(problem)
        return cls(**{**data, **read})


def _problem(data: Mapping[str, Any]) -> str | None:
    for name in ("seconds", "default_seconds"):
        if not _number(data[name]) or data[name] <= 0:
            return f"{name} is {data[name]!r}; it is a positive number of seconds"
    if not _number(data["noise"]) or data["noise"] < 0:
        return f"noise is {data['noise']!r}; it is a fraction"
    if not isinstance(data["verified"], bool) or not isinstance(data["seed"], int):
        return "verified is true or false, and seed a whole number"
    if not isinstance(data["version"], str) or not is_date(data["created"]):
        return f"created is {data['created']!r}; it is a date and time (ISO 8601)"
    return None if data["origin"] in ORIGINS else f"origin is {data['origin']!r}; it is one of {', '.join(ORIGINS)}"


@dataclass(frozen=True)
class Measurement:
    """One trial as the book keeps it: when it was made, by which versions, in which run with which seed.

    `origin` is `here`, or `import` for one that came from a file: evidence to learn from, but no proof of a design.
    """

    key: str
    """The hash of the key."""
    run: str
    trial: Trial
    seed: int
    date: str
    versions: tuple[tuple[str, str], ...]
    origin: str = HERE

    @property
    def hash(self) -> str:
        """Names the measurement: one that is merged twice is kept once."""
        text = json.dumps({**self.to_dict(), "origin": ""}, sort_keys=True)
        return hashlib.sha256(f"tilewright measurement\n{text}".encode()).hexdigest()[:32]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        trial = {**self.trial.to_dict(), "design": _design_data(self.trial.design)}
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**plain, "trial": trial, "versions": dict(self.versions)}

    @classmethod
    def from_dict(cls, data: Any) -> Measurement:
        """What `to_dict` wrote; ValueError for anything else."""
        try:
            trial = Trial.from_dict({**data["trial"], "design": json.dumps(data["trial"]["design"])})
            versions = tuple(sorted((str(k), str(v)) for k, v in data["versions"].items()))
            found = cls(str(data["key"]), str(data["run"]), trial, int(data["seed"]), str(data["date"]), versions,
                        str(data["origin"]))  # fmt: skip
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"a measurement that lacks or misuses {error}") from None
        if trial.outcome.status not in get_args(Status) or not is_date(found.date):
            raise ValueError(f"a measurement with status {trial.outcome.status!r} and date {found.date!r}")
        return found


@dataclass(frozen=True)
class Quarantined:
    """A design that failed for a key, and why; it is not tried again until it is released."""

    design: Design
    status: str
    reason: str
    date: str
    version: str = __version__

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "design": _design_data(self.design)}

    @classmethod
    def from_dict(cls, data: Any) -> Quarantined:
        """What `to_dict` wrote; ValueError for anything else."""
        if not isinstance(data, dict) or set(data) != {f.name for f in fields(cls)}:
            raise ValueError("a quarantined design has the fields " + ", ".join(f.name for f in fields(cls)))
        words = {name: str(value) for name, value in data.items() if name != "design"}
        return cls(_design(data["design"]), **words)


def now() -> str:
    """This moment in UTC, to the second (ISO 8601)."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def is_date(text: object) -> bool:
    """Whether `text` is a date and time with its offset, as `now` writes them."""
    try:
        return isinstance(text, str) and datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


@cache
def versions() -> tuple[tuple[str, str], ...]:
    """What a measurement may depend on besides its key: Tilewright, the compiler, Python, the kernel of the system."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        compiler = version("llvmlite")
    except PackageNotFoundError:
        compiler = "unknown"
    python, system = platform.python_version(), f"{platform.system()} {platform.release()}"
    return (("llvmlite", compiler), ("python", python), ("system", system), ("tilewright", __version__))


def _design_data(design: Design) -> Any:
    return json.loads(design.to_json())


def _design(data: Any) -> Design:
    return Design.from_json(json.dumps(data))


def _standing_data(standing: Standing) -> dict[str, Any]:
    return {**asdict(standing), "design": _design_data(standing.design)}


def _standing(data: Any) -> Standing:
    if not isinstance(data, dict) or set(data) != {f.name for f in fields(Standing)}:
        raise ValueError("a runner-up has the fields " + ", ".join(f.name for f in fields(Standing)))
    numbers = {name: value for name, value in data.items() if name != "design"}
    if not all(map(_number, numbers.values())):
        raise ValueError(f"a runner-up of {numbers!r}; these are numbers")
    return Standing(_design(data["design"]), **numbers)


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
