"""The whole path from samples to a vector as one network: what is trained, exported and served.

Letters: `B` batch, `S` samples, `T` frames of features, `D` embedding dim.
"""

import torch
from torch import Tensor, nn

from models.nn.encoder import ConvEncoder
from models.nn.frontend import LogMel, Normalize, n_frames
from models.nn.pooling import MaxMeanPool


class WaveformEncoder(nn.Module):
    """Log-mel, normalisation, encoder and pooling: (B, S) and (B,) -> (B, D) and (B, T, D).

    Padding and the other rows never change a row's result: reflection, convolutions and pooling end
    at `length`.
    """

    def __init__(self, encoder: ConvEncoder, mean: float, std: float) -> None:
        super().__init__()
        self.frontend = LogMel()
        self.normalize = Normalize(mean, std)
        self.encoder = encoder
        self.pool = MaxMeanPool()

    def forward(self, waveform: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms at 16 kHz and their valid samples -> embedding and frame features."""
        waveform, length = self._at_least_min_samples(waveform, length)
        n_mel_frames = n_frames(length)
        log_mel = self.normalize(self.frontend(waveform, length))
        frames = self.encoder(log_mel[:, None], n_mel_frames)
        return self.pool(frames, self.encoder.n_frames(n_mel_frames)), frames

    def _at_least_min_samples(self, waveform: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Silence what lies beyond `length`, then zero-pad clips too short for a frame."""
        inside = torch.arange(waveform.shape[1], device=waveform.device) < length[:, None]
        waveform = waveform * inside.to(waveform.dtype)
        shortest = self.encoder.min_samples
        missing = torch.sym_max(shortest - waveform.shape[1], 0)  # type: ignore[no-untyped-call]
        return nn.functional.pad(waveform, (0, missing)), length.clamp(min=shortest)


@torch.no_grad()
def one_pass(model: WaveformEncoder, waveform: Tensor) -> tuple[Tensor, Tensor]:
    """One unpadded clip (S,) straight through every layer, no masks: (D,) and (T, D).

    The reference that masking, batching and tiling are held against.
    """
    missing = max(0, model.encoder.min_samples - len(waveform))
    clip = nn.functional.pad(waveform[None], (0, missing))
    frames = model.encoder(model.normalize(model.frontend(clip))[:, None])
    return model.pool(frames)[0], frames[0]
