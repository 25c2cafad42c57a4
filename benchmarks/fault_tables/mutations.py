"""Files of every format, broken at random."""

import argparse
import random
import re
import threading
from concurrent.futures import ThreadPoolExecutor

from hypothesis import HealthCheck, Phase, given, settings

from benchmarks.fault_tables.service import HEAD, JSON_URL, LINE, Outcomes, live, post, service
from tests.mutations import kind_and_mutated

N_CLIENTS = 4
# Where mutated files go, and how often
ROUTES = {
    JSON_URL: 14,
    "/v1/audio/analyze?output=base64": 2,
    "/v1/audio/inspect?decode=true": 2,
    f"{JSON_URL}&stream=true&window_s=0.2": 1,
    "WebSocket": 1,
}


def table(asked: argparse.Namespace) -> None:
    """Files of every format with bytes changed, cut out, put in, repeated, or the end cut off."""
    n_files = asked.files
    results: list[tuple[str, str, int]] = []
    distinct: set[int] = set()
    routes, rng = [r for r, weight in ROUTES.items() for _ in range(weight)], random.Random(0)

    with service() as (client, _, peak), ThreadPoolExecutor(N_CLIENTS) as clients:
        room = threading.BoundedSemaphore(2 * N_CLIENTS)

        def one(kind: str, data: bytes, route: str) -> None:
            is_live = route == "WebSocket"
            status = live(client, data) if is_live else post(client, route, content=data)
            results.append((route, kind, status))
            room.release()

        @settings(
            max_examples=2 * n_files,  # of which a fifth has been there before
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(kind_and_mutated())
        def send(drawn: tuple[str, bytes]) -> None:
            kind, data = drawn
            if len(distinct) == n_files or hash(data) in distinct:
                return
            distinct.add(hash(data))
            room.acquire()
            clients.submit(one, kind, data, rng.choice(routes))

        send()
        clients.shutdown()
        print(f"\n{len(results)} mutated files, all different")
        print(f"highest RSS: {peak.taken_mb():.0f} MB")
        for column, what in enumerate(("to", "format")):
            print(f"\n| {what} | {HEAD} |\n|---|{LINE}|")
            for name in sorted({result[column] for result in results}):
                counts = Outcomes(result[2] for result in results if result[column] == name)
                print(f"| {re.sub('output=base64&?', '', name).rstrip('?')} | {counts.row()} |")
