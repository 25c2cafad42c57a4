"""The readout of an encoder, measured on a store, so that a cosine means something.

The projection is computed from pooled vectors of segments, and from how these change when the
segments are disturbed. Letters: `B` batch, `S` samples, `N` segments, `P` pooled values.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models import pcm
from models.audio import SAMPLE_RATE
from models.nn.frontend import N_MELS, n_frames
from models.nn.model import WaveformEncoder
from models.nn.readout import Axes, LayeredReadout, band_statistics
from training.data.corpus import Corpus, Sampler
from training.data.log_mels import Follow, in_silence
from training.data.pcm import pcm_to_float
from training.disturbances import DISTURBANCES, LEAST_SAMPLES, Floats
from training.projection import Form, principal_axes, project

SECONDS = {1.0: 3000, 3.0: 2000, 8.0: 600}
"""Segments of each length that the statistics are taken from: vectors of short clips and of long
ones have to fit together."""

DISTURBED = {1.0: 1536, 3.0: 1024}
"""Segments of each length that are disturbed, in each way."""

N_AXES = 12  # of a layer, along which autocovariances are taken
AXES_S, AXES_SEGMENTS = 1.0, 1500  # the segments whose frames they are measured on
LEAST_DEVIATION = 1e-3  # of a value of a frame: a constant one is not scaled up
N_CLEAN = 4096  # segments that batch norm is measured on
CLEAN_S = 0.95  # their length: that of training
BATCH = 32
BALANCE = 0.5  # of sources, and the power of a clip's length, as in the recipes
SEED = 7


def measured(
    model: WaveformEncoder, corpus: Corpus, form: Form, follow: Follow = in_silence
) -> WaveformEncoder:
    """The encoder with layers and a projection, from the clips of a store.

    Args:
        model: an encoder; its batch norm stays as it is.
        corpus: the store, that of the training or one like it.
        form: of the projection.
        follow: shows the progress.
    """
    axes = axes_of(model, corpus, follow)
    layered = with_layers(model, axes)
    vectors = pooled(layered, corpus, follow).double()
    changes = differences(layered, corpus, follow) if form.within_power else {}
    projection = replace(
        project(vectors, changes, layered.readout.statistics, form),
        segments=len(vectors),
        seconds=tuple(SECONDS),
    )
    return _with(model, LayeredReadout(model.encoder, projection, axes))


def with_layers(model: WaveformEncoder, axes: Mapping[str, Axes] | None = None) -> WaveformEncoder:
    """The encoder with the vector of its layers as they are, with autocovariances along `axes`."""
    return _with(model, LayeredReadout(model.encoder, axes=axes))


def _with(model: WaveformEncoder, readout: LayeredReadout) -> WaveformEncoder:
    return WaveformEncoder(model.encoder, model.normalize.mean, model.normalize.std, readout).eval()


@torch.no_grad()
def axes_of(model: WaveformEncoder, corpus: Corpus, follow: Follow = in_silence) -> dict[str, Axes]:
    """The principal axes of frames of the convolution and of the log-mel bands, on a store.

    Values of a frame are standardised first.
    """
    frames: dict[str, list[Tensor]] = {"convolution": [], "log-mel": []}
    reduction = model.encoder.time_reduction
    batches = _log_mels(model, corpus, AXES_S, AXES_SEGMENTS, follow, "axes of frames")
    for log_mel, valid in batches:
        local = model.encoder.local_features(log_mel[:, None], valid)
        bands = band_statistics(log_mel, valid, reduction, local.shape[1])[..., :N_MELS]
        inside = torch.arange(local.shape[1]) < model.encoder.n_frames(valid)[:, None]
        frames["convolution"].append(local[inside])
        frames["log-mel"].append(bands[inside])
    return {layer: _principal(torch.cat(rows).double()) for layer, rows in frames.items()}


def _principal(rows: Tensor) -> Axes:
    """The first axes of rows (n, N), float64."""
    std, center = torch.std_mean(rows, dim=0)
    std = std.clamp(min=LEAST_DEVIATION)
    variance, axes = principal_axes(torch.cov(((rows - center) / std).T))
    matrix = axes[:, :N_AXES] / std[:, None]
    matrix /= variance[:N_AXES].clamp(min=LEAST_DEVIATION).sqrt()
    return Axes(center.float(), matrix.float())


def pooled(model: WaveformEncoder, corpus: Corpus, follow: Follow = in_silence) -> Tensor:
    """Vectors of segments of a store, of several lengths, in the readout that the encoder has."""
    parts = [
        _embedded(model, log_mel, valid)
        for seconds, n in SECONDS.items()
        for log_mel, valid in _log_mels(
            model, corpus, seconds, n, follow, f"segments of {seconds:g} s"
        )
    ]
    return torch.cat(parts)  # (N, P)


def differences(
    model: WaveformEncoder, corpus: Corpus, follow: Follow = in_silence
) -> dict[str, Tensor]:
    """By disturbance, how it changes the vectors of segments of a store: each (N, P).

    The vectors are those of the encoder's readout. Empty where all segments are silent, or too
    short to be disturbed.
    """
    rng = np.random.default_rng(SEED)
    found: dict[str, list[Tensor]] = {name: [] for name in DISTURBANCES}
    for seconds, n in DISTURBED.items():
        title = f"disturbed segments of {seconds:g} s"
        for segments, kept in _segments(corpus, seconds, n, follow, title):
            samples = [pcm.samples(s[:k]) for s, k in zip(segments, kept, strict=True)]
            samples = [s for s in samples if len(s) >= LEAST_SAMPLES and s.any()]
            if not samples:
                continue
            clean = _embedded(model, *_of_samples(model, samples))
            for name, disturb in DISTURBANCES.items():
                disturbed = [disturb(s, rng) for s in samples]
                found[name].append(_embedded(model, *_of_samples(model, disturbed)) - clean)
    return {name: torch.cat(rows) for name, rows in found.items() if rows}


@torch.no_grad()
def recalibrate(model: WaveformEncoder, corpus: Corpus, follow: Follow = in_silence) -> None:
    """Measure the statistics of batch norm anew on clean segments of a store, in place.

    While it is trained an encoder sees augmented views; what is served is neither mixed, cropped
    nor faded. Encoders without batch norm stay as they are.
    """
    layers = [layer for layer in model.encoder.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
        layer.train()
    if layers:
        for log_mel, valid in _log_mels(model, corpus, CLEAN_S, N_CLEAN, follow, "batch norm"):
            whole = valid == log_mel.shape[2]  # silence behind short clips is not served
            model.encoder(log_mel[whole if whole.any() else slice(None), None])
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()


@torch.no_grad()
def _embedded(model: WaveformEncoder, log_mel: Tensor, valid: Tensor) -> Tensor:
    """Normalised log-mels (B, F, T) and the valid frames of each -> vectors (B, P)."""
    frames = model.readout.frames(model.encoder, log_mel, valid)
    vectors: Tensor = model.readout(frames, model.encoder.n_frames(valid))
    return vectors


def _log_mels(
    model: WaveformEncoder, corpus: Corpus, seconds: float, n: int, follow: Follow, title: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Normalised log-mels (B, F, T) of segments of a store, and the valid frames of each (B,)."""
    for segments, kept in _segments(corpus, seconds, n, follow, title):
        yield _log_mel(model, pcm_to_float(torch.from_numpy(segments)), kept)


def _of_samples(model: WaveformEncoder, samples: Sequence[Floats]) -> tuple[Tensor, Tensor]:
    """Normalised log-mels of samples of several lengths, and the valid frames of each (B,)."""
    rows = [torch.from_numpy(s) for s in samples]
    lengths = np.array([len(s) for s in samples])
    return _log_mel(model, nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths)


@torch.no_grad()
def _log_mel(
    model: WaveformEncoder, waveforms: Tensor, n_samples: NDArray[np.int64]
) -> tuple[Tensor, Tensor]:
    least = model.encoder.min_samples
    log_mel = model.normalize(model.frontend(waveforms))
    return log_mel, n_frames(torch.from_numpy(n_samples).clamp(min=least))


def _segments(
    corpus: Corpus, seconds: float, n: int, follow: Follow, title: str
) -> Iterator[tuple[NDArray[np.int16], NDArray[np.int64]]]:
    """`n` segments of a store in batches (B, S), and the samples of each that are its clip's (B,).

    One batch at least. Clips that are shorter are padded at the end.
    """
    n_samples = round(seconds * SAMPLE_RATE)
    sampler = Sampler(corpus, {}, SEED, BALANCE, BALANCE, n_samples)
    for step in follow(range(max(1, n // BATCH)), title):
        clips, rng = sampler.batch(step, BATCH)
        crops = corpus.crops(clips, n_samples, rng, "end")
        segments = np.empty((BATCH, n_samples), np.int16)
        corpus.gather(crops, segments)
        yield segments, crops.kept
