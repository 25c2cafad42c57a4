"""Where the segments of a step are cut: in device memory, or on the host ahead of their step.

Both draw the same crops for the same step. Letters: `B` batch (this process's rows), `S` samples,
`T` log-mel frames, `F` mel bands.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from models.nn.frontend import N_MELS
from training.data.corpus import Corpus, Crops, Sampler
from training.data.log_mels import LogMels
from training.recipe import Data

RESIDENT_SHARE = 0.5  # of the free device memory, at most
AHEAD = 2  # batches a worker
COPY_SAMPLES = 64 << 20  # copied to the device at a time


class Batches(Protocol):
    """Gives the segments of any step."""

    def load(self, step: int) -> tuple[Tensor, ...]:
        """What `cut` needs for a step, on the device: small, or the segments themselves."""

    def cut(self, loaded: tuple[Tensor, ...]) -> Tensor:
        """The segments on the device: int16 (B, S), or float16 log-mels (B, T, F).

        Tensor operations alone.
        """

    def close(self) -> None:
        """Stop what works ahead."""


DrawCrops = Callable[[int], Crops]


def crops_of(
    corpus: Corpus, sampler: Sampler, data: Data, batch_size: int, rows: slice
) -> DrawCrops:
    """A function of the step that draws the crops of the whole batch, and returns those rows."""

    def draw(step: int) -> Crops:
        clips, rng = sampler.batch(step, batch_size)
        return corpus.crops(clips, data.segment_samples, rng, data.pad)[rows]

    return draw


class Resident:
    """The whole store in device memory; a batch is one gather there."""

    def __init__(self, corpus: Corpus, draw: DrawCrops, n_samples: int, device: torch.device):
        self.draw, self.device = draw, device
        self.columns = torch.arange(n_samples, device=device)
        self.pcm = torch.empty(corpus.n_samples, dtype=torch.int16, device=device)
        first = 0
        for shard in corpus.shards:
            for start in range(0, len(shard), COPY_SAMPLES):
                part = torch.from_numpy(shard[start : start + COPY_SAMPLES].copy())
                self.pcm[first : first + len(part)].copy_(part)
                first += len(part)

    def load(self, step: int) -> tuple[Tensor, ...]:
        """First sample, samples taken and zeros in front of each crop: int64 (3, B)."""
        crops = self.draw(step)
        table = _host_tensor((3, len(crops)), torch.int64, self.device)
        np.stack([crops.start, crops.kept, crops.lead], out=table.numpy())
        return (table.to(self.device, non_blocking=True),)

    def cut(self, loaded: tuple[Tensor, ...]) -> Tensor:
        """Gather the crops, zeros around those of short clips."""
        start, kept, lead = loaded[0][:, :, None]
        place = self.columns - lead
        inside = (place >= 0) & (place < kept)
        segments: Tensor = self.pcm[(start + place) * inside] * inside
        return segments

    def close(self) -> None:
        """Nothing works ahead."""


class Streamed:
    """Threads cut the batches of the next steps out of the store.

    Args:
        source: fills an array (B, *shape) with the segments of some crops.
        draw: gives the crops of a step.
        shape: of a segment.
        dtype: of its values.
        device: where the segments go.
        workers: threads.
    """

    def __init__(
        self,
        source: Corpus | LogMels,
        draw: DrawCrops,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device,
        workers: int,
    ) -> None:
        self.source, self.draw, self.device = source, draw, device
        self.shape, self.dtype = shape, dtype
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="segments")
        self._ahead = AHEAD * workers
        self._pending: dict[int, Future[Tensor]] = {}

    def load(self, step: int) -> tuple[Tensor, ...]:
        """The segments themselves; the steps after this one are put to work."""
        for number in range(step, step + self._ahead + 1):
            if number not in self._pending:
                self._pending[number] = self._workers.submit(self._gather, number)
        segments = self._pending.pop(step).result()
        for number in [n for n in self._pending if n < step]:
            del self._pending[number]
        return (segments.to(self.device, non_blocking=True),)

    def cut(self, loaded: tuple[Tensor, ...]) -> Tensor:
        """They are cut already."""
        return loaded[0]

    def close(self) -> None:
        """Drop what was cut ahead."""
        self._workers.shutdown(cancel_futures=True)

    def _gather(self, step: int) -> Tensor:
        crops = self.draw(step)
        segments = _host_tensor((len(crops), *self.shape), self.dtype, self.device)
        self.source.gather(crops, segments.numpy())
        return segments


def _host_tensor(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Uninitialised; pinned where a GPU copies from it: torch's cache waits for such copies."""
    return torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")


def open_batches(corpus: Corpus, draw: DrawCrops, data: Data, device: torch.device) -> Batches:
    """In device memory where the recipe asks for it, or the store takes half of it at most."""
    if data.log_mels:
        log_mel = (data.segment_frames, N_MELS)
        return Streamed(LogMels(corpus), draw, log_mel, torch.float16, device, data.workers)
    fits = False
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        fits = 2 * corpus.n_samples <= RESIDENT_SHARE * free
    if data.resident == "device" or (data.resident == "auto" and fits):
        return Resident(corpus, draw, data.segment_samples, device)
    shape = (data.segment_samples,)
    return Streamed(corpus, draw, shape, torch.int16, device, data.workers)
