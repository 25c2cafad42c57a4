"""Two replicas behind nginx, killed in turn while clients add, label, teach, move and submit jobs.

    python benchmarks/replicas_kill.py --seconds 120

Each client does one kind of work through `viola.Client`, as an application would. Every few seconds
one replica, chosen at random, ends by kill -9 and starts again. What a client was answered is
acknowledged; what ended in an error may have happened or not, and is counted as unknown. Then
nothing is killed any more, and all that was acknowledged is looked for: one row for each kind.

The models are the tests' tiny ones. The set-up is that of `benchmarks/replicas.py`: nginx, where it
is installed, a Redis and a PostgreSQL of its own.
"""

import argparse
import random
import signal
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.replicas import READY_S, RICH, Running, running_all
from tests.service.conftest import GRAPH, NEGATIVE, encoded, tone, until, write_model
from viola import Client
from viola.client.calls import get
from viola.client.errors import ServiceError, Unreachable

LAPSE_S = 5.0
PATIENCE_S = 300.0
LONG_S = 600.0  # of a file that is sent in three parts
KINDS = ("low", "high")
MODELS = ("tiny", "other")


class Work(ABC):
    """One kind of work, done by a client until it is told to stop."""

    name: str

    def __init__(self, port: int) -> None:
        self.client = Client(f"http://127.0.0.1:{port}", key=RICH)
        self.n_acknowledged = 0
        self.unknown: Counter[str] = Counter()
        self.longest_s = 0.0

    def go_on(self, has_ended: threading.Event) -> None:
        """Do it again and again."""
        number = 0
        while not has_ended.is_set():
            number += 1
            began = time.monotonic()
            try:
                self.once(number)
                self.n_acknowledged += 1
            except (ServiceError, Unreachable) as error:
                self.unknown[named(error)] += 1
            self.longest_s = max(self.longest_s, time.monotonic() - began)

    def begin(self) -> None:  # noqa: B027  (nothing to make ready is the usual case)
        """Make ready what is worked on."""

    @abstractmethod
    def once(self, number: int) -> None: ...

    @abstractmethod
    def lost(self) -> Sequence[str]:
        """What was acknowledged and is not there, or is there and should not be."""

    def n_there(self) -> int | None:
        """How many there are, where each time makes one more; some may not be acknowledged."""
        return None


class Embeds(Work):
    """Plain requests, that leave nothing behind but their answers."""

    name = "embed"

    def once(self, number: int) -> None:
        self.client.embed(clip(number))

    def lost(self) -> Sequence[str]:
        return [f"{n} without an answer ({kind})" for kind, n in self.unknown.items()]


class Adds(Work):
    """Recordings of a collection; every third is deleted again."""

    name = "add, delete"

    def begin(self) -> None:
        self.sounds = self.client.collection("added")
        self.sounds.make(model=MODELS[0])
        self.present: set[str] = set()
        self.gone: set[str] = set()
        self.open: set[str] = set()

    def once(self, number: int) -> None:
        name = str(number)
        self.open.add(name)
        self.sounds.add(clip(number), id=name, metadata={"number": number})
        self.open.remove(name)
        self.present.add(name)
        if number % 3 == 0:
            self.open.add(name)
            self.present.remove(name)
            self.sounds.remove(name)
            self.open.remove(name)
            self.gone.add(name)

    def lost(self) -> Sequence[str]:
        found = {item.id for item in self.sounds.items()}
        nowhere = found - self.present - self.open
        unfound = [
            name
            for name in sorted(self.present & found)[:50]
            if name
            not in {hit.id for hit in self.sounds.search(like=[name], include_examples=True)}
        ]
        return [
            *(f"item {name} is lost" for name in self.present - found),
            *(f"item {name} is not deleted" for name in self.gone & found),
            *(f"item {name} is from nowhere" for name in nowhere),
            *(f"item {name} is not found by itself" for name in unfound),
        ]


class Labels(Work):
    """Labels of a collection, and now and then a classifier that is made of them."""

    name = "label"

    def begin(self) -> None:
        self.sounds = self.client.collection("labelled")
        self.sounds.make(model=MODELS[0], granularity="clip")
        self.items = {label: [] for label in KINDS}  # type: dict[str, list[str]]
        for number in range(24):
            label = KINDS[number % 2]
            item = self.sounds.add(clip(number, 100 if label == "low" else 3000), id=str(number))
            self.items[label].append(item.id)
            self.sounds.label(item.id, label)
        self.given: list[tuple[int, str, str]] = []

    def once(self, number: int) -> None:
        label = KINDS[number % 2]
        item = self.items[label][number // 2 % len(self.items[label])]
        made = self.sounds.label(item, f"{label} {number}")
        self.given.append((made.id, item, made.label))

    def lost(self) -> Sequence[str]:
        there = {(label.id, label.item, label.label) for label in self.sounds.labels()}
        return [f"label {label} is lost" for label in self.given if label not in there]

    def n_there(self) -> int:
        return sum(1 for _ in self.sounds.labels()) - sum(map(len, self.items.values()))


class Teaches(Work):
    """Classifiers that are made of those labels, each a version of one name."""

    name = "teach"

    def begin(self) -> None:
        self.versions: list[int] = []

    def once(self, number: int) -> None:
        taught = self.client.teach("kinds", collection="labelled", labels=list(KINDS))
        self.versions.append(taught.version)

    def lost(self) -> Sequence[str]:
        there = self._there()
        active = [number for number, is_active in there.items() if is_active]
        best = self.client.classify(clip(1, 3000), head="kinds").best
        heard = best and best.label
        return [
            *(f"version {number} is lost" for number in self.versions if number not in there),
            *([] if active == [max(there)] else [f"active: {active} of {sorted(there)}"]),
            *([] if heard == "high" else [f"a high tone is heard as {heard}"]),
        ]

    def n_there(self) -> int:
        return len(self._there())

    def _there(self) -> dict[int, bool]:
        """Which versions there are, and whether each is the active one."""
        versions = self.client.send(get("classifiers", "kinds"))["versions"]
        return {version["version"]: version["active"] for version in versions}


class Moves(Work):
    """A collection that goes from one model to the other and back."""

    name = "reembed"

    def begin(self) -> None:
        self.sounds = self.client.collection("moved")
        self.sounds.make(model=MODELS[0], keeps_audio=True)
        for number in range(20):
            self.sounds.add(clip(number), id=str(number))

    def once(self, number: int) -> None:
        moved = self.sounds.reembed(MODELS[number % 2])
        if not moved.is_complete:
            raise AssertionError(f"items that could not be moved: {moved.failed}")

    def lost(self) -> Sequence[str]:
        self.sounds.reembed(MODELS[0])
        found = {item.id for item in self.sounds.items()}
        hits = {hit.id for hit in self.sounds.search(clip(3), top_k=20)}
        return [
            *(f"item {n} is lost" for n in range(20) if str(n) not in found),
            *(f"item {n} is not found" for n in range(20) if str(n) not in hits),
        ]


class Submits(Work):
    """Jobs of two short files; of every tenth one is so long that it is sent in parts."""

    name = "jobs"

    def begin(self) -> None:
        self.jobs: dict[str, list[float]] = {}
        self.long = encoded(tone(LONG_S))

    def once(self, number: int) -> None:
        files = [clip(2 * number), self.long if number % 10 == 0 else clip(2 * number + 1)]
        job = self.client.jobs.submit("embed", files)
        self.jobs[job.id] = [1.0, LONG_S if number % 10 == 0 else 1.0]
        # No faster than they are done, or the end would be a long wait
        self.client.jobs.wait(job.id, poll_s=0.2, timeout_s=PATIENCE_S)

    def lost(self) -> Sequence[str]:
        problems = []
        for name, durations in self.jobs.items():
            job = self.client.jobs.wait(name, poll_s=0.2, timeout_s=PATIENCE_S)
            found = [
                file.answer.duration_s for file in self.client.jobs.result(name) if file.answer
            ]
            if job.state != "done" or [round(value, 1) for value in found] != durations:
                problems.append(f"job {name} is {job.state}: {found} of {durations}")
        return problems

    def n_there(self) -> int:
        return sum(1 for _ in self.client.jobs.list())


WORKS: tuple[type[Work], ...] = (Embeds, Adds, Labels, Teaches, Moves, Submits)


def named(error: ServiceError | Unreachable) -> str:
    if isinstance(error, Unreachable):
        return "no answer"
    return error.kind or f"answer {error.status} of nginx"


def clip(number: int, hz: float = 200.0) -> bytes:
    """A second of a tone of its own."""
    return encoded(tone(1.0, hz=hz + number / 10))


def kill_in_turn(
    running: Running, seconds: float, every_s: float, rng: random.Random
) -> Counter[int]:
    """How often each replica was killed, in so many seconds."""
    kills: Counter[int] = Counter()
    end = time.monotonic() + seconds
    for number, replica in cycle(enumerate(running.replicas)):
        time.sleep(2 * every_s * rng.random())
        if time.monotonic() > end:
            break
        replica.end(signal.SIGKILL)
        kills[number] += 1
        replica.start()
        until(replica.is_ready, READY_S)
    return kills


def written_models(folder: Path) -> Path:
    """Two tiny models whose vectors differ."""
    folder.mkdir()
    for name, graph in zip(MODELS, (GRAPH, NEGATIVE), strict=True):
        write_model(folder / f"{name}.onnx", name, graph=graph)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seconds", type=float, default=120.0, help="for which replicas are killed"
    )
    parser.add_argument("--every", type=float, default=4.0, help="seconds a replica lives, mean")
    parser.add_argument("--only", nargs="+", choices=[work.name for work in WORKS])
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="viola-models-") as folder:
        models = written_models(Path(folder) / "models")
        with running_all(VIOLA_MODELS=str(models), VIOLA_JOB_LAPSE_S=f"{LAPSE_S:g}") as running:
            print(f"two replicas behind {running.balancer}", flush=True)
            works = [
                work(running.port) for work in WORKS if not asked.only or work.name in asked.only
            ]
            kills = under_load(running, works, asked)
            print(told(works, kills))


def under_load(running: Running, works: Sequence[Work], asked: argparse.Namespace) -> Counter[int]:
    """Kill replicas while every client does its work; all clients have ended afterwards."""
    for work in works:
        work.begin()
    has_ended = threading.Event()
    clients = [threading.Thread(target=work.go_on, args=(has_ended,)) for work in works]
    for client in clients:
        client.start()
    try:
        return kill_in_turn(running, asked.seconds, asked.every, random.Random(asked.seed))
    finally:
        has_ended.set()
        for client in clients:
            client.join()


def told(works: Sequence[Work], kills: Counter[int]) -> str:
    """A row for each kind of work, and then what is wrong."""
    lines = [
        f"{kills.total()} kills, by replica {dict(sorted(kills.items()))}\n",
        "| | acknowledged | unknown | there beyond them | longest | lost or wrong |",
        "|---|---|---|---|---|---|",
    ]
    wrong: list[str] = []
    for work in works:
        lost = work.lost()
        unknown = ", ".join(f"{n} {kind}" for kind, n in work.unknown.items()) or "0"
        n_there = work.n_there()
        beyond = "" if n_there is None else n_there - work.n_acknowledged
        longest = f"{work.longest_s:.1f} s"
        row = (work.name, f"{work.n_acknowledged:,}", unknown, beyond, longest, len(lost))
        lines.append("| " + " | ".join(map(str, row)) + " |")
        wrong += lost
    return "\n".join([*lines, *wrong])


if __name__ == "__main__":
    main()
