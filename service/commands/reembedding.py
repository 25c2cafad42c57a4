"""Moves a collection to another model, without a server.

Letters: `N` windows, `D` embedding dim.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from models import audio
from models.audio import Warn as WarnOfOne
from models.limits import AudioError
from models.runtime import Encoder, Floats
from models.selection import Selection
from service.collections.records import Collection, Item, ItemNotFound
from service.collections.reembedding import Move
from service.collections.store import Store
from service.commands.bulk import Failure, Given, Tally, Warn, embed_files
from service.commands.indexing import UNBOUNDED, by_file, kept_windows, terms_of
from service.uploads.spool import nameless, write_whole

PAGE = 100  # items that are looked for at a time


@dataclass
class Moved:
    """What became of a move: the collection as it is now, None while items are left."""

    collection: Collection | None = None
    done: int = 0
    failures: list[Failure] = field(default_factory=list)


def n_left(store: Store, collection: Collection, encoder: Encoder) -> int:
    """Begin a move, or go on with it; returns how many items have to be embedded.

    Raises:
        StoreError: some items have no audio, or it is on its way to another model.
        ServiceError: the model has no such windows.
    """
    move = _move(store, collection, encoder)
    return 0 if move is None else store.reembedding.n_left(move)


def reembed(
    store: Store,
    collection: Collection,
    encoder: Encoder,
    tally: Tally,
    warn: Warn = lambda file, sentence: None,
) -> Moved:
    """Embed what is left, keep each item as it is done, and change the collection at the end.

    Raises:
        StoreError: as `n_left`; or the disk is full.
    """
    move = _move(store, collection, encoder)
    if move is None:
        return Moved(collection)
    moved = Moved()
    while moved.collection is None and not moved.failures:
        for some in _pages(store, move):
            _embed(store, move, encoder, some, moved, tally, warn)
        if not moved.failures:  # None where some have been added meanwhile
            moved.collection = store.reembedding.finish(move)
    return moved


def _move(store: Store, collection: Collection, encoder: Encoder) -> Move | None:
    """The move to this encoder; None where the collection is of it already."""
    old = collection.terms
    new = terms_of(encoder, old.window_s, old.hop_s)
    terms = replace(new, keeps_audio=old.keeps_audio)
    return None if terms == old else store.reembedding.begin(collection, terms, UNBOUNDED)


def _pages(store: Store, move: Move) -> Iterator[list[Item]]:
    after = 0
    while some := store.reembedding.left(move, after, PAGE):
        yield some
        after = some[-1].key


def _embed(
    store: Store,
    move: Move,
    encoder: Encoder,
    items: list[Item],
    moved: Moved,
    tally: Tally,
    warn: Warn,
) -> None:
    by_id, deleted = {item.id: item for item in items}, set[str]()

    def decode(file: Given, selection: Selection, warn: WarnOfOne) -> Iterator[Floats]:
        content, _ = nameless()
        with content:
            try:
                write_whole(content, store.items.audio(move.old, by_id[str(file)]))
            except ItemNotFound as error:
                deleted.add(str(file))
                raise AudioError("unreadable", str(error)) from None
            content.seek(0)
            yield from audio.stream(content, selection=selection, warn=warn)

    terms = move.new.terms
    rows = embed_files(
        encoder,
        list(by_id),
        window_s=terms.window_s,
        hop_s=terms.hop_s,
        tally=tally,
        warn=warn,
        decode=decode,
    )
    for result in by_file(rows):
        if isinstance(result, Failure):
            if result.file not in deleted:  # meanwhile
                moved.failures.append(result)
        else:
            store.reembedding.keep(move, by_id[result[0].file], *kept_windows(result))
            moved.done += 1
