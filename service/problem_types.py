"""Every way a request can fail, once: status, title and what to do about it (RFC 9457)."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ProblemType:
    """One kind of failure: what `type` in an answer stands for."""

    slug: str
    status: int
    title: str
    remedy: str

    @property
    def uri(self) -> str:
        """Where the kind is documented; relative, so that it resolves on any host."""
        return f"/problems/{self.slug}"


# Of any address: before a route has been found
_ADDRESS = (
    ("not-found", 404, "No such resource", "`/docs` lists what there is."),
    ("method-not-allowed", 405, "Method not allowed", "The `Allow` header names the methods."),
    (
        "head-too-large",
        431,
        "Request head too large",
        "Send fewer or shorter headers, and parameters in the form instead of the address.",
    ),
)

# Of the request that a route has been found for
_REQUEST = (
    ("bad-request", 400, "Malformed request", "Check the body against its Content-Type."),
    (
        "missing-file",
        400,
        "No audio file in the form",
        "Send each file as a part named `file` that has a file name: "
        "`curl -F file=@clip.wav`, or post the file itself with its Content-Type.",
    ),
    (
        "invalid-parameter",
        400,
        "Parameter not accepted",
        "`invalid_params` names each parameter with the reason.",
    ),
    (
        "unauthorized",
        401,
        "No valid API key",
        "Send `Authorization: Bearer KEY`; who runs the service hands out keys.",
    ),
    (
        "forbidden",
        403,
        "Key not meant for this",
        "Use a key with the scope that `detail` names, or ask who runs the service for one.",
    ),
    (
        "foreign-origin",
        403,
        "Page of another origin",
        "Use a page of this service, or ask who runs it to name the page's origin in "
        "VIOLA_CORS_ORIGINS.",
    ),
    ("model-not-found", 404, "No such model", "`GET /v1/models` lists what there is."),
    (
        "body-timeout",
        408,
        "Request body arrived too slowly",
        "Send less in one request, or over a faster line.",
    ),
    (
        "body-too-large",
        413,
        "Request body too large",
        "Send fewer files in one request, one long recording with `stream=true` or as a job, or "
        "compress them: FLAC halves WAV without loss.",
    ),
    ("too-many-files", 413, "Too many files", "Spread the files over several requests."),
    (
        "too-long",
        413,
        "Recording too long",
        "Send it alone with `stream=true`, which takes recordings of hours, send it as a job, or "
        "cut it.",
    ),
    (
        "request-too-long",
        413,
        "Too much audio in one request",
        "Spread the files over several requests.",
    ),
    (
        "decoded-too-large",
        413,
        "Recording too large once decoded",
        "Cut the recording, or send it at a lower sample rate or with fewer channels.",
    ),
    (
        "too-much-memory",
        413,
        "Request takes too much memory",
        "Send less audio at once, ask for fewer windows, or use stream=true.",
    ),
    ("too-many-windows", 413, "Too many windows", "Choose a longer hop_s, or cut the recording."),
    (
        "unsupported-media-type",
        415,
        "Content-Type not accepted",
        "Send multipart/form-data, audio/* or application/octet-stream: "
        "`curl -F file=@clip.wav`, or `curl -H 'Content-Type: audio/wav' --data-binary @clip.wav`.",
    ),
    (
        "content-encoding",
        415,
        "Content-Encoding not accepted",
        "Send the body as it is; audio formats are compressed already.",
    ),
    (
        "unsupported-format",
        415,
        "Audio format not recognised",
        "`GET /v1/limits` lists the formats; convert with `ffmpeg -i clip.xyz clip.flac`.",
    ),
)

# Of one of its files
_AUDIO = (
    ("empty", 422, "File without audio", "Check that the recording has any samples."),
    ("corrupt", 422, "File damaged", "Check that it plays; export it again."),
    ("truncated", 422, "File cut off", "Check that it was uploaded whole; export it again."),
    ("non-finite", 422, "Samples that are not numbers", "Export the file again."),
    ("amplitude", 422, "Samples far out of range", "Scale float samples to [-1, 1]."),
    (
        "sample-rate",
        422,
        "Sample rate out of range",
        "Resample the recording, for instance to 16 kHz.",
    ),
    ("channels", 422, "Too many channels", "Mix the recording down to mono."),
    (
        "decode-timeout",
        422,
        "File takes too long to decode",
        "Cut the recording, or send it at a lower sample rate or with fewer channels.",
    ),
    ("undecodable", 422, "The decoder fails on the file", "Encode it again, as FLAC or WAV."),
    ("too-short", 422, "Recording too short", "Send a longer recording."),
    (
        "not-in-recording",
        422,
        "What was selected is not in the recording",
        "Choose `channel`, `start_s` and `end_s` within what `limit` names.",
    ),
)

# Of who asks
_CALLER = (
    (
        "quota-exceeded",
        429,
        "Audio quota used up",
        "Wait for `Retry-After` seconds; `RateLimit` tells on every answer what is left.",
    ),
    (
        "share-exceeded",
        429,
        "Too many requests of one caller in hand",
        "Wait for an answer before sending the next request, or ask for a larger share.",
    ),
)

# Of the service, whatever is asked
_SERVICE = (
    ("internal", 500, "Internal error", "Report the request id; the log has the cause."),
    ("overloaded", 503, "Too many requests in hand", "Wait for `Retry-After` seconds, try again."),
    (
        "draining",
        503,
        "Shutting down",
        "Try again after `Retry-After` seconds: another instance will answer.",
    ),
    (
        "decoder-unavailable",
        503,
        "No decoder running",
        "Try again after `Retry-After` seconds; the log says why none can be started.",
    ),
    (
        "resources-exhausted",
        503,
        "No more processes or file handles",
        "Try again after `Retry-After` seconds, or let whoever runs the service raise its limits.",
    ),
    (
        "storage-full",
        507,
        "No room to keep the upload",
        "Try again after `Retry-After` seconds, or send less audio in one request.",
    ),
    (
        "quota-unknown",
        503,
        "Quota not known now",
        "Try again after `Retry-After` seconds; who runs the service chose to refuse requests "
        "while the store of the quotas is down (VIOLA_REDIS_DOWN).",
    ),
    ("model-unavailable", 503, "Model not usable", "`/readyz` and the log say why."),
    (
        "deadline",
        504,
        "Request took too long",
        "Send less audio in one request, or try again when less is asked for.",
    ),
)

# Where classifiers are asked for, which may lie in the database
_CLASSIFIERS = (
    (
        "classifier-not-found",
        404,
        "No such classifier",
        "`GET /v1/classifiers` lists what there is and for which models.",
    ),
    (
        "space-mismatch",
        409,
        "Classifier of another embedding space",
        "Leave out `model`, or choose one that `GET /v1/classifiers` names for this classifier.",
    ),
    (
        "storage-unavailable",
        503,
        "Collections not usable now",
        "Try again after `Retry-After` seconds; the log says what is wrong with their database.",
    ),
)

# Of collections
_COLLECTIONS = (
    (
        "collections-off",
        404,
        "Collections are switched off",
        "Whoever runs the service sets VIOLA_DATA to a folder, or VIOLA_DATABASE_URL to a "
        "PostgreSQL database; `make serve` has them on.",
    ),
    (
        "collection-not-found",
        404,
        "No such collection",
        "`GET /v1/collections` lists yours; `PUT /v1/collections/NAME` makes one.",
    ),
    ("item-not-found", 404, "No such item", "The collection's `items` lists what there is."),
    (
        "collection-differs",
        409,
        "Collection of other terms",
        "Choose another name, or delete the collection first; `reembed` changes its model.",
    ),
    (
        "item-conflict",
        409,
        "Content or id is taken",
        "An id stands for one content, and a content for one id: delete the item first.",
    ),
    (
        "collection-space",
        409,
        "Vectors of another space",
        "Use the model that the collection was made with, or make a new collection.",
    ),
    (
        "audio-not-kept",
        409,
        "Recordings without their audio",
        "Delete those recordings, or add the files to a new collection.",
    ),
    ("bad-example", 422, "Nothing to search for", "Send other examples."),
    (
        "too-many-to-compare",
        413,
        "Too many windows to compare",
        "Use a filter, so that fewer items are compared.",
    ),
    (
        "collection-full",
        409,
        "More than may be kept",
        "Delete what is not needed, or ask whoever runs the service to raise the limit.",
    ),
)

# Of classifiers that are taught
_TEACHING = (
    (
        "classifier-taken",
        409,
        "Name of another classifier",
        "Choose another name: what the service comes with is never replaced.",
    ),
    (
        "version-in-use",
        409,
        "Version that answers",
        "Activate another version first, or delete the classifier.",
    ),
    (
        "nothing-to-learn",
        422,
        "Labels that teach nothing",
        "`detail` says what is missing: label more, or choose other labels, task or `unlabelled`.",
    ),
    (
        "fit-failed",
        500,
        "Learning failed",
        "Nothing was changed: try again, or learn from fewer windows; the log says more.",
    ),
    (
        "teaching-unavailable",
        503,
        "Nothing can be taught here",
        "Whoever runs the service installs `viola-audio[fit]`, or mends what the log names.",
    ),
)

# Of jobs and uploads
_JOBS = (
    (
        "job-not-found",
        404,
        "No such job",
        "`GET /v1/jobs` lists yours; their results are kept for as long as `expires_at` says.",
    ),
    (
        "job-differs",
        422,
        "Idempotency-Key of another job",
        "Make a new key for each job; send the same one again only with the same request.",
    ),
    (
        "job-not-done",
        409,
        "Job without a result yet",
        "Wait until its `state` is done, failed or cancelled, or have a webhook told.",
    ),
    (
        "too-many-jobs",
        429,
        "Too many jobs of one caller",
        "Wait for some to end, or put more files into one job.",
    ),
    (
        "webhook-not-allowed",
        403,
        "Webhook not allowed",
        "Use an address whose origin whoever runs the service has named in VIOLA_WEBHOOK_ORIGINS.",
    ),
    (
        "upload-not-found",
        404,
        "No such upload",
        "Begin it again: what is not finished and used in time is deleted.",
    ),
    (
        "upload-conflict",
        409,
        "Upload at another place",
        "Ask with HEAD how much has come, and go on from there.",
    ),
    (
        "uploads-full",
        413,
        "More uploads than may wait",
        "Wait for jobs to end, or delete uploads that are not needed.",
    ),
    (
        "jobs-full",
        413,
        "Jobs take more than they may",
        "Delete jobs whose results are not needed, or uploads.",
    ),
    (
        "tus-version",
        412,
        "Other version of tus",
        "Send `Tus-Resumable: 1.0.0`.",
    ),
)


def _types(*groups: tuple[tuple[str, int, str, str], ...]) -> dict[str, ProblemType]:
    return {row[0]: ProblemType(*row) for group in groups for row in group}


PROBLEM_TYPES: Mapping[str, ProblemType] = _types(
    _ADDRESS,
    _REQUEST,
    _AUDIO,
    _CALLER,
    _SERVICE,
    _CLASSIFIERS,
    _COLLECTIONS,
    _TEACHING,
    _JOBS,
)

AUDIO_PROBLEMS = list(_types(_REQUEST, _AUDIO, _CALLER, _SERVICE))
"""How a request with audio can fail."""

CLASSIFIER_PROBLEMS = list(_types(_CLASSIFIERS))
"""And, beside that, one that asks for classifiers."""

REQUEST_PROBLEMS = [
    slug
    for slug in _types(_REQUEST, _CALLER, _SERVICE)
    if slug not in ("too-long", "unsupported-format")
]
"""How a request fails as a whole where each file has an answer of its own."""
