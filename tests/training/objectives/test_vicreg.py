"""VICReg's three terms and Barlow Twins' matrix, against their papers' equations in numpy."""

import numpy as np
import pytest
import torch

from tests.training.methods import build


def pair(rows: int = 12, dim: int = 5) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(rows, dim, generator=generator)
    return [first, first + 0.3 * torch.randn(rows, dim, generator=generator)]


def test_vicreg_is_the_papers_sum_of_three_terms() -> None:
    loss, logs = build({"name": "vicreg"}).loss(*pair())
    a, b = (z.numpy().astype(np.float64) for z in pair())
    spread = shared = 0.0
    for z in (a, b):
        spread += np.maximum(0, 1 - np.sqrt(z.var(0, ddof=1) + 1e-4)).mean()
        covariance = np.cov(z.T)
        shared += (covariance**2).sum() - (np.diag(covariance) ** 2).sum()
    agreement, shared = ((a - b) ** 2).mean(), shared / 5
    assert loss.item() == pytest.approx(25 * agreement + 25 * spread + shared, rel=1e-4)
    assert logs["invariance"].item() == pytest.approx(agreement, rel=1e-4)


def test_vicreg_punishes_a_collapse_that_agreement_alone_would_reward() -> None:
    same = torch.ones(12, 5)
    loss, logs = build({"name": "vicreg"}).loss(same, same)
    assert logs["invariance"].item() == 0
    assert loss.item() == pytest.approx(25 * 2 * (1 - 1e-2), rel=1e-3)


def test_barlow_twins_is_the_distance_of_the_correlation_from_the_identity() -> None:
    loss, _ = build({"name": "barlow_twins", "redundancy": 0.1}).loss(*pair())
    a, b = (z.numpy().astype(np.float64) for z in pair())
    a, b = ((z - z.mean(0)) / z.std(0) for z in (a, b))
    c = a.T @ b / len(a)
    off = (c**2).sum() - (np.diag(c) ** 2).sum()
    assert loss.item() == pytest.approx(((1 - np.diag(c)) ** 2).sum() + 0.1 * off, rel=1e-3)


def test_views_that_are_one_and_independent_cost_nothing() -> None:
    signs = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    loss, _ = build({"name": "barlow_twins"}).loss(signs, signs)
    assert loss.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ["vicreg", "barlow_twins"])
def test_there_is_no_target_and_nothing_follows(name: str) -> None:
    objective = build({"name": name})
    assert not hasattr(objective, "target")
    before = [p.clone() for p in objective.parameters()]
    objective.before_step(0, 10)
    objective.after_step()
    assert objective.schedule(0, 10) == {}
    assert all(torch.equal(a, b) for a, b in zip(before, objective.parameters(), strict=True))
