import math
from pathlib import Path

import pytest

from models import machine


def write(files: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the control groups of this process, `box` in the root, hold these files."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content + "\n")
    monkeypatch.setattr(machine, "CGROUPS", folder)
    monkeypatch.setattr(machine, "_cgroups", lambda controller: ["box", "."])


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "250000 100000"}, 2),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "max 100000", "box/cpu.max": "300000 100000"}, 3),
        ({"cpu/box/cpu.cfs_quota_us": "400000", "cpu/box/cpu.cfs_period_us": "100000"}, 4),
        ({"cpu/box/cpu.cfs_quota_us": "-1", "cpu/box/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu.max": "nonsense"}, 8),
    ],
)
def test_cpus_are_those_of_affinity_and_quota(
    files: dict[str, str], cpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(files, tmp_path, monkeypatch)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert machine.available_cpus() == cpus


@pytest.mark.parametrize(
    ("files", "n_bytes"),
    [
        ({}, 8 << 30),
        ({"memory.max": "max"}, 8 << 30),
        ({"memory.max": f"{1 << 30}"}, 1 << 30),
        ({"memory.max": "max", "box/memory.max": f"{1 << 29}"}, 1 << 29),
        ({"memory/box/memory.limit_in_bytes": f"{1 << 29}"}, 1 << 29),
        ({"memory/memory.limit_in_bytes": "9223372036854771712"}, 8 << 30),
        ({"memory.max": "nonsense"}, 8 << 30),
    ],
)
def test_memory_is_that_of_the_machine_or_of_a_group_that_allows_less(
    files: dict[str, str], n_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(files, tmp_path, monkeypatch)
    monkeypatch.setattr(machine, "MEMINFO", tmp_path / "meminfo")
    if not files:
        assert machine.available_memory() == math.inf
    (tmp_path / "meminfo").write_text("MemTotal:        8388608 kB\nMemFree: 1 kB\n")
    assert machine.available_memory() == n_bytes
