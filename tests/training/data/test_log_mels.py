import numpy as np
import pytest
import torch

from models.nn.frontend import HOP_LENGTH, N_MELS, LogMel
from training.data import log_mels
from training.data.batches import crops_of, open_batches
from training.data.corpus import Corpus, Sampler
from training.data.log_mels import SILENCE, LogMels, compute
from training.data.pcm import pcm_to_float
from training.recipe import Data

CPU = torch.device("cpu")


def whole_clip(corpus: Corpus, clip: int) -> np.ndarray:
    """Log-mel (T, F) of a clip in one piece."""
    rng = np.random.default_rng(0)
    pcm = corpus.segments(np.array([clip]), int(corpus.lengths[clip]), rng, "end")
    return LogMel()(pcm_to_float(torch.from_numpy(pcm)))[0].T.numpy()


@pytest.mark.parametrize("block_frames", [3, 50, 1024])
def test_the_log_mels_are_those_of_each_clip_in_one_piece(
    corpus: Corpus, block_frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_mels, "BLOCK_FRAMES", block_frames)
    for path in corpus.folder.glob("log-mels-*"):
        path.unlink()
    frames = LogMels(corpus)._frames
    expected = np.concatenate([whole_clip(corpus, clip) for clip in range(corpus.n_clips)])
    np.testing.assert_allclose(frames, expected, atol=0.02)  # float16 at -16


def test_the_file_is_computed_once(corpus: Corpus) -> None:
    asked: list[str] = []

    def follow(clips, title):
        asked.append(title)
        return clips

    compute(corpus, follow)
    (path,) = corpus.folder.glob("log-mels-*")
    path.unlink()
    asked.clear()
    compute(corpus, follow)
    compute(corpus, follow)
    assert asked == ["log-mels of the store"]
    assert path.is_file()


def test_the_file_takes_its_place_on_the_disk_as_it_is_written(corpus: Corpus) -> None:
    for path in corpus.folder.glob("log-mels-*"):
        path.unlink()
    sizes: list[int] = []

    def follow(clips, title):
        for clip in clips:
            (path,) = corpus.folder.glob("log-mels-*.tmp")
            sizes.append(path.stat().st_size)
            yield clip

    compute(corpus, follow)
    (path,) = corpus.folder.glob("log-mels-*")
    assert sizes[0] == 0  # a place that was only promised may lack: a bus error, and no message
    assert path.stat().st_size == 2 * N_MELS * len(LogMels(corpus)._frames)


@pytest.mark.parametrize("pad", ["end", "both"])
def test_segments_are_those_of_the_samples_on_a_grid_of_hops(corpus: Corpus, pad: str) -> None:
    data = Data(segment_s=0.95, pad=pad, log_mels=True)
    draw = crops_of(corpus, Sampler(corpus, {}, 3), data, 16, slice(0, 16))
    batches = open_batches(corpus, draw, data, CPU)
    segments = batches.cut(batches.load(4)).float().numpy()
    batches.close()
    crops = draw(4)
    firsts = np.cumsum(corpus.lengths) - corpus.lengths
    assert segments.shape == (16, data.segment_frames, N_MELS)
    for segment, start, kept, lead in zip(
        segments, crops.start, crops.kept, crops.lead, strict=True
    ):
        clip = int(np.searchsorted(firsts, start, side="right")) - 1
        first = (start - firsts[clip]) // HOP_LENGTH
        before = lead // HOP_LENGTH
        expected = np.full_like(segment, SILENCE)
        taken = whole_clip(corpus, clip)[first : first + 1 + kept // HOP_LENGTH]
        taken = taken[: len(segment) - before]
        expected[before : before + len(taken)] = taken
        np.testing.assert_allclose(segment, expected, atol=0.02)
