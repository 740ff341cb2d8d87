"""Where the time goes before a model is fast: seconds of each phase of a program that serves one."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Phases:
    """Seconds.

    `load`: reading the model; `compile`: of generic kernels, on the way of calls; `search`: of the background process
    at work, beside the program; `capture`: recording forward passes, without what was compiled for them;
    `first_token`: from the first request to its first token, or None before there was one.
    """

    load: float
    compile: float
    search: float
    capture: float
    first_token: float | None

    def to_dict(self) -> dict[str, float | None]:
        """Plain data for JSON, to the microsecond."""
        return {name: None if s is None else round(s, 6) for name, s in asdict(self).items()}


__all__ = ["Phases"]
