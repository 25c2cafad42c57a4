"""How fast a run is, and what holds it up: segments a second, MFU, waiting for data, memory.

MFU (model FLOPs utilisation, arXiv 2204.02311, appendix B) is the arithmetic of the networks'
forward and backward passes over what the device could do in that time: the front end, the
augmentations and the optimiser are no part of it.
"""

import copy
import re
import resource
import sys
import time
from collections.abc import Callable
from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.nn.frontend import N_MELS
from training.run import Run

COUNTED_ROWS = 4
# TFLOP/s of dense matrix products in bfloat16 or float16, from the makers' data sheets
PEAKS = {
    "B200": 2250.0,
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "A100": 312.0,
    "A10": 125.0,
    "L40S": 362.0,
    "L4": 121.0,
    "V100": 125.0,
    "T4": 65.0,
    "RTX 4090": 165.0,
    "RTX 3090": 71.0,
}


def flops_per_segment(run: Run) -> float:
    """Floating-point operations of a segment's way through the networks and back.

    Counted on a copy of the objective; where it speaks with other processes, all have to count.
    """
    objective = copy.deepcopy(run.objective)
    frames = [run.recipe.data.segment_frames] * run.objective.n_views
    frames += [run.views.local_frames] * run.objective.n_local
    views = [torch.randn(COUNTED_ROWS, N_MELS, n, device=run.device) for n in frames]
    with FlopCounterMode(display=False) as counter:
        objective(views).loss.backward()
    return float(counter.get_total_flops()) / COUNTED_ROWS


def peak_flops(device: torch.device, precision: torch.dtype) -> tuple[float, str]:
    """What a device can do a second, and how that is known: its data sheet, or a measured product.

    On a CPU, of a card that is not listed, and in float32, the largest that a product of two
    matrices reaches here.
    """
    on_tensor_cores = device.type == "cuda" and precision != torch.float32
    card = listed_card(torch.cuda.get_device_name(device)) if on_tensor_cores else None
    if card:
        return PEAKS[card] * 1e12, f"data sheet of {card}"
    return _measured(device, precision), "a product of two matrices, measured"


def listed_card(name: str) -> str | None:
    """The card in `PEAKS` that a device of this name is; None of a part of a card (MIG)."""
    if re.search(r"\bMIG\b", name):
        return None
    return next((card for card in PEAKS if re.search(rf"\b{card}\b", name)), None)


@cache
def _measured(device: torch.device, precision: torch.dtype) -> float:
    side = 8192 if device.type == "cuda" else 512
    a = torch.randn(side, side, device=device).to(precision)
    best = min(_seconds(lambda: a @ a, device) for _ in range(4))
    return 2 * side**3 / best


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def peak_memory_mib(device: torch.device) -> float:
    """The most memory so far: of the device, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / (1 << 20)
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / (1 << 20)


class Meter:
    """Reads the speed of a run since it was last asked.

    Args:
        run: that is measured.
        flops: of a segment; see `flops_per_segment`.
    """

    def __init__(self, run: Run, flops: float) -> None:
        self.run, self.flops = run, flops
        self.peak, self.peak_from = peak_flops(run.device, run.modes.precision)
        self._mark = (run.step, run.waited, time.monotonic())

    def paused(self, seconds: float) -> None:
        """Time that was no training."""
        step, waited, at = self._mark
        self._mark = (step, waited, at + seconds)

    def read(self) -> dict[str, float]:
        """Segments a second, MFU, share of the time waiting for segments, peak memory in MiB."""
        run, now = self.run, time.monotonic()
        step, waited, at = self._mark
        elapsed = max(now - at, 1e-9)
        rate = (run.step - step) * run.recipe.run.batch_size / elapsed
        self._mark = (run.step, run.waited, now)
        run.seconds += elapsed
        return {
            "segments_per_s": rate,
            "mfu": rate * self.flops / (self.peak * run.world.size),
            "data_wait": (run.waited - waited) / elapsed,
            "peak_memory_mib": peak_memory_mib(run.device),
            "seconds": run.seconds,
        }
