"""Files -> labels over files or windows: on the screen, as CSV, or as JSON lines.

Letters: `K` classes.
"""

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.atomic import replacing
from models.classifier import Classifier, ClassifierCard
from models.runtime import Encoder
from models.selection import WHOLE, Selection
from models.terminal import printable
from service.commands.bulk import Decode, Failure, Given, Tally, Warn, decode_here, embed_files
from service.commands.tables import check_target
from service.untrusted import cell

FORMATS = (".csv", ".jsonl")
COLUMNS = (
    "file",
    "start_s",
    "end_s",
    "rank",
    "label",
    "score",
    "is_present",
    "novelty",
    "is_novel",
)
WIDTH = 160  # columns of a table that goes to no terminal


@dataclass(frozen=True)
class Label:
    """A label and its probability; a multi-label classifier also says whether it holds."""

    label: str
    score: float
    is_present: bool | None


@dataclass(frozen=True)
class Labelled:
    """What a classifier says of a file or a window of it: probabilities (K,), best label first.

    `number` tells files of one name apart.
    """

    file: str
    start_s: float
    end_s: float
    card: ClassifierCard
    probabilities: NDArray[np.float32]
    novelty: float
    number: int = 0

    @property
    def is_novel(self) -> bool:
        """Whether it is unlike what the classifier was trained on."""
        return self.card.is_novel(self.novelty)

    def best(self, top_k: int) -> list[Label]:
        """Labels, best first."""
        order = np.argsort(-self.probabilities, kind="stable")[:top_k].tolist()
        scores = [float(self.probabilities[k]) for k in order]
        return [
            Label(self.card.labels[k], score, self.card.is_present(k, score))
            for k, score in zip(order, scores, strict=True)
        ]


Add = Callable[[Labelled], None]


def label_files(
    encoder: Encoder,
    classifier: Classifier,
    files: Iterable[Given],
    *,
    window_s: float | None = None,
    hop_s: float | None = None,
    selection: Selection = WHOLE,
    tally: Tally | None = None,
    warn: Warn = lambda file, sentence: None,
    decode: Decode = decode_here,
) -> Iterator[Labelled | Failure]:
    """What the classifier says of each file, or of its windows, in the order of `files`."""
    rows = embed_files(
        encoder,
        files,
        window_s=window_s,
        hop_s=hop_s,
        selection=selection,
        tally=tally,
        warn=warn,
        decode=decode,
    )
    for row in rows:
        if isinstance(row, Failure):
            yield row
            continue
        found = classifier.predict(row.embedding[None])
        yield Labelled(
            row.file,
            row.start_s,
            row.end_s,
            classifier.card,
            found.probabilities[0],
            float(found.novelty[0]),
            row.number,
        )


@contextmanager
def writing(path: Path, card: ClassifierCard, top_k: int) -> Iterator[Add]:
    """Takes labels and writes them as they come; the file appears when the block ends well.

    A CSV has a line a label, JSON lines one a file or window.

    Raises:
        TableError: the file cannot be written so.
    """
    check_target(path, FORMATS)
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as out,
    ):
        table = csv.writer(out)
        if path.suffix == ".csv":
            table.writerow(COLUMNS)

        def add(item: Labelled) -> None:
            if path.suffix == ".csv":
                table.writerows(_csv_rows(item, top_k))
            else:
                out.write(json.dumps(_line(item, card, top_k)) + "\n")

        yield add


@contextmanager
def printing(top_k: int, *, timeline: bool) -> Iterator[Add]:
    """Takes labels and prints them as one table when the block ends well."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("file", overflow="fold")
    if timeline:
        table.add_column("seconds", justify="right")
    table.add_column("label")
    table.add_column("else")
    table.add_column("")

    def add(item: Labelled) -> None:
        best = item.best(top_k)
        holding = [one for one in best if one.is_present] if item.card.multi_label else best[:1]
        seconds = [f"{item.start_s:.2f}-{item.end_s:.2f}"] if timeline else []
        others = [one for one in best if one not in holding]
        mark = "[yellow]novel[/]" if item.is_novel else ""
        table.add_row(plain(item.file), *seconds, _shown(holding), _shown(others), mark)

    yield add
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table)


def _shown(labels: Iterable[Label]) -> str:
    return plain(", ".join(f"{one.label} {one.score:.2f}" for one in labels))


def plain(text: str) -> str:
    """Text in which nothing is taken for markup, nor moves a terminal's cursor."""
    from rich.markup import escape

    return escape(printable(text))


def _csv_rows(item: Labelled, top_k: int) -> Iterator[list[object]]:
    where = [cell(item.file), round(item.start_s, 6), round(item.end_s, 6)]
    novelty = [round(item.novelty, 6), int(item.is_novel)]
    for rank, one in enumerate(item.best(top_k), start=1):
        present = "" if one.is_present is None else int(one.is_present)
        yield [*where, rank, cell(one.label), round(one.score, 6), present, *novelty]


def _line(item: Labelled, card: ClassifierCard, top_k: int) -> dict[str, object]:
    """What a JSON line holds, in the words of the HTTP answer."""
    predictions: list[dict[str, object]] = []
    for one in item.best(top_k):
        present = {} if one.is_present is None else {"is_present": one.is_present}
        predictions.append({"label": one.label, "score": round(one.score, 6), **present})
    return {
        "file": item.file,
        "start_s": round(item.start_s, 6),
        "end_s": round(item.end_s, 6),
        "head": card.name,
        "space_id": card.space_id,
        "predictions": predictions,
        "novelty": {
            "score": round(item.novelty, 6),
            "threshold": card.novelty.threshold,
            "is_novel": item.is_novel,
        },
    }
