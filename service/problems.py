"""A failure of a request, or of one of its files, as a problem document (RFC 9457)."""

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException

from service.problem_types import PROBLEM_TYPES
from service.untrusted import printable


class Problem(HTTPException):
    """A failure of one request, or of one file in it, with the limit and the value that met it.

    It is an HTTPException because FastAPI turns other errors while it reads a body into a bare 400.
    """

    def __init__(
        self,
        slug: str,
        detail: str,
        *,
        limit: float | None = None,
        observed: float | None = None,
        unit: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        **extensions: Any,
    ) -> None:
        self.kind = PROBLEM_TYPES[slug]
        super().__init__(self.kind.status, detail, dict(headers or {}))
        members = {"limit": limit, "observed": observed, "unit": unit, "param": param}
        self.extensions = {
            name: value for name, value in (members | extensions).items() if value is not None
        }

    def document(self, **members: Any) -> dict[str, Any]:
        """The problem document, with `members` added."""
        return {
            "type": self.kind.uri,
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
            **self.extensions,
            **members,
        }

    def openai_error(self) -> dict[str, Any]:
        """The same as OpenAI's clients expect it, to stand beside as `error`."""
        return {
            "message": self.detail,
            "type": "server_error" if self.status_code >= 500 else "invalid_request_error",
            "param": self.extensions.get("param"),
            "code": self.kind.slug.replace("-", "_"),
        }


def invalid_parameter(name: str, reason: str, *, value: Any, limit: float | None = None) -> Problem:
    """One parameter that is not accepted; `reason` is a sentence that names it."""
    return Problem(
        "invalid-parameter",
        reason,
        limit=limit,
        observed=value if isinstance(value, int | float) else None,
        param=name,
        invalid_params=[{"name": name, "reason": reason, "value": printable(str(value))}],
    )


def given_twice(name: str) -> Problem:
    """A parameter that has one value, and came with two: neither is more meant than the other."""
    shown = printable(name, 64)
    return invalid_parameter(shown, f"{shown} is given twice; send it once.", value="given twice")
