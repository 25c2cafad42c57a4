"""Fields of a form, and parameters of a query, whose text is JSON."""

from collections.abc import Mapping
from typing import Any

import orjson

from service.formats.json_body import refuse_twice
from service.problems import invalid_parameter

IN_JSON = ("filter", "items", "metadata", "negative", "negative_files", "positive")


def from_texts(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a form or a query, those that hold JSON as what it says.

    Raises:
        Problem: one of them is no JSON.
    """
    return {name: parsed(name, value) for name, value in fields.items()}


def parsed(name: str, value: Any) -> Any:
    """The value of a field: what its JSON says if it is one of those that hold JSON.

    Raises:
        Problem: it is no JSON.
    """
    if name not in IN_JSON or not isinstance(value, str):
        return value
    try:
        said = orjson.loads(value)
        refuse_twice(value)
        return said
    except orjson.JSONDecodeError as error:
        reason = f"{name} is not JSON: it breaks at column {error.colno}."
        raise invalid_parameter(name, reason, value=value) from None
