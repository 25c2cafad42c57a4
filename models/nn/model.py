"""The whole path from samples to a vector as one network: what is trained, exported and served.

Letters: `B` batch, `S` samples, `T` frames of features, `F` values of a frame before pooling, `D`
embedding dim.
"""

import torch
from torch import Tensor, nn

from models.nn.encoder import ConvEncoder
from models.nn.frontend import LogMel, Normalize, n_frames
from models.nn.readout import Readout


class WaveformEncoder(nn.Module):
    """Log-mel, normalisation, encoder and readout: (B, S) and (B,) -> (B, D) and (B, T, F).

    Padding and the other rows never change a row's result: reflection, convolutions and pooling end
    at `length`.
    """

    def __init__(
        self, encoder: ConvEncoder, mean: float, std: float, readout: Readout | None = None
    ) -> None:
        """`readout` None: BYOL-A's own vector."""
        super().__init__()
        self.frontend = LogMel()
        self.normalize = Normalize(mean, std)
        self.encoder = encoder
        self.readout = Readout(encoder) if readout is None else readout

    def forward(self, waveform: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms at 16 kHz and their valid samples -> embedding and frame features."""
        waveform, length = self._at_least_min_samples(waveform, length)
        n_mel_frames = n_frames(length)
        log_mel = self.normalize(self.frontend(waveform, length))
        frames = self.readout.frames(self.encoder, log_mel, n_mel_frames)
        return self.readout(frames, self.encoder.n_frames(n_mel_frames)), frames

    def _at_least_min_samples(self, waveform: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Silence what lies beyond `length`, then zero-pad clips too short for a frame."""
        inside = torch.arange(waveform.shape[1], device=waveform.device) < length[:, None]
        waveform = waveform * inside.to(waveform.dtype)
        shortest = self.encoder.min_samples
        missing = torch.sym_max(shortest - waveform.shape[1], 0)  # type: ignore[no-untyped-call]
        return nn.functional.pad(waveform, (0, missing)), length.clamp(min=shortest)


@torch.no_grad()
def one_pass(model: WaveformEncoder, waveform: Tensor) -> tuple[Tensor, Tensor]:
    """One unpadded clip (S,) straight through every layer, no masks: (D,) and (T, F).

    The reference that masking, batching and tiling are held against.
    """
    missing = max(0, model.encoder.min_samples - len(waveform))
    clip = nn.functional.pad(waveform[None], (0, missing))
    log_mel = model.normalize(model.frontend(clip))
    frames = model.readout.frames(model.encoder, log_mel, None)
    return model.readout(frames)[0], frames[0]
