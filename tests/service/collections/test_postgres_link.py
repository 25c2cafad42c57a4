"""A PostgreSQL that hangs is given up, and found again; one that is slow is waited for."""

import threading
import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

pytest.importorskip("psycopg")
pytest.importorskip("pgvector")

from service.collections import database, postgres_link
from service.collections.database import Database, open_postgres
from service.collections.records import StoreBusy, StoreUnavailable
from tests.service.collections.postgres_server import PostgresServer, started_server
from tests.service.conftest import until


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with started_server() as server:
        yield server


@pytest.fixture
def opened(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.setattr(postgres_link, "HANG_S", 0.5)
    monkeypatch.setattr(postgres_link, "CONNECT_S", 2)  # the least that libpq knows
    there = open_postgres(f"{server.address}&connect_timeout=2")
    yield there
    there.close()


def ask(there: Database, statement: str = "SELECT 1") -> None:
    with there.read() as connection:
        connection.execute(text(statement))


def refused(there: Database) -> float:
    """Seconds until a call is refused."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        ask(there)
    return time.monotonic() - began


def test_a_server_that_hangs_is_waited_for_once_and_found_again(
    server: PostgresServer, opened: Database
) -> None:
    ask(opened)
    with capture_logs() as logs, server.frozen():
        waits: list[float] = []
        threads = [threading.Thread(target=lambda: waits.append(refused(opened))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(waits) == len(threads)
        assert max(waits) < 10
        began = time.monotonic()
        assert sum(refused(opened) < 0.2 for _ in range(50)) >= 48  # one may look for it
        assert time.monotonic() - began < 8
    until(lambda: _answers(opened))
    events = [entry["event"] for entry in logs if entry["event"].startswith("postgresql")]
    assert events == ["postgresql hangs"]


def test_a_statement_in_hand_is_given_up_as_well(server: PostgresServer, opened: Database) -> None:
    with opened.write() as connection:
        connection.execute(text("SELECT 1"))
        with server.frozen():
            began = time.monotonic()
            with pytest.raises(Exception, match="hangs") as error:
                connection.execute(text("SELECT 2"))
            assert time.monotonic() - began < 8
            assert error.value.connection_invalidated  # type: ignore[attr-defined]
            connection.rollback()
            connection.close()
    until(lambda: _answers(opened))


def test_a_server_that_is_slow_is_waited_for(opened: Database) -> None:
    ask(opened, "SELECT pg_sleep(2)")


def test_a_lock_that_others_keep_is_busy(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "WAIT_S", 0.5)
    there, other = open_postgres(server.address), open_postgres(server.address)
    with other.write() as keeping:
        keeping.execute(text("LOCK TABLE collections"))
        with pytest.raises(StoreBusy):
            ask(there, "SELECT * FROM collections")
    ask(there, "SELECT * FROM collections")
    there.close()
    other.close()


def test_a_transaction_that_the_server_ends_is_not_usable_now(server: PostgresServer) -> None:
    limit = "-c idle_in_transaction_session_timeout=100"
    there = open_postgres(f"{server.address}&options={quote(limit)}")

    def dawdle() -> None:
        with there.read() as connection:
            connection.execute(text("SELECT 1"))
            time.sleep(0.5)
            connection.execute(text("SELECT 1"))

    with pytest.raises(StoreUnavailable):
        dawdle()
    ask(there)
    there.close()


@pytest.mark.parametrize("state", ["53200", "53300", "25P03", "25P04", "57014"])
def test_too_little_of_anything_but_disk_is_not_a_full_disk(
    server: PostgresServer, state: str
) -> None:
    there = open_postgres(server.address)
    with pytest.raises(StoreUnavailable):
        ask(there, f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END $$")
    there.close()


def _answers(there: Database) -> bool:
    try:
        ask(there)
    except StoreUnavailable:
        return False
    return True
