"""Batches across requests, on an encoder that says what it ran and waits when it is told to."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from models import modelfile
from models.inputs import cut as blocks
from models.runtime import Encoder, Output
from models.tiles import Tile
from service.exceptions import ServiceError
from service.inference.batcher import Batcher, Deadlines
from service.inference.worker import NICENESS, Worker
from tests.service.conftest import tone

Floats = NDArray[np.float32]
LONG_S = 40.0


class Watched(Encoder):
    """An encoder that keeps count, and runs nothing while `gate` is closed."""

    ran: list[tuple[str, list[int]]]
    gate: threading.Event

    def run_batch(self, output: Output, clips: Sequence[Floats], bucket: int) -> Floats:
        self.ran.append((output, [len(clip) for clip in clips]))
        self.gate.wait(20)
        return super().run_batch(output, clips, bucket)


@pytest.fixture
def encoder(model_file: Path) -> Watched:
    watched = Watched.open(model_file, threads=1)
    watched.ran, watched.gate = [], threading.Event()
    watched.gate.set()
    return watched


def run(work: Callable[[Batcher], Awaitable[None]], **settings: float) -> None:
    """Do `work` with a batcher of one lane, on a loop."""

    async def main() -> None:
        batcher = Batcher(**settings)  # type: ignore[arg-type]
        await asyncio.wait_for(work(batcher), 20)
        batcher.close()

    asyncio.run(main())


def embedding(batcher: Batcher, encoder: Encoder, samples: Floats) -> "asyncio.Task[Floats]":
    return asyncio.create_task(batcher.run(Deadlines(), encoder, "embedding", samples))


async def tiles(encoder: Encoder, samples: Floats) -> AsyncIterator[Tile]:
    for tile in encoder.tiling.cut(blocks(samples)):
        yield tile


async def frames(batcher: Batcher, encoder: Encoder, samples: Floats) -> Floats:
    parts = batcher.frames(Deadlines(), encoder, tiles(encoder, samples))
    return np.concatenate([part async for part in parts])


async def started(encoder: Watched, n_batches: int = 1) -> None:
    while len(encoder.ran) < n_batches:
        await asyncio.sleep(0.005)


def test_a_clip_alone_does_not_wait_for_others(encoder: Watched) -> None:
    async def work(batcher: Batcher) -> None:
        samples = tone(1.0)
        got = await embedding(batcher, encoder, samples)
        np.testing.assert_array_equal(got, encoder.embed(samples))
        assert batcher.queued_s == 0

    run(work)


def test_what_comes_while_a_batch_runs_makes_the_next_one(encoder: Watched) -> None:
    async def work(batcher: Batcher) -> None:
        encoder.gate.clear()
        first = embedding(batcher, encoder, tone(1.0))
        await started(encoder)
        rest = [embedding(batcher, encoder, tone(0.95 + k / 100)) for k in range(7)]
        await asyncio.sleep(0.05)
        assert batcher.queued_s == pytest.approx(sum(0.95 + k / 100 for k in range(7)))
        encoder.gate.set()
        await asyncio.gather(first, *rest)
        assert [len(lengths) for _, lengths in encoder.ran] == [1, 4, 2, 1]

    run(work)


def test_a_batch_holds_one_tile_of_audio_at_most(encoder: Watched) -> None:
    async def work(batcher: Batcher) -> None:
        clips = [tone(6.0) for _ in range(4)]
        await asyncio.gather(*(embedding(batcher, encoder, clip) for clip in clips))
        assert [len(lengths) for _, lengths in encoder.ran] == [1] * 4

    run(work)


def test_a_vector_does_not_depend_on_what_else_is_asked_for(encoder: Watched) -> None:
    rng = np.random.default_rng(0)
    clips = [rng.normal(0, 0.1, n).astype(np.float32) for n in rng.integers(400, 160_000, 60)]
    alone = [encoder.embed(clip) for clip in clips]

    async def work(batcher: Batcher) -> None:
        long = asyncio.create_task(frames(batcher, encoder, tone(LONG_S)))
        together = await asyncio.gather(*(embedding(batcher, encoder, clip) for clip in clips))
        np.testing.assert_allclose(together, alone, atol=1e-5)
        np.testing.assert_allclose(await long, encoder.frames(tone(LONG_S)), atol=1e-5)

    run(work)
    assert max(len(lengths) for _, lengths in encoder.ran) > 1


def test_short_clips_pass_a_long_recording_which_keeps_moving(encoder: Watched) -> None:
    async def work(batcher: Batcher) -> None:
        encoder.gate.clear()
        long = asyncio.create_task(frames(batcher, encoder, tone(LONG_S)))
        await started(encoder)
        short = [embedding(batcher, encoder, tone(5.0 + k / 100)) for k in range(8)]
        await asyncio.sleep(0.05)
        encoder.gate.set()
        await asyncio.gather(*short, long)
        kinds = [output for output, _ in encoder.ran]
        assert kinds[1 : 1 + 4] == ["embedding"] * 4  # two in a batch
        assert kinds.count("frames") == 4

    run(work)


def test_a_recording_has_two_tiles_in_the_queue_at_most(encoder: Watched) -> None:
    async def work(batcher: Batcher) -> None:
        encoder.gate.clear()
        long = asyncio.create_task(frames(batcher, encoder, tone(200.0)))
        await started(encoder)
        await asyncio.sleep(0.05)
        assert batcher.queued_s == pytest.approx(10.24)  # beside the one that runs
        encoder.gate.set()
        await long

    run(work)


def test_due_times_keep_a_promise_and_save_no_credit() -> None:
    deadlines = Deadlines()
    first, second = deadlines.next_s(10.0), deadlines.next_s(10.0)
    assert second - first == pytest.approx(1.0)
    later = Deadlines().next_s(1.0)
    assert first > later  # a second of sound goes before ten that came a moment earlier


def test_what_is_cancelled_leaves_the_queue_and_is_not_run(encoder: Watched) -> None:
    async def work(batcher: Batcher) -> None:
        encoder.gate.clear()
        first = embedding(batcher, encoder, tone(1.0))
        await started(encoder)
        second, third = (embedding(batcher, encoder, tone(s)) for s in (2.0, 3.0))
        await asyncio.sleep(0.05)
        second.cancel()
        await asyncio.sleep(0.05)
        assert batcher.queued_s == pytest.approx(3.0)
        encoder.gate.set()
        await asyncio.gather(first, third)
        assert [lengths for _, lengths in encoder.ran] == [[16_000], [48_000]]

    run(work)


def test_a_recording_that_is_given_up_takes_its_tiles_along(encoder: Watched) -> None:
    async def work(batcher: Batcher) -> None:
        encoder.gate.clear()
        long = asyncio.create_task(frames(batcher, encoder, tone(LONG_S)))
        await started(encoder)
        long.cancel()
        await asyncio.sleep(0.05)
        assert batcher.queued_s == 0
        encoder.gate.set()

    run(work)


def test_a_batch_that_fails_fails_alone(encoder: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Encoder.open(modelfile.DEFAULT_MODEL, threads=1)
    monkeypatch.setattr(broken, "_session", None)

    async def work(batcher: Batcher) -> None:
        bad = embedding(batcher, broken, tone(1.0))
        good = embedding(batcher, encoder, tone(1.0))
        with pytest.raises(ServiceError) as problem:
            await bad
        assert problem.value.reason == "internal"
        assert len(await good) == encoder.card.embed_dim
        assert len(await embedding(batcher, encoder, tone(2.0))) == encoder.card.embed_dim

    run(work)


def test_an_inference_that_hangs_is_left_behind(encoder: Watched) -> None:
    async def work(batcher: Batcher) -> None:
        encoder.gate.clear()
        with pytest.raises(ServiceError) as problem:
            await embedding(batcher, encoder, tone(1.0))
        assert problem.value.reason == "model-unavailable"
        assert batcher.hung == 1
        encoder.gate.set()
        assert len(await embedding(batcher, encoder, tone(2.0))) == encoder.card.embed_dim
        while batcher.hung:
            await asyncio.sleep(0.005)

    run(work, timeout_s=0.2)


def test_every_batch_is_reported(encoder: Watched) -> None:
    seen: list[tuple[int, float]] = []

    async def work(batcher: Batcher) -> None:
        batcher.observe = lambda rows, audio_s, took_s: seen.append((rows, audio_s))
        await asyncio.gather(*(embedding(batcher, encoder, tone(1.0)) for _ in range(2)))

    run(work)
    assert seen == [(2, 2.0)]


def test_what_a_new_clip_would_wait_behind_is_no_recording_that_runs_ahead(
    encoder: Watched,
) -> None:
    async def work(batcher: Batcher) -> None:
        encoder.gate.clear()
        deadlines = Deadlines()
        deadlines.next_s(100.0)
        long = asyncio.create_task(batcher.run(deadlines, encoder, "frames", tone(10.0)))
        other = asyncio.create_task(batcher.run(deadlines, encoder, "frames", tone(10.0)))
        short = embedding(batcher, encoder, tone(5.0))
        await started(encoder)
        assert batcher.queued_s == pytest.approx(20.0)  # the short one runs
        assert batcher.ahead_s() == 0
        more = embedding(batcher, encoder, tone(5.0))
        await asyncio.sleep(0.05)
        assert batcher.ahead_s() == 5.0
        encoder.gate.set()
        await asyncio.gather(long, other, short, more)

    run(work)


def test_inference_lets_the_event_loop_go_first() -> None:
    async def niceness() -> int:
        lane = Worker("test")
        found = await lane.run(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        lane.close()
        return found

    assert asyncio.run(niceness()) == os.getpriority(os.PRIO_PROCESS, 0) + NICENESS
