"""Why the service's inner layers give up a request or one file of it, without a word of HTTP.

`service/errors.py` turns these into answers: the reason is the name of a problem in
`service/problems.py`, whose table has its status, its title and its remedy.
"""

from typing import Literal

from models.limits import AudioError

Reason = Literal[
    "audio-not-kept",
    "bad-example",
    "classifier-not-found",
    "classifier-taken",
    "collection-differs",
    "collection-full",
    "collection-not-found",
    "deadline",
    "decode-timeout",
    "decoded-too-large",
    "decoder-unavailable",
    "fit-failed",
    "internal",
    "invalid-parameter",
    "item-conflict",
    "item-not-found",
    "job-differs",
    "job-not-done",
    "job-not-found",
    "jobs-full",
    "model-not-found",
    "model-unavailable",
    "not-in-recording",
    "nothing-to-learn",
    "overloaded",
    "request-too-long",
    "space-mismatch",
    "storage-full",
    "storage-unavailable",
    "teaching-unavailable",
    "too-long",
    "too-many-jobs",
    "too-many-to-compare",
    "too-many-windows",
    "too-much-memory",
    "too-short",
    "undecodable",
    "upload-conflict",
    "upload-not-found",
    "uploads-full",
    "version-in-use",
]


class ServiceError(Exception):
    """A request, or one file of it, that gets no answer.

    Attributes:
        reason: which kind of problem it is.
        message: a sentence that may be sent to the client.
        limit, observed, unit: what was exceeded, and the value that met it.
        param: the parameter of the request that is to blame.
        value: what that parameter was.
        retry_after_s: when the same request may work.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        limit: float | None = None,
        observed: float | None = None,
        unit: str | None = None,
        param: str | None = None,
        value: float | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.reason: Reason = reason
        self.message = message
        self.limit, self.observed, self.unit = limit, observed, unit
        self.param, self.value = param, value
        self.retry_after_s = retry_after_s


Failure = AudioError | ServiceError
"""What may stand in the place of a file's answer."""
