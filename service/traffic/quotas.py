"""How many seconds of audio a caller may send: a bucket each, filled as time passes.

What a request costs is known once it is decoded, so whoever has anything left is let in and pays
afterwards, into debt if need be: no recording is too long ever to fit, and over time nobody gets
more than his rate. The headers are those of draft-ietf-httpapi-ratelimit-headers.
"""

import ipaddress
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from service.problems import Problem
from service.traffic.auth import Key

WINDOW_S = 60
MAX_CALLERS = 10_000  # buckets kept; those full again are dropped first
POLICY = "audio"


@dataclass
class Meter:
    """What one request has cost so far."""

    audio_s: float = 0.0


@dataclass(frozen=True)
class Caller:
    """Who pays for a request: a key, or an address where there are no keys."""

    key: str | None = None
    network: str = ""
    audio_seconds_per_minute: float | None = None
    max_inflight: int | None = None
    sees_all: bool = True  # what other keys have used
    meter: Meter = field(default_factory=Meter, compare=False)

    @classmethod
    def of(cls, key: Key | None, address: str | None, usual: float | None) -> "Caller":
        """A key's own quota or the `usual` one; an IPv6 client is its network of 64 bits."""
        if key is None:
            return cls(network=_network(address), audio_seconds_per_minute=usual)
        quota = key.audio_seconds_per_minute
        granted = usual if quota is None else quota
        return cls(key.name, "", granted, key.max_inflight, "metrics" in key.scopes)

    @property
    def account(self) -> tuple[str | None, str]:
        """Whose bucket it is, whatever the quota."""
        return self.key, self.network


@dataclass
class _Bucket:
    seconds: float
    filled_at: float


class Quotas:
    """The buckets; used on the event loop alone.

    Args:
        usual: seconds a minute of who has no quota of his own; None: as many as he likes.
        clock: seconds that pass.
        observe: is told of every charge, also of those who have no quota.
    """

    def __init__(
        self,
        usual: float | None = None,
        clock: Callable[[], float] = monotonic,
        observe: Callable[[Caller, float], None] = lambda caller, audio_s: None,
    ) -> None:
        self.usual, self.observe = usual, observe
        self._clock = clock
        self._buckets: dict[tuple[str | None, str], _Bucket] = {}

    def check(self, caller: Caller) -> None:
        """Let in who has anything left.

        Raises:
            Problem: the caller has nothing left, and when to try again.
        """
        quota = caller.audio_seconds_per_minute
        if quota is None or (left := self._left(caller, quota)) > 0:
            return
        used = quota - left
        wait_s = max(1, math.ceil((min(1.0, quota) - left) * WINDOW_S / quota))
        raise Problem(
            "quota-exceeded",
            f"{used:.1f} s of audio are on the account; {quota:g} s a minute are granted. "
            f"Some of it is free again in {wait_s} s.",
            limit=quota,
            observed=round(used, 3),
            unit="s",
            headers={"Retry-After": str(wait_s)} | self.headers(caller),
        )

    def charge(self, caller: Caller, audio_s: float) -> None:
        """Take decoded seconds from the caller's bucket."""
        self.observe(caller, audio_s)
        quota = caller.audio_seconds_per_minute
        if quota is not None and audio_s > 0:
            self._left(caller, quota)
            self._buckets[caller.account].seconds -= audio_s

    def headers(self, caller: Caller) -> dict[str, str]:
        """What is granted, and what is left until when."""
        quota = caller.audio_seconds_per_minute
        if quota is None:
            return {}
        left = self._left(caller, quota)
        full_in_s = math.ceil((quota - left) * WINDOW_S / quota)
        return {
            "RateLimit-Policy": f'"{POLICY}";q={math.ceil(quota)};qu="audio-seconds";w={WINDOW_S}',
            "RateLimit": f'"{POLICY}";r={max(0, math.floor(left))};t={full_in_s}',
        }

    def _left(self, caller: Caller, quota: float) -> float:
        """Seconds in the caller's bucket now; below 0 where there is debt."""
        now = self._clock()
        bucket = self._buckets.get(caller.account)
        if bucket is None:
            self._make_room(now)
            bucket = self._buckets[caller.account] = _Bucket(quota, now)
        gained = (now - bucket.filled_at) * quota / WINDOW_S
        bucket.seconds, bucket.filled_at = min(quota, bucket.seconds + gained), now
        return bucket.seconds

    def _make_room(self, now: float) -> None:
        """Drop who has not been seen for a window, then who has not been seen for longest."""
        if len(self._buckets) < MAX_CALLERS:
            return
        buckets = self._buckets
        oldest = sorted(buckets, key=lambda account: buckets[account].filled_at)
        full = [
            account
            for account in oldest
            if buckets[account].filled_at < now - WINDOW_S and buckets[account].seconds > 0
        ]
        for account in full or oldest[: MAX_CALLERS // 10]:
            del buckets[account]


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # all of IPv4, as an IPv6 network sees it
_WITH_PORT = re.compile(r"\[(?P<v6>[^]]*)\](:\d+)?|(?P<v4>[\d.]+):\d+", re.ASCII)


def _network(address: str | None) -> str:
    """An IPv4 address however it is written, the network of an IPv6 one, or "unknown"."""
    text = address or ""
    if match := _WITH_PORT.fullmatch(text):
        text = match["v6"] or match["v4"]
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    if found in _NAT64:
        return str(ipaddress.IPv4Address(found.packed[-4:]))
    return str(ipaddress.ip_network((found, 64), strict=False))
