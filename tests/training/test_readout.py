from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

import viola
from models.card import Training
from models.modelfile import open_session
from models.nn.encoder import AudioNTT2020, StridedConv
from models.nn.export import export
from models.nn.model import WaveformEncoder, one_pass
from models.runtime import Encoder
from tests.networks import small_network
from tests.signals import noise
from training import readout
from training.data.corpus import Corpus
from training.disturbances import DISTURBANCES
from training.projection import Form, project


@pytest.fixture(autouse=True)
def few_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readout, "SECONDS", {0.5: 160, 1.5: 160})
    monkeypatch.setattr(readout, "DISTURBED", {0.5: 64})
    monkeypatch.setattr(readout, "AXES_SEGMENTS", 64)
    monkeypatch.setattr(readout, "N_CLEAN", 64)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(viola.build(), [str(argument) for argument in arguments])


def small(encoder: StridedConv | AudioNTT2020 | None = None) -> WaveformEncoder:
    torch.manual_seed(1)
    return WaveformEncoder(encoder or StridedConv(16, n_channels=4), -5.5, 5.0).eval()


def test_the_projection_whitens_and_puts_the_best_directions_first() -> None:
    mixing = torch.randn(12, 12, dtype=torch.float64) * torch.logspace(0, 2, 12)
    pooled = torch.randn(5000, 12, dtype=torch.float64) @ mixing + 7
    network = small()
    statistics = readout.with_layers(network).readout.statistics[:1]
    statistics = (statistics[0].model_copy(update={"n": 12}),)
    projection = project(pooled, {}, statistics, Form(embed_dim=5, floor=0.0))
    vectors = (pooled.float() - projection.center) @ projection.matrix
    torch.testing.assert_close(torch.cov(vectors.T), torch.eye(5), atol=0.02, rtol=0)
    kept = project(pooled, {}, statistics, Form(embed_dim=5, power=0.0))
    variances = ((pooled.float() - kept.center) @ kept.matrix).var(dim=0)
    assert variances.tolist() == sorted(variances.tolist(), reverse=True)


@pytest.mark.parametrize("encoder", [None, AudioNTT2020(16, n_channels=8)])
def test_random_sounds_are_less_alike_with_a_measured_readout(
    corpus: Corpus, encoder: AudioNTT2020 | None
) -> None:
    plain = readout.with_layers(small(encoder))
    measured = readout.measured(plain, corpus, Form(embed_dim=24))
    clips = [corpus.segments(np.array([i]), 8_000, np.random.default_rng(0), "end") for i in (1, 7)]

    def cosine(model: WaveformEncoder) -> float:
        one, other = (one_pass(model, torch.from_numpy(c[0] / np.float32(32768)))[0] for c in clips)
        return float(torch.nn.functional.cosine_similarity(one, other, dim=0))

    assert measured.readout.embed_dim == 24
    assert cosine(measured) < cosine(plain) - 0.2


def test_a_measured_readout_changes_less_by_disturbances(corpus: Corpus) -> None:
    plain = readout.with_layers(small())
    vectors, changes = readout.pooled(plain, corpus).double(), readout.differences(plain, corpus)
    assert list(changes) == list(DISTURBANCES)

    def shares(form: Form) -> dict[str, float]:
        """Of what segments differ by, what each disturbance moves a vector by."""
        made = project(vectors, changes, plain.readout.statistics, form)
        spread = ((vectors.float() - made.center) @ made.matrix).square().sum(1).mean()
        return {
            name: float((rows @ made.matrix).square().sum(1).mean() / spread)
            for name, rows in changes.items()
        }

    left, steady = shares(Form(24, within_power=0.0)), shares(Form(24))
    for name in changes:
        assert steady[name] < left[name], name


def test_segments_too_short_for_a_codec_are_not_disturbed(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readout, "LEAST_SAMPLES", 8_001)  # more than the segments of half a second
    assert readout.differences(readout.with_layers(small()), corpus) == {}


def test_batch_norm_is_measured_anew_on_clean_clips(corpus: Corpus) -> None:
    network = small_network("StridedConv")
    before = network.encoder.features[1].running_mean.clone()
    readout.recalibrate(network, corpus)
    layer = network.encoder.features[1]
    assert not torch.allclose(layer.running_mean, before)
    assert (layer.momentum, layer.training) == (0.1, False)
    again = small_network("StridedConv")
    readout.recalibrate(again, corpus)
    torch.testing.assert_close(again.encoder.features[1].running_mean, layer.running_mean)


def test_the_file_tells_of_its_readout_and_any_length_agrees(
    corpus: Corpus, tmp_path: Path
) -> None:
    model = readout.measured(small(), corpus, Form(embed_dim=24))
    card, _ = export(model, tmp_path / "small.onnx", training=Training(method=""))
    assert card.readout is not None
    assert card.readout.settings == Form(embed_dim=24).settings()
    assert (card.readout.segments, card.readout.seconds) == (320, [0.5, 1.5])
    encoder = Encoder.open(tmp_path / "small.onnx")
    for seconds in (0.025, 1.0, 30.0):
        expected = one_pass(model, torch.from_numpy(noise(seconds)))[0].numpy()
        np.testing.assert_allclose(encoder.embed(noise(seconds)), expected, atol=1e-4)


@pytest.fixture
def importing(tmp_path: Path) -> list[object]:
    """The command that imports weights in the authors' layout, up to the file that it writes."""
    weights = tmp_path / "weights.pth"
    torch.save(AudioNTT2020(16).state_dict(), weights)
    return ["import", weights, "--mean", -5, "--std", 5, "-o"]


@pytest.mark.parametrize(
    ("options", "dim"),
    [
        pytest.param(["layers"], 16 + 2 * 512 + 3 * 64, marks=pytest.mark.slow),
        (["projected", "--store", "STORE", "--embed-dim", 8], 8),
    ],
)
def test_weights_that_exist_can_have_the_layers_too(
    importing: list[object],
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[object],
    dim: int,
) -> None:
    monkeypatch.setattr(readout, "SECONDS", {0.5: 64})  # the authors' has 64 channels
    given = [store if option == "STORE" else option for option in options]
    result = run(*importing, tmp_path / "mine.onnx", "--readout", *given)
    assert result.exit_code == 0, result.output
    assert open_session(tmp_path / "mine.onnx")[1].embed_dim == dim


def test_a_readout_that_cannot_be_made_is_refused(importing: list[object], tmp_path: Path) -> None:
    missing = run(*importing, tmp_path / "x.onnx", "--readout", "projected")
    assert "name one with --store" in " ".join(missing.output.replace("│", " ").split())
    unknown = run(*importing, tmp_path / "x.onnx", "--readout", "best")
    assert "expected projected, layers or byol-a" in " ".join(unknown.output.split())
    assert not (tmp_path / "x.onnx").exists()
