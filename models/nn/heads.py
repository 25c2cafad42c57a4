"""Projector and predictor MLPs of BYOL (arXiv 2006.07733, sec.

3.3) in the form that BYOL-A trains.
"""

from torch import nn


def mlp(in_dim: int, hidden_dim: int, out_dim: int) -> nn.Sequential:
    """Linear, batch norm, ReLU, Linear: (B, in_dim) -> (B, out_dim).

    The last layer keeps its bias, as the implementation that BYOL-A builds on does; the BYOL
    paper's has none.
    """
    return nn.Sequential(
        nn.Linear(in_dim, hidden_dim),
        nn.BatchNorm1d(hidden_dim),
        nn.ReLU(),
        nn.Linear(hidden_dim, out_dim),
    )
