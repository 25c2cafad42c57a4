"""API keys: who may ask for what. Without any the service is open, as on a developer's machine.

A line a key, in the file that `VIOLA_API_KEYS_FILE` names or in `VIOLA_API_KEYS` itself:

    name:sha256[:scope,scope][:audio_seconds_per_minute][:max_inflight][:group,group]

Keys are 256 random bits, so a plain hash is enough: there is nothing to guess that a slow one would
protect. `viola key NAME` makes one.

A page in a browser cannot set the headers of a WebSocket. It sends its key as a subprotocol:

    new WebSocket(url, ["viola.stream", "viola.key." + base64url(key)])
"""

import base64
import binascii
import hmac
import os
import re
import secrets
import select
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import cast

from starlette.datastructures import Headers

from service.problems import Problem
from service.settings import Settings, SettingsError
from service.traffic.access import SCOPES, Access, Scope

USUAL_SCOPES: tuple[Scope, ...] = ("embed", "classify")  # of a line that names none
PREFIX = "viola_"  # tells people, and scanners of repositories, what they have found
MAX_FILE_BYTES = 4 << 20  # some 40,000 keys, with all of which each request's is compared
PIPE_S = 5.0  # for whoever writes keys into a pipe to begin

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_GROUP = re.compile(r"[A-Za-z0-9._-]{1,32}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)

STREAM_PROTOCOL = "viola.stream"  # what a socket speaks that was opened with subprotocols
KEY_PROTOCOL = "viola.key."  # a subprotocol that only carries a key, which follows in base64url

_CHALLENGE = {"WWW-Authenticate": "Bearer"}


@dataclass(frozen=True)
class Key:
    """A key as it is stored: its hash, what it opens, how much it may send, how much at once.

    `groups` are those whose collections and classifiers it shares.
    """

    name: str
    digest: str
    scopes: frozenset[Scope] = frozenset(USUAL_SCOPES)
    audio_seconds_per_minute: float | None = None
    max_inflight: int | None = None
    groups: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, line: str) -> "Key":
        """Read a line of the file.

        Raises:
            ValueError: with what is wrong with it. The line itself may be a key, and is not shown.
        """
        fields = line.strip().split(":")
        if len(fields) > 6:
            raise ValueError(
                "more than six fields; expected name:sha256[:scopes][:seconds][:requests][:groups]"
            )
        name, digest, scopes, quota, share, groups = (*fields, "", "", "", "", "")[:6]
        if not _NAME.fullmatch(name):
            raise ValueError("the name must be 1 to 64 letters, digits, dots, dashes, underscores")
        if not _DIGEST.fullmatch(digest):
            raise ValueError("the second field must be a SHA-256 in 64 hexadecimal digits")
        return cls(name, digest, _scopes(scopes), _quota(quota), _share(share), _groups(groups))

    def line(self) -> str:
        """The line of the file, as `parse` reads it."""
        quota = self.audio_seconds_per_minute
        scopes = ",".join(scope for scope in SCOPES if scope in self.scopes)
        fields = [
            f"{self.name}:{self.digest}:{scopes}",
            "" if quota is None else repr(quota).removesuffix(".0"),
            "" if self.max_inflight is None else str(self.max_inflight),
            ",".join(sorted(self.groups)),
        ]
        return fields[0] + ":".join(["", *fields[1:]]).rstrip(":")


class Keyring:
    """The keys that are known; none at all means that every request is let in."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self.keys = tuple(keys)

    def __bool__(self) -> bool:
        """Whether keys are asked for."""
        return bool(self.keys)

    def admit(self, access: Access, headers: Headers) -> Key | None:
        """The key that a request presents; None where the route or the service needs none.

        Raises:
            Problem: there is no key, it is unknown, or it lacks scopes that the route needs.
        """
        if not self.keys or not access.needs_key:
            return None
        presented = _presented(headers)
        if presented is None:
            raise Problem(
                "unauthorized", "This needs a key: Authorization: Bearer KEY.", headers=_CHALLENGE
            )
        key = self._find(presented)
        if key is None:
            headers_ = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
            raise Problem("unauthorized", "The key is not known here.", headers=headers_)
        if lacking := access.scopes - key.scopes:
            scopes = ", ".join(sorted(lacking))
            challenge = f'Bearer error="insufficient_scope", scope="{" ".join(sorted(lacking))}"'
            raise Problem(
                "forbidden",
                f"The key {key.name} lacks the scope {scopes}.",
                headers={"WWW-Authenticate": challenge},
            )
        return key

    def _find(self, presented: str) -> Key | None:
        """The key of this text; the comparison takes as long whatever the text is."""
        digest = digest_of(presented)
        found = None
        for key in self.keys:
            if hmac.compare_digest(digest, key.digest):
                found = key
        return found


def _presented(headers: Headers) -> str | None:
    """The key that a request brings, if any."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    offered = ",".join(headers.getlist("sec-websocket-protocol")).split(",")
    keys = (name.strip()[len(KEY_PROTOCOL) :] for name in offered if _brings_key(name))
    return next(map(_from_base64url, keys), None)


def _brings_key(protocol: str) -> bool:
    return protocol.strip().startswith(KEY_PROTOCOL)


def _from_base64url(text: str) -> str:
    """Decode a key; what is no base64url is returned as it is, and no key will match it."""
    padded = text + "=" * (-len(text) % 4)
    try:
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return text


def new_key() -> str:
    """A key: 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(key: str) -> str:
    """The SHA-256 of a key, which is all that is stored of it."""
    return sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def load_keys(settings: Settings) -> list[Key]:
    """The keys of the environment and of the file together.

    Raises:
        SettingsError: a setting is there and holds no key, the file cannot be read, a line is
            none, or two keys are called the same.
    """
    keys: list[Key] = []
    if settings.api_keys is not None:
        keys += _some("VIOLA_API_KEYS", settings.api_keys.get_secret_value().split())
    if settings.api_keys_file is not None:
        where = f"VIOLA_API_KEYS_FILE={settings.api_keys_file}"
        try:
            lines = _content(settings.api_keys_file).decode("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror or error if isinstance(error, OSError) else "it is not text"
            raise SettingsError(f"{where} cannot be read: {reason}") from None
        keys += _some(where, lines)
    for field in ("name", "digest"):
        n_of = Counter(getattr(key, field) for key in keys)
        twice = next((key.name for key in keys if n_of[getattr(key, field)] > 1), None)
        if twice is not None:
            raise SettingsError(f"two API keys have the {field} of {twice}; each needs its own")
    return keys


def _content(path: Path) -> bytes:
    """What stands in a file, or comes through a pipe into which somebody writes.

    Raises:
        OSError: it cannot be read, holds too much, or nobody writes.
    """
    # Opened without waiting: a pipe would have it wait for whoever writes, for ever
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if path.is_fifo() and not select.select([file], [], [], PIPE_S)[0]:
            raise OSError(f"it is a pipe into which nobody has written for {PIPE_S:g} s")
        os.set_blocking(file.fileno(), True)
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise OSError(f"it has more than {MAX_FILE_BYTES} bytes: is it the file of keys?")
    return content


def _some(where: str, lines: Iterable[str]) -> list[Key]:
    """The keys of some lines; at least one, or a lost secret would leave the service open."""
    found = _parsed(where, lines)
    if not found:
        raise SettingsError(f"{where} holds no key; only without the setting is the service open")
    return found


def _parsed(where: str, lines: Iterable[str]) -> list[Key]:
    keys = []
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                keys.append(Key.parse(line))
            except ValueError as error:
                raise SettingsError(f"{where}, line {number}: {error}") from None
    return keys


def _scopes(text: str) -> frozenset[Scope]:
    if not text:
        return frozenset(USUAL_SCOPES)
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in SCOPES]
    if unknown:
        raise ValueError(f"there is no such scope; known are {', '.join(SCOPES)}")
    return frozenset(cast("list[Scope]", names))


def _quota(text: str) -> float | None:
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ValueError("the fourth field must be audio seconds a minute, a number above 0")
    return seconds


def _share(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ValueError("the fifth field must be requests in hand at once, a whole number above 0")
    return int(text)


def _groups(text: str) -> frozenset[str]:
    names = [name.strip() for name in text.split(",")] if text else []
    if not all(map(_GROUP.fullmatch, names)):
        raise ValueError(
            "the sixth field must be names of groups, each of 1 to 32 letters, digits, dots, "
            "dashes, underscores, with commas between"
        )
    return frozenset(names)
