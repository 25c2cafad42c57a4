"""Collections, items, windows, metadata, audio, labels."""

import sqlalchemy as sa
from alembic import op

from service.collections.schema import NEVER_AGAIN, Number, Vector

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    _collections()
    _items()
    _labels()


def _collections() -> None:
    op.create_table(
        "collections",
        sa.Column("id", Number, nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("space_id", sa.String(128), nullable=False),
        sa.Column("dimensions", sa.Integer, nullable=False),
        sa.Column("window_s", sa.Float(53)),
        sa.Column("hop_s", sa.Float(53)),
        sa.Column("keeps_audio", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("n_items", sa.BigInteger, nullable=False),
        sa.Column("n_windows", sa.BigInteger, nullable=False),
        sa.Column("n_bytes", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("is_deleted", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_collections"),
        **NEVER_AGAIN,
    )
    op.create_index(
        "uq_collections_owner_name",
        "collections",
        ["owner", "name"],
        unique=True,
        sqlite_where=sa.text("is_deleted IS 0"),
        postgresql_where=sa.text("is_deleted IS false"),
    )


def _items() -> None:
    op.create_table(
        "items",
        sa.Column("id", Number, nullable=False),
        sa.Column("collection", Number, nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("file", sa.Text),
        sa.Column("duration_s", sa.Float(53), nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("n_windows", sa.BigInteger, nullable=False),
        sa.Column("n_bytes", sa.BigInteger, nullable=False),
        sa.Column("has_audio", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_items"),
        _hangs_on("items", "collection", "collections"),
        sa.UniqueConstraint("collection", "name", name="uq_items_collection_name"),
        sa.UniqueConstraint("collection", "sha256", name="uq_items_collection_sha256"),
        **NEVER_AGAIN,
    )
    op.create_index("ix_items_created_at", "items", ["created_at"])
    op.create_table(
        "windows",
        sa.Column("id", Number, nullable=False),
        sa.Column("collection", Number, nullable=False),
        sa.Column("item", Number, nullable=False),
        sa.Column("start_s", sa.Float(53), nullable=False),
        sa.Column("end_s", sa.Float(53), nullable=False),
        sa.Column("vector", Vector(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_windows"),
        _hangs_on("windows", "item", "items"),
        **NEVER_AGAIN,
    )
    op.create_index("ix_windows_collection_id", "windows", ["collection", "id"])
    op.create_index("ix_windows_item", "windows", ["item"])
    op.create_table(
        "metadata_values",
        sa.Column("item", Number, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("text", sa.Text),
        sa.Column("number", sa.Float(53)),
        sa.PrimaryKeyConstraint("item", "name", name="pk_metadata_values"),
        _hangs_on("metadata_values", "item", "items"),
    )
    op.create_table(
        "audio",
        sa.Column("item", Number, nullable=False),
        sa.Column("part", sa.Integer, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("item", "part", name="pk_audio"),
        _hangs_on("audio", "item", "items"),
    )


def _labels() -> None:
    op.create_table(
        "labels",
        sa.Column("id", Number, nullable=False),
        sa.Column("collection", Number, nullable=False),
        sa.Column("item", Number, nullable=False),
        sa.Column("label", sa.String(128), nullable=False),
        sa.Column("verdict", sa.String(8), nullable=False),
        sa.Column("start_s", sa.Float(53)),
        sa.Column("end_s", sa.Float(53)),
        sa.Column("by", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_labels"),
        _hangs_on("labels", "item", "items"),
        sa.CheckConstraint(
            "verdict IN ('positive', 'negative', 'unsure')", name=op.f("ck_labels_verdict")
        ),
        sa.CheckConstraint("(start_s IS NULL) = (end_s IS NULL)", name=op.f("ck_labels_span")),
        **NEVER_AGAIN,
    )
    op.create_index("ix_labels_collection_label", "labels", ["collection", "label"])
    op.create_index("ix_labels_item", "labels", ["item"])


def _hangs_on(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    name = f"fk_{table}_{column}"
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=name, ondelete="CASCADE")
