"""What commands say on a terminal, and how they fail."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

console = Console(stderr=True, soft_wrap=True)

Force = Annotated[bool, typer.Option("--force", help="Replace what is there already.")]
"""The option of commands that write files."""


@contextmanager
def clear_errors(*expected: type[Exception]) -> Iterator[None]:
    """What a person can put right is one line, not a traceback; then the command ends with 1.

    Args:
        expected: kinds of errors that are such; an `OSError`, as of a full disk, always is.
    """
    mendable: tuple[type[Exception], ...] = (OSError, *expected)
    try:
        yield
    except mendable as error:
        console.print(f"error: {error}", markup=False, style="red")
        raise typer.Exit(1) from error


def keep_existing(path: Path, *, force: bool) -> None:
    """Refuse to replace a file that is there, before there is anything to write.

    Raises:
        typer.BadParameter: it exists, and nothing was said of replacing it.
    """
    if path.is_file() and not force:
        raise typer.BadParameter(f"{path} is there already; --force replaces it")
