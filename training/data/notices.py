"""What there is to say of the files of a store: those left out and why, what was noticed of others.

Two lists in the store, a JSON object a line: `errors.jsonl` and `warnings.jsonl`.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from models.atomic import replacing
from training.data.corpus import CorpusError

ERRORS_NAME = "errors.jsonl"
WARNINGS_NAME = "warnings.jsonl"


@dataclass(frozen=True)
class FileError:
    """A file that was left out and why, or was stored and what was noticed ("warning")."""

    source: str
    name: str
    reason: str
    message: str


class Notices:
    """A list in a store of what there is to say of files, from this run and those before.

    Attributes:
        new: what this run has added.
        known: source and name of the files that earlier runs said something about.
    """

    def __init__(self, path: Path) -> None:
        self.new: list[FileError] = []
        self._path = path
        self._old: dict[tuple[str, str], list[FileError]] = {}
        for entry in read_notices(path):
            self._old.setdefault((entry.source, entry.name), []).append(entry)
        self.known = frozenset(self._old)

    def update(self, source: str, name: str, found: Iterable[tuple[str, str]]) -> None:
        """Take reasons and messages about a file; what earlier runs found no longer counts."""
        self._old.pop((source, name), None)
        self.new += [FileError(source, name, *reason) for reason in found]

    def write(self) -> None:
        """Replace the list in the store."""
        entries = [*chain.from_iterable(self._old.values()), *self.new]
        lines = [json.dumps(asdict(entry)) + "\n" for entry in entries]
        with replacing(self._path) as temporary:
            temporary.write_text("".join(lines))


def read_notices(path: Path) -> list[FileError]:
    """The list at `path`, which is empty where there is none.

    Raises:
        CorpusError: it holds something else.
    """
    lines = path.read_text("utf-8", "replace").splitlines() if path.exists() else []
    try:
        return [FileError(**json.loads(line)) for line in lines]
    except (ValueError, TypeError) as error:
        message = f"{path} cannot be read; remove it and run `viola prepare` again"
        raise CorpusError(message) from error
