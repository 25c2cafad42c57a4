"""The tables, as `migrations/` makes them; a test proves that both agree.

Everything that belongs to a recording, audio included, is in rows that refer to its row and are
deleted with it, so that deleting a recording is one transaction and leaves nothing behind.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    and_,
    text,
)
from sqlalchemy.types import TypeDecorator, TypeEngine

# SQLite numbers rows only in a column of the type INTEGER
Number = BigInteger().with_variant(Integer(), "sqlite")
NEVER_AGAIN: dict[str, Any] = {"sqlite_autoincrement": True}  # no use of a deleted row's number


class Vector(TypeDecorator[Any]):
    """A vector (D,) as it is stored: float32 in a blob, or pgvector's half precision.

    Reading is left to the stores, which read many at once.
    """

    impl = LargeBinary
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The type of the database."""
        if dialect.name == "postgresql":
            from service.collections.halves import HalfVec

            return dialect.type_descriptor(HalfVec())
        return dialect.type_descriptor(LargeBinary())

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """From a NumPy array."""
        return value if dialect.name == "postgresql" else value.astype("<f4").tobytes()


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _of(table: str) -> Column[int]:
    """A column that refers to a row of `table`: with that row its own is deleted."""
    name = table.removesuffix("s")
    return Column(name, Number, ForeignKey(f"{table}.id", ondelete="CASCADE"), nullable=False)


collections = Table(
    "collections",
    metadata,
    Column("id", Number, primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    Column("model", String(128), nullable=False),
    Column("space_id", String(128), nullable=False),
    Column("dimensions", Integer, nullable=False),
    Column("window_s", Float(53)),
    Column("hop_s", Float(53)),
    Column("keeps_audio", Boolean, nullable=False),
    Column("created_at", Float(53), nullable=False),  # seconds since 1970, as everywhere here
    # Kept in step with the rows, in the same transactions
    Column("n_items", BigInteger, nullable=False, default=0),
    Column("n_windows", BigInteger, nullable=False, default=0),
    Column("n_bytes", BigInteger, nullable=False, default=0),
    Column("revision", BigInteger, nullable=False, default=0),
    # Set in one step; the rows follow, at the next start if need be
    Column("is_deleted", Boolean, nullable=False, default=False),
    # Set while the collection is hidden: the one that it will replace
    Column("replaces", Number),
    Index("uq_collections_replaces", "replaces", unique=True),
    **NEVER_AGAIN,
)
# A name is free again as soon as its collection counts as deleted
_IS_SEEN = and_(collections.c.is_deleted.is_(False), collections.c.replaces.is_(None))
Index(
    "uq_collections_owner_name",
    collections.c.owner,
    collections.c.name,
    unique=True,
    sqlite_where=_IS_SEEN,
    postgresql_where=_IS_SEEN,
)

items = Table(
    "items",
    metadata,
    Column("id", Number, primary_key=True),
    _of("collections"),
    Column("name", String(128), nullable=False),  # the id that clients use
    Column("sha256", String(64), nullable=False),
    Column("file", Text),
    Column("duration_s", Float(53), nullable=False),
    Column("metadata", Text, nullable=False),  # JSON as it came; `metadata` is what filters read
    Column("n_windows", BigInteger, nullable=False),
    Column("n_bytes", BigInteger, nullable=False),
    Column("has_audio", Boolean, nullable=False),
    Column("created_at", Float(53), nullable=False),
    UniqueConstraint("collection", "name"),
    UniqueConstraint("collection", "sha256"),
    Index(None, "created_at"),
    **NEVER_AGAIN,
)

windows = Table(
    "windows",
    metadata,
    Column("id", Number, primary_key=True),
    Column("collection", Number, nullable=False),
    _of("items"),
    Column("start_s", Float(53), nullable=False),
    Column("end_s", Float(53), nullable=False),
    Column("vector", Vector(), nullable=False),
    Index(None, "collection", "id"),
    Index(None, "item"),
    **NEVER_AGAIN,
)

# Texts in the order of their letters' numbers, whatever the server's language
InOrder = Text().with_variant(Text(collation="C"), "postgresql")

# One row a key of an item's metadata: texts here, numbers and truth values there, names and texts
# in one Unicode form
metadata_values = Table(
    "metadata_values",
    metadata,
    Column("item", Number, ForeignKey("items.id", ondelete="CASCADE"), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("text", InOrder),
    Column("number", Float(53)),
)

# The files themselves, in parts, of collections that keep them
audio = Table(
    "audio",
    metadata,
    Column("item", Number, ForeignKey("items.id", ondelete="CASCADE"), primary_key=True),
    Column("part", Integer, primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

labels = Table(
    "labels",
    metadata,
    Column("id", Number, primary_key=True),
    Column("collection", Number, nullable=False),
    _of("items"),
    Column("label", String(128), nullable=False),
    Column("verdict", String(8), nullable=False),
    Column("start_s", Float(53)),
    Column("end_s", Float(53)),
    Column("by", String(64), nullable=False),
    Column("created_at", Float(53), nullable=False),
    CheckConstraint("verdict IN ('positive', 'negative', 'unsure')", name="verdict"),
    CheckConstraint("(start_s IS NULL) = (end_s IS NULL)", name="span"),
    Index(None, "collection", "label"),
    Index(None, "item"),
    **NEVER_AGAIN,
)

# What was taught. A name is its owner's: others may have one that is called the same
classifiers = Table(
    "classifiers",
    metadata,
    Column("id", Number, primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    Column("active", Integer, nullable=False),  # the version that answers
    Column("last", Integer, nullable=False),  # the newest there ever was: numbers do not come back
    Column("created_at", Float(53), nullable=False),
    UniqueConstraint("owner", "name"),
    **NEVER_AGAIN,
)

classifier_versions = Table(
    "classifier_versions",
    metadata,
    Column("id", Number, primary_key=True),
    _of("classifiers"),
    Column("version", Integer, nullable=False),
    Column("collection", String(64), nullable=False),  # by name: it may be gone
    Column("about", Text, nullable=False),  # JSON: card, what was asked, warnings
    Column("file", LargeBinary, nullable=False),  # ONNX
    Column("by", String(64), nullable=False),
    Column("created_at", Float(53), nullable=False),
    Column("job", String(32)),  # that made it: begun again, it makes no second one
    Column("digest", String(64)),  # SHA-256 of the file; not known where an older process wrote it
    UniqueConstraint("classifier", "version"),
    Index(None, "job"),
    **NEVER_AGAIN,
)

# Work that goes on after its request has been answered. The row says how far it is, and who works
# on it: `attempt` grows each time it is begun, and only the latest may write
jobs = Table(
    "jobs",
    metadata,
    Column("id", Number, primary_key=True),
    Column("name", String(32), nullable=False),  # the id that clients use
    Column("owner", String(64), nullable=False),
    Column("network", String(64), nullable=False),  # who pays, where there are no keys
    Column("groups", Text, nullable=False),  # JSON: those that the key was in
    Column("request", String(128)),  # the Idempotency-Key it came with
    Column("content", String(64)),  # a digest of what came with that key beside `asked`
    Column("kind", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("asked", Text, nullable=False),  # JSON
    Column("attempt", Integer, nullable=False, default=0),
    Column("tries", Integer, nullable=False, default=0),  # since the last file was done
    Column("beat_at", Float(53)),
    Column("is_stopping", Boolean, nullable=False, default=False),
    Column("n_bytes", BigInteger, nullable=False, server_default="0"),  # as asked, and its results
    Column("n_files", Integer, nullable=False),
    Column("n_done", Integer, nullable=False, default=0),
    Column("n_failed", Integer, nullable=False, default=0),
    Column("n_windows", BigInteger, nullable=False, default=0),
    Column("audio_s", Float(53), nullable=False, default=0.0),  # of the files that are done
    Column("ahead_s", Float(53), nullable=False, default=0.0),  # of the file in hand
    Column("charged_s", Float(53), nullable=False, default=0.0),
    Column("error", Text),  # JSON
    Column("webhook", Text),  # JSON: address and secret, until it has been told
    Column("webhook_state", String(16)),
    Column("webhook_tries", Integer, nullable=False, default=0),
    Column("created_at", Float(53), nullable=False),
    Column("started_at", Float(53)),
    Column("ended_at", Float(53)),
    Column("expires_at", Float(53)),
    UniqueConstraint("name"),
    UniqueConstraint("owner", "request"),
    Index(None, "owner", "id"),
    Index(None, "owner", "n_bytes"),
    Index(None, "state", "owner"),
    Index(None, "expires_at"),
    **NEVER_AGAIN,
)
UNCHARGED = text("audio_s + ahead_s > charged_s")
# Those that nobody has been charged with: few, among all that are kept
Index("ix_jobs_uncharged", jobs.c.id, sqlite_where=UNCHARGED, postgresql_where=UNCHARGED)

# Lines of JSON, in parts; a file's lines are there once it is done
job_results = Table(
    "job_results",
    metadata,
    Column("job", Number, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("file", Integer, primary_key=True),
    Column("part", Integer, primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

# Files that have come, or are coming, and that wait for a job or for its worker
uploads = Table(
    "uploads",
    metadata,
    Column("id", Number, primary_key=True),
    Column("name", String(32), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("file", Text),
    Column("n_bytes", BigInteger, nullable=False),  # as announced
    Column("n_received", BigInteger, nullable=False, default=0),
    Column("job", Number, ForeignKey("jobs.id", ondelete="CASCADE")),
    Column("place", Integer),  # among the files of the job
    Column("created_at", Float(53), nullable=False),
    Column("expires_at", Float(53), nullable=False),  # unless a job has it
    UniqueConstraint("name"),
    UniqueConstraint("job", "place"),
    Index(None, "owner"),
    Index(None, "expires_at"),
    **NEVER_AGAIN,
)

upload_parts = Table(
    "upload_parts",
    metadata,
    Column("upload", Number, ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True),
    Column("first", BigInteger, primary_key=True),  # where in the file
    Column("data", LargeBinary, nullable=False),
)
