"""The lines of a job's result -> what became of each file."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from viola.client import answers
from viola.client.answers import Answer
from viola.client.errors import ServiceError, broken, line_of
from viola.client.records import ItemInfo, Placed, Taught, record


@dataclass(frozen=True)
class JobFile:
    """What became of one file of a job; of a job that teaches or maps there is one, without a file.

    Attributes:
        index: its place among the files.
        answer: its vectors or labels, where it was embedded or classified.
        item: what it is in the collection, where it was indexed.
        taught: the classifier that was made.
        places: of the items on the map of their collection.
        error: why it failed.
    """

    index: int = 0
    file: str | None = None
    answer: Answer | None = None
    item: ItemInfo | None = None
    taught: Taught | None = None
    places: list[Placed] | None = None
    error: ServiceError | None = None


class ResultLines:
    """Takes the lines of a result one by one, and gives each file at its last line."""

    def __init__(self) -> None:
        self._about: Mapping[str, Any] = {}
        self._windows: list[Mapping[str, Any]] = []
        self._found: Mapping[str, Any] = {}

    def read(self, line: str) -> JobFile | None:
        """The file that ends with this line."""
        if not line:
            return None
        members = line_of(line)
        kind = members["object"]
        if kind == "file":
            self._about, self._windows, self._found = members, [], {}
        elif kind == "window":
            self._windows.append(members)
        elif kind == "classifier.version":
            return JobFile(taught=record(Taught, members))
        elif kind == "map":
            return JobFile(places=[record(Placed, place) for place in members["data"]])
        elif kind in ("done", "error"):
            return self._ended(members.get("error"))
        else:
            self._found = members
        return None

    def _ended(self, error: Mapping[str, Any] | None) -> JobFile:
        index, file = self._about.get("index", 0), self._about.get("file")
        if error is not None:
            return JobFile(index, file, error=broken(error))
        if self._found["object"] == "added":
            return JobFile(index, file, item=record(ItemInfo, self._found["item"]))
        found = {**self._found, "windows": self._windows}
        return JobFile(index, file, answer=answers.answer(self._about, found, file))
