"""`viola corpus`: free sound that anyone can fetch, as sources for `viola prepare`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

from models.progress import TITLE, Bar
from models.terminal import console, counted
from training.terminal import clear_errors

if TYPE_CHECKING:
    from training.corpora.debian import Taken


def corpus(
    folder: Annotated[
        Path, typer.Argument(metavar="DEST", help="Folder to make, or to go on with.")
    ],
    packages: Annotated[
        list[str] | None,
        typer.Option(
            "--package", help="Of Debian's archive; may be repeated. All listed ones if not given."
        ),
    ] = None,
    debs: Annotated[
        Path | None,
        typer.Option(
            help="A folder of .deb files that are taken and kept, instead of fetching by apt.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
) -> None:
    """Fetch free sound to train on, with its licences, out of Debian's packages.

    Writes DEST/sound/PACKAGE/..., manifest.csv with kind and licence of each file, licences/ with
    the copyright files, and left_out.csv. Run it again to go on after an interruption. Next:
    viola prepare DEST/sound/* STORE
    """
    from training.corpora.debian import check_names, collect
    from training.corpora.packages import listed

    names = packages or list(listed())
    done: list[Taken] = []
    with clear_errors(), _bar() as bar:
        check_names(names)
        task = bar.add_task("packages", total=len(names), hours=0.0)

        def follow(taken: "Taken") -> None:
            done.append(taken)
            hours = sum(one.hours for one in done)
            bar.update(task, advance=1, hours=hours)
            bar.console.print(_line(taken), markup=False, highlight=False)

        collect(folder, names, downloaded=debs, follow=follow)
    failed = [taken for taken in done if taken.error]
    console.print(
        f"{folder}: {counted(sum(len(taken.clips) for taken in done), 'file')}, "
        f"{sum(taken.hours for taken in done):.2f} h of {len(done) - len(failed)} packages added; "
        f"{len(names) - len(done)} were there already, {len(failed)} failed",
        markup=False,
    )
    if failed:
        raise typer.Exit(1)


def _line(taken: "Taken") -> str:
    """What became of a package."""
    if taken.error:
        return f"{taken.package}: {taken.error}"
    left = f", {len(taken.left_out)} left out" if taken.left_out else ""
    return f"{taken.package}: {counted(len(taken.clips), 'file')}, {taken.hours:.2f} h{left}"


def _bar() -> Bar:
    return Bar(
        TITLE,
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[hours]:.2f} h"),
        TimeElapsedColumn(),
        console=console,
    )
