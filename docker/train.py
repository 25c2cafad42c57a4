"""What the training image runs: a folder of sound in, a model file out.

    train.py [RECIPE] [OPTION ...]

Reads /sounds and keeps everything in /work: `store`, `run`, and at last `model.onnx`. Run again, it
goes on where it was, however it ended. OPTIONs are those of `viola train`. Without `--device` it
needs a GPU, and takes all that it sees. Without RECIPE `viola train` chooses that of the hardware.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

SOUNDS = Path("/sounds")
WORK = Path("/work")
CHECKPOINT = "checkpoint.pt"


class Stopped(Exception):
    """A step ended otherwise than with 0."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def main(arguments: list[str], sounds: Path = SOUNDS, work: Path = WORK) -> None:
    """Prepare, train, export; exits with the code of the step that failed or was stopped."""
    _check(sounds, work)
    try:
        run_steps(arguments, sounds, work)
    except Stopped as stopped:
        sys.exit(stopped.code if stopped.code > 0 else 128 - stopped.code)


def run_steps(arguments: list[str], sounds: Path, work: Path) -> None:
    """Each step does what is left to do.

    Raises:
        Stopped: a step ended otherwise than with 0.
    """
    named = 1 if arguments and not arguments[0].startswith("-") else 0
    recipe, options = arguments[:named], arguments[named:]
    store, run, model = work / "store", work / "run", work / "model.onnx"
    _step([*viola(), "prepare", sounds, store])
    resume = ["--resume"] if (run / CHECKPOINT).exists() else []
    device = [] if _names_device(options) else ["--device", "cuda"]
    start = viola(1 if _names_device(options) else _n_gpus())
    _step([*start, "train", *recipe, "--store", store, "--out", run, *device, *resume, *options])
    _step([*viola(), "export", run / CHECKPOINT, "-o", model, "--force"])


def viola(n_processes: int = 1) -> list[str]:
    """The command, in as many processes as there are GPUs to share a batch."""
    if n_processes > 1:
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n_processes}"]
        return [sys.executable, *launch, "-m", "viola"]
    return [sys.executable, "-m", "viola"]


def _check(sounds: Path, work: Path) -> None:
    """Say what is missing in words of `docker run`, before anything takes time."""
    if not sounds.is_dir():
        sys.exit(f"no {sounds}: mount the folder of sounds, -v FOLDER:{sounds}:ro")
    if not work.is_dir():
        sys.exit(f"no {work}: mount a folder for the results, -v FOLDER:{work}")
    if not os.access(work, os.W_OK):
        sys.exit(
            f"user {os.getuid()}:{os.getgid()} may not write to {work}: run it as who owns the "
            'folder, --user "$(id -u):$(id -g)"'
        )


def _names_device(options: list[str]) -> bool:
    return any(option.split("=")[0] == "--device" for option in options)


def _n_gpus() -> int:
    """How many GPUs there are; where there is none, `viola train` says so."""
    import torch

    return max(1, torch.cuda.device_count())


def _step(command: list[str | Path]) -> None:
    """Run one command; SIGTERM and Ctrl-C are passed on, and it saves what it has."""
    process = subprocess.Popen(command)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda given, _: process.send_signal(given))
    if code := process.wait():
        raise Stopped(code)


if __name__ == "__main__":
    main(sys.argv[1:])
