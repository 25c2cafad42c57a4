"""Every call about collections and taught classifiers as a value; see `viola.client.calls`."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

import soundfile as sf

from viola.client.answers import Vector
from viola.client.calls import NDJSON, Call, as_json, file, nothing, plain_query, segment
from viola.client.errors import Unreachable, broken
from viola.client.records import (
    CollectionInfo,
    Duplicate,
    Hit,
    ItemInfo,
    Label,
    Moved,
    Placed,
    Proposal,
    Taught,
    proposal,
    record,
)
from viola.client.sounds import Upload, several

R = TypeVar("R")
PAGE = 1000

Example = str | ItemInfo | Hit | Vector | Mapping[str, Any]
"""An item, or its id, a window that was found, a stretch of an item (`{"id": ..., "start_s": 1,
"end_s": 2}`), or a vector of the collection's space."""


class Page(NamedTuple):
    """Some entries of a list, and where the next ones begin; None: there are none."""

    entries: list[Any]
    cursor: int | None


def collections() -> Call[list[CollectionInfo]]:
    """All collections of the key."""
    return Call("/v1/collections", partial(_list, CollectionInfo))


def make(name: str, terms: Mapping[str, Any]) -> Call[CollectionInfo]:
    """Make a collection; if it is there with the same terms, nothing changes."""
    return Call(path(name), partial(_one, CollectionInfo), method="PUT", document=_given(terms))


def show(name: str) -> Call[CollectionInfo]:
    """A collection's terms, and how much is in it."""
    return Call(path(name), partial(_one, CollectionInfo))


def delete(name: str) -> Call[None]:
    """Delete a collection with all that is in it."""
    return Call(path(name), nothing, method="DELETE")


def reembed(name: str, model: str | None) -> Call[Moved]:
    """Move a collection that keeps audio to another model."""
    document = _given({"model": model})
    at = path(name, "reembed")
    return Call(at, _moved, method="POST", document=document, accept=NDJSON)


def give_up(name: str) -> Call[None]:
    """Give up a move to another model; the vectors computed for it are deleted."""
    return Call(path(name, "reembed"), nothing, method="DELETE")


def add(
    name: str, body: Upload, item_id: str | None, metadata: Mapping[str, Any] | None
) -> Call[ItemInfo]:
    """Add a recording; content that is there already is that item."""
    about = {
        "id": item_id,
        "metadata": None if metadata is None else as_json(metadata),
    }
    query = plain_query(about)
    return Call(path(name, "items"), _added, method="POST", query=query, body=body, as_form=True)


def in_lines(call: Call[ItemInfo]) -> Call[ItemInfo]:
    """The same for a recording of any length: it is answered in lines while it is computed."""
    query = {**call.query, "stream": "true"}
    return replace(call, read=_added_at_last, query=query, accept=NDJSON)


def items(name: str, cursor: int, where: Mapping[str, Any] | None) -> Call[Page]:
    """A page of the items."""
    asked = {"filter": None if where is None else as_json(where)}
    return _page(path(name, "items"), ItemInfo, cursor, asked)


def remove(name: str, item_id: str) -> Call[None]:
    """Delete an item."""
    return Call(path(name, "items", item_id), nothing, method="DELETE")


def audio(name: str, item_id: str) -> Call[bytes]:
    """The file of an item, where the collection keeps audio."""
    return Call(path(name, "items", item_id, "audio"), file, accept="*/*")


def samples(name: str, item_id: str, selection: Mapping[str, Any]) -> Call[Vector]:
    """The samples of an item, or of a part of it, as every model hears them."""
    at = path(name, "items", item_id, "samples")
    return Call(at, _samples, query=plain_query(selection), accept="audio/wav")


def search(
    name: str, body: Upload | None, like: Sequence[Example], options: Mapping[str, Any]
) -> Call[list[Hit]]:
    """What sounds like a file, or like examples; `unlike` is among the options."""
    asked = dict(options)
    asked["positive"] = [_example(one) for one in several(like, "like")]
    asked["negative"] = [_example(one) for one in several(asked.pop("unlike", ()), "unlike")]
    read, at = partial(_list, Hit), path(name, "search")
    asked = {key: v for key, v in _given(asked).items() if not (isinstance(v, list) and not v)}
    if body is None:
        return Call(at, read, method="POST", document=asked)
    texts = {key: v if isinstance(v, str) else as_json(v) for key, v in asked.items()}
    return Call(at, read, method="POST", body=body, as_form=True, fields=texts)


def label(name: str, labels: Sequence[Mapping[str, Any]]) -> Call[list[Label]]:
    """Say what items are; all of the labels are added, or none."""
    document = {"labels": [_given(one) for one in labels]}
    read = partial(_list, Label)
    return Call(path(name, "labels"), read, method="POST", document=document, repeats=True)


def labels(name: str, cursor: int, asked: Mapping[str, Any]) -> Call[Page]:
    """A page of the labels."""
    return _page(path(name, "labels"), Label, cursor, asked)


def unlabel(name: str, number: int) -> Call[None]:
    """Take a label back."""
    return Call(path(name, "labels", str(number)), nothing, method="DELETE")


def duplicates(name: str, asked: Mapping[str, Any]) -> Call[list[Duplicate]]:
    """Pairs of items that are nearly the same."""
    read = partial(_list, Duplicate)
    return Call(path(name, "duplicates"), read, query=plain_query(asked))


def places(name: str, asked: Mapping[str, Any]) -> Call[list[Placed]]:
    """The map of a collection."""
    read = partial(_list, Placed)
    return Call(path(name, "map"), read, query=plain_query(asked))


def teach(document: Mapping[str, Any]) -> Call[Taught]:
    """Make a classifier of a collection's labels."""
    read = partial(_one, Taught)
    return Call("/v1/classifiers", read, method="POST", document=_given(document), repeats=True)


def proposals(head: str, asked: Mapping[str, Any]) -> Call[list[Proposal]]:
    """Which windows to label next."""

    def read(content: bytes) -> list[Proposal]:
        return [proposal(members) for members in json.loads(content)["data"]]

    return Call(f"/v1/classifiers/{segment(head)}/next", read, query=plain_query(asked))


def download(head: str) -> Call[bytes]:
    """A taught classifier as an ONNX file."""
    return Call(f"/v1/classifiers/{segment(head)}/file", file, accept="*/*")


def forget(head: str) -> Call[None]:
    """Delete a taught classifier."""
    return Call(f"/v1/classifiers/{segment(head)}", nothing, method="DELETE")


def path(*parts: str) -> str:
    """Where a collection, or something in it, is."""
    return "/v1/collections/" + "/".join(map(segment, parts))


def _page(at: str, kind: type[Any], cursor: int, asked: Mapping[str, Any]) -> Call[Page]:
    def read(content: bytes) -> Page:
        document = json.loads(content)
        entries = [record(kind, members) for members in document["data"]]
        return Page(entries, document.get("next_cursor"))

    return Call(at, read, query=plain_query({"limit": PAGE, "cursor": cursor, **asked}))


def _example(one: Example) -> dict[str, Any]:
    if isinstance(one, Mapping):
        return dict(one)
    if isinstance(one, Hit):
        return {"id": one.id, "start_s": one.start_s, "end_s": one.end_s}
    if isinstance(one, ItemInfo):
        return {"id": one.id}
    return {"id": one} if isinstance(one, str) else {"vector": [float(value) for value in one]}


def _given(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _one(kind: type[R], content: bytes) -> R:
    return record(kind, json.loads(content))


def _list(kind: type[R], content: bytes) -> list[R]:
    return [record(kind, members) for members in json.loads(content)["data"]]


def _added(content: bytes) -> ItemInfo:
    (found,) = json.loads(content)["data"]
    return record(ItemInfo, found["item"])


def _added_at_last(content: bytes) -> ItemInfo:
    lines = _whole_lines(content, "send the recording again")
    (item,) = (line["item"] for line in lines if line["object"] == "added")
    return record(ItemInfo, item)


def _moved(content: bytes) -> Moved:
    lines = _whole_lines(content, "ask again, and it goes on")
    failed = {
        line["item"]: line["error"]["detail"]
        for line in lines
        if "item" in line and "error" in line
    }
    last = lines[-1]
    return Moved(last["is_complete"], record(CollectionInfo, last["collection"]), failed)


def _whole_lines(content: bytes, remedy: str) -> list[dict[str, Any]]:
    """The lines of an answer whose last one has come.

    Raises:
        ServiceError: the last line is an error.
        Unreachable: the answer broke off.
    """
    lines: list[dict[str, Any]] = [json.loads(line) for line in content.splitlines()]
    last = lines[-1] if lines else {}
    if last.get("object") == "error":
        raise broken(last["error"])
    if last.get("object") != "done":
        raise Unreachable(f"the answer broke off before its last line: {remedy}")
    return lines


def _samples(content: bytes) -> Vector:
    samples: Vector = sf.read(io.BytesIO(content), dtype="float32")[0]
    return samples
