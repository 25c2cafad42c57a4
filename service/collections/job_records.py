"""What the store says of jobs and of the files that wait for them, as values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection

from service.collections.records import StoreError

State = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")
WebhookState = Literal["pending", "delivered", "failed"]
Step = Literal["run", "tell"]
"""What a queue has workers do for a job: its work, or posting its end to a webhook."""

Put = Callable[[Connection, Step, str], None]
"""Puts a step of the job of that name into the queue, as a part of the transaction."""


class JobNotFound(StoreError):
    """There is no such job, or it is somebody else's, or its results are not kept any more."""

    kind = "job-not-found"


class JobNotDone(StoreError):
    """The job has no result yet, or none at all."""

    kind = "job-not-done"


class JobGone(StoreError):
    """Whoever works on a job is to stop: it was cancelled or deleted, or another has taken it."""

    kind = "job-not-found"


class TooManyJobs(StoreError):
    """The owner has as many unfinished jobs as are allowed."""

    kind = "too-many-jobs"


class JobDiffers(StoreError):
    """Another job was submitted under the same key."""

    kind = "job-differs"


class UploadNotFound(StoreError):
    """There is no such upload, or it is somebody else's, or it was not finished in time."""

    kind = "upload-not-found"


class UploadConflict(StoreError):
    """The bytes do not follow those that have come, or the file is not whole, or a job has it."""

    kind = "upload-conflict"


class UploadsFull(StoreError):
    """The owner's files would take more bytes than are allowed."""

    kind = "uploads-full"


class JobsFull(StoreError):
    """The owner's jobs, their results and files would take more bytes than are allowed."""

    kind = "jobs-full"


@dataclass(frozen=True)
class NewJob:
    """A job that is to be done.

    Attributes:
        owner: the name of the API key; empty where there are none.
        network: the client's, which pays where there are no keys.
        groups: of the key; it may use their collections.
        asked: its parameters.
        uploads: names of the files, in their order.
        webhook: `url` and `secret` of whoever is to be told at the end.
        request: the client's idempotency key; a request with the same key is the same job.
        content: a digest of the files and the webhook, by which other requests with that key are
            recognised.
    """

    owner: str
    network: str
    kind: str
    asked: Mapping[str, Any]
    uploads: tuple[str, ...] = ()
    webhook: Mapping[str, str] | None = None
    request: str | None = None
    groups: tuple[str, ...] = ()
    content: str | None = None


@dataclass(frozen=True)
class Job:
    """A job as it is; `key` is its number in the store, `id` is what clients say.

    Attributes:
        n_done: files whose lines are in the result, those that failed included.
        audio_s: seconds that were decoded until now.
    """

    key: int
    id: str
    owner: str
    network: str
    groups: tuple[str, ...]
    kind: str
    state: State
    asked: Mapping[str, Any]
    attempt: int
    n_files: int
    n_done: int
    n_failed: int
    n_windows: int
    audio_s: float
    error: Mapping[str, Any] | None
    webhook: Mapping[str, str] | None
    webhook_state: WebhookState | None
    webhook_tries: int
    created_at: float
    started_at: float | None
    ended_at: float | None
    expires_at: float | None


@dataclass(frozen=True)
class FileDone:
    """What became of one file of a job."""

    audio_s: float = 0.0
    n_windows: int = 0
    has_failed: bool = False


@dataclass(frozen=True)
class Charge:
    """Seconds of audio that a job has cost and that nobody has been charged with yet."""

    owner: str
    network: str
    audio_s: float


@dataclass(frozen=True)
class Backlog:
    """Jobs of a kind that have not ended; the oldest was submitted at `oldest_at`."""

    kind: str
    state: str
    n_jobs: int
    oldest_at: float


@dataclass(frozen=True)
class Upload:
    """A file as far as it has come; `key` is its number in the store, `id` is what clients say."""

    key: int
    id: str
    file: str | None
    n_bytes: int
    n_received: int
    is_taken: bool
    expires_at: float
