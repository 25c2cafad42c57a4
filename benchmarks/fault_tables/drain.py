"""SIGTERM while requests are in hand."""

import argparse
import asyncio
import os
import re
import signal
import time

import httpx

from benchmarks.fault_tables.service import HEAD, JSON_URL, LINE, NO_ANSWER, Outcomes, Peak
from benchmarks.processes import viola
from benchmarks.timing import spread
from tests import hostile

N_INFLIGHT = 100


def table(_: argparse.Namespace) -> None:
    """SIGTERM with a hundred requests in hand, ten times; once with too little time for them."""
    print(f"\n{N_INFLIGHT} requests in hand, then SIGTERM")
    print(
        f"\n| clips, time to end | {HEAD} | exit code | seconds to the end | RSS, MB |\n"
        f"|---|{LINE}|---|---|---|"
    )
    took = []
    for clip_s, limit_s in [(2, 25)] * 10 + [(20, 2)]:
        clip = hostile.silence(clip_s, 16_000, 1)
        outcomes, seconds, code, mb = asyncio.run(_drained(clip, limit_s))
        took.append(seconds)
        cells = f"{code} | {seconds:.2f} | {mb:.0f}"
        print(f"| {clip_s} s, {limit_s} s | {outcomes.row()} | {cells} |")
    print(f"\nseconds to the end of the first ten: {spread(took[:10])}")


async def _drained(clip: bytes, limit_s: int) -> tuple[Outcomes, float, int, float]:
    """Outcomes, seconds to the end, exit code, highest RSS."""
    how = {"max_inflight": 200, "max_queue_s": 10_000, "drain_delay_s": 0.2}
    with viola(**how, shutdown_timeout_s=limit_s) as (port, pid):
        peak = Peak(pid)
        base, pool = f"http://127.0.0.1:{port}", httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=base, timeout=60, limits=pool) as client:

            async def one() -> int:
                try:
                    return (await client.post(JSON_URL, content=clip)).status_code
                except httpx.HTTPError:
                    return NO_ANSWER

            tasks = [asyncio.create_task(one()) for _ in range(N_INFLIGHT)]
            most = 0.0
            while most < N_INFLIGHT and not any(task.done() for task in tasks):
                found = re.search(
                    r"inflight_requests ([\d.]+)", (await client.get("/metrics")).text
                )
                most = max(most, float(found[1]) if found else 0.0)
            started = time.perf_counter()
            os.kill(pid, signal.SIGTERM)
            outcomes = Outcomes(await asyncio.gather(*tasks))
        ended = await asyncio.to_thread(_ended, pid)
        peak.stop()
        return outcomes, time.perf_counter() - started, ended, peak.taken_mb()


def _ended(pid: int) -> int:
    """The exit code; the process stays to be waited for by who has started it."""
    info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert info is not None
    return info.si_status if info.si_code == os.CLD_EXITED else -info.si_status
