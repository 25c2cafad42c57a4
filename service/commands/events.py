"""Labels over time -> events: windows of one label in a row become one stretch of it.

Written as CSV, or as what editors of sound read: label tracks of Audacity, selection tables of
Raven.
"""

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from models.atomic import replacing
from models.audio import SAMPLE_RATE
from models.terminal import counted
from service.commands.labels import Labelled, plain
from service.commands.tables import TableError
from service.untrusted import cell

LEAST_SCORE = 0.5
AUDACITY, RAVEN = ".txt", ".selections.txt"
FORMATS = (".csv", AUDACITY, RAVEN)
COLUMNS = ("file", "start_s", "end_s", "label", "score", "windows")
RAVEN_COLUMNS = (
    "Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)",
    "High Freq (Hz)", "Begin File", "Label", "Score",
)  # fmt: skip


@dataclass(frozen=True)
class Event:
    """A stretch of a recording in which one label holds; its score is the highest of a window."""

    file: str
    start_s: float
    end_s: float
    label: str
    score: float
    windows: int = 1


Add = Callable[[Labelled], None]
AddEvent = Callable[[Event], None]


class Merging:
    """Takes labelled windows, recording by recording, and gives events as they end.

    Attributes:
        events, windows, novel: how many there were until now; the last are windows as well.
    """

    def __init__(self, add: AddEvent, least_score: float = LEAST_SCORE) -> None:
        self._add, self._least_score = add, least_score
        self.events = self.windows = self.novel = 0
        self._open: dict[str, Event] = {}
        self._number = 0  # of the recording

    def take(self, window: Labelled) -> None:
        """Go on with the events of the window's labels, begin new ones, end all others."""
        if window.number != self._number:
            self.finish()
            self._number = window.number
        before, self._open = self._open, {}
        self.windows += 1
        self.novel += window.is_novel
        for label, score in holding(window, self._least_score):
            event = before.get(label)
            if event is None or event.end_s < window.start_s - 1e-6:
                self._open[label] = Event(window.file, window.start_s, window.end_s, label, score)
                continue
            del before[label]
            self._open[label] = replace(
                event,
                end_s=window.end_s,
                score=max(event.score, score),
                windows=event.windows + 1,
            )
        self._end(before)

    def finish(self) -> None:
        """End what is still open."""
        self._end(self._open)
        self._open = {}

    def _end(self, events: dict[str, Event]) -> None:
        for event in sorted(events.values(), key=lambda event: event.start_s):
            self.events += 1
            self._add(event)

    def tell(self) -> None:
        """Say on stderr how many events there were, and of how many windows that could count."""
        from rich.console import Console

        Console(stderr=True, soft_wrap=True).print(
            f"{counted(self.events, 'event')} in {counted(self.windows, 'window')}; {self.novel} "
            f"of them novel, which count for nothing; the others count from a score of "
            f"{self._least_score:g}",
            highlight=False,
        )


def holding(window: Labelled, least_score: float) -> list[tuple[str, float]]:
    """The labels of a window that count, with their scores: none where it is novel.

    Where one label holds, that is the best one; where several can, those above their thresholds.
    """
    if window.is_novel:
        return []
    best = window.best(len(window.card.labels) if window.card.multi_label else 1)
    return [
        (one.label, one.score)
        for one in best
        if one.is_present is not False and one.score >= least_score
    ]


@contextmanager
def writing(path: Path, least_score: float, n_files: int) -> Iterator[Add]:
    """Takes labelled windows and writes their events; the file appears when the block ends well.

    How many they are is said on stderr.

    Raises:
        TableError: the file cannot be written so.
    """
    check_name(path, n_files)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as out:
        merging = Merging(event_writer(path, out), least_score)
        yield merging.take
        merging.finish()
    merging.tell()


def check_name(path: Path, n_files: int) -> None:
    """Refuse a file that cannot hold the events of so many recordings.

    Raises:
        TableError: its name is of no format, or of one for a single recording.
    """
    if not path.name.endswith(FORMATS):
        raise TableError(
            f"{path}: events are written as NAME.csv, NAME.txt (labels of Audacity) or "
            "NAME.selections.txt (a selection table of Raven)"
        )
    if path.suffix != ".csv" and n_files > 1:
        raise TableError(
            f"{path}: labels of Audacity and tables of Raven are of one recording; give one, or "
            "write NAME.csv"
        )


@contextmanager
def printing(least_score: float) -> Iterator[Add]:
    """Takes labelled windows and prints their events as they end; on stderr, how many."""
    from rich.console import Console

    console = Console(soft_wrap=True)

    def show(event: Event) -> None:
        stretch = f"{event.start_s:9.2f} {event.end_s:9.2f}"
        line = f"{event.file}  {stretch}  {event.label} {event.score:.2f}"
        console.print(plain(line), highlight=False)

    merging = Merging(show, least_score)
    yield merging.take
    merging.finish()
    merging.tell()


def event_writer(path: Path, out: TextIO) -> AddEvent:
    """What writes one event in the format of `path`."""
    if path.suffix == ".csv":
        table = csv.writer(out)
        table.writerow(COLUMNS)
        return lambda event: table.writerow(_csv_row(event))
    if not path.name.endswith(RAVEN):
        return lambda event: _write_line(
            out, [f"{event.start_s:.6f}", f"{event.end_s:.6f}", event.label]
        )
    _write_line(out, RAVEN_COLUMNS)
    numbers = iter(range(1, 2**31))
    return lambda event: _write_line(out, _raven_row(next(numbers), event))


def _write_line(out: TextIO, values: Iterable[Any]) -> None:
    """Values with tabs between them; these editors know no quotes."""
    out.write("\t".join(re.sub(r"[\t\r\n]", " ", str(value)) for value in values) + "\n")


def _csv_row(event: Event) -> list[Any]:
    where = [cell(event.file), round(event.start_s, 6), round(event.end_s, 6)]
    return [*where, cell(event.label), round(event.score, 6), event.windows]


def _raven_row(number: int, event: Event) -> list[Any]:
    times = [f"{event.start_s:.6f}", f"{event.end_s:.6f}"]
    band = [0, SAMPLE_RATE // 2]  # what the encoder hears
    name = Path(event.file).name
    return [number, "Spectrogram 1", 1, *times, *band, name, event.label, f"{event.score:.4f}"]
