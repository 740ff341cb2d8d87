"""How a server is set up: where it listens, whom it lets in, and its bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tilewright.errors import ArgumentError

HOST, PORT, MAX_QUEUE, MAX_BODY, GRACE = "127.0.0.1", 8000, 256, 4 * 2**20, 60.0


@dataclass(frozen=True)
class Settings:
    """ArgumentError for a value out of its range.

    name: of the model, as clients say it.
    host, port: where to listen; port 0 takes a free one.
    api_key: what clients must send as a bearer token; None lets everybody in who reaches the port.
    max_queue: completions that may wait beside those that run; more are refused with 503.
    max_body: bytes of a request's body.
    allow_origins: web pages' origins that browsers may let in, "*" for all.
    grace: seconds that running requests have to end when the server is told to.
    access_log: a line for each request.
    """

    name: str
    host: str = HOST
    port: int = PORT
    api_key: str | None = field(default=None, repr=False)
    max_queue: int = MAX_QUEUE
    max_body: int = MAX_BODY
    allow_origins: Sequence[str] = ()
    grace: float = GRACE
    access_log: bool = False

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("max_queue", self.max_queue, 0, 10**6),
            ("max_body", self.max_body, 1, 2**40),
            ("grace", self.grace, 0, 10**6),
        ):
            if not low <= value <= high:
                raise ArgumentError(f"{name} is {value}; it must be from {low} to {high}")
        if not self.name:
            raise ArgumentError("the model's name is empty; give one that clients can send")
        if self.api_key == "":
            raise ArgumentError("the API key is empty; give one, or none at all")


__all__ = ["GRACE", "HOST", "MAX_BODY", "MAX_QUEUE", "PORT", "Settings"]
