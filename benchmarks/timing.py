"""How the benchmarks measure: rounds of all candidates in turn, medians with their spread."""

import time
from collections.abc import Callable, Mapping
from statistics import median, quantiles


def interleaved(
    candidates: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, list[float]]:
    """Seconds of each call; every round calls each candidate once, so that drift hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for call in candidates.values():
        call()  # warm-up
    for _ in range(rounds):
        for name, call in candidates.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return times


def spread(values: list[float], scale: float = 1.0, digits: int = 2) -> str:
    """Median and interquartile range."""
    low, _, high = quantiles([value * scale for value in values], n=4)
    return f"{median(values) * scale:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
