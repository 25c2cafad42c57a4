"""What this process may use of the machine: CPUs and memory, by its control groups as well."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


def available_cpus() -> int:
    """CPUs this process may use: affinity, or cgroup quota where that is less; at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, int(min([allowed or 1, *_cpu_quotas()])))


def available_memory() -> float:
    """Bytes this process may take: those of the machine, or of a control group that allows less.

    Infinite where neither is known.
    """
    return min([math.inf, *_memory_limits(), *_memory_of_the_machine()])


def _cpu_quotas() -> Iterator[float]:
    for group in _cgroups("cpu"):
        v2, v1 = CGROUPS / group / "cpu.max", CGROUPS / "cpu" / group / "cpu.cfs_quota_us"
        try:
            if v2.is_file():
                quota, period = v2.read_text().split()
            else:
                quota, period = v1.read_text(), v1.with_name("cpu.cfs_period_us").read_text()
            if quota != "max" and int(quota) > 0:
                yield int(quota) / int(period)
        except (OSError, ValueError):
            continue


def _memory_limits() -> Iterator[int]:
    for group in _cgroups("memory"):
        v2, v1 = CGROUPS / group / "memory.max", CGROUPS / "memory" / group
        try:
            yield int((v2 if v2.is_file() else v1 / "memory.limit_in_bytes").read_text())
        except (OSError, ValueError):  # it is not there, or says "max"
            continue


def _memory_of_the_machine() -> Iterator[int]:
    with suppress(OSError, ValueError, IndexError):
        for line in MEMINFO.read_text().splitlines():
            if line.startswith("MemTotal:"):
                yield 1024 * int(line.split()[1])


def _cgroups(controller: str) -> Iterator[str]:
    """Control groups of this process and their ancestors, relative to the root, which is "."."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "" or controller in controllers.split(","):
            path = Path(group.lstrip("/"))
            yield from (str(parent) for parent in (path, *path.parents))
