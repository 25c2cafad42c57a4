"""Every method and variant, as settings over a recipe and as objectives of tiny networks."""

from typing import get_args

import torch
from pydantic import TypeAdapter
from torch import nn

from models.nn.encoder import AudioNTT2020
from training.distributed import World
from training.objectives import closed_form
from training.objectives.methods import Method
from training.objectives.objective import Objective

CLOSED_FORMS = get_args(closed_form.Settings.model_fields["predictor"].annotation)
EVERY = {
    "byol": {},
    "byol, linear": {"predictor": "linear"},
    "byol, multi-crop": {"local_views": 2, "local_share": 0.8},
    "vicreg": {"name": "vicreg"},
    "barlow twins": {"name": "barlow_twins"},
    "tribyol A": {"name": "tribyol"},
    "tribyol B": {"name": "tribyol", "version": "B"},
    **{name: {"name": "closed_form", "predictor": name} for name in CLOSED_FORMS},
    "ccsl": {"name": "self_labeling", "theta_positive": 0.7, "warmup_steps": 2},
    "cssl": {"name": "self_labeling", "kind": "cssl", "warmup_steps": 2},
}


def settings(options: dict[str, object]) -> list[str]:
    """Options of an objective as `--set` takes them."""
    return [f"objective.{key}={value}" for key, value in options.items()]


def build(options: dict[str, object], *, dim: int = 8, dropout: bool = False) -> Objective:
    """A method around a tiny encoder, always with the same weights; without dropout by default."""
    torch.manual_seed(0)
    chosen = TypeAdapter(Method).validate_python(
        {"hidden_dim": 32, "projection_dim": dim, **options}
    )
    objective = chosen.build(AudioNTT2020(16), World())
    for layer in objective.modules():
        if isinstance(layer, nn.Dropout) and not dropout:
            layer.p = 0.0
    return objective


def views(n: int, rows: int = 6, seed: int = 0) -> list[torch.Tensor]:
    """Noise over a spectrum that each row keeps in all its views: n tensors (rows, 64, 32)."""
    generator = torch.Generator().manual_seed(seed)
    spectra = 2 * torch.randn(rows, 64, 1, generator=generator)
    return [spectra + torch.randn(rows, 64, 32, generator=generator) for _ in range(n)]
