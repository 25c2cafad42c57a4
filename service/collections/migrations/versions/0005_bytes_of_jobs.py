"""Bytes that jobs and their results take, so that they count among those of their key."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column, with what there is already."""
    op.add_column("jobs", sa.Column("n_bytes", sa.BigInteger, nullable=False, server_default="0"))
    op.execute(
        "UPDATE jobs SET n_bytes = length(asked) + coalesce("
        "(SELECT sum(length(data)) FROM job_results WHERE job_results.job = jobs.id), 0)"
    )
    op.create_index("ix_jobs_owner_n_bytes", "jobs", ["owner", "n_bytes"])
