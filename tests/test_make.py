"""What targets of the Makefile run."""

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.service.conftest import until

ROOT = Path(__file__).parent.parent
STUB = "#!/bin/sh\necho $$ > {told}.new\nmv {told}.new {told}\nexec sleep 60\n"


def test_sigterm_to_make_serve_ends_the_service(tmp_path: Path) -> None:
    """As whoever started make sends it; Ctrl-C in a terminal goes to all processes."""
    told = tmp_path / "pid"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").touch()
    (tmp_path / "bin/viola").write_text(STUB.format(told=told))
    (tmp_path / "bin/viola").chmod(0o755)
    (tmp_path / ".serve").touch()  # what it needs is set up
    words = ["make", "serve", f"VENV={tmp_path}"]
    make = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        until(told.exists, 10)
        service = Path("/proc", told.read_text().strip())
        make.terminate()
        make.wait(10)
        until(lambda: not service.exists(), 10)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(make.pid, signal.SIGKILL)
        make.wait()
