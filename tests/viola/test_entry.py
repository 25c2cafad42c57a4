"""The command as process 1 of a container."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from models.modelfile import DEFAULT_MODEL
from tests.service.conftest import until

# Process 1 has no default actions; for others the same is to begin with signals ignored
AS_PROCESS_1 = """
import os
os.getpid = lambda: 1
import viola
viola.main()
"""


def catches(process: "subprocess.Popen[bytes]", number: int) -> bool:
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "SigCgt":
            return bool(int(value, 16) >> (number - 1) & 1)
    return False


def test_a_command_needs_no_standard_file_to_be_open() -> None:
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    command = [sys.executable, "-c", "import viola; viola.main()", "serve", "--check"]
    ended = subprocess.run([*closed, *command, "--models", str(DEFAULT_MODEL)], timeout=60)
    assert ended.returncode == 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_process_1_can_be_ended_from_its_beginning(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", AS_PROCESS_1, "embed", "-", "-o", str(tmp_path / "out.npz")],
        stdin=subprocess.PIPE,  # where nothing comes
        preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    )
    with process:
        try:
            until(lambda: process.poll() is not None or catches(process, signal.SIGTERM), 30)
            process.terminate()
            assert process.wait(30) == 128 + signal.SIGTERM
        finally:
            process.kill()
