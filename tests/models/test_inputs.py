"""models/inputs.py: what people hand to an encoder, and what it refuses by name."""

import io
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from models.limits import AudioError
from models.runtime import Encoder
from models.selection import Selection
from tests.recordings import encoded
from tests.service.conftest import write_model
from tests.signals import noise

SAMPLES = noise(1.5)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.open(write_model(tmp_path_factory.mktemp("model") / "tiny.onnx"), threads=1)


@pytest.fixture(scope="module")
def file() -> bytes:
    return encoded("wav-float", SAMPLES[:, None], 16_000)


class Tensor:
    """As torch's: no array, but one can be had."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return self._values


def test_whatever_holds_the_same_samples_has_the_same_vector(
    encoder: Encoder, file: bytes, tmp_path: Path
) -> None:
    expected = encoder.embed(SAMPLES)
    path = tmp_path / "a.wav"
    path.write_bytes(file)
    with path.open("rb") as opened:
        given = [
            path,
            str(path),
            file,
            bytearray(file),
            memoryview(file),
            io.BytesIO(file),
            opened,
            SAMPLES.tolist(),
            tuple(SAMPLES.tolist()),
            SAMPLES.astype(np.float64),
            Tensor(SAMPLES),
            iter([SAMPLES[:9_000], SAMPLES[9_000:]]),
            [SAMPLES[:9_000], SAMPLES[9_000:]],
        ]
        for source in given:
            np.testing.assert_allclose(encoder.embed(source), expected, atol=1e-5)
    np.testing.assert_allclose(encoder.embed_batch([SAMPLES.tolist()])[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "scale", "zero"), [("int16", 2**15, 0), ("int32", 2**31, 0), ("uint8", 2**7, 128)]
)
def test_integers_are_scaled_as_in_wav(encoder: Encoder, dtype: str, scale: int, zero: int) -> None:
    integers = np.clip(SAMPLES.astype(np.float64) * scale, -scale, scale - 1).round() + zero
    found = encoder.embed(integers.astype(dtype))
    expected = encoder.embed(((integers - zero) / scale).astype(np.float32))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("source", "reason", "words"),
    [
        (np.zeros((2, 16_000), np.float32), "channels", "(2, 16000)"),
        (np.zeros((16_000, 2), np.int16), "channels", "(16000, 2)"),
        ([[0.0, 0.1], [0.0, 0.1]], "channels", "(2, 2)"),
        (np.float32(0.5), "channels", "()"),
        ([0, 1, 2], "unsupported", "int64"),
        (np.zeros(100, bool), "unsupported", "bool"),
        (np.zeros(100, np.complex64), "unsupported", "complex64"),
        (["a.wav", "b.wav"], "unsupported", "str"),
        ([], "empty", "no samples"),
        ([0.0, float("nan")], "non_finite", "finite"),
        (io.BytesIO(b""), "empty", "no bytes"),
    ],
)
def test_what_is_no_recording_is_refused_by_what_it_is(
    encoder: Encoder, source: object, reason: str, words: str
) -> None:
    with pytest.raises(AudioError) as caught:
        encoder.embed(source)
    assert caught.value.reason == reason
    assert words in str(caught.value)


def test_a_pipe_is_read_to_its_end(encoder: Encoder, file: bytes, tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(file,))
    writer.start()
    np.testing.assert_allclose(encoder.embed(path), encoder.embed(SAMPLES), atol=1e-5)
    writer.join()


def test_a_part_of_samples_is_that_of_a_file(encoder: Encoder, file: bytes) -> None:
    part = Selection(start_s=0.5, end_s=1.0)
    expected = encoder.embed(SAMPLES[8_000:16_000])
    for source in (SAMPLES, SAMPLES.tolist(), file):
        np.testing.assert_allclose(encoder.embed(source, selection=part), expected, atol=1e-5)


def test_windows_of_a_part_count_from_the_beginning(encoder: Encoder, file: bytes) -> None:
    part = Selection(start_s=0.5)
    for source in (SAMPLES, file):
        found = encoder.windows(source, 0.5, selection=part)
        np.testing.assert_allclose(found.start_s, [0.5, 1.0])
        np.testing.assert_allclose(found.end_s, [1.0, 1.5])


def test_parts_that_cannot_be_are_refused(encoder: Encoder) -> None:
    for source, part in (
        (SAMPLES, Selection(start_s=2.0)),
        (SAMPLES, Selection(channel=1)),
        (iter([SAMPLES]), Selection(start_s=0.5)),
    ):
        with pytest.raises(AudioError) as caught:
            encoder.embed(source, selection=part)
        assert caught.value.reason == "selection"


@pytest.mark.parametrize(
    "given",
    [None, 5, True, {}, {"a"}, object(), [None], ["a.wav"], iter(["a"]), io.StringIO("a"), "a\0b"],
)
def test_what_is_no_recording_is_refused_in_words(encoder: Encoder, given: object) -> None:
    with pytest.raises(AudioError):
        encoder.embed(given)


class Unreadable(Tensor):
    """As a tensor of torch in bfloat16, or one that requires a gradient."""

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        raise TypeError("Got unsupported ScalarType BFloat16")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Unreadable(SAMPLES), "NumPy cannot read as samples: .*BFloat16"),
        ([0.5, [0.5]], "NumPy cannot read as samples"),
        (np.ma.masked_greater(SAMPLES, 0), "masked in part"),
    ],
)
def test_what_numpy_cannot_read_is_refused_in_words(
    encoder: Encoder, given: object, message: str
) -> None:
    with pytest.raises(AudioError, match=message):
        encoder.embed(given)
    with pytest.raises(AudioError, match=message):
        encoder.embed_batch([given])  # type: ignore[list-item]


@pytest.mark.parametrize("clip", ["a.wav", b"RIFF", Path("a.wav"), None, 5, np.zeros((4, 2))])
def test_a_batch_is_of_samples(encoder: Encoder, clip: object) -> None:
    with pytest.raises(AudioError):
        encoder.embed_batch([SAMPLES, clip])  # type: ignore[list-item]


def test_a_number_too_large_for_float32_makes_no_noise(encoder: Encoder) -> None:
    with pytest.raises(AudioError, match="not all finite"):
        encoder.embed(np.full(16_000, 1e300))


@pytest.mark.parametrize("channel", ["left", 1.5, True, None, -1])
def test_a_channel_is_a_number_or_mix(channel: object) -> None:
    with pytest.raises(AudioError, match="channel"):
        Selection(channel=channel)  # type: ignore[arg-type]


@pytest.mark.parametrize("time", ["1", [1.0], np.array([1.0])])
def test_a_time_is_a_number(time: object) -> None:
    with pytest.raises(AudioError, match="start_s = .* is no time"):
        Selection(start_s=time)  # type: ignore[arg-type]
    assert Selection(start_s=np.float32(0.5), end_s=np.int64(1)).start_s == 0.5  # type: ignore[arg-type]


@pytest.mark.parametrize("dimensions", ["2", 1.5, 0, -1, 5])
def test_dimensions_are_a_number_that_the_model_has(encoder: Encoder, dimensions: object) -> None:
    with pytest.raises(ValueError, match="dimensions"):
        encoder.embed(SAMPLES, dimensions=dimensions)  # type: ignore[arg-type]


@pytest.mark.parametrize("threads", ["2", 1.5, 0, -1, 1025, 10**12])
def test_threads_are_a_number_that_a_machine_can_start(threads: object) -> None:
    with pytest.raises(ValueError, match="threads is .*expected 1 to 1024"):
        Encoder.open(threads=threads)  # type: ignore[arg-type]


@pytest.mark.parametrize("window_s", ["1", None, 0, float("nan")])
def test_a_window_is_a_time(encoder: Encoder, window_s: object) -> None:
    with pytest.raises(ValueError, match="window_s"):
        encoder.windows(SAMPLES, window_s)  # type: ignore[arg-type]
