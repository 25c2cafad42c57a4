"""JSON in the body of a request, parsed only once the number of its values is checked."""

import json
from codecs import BOM_UTF8
from collections.abc import Mapping
from typing import Any, TypeVar

import orjson
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from service.problems import Problem, given_twice, invalid_parameter
from service.settings import Settings
from service.threads import in_thread
from service.traffic.budget import Share
from service.untrusted import printable
from service.uploads.body import has_body, in_time, received, refuse_encoding

P = TypeVar("P", bound=BaseModel)

JSON = "application/json"
COPIES = 3  # of a body of base64 at the most: itself and its strings; or these, cut, and the files
VALUE_BYTES = 56  # of a number: in a list twice, as an object, as a float32
MAX_VALUES = 1 << 20  # of a document without audio
MAX_NESTED = 10_000  # arrays and objects, each of which takes far more than its two bytes


async def receive_json(request: Request, settings: Settings) -> bytearray:
    """The body, of a request that says that it is JSON.

    Raises:
        Problem: it is of another kind or compressed, or takes too long.
    """
    refuse_encoding(request)
    declared = request.headers.get("content-type", "")
    media_type = declared.partition(";")[0].strip().lower()
    if media_type != JSON:
        detail = f"Content-Type {printable(media_type)!r} is not accepted; send {JSON}."
        headers = {"Accept-Post": JSON}
        raise Problem("unsupported-media-type", detail, accepted=[JSON], headers=headers)
    async with in_time(settings):
        return await received(request, COPIES)


def refuse_query(request: Request) -> None:
    """Refuse a query where everything stands in the body: it would be dropped in silence.

    Raises:
        Problem: there is one.
    """
    for name, value in request.query_params.items():
        shown = printable(name, 64)
        reason = f"{shown} stands in the query, which is not read here: say it in the body."
        raise invalid_parameter(shown, reason, value=value)


async def take_values(body: bytearray, max_values: int, share: Share) -> None:
    """Wait for the memory that a JSON document takes once it is parsed.

    Raises:
        Problem: it has more values than that (25 MB of brackets would fill gigabytes), or memory
            is full.
    """
    await share.take(VALUE_BYTES * await in_thread(_count_values, body, max_values))


async def read_document(request: Request, settings: Settings, model: type[P]) -> P:
    """The JSON object in a request's body; no body at all is an empty one.

    Raises:
        Problem: it cannot be read, or there are parameters in the query.
        RequestValidationError: it is not what the model describes.
    """
    refuse_query(request)
    if not has_body(request):
        return validated(model, {})
    body = await receive_json(request, settings)
    await take_values(body, MAX_VALUES, request.state.share)
    return validated(model, await in_thread(parse_object, body))


def validated(model: type[P], members: Mapping[str, Any], *, strict: bool | None = None) -> P:
    """What the members of a document say; with `strict` off the fields of a form, all texts.

    Raises:
        RequestValidationError: they are not what the model describes.
    """
    try:
        return model.model_validate(dict(members), strict=strict)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None


def _count_values(body: bytearray, max_values: int) -> int:
    n_values = body.count(b",")
    _check_count("values", n_values, max_values)
    _check_count("arrays and objects", body.count(b"[") + body.count(b"{"), MAX_NESTED)
    return n_values


def parse_object(body: bytearray) -> dict[str, Any]:
    """Parse a JSON object; its memory has been taken by `take_values`.

    Raises:
        Problem: it is no JSON object, or has a member twice.
    """
    first = len(BOM_UTF8) if body.startswith(BOM_UTF8) else 0  # Windows writes it
    try:
        document = orjson.loads(memoryview(body)[first:])
    except orjson.JSONDecodeError as error:
        detail = f"The body is not JSON: it breaks at line {error.lineno}, column {error.colno}."
        if "valid UTF-8" in error.msg:  # whose place is not told
            detail = "The body is not UTF-8, in which JSON is sent."
        raise Problem("bad-request", detail) from None
    if not isinstance(document, dict):
        raise Problem("bad-request", f"The body is {kind_of(document)}; expected a JSON object.")
    if body.count(b":") > len(document):  # else each is of a member that is there
        refuse_twice(body[first:].decode())
    return document


def refuse_twice(text: str) -> None:
    """Refuse JSON of which an object has a member twice: parsers drop all but the last in silence.

    Raises:
        Problem: it has, or is nested too deeply for anything that is accepted.
    """
    try:
        # Its values are dropped at once, and numbers are not read
        json.loads(text, object_pairs_hook=_once, parse_int=len, parse_float=len)
    except RecursionError:
        raise Problem("bad-request", "The JSON is nested too deeply.") from None


def _once(members: list[tuple[str, Any]]) -> None:
    names = set[str]()
    for name, _ in members:
        if name in names:
            raise given_twice(name)
        names.add(name)


def _check_count(what: str, found: int, limit: int) -> None:
    if found > limit:
        raise Problem(
            "body-too-large",
            f"The JSON holds {found} {what} or more; at most {limit} are accepted.",
            limit=limit,
            observed=found,
            unit=what,
        )


def member(document: Mapping[str, Any], name: str) -> Any:
    """A member that has to be there.

    Raises:
        Problem: if it is not.
    """
    if document.get(name) is None:
        raise invalid_parameter(name, f"{name} is missing.", value="null")
    return document[name]


def kind_of(value: Any) -> str:
    """What a JSON value is, in a word that is safe to echo."""
    kinds: dict[type, str]
    kinds = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    return "null" if value is None else kinds.get(type(value), "a number")
