"""What was found, line by line."""

from dataclasses import dataclass

MARKS = {True: "ok    ", False: "FAILED", None: "      "}


@dataclass
class Table:
    """Lines on the screen, and whether what they claim holds."""

    holds: bool = True

    def proof(self, what: str, found: object, holds: bool) -> None:
        """Something that must hold."""
        self.holds &= holds
        self._say(what, found, holds)

    def figure(self, what: str, found: object) -> None:
        """Something that was measured."""
        self._say(what, found, None)

    @staticmethod
    def _say(what: str, found: object, holds: bool | None) -> None:
        print(f"{MARKS[holds]}  {what:<34}{found}", flush=True)
