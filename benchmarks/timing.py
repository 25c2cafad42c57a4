"""How the benchmarks measure: rounds of all candidates in turn, medians with their spread."""

import time
from collections.abc import Callable, Mapping
from statistics import median, quantiles

PAUSE_S = 0.25


def interleaved(
    candidates: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each call; every round calls each candidate once, so that drift hits all alike.

    A pause before each candidate lets the threads of the last one fall asleep (those of ONNX
    Runtime and OpenMP wait for more work by spinning, and would take the cores from the next), and
    a call that does not count wakes up its own.
    """
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            time.sleep(PAUSE_S)
            call()
            start = clock()
            call()
            times[name].append(clock() - start)
    return times


def spread(values: list[float], scale: float = 1.0, digits: int = 2) -> str:
    """Median and interquartile range."""
    low, _, high = quantiles([value * scale for value in values], n=4)
    return f"{median(values) * scale:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
