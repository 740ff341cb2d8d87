"""What is wrong with a request, as OpenAI's clients read it: a status and a small JSON object."""

from __future__ import annotations

from typing import Any

from tilewright.errors import ContextError, EngineFailure, ServerBusy, TilewrightError


class Problem(Exception):
    """A request that is refused. `param` names the field at fault, `code` is for programs; `retry`: seconds to wait."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        retry: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.param, self.code, self.retry = message, status, param, code, retry

    @classmethod
    def of(cls, error: TilewrightError, param: str | None = None) -> Problem:
        """An error of the engine, as an answer."""
        if isinstance(error, ServerBusy):
            return cls(str(error), status=503, code="server_busy", retry=1)
        if isinstance(error, EngineFailure):
            return cls(str(error), status=500, code="engine_failure")
        code = "context_length_exceeded" if isinstance(error, ContextError) else None
        return cls(str(error), param=param, code=code)

    @property
    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


__all__ = ["Problem"]
