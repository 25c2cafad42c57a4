"""A real run of the recipe for this hardware, as a person starts it, for the time that is left.

What comes back: the encoder as safetensors in half precision, its card, the run's record and page.
"""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from gpu_stages.stage import Context, Row
from models.modelfile import open_session
from training.record import read_metrics

LEFT_S = 45.0  # for stopping and exporting
BROUGHT = ("metrics.jsonl", "report.html", "environment.json")


def check(context: Context) -> list[Row]:
    """Train, stop, export, bring back."""
    beside = context.out.parent / f"{context.out.name}-run"  # too large to be brought back
    run, model = beside / "run", beside / "gpu.onnx"
    shutil.rmtree(run, ignore_errors=True)
    code = _train(context, run)
    lines = [line for line in read_metrics(run) if "segments_per_s" in line]
    rows = [Row("viola train", f"stopped with {code}", code in (0, 130))]
    if lines:
        last, rates = lines[-1], sorted(line["segments_per_s"] for line in lines)
        segments = last["step"] * json.loads((run / "recipe.json").read_text())["run"]["batch_size"]
        rows += [
            Row("segments", f"{segments:,} in {last['seconds']:.0f} s"),
            Row("median speed", f"{rates[len(rates) // 2]:,.0f} segments/s"),
            Row("MFU", f"{100 * last['mfu']:.0f} %"),
            Row("waiting for data", f"{100 * last['data_wait']:.0f} %"),
            Row("most memory", f"{last['peak_memory_mib']:,.0f} MiB"),
            Row("loss", f"{lines[0]['loss']:.3f} -> {last['loss']:.3f}"),
        ]
        rows += [Row(n, f"{100 * v:.1f} %") for n, v in _probes(run).items()]
    return rows + _bring_back(context, run, model)


def _train(context: Context, run: Path) -> int:
    command = [*_viola(), "train", "--store", str(context.store), "--out", str(run)]
    settings = [*context.small, "run.log_every_s=1", "run.segments=200", "data.log_mels=false"]
    if context.rehearse:
        command = [*command[:4], "gpu", *command[4:], "--device", "cpu"]
        settings = [s for s in settings if not s.startswith("run.batch_size")]
        settings += ["run.batch_per_gpu=8", "optimizer.warmup_steps=2", "optimizer.decay_steps=4"]
    else:
        settings = []
    tasks = [f"probe.tasks={[str(task) for task in context.tasks]}"] if context.tasks else []
    for setting in (*settings, *tasks):
        command += ["--set", setting]
    with (context.out / "train.txt").open("w") as log, _started(command, log) as process:
        until = time.monotonic() + max(10.0, context.seconds - LEFT_S)
        while process.poll() is None and time.monotonic() < until:
            time.sleep(0.2)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        return process.wait(timeout=max(30.0, LEFT_S))


def _started(command: list[str], log: object) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)  # type: ignore[call-overload, no-any-return]


def _bring_back(context: Context, run: Path, model: Path) -> list[Row]:
    """The encoder, small enough to be carried, and what tells of the run."""
    checkpoint = run / "checkpoint.pt"
    if not checkpoint.is_file():
        return [Row("checkpoint", "none", False)]
    weights = context.out / "encoder.safetensors"
    for arguments in (
        ["weights", str(checkpoint), "-o", str(weights), "--half", "--force"],
        ["export", str(checkpoint), "-o", str(model), "--readout", "byol-a", "--force"],
    ):
        subprocess.run([*_viola(), *arguments], check=True, capture_output=True)
    for name in BROUGHT:
        shutil.copy(run / name, context.out / name)
    card = open_session(model)[1]
    (context.out / "card.json").write_text(card.model_dump_json(indent=1) + "\n")
    return [Row("brought back", f"{weights.name}, {weights.stat().st_size / 1e6:.1f} MB", True)]


def _probes(run: Path) -> dict[str, float]:
    """The last score of each task."""
    return {
        name: value
        for line in read_metrics(run)
        for name, value in line.items()
        if name.startswith("probe/")
    }


def _viola() -> list[str]:
    return [sys.executable, "-m", "viola"]
