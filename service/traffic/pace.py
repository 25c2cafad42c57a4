"""The slowest rates at which a body may arrive and an answer may be read."""

import asyncio
from time import monotonic

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import as_problem, path_within, problem_response
from service.exceptions import ServiceError
from service.problems import Problem
from service.traffic.budget import Budget, Share

PIECE_BYTES = 64 << 10  # of an answer, that are handed to the connection at a time
SHORT_BYTES = 16 << 10  # up to which an answer is sent whole, and its memory is not counted
ABORT = "viola.abort"  # the extension of the scope that ends a connection at once

log = structlog.get_logger()


class BodyPace:
    """Refuses a body that arrives more slowly than `bytes_per_s`, once `grace_s` have passed.

    Only time spent waiting for the client counts, so a service that is busy blames nobody, and a
    body of any length may arrive as long as it moves.
    """

    def __init__(self, app: ASGIApp, bytes_per_s: float, grace_s: float) -> None:
        self.app = app
        self.bytes_per_s, self.grace_s = bytes_per_s, grace_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on the request with a `receive` that watches the clock."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        waited_s, n_bytes, is_whole = 0.0, 0, False

        async def paced() -> Message:
            nonlocal waited_s, n_bytes, is_whole
            if is_whole:  # what comes now is the end of the connection, and that may take its time
                return await receive()
            left_s = self.grace_s + n_bytes / self.bytes_per_s - waited_s
            started = monotonic()
            try:
                async with asyncio.timeout(left_s):
                    message = await receive()
            except TimeoutError:
                raise self._problem(n_bytes, waited_s + monotonic() - started) from None
            waited_s += monotonic() - started
            n_bytes += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            return message

        await self.app(scope, paced, send)

    def _problem(self, n_bytes: int, waited_s: float) -> Problem:
        return Problem(
            "body-timeout",
            f"{n_bytes} bytes of the body had arrived after {waited_s:.1f} s; after "
            f"{self.grace_s:g} s at least {self.bytes_per_s:g} bytes a second are expected.",
            limit=self.bytes_per_s,
            observed=round(n_bytes / waited_s, 3) if waited_s else 0.0,
            unit="bytes/s",
            headers={"Connection": "close"},
        )


class AnswerPace:
    """Holds each request's share of memory until the last byte of its answer has left.

    An answer is sent in small pieces, each once the one before has left; the share counts what
    waits. An answer of at most `SHORT_BYTES` is sent whole. A client that reads nothing for
    `grace_s` is cut off; if memory is held for it, so is one that reads less than `bytes_per_s`
    after that. Only time spent waiting for the client counts.
    """

    def __init__(self, app: ASGIApp, budget: Budget, bytes_per_s: float, grace_s: float) -> None:
        self.app, self.budget = app, budget
        self.bytes_per_s, self.grace_s = bytes_per_s, grace_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on the request with its share in the state, and a `send` that watches the clock."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        with self.budget.share() as share:
            scope.setdefault("state", {})["share"] = share
            await self.app(scope, receive, _Sender(self, scope, receive, send, share).send)


class _Sender:
    """Sends one answer in pieces, and measures how long the client takes for them."""

    def __init__(
        self, pace: AnswerPace, scope: Scope, receive: Receive, send: Send, share: Share
    ) -> None:
        self._pace, self._scope, self._share = pace, scope, share
        self._receive, self._send = receive, send
        self._start: Message | None = None  # until it is known whether the body may be kept
        self._is_over = False
        self._waited_s, self._n_bytes = 0.0, 0

    async def send(self, message: Message) -> None:
        """Send a message of the application."""
        if self._is_over:
            return
        if message["type"] != "http.response.body":
            self._start = message
            return
        body, is_last = message.get("body", b""), not message.get("more_body", False)
        if self._start is not None:
            if is_last and len(body) > SHORT_BYTES and (problem := self._full(len(body))):
                return await self._refuse(problem)
            start, self._start = self._start, None
            if is_last and len(body) <= SHORT_BYTES:  # most answers: one clock is enough for all
                return await self._patiently(start, message)
            await self._patiently(start)
        view = memoryview(body)
        for first in range(0, len(view), PIECE_BYTES):
            piece = bytes(view[first : first + PIECE_BYTES])
            await self._patiently({**message, "body": piece, "more_body": True})
        if is_last:  # empty, so that the connection waits until all before it has left
            await self._patiently({**message, "body": b"", "more_body": False})

    def _full(self, n_bytes: int) -> Problem | None:
        try:
            self._share.take_now(n_bytes)
        except ServiceError as error:
            return as_problem(error)
        return None

    async def _refuse(self, problem: Problem) -> None:
        """Say that there is no room, in place of the answer."""
        state = self._scope["state"]
        state["problem"] = problem
        response = problem_response(problem, state["request_id"], path_within(self._scope))
        self._is_over = True
        await response(self._scope, self._receive, self._send)

    async def _patiently(self, *messages: Message) -> None:
        """Send messages one after the other, in the time that there is for all of them."""
        if self._is_over:
            return
        self._n_bytes += sum(len(message.get("body", b"")) for message in messages)
        pace, started = self._pace, monotonic()
        left_s = pace.grace_s + self._n_bytes / pace.bytes_per_s - self._waited_s
        limit = asyncio.timeout(min(left_s, pace.grace_s) if self._share.held else pace.grace_s)
        try:
            async with limit:
                for message in messages:
                    await self._send(message)
        except TimeoutError:
            if not limit.expired():
                raise
            self._give_up()
        self._waited_s += monotonic() - started

    def _give_up(self) -> None:
        """Close the connection; whoever computes the rest is told that the client has gone."""
        self._is_over = True
        log.info("answer given up: the client takes too little", bytes_taken=self._n_bytes)
        if abort := self._scope.get("extensions", {}).get(ABORT):
            abort()
