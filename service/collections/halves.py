"""pgvector's half-precision vectors, sent to PostgreSQL as bytes: their text takes 3 ms each."""

from collections.abc import Callable
from typing import Any

from pgvector import HalfVector
from pgvector.sqlalchemy import HALFVEC
from psycopg.adapt import Dumper
from psycopg.pq import Format
from sqlalchemy import Dialect


class HalfVec(HALFVEC):
    """The type of a column or of a value, from NumPy arrays (D,)."""

    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], HalfVector]:
        """Rounds to half precision."""
        return HalfVector


class _AsBytes(Dumper):
    format = Format.BINARY

    def dump(self, obj: HalfVector) -> bytes:
        return obj.to_binary()


def send_as_bytes(connection: Any, record: object) -> None:
    """Prepare a new connection of psycopg for values of that type."""
    connection.adapters.register_dumper(HalfVector, _AsBytes)
