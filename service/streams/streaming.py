"""A long recording -> answers for its windows as they are computed, then one for the whole.

It is the same for uploads, which are answered in lines, and for live streams, which are answered in
messages. Letters: `S` samples, `T` frames of features, `D` embedding dim, `N` windows.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from models.audio import SAMPLE_RATE
from models.classifier import Classifier
from models.runtime import Encoder, Floats
from models.selection import WHOLE, Selection
from models.tiles import Cutter, Tile
from models.windows import Timed, shortened
from service.engine import ended, pooled, too_short
from service.exceptions import ServiceError
from service.formats.vectors import vector
from service.inference.batcher import RECORDING_TILE_S, TILES_AHEAD, Batcher, Deadlines
from service.inference.catalogue import Served
from service.inference.scoring import Scored, describe
from service.inference.windowing import Windowing
from service.parameters import EmbeddingParameters, PredictionParameters
from service.threads import in_thread

Members = dict[str, Any]
Describe = Callable[[Floats], list[Members]]
"""Turns vectors (N, D) into the members of an answer for each."""


@dataclass(frozen=True)
class Plan:
    """What a stream is asked for.

    Attributes:
        kind: the `object` of the last answer.
        selection: the part of the recording; times count from the recording's beginning.
        hop_frames: of a live stream, whose tiles add one hop each; None for recordings.
    """

    model: Served[Encoder]
    kind: str
    windowing: Windowing | None
    describe: Describe
    hop_frames: int | None = None
    selection: Selection = WHOLE

    @property
    def opening(self) -> Members:
        """The first line of the answer."""
        return {"object": "stream", "model": self.model.name, "space_id": self.model.space_id}


async def answers(
    batcher: Batcher,
    plan: Plan,
    blocks: AsyncIterator[Floats],
    spend: Callable[[float], None],
    warnings: Sequence[str] = (),
) -> AsyncGenerator[list[Members], None]:
    """Answers: windows as they are complete, some at a time; then the whole, and the usage.

    Args:
        batcher: where tiles are computed.
        plan: what is asked for.
        blocks: the recording.
        spend: is called with the seconds of each block.
        warnings: what is noticed about the recording; complete when the blocks have ended.

    Raises:
        ServiceError: the recording is too short, or the model fails.
    """
    encoder, windowing = plan.model.network, plan.windowing
    timeline = windowing.timeline(encoder) if windowing else None
    source, whole, n_windows = _Counted(blocks, spend), encoder.pool(), 0
    new_frames = plan.hop_frames or encoder.tiling.new_frames(RECORDING_TILE_S)
    ahead = TILES_AHEAD if plan.hop_frames is None else 1
    async with (
        aclosing(_tiles(encoder, source, new_frames)) as tiles,
        aclosing(batcher.frames(Deadlines(), encoder, tiles, ahead)) as parts,
    ):
        async for frames in parts:
            timed = await in_thread(pooled, frames, source.n_samples, whole, timeline)
            if timed:
                yield await in_thread(_windows, plan, timed, n_windows)
            n_windows += len(timed)
    embedding, rest = await in_thread(ended, whole, timeline)
    if rest:
        yield await in_thread(_windows, plan, rest, n_windows)
        n_windows += len(rest)
    (members,) = await in_thread(plan.describe, embedding[None])
    noticed = {"warnings": list(warnings)} if warnings else {}
    usage = {"audio_seconds": source.duration_s, "windows": n_windows}
    yield [
        {"object": plan.kind, "duration_s": source.duration_s, **members, **noticed},
        {"object": "done", "usage": usage},
    ]


def describe_vectors(asked: EmbeddingParameters) -> Describe:
    """Answers with the vectors themselves."""

    def members(vectors: Floats) -> list[Members]:
        check_finite(vectors)
        short = shortened(vectors, asked.dimensions)
        return [{"embedding": vector(row, asked.output or "json")} for row in short]

    return members


def describe_predictions(
    classifiers: Sequence[Served[Classifier]], asked: PredictionParameters
) -> Describe:
    """Answers with what classifiers say of each vector; of several, each in its place."""
    networks = [classifier.network for classifier in classifiers]
    if len(networks) == 1:
        return partial(_predictions, networks[0], asked)

    def members(vectors: Floats) -> list[Members]:
        each = [_predictions(network, asked, vectors) for network in networks]
        return [{"classifications": list(row)} for row in zip(*each, strict=True)]

    return members


def _predictions(
    classifier: Classifier, asked: PredictionParameters, vectors: Floats
) -> list[Members]:
    check_finite(vectors)
    scored = Scored(classifier.card, classifier.predict(vectors))
    check_finite(scored.rows.logits)
    rows = (describe(scored, row, asked) for row in range(len(vectors)))
    return [row.model_dump(exclude_none=True) for row in rows]


class _Counted:
    """Passes blocks on and counts their seconds."""

    def __init__(self, blocks: AsyncIterator[Floats], spend: Callable[[float], None]) -> None:
        self._blocks, self._spend = blocks, spend
        self.n_samples = 0

    @property
    def duration_s(self) -> float:
        return self.n_samples / SAMPLE_RATE

    async def __aiter__(self) -> AsyncIterator[Floats]:
        async for block in self._blocks:
            self.n_samples += len(block)
            self._spend(len(block) / SAMPLE_RATE)
            yield block


async def _tiles(encoder: Encoder, source: _Counted, new_frames: int) -> AsyncGenerator[Tile, None]:
    cutter = Cutter(encoder.tiling, new_frames)
    async for block in source:
        for tile in cutter.add(block):
            yield tile
    if error := too_short(source.duration_s):
        raise error
    yield cutter.rest()


def _windows(plan: Plan, timed: list[Timed], before: int) -> list[Members]:
    described = plan.describe(np.stack([embedding for _, _, embedding in timed]))
    begin_s = plan.selection.start_s
    times = [{"start_s": begin_s + start, "end_s": begin_s + end} for start, end, _ in timed]
    return [
        {"object": "window", "index": index, **time, **members}
        for index, (time, members) in enumerate(zip(times, described, strict=True), start=before)
    ]


def check_finite(values: np.typing.NDArray[Any]) -> None:
    """Refuse values that are not finite.

    Raises:
        ServiceError: `internal`; one is not.
    """
    if not np.isfinite(values).all():
        raise ServiceError("internal", "The model's answer for this recording is not finite.")
