"""Opened model files in copies and in other processes: the file is opened there again."""

from collections.abc import Callable
from typing import Any, Self, TypeVar

from pydantic import BaseModel

from models.modelfile import ModelFileError


class Reopened:
    """What a model file is opened as; a copy or a pickle of it opens the same file again.

    With the same options, and only if the file has not changed: two processes never have different
    models for one. The file has to be where it was.
    """

    card: BaseModel
    _open_again: Callable[[], Self] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """How pickle and copy make another.

        Raises:
            TypeError: it was not opened from a file.
        """
        if self._open_again is None:
            kind = type(self).__name__
            raise TypeError(
                f"a {kind} that was not opened from a file cannot be copied or pickled; save the "
                f"model as a file and use {kind}.open"
            )
        return _opened_again, (self._open_again, self.card)


R = TypeVar("R", bound=Reopened)


def _opened_again(open_again: Callable[[], R], card: BaseModel) -> R:
    found = open_again()
    if found.card != card:
        raise ModelFileError(
            f"the file of the model {getattr(card, 'name', '')} has changed since it was opened: "
            "open it anew"
        )
    return found
