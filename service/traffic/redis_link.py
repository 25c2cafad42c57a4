"""A connection to Redis that is up or down: bounded in time, and known to be down without a try.

The first call that fails marks it as down. From then on nobody waits for it: calls return at once
that there is no answer, until `find` has succeeded.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

import structlog

from service.settings import SettingsError

if TYPE_CHECKING:
    from redis.asyncio import Redis

T = TypeVar("T")

MAX_CONNECTIONS = 16  # of one process
RETRY_S = 1.0  # between tries to reach a Redis that is down
RIGHTS = ("~{viola}:*", "+@read", "+@write", "+@scripting", "+@connection", "+time")
REFUSALS = ("Authentication required", "invalid username-password", "AUTH", "NOAUTH", "WRONGPASS")
SCHEMES = ("redis://", "rediss://", "unix://")

log = structlog.get_logger()


class RedisLink:
    """One Redis, as the requests of one event loop see it.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        timeout_s: seconds that a call may take; one that takes longer counts as failed.
        choice: what the service does while Redis is down, for the log.

    Attributes:
        is_up: whether no call has failed since Redis was last found.
        failures: how many calls have failed.

    Raises:
        SettingsError: the URL is none, or the package is not installed.
    """

    def __init__(self, url: str, timeout_s: float, choice: str = "open") -> None:
        self.client = _client(url, timeout_s)
        self._is_tls = url.startswith("rediss://")
        self.timeout_s, self.choice = timeout_s, choice
        self.is_up, self.failures = True, 0
        self._since = monotonic()

    async def ask(self, call: Callable[[], Awaitable[T]]) -> T | None:
        """What `call` returns; None where Redis is down, or fails, or takes too long."""
        return await self._try(call) if self.is_up else None

    async def find(self, call: Callable[[], Awaitable[T]]) -> T | None:
        """Try `call` also while Redis is down, and mark it as up where that succeeds.

        The call has to write: a Redis that is full, or a replica that may only be read, still
        answers calls that read.
        """
        answer = await self._try(call)
        if answer is not None:
            self._change(True)
        return answer

    async def close(self) -> None:
        """Close the connections."""
        with suppress(Exception):  # whatever is wrong with them, nobody uses them any more
            async with asyncio.timeout(self.timeout_s):
                await self.client.aclose()

    async def _try(self, call: Callable[[], Awaitable[T]]) -> T | None:
        answer, failure, n_cancelled = None, None, _cancelled()
        try:
            async with asyncio.timeout(self.timeout_s):
                answer = await call()
        except Exception as error:  # of redis, or of an answer that no Redis gives
            failure = error
        if _cancelled() > n_cancelled:  # while redis connects it turns a cancellation into an error
            raise asyncio.CancelledError from failure
        if failure is not None:
            self.failures += 1
            told = {"reason": str(failure) or f"no answer in {self.timeout_s:g} s"}
            if remedy := remedy_of(failure, is_tls=self._is_tls):
                told["remedy"] = remedy
            self._change(False, **told)
        return answer

    def _change(self, is_up: bool, **facts: Any) -> None:
        """Note whether Redis is up, and log it where that is news."""
        if is_up == self.is_up:
            return
        lasted_s = round(monotonic() - self._since, 1)
        self.is_up, self._since = is_up, monotonic()
        if is_up:
            log.info("redis is back", down_s=lasted_s)
        else:
            log.warning("redis is down", fail=self.choice, **facts)


def remedy_of(failure: Exception, *, is_tls: bool = False) -> str | None:
    """What to do about a Redis that answers, and refuses; None where nothing special helps."""
    from redis import exceptions

    said = str(failure)
    if isinstance(failure, exceptions.NoPermissionError) or "NOPERM" in said:
        return f"give the user of VIOLA_REDIS_URL these rights: ACL SETUSER name {' '.join(RIGHTS)}"
    if isinstance(failure, exceptions.AuthenticationError) or said.startswith(REFUSALS):
        return (
            "write the user and the password of Redis into VIOLA_REDIS_URL, as "
            "redis://:password@host:6379/0 or redis://user:password@host:6379/0, with % and two "
            "digits for letters that a URL does not take (@ is %40, / is %2F)"
        )
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return "its certificate is not trusted here: name its authority, as ?ssl_ca_certs=FILE"
    if is_tls and (isinstance(failure, TimeoutError) or "SSL" in said):  # a plain one says nothing
        return "VIOLA_REDIS_URL begins with rediss://; a Redis without TLS is at redis://"
    return None


def _cancelled() -> int:
    """How often the task that runs was cancelled."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _client(url: str, timeout_s: float) -> "Redis":
    if not url.startswith(SCHEMES):
        raise SettingsError(
            f"VIOLA_REDIS_URL must begin with one of {', '.join(SCHEMES)}, such as "
            "redis://localhost:6379/0; it is not shown here, since it may hold a password"
        )
    try:
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ModuleNotFoundError:
        raise SettingsError(
            "VIOLA_REDIS_URL needs the package redis: pip install 'viola-audio[redis]'"
        ) from None
    try:
        _check_database(url)
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),  # who waits for an answer to a request has no time for it
        )
        # It connects nowhere yet, and refuses parameters that are unknown
        pool.make_connection()  # type: ignore[no-untyped-call]
        return Redis.from_pool(pool)
    except Exception as error:  # of several kinds: a URL may say anything
        reason = str(error).replace(url, "the URL")
        raise SettingsError(f"VIOLA_REDIS_URL cannot be used: {reason}") from None


def _check_database(url: str) -> None:
    """Refuse a database that is no number: redis takes it for 0, where others may count.

    Raises:
        ValueError: it is none.
    """
    parts = urlsplit(url)
    database = unquote(parts.path).strip("/")
    if parts.scheme != "unix" and database and not database.isdecimal():
        raise ValueError(f"its database is {database!r}; expected a number, as redis://host:6379/0")
