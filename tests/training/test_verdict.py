from typing import Any

import pytest

from training.verdict import verdict

FINISHED = {"state": "finished", "step": 9, "total_steps": 9, "message": ""}


def record(*accuracies: float) -> list[dict[str, Any]]:
    return [{"step": step, "probe/esc10": value} for step, value in enumerate(accuracies)]


@pytest.mark.parametrize(
    ("accuracies", "words"),
    [
        ((0.5, 0.6, 0.4), "from 50.0 % untrained to 40.0 %: worse than it began. Train longer"),
        ((0.5, 0.505), "no better than it began"),
        ((0.5, 0.8, 0.7), "had been at 80.0 %: export best.pt"),
        ((0.5, 0.7), "still at its best"),
        ((), "was not measured"),
    ],
)
def test_the_probes_on_the_way_are_put_into_words(
    accuracies: tuple[float, ...], words: str
) -> None:
    (sentence,) = verdict(record(*accuracies), FINISHED)
    assert words in sentence


def test_alarms_and_the_ending_come_first() -> None:
    lines = [*record(0.1, 0.2), {"step": 2, "alarm": "a collapse"}]
    failed = {"state": "failed", "step": 3, "total_steps": 9, "message": "no disk"}
    ending, alarm, _ = verdict(lines, failed)
    assert ending.startswith("It failed: no disk")
    assert alarm.startswith("There was 1 alarm:")
    assert verdict([], {})[0] == "It has not ended yet."
    stopped = {"state": "stopped", "step": 3, "total_steps": 9}
    assert "step 3 of 9; --resume" in verdict([], stopped)[0]
