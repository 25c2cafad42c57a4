"""Jobs, their results, uploads; on PostgreSQL also the tables of the queue."""

import sqlalchemy as sa
from alembic import op

from service.collections.schema import NEVER_AGAIN, Number

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the tables."""
    op.add_column("classifier_versions", sa.Column("job", sa.String(32)))
    op.create_index("ix_classifier_versions_job", "classifier_versions", ["job"])
    _jobs()
    _uploads()
    if op.get_bind().dialect.name == "postgresql":
        from procrastinate.schema import SchemaManager

        # Later versions of Procrastinate bring steps of their own, which become steps here
        plain = op.get_bind().execution_options(no_parameters=True)
        plain.exec_driver_sql(SchemaManager.get_schema())


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", Number, nullable=False),
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("network", sa.String(64), nullable=False),
        sa.Column("groups", sa.Text, nullable=False),
        sa.Column("request", sa.String(128)),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("asked", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("beat_at", sa.Float(53)),
        sa.Column("is_stopping", sa.Boolean, nullable=False),
        sa.Column("n_files", sa.Integer, nullable=False),
        sa.Column("n_done", sa.Integer, nullable=False),
        sa.Column("n_failed", sa.Integer, nullable=False),
        sa.Column("n_windows", sa.BigInteger, nullable=False),
        sa.Column("audio_s", sa.Float(53), nullable=False),
        sa.Column("ahead_s", sa.Float(53), nullable=False),
        sa.Column("charged_s", sa.Float(53), nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("webhook", sa.Text),
        sa.Column("webhook_state", sa.String(16)),
        sa.Column("webhook_tries", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("started_at", sa.Float(53)),
        sa.Column("ended_at", sa.Float(53)),
        sa.Column("expires_at", sa.Float(53)),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sa.UniqueConstraint("name", name="uq_jobs_name"),
        sa.UniqueConstraint("owner", "request", name="uq_jobs_owner_request"),
        **NEVER_AGAIN,
    )
    op.create_index("ix_jobs_owner_id", "jobs", ["owner", "id"])
    op.create_index("ix_jobs_state_owner", "jobs", ["state", "owner"])
    op.create_index("ix_jobs_expires_at", "jobs", ["expires_at"])
    uncharged = sa.text("audio_s + ahead_s > charged_s")
    op.create_index(
        "ix_jobs_uncharged", "jobs", ["id"], sqlite_where=uncharged, postgresql_where=uncharged
    )
    op.create_table(
        "job_results",
        sa.Column("job", Number, nullable=False),
        sa.Column("file", sa.Integer, nullable=False),
        sa.Column("part", sa.Integer, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("job", "file", "part", name="pk_job_results"),
        _hangs_on("job_results", "job", "jobs"),
    )


def _uploads() -> None:
    op.create_table(
        "uploads",
        sa.Column("id", Number, nullable=False),
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("file", sa.Text),
        sa.Column("n_bytes", sa.BigInteger, nullable=False),
        sa.Column("n_received", sa.BigInteger, nullable=False),
        sa.Column("job", Number),
        sa.Column("place", sa.Integer),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("expires_at", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_uploads"),
        sa.UniqueConstraint("name", name="uq_uploads_name"),
        sa.UniqueConstraint("job", "place", name="uq_uploads_job_place"),
        _hangs_on("uploads", "job", "jobs"),
        **NEVER_AGAIN,
    )
    op.create_index("ix_uploads_owner", "uploads", ["owner"])
    op.create_index("ix_uploads_expires_at", "uploads", ["expires_at"])
    op.create_table(
        "upload_parts",
        sa.Column("upload", Number, nullable=False),
        sa.Column("first", sa.BigInteger, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("upload", "first", name="pk_upload_parts"),
        _hangs_on("upload_parts", "upload", "uploads"),
    )


def _hangs_on(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    name = f"fk_{table}_{column}"
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=name, ondelete="CASCADE")
