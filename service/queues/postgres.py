"""The queue of several machines: Procrastinate, in the PostgreSQL database of the store.

A step is put in the transaction that makes its job. Workers say that they are alive; the steps of a
worker that has been silent for too long are given to others.
"""

import asyncio
import logging
from collections.abc import Mapping
from time import monotonic
from typing import Any, cast

import structlog
from procrastinate import (
    App,
    BaseRetryStrategy,
    PsycopgConnector,
    RetryDecision,
    SyncPsycopgConnector,
)
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job
from psycopg import OperationalError
from psycopg_pool import PoolTimeout
from sqlalchemy import Connection
from sqlalchemy.engine import make_url

from service.collections.database import ANSWERING
from service.collections.job_records import Step
from service.collections.records import StoreBusy
from service.outage import Outage
from service.queues.queue import Again, Handle

LINES: Mapping[Step, str] = {"run": "viola", "tell": "viola-tell"}  # names of their queues
TASK = "viola:step"
POLL_S = 5.0  # where a notification was lost
ERROR_S = 5.0  # after a failure that is none of a job's
END_S = 3.0  # for each step of Procrastinate's shutdown, which waits for the database for ever
CONNECTIONS = 4

log = structlog.get_logger()


class _AsTold(BaseRetryStrategy):
    """Again when the step says so, and after any failure."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision:
        after_s = exception.after_s if isinstance(exception, Again) else ERROR_S
        return RetryDecision(retry_in={"seconds": cast(int, after_s)})


class PostgresQueue:
    """Steps in a database.

    Args:
        address: of the database, as `postgresql://...`.
        lapse_s: after a worker's last sign of life its steps are given to others.
    """

    def __init__(self, address: str, lapse_s: float) -> None:
        url = make_url(address).set(drivername="postgresql")
        limits = {name: str(value) for name, value in ANSWERING.items() if name not in url.query}
        url = url.update_query_dict(limits)
        self._address = url.render_as_string(hide_password=False)
        self._lapse_s = lapse_s
        self._putting = App(connector=SyncPsycopgConnector(conninfo=self._address))
        self._outage = Outage(
            "the queue of jobs has lost its database", "the queue of jobs has its database again"
        )
        self._seen_at = monotonic()
        for name in ("procrastinate", "psycopg.pool"):  # we log their failures ourselves
            logging.getLogger(name).setLevel(logging.CRITICAL)

    def put(self, connection: Connection, step: Step, job: str) -> None:
        """Add a step at the end, in the same transaction."""
        theirs = connection.connection.driver_connection
        deferrer = self._putting.configure_task(TASK, queue=LINES[step], connection=theirs)
        try:
            deferrer.defer(step=step, job=job)
        except ConnectorException as error:
            raise StoreBusy("The queue of jobs cannot take more now.") from error

    async def work(self, kind: Step, handle: Handle, n_at_once: int) -> None:
        """Do steps of a kind, so many at once, until cancelled or the database is away.

        A database that hangs keeps nobody who cancels it.
        """
        began = monotonic()
        working = asyncio.create_task(self._work(LINES[kind], handle, n_at_once))
        try:
            await asyncio.shield(working)
        except (ConnectorException, OperationalError, PoolTimeout) as error:
            if not isinstance(error, PoolTimeout) or self._seen_at < began:  # else it is back
                self._note(error)
        finally:
            while not working.done():
                working.cancel()
                await asyncio.wait([working], timeout=END_S)
            if not working.cancelled():
                working.exception()  # told already, or of no interest any more

    async def _work(self, line: str, handle: Handle, n_at_once: int) -> None:
        connector = PsycopgConnector(
            conninfo=self._address, min_size=1, max_size=CONNECTIONS + n_at_once
        )
        app = App(connector=connector)

        @app.task(name=TASK, queue=line, retry=_AsTold())
        async def do(step: str, job: str) -> None:
            try:
                await handle(cast(Step, step), job)
            except Again:
                raise
            except Exception as error:
                log.error("step failed", step=step, job=job, exc_info=error)
                raise

        async with app.open_async():
            rescuing = asyncio.create_task(self._rescue(app, line))
            try:
                await app.run_worker_async(
                    queues=[line],
                    concurrency=n_at_once,
                    fetch_job_polling_interval=POLL_S,
                    update_heartbeat_interval=self._lapse_s / 3,
                    stalled_worker_timeout=self._lapse_s,
                    shutdown_graceful_timeout=self._lapse_s,
                    install_signal_handlers=False,
                    delete_jobs="always",
                )
            finally:
                rescuing.cancel()

    def is_lost(self) -> bool:
        """Never: the steps are in the same database as the jobs."""
        return False

    def close(self) -> None:
        """There is nothing to close: `work` opens and closes its own connections."""

    async def _rescue(self, app: App, line: str) -> None:
        """Give the steps of silent workers to others."""
        manager: Any = app.job_manager
        while True:
            try:
                for job in await manager.get_stalled_jobs(
                    queue=line, seconds_since_heartbeat=self._lapse_s
                ):
                    log.warning("step taken from a silent worker", job=job.task_kwargs.get("job"))
                    await manager.retry_job(job)
                self._note(None)
            except Exception as error:
                self._note(error)
            await asyncio.sleep(self._lapse_s / 3)

    def _note(self, error: Exception | None) -> None:
        """Note that the database answers, or the error with which it fails."""
        if error is None:
            self._seen_at = monotonic()
            self._outage.works()
        else:
            self._outage.fails(str(error.__cause__ or error).partition("\n")[0])
