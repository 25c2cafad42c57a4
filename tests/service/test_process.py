"""The service as a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import typer
from typer.testing import CliRunner

from service.commands import cli

SERVE = "import service.commands.cli, typer; typer.run(service.commands.cli.serve)"


def modules_after(imports: str) -> set[str]:
    """What a new process has loaded after these imports."""
    code = f"import sys, {imports}; print(*sys.modules)"
    return set(subprocess.check_output([sys.executable, "-c", code], text=True).split())


def test_importing_the_service_loads_nothing_of_training() -> None:
    loaded = modules_after("service.app, service.server")
    assert {"service.app", "onnxruntime", "fastapi"} <= loaded
    assert not loaded & {"torch", "torchaudio", "librosa", "onnx", "sklearn", "models.nn"}


def test_importing_the_command_loads_no_web_server() -> None:
    loaded = modules_after("service.commands.cli")
    assert "service.commands.cli" in loaded
    assert not loaded & {"fastapi", "starlette", "uvicorn", "structlog", "torch"}


def test_settings_that_cannot_be_used_end_the_command_with_the_reason() -> None:
    app = typer.Typer()
    cli.register(app)
    ended = CliRunner().invoke(app, ["serve"], env={"VIOLA_MAX_FILES": "none"})
    assert ended.exit_code == 2
    assert "VIOLA_MAX_FILES='none' is not accepted" in ended.stderr


def test_the_command_serves_logs_json_and_ends_cleanly(model_file: Path, port: int) -> None:
    options = ["--models", str(model_file), "--port", str(port), "--log-level", "info"]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, *options],
        env=os.environ | {"VIOLA_THREADS": "1", "VIOLA_DRAIN_DELAY_S": "0"},
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                answer = httpx.get(f"http://127.0.0.1:{port}/readyz")
                break
            except httpx.ConnectError:
                time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert answer.status_code == 200
    assert process.returncode == 0
    lines = [json.loads(line) for line in errors.splitlines()]
    events = {line["event"]: line for line in lines}
    assert events["starting"]["docs"] == f"http://127.0.0.1:{port}/docs"
    assert events["model ready"]["model"] == "tiny"
    assert events["request"]["request_id"] == answer.headers["X-Request-ID"]
    assert all(line["level"] and line["timestamp"] for line in lines)
