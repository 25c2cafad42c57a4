"""An encoder's weights as safetensors: one file, no pickle, that torch reads in two lines.

    from models.nn.weights import load_encoder
    embedding, frames = load_encoder("mine.safetensors")(waveform, length)

The file holds the tensors of the network; its metadata say which network it is and how its log-mels
are normalised, under the key `viola`, and how it came about, under `training`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from models.atomic import replacing
from models.card import Training
from models.nn.encoder import ENCODERS, ConvEncoder
from models.nn.model import WaveformEncoder

KEY, TRAINING = "viola", "training"


class WeightsError(ValueError):
    """A file that holds no encoder."""


def save_encoder(
    model: WaveformEncoder, path: Path, *, half: bool = False, training: Training | None = None
) -> None:
    """Write the network of an encoder and its normalisation, with BYOL-A's own vector.

    `half`: in half the size; an encoder computes in float32 again once it is loaded.
    """
    encoder = model.encoder
    about = {
        "name": type(encoder).__name__,
        "embed_dim": encoder.embed_dim,
        "hidden_dim": encoder.hidden_dim,
        "n_channels": encoder.n_channels,
        "norm": encoder.norm,
        "weight_standardization": encoder.weight_standardization,
        "mean": model.normalize.mean,
        "std": model.normalize.std,
    }
    tensors = {
        name: (tensor.half() if half and tensor.is_floating_point() else tensor).contiguous().cpu()
        for name, tensor in encoder.state_dict().items()
    }
    metadata = {KEY: json.dumps(about)}
    if training:
        metadata[TRAINING] = training.model_dump_json()
    with replacing(path) as temporary:
        temporary.write_bytes(save(tensors, metadata=metadata))


def load_encoder(path: str | Path) -> WaveformEncoder:
    """Waveforms (B, S) and their lengths (B,) -> embedding (B, D) and frames (B, T, D), in float32.

    In evaluation mode; `.train()`, `.to(device)` and what else modules do.

    Raises:
        WeightsError: no such file, or not one that `save_encoder` wrote.
    """
    about, tensors, _ = read(Path(path))
    encoder = build(about, path)
    try:
        encoder.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except RuntimeError as error:
        raise WeightsError(f"{path} does not fit {about['name']}: {error}") from error
    return WaveformEncoder(encoder, about["mean"], about["std"]).eval()


def build(about: dict[str, Any], path: str | Path) -> ConvEncoder:
    """The network that the metadata of a file describe, with fresh weights."""
    settings = {name: about[name] for name in about if name not in ("name", "mean", "std")}
    if about["name"] not in ENCODERS:
        raise WeightsError(f"{path} holds a {about['name']}; known are {', '.join(ENCODERS)}")
    return ENCODERS[about["name"]](**settings)


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], Training | None]:
    """The description and the tensors of a file, and how they came about if it says so.

    Raises:
        WeightsError: no such file, or not one that `save_encoder` wrote.
    """
    if not path.is_file():
        raise WeightsError(f"no weights at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = list(file.keys())
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise WeightsError(f"{path} is not a safetensors file: {error}") from error
    if KEY not in metadata:
        raise WeightsError(f"{path} does not say which encoder it holds; viola weights writes it")
    about: dict[str, Any] = json.loads(metadata[KEY])
    told = metadata.get(TRAINING)
    return about, tensors, Training.model_validate_json(told) if told else None


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """Which weights of a network hold something else than numbers, and what to do; "" if none."""
    bad = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if not bad:
        return ""
    return (
        f"{', '.join(bad[:3])}{' and more' if len(bad) > 3 else ''} hold values that are not "
        "finite: the run has diverged, or the file is damaged; take an earlier checkpoint or file"
    )
