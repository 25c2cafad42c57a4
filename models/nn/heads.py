"""Projector and predictor MLPs of BYOL (arXiv 2006.07733, sec.

3.3) in the form that BYOL-A trains.
"""

from torch import nn

from models.nn.norm import Norm, StandardizedLinear, of_vectors


def mlp(
    in_dim: int,
    hidden_dim: int,
    out_dim: int,
    norm: Norm = "batch",
    weight_standardization: bool = False,
) -> nn.Sequential:
    """Linear, norm, ReLU, Linear: (B, in_dim) -> (B, out_dim).

    The last layer keeps its bias, as the implementation that BYOL-A builds on does; the BYOL
    paper's has none. Standardised are the weights that the norm follows, those of the first layer.
    """
    linear = StandardizedLinear if weight_standardization else nn.Linear
    return nn.Sequential(
        linear(in_dim, hidden_dim),
        of_vectors(norm, hidden_dim),
        nn.ReLU(),
        nn.Linear(hidden_dim, out_dim),
    )
