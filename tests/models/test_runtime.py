import io
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import soundfile as sf
import torch

from models import modelfile, tiles
from models.card import Statistic
from models.limits import AudioError
from models.modelfile import QUANTIZED_GOLDEN_TOLERANCE
from models.nn.model import WaveformEncoder, one_pass
from models.runtime import Encoder
from models.windows import Grid, Pooling, Timeline, shortened
from tests.signals import noise

SECONDS = (0.025, 0.05, 0.32, 0.95, 2.37, 10.24, 10.25, 25.3)


@dataclass(frozen=True)
class Subject:
    """An encoder and what its vectors and frames are held against: one pass, nothing padded."""

    encoder: Encoder
    one_pass: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    tolerance: float
    """Of the largest value. In eight bits the last bit of a float may decide between two steps."""

    def check(self, found: np.ndarray, expected: np.ndarray) -> None:
        atol = self.tolerance * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


@pytest.fixture(scope="module")
def encoder(model_path: Path) -> Encoder:
    return Encoder.open(model_path, threads=2)


@pytest.fixture(scope="module", params=["float32", "eight bits"])
def subject(request: pytest.FixtureRequest, network: WaveformEncoder) -> Subject:
    if request.param == "float32":
        path = request.getfixturevalue("model_path")

        def one_pass_of(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            embedding, frames = one_pass(network, torch.from_numpy(samples))
            return embedding.numpy(), frames.numpy()

        return Subject(Encoder.open(path, threads=2), one_pass_of, 2e-5)
    path = request.getfixturevalue("quantized_path")
    session = ort.InferenceSession(path)

    def one_run_of(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inputs = {"waveform": samples[None], "length": np.array([len(samples)])}
        embedding, frames = session.run(["embedding", "frames"], inputs)
        return embedding[0], frames[0]

    return Subject(Encoder.open(path, threads=2), one_run_of, QUANTIZED_GOLDEN_TOLERANCE)


@pytest.mark.parametrize("seconds", SECONDS)
def test_a_vector_is_that_of_one_pass(subject: Subject, seconds: float) -> None:
    samples = noise(seconds)
    expected, expected_frames = subject.one_pass(samples)
    subject.check(subject.encoder.embed(samples), expected)
    frames = subject.encoder.frames(samples)
    assert frames.shape == expected_frames.shape
    subject.check(frames, expected_frames)


def test_mixed_lengths_in_a_batch_do_not_change_a_vector(subject: Subject) -> None:
    clips = [noise(seconds, seed) for seed, seconds in enumerate(SECONDS * 2)]
    embeddings = subject.encoder.embed_batch(clips)
    for clip, embedding in zip(clips, embeddings, strict=True):
        subject.check(embedding, subject.one_pass(clip)[0])


@pytest.mark.gpu
def test_a_gpu_gives_the_vectors_of_the_cpu(model_path: Path, network: WaveformEncoder) -> None:
    if modelfile.CUDA not in ort.get_available_providers():
        pytest.skip("needs onnxruntime-gpu in place of onnxruntime")
    encoder = Encoder.open(model_path)
    assert encoder.device == "cuda"
    for seconds in SECONDS:
        expected = one_pass(network, torch.from_numpy(noise(seconds)))[0].numpy()
        np.testing.assert_allclose(encoder.embed(noise(seconds)), expected, atol=1e-4)


def test_a_runtime_for_gpus_is_told_to_compute_in_full_precision(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[modelfile.Provider]] = []
    session = ort.InferenceSession

    def opened(path: str, options: object, providers: list[modelfile.Provider]) -> object:
        asked.append(providers)
        return session(path, options, providers=[modelfile.CPU])

    monkeypatch.setattr(ort, "get_available_providers", lambda: [modelfile.CUDA, modelfile.CPU])
    monkeypatch.setattr(ort, "InferenceSession", opened)
    assert Encoder.open(model_path).device == "cpu"  # what it is, not what it was to be
    ((cuda, options), cpu) = asked[0]
    assert (cuda, cpu) == (modelfile.CUDA, modelfile.CPU)
    assert options["use_tf32"] == "0"


def test_louder_neighbours_do_not_change_a_vector(subject: Subject) -> None:
    quiet = noise(1.0, level=1e-3)
    alone = subject.encoder.embed(quiet)
    loud = [noise(1.0, seed, level=0.9) for seed in range(1, 8)]
    np.testing.assert_allclose(subject.encoder.embed_batch([quiet, *loud])[0], alone, atol=1e-6)


def test_tiles_of_any_phase_give_the_frames_of_one_pass(subject: Subject) -> None:
    tile = tiles.TILE_S * 16_000
    for extra in (1, 159, 160, 639, 1281, 2559, 2561):
        samples = noise((tile + extra) / 16_000, seed=extra)
        subject.check(subject.encoder.frames(samples), subject.one_pass(samples)[1])


def test_a_stream_of_blocks_a_path_and_bytes_give_the_same_vector(
    encoder: Encoder, tmp_path: Path
) -> None:
    samples = noise(23.0)
    blocks = iter(np.array_split(samples, 37))
    path = tmp_path / "noise.wav"
    sf.write(path, samples, 16_000, subtype="FLOAT")
    expected = encoder.embed(samples)
    for source in (blocks, path, path.read_bytes()):
        np.testing.assert_array_equal(encoder.embed(source), expected)


def test_a_window_over_all_is_the_vector_of_the_recording(encoder: Encoder) -> None:
    samples = noise(12.0)
    windows = encoder.windows(samples, window_s=100)
    np.testing.assert_allclose(windows.embedding[0], encoder.embed(samples), atol=1e-6)
    np.testing.assert_allclose(windows.whole, encoder.embed(samples), atol=1e-6)


@pytest.mark.parametrize(
    ("window_s", "hop_s"), [(1.0, 0.5), (0.8, None), (3.2, 0.24), (0.01, None)]
)
def test_windows_pool_their_own_frames_and_cover_the_recording(
    encoder: Encoder, window_s: float, hop_s: float | None
) -> None:
    samples, card = noise(11.3), encoder.card
    frames = encoder.frames(samples)
    windows = encoder.windows(samples, window_s, hop_s)
    frame_s = card.frame_hop / 16_000
    middle = np.arange(len(frames)) * card.frame_hop + card.frame_offset + card.receptive_field / 2
    hop_s, window_s = max(hop_s or window_s, frame_s), max(window_s, frame_s)
    assert windows.start_s == pytest.approx(hop_s * np.arange(len(windows.start_s)))
    assert windows.end_s[:-1] == pytest.approx(windows.start_s[:-1] + window_s)
    assert windows.end_s[-1] == 11.3
    assert windows.end_s[-1] - windows.start_s[-1] < window_s + 2 * frame_s
    ends = np.append(windows.end_s[:-1], np.inf)
    for start_s, end_s, vector in zip(windows.start_s, ends, windows.embedding, strict=True):
        own = frames[(middle >= np.rint(start_s * 16_000)) & (middle < np.rint(end_s * 16_000))]
        pool = encoder.pool()
        pool.add(own)
        np.testing.assert_allclose(vector, pool.embedding(), atol=1e-5)
        if encoder.card.pooling == "max+mean":
            np.testing.assert_allclose(vector, own.max(axis=0) + own.mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("window_s", [0.48, 0.5, 1.0, 2.5, 5.0, 10.0])
def test_a_recording_of_so_many_windows_has_no_other(encoder: Encoder, window_s: float) -> None:
    for n in (1, 2, 3):
        windows = encoder.windows(noise(n * window_s), window_s)
        assert windows.start_s.tolist() == [index * window_s for index in range(n)]
        assert windows.end_s.tolist() == [index * window_s for index in range(1, n + 1)]
    windows = encoder.windows(noise(3 * window_s - 0.2), window_s)
    assert windows.end_s.tolist() == [window_s, 2 * window_s, pytest.approx(3 * window_s - 0.2)]


@pytest.mark.parametrize("seconds", [0.3, 3.04, 3.05, 3.12, 3.2, 12.0, 31.7])
@pytest.mark.parametrize(("window_s", "hop_s"), [(1.0, 1.0), (3.0, 1.1), (0.5, 0.08), (12.0, 3.0)])
def test_the_number_of_windows_is_known_beforehand(
    encoder: Encoder, seconds: float, window_s: float, hop_s: float
) -> None:
    samples = noise(seconds)
    windows = encoder.windows(samples, window_s, hop_s)
    assert Grid.of(window_s, hop_s, encoder.card).count(len(samples)) == len(windows.start_s)
    assert windows.end_s[-1] == len(samples) / 16_000
    assert (windows.end_s > windows.start_s).all()


@pytest.mark.parametrize("seconds", [0.02, 0.5, 1.0, 1.04, 2.0, 10.24, 10.3])
@pytest.mark.parametrize("window_s", [0.5, 1.04, 2.0, 20.0])
def test_it_is_known_beforehand_whether_a_clip_has_one_window(
    encoder: Encoder, seconds: float, window_s: float
) -> None:
    check_only_window(encoder, noise(seconds), window_s)


@pytest.mark.parametrize("n_more", [-2, -1, 0, 1, 2])
def test_and_so_it_is_for_a_frame_more_or_less(encoder: Encoder, n_more: int) -> None:
    frame_s = encoder.card.frame_hop / 16_000
    check_only_window(encoder, noise((20 + n_more) * frame_s), 20 * frame_s)


def check_only_window(encoder: Encoder, clip: np.ndarray, window_s: float) -> None:
    windows = encoder.windows(clip, window_s, window_s / 2)
    is_one = len(windows.start_s) == 1 and len(clip) <= encoder.tiling.tile_samples
    expected = (windows.start_s[0], windows.end_s[0]) if is_one else None
    assert encoder.only_window(len(clip), window_s, window_s / 2) == expected


@pytest.mark.parametrize(
    ("window_s", "hop_s"), [(0, None), (-1, None), (1, 0), (1, 2), (np.nan, 1), (1e308, None)]
)
def test_an_impossible_window_is_refused(encoder: Encoder, window_s: float, hop_s: float) -> None:
    with pytest.raises(ValueError, match="expected 0 < hop_s <= window_s"):
        encoder.windows(noise(1.0), window_s, hop_s)
    with pytest.raises(ValueError, match="expected 0 < hop_s <= window_s"):
        encoder.only_window(16_000, window_s, hop_s)


def test_no_samples_are_refused(encoder: Encoder) -> None:
    for call in (encoder.embed, encoder.frames, lambda a: encoder.embed_batch([noise(1.0), a])):
        with pytest.raises(AudioError, match="no samples"):
            call(np.empty(0, np.float32))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((2, 16_000), np.float32), r"expected \(S,\), one channel"),
        (np.zeros(16_000, np.int64), "samples are int64"),
        (np.full(16_000, np.nan, np.float32), "not all finite"),
    ],
)
def test_samples_of_another_kind_are_refused(
    encoder: Encoder, samples: np.ndarray, message: str
) -> None:
    for call in (encoder.embed, encoder.frames, lambda s: encoder.embed_batch([s])):
        with pytest.raises(AudioError, match=message):
            call(samples)


def test_no_clips_give_no_vectors(encoder: Encoder) -> None:
    assert encoder.embed_batch([]).shape == (0, encoder.card.embed_dim)


def test_lengths_never_seen_before_bring_no_new_shapes(encoder: Encoder) -> None:
    longest = encoder.tiling.buckets[-1]
    shapes = {
        (len(group), bucket)
        for n_clips in range(1, 40)
        for bucket in encoder.tiling.buckets
        for group in tiles.groups(list(range(n_clips)), longest // bucket)
    }
    assert len(shapes) < 80
    assert all(batch * bucket <= longest for batch, bucket in shapes)


def test_groups_keep_every_clip_once() -> None:
    for n in range(1, 70):
        groups = list(tiles.groups(list(range(n)), 16))
        assert [index for group in groups for index in group] == list(range(n))


def test_several_threads_may_share_an_encoder(encoder: Encoder) -> None:
    samples = [noise(1.0, seed) for seed in range(4)]
    expected = [encoder.embed(s) for s in samples]
    got: list[np.ndarray | None] = [None] * 4

    def embed(index: int) -> None:
        got[index] = encoder.embed(samples[index])

    threads = [threading.Thread(target=embed, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for vector, wanted in zip(got, expected, strict=True):
        np.testing.assert_allclose(vector, wanted, atol=1e-5)


def test_a_broken_file_is_an_audio_error(encoder: Encoder) -> None:
    out = io.BytesIO()
    sf.write(out, noise(2.0), 16_000, format="FLAC")
    with pytest.raises(AudioError):
        encoder.embed(out.getvalue()[:-2000])


def test_blocks_are_checked_like_samples(encoder: Encoder) -> None:
    bad = np.full(16_000, np.nan, np.float32)
    with pytest.raises(AudioError, match="not all finite"):
        encoder.embed(iter([bad, noise(30.0)]))
    with pytest.raises(AudioError, match="at most 65536"):
        encoder.embed(np.full(16_000, 1e30, np.float32))


@pytest.mark.parametrize(("window", "hop"), [(6001, 377), (10, 10), (7, 3), (8, 4), (1, 1)])
def test_windows_of_any_lengths_hold_two_chunks_a_hop_at_most(
    encoder: Encoder, window: int, hop: int
) -> None:
    frames = np.random.default_rng(0).normal(size=(window + 3 * hop + 1, 3)).astype(np.float32)
    columns = {"layer": "any", "first": 0, "n": 2}
    statistics = (
        Statistic(kind="max+mean", layer="any", first=0, n=3),
        Statistic(kind="mean", **columns),
        Statistic(kind="max", **columns),
        Statistic(kind="deviation", layer="any", first=1, n=1, within=2),
    )
    frames[:, 2] = np.square(frames[:, 2])  # variances
    frame = encoder.card.frame_hop
    grid = Grid(window * frame, hop * frame, encoder.card)
    timeline, seen, n_frames = Timeline(grid, Pooling(statistics)), [], 0
    for part in np.array_split(frames, 11):
        n_frames += len(part)
        seen += timeline.add(part, n_frames * frame)
        assert len(timeline.chunks) <= 2 * (window // hop + 2)
    seen += timeline.rest()
    starts = [hop * index for index in range(5)]
    stops = [*(start + window for start in starts[:-1]), len(frames)]
    assert [round(start * 16_000 / frame) for start, _, _ in seen] == starts
    assert [round(stop * 16_000 / frame) for _, stop, _ in seen] == stops
    for start, stop, (_, _, vector) in zip(starts, stops, seen, strict=True):
        own = frames[start:stop]
        maximum, mean = own.max(axis=0), own.mean(axis=0)
        deviation = np.sqrt(own[:, 1].var() + mean[2])
        expected = np.concatenate([maximum + mean, mean[:2], maximum[:2], [deviation]])
        np.testing.assert_allclose(vector, expected, atol=1e-5)


def test_a_shorter_vector_is_the_first_values_at_length_one() -> None:
    vectors = np.random.default_rng(0).normal(size=(4, 9)).astype(np.float32)
    short = shortened(vectors, 3)
    np.testing.assert_allclose(np.linalg.norm(short, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(short[0], vectors[0, :3] / np.linalg.norm(vectors[0, :3]), rtol=1e-5)
    assert shortened(vectors, None) is shortened(vectors, 9) is vectors
    for dimensions in (0, -1, 10, True):
        with pytest.raises(ValueError, match=f"dimensions is {dimensions}; expected 1 to 9"):
            shortened(vectors, dimensions)


@pytest.mark.parametrize("seconds", [0.5, 25.0])
def test_an_encoder_gives_shorter_vectors(encoder: Encoder, seconds: float) -> None:
    whole = encoder.embed(noise(seconds))
    np.testing.assert_array_equal(encoder.embed(noise(seconds), dimensions=8), shortened(whole, 8))
