"""The readout of an encoder, measured on a store, so that a cosine means something.

Pooled vectors have a few directions with nearly all of the variance: any two sounds are alike by
them. They are standardised, each block of statistics by its weight, rotated to the principal axes
of the store, and every axis is divided by a power of its variance (whitening: Kessy, Lewin and
Strimmer, arXiv 1512.00809). The axes come in order of variance, so that the first k values are the
best vector of k values. Letters: `N` segments, `P` pooled values, `D` embedding dim.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.modelfile import Statistic
from models.nn.frontend import N_MELS, n_frames
from models.nn.model import WaveformEncoder
from models.nn.readout import Axes, LayeredReadout, Projection, band_statistics
from training.data.corpus import Corpus, Sampler
from training.data.pcm import pcm_to_float

SECONDS = {1.0: 3000, 3.0: 2000, 8.0: 600}
"""Segments of each length that the statistics are taken from: vectors of short clips and of long
ones have to fit together."""

N_AXES = 12  # of a layer, along which autocovariances are taken
AXES_S, AXES_SEGMENTS = 1.0, 1500  # the segments whose frames they are measured on
LEAST_DEVIATION = 1e-3  # of a value of a frame; what is constant stays so
N_CLEAN = 4096  # segments that batch norm is measured on
CLEAN_S = 0.95  # their length: that of training
BATCH = 32
BALANCE = 0.5  # of sources, and the power of a clip's length, as in the recipes
SEED = 7

Follow = Callable[[Iterable[int], str], Iterable[int]]
"""Gives the numbers of a stage's batches one by one, and shows how far it is."""


def _silent(batches: Iterable[int], title: str) -> Iterable[int]:
    return batches


@dataclass(frozen=True)
class Form:
    """What is done with the principal axes.

    Attributes:
        embed_dim: axes that are kept, at most.
        power: of an axis' variance, that it is divided by; 0: kept, 0.5: whitened.
        floor: added to the variances, so that axes of noise do not grow.
        weights: of the standardised statistics by layer; others have 1.
    """

    embed_dim: int
    power: float = 0.5
    floor: float = 0.1
    weights: tuple[tuple[str, float], ...] = (("convolution", 0.5), ("autocovariance", 0.35))

    def settings(self) -> dict[str, Any]:
        """For the card."""
        return {"power": self.power, "floor": self.floor, "weights": dict(self.weights)}


def measured(
    model: WaveformEncoder, corpus: Corpus, form: Form, follow: Follow = _silent
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
    projection = project(vectors, layered.readout.statistics, form)
    return _with(model, LayeredReadout(model.encoder, projection, axes))


def with_layers(model: WaveformEncoder, axes: Mapping[str, Axes] | None = None) -> WaveformEncoder:
    """The encoder with the vector of its layers as they are, with autocovariances along `axes`."""
    return _with(model, LayeredReadout(model.encoder, axes=axes))


def _with(model: WaveformEncoder, readout: LayeredReadout) -> WaveformEncoder:
    return WaveformEncoder(model.encoder, model.normalize.mean, model.normalize.std, readout).eval()


@torch.no_grad()
def axes_of(model: WaveformEncoder, corpus: Corpus, follow: Follow = _silent) -> dict[str, Axes]:
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
    variance, axes = torch.linalg.eigh(torch.cov(((rows - center) / std).T))
    n = min(N_AXES, len(std))
    variance, axes = variance.flip(0)[:n], axes.flip(1)[:, :n]
    matrix = axes / std[:, None] / variance.clamp(min=LEAST_DEVIATION).sqrt()
    return Axes(center.float(), matrix.float())


def pooled(model: WaveformEncoder, corpus: Corpus, follow: Follow = _silent) -> Tensor:
    """Vectors of segments of a store, of several lengths, in the readout that the encoder has."""
    parts = [_of_length(model, corpus, seconds, n, follow) for seconds, n in SECONDS.items()]
    return torch.cat(parts)  # (N, P)


def project(vectors: Tensor, statistics: Sequence[Statistic], form: Form) -> Projection:
    """The projection of a form, from pooled vectors of a store (N, P), float64."""
    std, center = torch.std_mean(vectors, dim=0)
    weights = dict(form.weights)
    by_layer = [torch.full((s.n,), weights.get(s.layer, 1.0)) for s in statistics]
    scale = torch.cat(by_layer).double() / std.clamp(min=1e-6)  # what is constant stays so
    variance, axes = torch.linalg.eigh(torch.cov(((vectors - center) * scale).T))
    n = min(form.embed_dim, len(scale), len(vectors) - 1)
    variance, axes = variance.flip(0)[:n].clamp(min=0), axes.flip(1)[:, :n]
    matrix = scale[:, None] * axes * (variance + form.floor) ** -form.power
    return Projection(
        center.float(),
        matrix.float(),
        form="standardised, rotated to principal axes, divided by a power of their variance",
        settings=form.settings(),
        segments=len(vectors),
        seconds=tuple(SECONDS),
    )


@torch.no_grad()
def recalibrate(model: WaveformEncoder, corpus: Corpus, follow: Follow = _silent) -> None:
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
def _of_length(
    model: WaveformEncoder, corpus: Corpus, seconds: float, n: int, follow: Follow
) -> Tensor:
    """Vectors of `n` segments of a length: (N, P)."""
    batches = _log_mels(model, corpus, seconds, n, follow, f"segments of {seconds:g} s")
    readout, encoder = model.readout, model.encoder
    return torch.cat(
        [
            readout(readout.frames(encoder, log_mel, valid), encoder.n_frames(valid))
            for log_mel, valid in batches
        ]
    )


def _log_mels(
    model: WaveformEncoder, corpus: Corpus, seconds: float, n: int, follow: Follow, title: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Normalised log-mels (B, F, T) of `n` segments of a store, and the valid frames of each (B,).

    One batch at least. Clips that are shorter are padded.
    """
    n_samples = round(seconds * 16_000)
    sampler = Sampler(corpus, {}, SEED, BALANCE, BALANCE, n_samples)
    n_batches = max(1, n // BATCH)

    for step in follow(range(n_batches), title):
        clips, rng = sampler.batch(step, BATCH)
        crops = corpus.crops(clips, n_samples, rng, "end")
        segments = np.empty((BATCH, n_samples), np.int16)
        corpus.gather(crops, segments)
        log_mel = model.normalize(model.frontend(pcm_to_float(torch.from_numpy(segments))))
        yield log_mel, n_frames(torch.from_numpy(crops.kept).clamp(min=model.encoder.min_samples))
