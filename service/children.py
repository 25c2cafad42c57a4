"""What child processes get of this one: nothing that is secret, and the way to the code."""

import os
import sys

INHERITED = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "LANG", "LC_ALL", "SYSTEMROOT")


def child_environment() -> dict[str, str]:
    """The child's environment, without the service's settings, which hold keys."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    single |= {"MALLOC_MMAP_THRESHOLD_": str(1 << 18), "MALLOC_TRIM_THRESHOLD_": str(1 << 20)}
    return inherited | single | {"PYTHONPATH": os.pathsep.join(p or "." for p in sys.path)}
