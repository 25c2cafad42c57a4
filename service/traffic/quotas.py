"""Quotas of audio: each caller has a token bucket of seconds that refills as time passes.

What a request costs is known once it is decoded, so whoever has anything left is let in and pays
afterwards, into debt if need be: no recording is too long ever to fit, and over time nobody gets
more than the rate. The headers are those of draft-ietf-httpapi-ratelimit-headers.

The buckets are those of this process, or of all replicas where they share a Redis. What happens
while that is down is a choice: "open", the buckets of this process count, which are charged all the
time; or "closed", requests that cost audio are refused until it is back.
"""

import ipaddress
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Literal

from service.problems import Problem
from service.traffic.access import Scope
from service.traffic.auth import Key
from service.traffic.shared_accounts import SharedAccounts

WINDOW_S = 60
MAX_CALLERS = 10_000  # buckets kept; those full again are dropped first
POLICY = "audio"
DOWN_RETRY_S = 2  # for Redis to come back

WhenDown = Literal["open", "closed"]


@dataclass
class Meter:
    """Seconds of audio that one request has cost so far."""

    audio_s: float = 0.0


@dataclass(frozen=True)
class Caller:
    """Who pays for a request: a key, or an address where there are no keys."""

    key: str | None = None
    network: str = ""
    audio_seconds_per_minute: float | None = None
    max_inflight: int | None = None
    sees_all: bool = True  # whether it may see what other keys have used
    groups: frozenset[str] = frozenset()
    scopes: frozenset[Scope] | None = None  # None: whatever there is
    meter: Meter = field(default_factory=Meter, compare=False)

    @classmethod
    def of(cls, key: Key | None, address: str | None, usual: float | None) -> "Caller":
        """A key's own quota or the `usual` one; an IPv6 client is its network of 64 bits."""
        if key is None:
            return cls(network=_network(address), audio_seconds_per_minute=usual)
        quota = key.audio_seconds_per_minute
        granted = usual if quota is None else quota
        sees_all = "metrics" in key.scopes
        return cls(key.name, "", granted, key.max_inflight, sees_all, key.groups, key.scopes)

    def may(self, scope: Scope) -> bool:
        """Whether the caller's key has this scope; for what the route alone does not tell."""
        return self.scopes is None or scope in self.scopes

    @property
    def account(self) -> tuple[str | None, str]:
        """The name of this caller's bucket: its key, or its network."""
        return self.key, self.network


@dataclass
class _Bucket:
    seconds: float
    filled_at: float


class Quotas:
    """The token buckets of all callers; used on the event loop alone.

    Args:
        usual: seconds a minute of callers without a quota of their own; None: no limit.
        clock: seconds that pass.
        observe: is called with every charge, also of callers without a quota.
        shared: the buckets of all replicas.
        when_down: what counts while those cannot be reached: our own, or nothing is let in.
    """

    def __init__(
        self,
        usual: float | None = None,
        clock: Callable[[], float] = monotonic,
        observe: Callable[[Caller, float], None] = lambda caller, audio_s: None,
        shared: SharedAccounts | None = None,
        when_down: WhenDown = "open",
    ) -> None:
        self.usual, self.observe = usual, observe
        self.shared, self.when_down = shared, when_down
        self._clock = clock
        self._buckets: dict[tuple[str | None, str], _Bucket] = {}

    async def admit(self, caller: Caller) -> None:
        """Refuse a caller whose bucket is empty, in all replicas where they share it.

        Raises:
            Problem: the caller has nothing left, and when to try again; or that is not known.
        """
        quota = caller.audio_seconds_per_minute
        if self.shared is None or quota is None:
            return self.check(caller)
        left = await self.shared.left(caller.account, quota)
        if left is not None:
            _check(quota, left)
        elif self.when_down == "open":
            self.check(caller)
        else:
            raise Problem(
                "quota-unknown",
                "What is left of the quota is kept in Redis, which does not answer.",
                headers={"Retry-After": str(DOWN_RETRY_S)},
            )

    async def told(self, caller: Caller) -> dict[str, str]:
        """The `RateLimit` headers once all charges until now have been counted."""
        quota = caller.audio_seconds_per_minute
        if self.shared is None or quota is None:
            return self.headers(caller)
        left = await self.shared.left(caller.account, quota) if await self.settle() else None
        if left is not None:
            return _headers(quota, left)
        return self.headers(caller) if self.when_down == "open" else {}

    async def settle(self) -> bool:
        """Have all charges until now counted where they are shared; False if that fails."""
        return self.shared is None or await self.shared.settle()

    def check(self, caller: Caller) -> None:
        """Refuse a caller whose bucket in this process is empty.

        Raises:
            Problem: the caller has nothing left, and when to try again.
        """
        quota = caller.audio_seconds_per_minute
        if quota is not None:
            _check(quota, self._left(caller, quota))

    def charge(self, caller: Caller, audio_s: float) -> None:
        """Take decoded seconds from the caller's bucket."""
        self.observe(caller, audio_s)
        quota = caller.audio_seconds_per_minute
        if quota is not None and audio_s > 0:
            self._left(caller, quota)
            self._buckets[caller.account].seconds -= audio_s
            if self.shared is not None:
                self.shared.charge(caller.account, quota, audio_s)

    def headers(self, caller: Caller) -> dict[str, str]:
        """The `RateLimit` headers by the buckets of this process."""
        quota = caller.audio_seconds_per_minute
        return {} if quota is None else _headers(quota, self._left(caller, quota))

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
        """Forget callers that have not been seen for a window, else those not seen for longest."""
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


def _check(quota: float, left: float) -> None:
    """Refuse a caller who has nothing left of the quota."""
    if left > 0:
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
        headers={"Retry-After": str(wait_s)} | _headers(quota, left),
    )


def _headers(quota: float, left: float) -> dict[str, str]:
    """The `RateLimit` headers: what is granted, what is left, and when it is full again."""
    full_in_s = math.ceil((quota - left) * WINDOW_S / quota)
    return {
        "RateLimit-Policy": f'"{POLICY}";q={math.ceil(quota)};qu="audio-seconds";w={WINDOW_S}',
        "RateLimit": f'"{POLICY}";r={max(0, math.floor(left))};t={full_in_s}',
    }


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
