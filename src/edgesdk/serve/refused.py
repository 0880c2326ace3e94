"""Errors as OpenAI's API writes them: a status, and a body with message, type, param and code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from edgesdk.errors import EdgeError, MemoryBudgetError, UsageError
from edgesdk.serve.engine import BusyError

__all__ = ["RefusedError"]


class RefusedError(Exception):
    """An answer that is an error.

    status: of HTTP; kind: the body's `type`; param: the parameter that is to blame; code: for programs
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = {"error": {"message": message, "type": kind, "param": param, "code": code}}
        self.headers = dict(headers or {})

    @classmethod
    def of(cls, error: EdgeError) -> RefusedError:
        """The refusal that tells a client of an error of ours."""
        message = f"{error.message} (hint: {error.hint})" if error.hint else error.message
        if isinstance(error, UsageError):
            return cls(400, message)
        if isinstance(error, BusyError):
            return cls(429, message, kind="rate_limit_error", code="busy", headers={"retry-after": "1"})
        status = 503 if isinstance(error, MemoryBudgetError) else 500
        return cls(status, message, kind="server_error")

    def response(self) -> JSONResponse:
        """What is sent."""
        return JSONResponse(self.body, self.status, self.headers)
