"""Opens a database, SQLite in a folder or PostgreSQL by its address, and brings it up to date.

What is acknowledged is on the disk: SQLite writes ahead (WAL) and waits for the disk at every
commit, as PostgreSQL does by itself.
"""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    ExceptionContext,
    Table,
    create_engine,
    delete,
    event,
    literal,
    select,
    text,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as NoConnection

from service.collections.folder import (
    FILE,
    refuse_a_lost_database,
    refuse_what_cannot_be_written,
)
from service.collections.records import StoreBusy, StoreError, StoreFull, StoreUnavailable
from service.collections.refusals import READ_ONLY, WAIT_S, refusal_of
from service.collections.space import Space
from service.outage import Outage

MIGRATIONS = "service.collections:migrations"
STEADY_S = 10.0  # without a failure, after which the database answers again
BACKENDS = ("postgresql", "postgres")  # as addresses of one begin
EXPECTED = "postgresql://user:password@host:port/name"
CONNECTIONS = 8  # kept; as many again where there is much to do
BATCH = 200  # rows that are deleted in one transaction: others may write between
BATCH_BYTES = 16 << 20  # that they hold; one more that is larger goes as a whole
# A PostgreSQL whose machine is gone is known as gone; values of the address itself win
ANSWERING = {
    "connect_timeout": 5,
    "tcp_user_timeout": int(1000 * WAIT_S),
    "keepalives_idle": int(WAIT_S),  # where an answer is waited for, nothing is sent by itself
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
PAGE_BYTES = 16 << 10  # holds a few vectors; in SQLite's own of 4096 bytes half would be empty
NO_RIGHT = "42501"  # PostgreSQL's code of a user that lacks one
_LOCK = 0x564C41  # of PostgreSQL, for whoever brings the tables up to date
_BEGIN = "viola_begin"  # how a transaction begins: an execution option of ours

log = logging.getLogger(__name__)  # not structlog's, by which commands would tell every new folder


class Database:
    """Connections to one database, each in a transaction."""

    def __init__(self, engine: Engine) -> None:
        self._reading = engine
        self._writing = engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})
        self._space = Space(self._outside) if engine.dialect.name == "sqlite" else None
        self._outage = Outage(
            "the database of the collections fails",
            "the database of the collections answers again",
            steady_s=STEADY_S,
        )

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one state of the database, whatever others write meanwhile."""
        with self._translated(), self._reading.connect() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A connection whose changes are on the disk when the block has ended well, else undone."""
        with self._translated(), self._writing.begin() as connection:
            yield connection

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """A connection for statements outside any transaction; what it sets ends with the block."""
        with self._translated(), self._reading.connect() as connection:
            alone = connection.execution_options(isolation_level="AUTOCOMMIT")
            alone.detach()
            yield alone

    def delete_all(self, table: Table, condition: ColumnElement[bool]) -> int:
        """Delete the rows of a table for which a condition holds, some at a time; how many."""
        n_deleted = 0
        while True:
            with self.write() as connection:
                keys = some_to_delete(connection, table, condition)
                if not keys:
                    return n_deleted
                # A row that somebody changes while it is waited for is looked at again by
                # PostgreSQL, but by the outer condition alone
                gone = delete(table).where(table.c.id.in_(keys), condition)
                n_deleted += connection.execute(gone).rowcount
            self.empty_log()

    def empty_log(self) -> None:
        """Empty SQLite's log if that takes no waiting: else it grows with every deletion."""
        if self._space is not None:
            self._space.empty_log()

    def give_back_space(self) -> None:
        """Give the space of deleted rows back to the disk, without keeping anybody waiting.

        PostgreSQL's autovacuum does so by itself.
        """
        if self._space is not None:
            self._space.give_back()

    def close(self) -> None:
        """Let go of all connections."""
        if self._space is not None:
            self._space.close()
        self._reading.dispose()

    @contextmanager
    def _outside(self) -> Iterator[Any]:
        """A connection of the database's own kind, outside any transaction."""
        with self._translated(), self._reading.connect() as connection:
            yield connection.connection.dbapi_connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn errors that callers can do something about into `StoreError`s.

        The server's own words may hold addresses and names, and go to the log alone.
        """
        try:
            yield
            self._outage.works()
        except NoConnection as error:
            raise StoreBusy(
                f"The collections had no connection free within {WAIT_S:g} s."
            ) from error
        except (DBAPIError, sqlite3.Error, StoreUnavailable) as error:
            refusal = refusal_of(error)
            if isinstance(refusal, StoreUnavailable):
                self._outage.fails(str(getattr(error, "orig", None) or error.__cause__ or error))
            if refusal is None or refusal is error:
                raise
            raise refusal from error


def some_to_delete(
    connection: Connection, table: Table, condition: ColumnElement[bool]
) -> list[int]:
    """The keys of rows for which a condition holds: as many as one transaction may delete.

    Items count with the bytes that they hold: deleting the audio of many keeps others waiting.
    """
    n_bytes = table.c.n_bytes if "n_bytes" in table.c else literal(0)
    query = select(table.c.id, n_bytes).where(condition).order_by(table.c.id).limit(BATCH)
    rows = connection.execute(query).all()
    before = accumulate((row[1] for row in rows), initial=0)
    return [row.id for row, n in zip(rows, before, strict=False) if n < BATCH_BYTES]


def open_sqlite(folder: Path) -> Database:
    """The database in this folder, which is made if it is not there.

    Raises:
        StoreError: the folder cannot be written, has lost its database, or holds what a later
            version has written.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise StoreError(f"{folder} is a file; name a folder")
        folder.mkdir(parents=True, exist_ok=True)
        refuse_what_cannot_be_written(folder)
        refuse_a_lost_database(folder)
    except OSError as error:
        raise StoreError(f"the folder {folder} cannot be used: {error.strerror}") from None
    engine = create_engine(
        URL.create("sqlite", database=str(folder / FILE)),
        connect_args={"timeout": WAIT_S, "check_same_thread": False},
        pool_size=CONNECTIONS,
        max_overflow=CONNECTIONS,
    )
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    database = _brought_up_to_date(engine, str(folder / FILE))
    _stay_with(engine, folder / FILE)
    return database


def open_postgres(address: str) -> Database:
    """The database at a `postgresql://` address; needs the extension pgvector there.

    Raises:
        StoreError: it cannot be reached, lacks pgvector, or holds what a later version has written.
    """
    url = _address(address)
    try:
        engine = create_engine(
            url,
            pool_size=CONNECTIONS,
            max_overflow=CONNECTIONS,
            pool_pre_ping=True,
            pool_timeout=WAIT_S,
            connect_args={k: v for k, v in ANSWERING.items() if k not in url.query},
        )
        from service.collections.halves import send_as_bytes
        from service.collections.postgres_link import PostgresLink
    except (ModuleNotFoundError, NoSuchModuleError):
        raise StoreError(
            "PostgreSQL needs psycopg and pgvector: pip install 'viola-audio[postgres]'"
        ) from None
    link = PostgresLink()
    event.listen(
        engine, "do_connect", lambda dialect, record, args, kwargs: link.connect(args, kwargs)
    )
    event.listen(engine, "connect", send_as_bytes)
    if "lock_timeout" not in str(url.query.get("options", "")):
        event.listen(engine, "connect", _limit_waits)
    event.listen(engine, "handle_error", _leave_what_is_read_only)
    host = url.host or url.query.get("host") or "on this machine"  # a socket's stands in the query
    return _brought_up_to_date(engine, f"{host}, database {url.database}")


def _address(text: str) -> URL:
    """A `postgresql://` address, for the driver that is used here.

    Raises:
        StoreError: it is none; without the password that may stand in it.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # a port that is no number is the latter
        raise StoreError(f"the database's address is none; expected {EXPECTED}") from None
    if url.get_backend_name() not in BACKENDS:
        raise StoreError(f"a database at {url.drivername}:// cannot be used; expected {EXPECTED}")
    return url.set(drivername="postgresql+psycopg")


def _brought_up_to_date(engine: Engine, where: str) -> Database:
    # Before the import, which is logged as well; what a migration does we log ourselves
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from alembic.util.exc import CommandError

    database = Database(engine)
    try:
        migrate(database)
    except (StoreBusy, StoreFull):
        database.close()
        raise
    except CommandError as error:  # a step that is not among ours
        database.close()
        raise StoreError(
            f"the database {where} was written by a later version of Viola ({error}): use that "
            "one, or another place"
        ) from error
    except Exception as error:
        database.close()
        raise StoreError(f"the database {where} cannot be used: {_reason_of(error)}") from error
    return database


def _reason_of(error: Exception) -> str:
    """What a database says of a failure, without the statement, and what helps where rights do."""
    cause = error.__cause__ if isinstance(error, StoreUnavailable) else error
    said = getattr(cause, "orig", None)
    if getattr(said, "sqlstate", None) != NO_RIGHT:
        return str(said or error)
    return (
        f"{said.diag.message_primary}. The first start of a version makes or changes the tables: "  # type: ignore[union-attr]
        "let the owner of the database start it; others may then use what they are granted"
    )


def migrate(database: Database) -> None:
    """Bring the tables to what this version expects, all of it or nothing; one at a time."""
    from alembic import command  # an eighth of the start of a service that has no collections
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    with database.write() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL lock_timeout = 0"))  # others migrate as long
            _wait_for_others(connection)
        config = Config()
        config.set_main_option("script_location", MIGRATIONS)
        config.attributes["connection"] = connection
        before = MigrationContext.configure(connection).get_current_revision()
        steps = ScriptDirectory.from_config(config)
        if before and steps.get_revision(before) != steps.get_revision("head"):
            log.info("tables of the collections are changed, once nobody uses them any more")
        command.upgrade(config, "head")
        after = MigrationContext.configure(connection).get_current_revision()
    if after != before:
        told = "tables of the collections brought up to date, from step %s to %s"
        log.info(told, before or "none", after)


def _wait_for_others(connection: Connection) -> None:
    """Keep others from changing the tables of a PostgreSQL, until the transaction ends."""
    lock = {"lock": _LOCK}
    if not connection.execute(text("SELECT pg_try_advisory_xact_lock(:lock)"), lock).scalar_one():
        log.warning("another process changes the tables of the collections: it is waited for")
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), lock)


def _set_up_sqlite(connection: Any, record: object) -> None:
    connection.isolation_level = None  # transactions begin where we say so, below
    for pragma in (
        f"page_size = {PAGE_BYTES}",
        "auto_vacuum = INCREMENTAL",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "secure_delete = ON",  # what is deleted is written over
        "temp_store = MEMORY",  # no folder but the store's need be there, or have room
    ):
        connection.execute(f"PRAGMA {pragma}")


def _stay_with(engine: Engine, file: Path) -> None:
    """Refuse what follows while another file, or none, is where this one was opened.

    SQLite would go on with the one that it has open, though nobody finds it again.
    """
    opened = _identity(file)

    def check(*_: Any) -> None:
        if _identity(file) != opened:
            raise StoreUnavailable(
                "The database of the collections is not where it was opened: put it back, or "
                "start the service again."
            ) from FileNotFoundError(f"{file} was moved, deleted or replaced")

    event.listen(engine, "do_connect", check)
    event.listen(engine, "begin", check, insert=True)


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))


def _limit_waits(connection: Any, record: object) -> None:
    """Wait for others' locks as long as SQLite does."""
    connection.execute(f"SET lock_timeout = {int(1000 * WAIT_S)}")
    connection.commit()


def _leave_what_is_read_only(context: ExceptionContext) -> None:
    """Connect anew: another server may be the one to write to, and a session stays as it began."""
    if getattr(context.original_exception, "sqlstate", None) == READ_ONLY:
        context.is_disconnect = True
