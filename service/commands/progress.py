"""What commands over many files show while they run."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from models.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console

    from service.commands.bulk import Failure, Tally


def show_warning(console: "Console", file: str, sentence: str) -> None:
    """What was noticed about a file that is used all the same."""
    console.print(printable(f"warning: {file}: {sentence}"), markup=False, style="yellow")


def show_failure(console: "Console", failure: "Failure") -> None:
    """A file that cannot be used, and why."""
    said = printable(f"failed: {failure.file}: {failure.reason}")
    console.print(said, markup=False, style="red")


@contextmanager
def progress(console: "Console", n_files: int) -> Iterator["Tally"]:
    """A bar over the files, with the audio so far and how much faster than real time that is."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

    from models.progress import TITLE, Bar
    from service.commands.bulk import Tally

    status = TextColumn("{task.fields[status]}")
    with Bar(TITLE, BarColumn(), MofNCompleteColumn(), status, console=console) as shown:
        task = shown.add_task("embedding", total=n_files, status="")

        def show(tally: Tally) -> None:
            elapsed = shown.tasks[0].elapsed
            speed = f"{tally.audio_s / elapsed:.0f} x real time" if elapsed else ""
            status = f"{tally.audio_s / 3600:.2f} h  {speed}"
            shown.update(task, completed=tally.files, status=status)

        yield Tally(show)
