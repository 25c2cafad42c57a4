"""The connection to Redis: URLs that are none, and servers that are no Redis."""

import asyncio
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.settings import Settings, SettingsError
from service.traffic.quotas import Caller, Quotas
from service.traffic.redis_link import RIGHTS, RedisLink
from service.traffic.shared_accounts import SharedAccounts
from tests.service.conftest import until

pytest.importorskip("redis", reason="needs the redis extra")

CALLER = Caller(key="web", audio_seconds_per_minute=100.0)
ANSWERS = {  # well formed, and none that Redis gives to what it is asked
    "a status": b"+OK\r\n",
    "a text": b"$1\r\nx\r\n",
    "nothing": b"$-1\r\n",
    "a list": b"*2\r\n$1\r\na\r\n$1\r\nb\r\n",
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=list(ANSWERS))
def test_a_server_that_answers_like_no_redis_is_down(answer: bytes) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while received := await reader.read(1 << 16):
            writer.write(answer * max(1, received.count(b"*")))  # one for each command
        writer.close()

    async def use() -> None:
        server = await asyncio.start_server(speak, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        accounts = SharedAccounts(RedisLink(f"redis://{host}:{port}/0", 5.0))
        quotas = Quotas(shared=accounts)
        await quotas.admit(CALLER)
        quotas.charge(CALLER, 10.0)
        assert (await quotas.told(CALLER))["RateLimit"].startswith('"audio";r=90;')
        assert await accounts.used() is None
        assert not accounts.link.is_up
        accounts.link.is_up = True
        assert await accounts.used() is None
        await accounts.close()
        server.close()

    asyncio.run(use())


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:6379",
        "redis://localhost:port/0",
        "redis://localhost/viola",  # redis takes it for 0, which may be another installation's
        "redis://localhost/0?socket_timeout_ms=5",
        "rediss://localhost/0?ssl_cert_reqs=perhaps",
    ],
)
def test_a_url_that_is_none_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(SettingsError) as error:
        RedisLink(url, 0.25)
    assert "VIOLA_REDIS_URL" in str(error.value)
    assert url not in str(error.value)


def test_the_password_in_a_url_is_not_shown() -> None:
    settings = Settings(redis_url="redis://:secret@localhost:6379/0")  # type: ignore[arg-type]
    assert "secret" not in repr(settings)


def refused(url: str) -> list[dict[str, Any]]:
    """What is logged of a Redis at which nothing is counted."""

    async def use() -> bool:
        accounts = SharedAccounts(RedisLink(url, 1.0))
        found = await accounts.find()
        await accounts.close()
        return found

    with capture_logs() as logs:
        assert not asyncio.run(use())
    return [line for line in logs if line["event"] == "redis is down"]


def test_a_redis_that_refuses_who_asks_is_down_with_the_remedy(locked_redis: str) -> None:
    for user in ("", ":wrong@", "nobody:word@"):
        (line,) = refused(locked_redis.format(user))
        assert "redis://user:password@host:6379/0" in line["remedy"], line
    (line,) = refused(locked_redis.format("reader:word@"))
    assert "ACL SETUSER name ~{viola}:* +@read +@write" in line["remedy"]
    (line,) = refused(locked_redis.format("").replace("redis://", "rediss://"))
    assert "a Redis without TLS is at redis://" in line["remedy"]
    assert "%40" not in str(line)


def test_the_rights_of_the_remedy_are_enough(locked_redis: str) -> None:
    async def use() -> None:
        accounts = SharedAccounts(RedisLink(locked_redis.format("counter:word@"), 5.0))
        accounts.charge(("web", None), 100.0, 10.0)
        accounts.count("web", 1, 10.0)
        assert await accounts.find()
        assert await accounts.used() is not None
        assert await accounts.left(("web", None), 100.0) == pytest.approx(90, abs=1)
        await accounts.close()

    asyncio.run(use())


@pytest.fixture
def locked_redis(tmp_path: Path, port: int) -> Iterator[str]:
    """The URL, with a place for who asks, of a Redis that demands a password."""
    if shutil.which("redis-server") is None:
        pytest.skip("there is no redis-server: apt-get install redis-server")
    config = tmp_path / "redis.conf"
    config.write_text(
        f"bind 127.0.0.1\nport {port}\nsave ''\nrequirepass s/cr@t\n"
        "user reader on >word ~* +get\n"
        f"user counter on >word {' '.join(RIGHTS)}\n"
    )
    server = subprocess.Popen(["redis-server", config], cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        until(lambda: is_open(port))
        yield f"redis://{{}}127.0.0.1:{port}/0"
    finally:
        server.kill()
        server.wait()


def is_open(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
