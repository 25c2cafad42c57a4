from types import SimpleNamespace
from typing import Any

import pytest

from training.evaluation.verdict import verdict


def results(**scores: float) -> list[Any]:
    """Subjects that score the same by every measure of one task."""
    return [
        SimpleNamespace(
            subject=SimpleNamespace(name=name.replace("_", " ")),
            measures={m: SimpleNamespace(mean=score) for m in ("linear", "knn", "shots-5")},
        )
        for name, score in scores.items()
    ]


def test_an_encoder_between_two_others_is_told_to_train_longer() -> None:
    assert verdict(results(mine=0.60, default=0.70, untrained_net=0.55)) == [
        "mine (60.0 % over all) is better than untrained net (+5.0), worse than default (-10.0): "
        "train longer.",
        "default (70.0 % over all) is better than mine (+10.0), untrained net (+15.0).".replace(
            "mine (+10.0), untrained", "mine (+10.0) and untrained"
        ),
    ]


@pytest.mark.parametrize("untrained", [0.505, 0.6])
def test_an_encoder_that_beats_no_baseline_has_not_learnt(untrained: float) -> None:
    (sentence,) = verdict(results(mine=0.50, untrained_net=untrained))
    assert "has not paid yet" in sentence


def test_one_encoder_alone_is_no_comparison() -> None:
    (sentence,) = verdict(results(mine=0.5))
    assert "--untrained, --log-mel" in sentence
