"""What is due after a step: a log, a picture, a probe, a checkpoint, the end.

Intervals are in steps or, where the setting in seconds is given, in seconds. Whether seconds have
passed is looked up when a log is due, and the first process's clock decides for all processes, so
that each knows what the others do.
"""

import time
from dataclasses import dataclass

import torch

from training.distributed import World
from training.recipe import Recipe

FIRST_LOG = 10  # steps, where logs are counted in seconds
FASTER = 4  # times as many steps to the next log, at most


@dataclass(frozen=True)
class Due:
    """What is to be done after a step."""

    log: bool = False
    views: bool = False
    probe: bool = False
    save: bool = False
    stop: bool = False

    @property
    def alone(self) -> bool:
        """Whether the first process has work that the others wait for."""
        return self.views or self.probe or self.save


class Agenda:
    """Tells after each step what is due, the same in all processes.

    Args:
        recipe: with the intervals.
        step: at which the run begins or goes on.
        total_steps: of the run.
        world: the processes.
        device: of the tensors by which they agree.
    """

    def __init__(
        self, recipe: Recipe, step: int, total_steps: int, world: World, device: torch.device
    ) -> None:
        self.total_steps, self.world, self.device = total_steps, world, device
        run, probe = recipe.run, recipe.probe
        self._logs = run.log_every, run.log_every_s
        self._intervals = {
            "views": (run.views_every, run.views_every_s),
            "save": (run.checkpoint_every, run.checkpoint_every_s),
        }
        if probe.tasks:
            self._intervals["probe"] = probe.every, probe.every_s
        self._first = step
        self._last_log = (step, time.monotonic())
        self._next_log = step + FIRST_LOG
        self._done = dict.fromkeys(self._intervals, time.monotonic())

    def after(self, step: int, stopping: bool) -> Due:
        """What is due after so many steps; `stopping`: this process was asked to end."""
        last, (every, seconds) = step == self.total_steps, self._logs
        log = last or (step % every == 0 if seconds is None else step >= self._next_log)
        due = {
            name: seconds is None and step % every == 0
            for name, (every, seconds) in self._intervals.items()
        }
        due["views"] |= log and self._is_first_log(step)
        due["probe"] = "probe" in due and (due["probe"] or last)
        if not log:
            return Due(**due, stop=stopping and self.world.size == 1)
        agreed = self._agree(step, stopping)
        return Due(
            **{name: flag or agreed.get(name, False) for name, flag in due.items()},
            log=True,
            stop=agreed["stop"],
        )

    def _is_first_log(self, step: int) -> bool:
        """Whether no log came before this one in the whole run."""
        every, seconds = self._logs
        return step <= every if seconds is None else self._first == 0 == self._last_log[0]

    def _agree(self, step: int, stopping: bool) -> dict[str, bool]:
        """What is due by the clock of the first process, in all of them; plans the next log."""
        if self.device.type == "cuda":  # steps that were only asked for are not done
            torch.cuda.synchronize(self.device)
        now, (logged, at) = time.monotonic(), self._last_log
        mine, steps = self.world.is_main, max(1, step - logged)
        late = [
            float(mine and seconds is not None and now - self._done[name] >= seconds)
            for name, (_, seconds) in self._intervals.items()
        ]
        pace = (now - at) / steps if mine else 0.0
        stop, *told, pace = self.world.most([float(stopping), *late, pace], self.device)
        if seconds := self._logs[1]:
            self._next_log = step + min(max(1, round(seconds / max(pace, 1e-6))), FASTER * steps)
        self._last_log = (step, now)
        found = {name: bool(flag) for name, flag in zip(self._intervals, told, strict=True)}
        self._done |= {name: now for name, flag in found.items() if flag}
        return {"stop": bool(stop), **found}

    def paused(self, seconds: float) -> None:
        """Time that was no training does not count towards the next log."""
        step, at = self._last_log
        self._last_log = (step, at + seconds)
