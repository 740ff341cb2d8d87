"""What the cost model answers: seconds, what bounds them, and the terms they were made from, each with its unit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Term:
    """One number of an estimate: "L2 bytes", 1.2e6, "byte". A term that is time has the unit "s"."""

    name: str
    value: float
    unit: str

    def __str__(self) -> str:
        return f"{self.name} {self.value:.4g} {self.unit}"


@dataclass(frozen=True)
class Estimate:
    """Seconds of one call; `bound` is the name of the term of time that is largest."""

    seconds: float
    bound: str
    terms: tuple[Term, ...]

    def value(self, name: str) -> float:
        """The value of the term called `name`; KeyError if there is none."""
        for term in self.terms:
            if term.name == name:
                return term.value
        raise KeyError(name)

    def __str__(self) -> str:
        listed = "\n".join(f"  {t}" for t in self.terms)
        return f"{self.seconds * 1e6:.2f} us, bound by {self.bound}\n{listed}"


def largest(terms: tuple[Term, ...]) -> str:
    """The name of the largest term of time."""
    times = [t for t in terms if t.unit == "s"]
    return max(times, key=lambda t: t.value).name if times else "unknown"
