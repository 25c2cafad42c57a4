"""A database that is out of reach is one sentence at the start, and a refusal later."""

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.collections import database
from service.collections.database import Database, open_postgres
from service.collections.records import StoreBusy, StoreError, StoreUnavailable

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
    with pytest.raises(StoreBusy, match="no connection free"), database._translated():
        raise PoolTimeout


def test_a_mistake_of_ours_stays_one(postgres: str) -> None:
    there = open_postgres(postgres)
    with pytest.raises(Exception, match="does not exist") as error, there.read() as connection:
        connection.execute(text("SELECT * FROM none"))
    assert not isinstance(error.value, StoreError)
    there.close()
