"""The answer to a long recording, line by line: windows, then the whole, then what it came to."""

from typing import Any

from viola.client import answers
from viola.client.answers import Answer, Window
from viola.client.errors import Unreachable, broken, line_of


class Lines:
    """Reads the lines of one answer; `whole` is there once all have been read."""

    def __init__(self, file: str | None) -> None:
        self.file = file
        self.whole: Answer | None = None
        self.is_done = False
        self._about: dict[str, Any] = {}

    def read(self, line: str) -> Window | None:
        """Take in one line; returns its window, None if it holds none.

        Raises:
            ServiceError: the line says that the recording cannot be read on.
        """
        members = line_of(line)
        match members["object"]:
            case "stream":
                self._about = members
            case "window":
                return answers.window(members, self._head)
            case "embedding" | "classification":
                self.whole = answers.answer(self._about | {"head": self._head}, members, self.file)
            case "done":
                self.is_done = True
            case "error":
                raise broken(members["error"])
        return None

    def check(self) -> None:
        """Check that the answer was complete, when no more lines come.

        Raises:
            Unreachable: the last line is missing.
        """
        if not self.is_done:
            raise Unreachable("the answer broke off before its last line: send the recording again")

    @property
    def _head(self) -> str:
        return str(self._about.get("head", ""))
