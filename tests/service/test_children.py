"""How child processes start, and what a start that fails leaves behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.children import spawn

REFUSED = """
import errno, os, resource, subprocess
import numpy as np
from service.children import spawn

square = np.ones((1024, 1024), np.float32)
square @ square  # by threads of OpenBLAS
if os.geteuid() == 0:
    os.setuid(65534)  # root has no such limit
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
try:
    spawn("service.audio.fork_server", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
except OSError as error:
    print(errno.errorcode[error.errno])
print(int((square @ square).sum()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_a_child_for_which_there_is_no_room_takes_no_threads_of_this_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", REFUSED],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == ["EAGAIN", str(1024**3)], done.stderr
    assert done.returncode == 0


def test_a_child_starts_where_the_working_directory_was_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend("")  # as `python -c` has it
    monkeypatch.syspath_prepend("relative")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with spawn("service.untrusted", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as child:
        _, said = child.communicate(timeout=60)
    assert (child.returncode, said) == (0, b"")
