"""The SHA-256 of a classifier's file, by which damage is found when it is read."""

import hashlib

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

versions = sa.table(
    "classifier_versions",
    sa.column("id"),
    sa.column("file", sa.LargeBinary),
    sa.column("digest"),
)


def upgrade() -> None:
    """Add the column; what is there now is taken to be whole."""
    op.add_column("classifier_versions", sa.Column("digest", sa.String(64)))
    connection = op.get_bind()
    for key in connection.execute(sa.select(versions.c.id)).scalars().all():
        mine = versions.c.id == key
        content = connection.execute(sa.select(versions.c.file).where(mine)).scalar_one()
        digest = hashlib.sha256(content).hexdigest()
        connection.execute(sa.update(versions).where(mine).values(digest=digest))
