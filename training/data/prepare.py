"""Folders and tars of audio -> a store of PCM (`training.data.corpus`), decoded in parallel."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from models.limits import AudioError
from models.machine import available_cpus
from models.progress import TITLE, Bar
from training.data.corpus import REMEDY, CorpusError, encode, read_index, refuse_merging
from training.data.decoders import Clip, Result, decode_all
from training.data.notices import ERRORS_NAME, WARNINGS_NAME, FileError, Notices
from training.data.parts import Part, refuse_parts
from training.data.sources import Source, list_sources
from training.data.store import (
    SHARD_BYTES,
    Writer,
    read_duplicates,
    remove_leftovers,
    sole_writer,
)


@dataclass(frozen=True)
class PrepareReport:
    """What one run of `prepare` did.

    Attributes:
        clips: files that were decoded and stored.
        hours: their length.
        skipped: files that earlier runs stored, or found to be duplicates.
        duplicates: files that were decoded and left out: the store holds their content.
        shards: shards that were written.
        errors: files that were left out.
        warnings: what was noticed about files that were stored.
    """

    clips: int
    hours: float
    skipped: int
    duplicates: int
    shards: int
    errors: tuple[FileError, ...]
    warnings: tuple[FileError, ...] = ()


def prepare(
    sources: Sequence[Path],
    store: Path,
    *,
    workers: int | None = None,
    progress: bool = True,
    shard_bytes: int = SHARD_BYTES,
    part: Part | None = None,
) -> PrepareReport:
    """Decode every audio file of `sources` into `store`; run again to resume or to add.

    A source is called by its folder's or tar's name without `.tar`, a clip by its path inside. Of
    files with the same content the first is stored, the others are listed in duplicates.jsonl.
    Files that the store holds or lists there are skipped, files that failed are tried again. An
    interrupted run loses the unfinished shard at most. The store depends on the order of the files
    alone, not on the number of workers. One run at a time may write to a store.

    Args:
        sources: folders, searched recursively for audio files by suffix, or uncompressed tars.
        store: the folder to write to; made if missing.
        workers: processes that decode; None: one a core; 0: this process itself.
        progress: show a progress bar.
        shard_bytes: PCM bytes after which a shard is closed.
        part: only a part of the files, into a folder of its own in the store; other processes
            or machines prepare the others meanwhile, and `training.data.merge` joins them.

    Raises:
        CorpusError: for sources that cannot be listed, a store that cannot be read, or one that
            another run is writing to.
    """
    if store.is_file():
        raise CorpusError(f"{store} is a file; the last argument names the store's folder")
    if any(source.resolve() == store.resolve() for source in sources):
        raise CorpusError(
            f"{store} is a source, too; the last argument names a folder for the store"
        )
    n_workers = available_cpus() if workers is None else workers
    if part is None:
        refuse_parts(store)
        return _fill(store, list_sources(sources), n_workers, shard_bytes, progress=progress)
    refuse_merging(store)
    listed = list_sources(sources)
    part.begin(store, listed)
    mine = part.of_files(listed)
    n_mine = sum(source.n_files for source in mine)
    del listed  # the names of millions of files
    mine = without_held(mine, store)
    n_held = n_mine - sum(source.n_files for source in mine)
    report = _fill(part.folder(store), mine, n_workers, shard_bytes, progress=progress)
    part.finish(store)
    return replace(report, skipped=report.skipped + n_held)


def _fill(
    store: Path, listed: list[Source], n_workers: int, shard_bytes: int, *, progress: bool
) -> PrepareReport:
    """Decode what is listed and not held into a store; `listed` is emptied."""
    n_listed = sum(source.n_files for source in listed)
    with sole_writer(store):
        remove_leftovers(store)
        todo = without_held(listed, store)
        listed.clear()  # the names of millions of files
        n_todo = sum(source.n_files for source in todo)
        errors, warnings = Notices(store / ERRORS_NAME), Notices(store / WARNINGS_NAME)
        writer = Writer(store, shard_bytes)
        try:
            with writer, _bar(silent=not progress) as bar:
                task = bar.add_task("preparing", total=n_todo, hours=0.0, errors=0)
                items = chain.from_iterable(source.items() for source in todo)
                for item, result in decode_all(items, n_workers):
                    if isinstance(result, Clip):
                        writer.add(item, result)
                    errors.update(item.source, item.name, _failures(result))
                    warnings.update(item.source, item.name, _notices(result))
                    bar.update(task, advance=1, hours=writer.hours, errors=len(errors.new))
        finally:
            errors.write()
            warnings.write()
    return PrepareReport(
        writer.n_clips,
        writer.hours,
        n_listed - n_todo,
        writer.n_duplicates,
        writer.n_shards,
        tuple(errors.new),
        tuple(warnings.new),
    )


def without_held(listed: Sequence[Source], store: Path) -> list[Source]:
    """The sources less the files that `store` holds, or knows to be duplicates.

    Raises:
        CorpusError: a shard is there in part.
    """
    columns = ("source", "name")
    indexes = sorted(store.glob("shard-*.parquet"))
    for path in indexes:
        if not path.with_suffix(".pcm").exists():
            raise CorpusError(f"{path.with_suffix('.pcm')} is missing; {REMEDY}")
    tables = [read_index(path, columns) for path in indexes]
    tables.append(read_duplicates(store))
    codes: dict[str, int] = {}
    source_of = np.concatenate([encode(table["source"], codes) for table in tables])
    names = pa.chunked_array(chain.from_iterable(t["name"].chunks for t in tables), pa.string())
    held = {s.name: names.filter(source_of == codes[s.name]) for s in listed if s.name in codes}
    return [s.without(held[s.name]) if s.name in held else s for s in listed]


def _failures(result: Result) -> Iterator[tuple[str, str]]:
    """Why a file was left out."""
    if isinstance(result, AudioError):
        yield result.reason, str(result)
    elif result == "crashed":
        yield "crashed", "the process that decoded the file died; encode the file again"


def _notices(result: Result) -> Iterator[tuple[str, str]]:
    """What was noticed about a file that was decoded."""
    if isinstance(result, Clip):
        yield from (("warning", sentence) for sentence in result.warnings)


def _bar(*, silent: bool) -> Bar:
    return Bar(
        TITLE,
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[hours]:.2f} h, {task.fields[errors]} errors"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        silent=silent,
    )
