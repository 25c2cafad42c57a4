"""Log-mels of a whole store, computed once: segments of a light encoder then cost less to make.

The file lies in the store, float16, the frames (F,) of all clips one after the other, on each
clip's own grid of 10 ms. Letters: `B` batch, `F` mel bands, `T` frames.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.atomic import replacing
from models.nn.frontend import EPS, F_MAX, F_MIN, HOP_LENGTH, N_FFT, N_MELS, LogMel
from training.data.corpus import Corpus, Crops
from training.data.pcm import pcm_to_float

BLOCK_FRAMES = 1024  # of a clip at a time
MARGIN = 1 + N_FFT // HOP_LENGTH  # frames around a block: more than a window, so that all reflect
SILENCE = float(np.log(EPS))  # what a clip is padded with

Follow = Callable[[Iterable[int], str], Iterable[int]]
"""Gives the numbers of clips, or of batches, one by one and shows how far it is."""


def in_silence(numbers: Iterable[int], title: str) -> Iterable[int]:
    """Go through clips or batches without showing how far it is."""
    return numbers


def compute(corpus: Corpus, follow: Follow) -> None:
    """Write the log-mels of a store into its folder, if it has none."""
    path, _ = _file(corpus)
    if path.is_file():
        return
    frontend = LogMel()
    first_samples = np.cumsum(corpus.lengths) - corpus.lengths
    # Written, not mapped: a disk that runs full under a map kills the process without a word
    with replacing(path) as temporary, temporary.open("wb") as file:
        for clip in follow(range(corpus.n_clips), "log-mels of the store"):
            for part in _of_clip(_samples(corpus, clip, first_samples[clip]), frontend):
                file.write(part.astype(np.float16).tobytes())


class LogMels:
    """The log-mels of a store that `compute` wrote, opened for reading."""

    def __init__(self, corpus: Corpus) -> None:
        compute(corpus, in_silence)  # on a disk that the first process lacks
        self._n_frames = _frames_of(corpus)
        self._first_samples = np.cumsum(corpus.lengths) - corpus.lengths
        self._first_frames = np.cumsum(self._n_frames) - self._n_frames
        path, shape = _file(corpus)
        self._frames = np.memmap(path, np.float16, "r", shape=shape)

    def gather(self, crops: Crops, out: NDArray[np.float16]) -> None:
        """Fill all of `out`, (B, T, F), with the segments that `crops` describes."""
        clips = np.searchsorted(self._first_samples, crops.start, side="right") - 1
        skipped = (crops.start - self._first_samples[clips]) // HOP_LENGTH
        lead = crops.lead // HOP_LENGTH
        n_taken = np.minimum(1 + crops.kept // HOP_LENGTH, self._n_frames[clips] - skipped)
        columns = (self._first_frames[clips] + skipped, n_taken, lead)
        for segment, start, n, first in zip(out, *(c.tolist() for c in columns), strict=True):
            n = min(n, len(segment) - first)
            segment[:first] = SILENCE
            segment[first : first + n] = self._frames[start : start + n]
            segment[first + n :] = SILENCE


def _frames_of(corpus: Corpus) -> NDArray[np.int64]:
    """Frames of each clip."""
    return 1 + corpus.lengths // HOP_LENGTH


def _file(corpus: Corpus) -> tuple[Path, tuple[int, int]]:
    """Where the log-mels of a store lie, and their shape."""
    path = corpus.folder / f"log-mels-{_digest(corpus)}.f16"
    return path, (int(_frames_of(corpus).sum()), N_MELS)


def _digest(corpus: Corpus) -> str:
    """A digest of the clips and of the front end."""
    settings = (corpus.fingerprint, N_FFT, HOP_LENGTH, N_MELS, F_MIN, F_MAX, EPS)
    return hashlib.sha256(repr(settings).encode()).hexdigest()[:16]


def _samples(corpus: Corpus, clip: int, first: int) -> NDArray[np.int16]:
    length = int(corpus.lengths[clip])
    samples = np.empty((1, length), np.int16)
    crop = Crops(np.array([first]), np.array([length]), np.zeros(1, np.int64))
    corpus.gather(crop, samples)
    clip_samples: NDArray[np.int16] = samples[0]
    return clip_samples


@torch.no_grad()
def _of_clip(samples: NDArray[np.int16], frontend: LogMel) -> Iterator[NDArray[np.float32]]:
    """Log-mel frames (T, F) of a clip in blocks that overlap by what the windows see."""
    n_frames = 1 + len(samples) // HOP_LENGTH
    shortest = N_FFT // 2 + 1  # that can be reflected
    samples = np.pad(samples, (0, max(0, shortest - len(samples))))
    for first in range(0, n_frames, BLOCK_FRAMES):
        end, before = min(first + BLOCK_FRAMES, n_frames), min(MARGIN, first)
        stop = None if end == n_frames else (end + MARGIN) * HOP_LENGTH
        part = torch.from_numpy(samples[(first - before) * HOP_LENGTH : stop])
        log_mel = frontend(pcm_to_float(part)[None])[0].T  # (T, F)
        yield log_mel[before : before + end - first].numpy()
