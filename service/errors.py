"""The one place where what went wrong becomes an HTTP answer: `application/problem+json`.

The layers below raise `AudioError` (of a file) and `ServiceError` (of a request), which know
nothing of HTTP; `as_problem` gives each the status and the title that `problems.py` lists.
"""

import errno
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from models.limits import AudioError
from models.suggest import did_you_mean
from service.exceptions import Failure, ServiceError
from service.naming import IN_WORDS
from service.problems import Problem, invalid_parameter
from service.untrusted import printable

PROBLEM_JSON = "application/problem+json"
OPEN_INFERENCE = "/v2/"  # whose clients expect `error` to be a sentence
SHORTAGE_RETRY_S = 5
CLIENT_CLOSED_REQUEST = 499  # nobody reads it but the log, which nginx taught to know the number

log = structlog.get_logger()

_AUDIO_PROBLEMS = {
    "unreadable": "corrupt",
    "empty": "empty",
    "unsupported": "unsupported-format",
    "corrupt": "corrupt",
    "truncated": "truncated",
    "non_finite": "non-finite",
    "amplitude": "amplitude",
    "sample_rate": "sample-rate",
    "channels": "channels",
    "duration": "too-long",
    "decoded_bytes": "decoded-too-large",
    "selection": "not-in-recording",
}
_PARTS = ("query", "body", "path", "header")  # of a request, as FastAPI puts them first
_KINDS = ("bool", "constrained-str", "float", "int", "str")
MAX_ERRORS = 16  # that are told of one request
_BOUNDS = ("gt", "ge", "lt", "le", "max_length", "min_length")
_SECRETS = frozenset({"secret"})  # members that are told neither to the log nor back
_HIDDEN = "(hidden)"


def install(app: FastAPI) -> None:
    """Answer every failure inside `app` with a problem document."""
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(AudioError, _answer_failure)
    app.add_exception_handler(ServiceError, _answer_failure)
    app.add_exception_handler(RequestValidationError, _answer_validation)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)
    app.add_exception_handler(OSError, _answer_shortage)
    app.add_exception_handler(RuntimeError, _answer_shortage)


def problem_response(problem: Problem, request_id: str, path: str = "") -> Response:
    """The answer of a request that failed as a whole; below `/v2`, `error` is a sentence."""
    is_plain = f"{path}/".startswith(OPEN_INFERENCE)
    document = problem.document(
        instance=f"urn:viola:request:{request_id}",
        error=problem.detail if is_plain else problem.openai_error(),
    )
    return Response(
        orjson.dumps(document),
        status_code=problem.status_code,
        headers=problem.headers,
        media_type=PROBLEM_JSON,
    )


def path_within(scope: Scope) -> str:
    """The path as the routes know it, below the prefix that a proxy has added."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    return path.removeprefix(root) if root and path.startswith(root + "/") else path


def as_problem(error: Failure) -> Problem:
    """What a failure of the inner layers is over HTTP; its message is our own and safe to send."""
    if isinstance(error, ServiceError):
        return _service_problem(error)
    return Problem(
        _AUDIO_PROBLEMS[error.reason],
        f"{error.message[:1].upper()}{error.message[1:]}.",
        limit=error.limit,
        observed=error.observed,
        unit=error.unit,
    )


def _service_problem(error: ServiceError) -> Problem:
    if error.reason == "invalid-parameter":
        name = error.param or "request"
        return invalid_parameter(name, error.message, value=error.value, limit=error.limit)
    retry_s = error.retry_after_s
    return Problem(
        error.reason,
        error.message,
        limit=error.limit,
        observed=error.observed,
        unit=error.unit,
        param=error.param,
        headers=None if retry_s is None else {"Retry-After": str(retry_s)},
    )


def shortage(error: BaseException) -> Problem | None:
    """The problem of an error that says what the system has run out of; None: it is another."""
    headers = {"Retry-After": str(SHORTAGE_RETRY_S)}
    code = error.errno if isinstance(error, OSError) else None
    if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        detail = "There is no room for temporary files, in the folder that TMPDIR names (or /tmp)."
        return Problem("storage-full", detail, headers=headers)
    if code in (errno.EMFILE, errno.ENFILE):
        detail = "The service can open no more files."
        return Problem("resources-exhausted", detail, headers=headers)
    if code in (errno.EAGAIN, errno.ENOMEM) or "can't start new thread" in str(error):
        detail = "The service can start no more processes or threads."
        return Problem("resources-exhausted", detail, headers=headers)
    return None


def validation_problem(errors: Sequence[Mapping[str, Any]]) -> Problem:
    """The problem of what pydantic refused: up to `MAX_ERRORS`, the first of them as the detail."""
    refused = [_refused(error) for error in errors[:MAX_ERRORS]]
    context = errors[0].get("ctx", {})
    return Problem(
        "invalid-parameter",
        refused[0]["reason"],
        limit=next((context[bound] for bound in _BOUNDS if bound in context), None),
        observed=None if refused[0]["value"] == _HIDDEN else _number(errors[0].get("input")),
        param=refused[0]["name"],
        invalid_params=refused,
    )


def _refused(error: Mapping[str, Any]) -> dict[str, Any]:
    name = path_of(error["loc"])
    is_secret = not _SECRETS.isdisjoint(error["loc"])
    shown = _HIDDEN if is_secret else _shown(error.get("input"))
    if error["type"] == "missing":  # its input is what it is missing in
        return {"name": name, "reason": f"{name} is missing.", "value": None}
    if error["type"] == "extra_forbidden":
        known = error["ctx"]["known"]
        instead = did_you_mean(str(error["loc"][-1]), known) or f"; there are {', '.join(known)}."
        reason = f"There is no parameter {name!r}{instead}"
    elif (pattern := error.get("ctx", {}).get("pattern")) in IN_WORDS:
        reason = f"{name} = {shown} is not accepted: expected {IN_WORDS[pattern]}."
    else:
        why = error["msg"].removeprefix("Value error, ")  # what pydantic puts before our words
        reason = f"{name} = {shown} is not accepted: {why}."
    return {"name": name, "reason": reason, "value": shown}


def path_of(location: Sequence[str | int]) -> str:
    """Where something stands in a request, as `inputs[0].shape[1]`."""
    if len(location) > 1 and location[0] in _PARTS:
        location = location[1:]
    name = "".join(_step(step) for step in location)
    return printable(name.removeprefix(".")) or "request"


def _step(step: str | int) -> str:
    """A member or an item; nothing for what pydantic calls the kinds of a union."""
    if isinstance(step, int):
        return f"[{step}]"
    is_kind = step in _KINDS or step.startswith(("literal[", "("))
    return "" if is_kind else f".{step}"


class _WithoutSecrets(reprlib.Repr):
    """A value in few letters, without the secrets that are in it."""

    def repr_dict(self, given: dict[str, Any], level: int) -> str:
        """An object: its first members."""
        hidden = dict.fromkeys(_SECRETS & given.keys(), _HIDDEN)
        return super().repr_dict(given | hidden if hidden else given, level)


_WITHOUT_SECRETS = _WithoutSecrets()


def _shown(value: Any) -> str | None:
    try:
        if isinstance(value, list | dict):  # of which there may be megabytes
            return printable(_WITHOUT_SECRETS.repr(value))
        return None if value is None else printable(str(value))
    except ValueError:  # an integer of more digits than Python writes
        return "a number of very many digits"


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _framework_problem(request: Request, error: HTTPException) -> Problem:
    """What Starlette and FastAPI refuse on their own; their texts hold nothing of the inside."""
    path = printable(request.url.path)
    if error.status_code == 404:
        return Problem("not-found", f"There is nothing at {path}.")
    if error.status_code == 405:
        detail = f"{path} does not take {printable(request.method)}."
        return Problem("method-not-allowed", detail, headers=error.headers)
    return Problem("bad-request", f"{error.detail}.")


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    problem = error if isinstance(error, Problem) else _framework_problem(request, error)
    request.state.problem = problem  # for the line in the log
    return problem_response(problem, request.state.request_id, path_within(request.scope))


async def _answer_failure(request: Request, error: Exception) -> Response:
    assert isinstance(error, AudioError | ServiceError)
    return await _answer_http(request, as_problem(error))


async def _answer_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return await _answer_http(request, validation_problem(error.errors()))


async def _answer_shortage(request: Request, error: Exception) -> Response:
    problem = shortage(error)
    if problem is None:
        raise error
    log.error("out of resources", problem=problem.kind.slug, reason=str(error))
    return await _answer_http(request, problem)


async def _answer_nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)
