"""Collections that are on their way to another model, each beside the one that it will replace."""

import sqlalchemy as sa
from alembic import op

from service.collections.schema import Number

revision = "0003"
down_revision = "0002"

NAME = "uq_collections_owner_name"


def upgrade() -> None:
    """Let such a collection have the name of the other."""
    op.add_column("collections", sa.Column("replaces", Number))
    op.create_index("uq_collections_replaces", "collections", ["replaces"], unique=True)
    op.drop_index(NAME, "collections")
    op.create_index(
        NAME,
        "collections",
        ["owner", "name"],
        unique=True,
        sqlite_where=sa.text("is_deleted IS 0 AND replaces IS NULL"),
        postgresql_where=sa.text("is_deleted IS false AND replaces IS NULL"),
    )
