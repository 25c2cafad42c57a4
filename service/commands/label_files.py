"""Labels of recordings as files that people and editors of sound write: read and written here.

A CSV of `file,start_s,end_s,label,verdict,by`, a label track of Audacity or a selection table of
Raven; of BirdNET, its CSV and its tables. A CSV without times labels whole recordings; what the
other formats hold is positive. A point of a label track speaks of the windows around it.
"""

import csv
import io
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from models import spreadsheet
from models.atomic import replacing
from models.sources import normal
from models.spreadsheet import SpreadsheetError
from service.collections.records import Label, NewLabel, Verdict
from service.commands.events import AUDACITY, RAVEN, Event, check_name, event_writer
from service.commands.tables import TableError
from service.naming import MAX_LABEL, MAX_NAME, checked_label
from service.untrusted import cell, text_of

COLUMNS = ("file", "start_s", "end_s", "label", "verdict", "by", "created_at")
FILE_COLUMNS = ("file", "item", "recording", "file_name", "File")
START_COLUMNS, END_COLUMNS = ("start_s", "Start (s)"), ("end_s", "End (s)")
LABEL_COLUMNS = ("label", "Common name")
RAVEN_LABELS = ("Label", "Annotation", "Species", "Common Name", "Tags", "Code")
RAVEN_FILES = ("Begin File", "Begin Path", "File")
BIRDNET = (".BirdNET.results.csv", ".BirdNET.selection.table.txt")
POINT_S = 0.01  # that a point of a label track is taken for: less than any window
# As Audacity and Raven write where a comma is usual; not thousands, which look the same
_WITH_COMMA = re.compile(r"\d+,\d+|,\d+")
_THOUSANDS = re.compile(r"[1-9]\d{0,2}(,\d{3})+")
_REMEDY = ": write the label where it is missing, or take the line out"
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
_Stretch = tuple[str, float, float, str]
_Said = tuple[str, Verdict]


def read(path: Path, recording: str | None = None) -> list[NewLabel]:
    """The labels of a file; `item_id` is what the file calls the recording.

    Args:
        path: NAME.csv, NAME.txt (Audacity) or NAME.selections.txt (Raven).
        recording: what labels belong to that name no file; else the file's own name.

    Raises:
        TableError: it cannot be read so, with the line that is wrong.
    """
    try:
        found = _read(path, recording)
    except csv.Error as error:
        raise TableError(f"{path} is no table: {error}") from None
    if not found:
        raise TableError(f"{path} holds no labels")
    return found


def _read(path: Path, recording: str | None) -> list[NewLabel]:
    text = _text(path)
    alone = recording or _recording_of(path)
    if path.suffix == ".csv":
        return list(_of_csv(path, text, alone))
    if path.name.endswith(RAVEN) or "Begin Time (s)" in text.partition("\n")[0]:
        return list(_of_raven(path, text, alone))
    if path.suffix == AUDACITY:
        return list(_of_audacity(path, text, alone))
    raise TableError(
        f"{path}: labels are read from NAME.csv, NAME.txt (Audacity) or NAME.selections.txt (Raven)"
    )


def _recording_of(path: Path) -> str:
    """The recording that a file of labels is called after."""
    for suffix in (*BIRDNET, RAVEN, AUDACITY):
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return path.name


def write(path: Path, labels: Sequence[Label], durations: Mapping[str, float]) -> int:
    """Write labels; how many. Audacity and Raven get the positive ones, a CSV all of them.

    Args:
        path: as `read` takes it.
        labels: to write; `item_id` is what the file calls the recording.
        durations: seconds of each recording, for what is labelled as a whole.

    Raises:
        TableError: the format cannot hold them.
    """
    check_name(path, len({label.item_id for label in labels}))
    is_csv = path.suffix == ".csv"
    kept = [label for label in labels if is_csv or label.verdict == "positive"]
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as out:
        if is_csv:
            table = csv.writer(out)
            table.writerow(COLUMNS)
            table.writerows(_csv_row(label) for label in kept)
        else:
            add = event_writer(path, out)
            for label in kept:
                add(_event(label, durations))
    return len(kept)


def _csv_row(label: Label) -> list[object]:
    times = ["" if time is None else round(time, 6) for time in (label.start_s, label.end_s)]
    said = cell(label.label), label.verdict, cell(label.by), label.created_at
    return [cell(label.item_id), *times, *said]


def _event(label: Label, durations: Mapping[str, float]) -> Event:
    start_s, end_s = label.start_s, label.end_s
    if start_s is None or end_s is None:
        start_s, end_s = 0.0, durations[label.item_id]
    return Event(label.item_id, start_s, end_s, label.label, 1.0)


def _text(path: Path) -> str:
    try:
        return spreadsheet.text_of(path)
    except OSError as error:
        raise TableError(f"{path} cannot be read: {error.strerror}") from None
    except SpreadsheetError as error:
        raise TableError(str(error)) from None


def _of_csv(path: Path, text: str, alone: str) -> Iterator[NewLabel]:
    reader = spreadsheet.rows(text)
    columns = [column or "" for column in reader.fieldnames or []]
    of_file, of_label, of_start, of_end = (
        next((name for name in names if name in columns), None)
        for names in (FILE_COLUMNS, LABEL_COLUMNS, START_COLUMNS, END_COLUMNS)
    )
    is_birdnet = of_label == "Common name" and of_start == "Start (s)"
    if of_label is None or (of_file is None and not is_birdnet):
        raise TableError(
            f"{path} has the columns {', '.join(columns) or 'none'}; file and label are needed, "
            "start_s and end_s, verdict, and by, may be there, with commas between (or "
            "semicolons, or tabs)"
        )
    for row in reader:
        if any((value or "").strip() for value in row.values() if not isinstance(value, list)):
            where = f"{path}, line {reader.line_num}"
            times = row.get(of_start or ""), row.get(of_end or "")
            if reader.reader.dialect.delimiter != ",":  # then a comma may be the decimal point
                times = _with_point(times[0] or ""), _with_point(times[1] or "")
            verdict = row.get("verdict") or "positive"
            file = text_of((row[of_file] if of_file else alone) or "")
            label = _label(where, file, text_of(row[of_label] or ""), times, verdict)
            yield replace(label, by=_person(where, text_of(row.get("by") or "")))


def _of_audacity(path: Path, text: str, recording: str) -> Iterator[NewLabel]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("\\"):  # the line below holds frequencies
            continue
        start_s, end_s, label = (*line.split("\t", 2), "", "")[:3]
        where, words = f"{path}, line {number}", label.replace("\t", " ")
        times = _with_point(start_s), _with_point(end_s)
        yield _label(where, recording, words, _around_a_point(*times))


def _around_a_point(start: str, end: str) -> tuple[str, str]:
    """The times of a label; a point becomes a moment around it, which lies in its windows."""
    try:
        start_s, end_s = float(start), float(end)
    except ValueError:  # it is told of with the rest of the line
        return start, end
    if start_s != end_s or start_s < 0:
        return start, end
    return str(max(0.0, start_s - POINT_S / 2)), str(start_s + POINT_S / 2)


def _with_point(text: str) -> str:
    """A number of a file whose columns tabs divide, which may have a comma for a decimal point."""
    text = text.strip()
    is_one = _WITH_COMMA.fullmatch(text) and not _THOUSANDS.fullmatch(text)
    return text.replace(",", ".") if is_one else text


def _of_raven(path: Path, text: str, recording: str) -> Iterator[NewLabel]:
    lines = io.StringIO(text, newline="")
    reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    columns = reader.fieldnames or []
    of_label = next((name for name in RAVEN_LABELS if name in columns), None)
    if of_label is None or not {"Begin Time (s)", "End Time (s)"} <= set(columns):
        raise TableError(
            f"{path} has no column of labels or of times; expected Begin Time (s), End Time (s) "
            f"and one of {', '.join(RAVEN_LABELS)}"
        )
    of_file = next((name for name in RAVEN_FILES if name in columns), None)
    seen: set[tuple[str | None, ...]] = set()
    for row in reader:
        file = Path((of_file and row[of_file]) or recording).name
        view = row.get("Selection"), file, row["Begin Time (s)"]
        if view[0] and view in seen:  # the same selection in another view
            continue
        seen.add(view)
        where = f"{path}, line {reader.line_num}"
        begin, end = (_with_point(row[name] or "") for name in ("Begin Time (s)", "End Time (s)"))
        label = _label(where, file, row[of_label], (begin, end))
        # Of several files in a row, times count from the beginning of the first
        offset = row.get("File Offset (s)") if of_file else None
        offset_s = _seconds(where, _with_point(offset or ""))
        if offset_s is not None and label.start_s is not None and label.end_s is not None:
            length_s = label.end_s - label.start_s
            label = replace(label, start_s=offset_s, end_s=offset_s + length_s)
        yield label


def _label(
    where: str,
    file: str | None,
    label: str | None,
    times: tuple[str | None, str | None],
    verdict: str = "positive",
) -> NewLabel:
    """One label, checked.

    Raises:
        TableError: naming the line and what is wrong there.
    """
    file, label = (normal((text or "").strip()) for text in (file, label))
    if not file or not label or len(label) > MAX_LABEL:
        raise TableError(
            f"{where}: expected a recording and a label of at most {MAX_LABEL} letters, found "
            f"{file!r} and {label[: MAX_LABEL + 1]!r}{_REMEDY}"
        )
    try:
        checked_label(label)
    except ValueError as error:
        raise TableError(f"{where}: {error}, found {label!r}") from None
    if verdict not in VERDICTS:
        raise TableError(f"{where}: verdict {verdict!r}; expected one of {', '.join(VERDICTS)}")
    start_s, end_s = (_seconds(where, time) for time in times)
    if (start_s is None) != (end_s is None):
        raise TableError(f"{where}: both start_s and end_s are needed, or neither")
    if start_s is not None and end_s is not None and not 0 <= start_s < end_s:
        if start_s != end_s or start_s < 0:
            raise TableError(f"{where}: from {start_s:g} to {end_s:g} s is no stretch of time")
        raise TableError(
            f"{where}: {label!r} at {start_s:g} s lasts no time; give it a start and an end"
        )
    return NewLabel(file, label, verdict, start_s, end_s)


def _person(where: str, text: str) -> str | None:
    """Who says so; None where the file does not tell.

    Raises:
        TableError: it is no name.
    """
    name = normal(text.strip())
    if len(name) > MAX_NAME or not name.isprintable():
        raise TableError(
            f"{where}: by {name[: MAX_NAME + 1]!r}; expected a name of at most {MAX_NAME} letters "
            "on one line"
        )
    return name or None


def _seconds(where: str, text: str | None) -> float | None:
    if text is None or not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise TableError(
            f"{where}: {text.strip()!r} is no number of seconds; expected one as 1234.5, with a "
            "point and without anything between thousands"
        )
    return value


def by_file(labels: Iterable[NewLabel], ids: Mapping[str, str]) -> tuple[list[NewLabel], list[str]]:
    """Labels by the ids of their recordings, and the names that no recording has.

    Args:
        labels: as they are read.
        ids: the id of each recording, by id and by every name that it may be called.
    """
    known, unknown = [], set()
    for label in labels:
        name = Path(label.item_id)
        spellings = (label.item_id, name.name, name.stem)
        id_ = next((ids[one] for one in spellings if one in ids), None)
        if id_ is None:
            unknown.add(label.item_id)
        else:
            known.append(replace(label, item_id=id_))
    return known, sorted(unknown)


def unsaid(labels: Sequence[NewLabel], said: Iterable[Label], by: str) -> list[NewLabel]:
    """The labels of stretches of which their authors have not said the same last.

    So a file may be read again, as after a command that was stopped, and adds nothing.

    Args:
        labels: by the ids of their recordings.
        said: what there is already, in the order in which it was added.
        by: the author of labels that name none.
    """
    before, now = defaultdict[_Stretch, list[_Said]](list), defaultdict[_Stretch, list[_Said]](list)
    for one in said:
        before[_stretch(one, by)].append((one.label, one.verdict))
    for new in labels:
        now[_stretch(new, by)].append((new.label, new.verdict))
    known = {at for at, these in now.items() if before[at][-len(these) :] == these}
    return [new for new in labels if _stretch(new, by) not in known]


def _stretch(label: NewLabel | Label, by: str) -> _Stretch:
    """The recording, the times (at the precision of a file), and who speaks of them."""
    start_s, end_s = (-1.0 if time is None else time for time in (label.start_s, label.end_s))
    return label.item_id, round(start_s, 6), round(end_s, 6), label.by or by
