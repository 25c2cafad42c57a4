"""All tests that need a GPU; a rehearsal finds them without running them."""

import re
import subprocess
import sys
from pathlib import Path

from gpu_stages.stage import Context, Row

ROOT = Path(__file__).parent.parent.parent


def check(context: Context) -> list[Row]:
    """One run of pytest, whose warnings are no errors: this torch is not the pinned one."""
    places = ["tests/training", "tests/models"]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", *places]
    command += ["-o", "filterwarnings=default", "-p", "no:cacheprovider"]
    if context.rehearse:
        command = [*command, "--collect-only"]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=context.seconds
        )
        output, code = done.stdout + done.stderr, done.returncode
    except subprocess.TimeoutExpired as cut:
        output, code = _text(cut.stdout), -1
    (context.out / "tests.txt").write_text(output)
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    summary = [
        line for line in output.splitlines() if re.search(r"\d+ (passed|failed|/|tests)", line)
    ]
    told = summary[-1].strip("= ") if summary else "no summary"
    rows = [Row("gpu tests", told if code >= 0 else f"out of time; {told}", code == 0)]
    return rows + [Row("failed", name, False) for name in failed]


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""
