"""How a run computes: device, precision, compiled, captured, and why something is left out."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch

from training.device import choose_precision
from training.distributed import World
from training.recipe import Recipe

COMPILED, CAPTURED = "compiled", "captured"


@dataclass(frozen=True)
class Modes:
    """The modes that are in effect, which may be fewer than the recipe asks for."""

    device: torch.device
    precision: torch.dtype
    processes: int = 1
    compiled: bool = False
    """The networks are compiled by `torch.compile`."""

    captured: bool = False
    """The whole step is replayed as one CUDA graph."""

    why_not: dict[str, str] = field(default_factory=dict)
    """The reasons of the modes that are not in effect, by mode."""

    def without(self, mode: str, reason: str) -> "Modes":
        """These modes less one of them."""
        return replace(self, **{mode: False}, why_not={**self.why_not, mode: reason})  # type: ignore[arg-type]

    def words(self) -> str:
        """All of it in a few words."""
        words = [str(self.precision).removeprefix("torch."), f"on {self.device}"]
        words += ["compiled"] if self.compiled else []
        words += ["as a CUDA graph"] if self.captured else []
        words += [f"in {self.processes} processes"] if self.processes > 1 else []
        return ", ".join(words)

    def for_record(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            "device": str(self.device),
            "precision": str(self.precision).removeprefix("torch."),
            "processes": self.processes,
            COMPILED: self.compiled,
            CAPTURED: self.captured,
            "why_not": dict(self.why_not),
        }


def choose(recipe: Recipe, device: torch.device, world: World) -> Modes:
    """What a recipe asks for and this device can do."""
    modes = Modes(device, choose_precision(recipe.run, device), world.size, True, True)
    for mode, reason in (
        (COMPILED, _no_compilation(recipe, device)),
        (CAPTURED, _no_capture(recipe, modes)),
    ):
        if reason:
            modes = modes.without(mode, reason)
    return modes


def _no_compilation(recipe: Recipe, device: torch.device) -> str:
    wanted = recipe.run.compile
    if wanted == "off":
        return "run.compile is off"
    return "on a GPU alone by default" if wanted == "auto" and device.type != "cuda" else ""


def _no_capture(recipe: Recipe, modes: Modes) -> str:
    if recipe.run.capture == "off":
        return "run.capture is off"
    if modes.device.type != "cuda":
        return "a CUDA graph needs a GPU"
    if modes.processes > 1:
        return "one process a graph: several talk to one another in each step"
    if modes.precision == torch.float16:
        return "float16 asks after each step whether its gradient was finite"
    return ""
