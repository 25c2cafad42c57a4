"""The quotas and sums of all replicas, kept in one Redis.

A bucket is two numbers under a key of its caller: the seconds that are left and when that was. Two
short scripts read and charge it by Redis' own clock, so replicas need not agree on the time. The
`limits` library does not fit: its strategies count whole hits, a charge that does not fit is
refused and not counted, and its moving window keeps an entry for each unit of a charge; ours are
fractions of seconds that are known after the work, and may go into debt.

Charges are collected and sent together: before the answer of the request that caused them begins,
and every `SETTLE_S` of streams. Each batch has a number that Redis keeps, so that a batch that is
sent again because no answer came is counted once. What cannot be sent is kept, one sum a caller,
until Redis is back; a process that is killed takes along what it has not sent.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast
from uuid import uuid4

from service.traffic.redis_link import RETRY_S, RedisLink

SETTLE_S = 0.5
PREFIX = "{viola}:"  # the braces keep all keys in one slot of a Redis cluster
USAGE_KEPT_S = 400 * 86_400  # after the last use
BATCH_KEPT_S = 86_400  # the number of a replica's last batch
MAX_PENDING = 10_000  # callers whose charges are kept while Redis is down; others' are forgiven

# The bucket: seconds left, and the time of Redis in ms at which that was
_REFILL = """
local function left(key, quota, now)
    local kept = redis.call('HMGET', key, 'left', 'at')
    if not kept[1] then return quota end
    local passed = math.max(0, now - tonumber(kept[2]))
    return math.min(quota, tonumber(kept[1]) + passed * quota / 60000)
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# KEYS: bucket. ARGV: quota. -> seconds left
LEFT = _REFILL + "return string.format('%.17g', left(KEYS[1], tonumber(ARGV[1]), now))"

# KEYS: last batch, usage, buckets. ARGV: number of the batch, how long it and usage are kept in s,
# then quota and seconds of each bucket, then name, requests and seconds of each key
SETTLE = (
    _REFILL
    + """
if tonumber(redis.call('GET', KEYS[1]) or 0) >= tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
local at = 4
for i = 3, #KEYS do
    local quota = tonumber(ARGV[at])
    local rest = left(KEYS[i], quota, now) - tonumber(ARGV[at + 1])
    redis.call('HSET', KEYS[i], 'left', string.format('%.17g', rest), 'at', now)
    redis.call('PEXPIRE', KEYS[i], math.ceil((quota - rest) * 60000 / quota) + 1000)
    at = at + 2
end
redis.call('HSETNX', KEYS[2], 'since', time[1])
while at <= #ARGV do
    redis.call('HINCRBY', KEYS[2], 'requests:' .. ARGV[at], ARGV[at + 1])
    redis.call('HINCRBYFLOAT', KEYS[2], 'audio:' .. ARGV[at], ARGV[at + 2])
    at = at + 3
end
redis.call('EXPIRE', KEYS[2], ARGV[3])
return 1
"""
)

Account = tuple[str | None, str]  # the name of a key, or None and a network


@dataclass
class Sums:
    """What was used with a key: requests, and seconds of audio."""

    requests: int = 0
    audio_s: float = 0.0


@dataclass(frozen=True)
class SharedUse:
    """What all replicas have used, by key, and since when that is counted."""

    since: datetime
    by_key: dict[str | None, Sums]


@dataclass
class _Batch:
    """What is to be sent: seconds and quota of each account, sums of each key."""

    number: int
    charges: dict[Account, tuple[float, float]] = field(default_factory=dict)
    sums: dict[str | None, Sums] = field(default_factory=dict)


class SharedAccounts:
    """Buckets and sums that all replicas on one Redis have together; used on one event loop."""

    def __init__(self, link: RedisLink) -> None:
        self.link = link
        self._replica = uuid4().hex
        self._pending = _Batch(1)
        self._sending: _Batch | None = None  # until it is known to have arrived
        self._one_at_a_time = asyncio.Lock()
        self._left = link.client.register_script(LEFT)
        self._settle = link.client.register_script(SETTLE)

    async def left(self, account: Account, quota: float) -> float | None:
        """Seconds in the bucket of an account, below 0 where there is debt; None: Redis is down."""

        async def left() -> float:
            return float(await self._left([_bucket(account)], [quota]))

        return await self.link.ask(left)

    def charge(self, account: Account, quota: float, audio_s: float) -> None:
        """Take seconds from a bucket, with the next batch."""
        charges = self._pending.charges
        if account in charges or len(charges) < MAX_PENDING:
            charges[account] = (quota, audio_s + charges.get(account, (quota, 0.0))[1])

    def count(self, key: str | None, requests: int = 0, audio_s: float = 0.0) -> None:
        """Add to the sums of a key, with the next batch."""
        sums = self._pending.sums.setdefault(key, Sums())
        sums.requests += requests
        sums.audio_s += audio_s

    async def settle(self) -> bool:
        """Send what is pending, also what another request is sending now; False: Redis is down."""
        async with self._one_at_a_time:
            while self._next() is not None:
                if await self.link.ask(self._send) is None:
                    return False
                self._sending = None
        return True

    async def used(self) -> SharedUse | None:
        """The sums of all replicas, this one's until now included; None: Redis is down."""
        if not await self.settle():
            return None
        return await self.link.ask(self._usage)

    async def tend(self) -> None:
        """Send what streams have cost, and look for a Redis that is down, until cancelled."""
        while True:
            if self.link.is_up or await self.find():
                await self.settle()
            await asyncio.sleep(SETTLE_S if self.link.is_up else RETRY_S)

    async def find(self) -> bool:
        """Look for a Redis that is down, by sending a batch, if need be an empty one."""
        async with self._one_at_a_time:
            if self._sending is None:
                self._sending = _Batch(self._pending.number)
                self._pending.number += 1
            if await self.link.find(self._send) is None:
                return False
            self._sending = None
            self._forgive()
        return True

    async def close(self) -> None:
        """Send what is left, if Redis is there, and disconnect."""
        await self.settle()
        await self.link.close()

    def _forgive(self) -> None:
        """Let what was used while Redis was down weigh no more than a minute's quota.

        Meanwhile the buckets of each process counted, and most of it has been paid off there.
        """
        for account, (quota, audio_s) in self._pending.charges.items():
            self._pending.charges[account] = (quota, min(quota, audio_s))

    def _next(self) -> _Batch | None:
        """The batch that has to be sent: one that may not have arrived, else what is pending."""
        if self._sending is None and (self._pending.charges or self._pending.sums):
            self._sending, self._pending = self._pending, _Batch(self._pending.number + 1)
        return self._sending

    async def _send(self) -> bool:
        batch = self._sending
        assert batch is not None
        keys = [f"{PREFIX}batch:{self._replica}", PREFIX + "usage"]
        arguments: list[Any] = [batch.number, BATCH_KEPT_S, USAGE_KEPT_S]
        for account, charge in batch.charges.items():
            keys.append(_bucket(account))
            arguments += charge
        for key, sums in batch.sums.items():
            arguments += [key or "", sums.requests, sums.audio_s]
        answer = await self._settle(keys, arguments)
        if answer not in (0, 1):  # the script's; 0: it was counted before
            raise ValueError(f"the server is no Redis: a charge was answered with {answer!r:.40}")
        return True

    async def _usage(self) -> SharedUse:
        asked = self.link.client.hgetall(PREFIX + "usage")
        return _use(await cast("Awaitable[dict[bytes, bytes]]", asked))


def _bucket(account: Account) -> str:
    key, network = account
    return f"{PREFIX}key:{key}" if key is not None else f"{PREFIX}address:{network}"


def _use(fields: Mapping[bytes, bytes]) -> SharedUse:
    """The hash of sums as it is stored -> sums by key."""
    since = datetime.now(UTC)
    by_key: dict[str | None, Sums] = {}
    for name, value in fields.items():
        what, _, key = name.decode().partition(":")
        sums = by_key.setdefault(key or None, Sums()) if what != "since" else Sums()
        if what == "since":
            since = datetime.fromtimestamp(int(value), UTC)
        elif what == "requests":
            sums.requests = int(value)
        else:
            sums.audio_s = float(value)
    return SharedUse(since, by_key)
