import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from rich.console import Console

from tests.signals import noise, tone
from training import checkpoint, loop
from training import recipe as recipes
from training.checkpoint import CheckpointError
from training.corpus import Corpus
from training.loop import CHECKPOINT_NAME, Run, TrainingError, train
from training.prepare import prepare

CPU = torch.device("cpu")
SETTINGS = ["encoder.embed_dim=16", "objective.hidden_dim=16", "augment.mixup_bank=12"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "clips").mkdir()
    for index in range(10):
        clip = noise(0.4 + index / 5, seed=index) + tone(200 * (index + 1), 0.4 + index / 5)
        sf.write(folder / "clips" / f"{index}.wav", clip, 16_000)
    prepare([folder / "clips"], folder / "store", workers=0, progress=False)
    return Corpus(folder / "store")


def console() -> Console:
    return Console(quiet=True)


def tiny(*settings: str) -> recipes.Recipe:
    return recipes.load("tiny", [*SETTINGS, *settings])


def losses(folder: Path) -> list[float]:
    return [entry["loss"] for entry in checkpoint.load(folder / CHECKPOINT_NAME).history]


def test_a_resumed_run_has_the_losses_and_weights_of_an_uninterrupted_one(
    corpus: Corpus, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    settings = "run.log_every=1"
    assert train(tiny(settings, "run.steps=6"), corpus, whole, CPU, False, console())
    assert train(tiny(settings, "run.steps=3"), corpus, parts, CPU, False, console())
    assert train(tiny(settings, "run.steps=6"), corpus, parts, CPU, True, console())
    assert losses(whole) == losses(parts)
    assert len(losses(whole)) == 6
    one, other = (checkpoint.load(f / CHECKPOINT_NAME).objective for f in (whole, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_another_seed_gives_other_losses(corpus: Corpus, tmp_path: Path) -> None:
    for seed in (1, 2):
        train(
            tiny("run.steps=2", f"run.seed={seed}"),
            corpus,
            tmp_path / f"{seed}",
            CPU,
            False,
            console(),
        )
    assert losses(tmp_path / "1") != losses(tmp_path / "2")


def test_training_lowers_the_loss(corpus: Corpus, tmp_path: Path) -> None:
    recipe = tiny("run.steps=40", "run.log_every=1", "optimizer.lr=3e-3")
    train(recipe, corpus, tmp_path / "run", CPU, False, console())
    values = losses(tmp_path / "run")
    assert np.mean(values[-5:]) < np.mean(values[:5]) - 0.2


def test_every_parameter_but_the_targets_is_trained(corpus: Corpus) -> None:
    run = Run(tiny(), corpus, CPU)
    run.measure_statistics()
    before = {name: p.clone() for name, p in run.objective.named_parameters()}
    run.train_step(run.batch(0))
    unchanged = [n for n, p in run.objective.named_parameters() if torch.equal(p, before[n])]
    assert unchanged == []  # the target moves by the EMA


def test_views_are_normalised_and_differ(corpus: Corpus) -> None:
    run = Run(tiny(), corpus, CPU)
    run.measure_statistics()
    views = run.views(run.batch(0))
    assert views[0].shape == (8, 64, 96)
    assert not torch.equal(views[0], views[1])
    assert torch.stack(views).std().item() == pytest.approx(1, abs=1e-4)


def test_ctrl_c_ends_the_step_and_saves(corpus: Corpus, tmp_path: Path) -> None:
    def interrupt() -> None:
        while not list(tmp_path.glob("run/recipe.json")):
            time.sleep(0.01)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    finished = train(tiny("run.steps=100000"), corpus, tmp_path / "run", CPU, False, console())
    thread.join()
    assert not finished
    saved = checkpoint.load(tmp_path / "run" / CHECKPOINT_NAME)
    assert 0 < saved.step < 100_000
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_run_is_not_overwritten(corpus: Corpus, tmp_path: Path) -> None:
    train(tiny("run.steps=1"), corpus, tmp_path, CPU, False, console())
    with pytest.raises(TrainingError, match="holds a run already"):
        train(tiny("run.steps=1"), corpus, tmp_path, CPU, False, console())


def test_resuming_with_other_settings_names_them(corpus: Corpus, tmp_path: Path) -> None:
    train(tiny("run.steps=1"), corpus, tmp_path, CPU, False, console())
    with pytest.raises(TrainingError, match=r"optimizer\.lr was 0\.0001, is 0\.1"):
        train(tiny("optimizer.lr=0.1"), corpus, tmp_path, CPU, True, console())


def test_a_loss_that_is_not_finite_stops_the_run(corpus: Corpus, tmp_path: Path) -> None:
    recipe = tiny("optimizer.lr=1e30", "run.steps=20", "run.log_every=1")
    with pytest.raises(TrainingError, match="the loss is nan at step"):
        train(recipe, corpus, tmp_path, CPU, False, console())


def test_a_checkpoint_holds_the_encoder_and_where_it_comes_from(
    corpus: Corpus, tmp_path: Path
) -> None:
    train(tiny("run.steps=2"), corpus, tmp_path, CPU, False, console())
    saved = checkpoint.load(tmp_path / CHECKPOINT_NAME)
    network = checkpoint.encoder(saved)
    for name, tensor in network.encoder.state_dict().items():
        assert torch.equal(tensor, saved.objective[f"online.encoder.{name}"])
    assert (network.normalize.mean, network.normalize.std) == (saved.mean, saved.std)
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("source,licence\nclips,CC0-1.0\n")
    training = checkpoint.provenance(saved, "a test", manifest)
    assert (training.steps, training.segments, training.hardware) == (2, 16, "a test")
    assert [(s.name, s.licences) for s in training.sources] == [("clips", ["CC0-1.0"])]
    manifest.write_text("file,owner\n")
    with pytest.raises(CheckpointError, match="expected source and licence"):
        checkpoint.provenance(saved, manifest=manifest)
    assert training.hours == pytest.approx(corpus.hours, abs=1e-3)


def test_a_run_that_diverged_keeps_the_checkpoint_before_it(corpus: Corpus, tmp_path: Path) -> None:
    run = Run(tiny(), corpus, CPU)
    run.measure_statistics()
    path = tmp_path / CHECKPOINT_NAME
    run.save(path)
    before = path.read_bytes()
    next(run.objective.parameters()).data[0] = float("nan")
    with pytest.raises(TrainingError, match="not finite at step 0; the checkpoint before it"):
        run.save(path)
    assert path.read_bytes() == before


def test_a_half_written_checkpoint_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    train(tiny("run.steps=1"), corpus, tmp_path, CPU, False, console())
    path = tmp_path / CHECKPOINT_NAME
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        checkpoint.load(path)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        checkpoint.load(tmp_path / "gone.pt")


@pytest.mark.gpu
def test_a_step_runs_on_a_gpu(corpus: Corpus) -> None:
    run = Run(tiny(), corpus, torch.device("cuda"))
    run.measure_statistics()
    assert torch.isfinite(run.train_step(run.batch(0))["loss"])


def test_precision_follows_the_hardware_unless_the_recipe_says_otherwise() -> None:
    assert loop._precision("float32", CPU) == torch.float32
    assert loop._precision("bfloat16", CPU) == torch.bfloat16
