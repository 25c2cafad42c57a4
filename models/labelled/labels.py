"""Tables and folders -> rows of clips and labels -> classes and who has which.

Letters: `N` clips, `K` classes.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.sources import SourceError, items, normal

SEPARATORS = re.compile(r"[,;|](?!\s)")
"""What joins several labels; with a space behind it, it is part of a name: "Violin, fiddle"."""

N_NAMED = 3  # examples in a message


class LabelError(ValueError):
    """A table or folder that labels nothing."""


class Row(NamedTuple):
    """One clip as a table has it; what it does not say is empty."""

    file_name: str
    label: str
    split: str = ""
    fold: str = ""
    group: str = ""


def of_table(path: Path) -> list[Row]:
    """The rows of a CSV `file_name,label[,split|fold][,group]`; other columns do not matter.

    Raises:
        LabelError: not such a CSV.
    """
    try:
        reader = csv.DictReader(io.StringIO(path.read_text("utf-8-sig"), newline=""))
        columns = [column or "" for column in reader.fieldnames or []]
        table = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise LabelError(f"{path} is not a CSV table in UTF-8: {error}") from error
    if not {"file_name", "label"} <= set(columns):
        raise LabelError(
            f"{path} has the columns {some(columns) or 'none'}; file_name and label are needed, "
            "split or fold, and group, may be there, with commas between"
        )
    fields = [field for field in Row._fields if field in columns]
    rows = [Row(**{field: (line[field] or "").strip() for field in fields}) for line in table]
    rows = [row._replace(label=normal(row.label)) for row in rows]
    return [row for row in rows if any(row)]  # spreadsheets leave rows of commas


def of_folder(folder: Path) -> list[Row]:
    """The audio files below `folder`; the first folder of each name is its label.

    Raises:
        LabelError: no audio, or audio outside of a class folder.
    """
    try:
        names = [item.name for item in items(folder)]
    except SourceError as error:
        raise LabelError(str(error)) from error
    loose = [name for name in names if "/" not in name]
    if loose:
        raise LabelError(
            f"{folder} holds {len(loose)} files outside of a class folder: {some(loose)}; give a "
            "folder of class folders, or a CSV of file_name,label"
        )
    return [Row(name, normal(name.split("/")[0])) for name in names]


def are_joined(rows: Iterable[Row], separator: str | None) -> bool:
    """Whether a clip may have several labels: where a separator is given, or one is found."""
    if separator is None:
        return any(SEPARATORS.search(row.label) for row in rows)
    return separator != ""


def one_hot(
    rows: Sequence[Row], separator: str | None
) -> tuple[tuple[str, ...], NDArray[np.bool_]]:
    """The classes, sorted, and which of them each clip has: (N, K).

    Args:
        rows: the clips.
        separator: between the labels of one clip; "": each is one label; None: see `SEPARATORS`.

    Raises:
        LabelError: fewer than two classes, or a clip without a label where each has one.
    """
    if are_joined(rows, separator):
        split = SEPARATORS.split if separator is None else lambda label: label.split(separator)
        lists = [[part.strip() for part in split(row.label) if part.strip()] for row in rows]
    else:
        bare = [row.file_name for row in rows if not row.label]
        if bare:
            raise LabelError(f"{len(bare)} clips have no label: {some(bare)}")
        lists = [[row.label] for row in rows]
    classes = tuple(sorted({label for labels in lists for label in labels}))
    if len(classes) < 2:
        only = f", and {classes[0]!r} is the only one" if classes else ""
        raise LabelError(
            f"{len(rows)} clips of {len(classes)} classes; at least 2 classes are needed{only}"
        )
    column = {label: index for index, label in enumerate(classes)}
    table = np.zeros((len(rows), len(classes)), np.bool_)
    for has, labels in zip(table, lists, strict=True):
        has[[column[label] for label in labels]] = True
    return classes, table


def some(names: Sequence[str]) -> str:
    """A few of many, in words."""
    more = f" and {len(names) - N_NAMED} more" if len(names) > N_NAMED else ""
    return ", ".join(names[:N_NAMED]) + more
