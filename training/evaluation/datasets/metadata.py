"""Reading a collection's own metadata, and saying what a local copy lacks."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.labelled import labels
from models.labelled.labels import LabelError, Row
from models.labelled.tasks import TaskError


def table(root: Path, name: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """The lines of a CSV of the collection, which has these columns and maybe more.

    Raises:
        TaskError: there is no such file, or it lacks a column.
    """
    reader = csv.DictReader(lines(root, name))
    missing = [column for column in columns if column not in (reader.fieldnames or [])]
    if missing:
        raise TaskError(f"{root / name} has no column {', '.join(missing)}; is it the original?")
    return list(reader)


def lines(root: Path, name: str) -> list[str]:
    """The lines of a text file of the collection.

    Raises:
        TaskError: there is no such file.
    """
    path = root / name
    if not path.is_file():
        raise TaskError(f"{root} lacks {name}: give the folder as the collection unpacks")
    return path.read_text("utf-8-sig").splitlines()


def document(root: Path, name: str) -> Any:
    """A JSON file of the collection.

    Raises:
        TaskError: there is no such file, or it is not JSON.
    """
    try:
        return json.loads("\n".join(lines(root, name)))
    except json.JSONDecodeError as error:
        raise TaskError(f"{root / name} is not JSON: {error}") from error


def evar_table(root: Path, name: str) -> list[Row]:
    """A table of the EVAR package, laid into the folder: for splits that no file of the set has.

    Raises:
        TaskError: it is not there.
    """
    if not (root / name).is_file():
        raise TaskError(
            f"{root} lacks {name}: this collection comes without a split. Copy the table of that "
            "name from the EVAR package (evar/metadata, or as its make_metadata writes it) into "
            "the folder"
        )
    try:
        return labels.of_table(root / name)
    except LabelError as error:
        raise TaskError(str(error)) from error
