"""Tables and folders -> rows of clips and labels -> classes and who has which.

Letters: `N` clips, `K` classes.
"""

import csv
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models import spreadsheet
from models.sources import SourceError, items, normal
from models.spreadsheet import SpreadsheetError

SEPARATORS = re.compile(r"[,;|](?!\s)")
"""What joins several labels; with a space behind it, it is part of a name: "Violin, fiddle"."""

TIMES = {"start_s", "end_s", "start", "end", "onset", "offset"}
"""Columns of tables that label stretches of recordings."""

N_NAMED = 3  # examples in a message
log = logging.getLogger(__name__)


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

    Semicolons or tabs may stand in place of the commas.

    Raises:
        LabelError: not such a CSV.
    """
    try:
        text = spreadsheet.text_of(path)
    except SpreadsheetError as error:
        raise LabelError(f"not a CSV table: {error}") from None
    columns, lines = _cells(path, text)
    fields = [field for field in Row._fields if field in columns]
    twice = [field for field in fields if columns.count(field) > 1]
    if twice:
        raise LabelError(f"{path} has more than one column {some(twice)}; rename all but one")
    times = [column for column in columns if column in TIMES]
    if times:
        log.warning(
            "%s: %s not read, each file is taken whole; viola teach learns from stretches",
            path,
            f"the columns {', '.join(times)} are" if len(times) > 1 else f"{times[0]} is",
        )
    rows = [Row(**{field: line[field].strip() for field in fields}) for line in lines]
    rows = [row._replace(label=normal(row.label)) for row in rows]
    return [row for row in rows if any(row)]  # spreadsheets leave rows of commas


def _cells(path: Path, text: str) -> tuple[list[str], list[dict[str, str]]]:
    """The columns of a CSV, and its lines by column; a cell that is missing is empty.

    Raises:
        LabelError: columns that are missing, a quote without its end, cells beyond the last column.
    """
    reader = spreadsheet.rows(text, strict=True)
    lines: list[dict[str, str]] = []
    begins = 1  # line of the file
    try:
        columns = [column or "" for column in reader.fieldnames or []]
        if not {"file_name", "label"} <= set(columns):
            raise LabelError(
                f"{path} has the columns {some(columns) or 'none'}; file_name and label are "
                "needed, split or fold, and group, may be there, with commas between "
                "(or semicolons, or tabs)"
            )
        begins = reader.line_num + 1
        for line in reader:
            beyond = [cell for cell in line.pop(None, []) if cell.strip()]
            if beyond:
                raise LabelError(
                    f"{path}, line {begins}: {len(columns) + len(beyond)} cells for "
                    f"{len(columns)} columns, {some(beyond)} beyond the last; put a cell that "
                    'holds commas between quotes, "like, this"'
                )
            lines.append(line)
            begins = reader.line_num + 1
    except csv.Error as error:
        raise LabelError(
            f"{path}, the row from line {begins} on is not CSV: {error}; a cell that begins with "
            "a quote ends with one, and a quote inside it is doubled"
        ) from error
    return columns, lines


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
    labels = {name.split("/")[0] for name in names}
    bare = {each.name for each in folder.iterdir() if each.is_dir()} - labels
    if shown := sorted(name for name in bare if not name.startswith(".")):
        log.warning("%s: folders without audio are no classes: %s", folder, some(shown))
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


def spelt_alike(names: Iterable[str]) -> list[str]:
    """Names that differ in capitals, spaces or dashes alone, in words: "'Dog' and 'dog'"."""
    spellings: dict[str, list[str]] = defaultdict(list)
    for name in names:
        spellings["".join(c for c in name.casefold() if c not in " _-")].append(name)
    return [" and ".join(map(repr, alike)) for alike in spellings.values() if len(alike) > 1]


def some(names: Sequence[str]) -> str:
    """A few of many, in words."""
    more = f" and {len(names) - N_NAMED} more" if len(names) > N_NAMED else ""
    return ", ".join(names[:N_NAMED]) + more
