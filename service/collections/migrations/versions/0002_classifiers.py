"""Classifiers that were taught, each with its versions."""

import sqlalchemy as sa
from alembic import op

from service.collections.schema import NEVER_AGAIN, Number

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "classifiers",
        sa.Column("id", Number, nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("active", sa.Integer, nullable=False),
        sa.Column("last", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_classifiers"),
        sa.UniqueConstraint("owner", "name", name="uq_classifiers_owner_name"),
        **NEVER_AGAIN,
    )
    op.create_table(
        "classifier_versions",
        sa.Column("id", Number, nullable=False),
        sa.Column("classifier", Number, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("collection", sa.String(64), nullable=False),
        sa.Column("about", sa.Text, nullable=False),
        sa.Column("file", sa.LargeBinary, nullable=False),
        sa.Column("by", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_classifier_versions"),
        sa.ForeignKeyConstraint(
            ["classifier"],
            ["classifiers.id"],
            name="fk_classifier_versions_classifier",
            ondelete="CASCADE",
        ),
        sa.UniqueConstraint(
            "classifier", "version", name="uq_classifier_versions_classifier_version"
        ),
        **NEVER_AGAIN,
    )
