"""Adds files to a collection, and searches it, without a server.

Letters: `N` windows, `D` embedding dim.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from models import sources
from models.runtime import Encoder, Floats
from service.collecting import without_rest
from service.collections.filters import Filter
from service.collections.records import Collection, Doubles, Item, NewItem, Quota, Terms
from service.collections.search import Found, Query, Searcher
from service.collections.store import Store
from service.commands.bulk import STDIN, Failure, Given, Tally, Warn, embed_files, name_of
from service.commands.tables import Row
from service.inference.windowing import Windowing

UNBOUNDED = Quota()  # whoever has the folder may fill it
COMMIT_ITEMS = 32  # at the most, before they are written
COMMIT_BYTES = 32 << 20  # of audio that is kept, likewise


@dataclass
class Indexed:
    """What became of some files."""

    added: list[Item] = field(default_factory=list)
    known: int = 0
    failures: list[Failure] = field(default_factory=list)


def terms_of(
    encoder: Encoder, window_s: float | None, hop_s: float | None, *, keeps_audio: bool = False
) -> Terms:
    """The terms of a collection of this encoder's vectors; no window means one vector a file.

    Raises:
        ServiceError: for windows that make no sense.
    """
    card = encoder.card
    windowing = Windowing.of(window_s, hop_s, card)
    hop_s = None if windowing is None else windowing.hop_s
    return Terms(card.name, card.space_id, card.embed_dim, window_s, hop_s, keeps_audio)


def index_files(
    store: Store,
    collection: Collection,
    encoder: Encoder,
    files: Iterable[Given],
    tally: Tally,
    warn: Warn = lambda file, sentence: None,
) -> Indexed:
    """Add files to a collection, those that are not in it; what has been added stays in any case.

    Raises:
        StoreError: the disk is full, or others write.
    """
    done = Indexed()
    new = _not_there(store, collection, files, done, tally)
    terms = collection.terms
    rows = embed_files(
        encoder, new, window_s=terms.window_s, hop_s=terms.hop_s, tally=tally, warn=warn
    )
    given = list(new.items())
    held: list[NewItem] = []
    for result in by_file(rows):
        if isinstance(result, Failure):
            done.failures.append(result)
        else:
            file, digest = given[result[0].number]
            try:
                audio = _as_it_was(file, digest) if terms.keeps_audio else None
                held.append(_item(result, digest, audio))
            except OSError as error:
                done.failures.append(Failure(result[0].file, error.strerror or str(error)))
        n_bytes = sum(len(item.audio or b"") for item in held)
        if len(held) == COMMIT_ITEMS or n_bytes >= COMMIT_BYTES:
            _commit(store, collection, held, done)
    _commit(store, collection, held, done)
    return done


def find(
    store: Store,
    collection: Collection,
    encoder: Encoder,
    files: Sequence[Path],
    *,
    like: Sequence[str] = (),
    unlike: Sequence[str] = (),
    filter: Filter,
    top_k: int = 10,
    by_item: bool = True,
    exact: bool = True,
) -> tuple[Found, list[Failure]]:
    """What sounds like these files and items, and the files that could not be read.

    Raises:
        StoreError: an item is not there, or nothing is left to search for.
        ValueError: an example is neither ID nor ID#t=START,END.
    """
    searcher = Searcher(store)
    examples: list[Floats] = []
    failures: list[Failure] = []
    for result in embed_files(encoder, files):
        if isinstance(result, Failure):
            failures.append(result)
        else:
            examples.append(result.embedding)
    wanted = [searcher.example(collection, *stretch_of(said)) for said in like]
    unwanted = [searcher.example(collection, *stretch_of(said)) for said in unlike]
    positive = [*examples, *(vector for vector, _ in wanted)]
    if not positive:
        return Found([], True), failures
    query = Query(
        np.stack(positive),
        np.stack([vector for vector, _ in unwanted]) if unwanted else None,
        [key for _, key in (*wanted, *unwanted)],
        filter,
        top_k,
        by_item,
        exact,
    )
    if not exact:
        store.index.prepare(collection)
    return searcher.find(collection, query), failures


def stretch_of(said: str) -> tuple[str, float | None, float | None]:
    """An item's id and the seconds of `ID#t=START,END`, as media fragments have them; of `ID` none.

    Raises:
        ValueError: it is neither.
    """
    id, mark, times = said.partition("#t=")
    if not mark:
        return said, None, None
    try:
        start_s, end_s = map(float, times.split(","))
    except ValueError:
        start_s = end_s = np.nan
    if not 0 <= start_s < end_s < np.inf:
        raise ValueError(f"{said}: expected ID, or ID#t=START,END in seconds")
    return id, start_s, end_s


def _digest(file: Given) -> str:
    """SHA-256 of a file, or of a member of a tar.

    Raises:
        OSError: it cannot be read, or only once.
    """
    if isinstance(file, sources.Item):
        return hashlib.sha256(_content(file)).hexdigest()
    path = Path(file)
    if path == STDIN or (path.exists() and not path.is_file()):
        raise OSError("it can be read only once, and what is indexed is read twice; save it first")
    with Path(file).open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _as_it_was(file: Given, digest: str) -> bytes:
    """The bytes of a file of this SHA-256.

    Raises:
        OSError: it cannot be read any more, or holds something else by now.
    """
    content = _content(file)
    if hashlib.sha256(content).hexdigest() != digest:
        raise OSError("it was changed while it was read; index it again")
    return content


def _content(file: Given) -> bytes:
    return file.read() if isinstance(file, sources.Item) else Path(file).read_bytes()


def _not_there(
    store: Store, collection: Collection, files: Iterable[Given], done: Indexed, tally: Tally
) -> dict[Given, str]:
    """The files whose content the collection does not hold, with its SHA-256."""
    digests: dict[Given, str] = {}
    for file in dict.fromkeys(files):
        try:
            digests[file] = _digest(file)
        except OSError as error:
            done.failures.append(Failure(name_of(file), error.strerror or str(error)))
            tally.add(files=1)
    known = set(store.items.with_content(collection, list(set(digests.values()))))
    new: dict[Given, str] = {}
    for file, digest in digests.items():
        if digest in known:
            done.known += 1
            tally.add(files=1)
        else:
            new[file] = digest
            known.add(digest)
    return new


def by_file(results: Iterable[Row | Failure]) -> Iterator[list[Row] | Failure]:
    """The rows of each file together; of a file that breaks part way, the failure alone."""
    rows: list[Row] = []
    for result in results:
        if rows and rows[0].number != result.number:
            yield rows
            rows = []
        if isinstance(result, Failure):
            rows = []
            yield result
        else:
            rows.append(result)
    if rows:
        yield rows


def kept_windows(rows: list[Row]) -> tuple[Doubles, Doubles, Floats]:
    """Starts, ends and vectors of the windows that are kept of a file's."""
    start_s, end_s = np.array([row.start_s for row in rows]), np.array([row.end_s for row in rows])
    n = without_rest(start_s, end_s)
    vectors = np.stack([row.embedding for row in rows[:n]]).astype(np.float32)
    return start_s[:n], end_s[:n], vectors


def item_of(file: str, digest: str, vectors: Floats, start_s: Doubles, end_s: Doubles) -> NewItem:
    """A file with those of its windows (N, D), (N,), (N,) that a collection keeps."""
    n = without_rest(start_s, end_s)
    return NewItem(
        digest, start_s[:n], end_s[:n], vectors[:n], float(end_s[-1]), file=os.fspath(file)
    )


def _item(rows: list[Row], digest: str, audio: bytes | None) -> NewItem:
    file = os.fspath(rows[0].file)
    return NewItem(digest, *kept_windows(rows), rows[-1].end_s, file=file, audio=audio)


def vectors_digest(file: str, vectors: Floats, start_s: Doubles, end_s: Doubles) -> str:
    """What a recording is known by where its file is not at hand."""
    digest = hashlib.sha256(file.encode("utf-8", "backslashreplace"))
    for part in (vectors, start_s, end_s):
        digest.update(part.tobytes())
    return digest.hexdigest()


def _commit(store: Store, collection: Collection, held: list[NewItem], done: Indexed) -> None:
    added = store.items.add(collection, held, UNBOUNDED) if held else []
    done.added += [one.item for one in added if one.is_new and one.item]
    held.clear()
