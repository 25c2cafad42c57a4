"""The training image's one command, on a CPU and a store of seconds."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from docker import train
from models.runtime import Encoder

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    folder = tmp_path / "sounds"
    folder.mkdir()
    noise = np.random.default_rng(0).normal(0, 0.1, (40, 16_000)).astype(np.float32)
    for n, samples in enumerate(noise):
        sf.write(folder / f"{n}.wav", samples, 16_000)
    return folder


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def started(sounds: Path, work: Path, *options: str) -> "subprocess.Popen[str]":
    """As the image's entry point starts it, but for where the folders are mounted."""
    program = (
        "import sys; from pathlib import Path; from docker import train\n"
        "train.main(sys.argv[3:], Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", program, sounds, work, "tiny", "--device", "cpu", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.mark.parametrize("missing", ["sounds", "work"])
def test_a_folder_that_is_not_mounted_is_named(
    missing: str, sounds: Path, work: Path, tmp_path: Path
) -> None:
    folders = {"sounds": sounds, "work": work, missing: tmp_path / "nowhere"}
    with pytest.raises(SystemExit, match="nowhere: mount"):
        train.main(["tiny"], folders["sounds"], folders["work"])


def test_a_folder_that_is_somebody_elses_is_named_with_the_remedy(
    sounds: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(SystemExit, match="--user"):
        train.main(["tiny"], sounds, work)


@pytest.mark.slow
def test_one_command_trains_and_exports_and_a_second_has_nothing_left_to_do(
    sounds: Path, work: Path
) -> None:
    with started(sounds, work) as process:
        assert process.wait(timeout=300) == 0
    model = work / "model.onnx"
    assert Encoder.open(model).embed(sounds / "0.wav").shape == (32,)
    with started(sounds, work) as process:
        said, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    assert "0 clips" in said
    assert "resumed at step" in said


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_it_goes_on_where_it_was_told_to_stop_or_was_killed(
    number: signal.Signals, code: int, sounds: Path, work: Path
) -> None:
    options = ["--set", "run.steps=400", "--set", "run.checkpoint_every=20"]
    with started(sounds, work, *options) as process:
        checkpoint = work / "run" / "checkpoint.pt"
        deadline = time.monotonic() + 200
        while not checkpoint.exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        if number == signal.SIGKILL:  # a container is killed with all that is in it
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        process.communicate(timeout=120)
    assert process.returncode == code
    assert not (work / "model.onnx").exists()
    with started(sounds, work, *options) as process:
        said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "resumed at step" in said
    assert (work / "model.onnx").exists()
