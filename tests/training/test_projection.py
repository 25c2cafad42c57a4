import torch

from models.card import Statistic
from training.projection import Form, project

N, P = 4000, 12
STATISTICS = (Statistic(kind="mean", layer="log-mel", first=0, n=P),)


def vectors() -> torch.Tensor:
    torch.manual_seed(0)
    mixing = torch.randn(P, P, dtype=torch.float64)
    return torch.randn(N, P, dtype=torch.float64) @ mixing + 3


def along(direction: torch.Tensor, scale: float) -> torch.Tensor:
    """Differences that lie in one direction, (n, P)."""
    return scale * torch.randn(500, 1, dtype=torch.float64) * direction


def moved(projection: object, direction: torch.Tensor) -> float:
    """How long a step in this direction is in the vector."""
    return float((direction.float() @ projection.matrix).norm())  # type: ignore[attr-defined]


def test_directions_that_disturbances_make_become_small() -> None:
    x = vectors()
    disturbed, other = (x.std(dim=0) * torch.eye(P, dtype=torch.float64)[i] for i in (3, 7))
    form = Form(embed_dim=P)
    plain = project(x, {}, STATISTICS, form)
    steady = project(x, {"noise": along(disturbed, 0.2)}, STATISTICS, form)
    ratio = moved(steady, disturbed) / moved(plain, disturbed)
    assert ratio < 0.6 * moved(steady, other) / moved(plain, other)
    assert "disturbances" in steady.form
    assert "disturbances" not in plain.form


def test_every_disturbance_counts_the_same_however_strong_it_is() -> None:
    x = vectors()
    one, other = (x.std(dim=0) * torch.eye(P, dtype=torch.float64)[i] for i in (3, 7))
    torch.manual_seed(1)
    weak = {"noise": along(one, 0.01), "codec": along(other, 0.1)}
    strong = {"noise": 100 * weak["noise"], "codec": weak["codec"]}
    made = [project(x, changes, STATISTICS, Form(embed_dim=P)) for changes in (weak, strong)]
    for direction in (one, other):
        torch.testing.assert_close(moved(made[0], direction), moved(made[1], direction))


def test_the_values_that_vary_most_come_first() -> None:
    x = vectors()
    changes = {"noise": along(torch.randn(P, dtype=torch.float64), 0.3)}
    projection = project(x, changes, STATISTICS, Form(embed_dim=P - 2))
    made = (x.float() - projection.center) @ projection.matrix
    assert made.shape[1] == P - 2
    variances = made.var(dim=0).tolist()
    assert variances == sorted(variances, reverse=True)
    covariance = torch.cov(made.T)
    torch.testing.assert_close(covariance, covariance.diag().diag(), atol=1e-4, rtol=0)


def test_without_a_power_disturbances_change_nothing() -> None:
    x = vectors()
    changes = {"noise": along(torch.randn(P, dtype=torch.float64), 0.3)}
    form = Form(embed_dim=P, within_power=0.0)
    left = project(x, changes, STATISTICS, form)
    torch.testing.assert_close(left.matrix, project(x, {}, STATISTICS, form).matrix)
    assert left.settings["within_power"] == 0
