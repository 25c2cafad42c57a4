"""Quotas and usage that replicas share through a real Redis."""

import asyncio
import shutil
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
from redis import Redis
from structlog.testing import capture_logs

from service.problems import Problem
from service.traffic.auth import digest_of, new_key
from service.traffic.quotas import Caller, Quotas, WhenDown
from service.traffic.redis_link import RedisLink
from service.traffic.shared_accounts import BATCH_KEPT_S, PREFIX, SharedAccounts
from tests.service.conftest import Serve, encoded, tone, until
from tests.service.traffic.redis_server import RedisServer, started_server
from tests.service.traffic.test_refusals import refused

URL = "/v1/audio/embeddings"
WEB, WATCHER = new_key(), new_key()
QUOTA = 100.0  # seconds a minute
KEYS = f"web:{digest_of(WEB)}::{QUOTA:g} watcher:{digest_of(WATCHER)}:metrics"
CALLER = Caller(key="web", audio_seconds_per_minute=QUOTA)
ACCOUNT = CALLER.account
CLIP_S = 10.0
CLIP = encoded(tone(CLIP_S))

OnRedis = Callable[[SharedAccounts], Awaitable[None]]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    server = started_server()
    yield server
    server.stop()
    shutil.rmtree(server.socket.parent)


@pytest.fixture
def redis(server: RedisServer) -> Iterator[Any]:
    """An empty Redis, and a client to look inside."""
    with Redis(unix_socket_path=str(server.socket)) as client:
        client.flushall()
        yield client


def run(server: RedisServer, use: OnRedis, timeout_s: float = 5.0) -> None:
    async def used() -> None:
        accounts = SharedAccounts(RedisLink(server.url, timeout_s))
        await use(accounts)
        await accounts.close()

    asyncio.run(used())


def bearer(key: str = WEB) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def send(client: httpx.Client) -> httpx.Response:
    return client.post(URL, content=CLIP, headers=bearer())


def usage(client: httpx.Client) -> dict[str, Any]:
    answer: dict[str, Any] = client.get("/v1/usage", headers=bearer(WATCHER)).json()
    return answer


def row(report: dict[str, Any], key: str = "web") -> tuple[int, float]:
    return next((r["requests"], r["audio_seconds"]) for r in report["data"] if r["key"] == key)


def test_two_replicas_share_one_quota(server: RedisServer, redis: Any, serve: Serve) -> None:
    settings = {"api_keys": KEYS, "redis_url": server.url, "redis_timeout_s": 5.0}
    with serve(**settings) as one, serve(**settings) as other:
        began = time.monotonic()
        answers = [send(client) for _ in range(7) for client in (one, other)]
        took_s = time.monotonic() - began
        accepted = sum(answer.status_code == 200 for answer in answers)
        refused(answers[-1], "quota-exceeded")
        assert QUOTA <= accepted * CLIP_S <= QUOTA + took_s * QUOTA / 60 + CLIP_S
        assert usage(one)["replicas"] == "all"
        until(lambda: row(usage(one)) == (14, accepted * CLIP_S))
        assert row(usage(other)) == row(usage(one))
        assert row(usage(other), "watcher")[0] > 0
        assert one.get("/readyz").json()["redis"] == "up"


def test_what_one_replica_has_left_is_what_the_other_has_left(
    server: RedisServer, redis: Any, serve: Serve
) -> None:
    settings = {"api_keys": KEYS, "redis_url": server.url, "redis_timeout_s": 5.0}
    with serve(**settings) as one, serve(**settings) as other:
        first, second = send(one), send(other)
    assert first.headers["RateLimit"].startswith('"audio";r=90;')
    left = int(second.headers["RateLimit"].split("r=")[1].split(";")[0])
    assert 80 <= left < 90


def test_a_bucket_refills_goes_into_debt_and_expires_by_itself(
    server: RedisServer, redis: Any
) -> None:
    async def use(accounts: SharedAccounts) -> None:
        assert await accounts.left(ACCOUNT, 6000.0) == 6000.0
        accounts.charge(ACCOUNT, 6000.0, 6010.25)
        await accounts.settle()
        first = await accounts.left(ACCOUNT, 6000.0)
        assert first is not None
        assert -10.25 <= first < 90  # a hundred come back every second
        await asyncio.sleep(0.2)
        later = await accounts.left(ACCOUNT, 6000.0)
        assert later is not None
        assert later >= first + 19

    run(server, use)
    assert 55_000 < redis.pttl(f"{PREFIX}key:web") < 63_000
    assert all(redis.ttl(key) > 0 for key in redis.keys("*"))


def test_a_full_bucket_is_forgotten(server: RedisServer, redis: Any) -> None:
    async def use(accounts: SharedAccounts) -> None:
        accounts.charge(ACCOUNT, 60_000.0, 10.0)  # a thousand come back every second
        await accounts.settle()

    run(server, use)
    assert redis.exists(f"{PREFIX}key:web")
    until(lambda: not redis.exists(f"{PREFIX}key:web"))


def test_a_batch_that_arrives_twice_counts_once(server: RedisServer, redis: Any) -> None:
    async def use(accounts: SharedAccounts) -> None:
        accounts.charge(ACCOUNT, QUOTA, 40.0)
        accounts.count("web", requests=1, audio_s=40.0)
        assert accounts._next() is not None
        await accounts._send()  # whose answer is lost
        await accounts.settle()
        left = await accounts.left(ACCOUNT, QUOTA)
        assert left is not None
        assert 60.0 <= left < 100.0
        use = await accounts.used()
        assert use is not None
        assert (use.by_key["web"].requests, use.by_key["web"].audio_s) == (1, 40.0)

    run(server, use)
    assert 0 < redis.ttl(redis.keys(f"{PREFIX}batch:*")[0]) <= BATCH_KEPT_S


def test_many_at_once_are_counted_to_the_second(server: RedisServer, redis: Any) -> None:
    async def one(accounts: SharedAccounts) -> None:
        accounts.charge(ACCOUNT, QUOTA, 0.125)
        accounts.count("web", audio_s=0.125)
        await accounts.settle()

    async def use(accounts: SharedAccounts) -> None:
        await asyncio.gather(*(one(accounts) for _ in range(200)))
        use = await accounts.used()
        assert use is not None
        assert use.by_key["web"].audio_s == 25.0

    run(server, use)


@pytest.mark.parametrize("choice", ["open", "closed"])
def test_a_redis_that_stops_and_comes_back_under_load(
    server: RedisServer, redis: Any, serve: Serve, choice: WhenDown
) -> None:
    keys = KEYS.replace(f"::{QUOTA:g}", "::1e9")
    settings = {"api_keys": keys, "redis_url": server.url, "redis_down": choice}
    statuses: Counter[int] = Counter()
    slowest = 0.0
    with capture_logs() as logs, serve(**settings, redis_timeout_s=1.0) as client:
        done = threading.Event()

        def load() -> None:
            nonlocal slowest
            while not done.is_set():
                began = time.monotonic()
                statuses[send(client).status_code] += 1
                slowest = max(slowest, time.monotonic() - began)

        sender = threading.Thread(target=load)
        sender.start()
        try:
            until(lambda: statuses[200] >= 3)
            server.stop()
            until(lambda: client.get("/readyz").json()["redis"] == "down")
            before = statuses.total()
            until(lambda: statuses.total() >= before + 3)
            assert client.get("/readyz").status_code == 200
            assert usage(client)["replicas"] == "this"
            assert "viola_redis_up 0.0" in client.get("/metrics", headers=bearer(WATCHER)).text
        finally:
            server.start()
        until(lambda: client.get("/readyz").json()["redis"] == "up")
        before = statuses[200]
        until(lambda: statuses[200] >= before + 3)
        done.set()
        sender.join()
        # What was used meanwhile was kept, and is told
        until(lambda: row(usage(client))[1] >= (before + 3) * CLIP_S - 4 * CLIP_S)
    assert set(statuses) == ({200} if choice == "open" else {200, 503})
    assert slowest < 10
    events = [entry["event"] for entry in logs if entry["event"].startswith("redis ")]
    assert events == ["redis is down", "redis is back"]


def test_a_redis_that_hangs_is_waited_for_once(server: RedisServer, redis: Any) -> None:
    async def use(accounts: SharedAccounts) -> None:
        quotas = Quotas(shared=accounts, when_down="closed")
        await quotas.admit(CALLER)
        server.freeze()
        try:
            began = time.monotonic()
            with pytest.raises(Problem) as problem:
                await quotas.admit(CALLER)
            assert 0.3 <= time.monotonic() - began < 5
            assert problem.value.kind.slug == "quota-unknown"
            assert problem.value.headers == {"Retry-After": "2"}
            began = time.monotonic()
            for _ in range(100):
                with pytest.raises(Problem):
                    await quotas.admit(CALLER)
            assert time.monotonic() - began < 0.3
            await quotas.admit(Caller(key="free"))  # who has no quota needs no account
        finally:
            server.thaw()
        assert await accounts.find()
        await quotas.admit(CALLER)

    run(server, use, timeout_s=0.3)


@pytest.mark.parametrize(
    ("setting", "broken", "whole"),
    [
        pytest.param(("maxmemory",), ("1",), ("0",), id="full"),
        pytest.param(("replicaof",), ("127.0.0.1", "1"), ("no", "one"), id="a replica"),
    ],
)
def test_a_redis_that_answers_but_counts_nothing_is_down_until_it_counts(
    server: RedisServer,
    redis: Any,
    setting: tuple[str, ...],
    broken: tuple[str, ...],
    whole: tuple[str, ...],
) -> None:
    def become(values: tuple[str, ...]) -> None:
        config = () if setting == ("replicaof",) else ("CONFIG", "SET")
        redis.execute_command(*config, *setting, *values)

    async def use(accounts: SharedAccounts) -> None:
        quotas = Quotas(shared=accounts, when_down="closed")
        quotas.charge(CALLER, 10.0)
        assert await quotas.settle()
        become(broken)
        tending = asyncio.create_task(accounts.tend())
        try:
            quotas.charge(CALLER, 20.0)
            reading = asyncio.create_task(accounts.left(ACCOUNT, QUOTA))  # which still works
            assert not await quotas.settle()
            await reading
            assert not accounts.link.is_up
            await asyncio.sleep(2.5)  # it is looked for meanwhile
            with pytest.raises(Problem) as problem:
                await quotas.admit(CALLER)
            assert problem.value.kind.slug == "quota-unknown"
        finally:
            become(whole)
        while not accounts.link.is_up:
            await asyncio.sleep(0.05)
        tending.cancel()
        left = await accounts.left(ACCOUNT, QUOTA)
        assert left is not None
        assert 70.0 <= left < 80.0

    with capture_logs() as logs:
        run(server, use)
    events = [entry["event"] for entry in logs if entry["event"].startswith("redis ")]
    assert events == ["redis is down", "redis is back"]


def test_a_cancellation_that_redis_takes_for_an_error_is_one() -> None:
    async def use() -> None:
        link = RedisLink("unix:///nowhere/redis.sock", 5.0)

        async def call() -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise ConnectionError("not connected") from None

        asking = asyncio.create_task(link.ask(call))
        await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled()
        assert link.is_up
        await link.close()

    asyncio.run(use())


@pytest.mark.parametrize("n_steps", range(0, 60, 4))
def test_who_looks_for_a_redis_ends_when_told_to(server: RedisServer, n_steps: int) -> None:
    async def use() -> None:
        accounts = SharedAccounts(RedisLink(f"{server.url}?password=wrong", 5.0))
        accounts.link.is_up = False
        tending = asyncio.create_task(accounts.tend())
        for _ in range(n_steps):
            await asyncio.sleep(0)
        tending.cancel()
        await asyncio.wait([tending], timeout=5)
        assert tending.cancelled()
        await accounts.close()

    asyncio.run(use())


def test_while_redis_is_down_the_replicas_own_buckets_count(server: RedisServer) -> None:
    async def use() -> None:
        accounts = SharedAccounts(RedisLink("unix:///nowhere/redis.sock", 0.3))
        quotas = Quotas(shared=accounts)
        await quotas.admit(CALLER)
        quotas.charge(CALLER, 150.0)
        assert (await quotas.told(CALLER))["RateLimit"].startswith('"audio";r=0;')
        with pytest.raises(Problem) as problem:
            await quotas.admit(CALLER)
        assert problem.value.kind.slug == "quota-exceeded"

    asyncio.run(use())


def test_an_outage_is_no_debt_of_hours(server: RedisServer, redis: Any) -> None:
    async def use(accounts: SharedAccounts) -> None:
        accounts.link.is_up = False
        for _ in range(60):  # an hour's use under the replica's own bucket
            accounts.charge(ACCOUNT, QUOTA, QUOTA)
        tending = asyncio.create_task(accounts.tend())
        while await accounts.left(ACCOUNT, QUOTA) is None or accounts._pending.charges:
            await asyncio.sleep(0.01)
        left = await accounts.left(ACCOUNT, QUOTA)
        tending.cancel()
        assert left is not None
        assert left >= 0

    run(server, use)
