"""JSON in the body of a request: parsed once its size is known to be harmless."""

from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import Request

from service.audio.uploads import in_time, received, refuse_encoding
from service.problems import Problem, invalid_parameter
from service.settings import Settings
from service.traffic.budget import Share
from service.traffic.patience import in_thread
from service.untrusted import printable

JSON = "application/json"
COPIES = 3  # of a body of base64 at the most: itself and its strings; or these, cut, and the files
VALUE_BYTES = 56  # of a number: in a list twice, as an object, as a float32
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


async def take_values(body: bytearray, max_values: int, share: Share) -> None:
    """Hold the memory for what a JSON will be once it is parsed, as soon as there is room.

    Raises:
        Problem: it has more values than that (25 MB of brackets would fill gigabytes), or memory
            is full.
    """
    await share.take(VALUE_BYTES * await in_thread(_count_values, body, max_values))


def _count_values(body: bytearray, max_values: int) -> int:
    n_values = body.count(b",")
    _check_count("values", n_values, max_values)
    _check_count("arrays and objects", body.count(b"[") + body.count(b"{"), MAX_NESTED)
    return n_values


def parse_object(body: bytearray) -> dict[str, Any]:
    """A JSON object, whose values have their memory.

    Raises:
        Problem: it is no JSON object.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        detail = f"The body is not JSON: it breaks at line {error.lineno}, column {error.colno}."
        raise Problem("bad-request", detail) from None
    if not isinstance(document, dict):
        raise Problem("bad-request", f"The body is {kind_of(document)}; expected a JSON object.")
    return document


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
