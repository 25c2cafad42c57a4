"""The command that teaches a classifier from a folder of collections: viola teach."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from models import shipped
from models.terminal import (
    Force,
    clear_errors,
    console,
    counted,
    keep_existing,
    new_model_file,
    printable,
    text,
)
from service.commands.collections_cli import (
    Data,
    Name,
    Owner,
    check_name,
    holds_collections,
    opened_store,
    whose,
)

if TYPE_CHECKING:
    from service.collections.fitting import Fit
    from service.collections.records import Collection
    from service.collections.store import Store
    from service.collections.teaching import Taught

BY = "viola teach"
_REMEDY = "; write the name that viola search shows, the id, or where the file is"
N_SHOWN = 20  # labels with their windows, in a line


def teach(
    name: Annotated[
        str | None, typer.Argument(help="What requests will call the classifier.")
    ] = None,
    data: Data = "data",
    collection: Name = "sounds",
    labels: Annotated[
        list[Path] | None,
        typer.Option(
            "--labels", help="First add labels from a .csv, .txt or .selections.txt; repeatable."
        ),
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="Write the collection's labels to a file instead.")
    ] = None,
    recording: Annotated[
        str | None,
        typer.Option(
            help="The recording of a label track or table; else that of its name.", parser=text
        ),
    ] = None,
    by: Annotated[
        str, typer.Option(help="The author of labels from files that name none.", parser=text)
    ] = BY,
    only: Annotated[
        list[str] | None,
        typer.Option("--label", help="Use only this label; repeatable. Else all.", parser=text),
    ] = None,
    task: Annotated[
        Literal["multi-class", "multi-label"],
        typer.Option(help="One label for each window, or any number of them."),
    ] = "multi-class",
    unlabelled: Annotated[
        Literal["leave", "negative"],
        typer.Option(help="Ignore labels that nobody gave, or count them as absent."),
    ] = "leave",
    onnx: Annotated[
        Path | None, typer.Option(help="Write the classifier file too, as NAME.onnx.")
    ] = None,
    owner: Owner = "",
    licence: Annotated[
        str, typer.Option(help="The classifier's licence, for its card.")
    ] = "unknown",
    description: Annotated[str, typer.Option(help="A sentence for the card.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="The seed of splits and samples.")] = 0,
    timeout_s: Annotated[float, typer.Option(min=1, help="Seconds that learning may take.")] = 600,
    force: Force = False,
) -> None:
    """Make a classifier of the labels of a collection, as POST /v1/classifiers does.

    It is kept in the folder as the next version of NAME, and a service on that folder answers with
    it at once. Recordings are named in files of labels by their id, their file's name, or its path.
    """
    from service.commands.tables import TableError
    from service.exceptions import ServiceError
    from service.naming import MAX_NAME

    if not by.strip() or len(by) > MAX_NAME or not by.isprintable():
        raise typer.BadParameter(f"--by {by!r}: expected a name of at most {MAX_NAME} letters")
    if export is not None:
        keep_existing(export, force=force)
    if onnx is not None:
        new_model_file(onnx, force=force, option="--onnx")
    if not holds_collections(data):
        raise typer.BadParameter(f"--data {data} holds no collections; viola index makes it")
    with clear_errors(ServiceError, TableError):
        with closing(opened_store(data)) as store:
            found = store.collections.get(whose(owner, collection), collection)
            for path in labels or []:
                _import(store, found, path, recording, by)
            if export is not None:
                _export(store, found, export, recording)
                return
            if name is None:
                if labels:
                    return  # only added
                raise typer.BadParameter("NAME is missing: what the classifier will be called")
            _check_name(name)
            taught, fit = _learn(
                store,
                found,
                name,
                labels=only,
                task=task,
                unlabelled=unlabelled,
                licence=licence,
                description=description,
                seed=seed,
                timeout_s=timeout_s,
            )
            number = _keep(store, found, whose(owner, name), name, task, taught, fit)
        if onnx is not None:
            _write(onnx, fit.file)
    _tell(name, number, taught, fit, onnx)


def _check_name(name: str) -> None:
    """Refuse a name that requests could not use, or would get another classifier for."""
    check_name("NAME", name)
    if name in shipped.names():
        raise typer.BadParameter(f"{name!r} is a classifier that ships; choose another name")


def _import(
    store: "Store", collection: "Collection", path: Path, recording: str | None, by: str
) -> None:
    """Add the labels of a file.

    Raises:
        TableError: it cannot be read, or none of its recordings is in the collection.
    """
    from service.commands.item_names import ids_by_content, ids_by_name
    from service.commands.label_files import by_file, read, unsaid
    from service.commands.tables import TableError

    labels, items = read(path, recording), list(store.items.every(collection))
    ids = ids_by_name(items)
    known, unknown = by_file(labels, ids)
    if unknown and (more := ids_by_content(unknown, path.parent, items)):
        known, unknown = by_file(labels, ids | more)
    names = f"{', '.join(unknown[:3])} ({len(unknown)})"
    if not known:
        raise TableError(
            f"{path}: the collection {collection.name!r} has none of its recordings under their "
            f"names, or several under one: {names}{_REMEDY}"
        )
    new = unsaid(known, store.labels.page(collection), by.strip())
    store.labels.add(collection, new, by.strip())
    there = f", {len(known) - len(new)} there already" if len(new) < len(known) else ""
    _say(f"{path}: {counted(len(new), 'label')} added{there}")
    if unknown:
        _say(
            f"warning: {path}: not in the collection, or not under this name, or not alone with "
            f"it: {names}{_REMEDY}"
        )


def _export(store: "Store", collection: "Collection", path: Path, recording: str | None) -> None:
    """Write the labels of the collection, or of one recording.

    Raises:
        TableError: the format cannot hold them, or there is no such recording.
    """
    from dataclasses import replace

    from models.sources import normal
    from service.commands.item_names import names_of
    from service.commands.label_files import write
    from service.commands.tables import TableError

    items = {item.key: item for item in store.items.every(collection)}
    names = names_of(items.values())
    chosen = {
        key
        for key, item in items.items()
        if recording in (None, item.id, normal(names[key]), normal(Path(names[key]).name))
    }
    if recording is not None and not chosen:
        raise TableError(
            f"--recording {recording!r}: the collection {collection.name!r} has none of that id or "
            "file's name, or several of the name, of which the id tells one"
        )
    labels = [
        replace(label, item_id=names[label.item])
        for label in store.labels.page(collection)
        if label.item in chosen
    ]
    durations = {names[key]: item.duration_s for key, item in items.items()}
    n_written = write(path, labels, durations)
    _say(f"{path}: {counted(n_written, 'label')} written")
    if n_left := len(labels) - n_written:
        _say(
            f"warning: {path}: {n_left} labels are negative or unsure and are left out, since only "
            "a CSV holds them"
        )


def _learn(
    store: "Store",
    collection: "Collection",
    name: str,
    *,
    labels: list[str] | None,
    task: Literal["multi-class", "multi-label"],
    unlabelled: Literal["leave", "negative"],
    licence: str,
    description: str,
    seed: int,
    timeout_s: float,
) -> tuple["Taught", "Fit"]:
    from models.classifiers.table import Order
    from service.collections.fitting import FitLimits, fit
    from service.collections.gathering import learn_from
    from service.collections.teaching import Lesson

    lesson = Lesson(task, tuple(labels) if labels else None, unlabelled, seed)
    taught = learn_from(store, collection, lesson)
    order = Order(
        name=name,
        task=collection.name,
        encoder=collection.terms.model,
        space_id=collection.terms.space_id,
        protocol=taught.protocol,
        licence=licence,
        description=description,
        seed=seed,
    )
    return taught, fit(taught.table, order, FitLimits(timeout_s))


def _keep(
    store: "Store",
    collection: "Collection",
    owner: str,
    name: str,
    task: str,
    taught: "Taught",
    fit: "Fit",
) -> int:
    from service.collections.classifiers import NewVersion, about

    told = about(fit, {"task": task}, taught.warnings)
    new = NewVersion(collection.name, told, fit.file)
    return store.classifiers.add(owner, name, new, BY)


def _write(path: Path, content: bytes) -> None:
    from models.atomic import replacing

    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _tell(name: str, number: int, taught: "Taught", fit: "Fit", onnx: Path | None) -> None:
    for warning in taught.warnings:
        _say(f"warning: {warning}")
    for sentence in fit.sentences:
        _say(sentence)
    counts = [f"{label} {n}" for label, n in taught.table.counts.items()]
    if len(counts) > N_SHOWN:
        counts[N_SHOWN:] = [f"and {len(counts) - N_SHOWN} labels more"]
    _say(
        f"{name}, version {number}, taught by {counted(len(taught.rows), 'window')} "
        f"({', '.join(counts)})"
    )
    _say(
        f"next: curl -F file=@new.wav 'http://127.0.0.1:8000/v1/audio/classifications?head={name}'"
    )
    if onnx is not None:
        _say(f"{onnx}: viola classify new.wav --head {onnx}")


def _say(text: str) -> None:
    console.print(printable(text), markup=False, highlight=False)
