import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from models.lock import locked
from models.nn.official import OfficialCheckpointError
from tests.training.methods import EVERY, settings
from tests.training.stores import write_task
from training import checkpoint, loop
from training import recipe as recipes
from training.checkpoint import CheckpointError
from training.data.corpus import Corpus
from training.distributed import World
from training.failures import failures_told
from training.folder import LOCK_NAME
from training.loop import train
from training.record import read_metrics
from training.run import TrainingError

pytestmark = pytest.mark.usefixtures("undrawn")

ROOT = Path(__file__).parent.parent.parent
CPU = torch.device("cpu")
SETTINGS = [
    "encoder.embed_dim=16",
    "encoder.n_channels=8",
    "objective.hidden_dim=16",
    "augment.mixup_bank=12",
]


def tiny(*settings: str) -> recipes.Recipe:
    return recipes.load("tiny", [*SETTINGS, "run.log_every=1", *settings])


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(folder) if "loss" in line]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(checkpoint.load(folder / checkpoint.LAST).objective)


def store_again(saved: checkpoint.Checkpoint, folder: Path) -> None:
    folder.mkdir()
    saver = checkpoint.Saver(folder)
    saver.save(saved)
    saver.close()


def same(one: Path, other: Path) -> bool:
    mine, theirs = weights(one), weights(other)
    return losses(one) == losses(other) and all(torch.equal(mine[n], theirs[n]) for n in mine)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_resumed_run_has_the_losses_and_weights_of_an_uninterrupted_one(
    corpus: Corpus, tmp_path: Path, quiet: Console, precision: str
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    chosen = f"run.precision={precision}"
    assert train(tiny("run.steps=6", chosen), corpus, whole, CPU, console=quiet)
    assert train(tiny("run.steps=3", chosen), corpus, parts, CPU, console=quiet)
    assert train(tiny("run.steps=6", chosen), corpus, parts, CPU, resume=True, console=quiet)
    assert len(losses(whole)) == 6
    assert same(whole, parts)


@pytest.mark.parametrize("method", [name for name in EVERY if name != "byol"])
def test_every_method_resumes_exactly(
    corpus: Corpus, tmp_path: Path, quiet: Console, method: str
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    chosen = [*settings(EVERY[method]), "run.precision=bfloat16", "run.views_every=100"]
    recipe = tiny("run.steps=5", "run.checkpoint_every=3", *chosen)
    assert train(recipe, corpus, whole, CPU, keep=9, console=quiet)
    shutil.copytree(whole, parts)
    (parts / "step-00000003.pt").replace(parts / checkpoint.LAST)
    assert train(recipe, corpus, parts, CPU, resume=True, console=quiet)
    assert len(losses(whole)) == 5
    assert same(whole, parts)


def test_schedules_go_on_where_they_were(corpus: Corpus, tmp_path: Path, quiet: Console) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    recipe = tiny(
        "run.steps=6",
        "run.checkpoint_every=2",
        "optimizer.name=lars",
        "optimizer.schedule=cosine",
        "optimizer.warmup_steps=2",
        "objective.ema_schedule=cosine",
    )
    assert train(recipe, corpus, whole, CPU, keep=9, console=quiet)
    shutil.copytree(whole, parts)
    (parts / "step-00000004.pt").replace(parts / checkpoint.LAST)
    assert train(recipe, corpus, parts, CPU, resume=True, console=quiet)
    assert same(whole, parts)
    rates = [line["lr"] for line in read_metrics(whole)]
    assert rates[:3] == pytest.approx([5e-5, 1e-4, 1e-4])
    assert rates[-1] < 2e-5
    decays = [line["ema_decay"] for line in read_metrics(whole)]
    assert decays == sorted(decays)


def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint(
    store: Path, corpus: Corpus, tmp_path: Path, quiet: Console
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    settings = [*SETTINGS, "run.log_every=1", "run.checkpoint_every=1"]
    arguments = [part for setting in settings for part in ("--set", setting)]
    command = [sys.executable, "-m", "viola", "train", "tiny", "--store", str(store)]
    command += ["--out", str(killed), "--device", "cpu", *arguments, "--set", "run.steps=100000"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # as in this process
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, env=environment) as process:
        while len(losses(killed)) < 4 and process.poll() is None:
            time.sleep(0.05)
        process.kill()
    reached = len(losses(killed))
    assert reached >= 4
    saved = checkpoint.load(killed / checkpoint.LAST).step
    assert 0 < saved <= reached
    longer = tiny("run.checkpoint_every=1", f"run.steps={reached + 2}")
    assert train(longer, corpus, killed, CPU, resume=True, console=quiet)
    assert train(longer, corpus, whole, CPU, console=quiet)
    assert same(whole, killed)


def test_another_seed_gives_other_losses(corpus: Corpus, tmp_path: Path, quiet: Console) -> None:
    for seed in (1, 2):
        recipe = tiny("run.steps=2", f"run.seed={seed}")
        train(recipe, corpus, tmp_path / f"{seed}", CPU, console=quiet)
    assert losses(tmp_path / "1") != losses(tmp_path / "2")


def test_training_lowers_the_loss(corpus: Corpus, tmp_path: Path, quiet: Console) -> None:
    recipe = tiny("run.steps=40", "optimizer.lr=3e-3")
    train(recipe, corpus, tmp_path / "run", CPU, console=quiet)
    values = losses(tmp_path / "run")
    assert np.mean(values[-5:]) < np.mean(values[:5]) - 0.2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_saves_and_reports(
    corpus: Corpus, tmp_path: Path, quiet: Console, number: signal.Signals
) -> None:
    before = signal.getsignal(number)

    def interrupt() -> None:
        while not losses(tmp_path):
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    finished = train(tiny("run.steps=100000"), corpus, tmp_path, CPU, console=quiet)
    thread.join()
    assert not finished
    saved = checkpoint.load(tmp_path / checkpoint.LAST)
    assert saved.step == len(losses(tmp_path)) < 100_000
    assert json.loads((tmp_path / "state.json").read_text())["state"] == "stopped"
    assert "stopped" in (tmp_path / "report.html").read_text()
    assert signal.getsignal(number) is before


def test_a_run_is_not_overwritten(corpus: Corpus, tmp_path: Path, quiet: Console) -> None:
    leftover = tmp_path / f"{checkpoint.LAST}.1.tmp"  # of a process that was killed
    leftover.touch()
    with pytest.raises(TrainingError, match="no checkpoint at .*: without --resume the run begins"):
        train(tiny("run.steps=1"), corpus, tmp_path, CPU, resume=True, console=quiet)
    train(tiny("run.steps=1"), corpus, tmp_path, CPU, console=quiet)
    assert not leftover.exists()
    with pytest.raises(TrainingError, match="holds a run already"):
        train(tiny("run.steps=1"), corpus, tmp_path, CPU, console=quiet)


def test_a_run_that_is_refused_leaves_nothing(
    corpus: Corpus, tmp_path: Path, quiet: Console
) -> None:
    recipe = tiny("run.steps=2", "optimizer.warmup_steps=9", "optimizer.decay_steps=0")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "new" / "compiled" / "triton").mkdir(parents=True)  # as torch does early
    for name in ("new", "full"):
        with pytest.raises(TrainingError, match="warmup_steps is 9 of 2 steps"):
            train(recipe, corpus, tmp_path / name, CPU, console=quiet)
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["full", "notes.txt"]


def test_a_folder_has_one_run_at_a_time(corpus: Corpus, tmp_path: Path, quiet: Console) -> None:
    train(tiny("run.steps=2"), corpus, tmp_path, CPU, console=quiet)
    before = {path: path.read_bytes() for path in tmp_path.glob("*.*")}
    with locked(tmp_path / LOCK_NAME, AssertionError()):  # as if it were another process
        for resume in (False, True):
            with pytest.raises(TrainingError, match=f"another process trains in {tmp_path}"):
                train(tiny("run.steps=3"), corpus, tmp_path, CPU, resume=resume, console=quiet)
    assert {path: path.read_bytes() for path in tmp_path.glob("*.*")} == before
    assert train(tiny("run.steps=3"), corpus, tmp_path, CPU, resume=True, console=quiet)


def test_the_last_the_best_and_the_latest_checkpoints_are_kept(
    corpus: Corpus, tmp_path: Path, quiet: Console
) -> None:
    recipe = tiny("run.steps=5", "run.checkpoint_every=1")
    train(recipe, corpus, tmp_path, CPU, keep=2, console=quiet)
    names = sorted(path.name for path in tmp_path.glob("*.pt"))
    assert names == ["checkpoint.pt", "step-00000004.pt", "step-00000005.pt"]
    assert checkpoint.load(tmp_path / "step-00000004.pt").step == 4
    assert checkpoint.load(tmp_path / checkpoint.LAST).step == 5
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("kind", ["knn", "linear"])
def test_a_probe_is_recorded_keeps_the_best_and_changes_no_step(
    corpus: Corpus, tmp_path: Path, quiet: Console, kind: str
) -> None:
    table = write_task(tmp_path)
    probe = [f"probe.tasks=['{table}']", "probe.every=2", f"probe.kind={kind}"]
    probed, plain = tmp_path / "probed", tmp_path / "plain"
    train(tiny("run.steps=4", *probe), corpus, probed, CPU, console=quiet)
    train(tiny("run.steps=4"), corpus, plain, CPU, console=quiet)
    assert same(probed, plain)
    scores = {
        line["step"]: line["probe/tones"] for line in read_metrics(probed) if "loss" not in line
    }
    assert list(scores) == [0, 2, 4]  # 0: the untrained encoder, what training has to beat
    best = checkpoint.load(probed / checkpoint.BEST)
    assert best.best == max(scores[2], scores[4]) == scores[best.step]
    assert not (plain / checkpoint.BEST).exists()
    assert "tones" in (probed / "report.html").read_text()


def test_a_probe_below_the_untrained_encoders_is_told(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([0.9, 0.5, 0.95])
    monkeypatch.setattr("training.loop.Probe.__call__", lambda self, model: {"t": next(answers)})
    shown = io.StringIO()
    probe = [f"probe.tasks=['{write_task(tmp_path)}']", "probe.every=2"]
    train(tiny("run.steps=4", *probe), corpus, tmp_path / "run", CPU, console=Console(file=shown))
    text = " ".join(shown.getvalue().split())
    assert text.count("below the untrained encoder's 90.0 %") == 1


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(
    corpus: Corpus, tmp_path: Path, quiet: Console
) -> None:
    train(tiny("run.steps=1"), corpus, tmp_path, CPU, console=quiet)
    before = (tmp_path / checkpoint.LAST).read_bytes()
    recipe = tiny("run.steps=40", "run.checkpoint_every=2", "optimizer.lr=0.0001")
    saved = checkpoint.load(tmp_path / checkpoint.LAST)
    saved.objective["predictor.3.bias"].fill_(float("nan"))
    store_again(saved, tmp_path / "other")
    with pytest.raises(TrainingError, match="loss of step 2 is not finite; the checkpoint before"):
        train(recipe, corpus, tmp_path / "other", CPU, resume=True, console=quiet)
    assert checkpoint.load(tmp_path / "other" / checkpoint.LAST).step == 1
    state = json.loads((tmp_path / "other" / "state.json").read_text())
    assert state["state"] == "failed"
    assert "step 2" in state["message"]
    assert (tmp_path / checkpoint.LAST).read_bytes() == before


def test_a_rate_that_is_too_high_is_what_the_message_speaks_of(
    corpus: Corpus, tmp_path: Path, quiet: Console
) -> None:
    recipe = tiny("optimizer.lr=1e30", "run.steps=20")
    with pytest.raises(TrainingError, match=r"not finite.*Lower optimizer\.lr.*by --init\."):
        train(recipe, corpus, tmp_path, CPU, console=quiet)


def test_a_collapse_raises_an_alarm_once(corpus: Corpus, tmp_path: Path, quiet: Console) -> None:
    train(tiny("run.steps=1"), corpus, tmp_path, CPU, console=quiet)
    saved = checkpoint.load(tmp_path / checkpoint.LAST)
    for name in ("weight", "bias"):
        saved.objective[f"online.projector.3.{name}"].fill_(1.0)
    store_again(saved, tmp_path / "other")
    train(tiny("run.steps=4"), corpus, tmp_path / "other", CPU, resume=True, console=quiet)
    alarms = [line for line in read_metrics(tmp_path / "other") if "alarm" in line]
    assert [alarm["step"] for alarm in alarms if "deviation" in alarm["alarm"]] == [2]
    assert "nearly the same vector" in (tmp_path / "other" / "report.html").read_text()


def test_a_half_written_checkpoint_is_refused(
    corpus: Corpus, tmp_path: Path, quiet: Console
) -> None:
    train(tiny("run.steps=1"), corpus, tmp_path, CPU, console=quiet)
    path = tmp_path / checkpoint.LAST
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        train(tiny("run.steps=2"), corpus, tmp_path, CPU, resume=True, console=quiet)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        checkpoint.load(tmp_path / "gone.pt")


def test_running_out_of_memory_and_a_lost_process_say_what_to_do(quiet: Console) -> None:
    with (
        pytest.raises(TrainingError, match=r"batch_size 8 .* lower run\.batch_size first"),
        failures_told(tiny()),
    ):
        torch.empty(1 << 50)
    with pytest.raises(TrainingError, match="out of memory"), failures_told(tiny()):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(TrainingError, match="another process .* --resume"), failures_told(tiny()):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer")
    with pytest.raises(RuntimeError, match="another error"), failures_told(tiny()):
        raise RuntimeError("another error")


def test_a_checkpoint_holds_the_encoder_and_where_it_comes_from(
    corpus: Corpus, tmp_path: Path, quiet: Console
) -> None:
    train(tiny("run.steps=2"), corpus, tmp_path, CPU, console=quiet)
    saved = checkpoint.load(tmp_path / checkpoint.LAST)
    network = checkpoint.encoder(saved)
    for name, tensor in network.encoder.state_dict().items():
        assert torch.equal(tensor, saved.objective[f"online.encoder.{name}"])
    assert (network.normalize.mean, network.normalize.std) == (saved.mean, saved.std)
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("source,licence\nclips,CC0-1.0\n")
    training = checkpoint.provenance(saved, "a test", [manifest])
    assert (training.steps, training.segments, training.hardware) == (2, 16, "a test")
    assert [(s.name, s.licences) for s in training.sources] == [("clips", ["CC0-1.0"])]
    manifest.write_text("file,owner\n")
    with pytest.raises(CheckpointError, match="expected source and licence"):
        checkpoint.provenance(saved, manifests=[manifest])
    assert training.hours == pytest.approx(corpus.hours, abs=1e-3)


def test_a_dry_run_tells_the_plan_and_keeps_nothing(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    console = Console(record=True, width=200, file=io.StringIO())
    console.print(loop.dry_run(tiny("run.steps=1000"), corpus, CPU, World()))
    told = console.export_text()
    for expected in ("10 clips", "1,000 of 8 segments", "trained (encoder ", "host", "of 20 steps"):
        assert expected in told
    assert not list(tmp_path.iterdir())


def test_a_dry_run_refuses_what_the_run_could_not_begin_with(
    corpus: Corpus, tmp_path: Path
) -> None:
    torch.save({"a": torch.zeros(2)}, other := tmp_path / "other.pth")
    with pytest.raises(OfficialCheckpointError):
        loop.dry_run(tiny("run.steps=2"), corpus, CPU, World(), init=other)


@pytest.mark.gpu
@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize("capture", ["on", "off"])
def test_a_run_on_a_gpu_resumes_exactly(
    corpus: Corpus, tmp_path: Path, quiet: Console, capture: str, method: str
) -> None:
    cuda = torch.device("cuda")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    compiled = "on" if method == "byol" else "off"  # a minute each otherwise
    chosen = [f"run.capture={capture}", f"run.compile={compiled}", *settings(EVERY[method])]
    train(tiny("run.steps=6", *chosen), corpus, whole, cuda, console=quiet)
    train(tiny("run.steps=3", *chosen), corpus, parts, cuda, console=quiet)
    train(tiny("run.steps=6", *chosen), corpus, parts, cuda, resume=True, console=quiet)
    assert same(whole, parts)


@pytest.mark.gpu
@pytest.mark.parametrize("method", EVERY)
def test_a_captured_step_computes_what_an_eager_one_does(
    corpus: Corpus, tmp_path: Path, quiet: Console, method: str
) -> None:
    cuda = torch.device("cuda")
    exact = ["run.precision=float32", "run.compile=off", *settings(EVERY[method])]
    for capture in ("on", "off"):
        recipe = tiny("run.steps=5", f"run.capture={capture}", *exact)
        train(recipe, corpus, tmp_path / capture, cuda, console=quiet)
    assert losses(tmp_path / "on") == pytest.approx(losses(tmp_path / "off"), rel=1e-4)
