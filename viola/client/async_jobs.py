"""The jobs of a service, for `viola.AsyncClient`."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from viola.client import job_calls as calls
from viola.client.errors import ServiceError, Unreachable
from viola.client.job_results import JobFile, ResultLines
from viola.client.jobs import MOST_BREAKS
from viola.client.records import JobInfo
from viola.client.sounds import Sound, Upload, several, upload

if TYPE_CHECKING:
    from viola.client.asynchronous import AsyncClient


class AsyncJobs:
    """Work that goes on after the answer; every call means what it means on `Jobs`."""

    def __init__(self, client: "AsyncClient") -> None:
        self._client, self._send = client, client.send

    async def submit(
        self,
        kind: str,
        sounds: Sequence[Sound] = (),
        *,
        sample_rate: int | None = None,
        webhook: Mapping[str, str] | None = None,
        **asked: Any,
    ) -> JobInfo:
        """Send files in parts, which go on where a connection broke, and have them worked on.

        Args:
            kind: `embed`, `classify`, `index` (with `collection=`), `teach` or `map` (both
                without sounds).
            sounds: paths, files' bytes, or samples.
            sample_rate: Hz, of samples.
            webhook: `url` and `secret` of who is to be told when it has ended.
            asked: parameters of the kind.

        Raises:
            ServiceError: the service refused.
            Unreachable: no answer came, for longer than `retries` allows.
        """
        uploads = [
            await self._uploaded(upload(sound, sample_rate)) for sound in several(sounds, "sounds")
        ]
        return await self._send(calls.submit(kind, asked, uploads, webhook, uuid4().hex))

    async def show(self, id: str) -> JobInfo:
        """How far it is."""
        return await self._send(calls.show(id))

    async def wait(
        self, id: str, *, poll_s: float = 1.0, timeout_s: float | None = None
    ) -> JobInfo:
        """The job once it has ended, however it has.

        Raises:
            TimeoutError: it has not ended in that time; it goes on.
        """
        began = time.monotonic()
        while not (job := await self.show(id)).has_ended:
            if timeout_s is not None and time.monotonic() - began > timeout_s:
                raise TimeoutError(f"the job {id} is {job.state} after {timeout_s:g} s")
            await asyncio.sleep(poll_s)
        return job

    async def result(self, id: str) -> AsyncIterator[JobFile]:
        """What became of each file, in their order, as it is read.

        Raises:
            ServiceError: it has not ended, or is not there any more.
        """
        lines = ResultLines()
        async with self._client._answered(calls.result(id)) as response:
            async for line in response.aiter_lines():
                if (file := lines.read(line)) is not None:
                    yield file

    async def list(self, state: str | None = None) -> AsyncIterator[JobInfo]:
        """All jobs of the key, the newest first; those that are queued, running, done and so on."""
        found, cursor = await self._send(calls.page(None, state))
        for job in found:
            yield job
        while cursor is not None:
            found, cursor = await self._send(calls.page(cursor, state))
            for job in found:
                yield job

    async def cancel(self, id: str) -> JobInfo:
        """End it; what was done before stays its result."""
        return await self._send(calls.cancel(id))

    async def delete(self, id: str) -> None:
        """Delete it with its result."""
        await self._send(calls.delete(id))

    async def _uploaded(self, body: Upload) -> str:
        name = await self._send(calls.announce(body))
        offset = n_breaks = 0
        while offset < body.n_bytes:
            piece = body.part(offset, calls.PIECE_BYTES)
            try:
                await self._send(calls.append(name, piece, offset))
                offset, n_breaks = offset + len(piece), 0
            except (ServiceError, Unreachable) as error:
                n_breaks += 1
                if n_breaks > MOST_BREAKS or not calls.may_go_on(error):
                    raise
                offset = await self._send(calls.received(name))
        return name
