"""`viola prepare`: folders and tars of audio -> a store."""

from pathlib import Path
from typing import Annotated

import typer

from models.terminal import console, counted
from training.terminal import clear_errors

N_SHOWN = 10  # warnings about files on the screen


def prepare(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE... STORE", help="Folders or tars of audio; the store last."),
    ],
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that decode or check; all CPUs if not given."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Check STORE, given alone, for damage; change nothing.")
    ] = False,
    part: Annotated[
        str | None,
        typer.Option(
            metavar="K/N",
            help="Prepare the K-th of N parts of the files, beside other processes or machines.",
        ),
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Make one store of STORE, given alone, and its parts.")
    ] = False,
) -> None:
    """Turn folders and tars of audio into a store of 16 kHz PCM.

    Run it again to add sources or to go on after an interruption. Files that cannot be decoded are
    skipped, and listed in errors.jsonl in the store; of files with the same content the first is
    stored, the others are listed in duplicates.jsonl. What was noticed about files that were stored
    is listed in warnings.jsonl, samples that 16 bits cannot hold among it.

    Many processes or machines prepare one store side by side: each runs the same command with
    another --part, from 1/N to N/N, and --merge makes one store of them when all are done. It is
    the store that one run would have written.
    """
    from training.data.parts import Part
    from training.data.prepare import prepare as prepare_store

    *origins, store = sources
    if check or merge:
        name = "--check" if check else "--merge"
        if origins or part or (check and merge):
            raise typer.BadParameter(f"{name} takes a STORE alone, and no other option")
        (_check if check else _merge)(store, workers)
        return
    if not origins:
        raise typer.BadParameter("expected at least one SOURCE before STORE")
    with clear_errors():
        chosen = None if part is None else Part.parse(part)
        report = prepare_store(origins, store, workers=workers, part=chosen)
        where = store if chosen is None else chosen.folder(store)
    for error in report.errors:
        console.print(f"skipped {error.source}/{error.name}: {error.message}", markup=False)
    for notice in report.warnings[:N_SHOWN]:
        console.print(f"warning: {notice.source}/{notice.name}: {notice.message}", markup=False)
    if len(report.warnings) > N_SHOWN:
        more = len(report.warnings) - N_SHOWN
        console.print(
            f"{counted(more, 'more warning')} in {where / 'warnings.jsonl'}", markup=False
        )
    console.print(
        f"{where}: added {counted(report.clips, 'clip')}, {report.hours:.2f} h in "
        f"{counted(report.shards, 'shard')}; "
        f"{report.skipped} were there already, {report.duplicates} equal others, "
        f"{counted(len(report.errors), 'file')} failed"
    )
    if report.errors and not (report.clips or report.skipped or report.duplicates):
        raise typer.Exit(1)


def _merge(store: Path, workers: int | None) -> None:
    """`viola prepare --merge`: one store of the parts in it."""
    from training.data.merge import merge

    with clear_errors():
        report = merge(store, workers=workers)
    console.print(
        f"{store}: merged {counted(report.parts, 'part')}, {counted(report.clips, 'clip')}, "
        f"{report.hours:.2f} h; "
        f"{report.duplicates} equal others, {counted(report.errors, 'file')} failed",
        markup=False,
    )


def _check(store: Path, workers: int | None) -> None:
    """`viola prepare --check`: what is damaged, or what the store holds."""
    from training.data.corpus import REMEDY
    from training.data.verify import verify

    with clear_errors():
        report = verify(store, workers=workers)
    for damage in report.damages:
        console.print(f"damaged: {damage}", markup=False, style="red")
    if report.damages:
        console.print(f"{store}: {counted(len(report.damages), 'damage')}; {REMEDY}", markup=False)
        raise typer.Exit(1)
    hours = ", ".join(f"{source} {hours:.2f} h" for source, hours in report.hours.items())
    total = sum(report.hours.values())
    console.print(
        f"{store}: {counted(report.clips, 'clip')}, {total:.2f} h, no damage: {hours}", markup=False
    )
