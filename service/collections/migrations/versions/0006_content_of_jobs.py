"""A digest of a job's files, by which requests with one Idempotency-Key are told apart."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the column; of jobs that are there it is not known."""
    op.add_column("jobs", sa.Column("content", sa.String(64)))
