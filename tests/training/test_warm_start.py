"""A run begins with the encoder of a model file, of safetensors, or of the authors' weights."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from typer.testing import CliRunner

import viola
from models.card import Training
from models.modelfile import CARD_KEY, DEFAULT_MODEL, ModelFileError
from models.nn.encoder import AudioNTT2020
from models.nn.export import export
from models.nn.model import one_pass
from models.nn.weights import WeightsError, load_encoder, save_encoder
from models.runtime import Encoder
from tests.signals import noise
from training import checkpoint, readout, warm_start
from training.data.corpus import Corpus
from training.recipe import Recipe, load
from training.run import Run, TrainingError

pytestmark = pytest.mark.usefixtures("undrawn")

CPU = torch.device("cpu")


def tiny(*settings: str) -> Recipe:
    sizes = ["encoder.embed_dim=16", "objective.hidden_dim=16", "run.precision=float32"]
    return load("tiny", [*sizes, *settings])


@pytest.fixture(scope="module")
def trained(corpus: Corpus) -> Run:
    """A run of some steps, so that no norm is what it began as."""
    run = Run(tiny("optimizer.lr=0.01"), corpus, CPU)
    run.start()
    for _ in range(4):
        run.train_step()
    return run


@pytest.fixture(scope="module")
def files(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    model = checkpoint.encoder(trained.checkpoint())
    export(model, folder / "a.onnx", training=Training(method="a test"))
    training = checkpoint.provenance(trained.checkpoint())
    save_encoder(model, folder / "a.safetensors", training=training)
    save_encoder(model, folder / "half.safetensors", half=True)
    torch.save(model.encoder.state_dict(), folder / "official.pth")
    checkpoint.write(trained.checkpoint(), folder / "a.pt")
    return folder


def vector(run: Run, waveform: torch.Tensor) -> np.ndarray:
    """Of the online encoder as it would be served, with the first run's normalisation."""
    with torch.no_grad():
        return run.encoder().eval()(waveform, torch.tensor([len(waveform[0])]))[0].numpy()


@pytest.mark.parametrize("name", ["a.onnx", "a.safetensors", "official.pth", "a.pt"])
def test_the_encoder_is_the_same_and_goes_on_learning(
    corpus: Corpus, trained: Run, files: Path, name: str
) -> None:
    run = Run(tiny(), corpus, CPU)
    warm_start.begin(run, warm_start.read(files / name))
    waveform = 0.1 * torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    expected = vector(trained, waveform)
    np.testing.assert_allclose(vector(run, waveform), expected, atol=2e-4, rtol=2e-3)
    trained.objective.train()
    run.objective.train()
    online, target = run.objective.online.encoder, run.objective.target.encoder
    if name != "a.pt":  # a target of its own is there, and kept
        assert all(
            torch.equal(a, b) for a, b in zip(online.parameters(), target.parameters(), strict=True)
        )
    assert run.step == 0
    assert run.train_step()[0].loss.isfinite()


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("a.pt", "byol"),
        ("a.safetensors", "byol"),
        ("a.onnx", "a test"),
        ("half.safetensors", "half.safetensors, which do not say"),
        ("official.pth", "weights that the BYOL-A authors publish, official.pth"),
    ],
)
def test_the_card_tells_of_the_weights_that_a_run_began_with(
    corpus: Corpus, files: Path, tmp_path: Path, name: str, method: str
) -> None:
    run = Run(tiny(), corpus, CPU)
    warm_start.begin(run, warm_start.read(files / name))
    run.train_step()
    resumed = Run(tiny(), corpus, CPU)
    resumed.restore(run.checkpoint())
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("source,licence\n" + "".join(f"{s},CC0-1.0\n" for s in corpus.sources))
    told = checkpoint.provenance(resumed.checkpoint(), manifests=[manifest])
    assert told.steps == 1
    assert told.initial is not None
    assert method in told.initial.method
    if method == "byol":  # they learnt from the same store
        assert told.initial.steps == 4
        assert [s.licences for s in told.initial.sources] == [["CC0-1.0"]] * len(corpus.sources)


def test_norms_that_were_folded_away_do_in_training_what_they_did(
    corpus: Corpus, trained: Run, files: Path
) -> None:
    """With batch statistics of clips of the store a layer's output keeps its scale and shift."""
    run = Run(tiny(), corpus, CPU)
    warm_start.begin(run, warm_start.read(files / "a.onnx"))
    log_mel = run.views.log_mel(run.batches.cut(run.batches.load(3)))[:, None]
    with torch.no_grad():
        theirs = trained.objective.online.encoder.eval().features(log_mel)
        trained.objective.train()
        ours = run.objective.online.encoder.train().features(log_mel)
    assert torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), 0) > 0.98


def test_weights_of_other_networks_are_refused_by_what_does_not_fit(
    corpus: Corpus, files: Path
) -> None:
    run = Run(tiny("encoder.embed_dim=24"), corpus, CPU)
    for name in ("a.onnx", "a.safetensors"):
        with pytest.raises(TrainingError, match=r"weights are of AudioNTT2020, in other sizes.*fc"):
            warm_start.begin(run, warm_start.read(files / name))


def test_weights_that_are_not_finite_are_no_beginning(files: Path, corpus: Corpus) -> None:
    for name in ("a.pt", "a.safetensors"):
        found = warm_start.read(files / name)
        tensors = found.objective if isinstance(found, checkpoint.Checkpoint) else found.tensors
        next(iter(tensors.values())).view(-1)[0] = torch.inf
        with pytest.raises(TrainingError, match="not finite: .* take an earlier checkpoint"):
            warm_start.begin(Run(tiny(), corpus, CPU), found)


def test_a_model_file_in_eight_bits_is_no_beginning(quantized_path: Path) -> None:
    with pytest.raises(TrainingError, match="eight bits, which no training can begin with"):
        warm_start.read(quantized_path)


def test_two_lines_of_torch_load_an_encoder(trained: Run, files: Path) -> None:
    waveform, length = torch.randn(2, 16_000), torch.tensor([16_000, 9_000])
    with torch.no_grad():
        expected = checkpoint.encoder(trained.checkpoint())(waveform, length)[0]
        found = load_encoder(files / "a.safetensors")(waveform, length)[0]
        half = load_encoder(files / "half.safetensors")(waveform, length)[0]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(half, expected, atol=0.02, rtol=0.02)
    sizes = [(files / name).stat().st_size for name in ("half.safetensors", "a.safetensors")]
    assert sizes[0] < 0.6 * sizes[1]


def test_a_file_that_holds_no_encoder_says_so(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(WeightsError, match="no weights at"):
        load_encoder(tmp_path / "gone.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="is not a safetensors file"):
        load_encoder(tmp_path / "b.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "c.safetensors")
    with pytest.raises(WeightsError, match="does not say which encoder"):
        load_encoder(tmp_path / "c.safetensors")


def test_the_command_writes_safetensors_and_a_run_begins_with_them(
    store: Path, files: Path, tmp_path: Path
) -> None:
    out = tmp_path / "mine.safetensors"

    def call(*arguments: object) -> str:
        result = CliRunner().invoke(viola.build(), [str(a) for a in arguments])
        assert result.exit_code == 0, result.output
        return result.output

    call("weights", files / "a.pt", "-o", out, "--half")
    assert isinstance(load_encoder(out).encoder, AudioNTT2020)
    sizes = ["--set", "encoder.embed_dim=16", "--set", "objective.hidden_dim=16"]
    steps = ["--set", "run.steps=6", "--profile", 1, "--device", "cpu"]
    run = tmp_path / "run"
    said = call("train", "tiny", "--store", store, "--out", run, "--init", out, *sizes, *steps)
    assert "MFU" in said
    assert (run / "trace.json.gz").stat().st_size > 1000


def test_a_model_file_is_a_network_again(files: Path) -> None:
    before, clip = Encoder.open(files / "a.onnx"), noise(1.0)
    network, training = warm_start.of_model_file(files / "a.onnx")
    vector = one_pass(network, torch.from_numpy(clip))[0].numpy()
    np.testing.assert_allclose(vector, before.embed(clip), atol=1e-4)
    assert training == before.card.training


@pytest.mark.slow
def test_a_model_file_can_have_another_readout(
    files: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readout, "SECONDS", {0.5: 96})
    monkeypatch.setattr(readout, "DISTURBED", {0.5: 32})
    monkeypatch.setattr(readout, "AXES_SEGMENTS", 32)
    before = Encoder.open(files / "a.onnx").card
    options = ["--store", str(store), "--embed-dim", "8"]
    given = ["import", str(files / "a.onnx"), "-o", str(tmp_path / "mine.onnx"), *options]
    result = CliRunner().invoke(viola.build(), given)
    assert result.exit_code == 0, result.output
    card = Encoder.open(tmp_path / "mine.onnx").card
    assert (card.embed_dim, card.training) == (8, before.training)
    assert card.readout is not None
    assert card.space_id != before.space_id


def test_a_model_file_has_a_normalisation_of_its_own(files: Path, tmp_path: Path) -> None:
    for path, options, message in (
        ("a.onnx", ["--mean", "0", "--std", "1"], "leave them out"),
        ("official.pth", [], "name --mean and --std"),
        ("official.pth", ["--mean", "0", "--std", "0"], "a number above 0"),
    ):
        given = ["import", str(files / path), "-o", str(tmp_path / "x.onnx"), *options]
        result = CliRunner().invoke(viola.build(), given)
        assert result.exit_code == 2
        assert message in " ".join(result.output.split())


def test_a_network_that_a_changed_card_does_not_describe_is_refused(tmp_path: Path) -> None:
    for name in ("mean", "std"):
        proto = onnx.load(DEFAULT_MODEL)
        for entry in proto.metadata_props:
            if entry.key == CARD_KEY:
                card = json.loads(entry.value)
                entry.value = json.dumps(card | {name: card[name] + 1})
        onnx.save(proto, tmp_path / "edited.onnx")
        with pytest.raises(ModelFileError, match=f"{name} .* was changed"):
            warm_start.of_model_file(tmp_path / "edited.onnx")


def test_a_model_that_ships_is_known_by_its_name() -> None:
    weights = warm_start.read(Path("default"))
    assert isinstance(weights, warm_start.EncoderWeights)
    assert weights.kind == "StridedConv"
    warm_start.of_model_file(Path("default"))
