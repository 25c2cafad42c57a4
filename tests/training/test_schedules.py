import pytest

from training.recipe import Optimizer
from training.schedules import ema_decay, learning_rate


def test_a_constant_rate_and_decay_stay() -> None:
    assert {learning_rate(Optimizer(lr=0.1), step, 10) for step in range(10)} == {0.1}
    assert {ema_decay(0.9, "constant", step, 10) for step in range(10)} == {0.9}


def test_the_rate_warms_up_linearly_then_falls_to_zero_along_a_cosine() -> None:
    settings = Optimizer(lr=1.0, schedule="cosine", warmup_steps=4)
    rates = [learning_rate(settings, step, 104) for step in range(105)]
    assert rates[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert rates[54] == pytest.approx(0.5)
    assert rates[104] == pytest.approx(0, abs=1e-12)
    assert all(a >= b for a, b in zip(rates[4:], rates[5:], strict=False))


def test_the_cosine_decay_goes_from_its_base_to_one() -> None:
    assert ema_decay(0.99, "cosine", 0, 100) == pytest.approx(0.99)
    assert ema_decay(0.99, "cosine", 50, 100) == pytest.approx(0.995)
    assert ema_decay(0.99, "cosine", 100, 100) == ema_decay(0.99, "cosine", 200, 100) == 1


def test_a_stable_rate_falls_over_its_last_steps_alone() -> None:
    settings = Optimizer(lr=1.0, schedule="stable-decay", warmup_steps=4, decay_steps=100)
    rates = [learning_rate(settings, step, 1000) for step in range(1001)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert set(rates[4:901]) == {1.0}
    assert rates[925] == pytest.approx(0.5)  # 1 - sqrt(1 / 4)
    assert rates[1000] == 0
    longer = [learning_rate(settings, step, 2000) for step in range(901)]
    assert longer == rates[:901]
