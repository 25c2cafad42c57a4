"""What can go wrong between a client and the service, in the service's own words."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MOST_TEXT = 200  # characters that are shown of an answer that is no problem document


class ServiceError(Exception):
    """The service refused, or could not do, what was asked for.

    Attributes:
        status: of the answer, or the one that it would have had.
        kind: the last part of the problem's `type`, as `too-long`; empty where the answer was no
            problem document.
        title: the kind of the problem in words.
        detail: what happened, with the limit and the value that met it.
        limit: the limit; None where there is none. `observed` is what met it, `unit` its unit.
        request_id: what the service's log calls the request.
        retry_after_s: when to come again, if the service said so.
        document: the whole problem document.
    """

    def __init__(
        self, status: int, document: Mapping[str, Any], retry_after_s: float | None = None
    ) -> None:
        self.status = status
        self.document = dict(document)
        self.kind = str(document.get("type", "")).rpartition("/")[2]
        self.title = str(document.get("title", f"Answer {status}"))
        self.detail = str(document.get("detail", ""))
        self.limit: float | None = document.get("limit")
        self.observed: float | None = document.get("observed")
        self.unit: str | None = document.get("unit")
        instance = str(document.get("instance") or "")
        self.request_id = instance.rpartition(":")[2] or None
        given = document.get("retry_after_s")
        self.retry_after_s = given if retry_after_s is None else retry_after_s
        super().__init__(f"{self.title} ({status}): {self.detail}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle it, so that it can pass from a worker process to its parent."""
        return type(self), (self.status, self.document, self.retry_after_s)


class Unreachable(Exception):
    """No answer of the service came: nobody, or another program, listens there; or it broke off."""


@dataclass(frozen=True)
class Failure:
    """One attempt that failed.

    Attributes:
        error: to be raised, if the call is not tried again.
        may_pass: trying again may help.
        is_refusal: the service was there and said "not now".
        is_undone: the service cannot have done anything.
    """

    error: ServiceError | Unreachable
    may_pass: bool
    is_refusal: bool = False
    is_undone: bool = False
    retry_after_s: float | None = field(default=None)


TOO_LONG = 413  # more than one request may hold
REDIRECTS = (301, 302, 303, 307, 308)  # of a proxy; they are not followed
UNDONE = (429, 503)  # refused before anything was done
PASSING = (429, 502, 503, 504, 507)  # the caller's share or quota, or what a service lacks for now


def refused(status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """The failure that an answer other than 2xx tells of."""
    retry_after_s = _seconds(headers.get("retry-after", ""))
    document = _document(body)
    if status in REDIRECTS and "location" in headers:
        document = {"detail": f"it is at {headers['location']}: give the client that address"}
    error = ServiceError(status, document, retry_after_s)
    passes = status in PASSING
    return Failure(error, passes, passes, status in UNDONE, retry_after_s)


def broken(document: Mapping[str, Any]) -> ServiceError:
    """The error that a file, or the last line of a stream, carries in the place of an answer."""
    return ServiceError(int(document.get("status", 500)), document)


def misunderstood(text: str | bytes) -> Unreachable:
    """The error of an answer of 2xx that another program has given."""
    shown = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return Unreachable(
        f"the answer is none of a Viola service, {shown[:MOST_TEXT]!r}: is the address right, the "
        "prefix of a proxy included?"
    )


def line_of(text: str | bytes) -> dict[str, Any]:
    """Read a line of an answer in lines, or a message of a live stream.

    Raises:
        Unreachable: the service has not written it.
    """
    try:
        members = json.loads(text)
    except ValueError:
        members = None
    if not isinstance(members, dict) or "object" not in members:
        raise misunderstood(text)
    return members


def _document(body: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found
    return {"detail": body[:MOST_TEXT].decode("utf-8", "replace")}


def _seconds(text: str) -> float | None:
    """Retry-After in seconds; dates, which this service never sends, are left alone."""
    return float(text) if text.isascii() and text.isdigit() else None
