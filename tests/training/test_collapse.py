import math

import pytest
import torch

from training import collapse


def test_the_spread_tells_a_sphere_from_a_collapse() -> None:
    torch.manual_seed(0)
    assert collapse.projection_std(torch.randn(4096, 64)).item() == pytest.approx(1, abs=0.05)
    assert collapse.projection_std(torch.ones(64, 64)).item() == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("rank", [1, 2, 5, 16])
def test_the_effective_rank_counts_equal_directions(rank: int) -> None:
    torch.manual_seed(0)
    x = torch.zeros(20_000, 32)
    x[:, :rank] = torch.randn(20_000, rank)
    assert collapse.effective_rank(x) == pytest.approx(rank, rel=0.02)


def test_weak_directions_count_for_less() -> None:
    x = torch.randn(2000, 32)
    x[:, 8:] *= 0.1
    assert 7 < collapse.effective_rank(x) < 15


def test_a_healthy_batch_raises_no_alarm_and_each_collapse_has_its_own() -> None:
    torch.manual_seed(0)
    healthy, other = torch.randn(256, 64), torch.randn(256, 64)
    assert collapse.alarms(collapse.measure(healthy, other, healthy)) == []
    point = torch.ones(256, 64) + 0.01 * torch.randn(256, 64)
    assert "nearly the same vector" in collapse.alarms(collapse.measure(point, other, healthy))[0]
    line = torch.randn(256, 1) * torch.randn(64)
    assert "rank" in collapse.alarms(collapse.measure(line, other, healthy))[0]
    assert "cosine" in collapse.alarms(collapse.measure(healthy, healthy, healthy))[0]


def test_the_cosine_is_between_predictions_and_targets() -> None:
    a = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    b = torch.tensor([[1.0, 1.0], [0.0, 3.0]])
    measured = collapse.measure(torch.randn(2, 2), a, b)
    assert measured["prediction_cosine"] == pytest.approx((math.sqrt(0.5) + 1) / 2)


def test_few_rows_have_no_rank_to_speak_of() -> None:
    values = {"projection_std": 0.8, "effective_rank": 1.0, "prediction_cosine": 0.2}
    assert collapse.alarms(values, 64) == collapse.alarms(values) != []
    assert collapse.alarms(values, 2) == []
