"""Every call as a value: what is sent, and how the answer is read. No input, no output.

`viola/client/sync.py` and `viola/client/asynchronous.py` send them. What a call means is written
down only here.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import numpy as np
import soundfile as sf

from viola.client import answers
from viola.client.answers import Answer, Card
from viola.client.errors import misunderstood
from viola.client.sounds import Upload

T = TypeVar("T")
Document = dict[str, Any]
Parameters = Mapping[str, Any]

NDJSON = "application/x-ndjson"


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request and what becomes of its answer.

    Attributes:
        read: makes of the answer's bytes what the caller gets.
        body: the sound that is sent.
        document: what is sent as JSON instead.
        as_form: the sound goes as a file of a form, so that its name goes with it, beside `fields`.
        repeats: the call is not idempotent, so that it is not sent again where it may have been
            done.
        head: further headers.
    """

    path: str
    read: Callable[[bytes], T]
    method: str = "GET"
    query: Mapping[str, str] = field(default_factory=dict)
    body: Upload | None = None
    document: Document | None = None
    as_form: bool = False
    fields: Mapping[str, str] = field(default_factory=dict)
    repeats: bool = False
    accept: str = "application/json"
    head: Mapping[str, str] = field(default_factory=dict)

    def answer(self, content: bytes) -> T:
        """What the caller gets for an answer's bytes.

        Raises:
            ServiceError: the answer carries an error.
            Unreachable: another program, or a proxy, gave the answer, and not the service.
        """
        try:
            return self.read(content)
        except (ValueError, KeyError, TypeError, sf.SoundFileError) as error:
            raise misunderstood(content) from error

    @property
    def headers(self) -> dict[str, str]:
        """What is sent before the body."""
        headers = {"Accept": self.accept}
        if self.document is not None:
            headers["Content-Type"] = "application/json"
        if self.body is not None and not self.as_form:
            headers["Content-Type"] = "application/octet-stream"
            headers["Content-Length"] = str(self.body.n_bytes)
        return headers | dict(self.head)


def embed(body: Upload, parameters: Parameters) -> Call[Answer]:
    """The vector of a sound, and of its windows if they are asked for."""
    return _audio("embeddings", body, {"output": "base64"} | dict(parameters))


def classify(body: Upload, parameters: Parameters) -> Call[Answer]:
    """What one classifier says of a sound; with `window_s` also of its windows."""
    asked = dict(parameters)
    if asked.get("window_s") is not None or asked.get("hop_s") is not None:
        asked["granularity"] = "window"
    return _audio("classifications", body, asked)


def analyze(body: Upload, parameters: Parameters) -> Call[Answer]:
    """The vector, what every classifier says, and what the recording is like."""
    return _audio("analyze", body, {"output": "base64"} | dict(parameters))


def streamed(call: Call[Answer]) -> Call[Answer]:
    """The same call answered in lines, which `viola.client.lines.Lines` reads."""
    return Call(
        call.path,
        call.read,
        method=call.method,
        query={**call.query, "stream": "true"},
        body=call.body,
        accept=NDJSON,
    )


def inspect(body: Upload, parameters: Parameters) -> Call[Document]:
    """Whether a file would be accepted; its document in the list that the service answers."""

    def read(content: bytes) -> Document:
        (found,) = json.loads(content)["data"]
        return dict(found)

    path = "/v1/audio/inspect"
    return Call(path, read, method="POST", query=plain_query(parameters), body=body)


def models() -> Call[list[Card]]:
    """The encoders that are served."""
    return Call("/v1/models", _cards)


def classifiers() -> Call[list[Card]]:
    """The classifiers that are served."""
    return Call("/v1/classifiers", _cards)


def get(*parts: str) -> Call[Document]:
    """A document below `/v1`."""
    return Call("/v1/" + "/".join(map(segment, parts)), json.loads)


def segment(name: str) -> str:
    """A name as one segment of a path.

    Raises:
        ValueError: the name is empty or of dots alone: `..` in an address is the folder above, so
            that deleting an item of that name would delete its collection.
    """
    if not name.strip("."):
        raise ValueError(f"{name!r} is no name: it is empty, or dots alone")
    return quote(name, safe="")


def _cards(content: bytes) -> list[Card]:
    return answers.cards(json.loads(content))


def _audio(name: str, body: Upload, parameters: Parameters) -> Call[Answer]:
    read = partial(_single, body.name)
    query = plain_query(parameters)
    return Call(f"/v1/audio/{name}", read, method="POST", query=query, body=body)


def _single(file: str | None, content: bytes) -> Answer:
    return answers.single(json.loads(content), file)


def plain_query(parameters: Parameters) -> dict[str, str]:
    """Parameters as texts for the query, as JSON has them; None is left to the service."""
    given = {name: value for name, value in parameters.items() if value is not None}
    return {name: v if isinstance(v, str) else as_json(v) for name, v in given.items()}


def as_json(value: Any) -> str:
    """A document as JSON; numbers may be NumPy's.

    Raises:
        TypeError: something in it cannot be JSON.
    """
    return json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{value!r}, a {type(value).__name__}, cannot be sent as JSON")


def nothing(content: bytes) -> None:
    """The answer to what was deleted or taken: there is none.

    Raises:
        ValueError: there is one, of another program.
    """
    if content:
        raise ValueError("an answer where there is none")


def file(content: bytes) -> bytes:
    """A file that was asked for.

    Raises:
        ValueError: it is a web page.
    """
    if content.lstrip().startswith(b"<"):
        raise ValueError("a web page")
    return content
