"""The connection to Redis: URLs that are none, and servers that are no Redis."""

import asyncio

import pytest

from service.settings import Settings, SettingsError
from service.traffic.quotas import Caller, Quotas
from service.traffic.redis_link import RedisLink
from service.traffic.shared_accounts import SharedAccounts

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
