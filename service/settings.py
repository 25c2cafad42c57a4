"""Everything about the service that an operator may set: `VIOLA_*` in the environment."""

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from models.machine import available_cpus
from models.modelfile import PRETRAINED
from models.suggest import did_you_mean
from models.tiles import TILE_S

ENV_PREFIX = "VIOLA_"
MAX_INFERENCES = 8  # each holds what its batch needs: some 60 MB
QUEUED_TILES = 4  # a core

# What Kubernetes adds to every container's environment when a Service is itself called "viola".
_SERVICE_LINKS = ("VIOLA_SERVICE_", "VIOLA_PORT_")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/*\sA-Z]+", re.ASCII)

_PINNED = re.compile(r"[a-z][a-z0-9+.-]*://[^#\s]+#sha256=[0-9a-fA-F]{64}", re.ASCII)

MAX_AT_ONCE = 1024  # threads, or processes: each is started
# By the ends of their names, the first that fits: beyond these, numbers of the system overflow
_MOST = {
    "_per_s": 1e15,
    "_duration_s": 1e9,
    "_s": 1e6,
    "_hours": 876_000.0,
    "_days": 36_500.0,
    "": 1e15,
}

# No origins are as good as none given; of keys a loss is told in words of its own
_MAY_BE_EMPTY = ("cors_origins", "webhook_origins", "api_keys")


class SettingsError(ValueError):
    """A setting that cannot be used; the message names it, its value and what was expected."""


class Settings(BaseSettings):
    """What is served, where, and how much of it at once."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    models: Path = Field(default=PRETRAINED, description="a model file, or a folder of `*.onnx`")
    models_url: SecretStr | None = Field(
        default=None,
        description="instead of `models`, what is fetched once at the start: "
        "`https://host/one.onnx#sha256=DIGEST`, or a list of files beside it, as "
        "`s3://bucket/SHA256SUMS#sha256=DIGEST`; needs the `remote` extra",
    )
    models_cache: Path | None = Field(
        default=None,
        description="folder for what `models_url` names; else `viola/models` in the user's cache",
    )
    default_model: str | None = Field(
        default=None,
        description="the model of requests that name none; else `default`, else the first",
    )
    default_head: str | None = Field(
        default=None,
        description="the classifier of requests that name none; else `sound-kinds`, else the first "
        "that fits the model",
    )
    host: str = Field(default="127.0.0.1", description="the address to listen on")
    port: int = Field(default=8000, ge=1, le=65_535, description="the TCP port to listen on")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="the least severe event that is logged"
    )
    shutdown_timeout_s: int = Field(
        default=25, ge=1, description="seconds from SIGTERM to the end, whatever is in hand"
    )
    drain_delay_s: float = Field(
        default=3.0,
        ge=0,
        description="seconds after SIGTERM for which requests are still taken while `/readyz` is "
        "red, for balancers to notice",
    )
    metrics: bool = Field(
        default=True, description="serve `/metrics`; where there are API keys, to those in scope"
    )
    otel_endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://[^/]+",
        description="OpenTelemetry collector that spans go to, as `http://collector:4318`; needs "
        "the `otel` extra",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="origins of web pages that may call: `https://a.example,https://b.example`",
    )

    api_keys_file: Path | None = Field(
        default=None, description="file of API keys, a line each; `viola key` makes them"
    )
    api_keys: SecretStr | None = Field(
        default=None, description="the same lines, separated by spaces"
    )
    audio_seconds_per_minute: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="quota of a key whose line has none; without keys, of each client address",
    )
    max_inflight_per_key: int | None = Field(
        default=None,
        ge=1,
        description="requests with audio that a key may have in hand whose line says nothing else; "
        "without keys, each client address",
    )
    redis_url: SecretStr | None = Field(
        default=None,
        description="Redis in which replicas share quotas and usage, as `redis://host:6379/0`; "
        "needs the `redis` extra",
    )
    redis_down: Literal["open", "closed"] = Field(
        default="open",
        description="while Redis is down: `open`, each replica's own quotas count; `closed`, "
        "callers with a quota get 503",
    )
    redis_timeout_s: float = Field(
        default=0.25, gt=0, le=5, description="seconds after which Redis counts as down"
    )

    data: Path | None = Field(
        default=None,
        description="folder of collections, which is made if it is not there; without it, and "
        "without `database_url`, there are none",
    )
    database_url: SecretStr | None = Field(
        default=None,
        description="PostgreSQL database of collections, for several replicas, as "
        "`postgresql://user:password@host/name`; needs the `postgres` extra and pgvector",
    )
    max_collections: int = Field(
        default=100, ge=1, description="collections of one key, or of one group"
    )
    max_collection_items: int = Field(
        default=1_000_000, ge=1, description="recordings in one collection"
    )
    max_collection_bytes: int = Field(
        default=8 * 2**30,
        ge=1,
        description="bytes of vectors, audio and metadata in one collection",
    )
    max_kept_days: float | None = Field(
        default=None,
        gt=0,
        description="days after which a recording is deleted from its collection; else never",
    )
    search_memory_bytes: int = Field(
        default=512 * 2**20,
        ge=0,
        description="bytes of vectors that stay in memory for searches, and as many again of "
        "indexes for searches that need not be exact; a collection with more is read from the disk "
        "at each search; of no use with `database_url`",
    )

    max_fits: int = Field(default=1, ge=1, description="classifiers taught at the same time")
    fit_timeout_s: float = Field(
        default=45.0, gt=0, description="seconds that learning a classifier may take"
    )
    fit_memory_bytes: int = Field(
        default=2**30, ge=2**28, description="bytes that learning a classifier may take"
    )

    job_workers: int = Field(
        default=1,
        ge=0,
        le=64,
        description="jobs done at the same time in this process; 0 leaves them to `viola worker`",
    )
    worker_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="where `viola worker` answers /livez, /readyz and /metrics; else nowhere",
    )
    job_lapse_s: float = Field(
        default=30.0,
        ge=1,
        description="seconds after a worker's last sign of life, after which another takes its job",
    )
    job_kept_hours: float = Field(
        default=168.0, gt=0, description="hours for which a job and its result are kept at its end"
    )
    max_jobs: int = Field(
        default=10_000, ge=1, description="jobs of one key that wait or run at the same time"
    )
    max_job_bytes: int = Field(
        default=8 * 2**30,
        ge=1,
        description="bytes of files of one key that wait for jobs, uploads included, and of its "
        "jobs with their results",
    )
    upload_kept_hours: float = Field(
        default=24.0, gt=0, description="hours in which an upload must be whole and in a job"
    )
    webhook_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="origins that jobs may tell of their end: "
        "`https://a.example,https://b.example:8443`; none: no webhooks",
    )

    probe_interval_s: float = Field(
        default=30.0, gt=0, description="seconds between probes of an idle service"
    )
    hang_timeout_s: float = Field(
        default=60.0,
        gt=0,
        description="seconds in which inference must finish something, else `/readyz` is red",
    )

    max_connections: int = Field(
        default=1024,
        ge=1,
        description="open connections; on one beyond them only health checks are answered",
    )
    head_timeout_s: float = Field(
        default=10.0,
        gt=0,
        description="seconds for the head of a request to arrive, or a live stream's configuration",
    )
    keep_alive_s: int = Field(
        default=5, ge=1, description="seconds that a connection may wait for its next request"
    )

    threads: int | None = Field(
        default=None,
        ge=1,
        le=MAX_AT_ONCE,
        description="threads of one inference; else as many as there are cores "
        "for each of the `inferences`, which is one unless there are many cores",
    )
    inferences: int | None = Field(
        default=None,
        ge=1,
        le=MAX_AT_ONCE,
        description="batches computed at the same time; else as many as there are cores "
        "for the `threads` of each, up to 8",
    )
    inference_timeout_s: float = Field(
        default=30.0, gt=0, description="seconds after which an inference counts as hung"
    )
    decode_workers: int = Field(
        default=2, ge=1, le=MAX_AT_ONCE, description="files decoded at the same time"
    )
    decode_cpu_s: float = Field(
        default=10.0, gt=0, description="seconds of CPU time that decoding one file may take"
    )
    decode_wall_s: float = Field(
        default=20.0, gt=0, description="seconds that decoding one file may take"
    )
    decode_memory_bytes: int = Field(
        default=160 * 2**20, ge=2**24, description="bytes that decoding one file may take"
    )
    max_inflight: int = Field(
        default=16, ge=1, description="requests with audio in hand at the same time"
    )
    max_queue_s: float | None = Field(
        default=None,
        gt=0,
        description="seconds of audio that a request may have to wait behind; else four tiles of "
        "10 s for each core",
    )
    request_timeout_s: float = Field(
        default=50.0,  # clients and proxies commonly wait for 60, and are to get an answer
        gt=0,
        description="seconds from the end of the body to the answer",
    )
    body_timeout_s: float = Field(
        default=60.0, gt=0, description="seconds for a request body to arrive"
    )
    body_grace_s: float = Field(
        default=5.0, gt=0, description="seconds that a request body may be waited for anyway"
    )
    min_body_bytes_per_s: float = Field(
        default=16 * 2**10, gt=0, description="bytes of a request body a second, after the grace"
    )

    memory_bytes: int = Field(
        default=160 * 2**20,
        ge=2**25,
        description="bytes that all requests may hold together: uploads, what decoding takes, "
        "samples, answers",
    )
    min_answer_bytes_per_s: float = Field(
        default=32 * 2**10,
        gt=0,
        description="bytes of an answer that a client has to take a second, after `idle_timeout_s`",
    )
    max_body_bytes: int = Field(default=25 * 2**20, ge=1, description="bytes of one request body")
    max_files: int = Field(default=16, ge=1, description="files in one request")
    max_decoded_bytes: int = Field(
        default=256 * 2**20, ge=1, description="bytes of one file once decoded, at its own rate"
    )
    max_duration_s: float = Field(default=600.0, gt=0, description="seconds of audio in one file")
    max_request_duration_s: float | None = Field(
        default=None,
        gt=0,
        description="seconds of audio in all files of one request; else three times that of a file",
    )
    max_windows: int = Field(default=4096, ge=1, description="windows in one request")

    max_streams: int = Field(
        default=4, ge=1, le=MAX_AT_ONCE, description="answers in lines at the same time"
    )
    max_live_streams: int = Field(
        default=16, ge=1, description="live streams with audio at the same time"
    )
    max_stream_duration_s: float = Field(
        default=6 * 3600.0, gt=0, description="seconds of audio in one stream"
    )
    max_stream_body_bytes: int = Field(
        default=2 * 2**30, ge=1, description="bytes of a body that is answered in lines"
    )
    idle_timeout_s: float = Field(
        default=30.0,
        gt=0,
        description="seconds for which a client may take nothing of its answer, or the client of "
        "a stream stand still",
    )

    @field_validator("*", mode="before")
    @classmethod
    def _is_not_empty(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse a text that is empty: as a path it is this folder, as a host every address."""
        if isinstance(value, str) and not value.strip() and info.field_name not in _MAY_BE_EMPTY:
            raise ValueError("it is empty; unset it to have the default")
        return value

    @field_validator("*")
    @classmethod
    def _is_finite(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse numbers that no clock or limit of the system takes: each request would fail."""
        if not isinstance(value, int | float):
            return value
        if not math.isfinite(value):
            raise ValueError("it is not finite; expected a number")
        name = info.field_name or ""
        most = next(most for unit, most in _MOST.items() if name.endswith(unit))
        if value > most:
            raise ValueError(f"expected at most {most:.0f}")
        return value

    @field_validator("models_url")
    @classmethod
    def _has_digest(cls, value: SecretStr | None) -> SecretStr | None:
        """Refuse a URL that does not say what is behind it."""
        if value is not None and not _PINNED.fullmatch(value.get_secret_value()):
            raise ValueError(
                "expected a URL, and behind it the digest of its file, #sha256= and 64 hex "
                "digits, as sha256sum prints them"
            )
        return value

    @field_validator("cors_origins", "webhook_origins", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """Split a list of the environment at commas and spaces."""
        return value.replace(",", " ").split() if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse an origin that is not written as browsers write it: it would never match."""
        for origin in value:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is no origin: write scheme, host and port alone, in lower case "
                    "and without a slash at the end, as https://a.example, or * for any"
                )
        return value

    @field_validator("webhook_origins")
    @classmethod
    def _are_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse what no webhook's origin could be equal to."""
        for origin in value:
            if not (_ORIGIN.fullmatch(origin) and origin.startswith(("https://", "http://"))):
                raise ValueError(
                    f"{origin!r} is no origin: write https:// (or http://), host and port alone, "
                    "in lower case and without a slash at the end, as https://a.example"
                )
        return value

    @property
    def workers_and_threads(self) -> tuple[int, int]:
        """Inferences at the same time, and threads of each.

        Two inferences of one thread get more through two cores than one inference of two threads,
        which wait for each other at every operator.
        """
        cpus = available_cpus()
        inferences = self.inferences or max(1, min(MAX_INFERENCES, cpus // (self.threads or 1)))
        return inferences, self.threads or max(1, cpus // inferences)

    @property
    def queue_s(self) -> float:
        """Seconds of audio that a request may have to wait behind: half a second or less."""
        inferences, threads = self.workers_and_threads
        return self.max_queue_s or QUEUED_TILES * TILE_S * inferences * threads

    @property
    def request_duration_s(self) -> float:
        """Seconds of audio that one request may hold."""
        return self.max_request_duration_s or 3 * self.max_duration_s


def load_settings(**overrides: Any) -> Settings:
    """The environment's settings with those `overrides` on top that are not None.

    Raises:
        SettingsError: for a value that is not accepted, and for a `VIOLA_` variable that is none.
    """
    _refuse_unknown_variables(os.environ)
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as exception:
        raise SettingsError("; ".join(map(_sentence, exception.errors()))) from None


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    """Refuse variables that are no settings: a misspelt limit would silently be none."""
    known = [name.upper() for name in Settings.model_fields]
    for name in sorted(environment):
        if not name.upper().startswith(ENV_PREFIX) or name.upper().startswith(_SERVICE_LINKS):
            continue
        bare = name.upper().removeprefix(ENV_PREFIX)
        if bare not in known:
            hint = did_you_mean(bare, known).replace("mean ", f"mean {ENV_PREFIX}")
            listed = f"; known are, behind {ENV_PREFIX}: {', '.join(known)}"
            raise SettingsError(f"{name} is not a setting{hint or listed}")


def _sentence(error: Mapping[str, Any]) -> str:
    """One pydantic error in an operator's words."""
    variable = ENV_PREFIX + str(error["loc"][0]).upper() if error["loc"] else ENV_PREFIX + "*"
    if variable == "VIOLA_PORT" and str(error["input"]).startswith("tcp://"):
        return (
            f"VIOLA_PORT={error['input']!r} was set by Kubernetes, which names a Service's address "
            "so: call the Service something else than viola, or set enableServiceLinks: false"
        )
    field = Settings.model_fields.get(str(error["loc"][0])) if error["loc"] else None
    is_secret = field is not None and field.annotation == SecretStr | None
    value = "'**********'" if is_secret else repr(str(error["input"]))
    reason = error["msg"].removeprefix("Value error, ")
    return f"{variable}={value} is not accepted: {reason}"
