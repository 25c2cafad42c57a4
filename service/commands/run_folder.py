"""What a run over many files has done so far, in a folder beside its output.

    OUT.progress/lock                held by the command at work: another one is refused
                 job.json            what the run does: going on with something else is refused
                 manifest.parquet    the files, in groups that are worked on and kept as one
                 checkpoint/         which of them are done
                 parts/              the results of those

The output appears when all is done, and the folder goes. Where the output is behind a URL, the
folder is in the one that the command runs in.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from models.atomic import publish, replacing
from models.lock import locked
from models.sources import SourceError, checked_name, members
from service.commands.job import Job
from service.commands.one_row_a_file import FILE
from service.commands.remote_paths import MANIFEST_SUFFIX, audio_below, is_url, opened, upload
from service.commands.tables import TableError

MAX_GROUP = 1024  # files that are worked on, written and noted as one
USUAL_GROUP = 64  # below that a group, a task and two files of Ray's, costs much beside its files
GROUPS_AN_ACTOR = 8  # of a collection with usual groups, so that none works alone for long
FEWEST_GROUPS = 2  # of an actor, in a collection of a few files
PATH_COLUMNS = (FILE, "path")  # of a manifest
BATCH = 65_536  # paths of a manifest at a time


class Progress:
    """The folder of one run, and where its output goes: a path, or a URL of a Parquet file."""

    def __init__(self, out: Path | str) -> None:
        self.out = out
        beside = out if isinstance(out, Path) else Path(out.rpartition("/")[2])
        # Absolute, as Ray wants it: its workers are in folders of their own
        self.folder = Path.cwd() / beside.with_name(beside.name + ".progress")
        self.lock = self.folder / "lock"
        self.note = self.folder / "job.json"
        self.manifest = self.folder / "manifest.parquet"
        self.checkpoint = self.folder / "checkpoint"
        self.parts = self.folder / "parts"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only command that works in the folder, which is made if missing.

        Raises:
            TableError: another one does, or the output cannot be written.
        """
        if not self.folder.parent.is_dir():
            raise TableError(f"the folder of {self.out} does not exist")
        self.folder.mkdir(exist_ok=True)
        message = (
            f"another command works in {self.folder}; wait for it to end, or choose another --out"
        )
        with locked(self.lock, TableError(message)):
            try:
                yield
            finally:
                if not self.note.is_file():  # nothing to go on with
                    shutil.rmtree(self.folder, ignore_errors=True)

    def begin(self, job: Job, space_id: str, sources: list[str], n_actors: int) -> bool:
        """Note what is to be done; returns whether this goes on with what was begun before.

        Raises:
            TableError: what was begun is something else.
            SourceError: there is nothing to do, or a source cannot be listed.
        """
        given = asdict(job) | {"space_id": space_id, "sources": _absolute(sources)}
        if self.note.is_file():
            self._check(given, json.loads(self.note.read_text("utf-8")))
            if not self.parts.is_dir():  # killed when they had become the output: nothing is done
                shutil.rmtree(self.checkpoint, ignore_errors=True)
            return True
        for left in (self.checkpoint, self.parts):  # of a run that was killed before its note
            shutil.rmtree(left, ignore_errors=True)
        self._list(sources, n_actors)
        with replacing(self.note) as temporary:
            temporary.write_text(json.dumps(given, indent=1), "utf-8")
        return False

    def finish(self) -> tuple[int, int]:
        """Give the output its name; returns how many files there are, and how many failed."""
        if isinstance(self.out, str):
            whole = self.folder / "whole.parquet"
            counts = self._merged(whole)
            upload(whole, self.out)
        elif self.out.suffix == ".parquet":
            counts = self._merged(self.out)
        else:
            counts = self._renamed(self.out)
        self.forget()
        return counts

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The results, some rows at a time in memory."""
        for part in self._part_files():
            yield from pq.ParquetFile(part).iter_batches(MAX_GROUP)

    def forget(self) -> None:
        """Remove the folder: nothing is left to do."""
        # First, so that whoever is killed in the middle leaves nothing to go on with: some of the
        # results would be gone, and still noted as done
        self.note.unlink(missing_ok=True)
        shutil.rmtree(self.folder)

    def n_groups(self) -> int:
        """Groups of files in the manifest."""
        n_groups: int = pq.read_metadata(self.manifest).num_row_groups
        return n_groups

    def _check(self, given: dict[str, Any], noted: dict[str, Any]) -> None:
        given = json.loads(json.dumps(given))
        differing = [name for name in given if given[name] != noted.get(name) and name != "threads"]
        if differing:
            name = differing[0]
            raise TableError(
                f"{self.folder} is of a run with {name} = {noted.get(name)!r}, not "
                f"{given[name]!r}: go on as it began, remove that folder, or choose another --out"
            )

    def _list(self, sources: list[str], n_actors: int) -> None:
        """Write the manifest; the files of a small collection are in more and smaller groups."""
        schema = pa.schema([(FILE, pa.string())])
        head = list(islice(files := _files(sources), MAX_GROUP * GROUPS_AN_ACTOR * n_actors))
        if not head:
            raise SourceError(f"there are no files in {', '.join(sources)}")
        least = min(USUAL_GROUP, len(head) // (FEWEST_GROUPS * n_actors))
        size = max(1, least, len(head) // (GROUPS_AN_ACTOR * n_actors))
        with replacing(self.manifest) as temporary, pq.ParquetWriter(temporary, schema) as writer:
            for names in _groups(head, files, size):
                writer.write_table(pa.table({FILE: names}, schema=schema))

    def _part_files(self) -> list[Path]:
        return sorted(self.parts.glob("*.parquet"))

    def _merged(self, out: Path) -> tuple[int, int]:
        """One file of all parts, a group of rows at a time in memory."""
        n_files = n_failed = 0
        schema = pq.read_schema(self._part_files()[0])
        with replacing(out) as temporary, pq.ParquetWriter(temporary, schema) as writer:
            for batch in self.batches():
                writer.write_batch(batch)
                n_files += len(batch)
                n_failed += len(batch) - batch["error"].null_count
        return n_files, n_failed

    def _renamed(self, out: Path) -> tuple[int, int]:
        """The folder of the parts as it is."""
        n_files = n_failed = 0
        for part in self._part_files():
            errors = pq.read_table(part, columns=["error"])["error"]
            n_files, n_failed = n_files + len(errors), n_failed + len(errors) - errors.null_count
            publish(part, part)  # its content has reached the disk
        check_replaceable(out)
        shutil.rmtree(out, ignore_errors=True)
        os.replace(self.parts, out)
        return n_files, n_failed


def check_replaceable(out: Path) -> None:
    """Refuse a folder in whose place a table is to be, if it holds anything but tables.

    Raises:
        TableError: it does.
    """
    if out.is_dir() and (others := [one.name for one in out.iterdir() if not _is_part(one)]):
        raise TableError(
            f"{out} holds {min(others)!r}, and the output would replace the whole folder; only one "
            "that holds nothing but files of .parquet is replaced: choose another --out"
        )


def _is_part(path: Path) -> bool:
    return path.suffix == MANIFEST_SUFFIX and path.is_file()


def _groups(head: list[str], rest: Iterator[str], size: int) -> Iterator[list[str]]:
    for first in range(0, len(head), size):
        yield head[first : first + size]
    while names := list(islice(rest, MAX_GROUP)):
        yield names


def _absolute(sources: Iterable[str]) -> list[str]:
    """Paths that mean the same on every machine; URLs are left as they are."""
    return [source if is_url(source) else os.path.abspath(source) for source in sources]


def _files(sources: Iterable[str]) -> Iterator[str]:
    """Every file once that a list of files, folders and one or more manifests names.

    Raises:
        SourceError: one of them cannot be listed or used.
    """
    seen: set[str] = set()
    for source in _absolute(sources):
        path = Path(source)
        if path.suffix == MANIFEST_SUFFIX and not path.is_dir():
            names: Iterable[str] = _listed(source)
        elif is_url(source):
            names = audio_below(source)
        elif path.is_dir():
            names = (str(path / name) for name, _, _ in members(path))
        else:
            names = [checked_name(source, path.parent)]
        for name in names:
            if name not in seen:
                seen.add(name)
                yield name


def _listed(manifest: str) -> Iterator[str]:
    """The paths and URLs of a manifest, which has a path or a URL itself.

    Raises:
        SourceError: it cannot be read, or is no manifest.
    """
    with opened(manifest) if is_url(manifest) else nullcontext(manifest) as source:
        try:
            file = pq.ParquetFile(source)
        except (OSError, pa.ArrowInvalid) as error:
            raise SourceError(f"the manifest {manifest} cannot be read: {error}") from None
        with file:
            columns = [name for name in PATH_COLUMNS if name in file.schema_arrow.names]
            if not columns:
                raise SourceError(
                    f"{manifest} has the columns {', '.join(file.schema_arrow.names)}; a manifest "
                    f"has one called {' or '.join(PATH_COLUMNS)}"
                )
            for batch in file.iter_batches(BATCH, columns=columns[:1]):
                for name in batch.column(0).to_pylist():
                    if not isinstance(name, str) or not (is_url(name) or os.path.isabs(name)):
                        raise SourceError(
                            f"{manifest} names {name!r}; expected absolute paths and URLs"
                        )
                    yield name
