"""The shape of answers about jobs and uploads."""

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, Field

from service.collections.job_records import Job, State, Upload, WebhookState
from service.formats.collection_answers import moment
from service.formats.job_requests import Kind


class JobAnswer(BaseModel):
    """A job, and how far it is."""

    object: Literal["job"] = "job"
    id: str
    kind: Kind
    state: State
    asked: dict[str, Any] = Field(description="Its parameters, as they were given.")
    files: int
    files_done: int = Field(description="Whose lines are in the result, failed ones included.")
    files_failed: int
    windows: int
    audio_seconds: float = Field(description="Decoded until now.")
    error: dict[str, Any] | None = Field(default=None, description="Why it failed as a whole.")
    webhook: WebhookState | None = Field(default=None, description="Whether it was told.")
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    expires_at: datetime | None = Field(
        default=None, description="When it is deleted, with its result."
    )

    @classmethod
    def of(cls, job: Job) -> Self:
        """The answer for a job."""
        return cls.model_validate(
            {
                "id": job.id,
                "kind": job.kind,
                "state": job.state,
                "asked": job.asked,
                "files": job.n_files,
                "files_done": job.n_done,
                "files_failed": job.n_failed,
                "windows": job.n_windows,
                "audio_seconds": job.audio_s,
                "error": job.error,
                "webhook": job.webhook_state,
                "created_at": _moment(job.created_at),
                "started_at": _moment(job.started_at),
                "ended_at": _moment(job.ended_at),
                "expires_at": _moment(job.expires_at),
            }
        )


class JobList(BaseModel):
    """Your jobs, the newest first."""

    object: Literal["list"] = "list"
    data: list[JobAnswer]
    next_cursor: int | None = Field(default=None, description="Of the next page, if there is one.")


class UploadAnswer(BaseModel):
    """A file that comes in parts, as far as it has come."""

    object: Literal["upload"] = "upload"
    id: str
    file: str | None = None
    bytes: int = Field(description="As announced.")
    received: int
    is_taken: bool = Field(description="Whether a job has it.")
    expires_at: datetime | None = Field(description="When it is deleted, unless a job has it.")

    @classmethod
    def of(cls, upload: Upload) -> Self:
        """The answer for an upload."""
        return cls(
            id=upload.id,
            file=upload.file,
            bytes=upload.n_bytes,
            received=upload.n_received,
            is_taken=upload.is_taken,
            expires_at=_moment(upload.expires_at),
        )


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else moment(seconds)
