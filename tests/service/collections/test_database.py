"""A database that is out of reach is one sentence at the start, and a refusal later."""

import threading
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import TimeoutError as PoolTimeout
from structlog.testing import capture_logs

from service.collections import database
from service.collections.database import Database, open_postgres, open_sqlite
from service.collections.folder import FILE
from service.collections.records import StoreBusy, StoreError, StoreUnavailable
from service.outage import Outage
from tests.service.conftest import until

NOBODY = "postgresql://nobody:secret@127.0.0.1:1/viola"


def test_a_start_without_it_names_it_and_the_reason() -> None:
    pytest.importorskip("psycopg")
    pytest.importorskip("pgvector")
    with pytest.raises(StoreError, match=r"127\.0\.0\.1, database viola cannot be used: .*port 1"):
        open_postgres(NOBODY)


def test_one_at_a_socket_is_named_by_its_folder() -> None:
    pytest.importorskip("psycopg")
    pytest.importorskip("pgvector")
    with pytest.raises(StoreError, match="the database /nowhere, database viola cannot be used"):
        open_postgres("postgresql:///viola?host=/nowhere")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("postgresql://ann:secret@host:port/viola", "address is none"),
        ("no address", "address is none"),
        ("mysql://ann:secret@host/viola", "mysql:// cannot be used"),
        ("sqlite:///data/viola.sqlite", "sqlite:// cannot be used"),
    ],
)
def test_an_address_of_no_postgresql_is_refused_with_what_is_expected(
    address: str, words: str
) -> None:
    with pytest.raises(StoreError, match=rf"{words}; expected postgresql://user:") as error:
        open_postgres(address)
    assert "secret" not in str(error.value)


def test_a_connection_that_cannot_be_made_is_refused_for_now() -> None:
    pytest.importorskip("psycopg")
    lost = Database(create_engine(NOBODY.replace("postgresql", "postgresql+psycopg")))
    for use in (lost.read, lost.write):
        with pytest.raises(StoreUnavailable, match="cannot be used now") as error, use():
            pass
        assert error.value.kind == "storage-unavailable"


def test_a_pool_without_a_free_connection_is_one_as_well() -> None:
    there = Database(create_engine("sqlite://"))
    with pytest.raises(StoreBusy, match="no connection free"), there.read():
        raise PoolTimeout


def test_a_database_that_is_away_is_one_line_and_one_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "STEADY_S", 0.0)
    there = open_sqlite(tmp_path)
    file, elsewhere = tmp_path / FILE, tmp_path / "elsewhere"

    def use() -> None:
        with there.read() as connection:
            connection.execute(text("SELECT 1"))

    with capture_logs() as logs:
        for _ in range(2):
            file.rename(elsewhere)
            for _ in range(3):
                with pytest.raises(StoreUnavailable, match="not where it was opened"):
                    use()
            elsewhere.rename(file)
            for _ in range(2):
                use()
    there.close()
    fails, back = "the database of the collections fails", "the database of the collections answers"
    assert [line["event"] for line in logs] == [fails, f"{back} again"] * 2
    assert logs[0]["reason"] == f"{file} was moved, deleted or replaced"


def test_what_works_between_failures_is_not_back() -> None:
    outage = Outage("lost", "back", steady_s=60)
    with capture_logs() as logs:
        for _ in range(3):
            outage.fails("gone")
            outage.works()
    assert [(line["event"], line["reason"]) for line in logs] == [("lost", "gone")]


def test_a_mistake_of_ours_stays_one(postgres: str) -> None:
    there = open_postgres(postgres)
    with pytest.raises(Exception, match="does not exist") as error, there.read() as connection:
        connection.execute(text("SELECT * FROM none"))
    assert not isinstance(error.value, StoreError)
    there.close()


def test_a_user_who_may_not_change_the_tables_is_told_who_may(postgres: str) -> None:
    there = open_postgres(postgres)
    with there.write() as connection:
        connection.execute(text("CREATE ROLE viola_guest"))
    with pytest.raises(StoreError, match=r"cannot be used: permission denied .*the owner") as error:
        open_postgres(f"{postgres}&options=-c%20role%3Dviola_guest")
    assert "\n" not in str(error.value)
    with there.write() as connection:
        connection.execute(text("DROP ROLE viola_guest"))
    there.close()


def test_a_start_that_waits_for_another_to_change_the_tables_says_so(
    postgres: str, caplog: pytest.LogCaptureFixture
) -> None:
    there = open_postgres(postgres)
    started: list[Database] = []
    second = threading.Thread(target=lambda: started.append(open_postgres(postgres)))
    with there.write() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": database._LOCK})
        second.start()
        until(lambda: "it is waited for" in caplog.text, 20)
    second.join()
    for one in (there, *started):
        one.close()
    assert started
