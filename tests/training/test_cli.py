import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
import typer
from typer.testing import CliRunner, Result

import viola
from models.modelfile import open_session
from models.nn.encoder import AudioNTT2020
from models.runtime import Encoder
from tests.signals import noise
from training.commands.writing import _probe

pytestmark = pytest.mark.usefixtures("undrawn")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(viola.build(), [str(argument) for argument in arguments])


def test_a_folder_of_sound_becomes_vectors_by_the_four_commands(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for index in range(4):
        sf.write(clips / f"{index}.wav", noise(1.0, seed=index), 16_000)
    (clips / "broken.wav").write_bytes(b"RIFF")
    store, folder, model = tmp_path / "store", tmp_path / "run", tmp_path / "mine.onnx"

    prepared = run("prepare", clips, store)
    assert prepared.exit_code == 0, prepared.output
    assert "added 4 clips" in prepared.output
    assert "broken.wav" in prepared.output

    settings = ["--set", "run.steps=2", "--set", "run.batch_size=2"]
    trained = run("train", "tiny", "--store", store, "--out", folder, *settings)
    assert trained.exit_code == 0, trained.output
    assert re.search(r"step 2/2  loss \d", trained.output)
    assert list(folder.glob("events.out.tfevents.*"))

    rate = ("--set", "optimizer.lr=1e30")
    swept = run("sweep", "tiny", "--store", store, "--out", tmp_path / "sweep", *settings, *rate)
    assert swept.exit_code == 1, swept.output  # no run of it came to an end

    exported = run(
        "export", folder / "checkpoint.pt", "-o", model, "--hardware", "a test", "--probe", "a=0.5"
    )
    assert exported.exit_code == 0, exported.output
    card = open_session(model)[1]
    assert card.probes == {"a": 0.5}
    assert (card.training.steps, card.training.segments, card.training.hardware) == (2, 4, "a test")

    for kind in ("pt", "safetensors"):
        kept = run("weights", folder / "checkpoint.pt", "-o", tmp_path / "made" / f"w.{kind}")
        assert kept.exit_code == 0, kept.output
        shutil.rmtree(tmp_path / "made")

    table = tmp_path / "vectors.npz"
    embedded = run("embed", *sorted(clips.glob("*.wav")), "-o", table, "--model", model)
    assert embedded.exit_code == 1
    assert "broken.wav" in embedded.output
    content = np.load(table)
    assert content["embedding"].shape == (4, 32 + 2 * 512 + 3 * 64)  # its layers
    assert str(content["space_id"]) == card.space_id


def test_a_checkpoint_in_the_authors_layout_becomes_a_model_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights, model = tmp_path / "weights.pth", tmp_path / "imported.onnx"
    torch.save(AudioNTT2020(24).state_dict(), weights)
    imported = run("import", weights, "--mean", -5.4919, "--std", 5.039, "-o", model)
    assert imported.exit_code == 0, imported.output
    encoder = Encoder.open(model)
    assert (encoder.card.mean, encoder.card.std) == (-5.4919, 5.039)
    assert (encoder.card.pooling, encoder.card.readout) == ("max+mean", None)
    assert encoder.embed(noise(1.0)).shape == (24,)
    assert encoder.self_test() < 1e-5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "nothing", "--store", "s", "--out", "o"), "no recipe 'nothing'"),
        (("train", "tiny", "--store", "gone", "--out", "o"), "gone"),
        (("train", "tiny", "--store", "s", "--out", "o", "--device", "abacus"), "device 'abacus'"),
        (("prepare", __file__, __file__), "is a file; the last argument"),
        (("export", "gone.pt", "-o", "x.onnx"), "no checkpoint at gone.pt"),
        (("export", "training", "-o", "x.onnx"), "training is a folder; name a checkpoint in it"),
        (
            ("import", "gone.pth", "--mean", 0, "--std", 1, "-o", "x.onnx"),
            "no checkpoint at gone.pth",
        ),
    ],
)
def test_what_a_person_can_put_right_is_one_line(arguments: tuple, message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize(
    "command",
    [
        ("export", "gone.pt"),
        ("import", "gone.pth", "--mean", 0, "--std", 1),
        ("quantize", "gone.onnx", "--audio", "gone"),
        ("fit", "gone"),
    ],
)
def test_a_model_file_that_cannot_be_written_is_refused_before_the_work(
    command: tuple, tmp_path: Path
) -> None:
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "file").touch()
    for name, message in (
        ("model.bin", "NAME.onnx"),
        ("folder.onnx", "is a folder"),
        ("file/model.onnx", "is no folder to write to"),
    ):
        result = run(*command, "-o", tmp_path / name)
        assert result.exit_code == 2, result.output
        assert message in " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("quantize", ("--audio", "gone")),
        ("import", ()),
        ("fit", ("--model",)),
        ("weights", ()),
    ],
)
def test_a_file_is_not_replaced_by_what_is_made_of_it(
    command: str, options: tuple, tmp_path: Path
) -> None:
    """A quantised file cannot be quantised again, nor a run be resumed from weights alone."""
    file = tmp_path / ("mine.pt" if command == "weights" else "mine.onnx")
    file.touch()
    source = ("gone", *options, file) if command == "fit" else (file, *options)
    result = run(command, *source, "-o", f"{tmp_path}/../{tmp_path.name}/{file.name}", "--force")
    assert result.exit_code == 2
    assert "is what the new file is made of" in " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--readout", "whole"), "--readout whole: expected projected, layers or byol-a"),
        (("--readout", "projected"), "name one with --store"),
        (("--embed-dim", 64), "--embed-dim 64 is for --readout projected"),
        (("--embed-dim", 64, "--readout", "byol-a", "--store", "gone"), "leave --embed-dim out"),
        (("--probe", "birds=50"), "expected TASK=ACCURACY"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ("export", "gone.pt"),
        ("import", "gone.onnx"),
        ("import", "gone.pth", "--mean", 0, "--std", 1),
    ],
)
def test_an_option_that_would_do_nothing_is_refused_before_the_work(
    command: tuple, options: tuple, message: str, tmp_path: Path
) -> None:
    result = run(*command, *options, "-o", tmp_path / "model.onnx")
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("gone.pth", "--mean", "nan", "--std", 1), "--mean nan: expected a finite number"),
        (
            ("gone.pth", "--mean", 0, "--std", "inf"),
            "--std inf: expected a number above 0, and a finite",
        ),
        (("gone.onnx", "--readout", "layers", "--store", "gone"), "leave --store out"),
    ],
)
def test_an_import_takes_numbers_and_a_store_that_it_uses(
    options: tuple, message: str, tmp_path: Path
) -> None:
    result = run("import", *options, "-o", tmp_path / "model.onnx")
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.replace("│", " ").split())


def test_a_file_that_is_no_checkpoint_is_told_where_it_belongs(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "others.pt")
    others = run("weights", tmp_path / "others.pt", "-o", tmp_path / "w.pt")
    assert others.exit_code == 1
    assert "viola import takes weights in the BYOL-A" in " ".join(others.output.split())


@pytest.mark.parametrize("probe", ["a", "a=", "=0.5", "a=50", "a=nan"])
def test_a_probe_that_is_no_accuracy_is_a_usage_error(probe: str) -> None:
    with pytest.raises(typer.BadParameter, match="expected TASK=ACCURACY"):
        _probe(probe)


def test_without_a_recipe_the_hardware_chooses_and_a_run_that_goes_on_keeps_its_own(
    store: Path, tmp_path: Path
) -> None:
    small = ["encoder.n_channels=4", "encoder.embed_dim=8", "objective.hidden_dim=16"]
    small += ["run.steps=6", "run.batch_size=4", "optimizer.warmup_steps=1"]
    small += ["optimizer.decay_steps=2", "augment.mixup_bank=8"]
    settings = [part for setting in small for part in ("--set", setting)]
    command = ("train", "--store", store, "--out", tmp_path / "run", "--device", "cpu")
    for recipe in ([], ["default"]):
        planned = run(*command, *recipe, "--dry-run", *settings)
        assert planned.exit_code == 0, planned.output
        assert "recipe: cpu" in planned.output
        assert not (tmp_path / "run").exists()
    assert run(*command, "tiny").exit_code == 0
    resumed = run(*command, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert "recipe.json" in resumed.output
    assert "resumed at step 8 of 8" in resumed.output


def test_a_report_is_of_a_run(tmp_path: Path) -> None:
    nothing = run("report", tmp_path)
    assert nothing.exit_code == 2
    assert "holds no run" in " ".join(nothing.output.replace("│", " ").split())
    assert not list(tmp_path.iterdir())
    (tmp_path / "recipe.json").write_text("[1]")
    other = run("report", tmp_path)
    assert other.exit_code == 1
    assert "recipe.json holds a list" in " ".join(other.output.split())
    (tmp_path / "recipe.json").write_text("{}")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nlost\n')
    broken = run("report", tmp_path)
    assert "metrics.jsonl, line 2 is not JSON" in " ".join(broken.output.split())


def test_preparing_nothing_is_a_usage_error(tmp_path: Path) -> None:
    assert run("prepare", tmp_path / "store").exit_code == 2
