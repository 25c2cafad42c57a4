"""Models that lie behind a URL: fetched once, at the start, and only as the digest says.

`VIOLA_MODELS_URL` names one model file, or a list of several as `sha256sum *.onnx` prints it, and
behind a `#` the SHA-256 of that file. The models are kept in a folder named after that digest and
served from there; a start that finds them there fetches nothing. A file with another digest is
never opened.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import structlog

from models.atomic import replacing
from service.settings import Settings, SettingsError

MODEL_SUFFIX = ".onnx"
MAX_BYTES = 4 << 30  # of one file
MAX_LIST_BYTES = 1 << 20
MAX_FILES = 1000
CHUNK = 1 << 20
_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](\S.*)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*\.onnx")

log = structlog.get_logger()


@dataclass(frozen=True)
class RemoteFile:
    """A file behind a URL, known by its digest.

    Attributes:
        url: whatever fsspec reads; it may hold secrets.
        sha256: hex digest.
    """

    url: str
    sha256: str

    @property
    def name(self) -> str:
        """Its file name: the last part of the URL's path."""
        return urlsplit(self.url).path.rpartition("/")[2]

    @property
    def shown(self) -> str:
        """The URL without user, password and query, which may be secrets."""
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit((parts.scheme, host, parts.path, "", ""))

    def beside(self, name: str, sha256: str) -> "RemoteFile":
        """Another file of the same folder."""
        parts = urlsplit(self.url)
        folder = parts.path.rpartition("/")[0]
        return RemoteFile(urlunsplit(parts._replace(path=f"{folder}/{name}")), sha256)


def models_path(settings: Settings) -> Path:
    """Where the models are that these settings name; those behind a URL are fetched first.

    Raises:
        SettingsError: they cannot be fetched or kept, or are others than the digest says.
    """
    if settings.models_url is None:
        return settings.models
    if "models" in settings.model_fields_set:
        raise SettingsError(
            f"VIOLA_MODELS={str(settings.models)!r} and VIOLA_MODELS_URL are both set: choose one"
        )
    url, sha256 = settings.models_url.get_secret_value().rsplit("#sha256=", 1)
    return fetched(RemoteFile(url, sha256.lower()), settings.models_cache or _usual_cache())


def fetched(remote: RemoteFile, cache: Path) -> Path:
    """A folder that holds the model `remote`, or those that it lists, and no others.

    Raises:
        SettingsError: as `models_path`.
    """
    folder = cache / remote.sha256
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if remote.name.endswith(MODEL_SUFFIX):
            models = [remote]
        else:
            models = list(_listed(remote, _local_copy(remote, folder, MAX_LIST_BYTES)))
        kept = {_local_copy(model, folder, MAX_BYTES) for model in models}
        for other in set(folder.glob(f"*{MODEL_SUFFIX}")) - kept:
            other.unlink()
    except OSError as error:
        raise SettingsError(
            f"VIOLA_MODELS_CACHE: models cannot be kept in {folder}: {error.strerror or error}; "
            "name a folder that may be written to, with room for them"
        ) from error
    return folder


def _local_copy(remote: RemoteFile, folder: Path, max_bytes: int) -> Path:
    """The path of a file's copy in the folder; it is fetched unless the right one is there."""
    path = folder / remote.name
    if path.is_file():
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == remote.sha256:
                return path
        log.warning("the copy of a model has changed; it is fetched again", file=str(path))
    log.info("fetching", url=remote.shown, to=str(path))
    with replacing(path) as temporary:
        found = hashlib.sha256()
        with temporary.open("wb") as file:
            for block in _blocks(remote, max_bytes):
                found.update(block)
                file.write(block)
        if found.hexdigest() != remote.sha256:
            raise SettingsError(
                f"VIOLA_MODELS_URL: {remote.shown} has the SHA-256 {found.hexdigest()}, expected "
                f"{remote.sha256}: it is another file, and is not served; where that is meant, "
                "state its own digest"
            )
    return path


def _blocks(remote: RemoteFile, max_bytes: int) -> Iterator[bytes]:
    """The content of a file behind a URL."""
    n_bytes = 0
    try:
        with _opened(remote) as file:
            while block := file.read(CHUNK):
                n_bytes += len(block)
                if n_bytes > max_bytes:
                    raise SettingsError(
                        f"VIOLA_MODELS_URL: {remote.shown} has more than {max_bytes} bytes"
                    )
                yield block
    except (SettingsError, GeneratorExit):
        raise
    except Exception as error:  # each kind of storage has errors of its own
        message = f"VIOLA_MODELS_URL: {remote.shown} cannot be fetched: {_reason(remote, error)}"
        raise SettingsError(message) from error


def _reason(remote: RemoteFile, error: Exception) -> str:
    """What the storage says; of a URL with secrets only the kind of error, which repeats none."""
    if remote.url == remote.shown:
        return str(error) or type(error).__name__
    status = getattr(error, "status", "")
    return f"{type(error).__name__} {status}".strip()


def _opened(remote: RemoteFile) -> Any:
    try:
        import fsspec
    except ImportError:
        raise SettingsError(
            "VIOLA_MODELS_URL needs the extra 'remote': pip install 'viola-audio[remote]'"
        ) from None
    return fsspec.open(remote.url, "rb")


def _listed(remote: RemoteFile, path: Path) -> Iterator[RemoteFile]:
    """The models of a list, which lie beside it."""
    lines = path.read_bytes().decode("utf-8", "replace").splitlines()
    if not lines or len(lines) > MAX_FILES:
        raise SettingsError(
            f"VIOLA_MODELS_URL: {remote.shown} has {len(lines)} lines; expected one for each "
            f"model, {MAX_FILES} at most"
        )
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None or not _NAME.fullmatch(match[2]):
            raise SettingsError(
                f"VIOLA_MODELS_URL: {remote.shown} holds the line {line[:100]!r}; expected what "
                "`sha256sum *.onnx` prints in the folder of the models, or the URL of an .onnx file"
            )
        yield remote.beside(match[2], match[1].lower())


def _usual_cache() -> Path:
    """Where caches go on this machine."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "viola" / "models"
