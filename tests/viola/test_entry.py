"""The command as process 1 of a container."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from models.modelfile import DEFAULT_MODEL
from tests.service.conftest import until

SAMPLES = Path(__file__).parents[2] / "samples"

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


def test_a_hangup_before_anything_is_imported_does_not_end_a_service() -> None:
    program = "from viola.entry import main; import os, sys, viola.commands as c; "
    program += "c.build = lambda: lambda: (os.kill(os.getpid(), 1), print('goes on')); main()"
    for command, code, printed in (("serve", 0, b"goes on\n"), ("embed", -signal.SIGHUP, b"")):
        done = subprocess.run(
            [sys.executable, "-c", program, command],
            stdout=subprocess.PIPE,
            check=False,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )
        assert (done.returncode, done.stdout) == (code, printed)


def test_names_that_a_terminal_has_no_code_for_are_printed() -> None:
    program = "from viola.entry import main; import sys, viola.commands as c; "
    program += "c.build = lambda: lambda: print('\\xfc', '\\udcff'); main()"
    command = [sys.executable, "-c", program]
    for encoding, printed in (("ascii", rb"\xfc \udcff"), ("utf-8", rb"%b \udcff" % "ü".encode())):
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        assert subprocess.check_output(command, env=environment).strip() == printed


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_what_cannot_be_printed_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "viola", "key", "web"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "viola key: [Errno 28] No space left on device" in done.stderr


INTERRUPTED_IN_A_CALLBACK = """
import os, signal
import soundfile
import viola

told = []

class Interrupting:
    def __init__(self, file):
        self.file = file
    def __getattr__(self, name):
        if name == "readinto" and not told:
            told.append(name)
            os.kill(os.getpid(), NUMBER)
        return getattr(self.file, name)

open_file = soundfile.SoundFile._init_virtual_io
soundfile.SoundFile._init_virtual_io = lambda self, file: open_file(self, Interrupting(file))
viola.main()
"""


def heed_interruptions() -> None:
    """In a child: Ctrl-C ends it, also where these tests run in the background and ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_file_is_read_ends_the_command(tmp_path: Path, number: int) -> None:
    """It had been lost in the callback, and the file been said to be damaged."""
    out = tmp_path / "out.csv"
    program = INTERRUPTED_IN_A_CALLBACK.replace("NUMBER", str(int(number)))
    command = [sys.executable, "-c", program, "classify"]
    samples = map(str, sorted(SAMPLES.glob("*.opus")))
    done = subprocess.run(
        [*command, *samples, "-o", str(out)],
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=heed_interruptions,
    )
    assert done.returncode == 128 + number, done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_interruption_at_the_beginning_is_no_traceback() -> None:
    program = "import viola; viola.main()"
    for delay in (0.1, 0.3, 0.5):
        process = subprocess.Popen(
            [sys.executable, "-c", program, "embed", "-", "-o", "out.npz"],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=heed_interruptions,
        )
        with process:
            try:
                until(lambda p=process: catches(p, signal.SIGINT), 30)
                until(lambda p=process: not catches(p, signal.SIGINT), 30)
                time.sleep(delay)
                process.send_signal(signal.SIGINT)
                _, told = process.communicate(timeout=30)
                assert process.returncode in (-signal.SIGINT, 128 + signal.SIGINT)
                assert "Traceback" not in told
            finally:
                process.kill()
