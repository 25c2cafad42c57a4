"""The commands that take audio files: `viola embed` and `viola classify`."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from models.modelfile import DEFAULT_CLASSIFIER, DEFAULT_MODEL
from models.terminal import Force, Threads, counted, keep_existing
from service.commands.progress import progress, show_failure, show_warning

if TYPE_CHECKING:
    from rich.console import Console

    from models.selection import Selection
    from service.commands.bulk import Failure

AudioFiles = Annotated[
    list[str],
    typer.Argument(
        help="Audio files of any format and length; folders and tars of them; - (stdin)."
    ),
]
Channel = Annotated[str, typer.Option(help="A channel's number, from 0; mix: their mean.")]
StartS = Annotated[float, typer.Option(help="Seconds into each file at which it begins.")]
Ray = Annotated[
    str | None,
    typer.Option(
        help="Work on Ray Data: local, or a cluster's address. Then also folders, URLs, and "
        "Parquet lists of paths; -o is .parquet, also behind a URL, or a folder; a run that was "
        "stopped goes on."
    ),
]
EndS = Annotated[
    float | None, typer.Option(help="Seconds into each file at which it ends; else its end.")
]

R = TypeVar("R")
MOST_DIGITS = 9  # of a channel's number; Python refuses to read thousands


def embed(
    files: AudioFiles,
    out: Annotated[
        str, typer.Option("-o", "--out", help="Table to write: .npz, .npy, .parquet or .jsonl.")
    ],
    model: Annotated[
        Path, typer.Option(help="A model file.", show_default="the default encoder")
    ] = (DEFAULT_MODEL),
    window_s: Annotated[
        float | None, typer.Option(help="Seconds a vector spans; else one a file.")
    ] = None,
    hop_s: Annotated[
        float | None,
        typer.Option(help="Seconds from one vector to the next; else window-s."),
    ] = None,
    frames: Annotated[
        bool, typer.Option("--frames", help="Write the features of each frame, before pooling.")
    ] = False,
    dimensions: Annotated[
        int | None,
        typer.Option(min=1, help="Keep the first N values of each vector, at length 1; else all."),
    ] = None,
    threads: Threads = None,
    channel: Channel = "mix",
    start_s: StartS = 0.0,
    end_s: EndS = None,
    ray: Ray = None,
    force: Force = False,
) -> None:
    """Embed audio files into one table: a vector a file, or timed vectors.

    The file "-" is stdin, and pipes are read to their end. With --ray the table has one row a file,
    with all its windows, and files that failed are rows with the reason.

    Exits with 1 if a file failed; the table has the others. If all failed, nothing is written.
    Timed vectors are written as they come to .parquet and .jsonl, and are held in memory for .npz
    and .npy. Of a file that is damaged part way, the vectors before the damage are kept. A .npy
    file holds vectors only; NAME.npy.csv beside it has the file and the times of each row. The
    times of a frame are half a hop before and after its middle, within the recording.
    """
    from rich.console import Console

    from models.runtime import Encoder
    from models.windows import shortened
    from service.commands.bulk import Failure, audio_files, embed_files
    from service.commands.bulk_run import run_on_ray
    from service.commands.job import Job
    from service.commands.tables import writing

    if frames and window_s is not None:
        raise typer.BadParameter("choose --frames or --window-s, not both")
    if hop_s is not None and window_s is None:
        raise typer.BadParameter("--hop-s needs --window-s")
    if frames and dimensions is not None:
        raise typer.BadParameter("choose --frames or --dimensions, not both")
    selection = _selection(channel, start_s, end_s)
    if ray is not None:
        if frames:
            raise typer.BadParameter("choose --ray or --frames, not both")
        job = Job(str(model), threads or 1, window_s, hop_s, dimensions, selection)
        return run_on_ray(job, files, out, ray, force=force)
    path = _local(out, force=force)
    console = Console(stderr=True, soft_wrap=True)
    failures: list[Failure] = []
    n_rows = 0
    nothing = f"no file could be embedded; {out} was not written"
    with _ends_told(console, nothing):
        found = audio_files(map(Path, files))
        encoder = Encoder.open(model, threads=threads)
        card = encoder.card
        n_values = dimensions or (card.frame_features if frames else card.embed_dim)
        if n_values > card.embed_dim and not frames:
            raise typer.BadParameter(
                f"--dimensions {n_values}: {card.name} has {card.embed_dim}, at most"
            )
        with writing(path, card, n_values) as table, progress(console, len(found)) as tally:
            rows = embed_files(
                encoder,
                found,
                window_s=window_s,
                hop_s=hop_s,
                frames=frames,
                selection=selection,
                tally=tally,
                warn=partial(show_warning, console),
            )
            for row in _worked(rows, failures, console):
                table.add(replace(row, embedding=shortened(row.embedding, dimensions)))
                n_rows += 1
            if not n_rows:
                raise _NothingDone
    console.print(
        f"{out}: {counted(n_rows, 'vector')} of {counted(n_values, 'value')} in space "
        f"{encoder.card.space_id}; {counted(len(found) - len(failures), 'file')} embedded, "
        f"{len(failures)} failed",
        markup=False,
    )
    if failures:
        raise typer.Exit(1)


def classify(
    files: AudioFiles,
    head: Annotated[
        Path,
        typer.Option(
            help="A classifier file, or the name of one that ships with Viola, such as sounds-10.",
            show_default="sound-kinds",
        ),
    ] = DEFAULT_CLASSIFIER,
    model: Annotated[
        Path, typer.Option(help="The model file it belongs to.", show_default="the default encoder")
    ] = DEFAULT_MODEL,
    top_k: Annotated[int, typer.Option(min=1, help="Labels of each file, best first.")] = 3,
    timeline: Annotated[
        bool, typer.Option("--timeline", help="Labels over time, a row a window.")
    ] = False,
    window_s: Annotated[
        float | None,
        typer.Option(help="Seconds of a window; else those of the clips it was trained on."),
    ] = None,
    hop_s: Annotated[
        float | None, typer.Option(help="Seconds from one window to the next; else window-s.")
    ] = None,
    out: Annotated[
        str | None, typer.Option("-o", "--out", help="Table to write instead: .csv or .jsonl.")
    ] = None,
    events: Annotated[
        bool,
        typer.Option("--events", help="Labels over time, windows of one label in a row merged."),
    ] = False,
    least_score: Annotated[
        float, typer.Option(min=0, max=1, help="The least score of a window for --events.")
    ] = 0.5,
    threads: Threads = None,
    channel: Channel = "mix",
    start_s: StartS = 0.0,
    end_s: EndS = None,
    ray: Ray = None,
    force: Force = False,
) -> None:
    """Label audio files: a table on the screen, or CSV or JSONL in a file; "-" is stdin.

    With --events the file may be .csv, .txt (a label track of Audacity) or .selections.txt (a
    selection table of Raven), and windows that are novel count for nothing.

    Scores are calibrated probabilities. "novel" marks what is unlike anything the classifier was
    trained on: its labels are then worth nothing. Exits with 1 if a file failed; the others are
    labelled all the same, and with --timeline or --events what is before the damage in one.
    """
    from rich.console import Console

    from models.classifier import Classifier
    from models.runtime import Encoder
    from service.commands import events as eventing
    from service.commands.bulk import Failure, audio_files
    from service.commands.bulk_run import run_on_ray
    from service.commands.job import Job
    from service.commands.labels import label_files, printing, writing

    if not (timeline or events) and (window_s is not None or hop_s is not None):
        raise typer.BadParameter("--window-s and --hop-s need --timeline or --events")
    selection = _selection(channel, start_s, end_s)
    if ray is not None:
        if out is None or events:
            raise typer.BadParameter("--ray needs -o, and writes no --events")
        if timeline and window_s is None:
            window_s = Classifier.open(head).card.training.unit_s
        job = Job(str(model), threads or 1, window_s, hop_s, None, selection, str(head), top_k)
        return run_on_ray(job, files, out, ray, force=force)
    path = None if out is None else _local(out, force=force)
    console = Console(stderr=True, soft_wrap=True)
    failures: list[Failure] = []
    n_rows = 0
    with _ends_told(console, "no file could be labelled; nothing was written"):
        found = audio_files(map(Path, files))
        classifier = Classifier.open(head)
        encoder = Encoder.open(model, threads=threads)
        classifier.check_space(encoder.card.space_id, encoder.card.name)
        if (timeline or events) and window_s is None:
            window_s = classifier.card.training.unit_s
        if events:
            n_files = len(found)
            table = (
                eventing.writing(path, least_score, n_files)
                if path
                else eventing.printing(least_score)
            )
        elif path:
            table = writing(path, classifier.card, top_k)
        else:
            table = printing(top_k, timeline=timeline)
        with table as add, progress(console, len(found)) as tally:
            rows = label_files(
                encoder,
                classifier,
                found,
                window_s=window_s,
                hop_s=hop_s,
                selection=selection,
                tally=tally,
                warn=partial(show_warning, console),
            )
            for row in _worked(rows, failures, console):
                add(row)
                n_rows += 1
            if not n_rows:
                raise _NothingDone
    if path or failures:
        n_labelled = counted(len(found) - len(failures), "file")
        written = f"{out}: " if path else ""
        console.print(f"{written}{n_labelled} labelled, {len(failures)} failed", markup=False)
    if failures:
        raise typer.Exit(1)


class _NothingDone(Exception):
    """Every file failed, so there is nothing to write."""


@contextmanager
def _ends_told(console: "Console", nothing: str) -> Iterator[None]:
    """End the command with a sentence: 1 where every file failed, 2 where nothing can be done.

    The latter are errors of the disk, the model files, the table and the window.
    """
    try:
        yield
    except _NothingDone:
        console.print(nothing, markup=False)
        raise typer.Exit(1) from None
    except (OSError, ValueError) as error:
        console.print(f"error: {error}", markup=False, style="red")
        raise typer.Exit(2) from error


def _local(out: str, *, force: bool) -> Path:
    """The path of a table that this process writes."""
    from service.commands.remote_paths import is_url
    from service.commands.tables import files_of

    if is_url(out):
        raise typer.BadParameter(f"-o {out}: a URL needs --ray, local or a cluster's address")
    for file in files_of(Path(out)):
        keep_existing(file, force=force)
    return Path(out)


def _selection(channel: str, start_s: float, end_s: float | None) -> "Selection":
    """The part of each file that three options choose."""
    from models.limits import AudioError
    from models.selection import Selection

    if channel != "mix" and not (channel.isdecimal() and len(channel) <= MOST_DIGITS):
        raise typer.BadParameter(f"--channel {channel[:80]}: expected mix, or a number from 0")
    try:
        return Selection("mix" if channel == "mix" else int(channel), start_s, end_s)
    except AudioError as error:
        raise typer.BadParameter(str(error)) from None


def _worked(
    rows: "Iterable[R | Failure]", failures: "list[Failure]", console: "Console"
) -> "Iterator[R]":
    """The rows of files that worked; the others are shown and added to `failures`."""
    from service.commands.bulk import Failure

    for row in rows:
        if isinstance(row, Failure):
            failures.append(row)
            show_failure(console, row)
        else:
            yield row
