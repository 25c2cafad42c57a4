"""Any number of files: what is done, what is left, and the journal that keeps it.

The journal holds a line of JSON for each file that was answered, written as soon as it is. A last
line that was cut off, because the machine went down while it was written, is taken away; a file
that is no journal is left as it is.
"""

import base64
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from viola.client.answers import Answer, Vector, Window, labels, vector
from viola.client.errors import ServiceError, Unreachable

Error = ServiceError | Unreachable | OSError


@dataclass(frozen=True)
class Item:
    """One file of a batch: its answer, or what was wrong with it.

    Attributes:
        is_kept: the answer comes from the journal, and nothing was sent.
    """

    path: Path
    answer: Answer | None = None
    error: Error | None = None
    is_kept: bool = False


@dataclass(frozen=True)
class Progress:
    """How far a batch is, in files."""

    done: int
    failed: int
    total: int


class Batch:
    """The files of one batch. `kept` are those of the journal, `left` those to be sent.

    Raises:
        ValueError: none may be in hand at a time, or the journal is another file.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        journal: str | Path | None,
        progress: Callable[[Progress], None] | None,
        parallel: int,
    ) -> None:
        if parallel < 1:
            raise ValueError(f"parallel = {parallel}; expected files in hand at a time, 1 or more")
        self.parallel = parallel
        self._progress, self._total = progress, len(paths)
        self._done = self._failed = 0
        self._lock = threading.Lock()
        self.is_over = threading.Event()  # what is refused for now is not tried again
        self._journal = Journal(Path(journal)) if journal is not None else None
        answered = self._journal.answers if self._journal else {}
        self._keys = {path: _key(path) for path in paths}  # from before it is sent: it may change
        keyed = [(path, self._keys[path]) for path in paths]
        self.left = [path for path, key in keyed if key not in answered]
        self.kept = [
            Item(path, answered[key], is_kept=True) for path, key in keyed if key in answered
        ]

    def ended(self, item: Item) -> Item:
        """Count a file that is done or has failed, and keep its answer in the journal."""
        with self._lock:
            self._done += 1
            self._failed += item.error is not None
            if self._journal and item.answer is not None and not item.is_kept:
                self._journal.add(self._keys[item.path], item.answer)
            if self._progress:
                self._progress(Progress(self._done, self._failed, self._total))
        return item

    def close(self) -> None:
        """Close the journal."""
        if self._journal:
            self._journal.close()


class Journal:
    """What was answered, in a file.

    Raises:
        ValueError: the file holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.answers: dict[str, Answer] = {}
        self._file: BinaryIO = path.open("a+b")
        try:
            self._read(path)
        except BaseException:
            self._file.close()
            raise

    def _read(self, path: Path) -> None:
        self._file.seek(0)
        whole = 0
        for number, line in enumerate(self._file, start=1):
            if _is_cut_off(line):
                break
            try:
                key, members = json.loads(line)
                self.answers[key] = _answer(members)
            except (ValueError, TypeError, KeyError, AttributeError):
                raise ValueError(
                    f"{path}, line {number}: not a line of a journal, and nothing of the file was "
                    "changed; name another file, or one that is not there yet"
                ) from None
            whole += len(line)
        self._file.truncate(whole)

    def add(self, key: str, answer: Answer) -> None:
        """Keep an answer."""
        line = json.dumps([key, asdict(answer)], default=_plain) + "\n"
        self._file.write(line.encode())
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _is_cut_off(line: bytes) -> bool:
    """Whether this is the beginning of a journal's line, without its end."""
    return not line.endswith(b"\n") and line[:2] == b'["'[: len(line)]


def _key(path: Path) -> str:
    """The name of a file in the journal, another one once it has changed: it is then sent again."""
    try:
        found = path.stat()
    except (OSError, ValueError):  # it is not there, or its name is none
        return str(path)
    return f"{path}|{found.st_size}|{found.st_mtime_ns}"


def _plain(value: Any) -> str:
    """A vector in base64, as the service writes it."""
    return base64.b64encode(value.astype("<f4").tobytes()).decode()


def _answer(members: dict[str, Any]) -> Answer:
    vectors: dict[str, Vector | None] = {"embedding": vector(members)}
    windows = tuple(
        Window(**(one | {"embedding": vector(one), "labels": labels(one["labels"])}))
        for one in members["windows"]
    )
    lists = {
        "labels": labels(members["labels"]),
        "windows": windows,
        "warnings": tuple(members["warnings"]),
    }
    return Answer(**(members | vectors | lists))
