"""What is due after a step, by steps and by seconds."""

import time
from dataclasses import astuple

import pytest
import torch

from training.agenda import Agenda, Due
from training.distributed import World
from training.recipe import load

CPU = torch.device("cpu")
TASK = "probe.tasks=['a.csv']"


def agenda(*settings: str, first: int = 0, total: int = 100) -> Agenda:
    return Agenda(load("tiny", list(settings)), first, total, World(), CPU)


def due(settings: list[str], steps: list[int]) -> dict[str, list[int]]:
    """The steps after which each thing is due."""
    asked = agenda(*settings)
    found = {step: asked.after(step, stopping=False) for step in steps}
    names = ("log", "views", "probe", "save")
    return {n: [step for step, due in found.items() if getattr(due, n)] for n in names}


def test_by_steps_each_has_its_multiples_and_the_last_step_logs_and_asks_the_probe() -> None:
    settings = ["run.log_every=4", "run.checkpoint_every=6", "run.views_every=9"]
    settings += ["probe.every=8", TASK]
    assert due(settings, [*range(1, 13), 100]) == {
        "log": [4, 8, 12, 100],
        "views": [4, 9],  # the first log has a picture
        "probe": [8, 100],
        "save": [6, 12],
    }


def test_without_tasks_no_probe_is_due() -> None:
    assert due(["probe.every=1"], [1, 2, 100])["probe"] == []


def test_by_seconds_logs_come_at_their_pace_and_the_rest_with_one_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    every = ["run.log_every_s=2", "run.checkpoint_every_s=4.9", "run.views_every_s=100"]
    asked = agenda(*every, "probe.every_s=6.9", TASK, total=1000)
    found = {}
    for step in range(1, 101):
        clock[0] += 0.1
        found[step] = asked.after(step, stopping=False)
    logs = [step for step, due in found.items() if due.log]
    assert logs == [10, 30, 50, 70, 90]  # a first one soon, then every 2 s
    assert [step for step, due in found.items() if due.save] == [50]
    assert [step for step, due in found.items() if due.probe] == [70]
    assert [step for step, due in found.items() if due.views] == [10]


def test_a_stop_ends_one_process_at_once() -> None:
    assert astuple(agenda().after(3, stopping=True)) == astuple(Due(stop=True))
    assert agenda().after(4, stopping=True).stop


def test_work_of_the_first_process_is_what_the_others_wait_for() -> None:
    assert not Due(log=True, stop=True).alone
    assert Due(save=True).alone
