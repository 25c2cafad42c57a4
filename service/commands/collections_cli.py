"""`viola index`, `search`, `reembed`, `vectors`: collections in a folder or a database."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from models.modelfile import DEFAULT_MODEL
from models.terminal import Force, Threads, console, counted, keep_existing, printable, text
from service.commands.progress import progress, show_failure, show_warning
from service.commands.remote_paths import is_url

if TYPE_CHECKING:
    from models.runtime import Encoder
    from service.collections.filters import Filter
    from service.collections.records import Collection, Terms
    from service.collections.search import Found
    from service.collections.store import Store
    from service.commands.job import Job

NARROW, WIDE = 80, 240  # columns
_TRUTHS = {"true": True, "false": False}  # as JSON, and so the answers, have them

PLACE = (
    "The folder of collections: that of a server, or any other; or postgresql://... "
    "(the password in PGPASSWORD or ~/.pgpass). For a table of vectors: viola embed -o."
)
Data = Annotated[str, typer.Option("-o", "--data", envvar="VIOLA_DATA", help=PLACE)]
Name = Annotated[str, typer.Option("--collection", help="The name of the collection.")]
Owner = Annotated[
    str,
    typer.Option(
        help="The API key whose collection it is, where a server has keys; GROUP:NAME is a group's."
    ),
]
Model = Annotated[Path, typer.Option(help="A model file.", show_default="the default encoder")]


def index(
    files: Annotated[
        list[str],
        typer.Argument(
            help="Audio files of any format and length, folders and tars of them; tables of "
            "viola embed."
        ),
    ],
    data: Data,
    collection: Name = "sounds",
    owner: Owner = "",
    model: Model = DEFAULT_MODEL,
    window_s: Annotated[
        float, typer.Option(help="Seconds of a window; 0: one vector a file.")
    ] = 5.0,
    hop_s: Annotated[
        float | None, typer.Option(help="Seconds from one window to the next; else window-s.")
    ] = None,
    keep_audio: Annotated[
        bool,
        typer.Option(
            "--keep-audio", help="Keep the files too, so that viola reembed can change the model."
        ),
    ] = False,
    threads: Threads = None,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Embed on Ray Data: local, or a cluster's address. Then files, folders, URLs, and "
            "Parquet lists of paths; what was stopped goes on."
        ),
    ] = None,
) -> None:
    """Add audio files to a collection, to be searched by viola search or over HTTP.

    The collection is made if it is not there. Files that it holds already are passed over, so that
    the command may be run again after it was stopped. The vectors of tables (.npz, .parquet,
    .jsonl) are taken as they are. Exits with 1 if a file failed.
    """
    from rich.console import Console

    from service.commands.bulk import audio_files
    from service.commands.indexing import index_files, terms_of
    from service.commands.job import Job
    from service.commands.vector_tables import add_table, is_table

    check_name("--collection", collection)
    if is_table(Path(data)) and not Path(data).is_dir():
        raise typer.BadParameter(
            f"-o {data} names a table; here it is the folder of collections, such as data. viola "
            "embed -o writes a table of vectors"
        )
    if ray is not None and keep_audio:
        raise typer.BadParameter("choose --ray or --keep-audio: a cluster sends vectors alone")
    owner = whose(owner, collection)
    console = Console(stderr=True, soft_wrap=True)
    with _opened(data, model, threads) as (store, encoder):
        paths = [] if ray is not None else list(map(Path, files))
        sounds = audio_files([file for file in paths if not is_table(file)])
        terms = terms_of(encoder, window_s or None, hop_s, keeps_audio=keep_audio)
        with _collection(store, owner, collection, terms) as into:
            if ray is not None:
                job = Job(str(model), threads or 1, terms.window_s, terms.hop_s, digests=True)
                return _index_on_ray(store, into, job, files, ray, data)
            tables = [add_table(store, into, file) for file in paths if is_table(file)]
            with progress(console, len(sounds)) as tally:
                warn = partial(show_warning, console)
                done = index_files(store, into, encoder, sounds, tally, warn)
            now = store.collections.get(owner, collection)
    failures = [*(failure for table in tables for failure in table.failures), *done.failures]
    for failure in failures:
        show_failure(console, failure)
    n_added = len(done.added) + sum(table.added for table in tables)
    n_known = done.known + sum(table.known for table in tables)
    console.print(_summary(data, now, n_added, n_known, len(failures)), markup=False)
    if failures:
        raise typer.Exit(1)


@contextmanager
def _collection(store: "Store", owner: str, name: str, terms: "Terms") -> Iterator["Collection"]:
    """A collection, made if it is not there; gone again if nothing came into it."""
    from service.commands.indexing import UNBOUNDED

    into, is_new = store.collections.put(owner, name, terms, UNBOUNDED)
    try:
        yield into
    finally:
        if is_new and not store.collections.get(owner, name).n_items:
            store.collections.delete(owner, name)


def _summary(data: str, now: "Collection", n_added: int, n_known: int, n_failed: int) -> str:
    """What the command has done, and what is there now; what is empty was not kept."""
    held = f"{now.name} holds {_held(now)}" if now.n_items else f"nothing came into {now.name}"
    return f"{shown(data)}: {held}; {n_added} added, {n_known} there already, {n_failed} failed"


def _held(now: "Collection") -> str:
    return f"{counted(now.n_items, 'recording')}, {counted(now.n_windows, 'window')}"


def _index_on_ray(
    store: "Store", into: "Collection", job: "Job", files: list[str], address: str, data: str
) -> None:
    """`viola index --ray`: the same, the embedding on Ray."""
    from service.commands.bulk_run import ending_the_command, refuse_stdin

    refuse_stdin(files)
    with ending_the_command():
        from service.commands.index_run import index_on_ray, write_failures

        added = index_on_ray(store, into, job, files, address)
        now = store.collections.get(into.owner, into.name)
        summary = _summary(data, now, added.new, added.known, len(added.failures))
        console.print(summary, markup=False)
        if added.failures:
            path = Path(".") if is_url(data) else Path(data)
            path /= f"{now.name}.errors.jsonl"
            write_failures(path, added.failures)
            console.print(f"why they failed: {path}", markup=False)
    if added.failures:
        raise typer.Exit(1)


def search(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Audio files that sound like what is looked for.")
    ] = None,
    data: Data = "data",
    collection: Name = "sounds",
    owner: Owner = "",
    model: Model = DEFAULT_MODEL,
    like: Annotated[
        list[str] | None,
        typer.Option(
            help="ID of an item like it, or ID#t=START,END; may be given again.", parser=text
        ),
    ] = None,
    unlike: Annotated[
        list[str] | None, typer.Option(help="The same of what is unlike it.", parser=text)
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(help="KEY=VALUE of an item's metadata; may be given again.", parser=text),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="Only items with this label; may be given again.", parser=text),
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Hits, best first.")] = 10,
    windows: Annotated[
        bool, typer.Option("--windows", help="All windows, not the best of each recording.")
    ] = False,
    approximate: Annotated[
        bool,
        typer.Option(
            "--approximate",
            help="Of a very large collection look at some vectors, by an index that is made first.",
        ),
    ] = False,
    threads: Threads = None,
) -> None:
    """Find what in a collection sounds like some files, or like some of its items.

    The score is a cosine; "above" is the percentage of random pairs of the collection that score
    less. A file is one example as a whole. Exits with 1 if a file failed.
    """
    from rich.console import Console

    from service.commands.indexing import find

    if not files and not like:
        raise typer.BadParameter("name a file, or an item by --like")
    console = Console(stderr=True, soft_wrap=True)
    with _opened(data, model, threads, must_exist=True) as (store, encoder):
        found_in = store.collections.get(whose(owner, collection), collection)
        _check_space(found_in, encoder)
        found, failures = find(
            store,
            found_in,
            encoder,
            files or [],
            like=like or (),
            unlike=unlike or (),
            filter=_filter(where, label),
            top_k=top_k,
            by_item=not windows,
            exact=not approximate,
        )
    for failure in failures:
        show_failure(console, failure)
    _print(found)
    if failures:
        raise typer.Exit(1)


def reembed(
    data: Data = "data",
    collection: Name = "sounds",
    owner: Owner = "",
    model: Model = DEFAULT_MODEL,
    give_up: Annotated[
        bool, typer.Option("--give-up", help="Forget what has been computed of a move instead.")
    ] = False,
    threads: Threads = None,
) -> None:
    """Move a collection that keeps its audio to another model.

    Until the last recording is done it stays as it was; then it changes in one step, with ids,
    metadata and labels as they were. A command that was stopped goes on when it is run again. Exits
    with 1 if a recording cannot be read any more: delete it, and run the command again.
    """
    from rich.console import Console

    from service.commands.reembedding import n_left
    from service.commands.reembedding import reembed as move

    console = Console(stderr=True, soft_wrap=True)
    with _opened(data, model, threads, must_exist=True) as (store, encoder):
        found = store.collections.get(whose(owner, collection), collection)
        if give_up:
            store.reembedding.give_up(found)
            console.print(
                f"{shown(data)}: {collection} stays with {found.terms.model}", markup=False
            )
            return
        with progress(console, n_left(store, found, encoder)) as tally:
            moved = move(store, found, encoder, tally, partial(show_warning, console))
    for failure in moved.failures:
        show_failure(console, failure)
    now = moved.collection or found
    console.print(
        f"{shown(data)}: {collection} is of {now.terms.model}, {_held(now)}; {moved.done} embedded "
        f"now, {len(moved.failures)} failed",
        markup=False,
    )
    if moved.failures:
        raise typer.Exit(1)


def vectors(
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Table to write: .npz, .npy, .parquet or .jsonl.")
    ],
    data: Annotated[str, typer.Option("--data", envvar="VIOLA_DATA", help=PLACE)] = "data",
    collection: Name = "sounds",
    owner: Owner = "",
    model: Model = DEFAULT_MODEL,
    force: Force = False,
) -> None:
    """Write all vectors of a collection into a table, as viola embed does; viola index reads it."""
    from rich.console import Console

    from service.commands.tables import files_of
    from service.commands.vector_tables import write_table

    for file in files_of(out):
        keep_existing(file, force=force)
    with _opened(data, model, 1, must_exist=True) as (store, encoder):
        found = store.collections.get(whose(owner, collection), collection)
        _check_space(found, encoder)
        n_rows = write_table(store, found, encoder.card, out)
    Console(stderr=True, soft_wrap=True).print(f"{out}: {counted(n_rows, 'vector')}", markup=False)


def check_name(parameter: str, name: str) -> None:
    """Refuse a name by which requests could not reach a collection or a classifier."""
    from service.naming import NAME_RULE, is_name

    if not is_name(name):
        raise typer.BadParameter(f"{parameter} {name!r}: expected {NAME_RULE}")


def whose(owner: str, name: str) -> str:
    """Who owns a collection or a classifier of this name: the group that it names, else `owner`."""
    from service.naming import group_in

    group = group_in(name)
    return owner if group is None else group


def opened_store(data: str) -> "Store":
    """The store in a folder, or at a database's address.

    Raises:
        StoreError: it cannot be used.
    """
    from service.collections.store import open_shared_store, open_store

    return open_shared_store(data) if is_url(data) else open_store(Path(data))


def holds_collections(data: str) -> bool:
    """Whether a folder has been used; a database is asked by opening it."""
    from service.collections.folder import FILE

    return is_url(data) or (Path(data) / FILE).is_file()


def shown(data: str) -> str:
    """A folder, or an address without its password, as it may be shown."""
    if not is_url(data):
        return data
    from sqlalchemy.engine import make_url

    return make_url(data).render_as_string(hide_password=True)


@contextmanager
def _opened(
    data: str, model: Path, threads: int | None, *, must_exist: bool = False
) -> Iterator[tuple["Store", "Encoder"]]:
    """The store, in a folder or at an address, and the encoder; what they refuse ends it with 2."""
    from rich.console import Console

    from models.runtime import Encoder
    from service.exceptions import ServiceError
    from service.telemetry import logs

    logs.to_stderr()
    try:
        if must_exist and not holds_collections(data):
            raise ValueError(f"{data} holds no collections: viola index FILES -o {data} makes one")
        encoder = Encoder.open(model, threads=threads)
        store = opened_store(data)
        try:
            yield store, encoder
        finally:
            store.close()
    except (OSError, ValueError, ServiceError) as error:
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", markup=False, style="red")
        raise typer.Exit(2) from error


def _check_space(collection: "Collection", encoder: "Encoder") -> None:
    card = encoder.card
    if collection.terms.space_id != card.space_id:
        raise ValueError(
            f"the {collection.of_space}; {card.name} computes space {card.space_id}: name the file "
            f"of the former, --model, or {collection.way_to_another_space}"
        )


def _filter(where: list[str] | None, label: list[str] | None) -> "Filter":
    """The filter of the options; a value that reads as a number or truth value means that too."""
    from service.collections.filters import Filter
    from service.collections.records import Value

    metadata: dict[str, list[Value]] = {}
    for said in where or ():
        name, equals, value = said.partition("=")
        if not (name and equals):
            raise ValueError(f"--where {said}: expected KEY=VALUE")
        values = metadata.setdefault(name, [])
        values.append(value)
        if value in _TRUTHS:
            values.append(_TRUTHS[value])
        with suppress(ValueError):
            values.append(float(value))
    return Filter(metadata=metadata, labels=label or None)


def _print(found: "Found") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name, justify in (("score", "right"), ("above", "right"), ("from", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("to", justify="right")
    table.add_column("id", no_wrap=True)
    table.add_column("file", overflow="fold")
    for hit in found.hits:
        above = "" if hit.percentile is None else f"{hit.percentile:.1f} %"
        table.add_row(
            f"{hit.score:.3f}",
            above,
            f"{hit.start_s:.1f} s",
            f"{hit.end_s:.1f} s",
            hit.item.id,
            printable(hit.item.file or ""),
        )
    if not found.hits:
        Console(stderr=True).print("nothing was found")
        return
    console = Console()
    # Whoever reads a pipe wants a line a hit; of a narrow table little but the ids would be seen
    width = max(console.width, NARROW) if console.is_terminal else WIDE
    Console(width=width).print(table, markup=False)
