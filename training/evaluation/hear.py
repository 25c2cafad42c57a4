"""A model file behind the common API of HEAR (arXiv 2203.03022, sec. 3), for the tools of HEAR.

    hear-validator training.evaluation.hear --model default.onnx
    python -m heareval.embeddings.runner training.evaluation.hear --model default.onnx

Sounds are run by ONNX Runtime, as they are served, wherever their tensors lie. Letters: `B` sounds,
`S` samples at 16 kHz, `T` frames of features, `D` embedding dim.
"""

from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.modelfile import DEFAULT_MODEL
from models.runtime import Encoder


class Model(nn.Module):
    """What HEAR asks of a model: its rate and the sizes of its vectors."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.sample_rate: int = encoder.card.sample_rate
        self.scene_embedding_size: int = encoder.card.embed_dim
        self.timestamp_embedding_size: int = encoder.card.frame_features


def load_model(model_file_path: str | Path = "") -> Model:
    """Open a model file; the default encoder if none is named.

    Raises:
        ModelFileError: it is missing, broken or not an encoder.
    """
    return Model(Encoder.open(model_file_path or DEFAULT_MODEL))


def get_scene_embeddings(audio: Tensor, model: Model) -> Tensor:
    """One vector a sound: (B, S) in [-1, 1] -> (B, D)."""
    return torch.from_numpy(model.encoder.embed_batch(_rows(audio))).to(audio.device)


def get_timestamp_embeddings(audio: Tensor, model: Model) -> tuple[Tensor, Tensor]:
    """Frame features and the middle of each frame in ms: (B, S) -> (B, T, F) and (B, T).

    The middle is that of the samples which a frame sees, so that times do not drift: one frame
    every 40 ms for AudioNTT2022, every 80 ms for the others.
    """
    card = model.encoder.card
    features = [model.encoder.frames(row)[:, : card.frame_features] for row in _rows(audio)]
    frames = torch.stack([torch.from_numpy(each) for each in features])
    first = card.frame_offset + card.receptive_field / 2
    samples = first + card.frame_hop * torch.arange(frames.shape[1], dtype=torch.float64)
    milliseconds = (1000 * samples / card.sample_rate).float()
    return frames.to(audio.device), milliseconds.repeat(len(frames), 1).to(audio.device)


def _rows(audio: Tensor) -> list[NDArray[Any]]:
    """The sounds of a batch; whole numbers stay such, since their type tells their full scale."""
    if audio.ndim != 2:
        raise ValueError(f"audio of shape {tuple(audio.shape)}; expected (sounds, samples)")
    host = audio.detach().cpu()
    return list((host.float() if host.is_floating_point() else host).numpy())
