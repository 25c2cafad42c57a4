"""What the documentation page says of this very installation: its models, its address, its keys."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

WRITTEN_ADDRESS = "localhost:8000"  # in the examples of the document
STREAM = "/v1/audio/stream"
STREAM_TEXT = """A WebSocket, which this page cannot try. Send a configuration as JSON:

    {"sample_rate": 44100, "encoding": "s16le", "window_s": 1.0, "hop_s": 0.5, "head": "sounds-10"}

then PCM, mono, `s16le` or `f32le`, in binary messages of any length up to 1 MiB, at last
`{"end": true}`. For every hop a message comes back with the window's vector or labels. An error is
the last message; the close code is 4000 and the status that it would have over HTTP.
"""


def described(
    document: dict[str, Any],
    *,
    models: Sequence[str],
    classifiers: Sequence[str],
    has_keys: bool,
    address: str,
) -> dict[str, Any]:
    """The OpenAPI document for the page: lists to choose from, this address, locks where keys are.

    The document itself stays as it is: clients that are generated from it fit any installation.
    """
    mine = copy.deepcopy(document)
    info = mine["info"]
    info["description"] = info["description"].replace(WRITTEN_ADDRESS, address)
    if not has_keys:
        mine.pop("security", None)
        mine["components"].pop("securitySchemes", None)
    known = {"model": list(models), "head": list(classifiers)}
    for parameter in _parameters(mine):
        names = known.get(parameter["name"])
        if names and parameter.get("in") == "query":
            about = {k: v for k, v in parameter["schema"].items() if k in ("title", "description")}
            parameter["schema"] = {**about, "type": "string", "enum": names}
    mine["paths"].setdefault(STREAM, {"get": _stream()})
    return mine


def _parameters(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for operations in document["paths"].values():
        for operation in operations.values():
            if isinstance(operation, dict):
                yield from operation.get("parameters", [])


def _stream() -> dict[str, Any]:
    return {
        "tags": ["embeddings"],
        "summary": "Embed and label a live stream (WebSocket)",
        "description": STREAM_TEXT,
        "responses": {"101": {"description": "Switching to the WebSocket protocol"}},
    }
