"""Reads weights in the layout in which the authors of BYOL-A publish theirs.

A checkpoint is a mapping of names to tensors, perhaps under `state_dict` or `model`, with any
prefix before `features.` or `fc.`; the shapes tell which encoder it is.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.nn.encoder import AudioNTT2020, AudioNTT2022, ConvEncoder

_KEY = re.compile(r"(?:^|\.)((?:features|fc)\..+)$")


class OfficialCheckpointError(ValueError):
    """A file that is no checkpoint, or whose tensors fit neither encoder."""


def load_official(path: Path) -> ConvEncoder:
    """The encoder of a checkpoint in the authors' layout, every tensor accounted for.

    Raises:
        OfficialCheckpointError: unreadable file, or keys and shapes of neither encoder.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise OfficialCheckpointError(f"no checkpoint at {path}") from None
    except Exception as error:  # torch raises a dozen kinds on a broken file
        raise OfficialCheckpointError(
            f"{path} is not a torch checkpoint of plain tensors: {type(error).__name__}"
        ) from error
    weights = _encoder_weights(content)
    encoder = _matching_encoder(weights, path)
    try:
        encoder.load_state_dict(weights)
    except RuntimeError as error:
        raise OfficialCheckpointError(
            f"{path} does not fit {type(encoder).__name__}: {error}"
        ) from error
    return encoder


def _encoder_weights(content: Any) -> dict[str, Tensor]:
    for wrapper in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict):
        return {}
    found = ((_KEY.search(str(name)), tensor) for name, tensor in content.items())
    tensors = [(m, tensor) for m, tensor in found if m and isinstance(tensor, Tensor)]
    prefixes = sorted({match.string[: match.start(1)] for match, _ in tensors})
    if len(prefixes) > 1:
        raise OfficialCheckpointError(
            f"the checkpoint holds {len(prefixes)} encoders, below {', '.join(prefixes)}; save one"
        )
    return {match[1]: tensor for match, tensor in tensors}


def _matching_encoder(weights: dict[str, Tensor], path: Path) -> ConvEncoder:
    try:
        hidden, out = len(weights["fc.0.weight"]), len(weights["fc.3.weight"])
    except KeyError as error:
        raise OfficialCheckpointError(
            f"{path} has no {error}: expected features.* and fc.* of AudioNTT2020 or AudioNTT2022"
        ) from error
    if "features.8.weight" in weights:  # a third block
        return AudioNTT2020(embed_dim=out)
    return AudioNTT2022(embed_dim=1024 + out, hidden_dim=hidden)
