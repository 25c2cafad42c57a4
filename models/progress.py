"""How far long work is: a bar on a terminal, a line every ten seconds in a log."""

from collections.abc import Iterable
from operator import length_hint
from time import monotonic
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

T = TypeVar("T")
LINE_S = 10.0
TITLE = TextColumn("{task.description}")


class Bar(Progress):
    """A progress bar that becomes lines of its texts where there is no terminal.

    Args:
        columns: what is shown, as for rich's `Progress`.
        console: where to.
        transient: take the bar away at the end.
        silent: show nothing at all.
    """

    def __init__(
        self,
        *columns: ProgressColumn,
        console: Console,
        transient: bool = False,
        silent: bool = False,
    ) -> None:
        disable = silent or not console.is_terminal
        super().__init__(*columns, console=console, transient=transient, disable=disable)
        self._in_lines = not silent and not console.is_terminal
        self._next_line = monotonic() + LINE_S

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """As rich's, and a line if the last is ten seconds ago."""
        super().update(task_id, **changes)
        self._line(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """As rich's, and a line if the last is ten seconds ago."""
        super().advance(task_id, advance)
        self._line(task_id)

    def _line(self, task_id: TaskID) -> None:
        if not self._in_lines or monotonic() < self._next_line:
            return
        self._next_line = monotonic() + LINE_S
        task = self.tasks[self.task_ids.index(task_id)]
        texts = [one(task) for one in self.columns if isinstance(one, ProgressColumn)]
        words = [text.plain.strip() for text in texts if isinstance(text, Text)]
        self.console.print("  ".join(word for word in words if word), markup=False, highlight=False)


def tracked(
    items: Iterable[T], title: str, console: Console, total: float | None = None
) -> Iterable[T]:
    """The items one by one, with a bar that is gone at the end; `total` if they have no length."""
    columns = TITLE, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=length_hint(items) or None if total is None else total)
        for item in items:
            yield item
            bar.advance(task)
