"""Decoding in child processes: what they may do, and what happens when they die."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from numpy.typing import NDArray

from models import audio
from models.limits import AudioError, Limits
from models.quality import Meter
from service.audio import decode_child
from service.audio.decode_child import BLOCK, NO_MEMORY, ResourceLimits
from service.audio.decode_process import DecoderDied, DecoderProcess
from service.audio.decoder import CLOSE_S, MAX_KILLS, WORK_BYTES, Decoder
from service.audio.forks import ForkServer
from service.exceptions import ServiceError
from service.traffic.budget import Budget, Costs, Share
from tests import recordings
from tests.mutations import different, mutated
from tests.service.conftest import Serve, encoded, tone, until

ROOT = Path(__file__).parents[3]
Make = Callable[..., Decoder]


@pytest.fixture
def make() -> Iterator[Make]:
    """Pools that are closed at the end of the test."""
    made: list[Decoder] = []

    def start(workers: int = 1, **resources: float) -> Decoder:
        made.append(Decoder(Limits(), workers, ResourceLimits(**resources)))  # type: ignore[arg-type]
        until(lambda: made[-1]._mend() or len(made[-1].pids) == workers)
        return made[-1]

    yield start
    for decoder in made:
        decoder.close()


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    pool = Decoder(Limits(max_duration_s=60, max_decoded_bytes=64 << 20), 2)
    yield pool
    pool.close()


def file_of(kind: str, seconds: float, channels: int = 1) -> bytes:
    """A tone; Opus takes few rates."""
    rate = 48_000 if kind == "opus" else recordings.RATE
    return recordings.encoded(kind, recordings.tone(seconds, rate, channels), rate)


def decode(decoder: Decoder, data: bytes) -> NDArray[np.float32]:
    return asyncio.run(decoder.read(data)).samples


@pytest.mark.parametrize("kind", sorted(recordings.KINDS))
def test_a_child_decodes_what_this_process_would(decoder: Decoder, kind: str) -> None:
    data = file_of(kind, 2.5, channels=2)
    assert np.array_equal(decode(decoder, data), audio.decode(data))


def test_what_is_wrong_with_a_file_comes_through_whole(decoder: Decoder) -> None:
    with pytest.raises(AudioError) as mine:
        audio.decode(encoded(tone())[:-1000])
    with pytest.raises(AudioError) as theirs:
        decode(decoder, encoded(tone())[:-1000])
    assert theirs.value.args == mine.value.args
    assert not decoder.restarts


def test_large_files_leave_a_child_to_the_small_ones(make: Make, monkeypatch) -> None:
    monkeypatch.setattr("service.audio.decoder.LARGE_BYTES", 100_000)
    large, small = encoded(np.random.default_rng(0).normal(0, 0.1, 8_000_000)), encoded(tone())
    decoder, done = make(workers=2), list[str]()

    async def one(name: str, data: bytes) -> None:
        await decoder.read(data)
        done.append(name)

    async def all_of_them() -> None:
        await asyncio.gather(decoder.read(small), decoder.read(small))  # both have started
        files = [("large", large)] * 3 + [("small", small)]
        await asyncio.gather(*(one(*file) for file in files))

    asyncio.run(all_of_them())
    assert done[0] == "small"


def test_a_child_that_was_killed_is_replaced_and_the_file_tried_again(make: Make) -> None:
    decoder = make()
    os.kill(decoder.pids[0], signal.SIGKILL)
    assert len(decode(decoder, encoded(tone()))) == 16_000
    assert decoder.restarts == {"signal": 1}


def test_a_process_that_is_found_dead_is_replaced_at_once(make: Make) -> None:
    decoder = make(workers=2)
    dead = decoder._idle[0]
    os.kill(dead.pid, signal.SIGKILL)
    until(lambda: not dead.is_usable)
    decode(decoder, encoded(tone()))
    assert dead.pid not in decoder.pids
    assert len(decoder.pids) == 2


def test_a_file_that_kills_two_children_is_refused(make: Make, monkeypatch) -> None:
    decoder = make()
    monkeypatch.setattr(
        "service.audio.decode_process.DecoderProcess._ask",
        lambda self, *_: os.kill(self.pid, signal.SIGSEGV) or (_ for _ in ()).throw(EOFError),
    )
    with pytest.raises(ServiceError) as problem:
        decode(decoder, encoded(tone()))
    assert problem.value.reason == "undecodable"
    monkeypatch.undo()
    assert len(decode(decoder, encoded(tone()))) == 16_000


def test_a_child_that_hangs_is_killed_when_its_time_is_up(make: Make) -> None:
    decoder = make(wall_s=0.5)
    decode(decoder, encoded(tone()))
    os.kill(decoder.pids[0], signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(ServiceError) as problem:
        decode(decoder, encoded(tone()))
    assert time.monotonic() - started < 5
    assert problem.value.reason == "decode-timeout"
    assert problem.value.limit == 0.5
    assert decoder.restarts == {"timeout": 1}


def test_libraries_that_load_slowly_are_not_the_files_fault() -> None:
    decoder = Decoder(Limits(), 1, ResourceLimits(wall_s=0.2))
    pid = decoder.forks.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    timer = threading.Timer(0.6, os.kill, (pid, signal.SIGCONT))
    timer.start()
    assert len(decode(decoder, encoded(tone()))) == 16_000
    timer.join()
    assert not decoder.restarts
    decoder.close()


def short_of_memory(wav: bytes, samples_bytes: int) -> tuple[Budget, Share]:
    """Room for a file, of whose samples somebody else holds the half."""
    budget = Budget(WORK_BYTES + len(wav) + samples_bytes, wait_s=60)
    others = budget.share()
    others.take_now(samples_bytes // 2)
    return budget, others


def test_a_pool_is_closed_while_a_child_hangs_and_a_file_waits_for_memory() -> None:
    wav = encoded(tone(100.0))
    budget, others = short_of_memory(wav, 100 * 64_000)

    async def run() -> None:
        pool, own = Decoder(Limits(), 2), budget.share()
        await pool.read(encoded(tone()))
        waiting = asyncio.create_task(pool.read(wav, Costs(own, lambda _: None)))
        while not budget._growing:
            await asyncio.sleep(0.01)
        for pid in pool.pids:
            os.kill(pid, signal.SIGSTOP)
        hanging = asyncio.create_task(pool.read(encoded(tone())))
        while len(pool._asked) < 2:
            await asyncio.sleep(0.01)
        started = time.monotonic()
        pool.close()
        assert time.monotonic() - started < CLOSE_S
        outcomes = await asyncio.gather(waiting, hanging, return_exceptions=True)
        assert all(isinstance(outcome, Exception) for outcome in outcomes)
        others.give(others.held)
        assert (budget.used, own.held) == (0, 0)

    asyncio.run(run())


def test_a_file_that_waits_for_memory_does_not_lose_its_time() -> None:
    wav = encoded(tone(100.0))
    budget, others = short_of_memory(wav, 100 * 64_000)

    async def run() -> None:
        pool = Decoder(Limits(), 1, ResourceLimits(wall_s=5.0))
        await pool.read(encoded(tone()))
        with budget.share() as own:
            reading = asyncio.create_task(pool.read(wav, Costs(own, lambda _: None)))
            while not budget._growing:
                await asyncio.sleep(0.01)
            await asyncio.sleep(pool.resources.wall_s)
            assert not reading.done()
            others.give(others.held)
            assert len((await reading).samples) == 100 * 16_000
        pool.close()

    asyncio.run(run())


def test_the_kernel_ends_a_child_that_has_used_up_its_cpu_time() -> None:
    program = (
        "from service.audio.decode_child import _limit_cpu; _limit_cpu(0.01)\nwhile True: pass"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=20)
    assert ended.returncode == -signal.SIGXCPU


def test_processes_that_died_between_two_files_are_no_files_fault(make: Make) -> None:
    decoder = make(workers=3)
    dead = decoder.pids
    for pid in dead:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not any(process.is_usable for process in decoder._all))
    for _ in range(3):
        assert len(decode(decoder, encoded(tone()))) == 16_000
    assert decoder.restarts == {"signal": 3}
    assert not set(dead) & set(decoder.pids)


def test_a_file_that_costs_too_much_cpu_time_is_given_up(make: Make) -> None:
    decoder = make()
    (pid,) = decoder.pids
    os.kill(pid, signal.SIGSTOP)  # so that it has the file in hand when its time is up

    def use_up() -> None:
        os.kill(pid, signal.SIGXCPU)
        os.kill(pid, signal.SIGCONT)

    timer = threading.Timer(0.3, use_up)
    timer.start()
    with pytest.raises(ServiceError) as problem:
        decode(decoder, encoded(tone()))
    timer.join()
    assert problem.value.reason == "decode-timeout"
    assert problem.value.limit == decoder.resources.cpu_s
    assert decoder.restarts == {"cpu": 1}
    assert len(decode(decoder, encoded(tone()))) == 16_000


def test_a_confined_process_gets_no_more_memory_and_writes_no_file(tmp_path: Path) -> None:
    program = f"""
from service.audio.decode_child import ResourceLimits, _confine
_confine(ResourceLimits(memory_bytes=64 << 20))
bytearray(32 << 20)
import pathlib
path = pathlib.Path({str(tmp_path / "x")!r})
for attempt in (lambda: bytearray(128 << 20), lambda: path.write_text("x")):
    try:
        attempt()
        print("allowed")
    except (MemoryError, OSError) as error:
        print(type(error).__name__)
"""
    output = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, text=True)
    assert output.split() == ["MemoryError", "OSError"]


def test_running_out_of_memory_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(*_: object) -> Iterator[NDArray[np.float32]]:
        yield np.zeros(4, np.float32)
        raise MemoryError

    monkeypatch.setattr(audio, "stream", greedy)
    answers = list(decode_child._answer(b"", Limits()))
    assert [kind for kind, _ in answers] == [BLOCK, NO_MEMORY]


def test_a_child_knows_no_settings_and_no_secrets(make: Make, monkeypatch) -> None:
    monkeypatch.setenv("VIOLA_API_KEYS", "secret")
    decoder = make()
    decode(decoder, encoded(tone()))
    process = Path(f"/proc/{decoder.pids[0]}")
    assert b"VIOLA" not in (process / "environ").read_bytes()
    limits = (process / "limits").read_text()
    assert "Max core file size        0" in limits
    assert "Max file size             0" in limits


def test_what_a_library_prints_disturbs_nothing(make: Make) -> None:
    decoder = make()
    good = file_of("mp3", 2.0)
    broken = good[:4_000] + os.urandom(3_000) + good[7_000:]
    for _ in range(3):
        survives(decoder, broken)
    assert np.array_equal(decode(decoder, good), audio.decode(good))


def test_children_go_with_the_service(serve: Serve) -> None:
    before = set(children())
    with serve(decode_workers=3) as client:
        assert client.get("/readyz").status_code == 200
        own = set(children()) - before
        assert len(own) == 4  # one is a spare
    until(lambda: not own & set(children()))


def test_a_process_that_died_unseen_is_known_as_dead() -> None:
    forks, file = ForkServer(), encoded(tone(0.5))
    forks.wait(20)
    process = DecoderProcess(forks, Limits(), ResourceLimits())
    assert len(process.decode(file).samples)
    os.kill(process.pid, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{process.pid}").exists())
    with pytest.raises(DecoderDied, match="signal"):
        process.decode(file)
    process.close()
    forks.close()


def test_no_request_is_lost_while_decoders_are_killed(serve: Serve) -> None:
    """Up to as many are killed while one file is decoded as it may lose."""
    files = [encoded(tone(0.5, hz=100 * (k + 1)), kind="FLAC") for k in range(6)]
    answered, stop = list[bytes](), threading.Event()

    def kill() -> None:
        while not stop.is_set():
            for _ in range(MAX_KILLS - 1):
                if pids := children():
                    os.kill(random.choice(pids), signal.SIGKILL)
                stop.wait(0.1)
            before = len(answered)
            while len(answered) == before and not stop.wait(0.01):
                pass

    with serve(decode_workers=2, max_inflight=64) as client:

        def embed(data: bytes) -> list[float]:
            answer = client.post("/v1/audio/embeddings", content=data)
            assert answer.status_code == 200, answer.text
            answered.append(data)
            vector: list[float] = answer.json()["data"][0]["embedding"]
            return vector

        alone = [embed(data) for data in files]
        killer = threading.Thread(target=kill)
        killer.start()
        try:
            again = [embed(data) for _ in range(4) for data in files]
        finally:
            stop.set()
            killer.join()
    np.testing.assert_array_equal(again, alone * 4)


def children(of: int | None = None) -> list[int]:
    """The decoders of this process, or of another: what its fork servers have forked."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            if b"fork_server" in (path / "cmdline").read_bytes():
                stat = (path / "stat").read_text().rpartition(")")[2].split()
                parents[int(path.name)] = int(stat[1])
    servers = [pid for pid, parent in parents.items() if parent == (of or os.getpid())]
    return [pid for pid, parent in parents.items() if parent in servers]


def survives(decoder: Decoder, data: bytes) -> str:
    """A file gives finite samples within the limits, or a refusal with words of ours."""
    try:
        samples = decode(decoder, data)
    except AudioError as error:
        return error.reason
    except ServiceError as problem:
        return problem.reason  # any other exception is a failure
    assert np.isfinite(samples).all()
    assert 0 < len(samples) <= 61 * 16_000
    return "read"


@given(mutated())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_mutated_file_is_answered_with_anything_but_samples_or_a_reason(
    decoder: Decoder, data: bytes
) -> None:
    survives(decoder, data)


@pytest.mark.slow
def test_ten_thousand_mutated_files_are_survived(decoder: Decoder) -> None:
    """All of them different, the formats in turn; how each kind fared is printed (`-s`)."""
    outcomes: Counter[tuple[str, str]] = Counter()
    for kind, data in different(10_000):
        outcomes[kind, survives(decoder, data)] += 1
    print(json.dumps({f"{kind}: {outcome}": n for (kind, outcome), n in sorted(outcomes.items())}))  # noqa: T201
    assert sum(outcomes.values()) == 10_000


@pytest.mark.parametrize("kind", ["wav-16", "flac", "opus"])
def test_a_child_measures_and_reads_headers_as_this_process_would(
    decoder: Decoder, kind: str
) -> None:
    data, meter = file_of(kind, 1.5, channels=2), Meter()
    expected = np.concatenate(list(audio.stream(data, meter=meter)))
    decoded = asyncio.run(decoder.read(data, measured=True))
    np.testing.assert_array_equal(decoded.samples, expected)
    assert decoded.quality == meter.report()
    assert asyncio.run(decoder.read_header(data)) == audio.read_header(data)


def test_headers_come_with_what_they_are_refused_for(decoder: Decoder) -> None:
    header = asyncio.run(decoder.read_header(encoded(tone(), rate=16_000)[:-1000]))
    assert header.error is not None
    assert header.error.reason == "truncated"
    with pytest.raises(AudioError) as caught:
        asyncio.run(decoder.read_header(b"GIF89a"))
    assert caught.value.reason == "unsupported"


@given(mutated())
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_mutated_file_is_described_or_measured_with_anything_but_facts_or_a_reason(
    decoder: Decoder, data: bytes
) -> None:
    for look in (decoder.read_header, partial(decoder.read, measured=True)):
        with suppress(AudioError, ServiceError):
            asyncio.run(look(data))
