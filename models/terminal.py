"""What commands say on a terminal, and how they fail."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from models.sources import normal

console = Console(stderr=True, soft_wrap=True)

MAX_SEED = 2**32 - 1  # the largest that scikit-learn takes

Force = Annotated[bool, typer.Option("--force", help="Replace what is there already.")]
"""The option of commands that write files."""

Threads = Annotated[
    int | None,
    typer.Option(min=1, max=1024, help="Threads; what this process may use if not given."),
]
"""The option of commands that compute vectors."""

# Options of commands that read labelled clips
Root = Annotated[
    Path | None, typer.Option(help="Folder that file names start from, if not the table's.")
]
Separator = Annotated[
    str | None,
    typer.Option(help="Joins the labels of one clip, if it is none of , ; |; '' for none."),
]
AllowLeakage = Annotated[
    bool, typer.Option("--allow-leakage", help="Warn of clips on both sides, do not refuse.")
]
SkipBroken = Annotated[
    bool, typer.Option("--skip-broken", help="Leave out clips that cannot be decoded.")
]


def text(given: str) -> str:
    """The `parser` of an option whose text is compared with what is kept: in that one's form.

    Raises:
        typer.BadParameter: no text is equal to it.
    """
    try:
        given.encode()
    except UnicodeEncodeError:
        raise typer.BadParameter(f"{given!r} is not UTF-8") from None
    return normal(given)


def printable(text: str) -> str:
    """Text that moves no terminal's cursor, as the names of files can."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def counted(n: int, one: str, many: str | None = None) -> str:
    """A number of things in words: `1 file`, `2 files`; `many` where it is not `one` + s."""
    return f"{n} {one if n == 1 else many or one + 's'}"


@contextmanager
def clear_errors(*expected: type[Exception]) -> Iterator[None]:
    """Show errors that a person can mend as one line, without a traceback, and end with 1.

    Args:
        expected: the kinds of errors; an `OSError`, as of a full disk, is always one.
    """
    mendable: tuple[type[Exception], ...] = (OSError, *expected)
    try:
        yield
    except mendable as error:
        console.print(f"error: {error}", markup=False, style="red")
        raise typer.Exit(1) from error


@contextmanager
def busy(what: str, shown: Console = console) -> Iterator[None]:
    """Say what is being done that takes a while: beside a spinner, or as a line in a log."""
    if shown.is_terminal:
        with shown.status(what):
            yield
    else:
        shown.print(what, markup=False)
        yield


def keep_existing(path: Path, *, force: bool, source: Path | None = None) -> None:
    """Refuse to replace a file that is there, before there is anything to write.

    Args:
        path: the file that is to be written.
        force: replace one that is there, but never the `source`.
        source: what the new file is made of, and cannot be made of again.

    Raises:
        typer.BadParameter: it is a folder, or a file and nothing was said of replacing it; nothing
            can be written where it is to be.
    """
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder; name the file that is to be written")
    if source is not None and path.exists() and source.exists() and path.samefile(source):
        raise typer.BadParameter(f"{path} is what the new file is made of: name another one")
    if path.is_file() and not force:
        raise typer.BadParameter(f"{path} is there already; --force replaces it")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise typer.BadParameter(f"{path} cannot be written: {above} is no folder to write to")


def new_model_file(
    path: Path, *, force: bool, option: str = "-o", source: Path | None = None
) -> None:
    """Refuse a model file that could not be written, or that nothing would find again.

    Raises:
        typer.BadParameter: its name does not end in .onnx, or as `keep_existing`.
    """
    if path.suffix != ".onnx":
        raise typer.BadParameter(
            f"{option} {path}: expected a file NAME.onnx; NAME is what it is called"
        )
    keep_existing(path, force=force, source=source)
