"""The service as a process of its own."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

import viola
from models.modelfile import PRETRAINED
from tests.heads import write_head

SERVE = "import service.commands.serving, typer; typer.run(service.commands.serving.serve)"


def modules_after(imports: str) -> set[str]:
    """What a new process has loaded after these imports."""
    code = f"import sys, {imports}; print(*sys.modules)"
    return set(subprocess.check_output([sys.executable, "-c", code], text=True).split())


def test_importing_the_service_loads_nothing_of_training() -> None:
    loaded = modules_after("service.app, service.server")
    assert {"service.app", "onnxruntime", "fastapi"} <= loaded
    assert not loaded & {"torch", "torchaudio", "librosa", "onnx", "sklearn", "models.nn"}


def test_importing_the_command_loads_no_web_server() -> None:
    loaded = modules_after("service.commands.serving, service.commands.files_cli")
    assert "service.commands.serving" in loaded
    assert not loaded & {"fastapi", "starlette", "uvicorn", "structlog", "torch"}


def test_settings_that_cannot_be_used_end_the_command_with_the_reason() -> None:
    app = viola.build()
    ended = CliRunner().invoke(app, ["serve"], env={"VIOLA_MAX_FILES": "none"})
    assert ended.exit_code == 2
    assert "VIOLA_MAX_FILES='none' is not accepted" in ended.stderr


def test_a_place_of_collections_that_cannot_be_used_ends_the_command_in_one_line(
    model_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for data, words in (("file", "is a file; name a folder"), ("file/below", "Not a directory")):
        settings = {"VIOLA_DATA": str(tmp_path / data), "VIOLA_MODELS": str(model_file)}
        ended = CliRunner().invoke(viola.build(), ["serve"], env=settings)
        assert ended.exit_code == 2
        assert ended.stderr.startswith("viola serve: VIOLA_DATA: ")
        assert words in ended.stderr
        assert "Traceback" not in ended.stderr


def asked_once(
    models: Path, port: int, **settings: str
) -> tuple[httpx.Response, list[dict[str, object]]]:
    """The command, asked whether it is ready and told to go: the answer, and the lines it wrote."""
    options = ["--models", str(models), "--port", str(port), "--log-level", "info"]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, *options],
        env=os.environ | {"VIOLA_THREADS": "1", "VIOLA_DRAIN_DELAY_S": "0"} | settings,
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
    assert process.returncode == 0
    return answer, [json.loads(line) for line in errors.splitlines()]


def test_the_command_serves_logs_json_and_ends_cleanly(
    model_file: Path, tmp_path: Path, port: int
) -> None:
    told_first = {"VIOLA_DATA": str(tmp_path), "VIOLA_MAX_CONNECTIONS": str(10**9)}
    answer, lines = asked_once(model_file, port, **told_first)
    assert answer.status_code == 200
    events = {line["event"]: line for line in lines}
    assert events["starting"]["docs"] == f"http://127.0.0.1:{port}/docs"
    assert events["model ready"]["model"] == "tiny"
    command = events["ready"]["try_it"]
    assert str(command).endswith(f"http://127.0.0.1:{port}/v1/audio/embeddings")
    started = [line["event"] for line in lines if line["event"] != "request"]
    assert started.index("ready") > started.index("model ready")
    assert events["request"]["request_id"] == answer.headers["X-Request-ID"]
    assert all(line["level"] and line["timestamp"] for line in lines)
    brought, few, *_ = started
    assert brought.startswith("tables of the collections brought up to date, from step none")
    assert few == "too few files may be open"


def test_a_start_that_cannot_answer_says_where_the_reasons_are(tmp_path: Path, port: int) -> None:
    (tmp_path / "broken.onnx").write_text("not a model")
    answer, lines = asked_once(tmp_path, port)
    assert answer.status_code == 503
    last = {line["event"]: line for line in lines}["listening, not ready"]
    assert last["why"] == f"http://127.0.0.1:{port}/readyz"
    assert "try_it" not in last


def invoked(*arguments: object, **env: object) -> Result:
    """`viola serve` to its end, in this process."""
    settings = {name: str(value) for name, value in env.items()}
    return CliRunner().invoke(viola.build(), ["serve", *map(str, arguments)], env=settings)


def serve(*arguments: object, code: str = SERVE) -> "subprocess.CompletedProcess[str]":
    """The command to its end, in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


NO_ROOM = """
import threading

def no_room(self):
    raise RuntimeError("can't start new thread")

threading.Thread.start = no_room
"""


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_start_without_room_for_its_threads_says_what_is_missing(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("VIOLA_DATA", str(tmp_path / "data"))
    code = NO_ROOM + SERVE.replace("serving.serve", f"serving.{command}")
    ended = serve("--models", model_file, code=code)
    assert ended.returncode == 3
    last = json.loads(ended.stderr.splitlines()[-1])
    assert last["event"] == "not started"
    assert "no more processes or threads" in last["reason"]
    assert "Traceback" not in ended.stderr


def test_a_queue_that_cannot_be_opened_ends_the_start_with_the_reason(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "queue").write_text("no folder")
    monkeypatch.setenv("VIOLA_DATA", str(tmp_path))
    ended = serve("--models", model_file)
    assert ended.returncode == 3
    last = json.loads(ended.stderr.splitlines()[-1])
    assert last["event"] == "not started"
    assert last["reason"].startswith("The queue of jobs cannot be opened: ")
    assert f"If {tmp_path / 'queue'} is damaged, remove it" in last["reason"]
    assert "Traceback" not in ended.stderr


def test_a_model_whose_name_is_no_text_is_refused_in_words(
    model_file: Path, tmp_path: Path, port: int
) -> None:
    for name in (b"good.onnx", b"m\xff.onnx"):
        shutil.copy(model_file, tmp_path / os.fsdecode(name))
    answer, lines = asked_once(tmp_path, port)  # each line is JSON
    assert answer.status_code == 200
    assert "m\ufffd.onnx" in [one.get("file") for one in answer.json()["models"]]
    (refused,) = [line for line in lines if line["event"] == "model refused"]
    assert str(refused["reason"]).endswith("is not UTF-8, as it has to be: rename it")
    assert "model ready" in [line["event"] for line in lines]


def test_a_folder_of_jobs_whose_name_is_no_text_is_refused_in_words(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIOLA_DATA", str(tmp_path / os.fsdecode(b"d\xff")))
    ended = serve("--models", model_file)
    assert ended.returncode == 3
    last = json.loads(ended.stderr.splitlines()[-1])
    assert last["reason"].endswith("is not UTF-8: choose another.")
    assert "Traceback" not in ended.stderr


def test_a_busy_port_is_one_clear_line_before_anything_is_loaded_or_changed(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIOLA_DATA", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = serve("--models", model_file, "--port", port)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"viola serve: port {port} of 127.0.0.1 is taken by another process")
    assert "--port" in line
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_models_is_refused_with_where_they_are(
    model_file: Path, tmp_path: Path
) -> None:
    below = tmp_path / "pretrained"
    below.mkdir()
    shutil.copy(model_file, below)
    for path, hint in ((tmp_path, f"there are some in {below}"), (tmp_path / "gone", "no such")):
        ended = invoked("--models", path)
        assert ended.exit_code == 2
        assert hint in ended.stderr


def test_a_classifier_alone_is_served_with_the_encoder_that_ships(tmp_path: Path) -> None:
    shutil.copy(PRETRAINED / "sounds-10.onnx", tmp_path / "mine.onnx")
    ended = invoked("--models", tmp_path / "mine.onnx", "--check")
    assert ended.exit_code == 0, ended.stderr
    assert re.search(r"model +default, .*, the default", ended.stdout)
    assert re.search(r"classifier +mine, ", ended.stdout)  # it is called as its file is


def test_a_classifier_of_an_encoder_that_is_not_there_names_file_and_remedy(
    tmp_path: Path,
) -> None:
    write_head(tmp_path / "mine.onnx", space_id="elsewhere")
    ended = invoked("--models", tmp_path / "mine.onnx", "--check")
    assert ended.exit_code == 1
    assert "refused     mine.onnx: it was trained on vectors of" in ended.stdout
    assert f"no encoder is served from {tmp_path / 'mine.onnx'}: name" in ended.stdout


@pytest.mark.parametrize("command", [("serve",), ("serve", "--check"), ("worker",)])
def test_too_few_open_files_are_refused_at_the_start(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    limited = ["sh", "-c", 'ulimit -n 40; exec "$@"', "sh", sys.executable, "-m", "viola", *command]
    environment = os.environ | {"VIOLA_DATA": str(tmp_path), "VIOLA_DECODE_WORKERS": "3"}
    ended = subprocess.run(limited, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    said = f"viola {command[0]}: 40 files may be open, and these settings need 97 for one "
    assert ended.stderr.startswith(said)
    assert "raise `ulimit -n`" in ended.stderr


def test_a_check_says_whether_redis_counts(
    model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("redis", reason="needs the redis extra")
    monkeypatch.setenv("VIOLA_REDIS_URL", "redis://127.0.0.1:1/0")
    ended = serve("--check", "--models", model_file)
    assert ended.returncode == 0  # a start does not wait for it
    assert re.search(r"^redis +is down now", ended.stdout, re.MULTILINE)
    assert "redis is down" in ended.stderr
