from pathlib import Path

import numpy as np
import pytest
import torch

from models.labelled import tasks
from models.labelled.tasks import TaskError
from models.nn.model import WaveformEncoder
from tests.labelled import table_of_folds, write_clip
from tests.networks import small_network
from tests.signals import noise
from training.evaluation.probe import Probe, embed

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def model() -> WaveformEncoder:
    return small_network("AudioNTT2020")


@pytest.fixture
def task(tmp_path: Path) -> tasks.Task:
    return tasks.load(table_of_folds(tmp_path))


@pytest.mark.parametrize("kind", ["knn", "linear"])
def test_tones_that_differ_by_octaves_are_told_apart(
    task: tasks.Task, model: WaveformEncoder, kind: str
) -> None:
    scores = Probe([task], kind)(model)
    assert list(scores) == ["tones"]
    assert scores["tones"] > 0.9


def test_labels_by_chance_score_as_chance(tmp_path: Path, model: WaveformEncoder) -> None:
    rows = [f"{i}.wav,{'ab'[i // 4 % 2]},{i % 4}" for i in range(80)]
    for index in range(80):
        write_clip(tmp_path / f"{index}.wav", noise(0.2, index))
    (tmp_path / "chance.csv").write_text("\n".join(["file_name,label,fold", *rows]))
    scores = Probe([tasks.load(tmp_path / "chance.csv")], "knn")(model)
    assert scores["chance"] == pytest.approx(0.5, abs=0.2)


def test_the_run_goes_on_as_if_it_had_not_been_probed(
    task: tasks.Task, model: WaveformEncoder
) -> None:
    model.train()
    model.encoder.fc.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    Probe([task], "linear")(model)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    model.eval()


def test_a_probe_gives_the_same_scores_again(task: tasks.Task, model: WaveformEncoder) -> None:
    probe = Probe([task], "linear")
    assert probe(model) == probe(model)


def test_a_vector_is_that_of_the_padded_clip(task: tasks.Task, model: WaveformEncoder) -> None:
    units = task.units()[:3]
    waveform = torch.from_numpy(units)
    expected = model(waveform, torch.full((3,), units.shape[1]))[0].detach().numpy()
    np.testing.assert_allclose(embed(model, units), expected, rtol=1e-6)


def test_two_tasks_of_one_name_are_refused(task: tasks.Task) -> None:
    with pytest.raises(TaskError, match="have one name"):
        Probe([task, task], "knn")


@pytest.mark.gpu
def test_a_model_on_a_gpu_scores_as_on_the_cpu(task: tasks.Task, model: WaveformEncoder) -> None:
    probe = Probe([task], "knn")
    assert probe(model.cuda())["tones"] == pytest.approx(probe(model.cpu())["tones"], abs=0.1)
