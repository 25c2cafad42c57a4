import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from models import modelfile
from models.card import Card, Training
from models.modelfile import ModelFileError
from models.nn.export import ExportError, export, space_id
from models.nn.model import WaveformEncoder, one_pass
from models.runtime import Encoder
from tests.networks import small_network
from tests.signals import noise
from tests.users import AS_NO_SUPERUSER, CAN_BE_REFUSED


def test_the_file_runs_without_a_line_of_ours(model_path: Path, network: WaveformEncoder) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(model_path)
    waveform = np.stack([noise(1.0), noise(1.0, seed=1)])
    length = np.array([16_000, 5_000])
    inputs = {"waveform": waveform, "length": length}
    embedding, frames = session.run(["embedding", "frames"], inputs)
    assert embedding.dtype == frames.dtype == np.float32
    for row, n, got in zip(waveform, length, embedding, strict=True):
        expected, _ = one_pass(network, torch.from_numpy(row[:n]))
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_the_card_says_what_the_network_is(model_path: Path, network: WaveformEncoder) -> None:
    _, card = modelfile.open_session(model_path)
    assert card.name == model_path.stem
    assert card.encoder == type(network.encoder).__name__
    assert card.feature_dim == network.encoder.embed_dim
    assert card.embed_dim == network.readout.embed_dim
    assert card.frame_dim == network.readout.frame_dim
    assert (card.mean, card.std) == (-5.5, 5.0)
    assert card.space_id == space_id(network)
    assert card.training.method == "random weights"


def test_the_file_holds_no_path_of_the_machine_that_wrote_it(model_path: Path) -> None:
    content = model_path.read_bytes()
    assert str(Path(modelfile.__file__).parent.parent).encode() not in content
    assert b"site-packages" not in content


def test_the_golden_vector_is_reproduced(model_path: Path) -> None:
    assert Encoder.open(model_path).self_test() < 1e-5


@pytest.mark.parametrize("broken", [lambda v: v * 1.01, lambda v: v * np.nan, lambda v: v[:-1]])
def test_another_golden_vector_is_refused(model_path: Path, broken) -> None:
    _, card = modelfile.open_session(model_path)
    with pytest.raises(ModelFileError):
        modelfile.golden_error(card, broken(card.golden.vector()))


def test_the_space_follows_the_weights_and_the_normalisation_alone() -> None:
    one, same, other = (small_network("AudioNTT2020") for _ in range(3))
    assert space_id(one) == space_id(same)
    other.encoder.fc[0].bias.data[0] += 1e-3
    assert space_id(other) != space_id(one)
    assert space_id(WaveformEncoder(one.encoder, mean=-5.0, std=5.0)) != space_id(one)


def test_a_graph_that_differs_from_its_network_is_not_written(
    model_path: Path, network: WaveformEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = copy.deepcopy(network)
    other.encoder.fc[0].bias.data += 0.01
    monkeypatch.setattr("models.nn.export._trace", lambda model: onnx.load(model_path))
    with pytest.raises(ExportError, match="off the network"):
        export(other, tmp_path / "wrong.onnx", training=Training(method=""))
    other.encoder.fc[0].bias.data[0] = torch.nan
    with pytest.raises(ExportError, match=r"encoder\.fc\.0\.bias hold values that are not finite"):
        export(other, tmp_path / "wrong.onnx", training=Training(method=""))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"no model file at .*gone\.onnx"):
        modelfile.open_session(tmp_path / "gone.onnx")


def test_a_file_that_is_not_onnx_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("not a model")
    with pytest.raises(ModelFileError, match="not an ONNX file"):
        modelfile.open_session(path)


@pytest.mark.parametrize(
    "reason",
    [
        "Exception during initialization: std::bad_alloc",
        "pthread_create failed, error code: 11 error msg: Resource temporarily unavailable",
    ],
)
def test_what_the_system_lacks_is_no_fault_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(reason)

    (tmp_path / "good.onnx").touch()
    monkeypatch.setattr(modelfile.ort, "InferenceSession", fail)
    with pytest.raises(ModelFileError, match="too little memory, or there are too few threads"):
        modelfile.open_session(tmp_path / "good.onnx")


@pytest.mark.skipif(not CAN_BE_REFUSED, reason="needs users, and setpriv where root runs it")
def test_a_file_that_may_not_be_read_is_refused_as_that(tmp_path: Path) -> None:
    path = tmp_path / "kept.onnx"
    path.write_text("not a model")
    path.chmod(0)
    code = "import sys; from models import modelfile; modelfile.open_session(sys.argv[1])"
    command = [*AS_NO_SUPERUSER, sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert f"{path} cannot be read: Permission denied" in done.stderr.splitlines()[-1]


def stating(card: str, **fields: object) -> str:
    """The JSON of a card with other fields."""
    return json.dumps(json.loads(card) | fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: None, "has no card"),
        (lambda card: "{", "not JSON"),
        (lambda card: "[]", "card schema None"),
        (lambda card: card.replace('"card_schema":1', '"card_schema":7'), "card schema 7"),
        (lambda card: card.replace('"std":5.0', '"std":-5.0'), "not valid: std"),
        (lambda card: card.replace('"std":5.0', '"std":NaN'), "std: Input should be a finite"),
        (lambda card: card.replace('"mean":-5.5', '"mean":-Infinity'), "mean: Input should be"),
        (lambda card: '{"std":' + "1" * 5000 + "}", "not JSON"),  # more digits than Python reads
        (lambda card: "[" * 100_000, "not JSON"),  # deeper than it reads
        (
            lambda card: stating(card, embed_dim=7),
            "values in its tensor embedding, its card says 7",
        ),
        (lambda card: stating(card, frame_dim=9), "values in its tensor frames, its card says 9"),
        (
            lambda card: stating(card, golden={"embedding": "AAAAA"}),
            "golden: embedding: Value error, not little-endian float32",
        ),
    ],
)
def test_a_wrong_card_is_refused(model_path: Path, tmp_path: Path, change, message: str) -> None:
    proto = onnx.load(model_path)
    entry = next(e for e in proto.metadata_props if e.key == modelfile.CARD_KEY)
    changed = change(entry.value)
    proto.metadata_props.remove(entry)
    if changed is not None:
        proto.metadata_props.add(key=modelfile.CARD_KEY, value=changed)
    path = tmp_path / "changed.onnx"
    onnx.save(proto, path)
    with pytest.raises(ModelFileError, match=message):
        modelfile.open_session(path)


@pytest.mark.parametrize(
    "field",
    [
        {"frame_hop": 10**18},
        {"min_samples": 10**12},
        {"receptive_field": 10**12},
        {"frame_offset": -(10**12)},
        {"context_frames": 10**6},
    ],
)
def test_an_encoder_of_which_no_frame_fits_into_a_tile_is_refused(
    model_path: Path, field: dict
) -> None:
    session, card = modelfile.open_session(model_path)
    changed = Card.model_validate(card.model_dump() | field)
    ((name, value),) = field.items()
    with pytest.raises(
        ModelFileError, match=f"cannot be cut into tiles of 10.24 s.*{name} {value}"
    ):
        Encoder(session, changed)


def test_a_graph_with_other_outputs_is_refused(model_path: Path, tmp_path: Path) -> None:
    proto = onnx.load(model_path)
    del proto.graph.output[1]
    path = tmp_path / "short.onnx"
    onnx.save(proto, path)
    with pytest.raises(ModelFileError, match="of kind encoder, it has inputs"):
        modelfile.open_session(path)


def test_a_card_survives_its_json(model_path: Path) -> None:
    _, card = modelfile.open_session(model_path)
    assert Card.model_validate_json(card.model_dump_json()) == card


def test_the_file_gives_the_log_mel_of_its_front_end(
    model_path: Path, network: WaveformEncoder
) -> None:
    encoder = Encoder.open(model_path, threads=1)
    clip = noise(1.3)
    assert encoder.gives_log_mel
    drawn = encoder.run_batch("log_mel", [clip], 32_000)[0]
    expected = network.frontend(torch.from_numpy(clip)[None])[0].numpy()
    np.testing.assert_allclose(drawn[:, : expected.shape[1]], expected, atol=1e-4)


def changed(path: Path, out: Path, **changes: object) -> Path:
    """A model file whose card somebody has edited by hand."""
    proto = onnx.load(path)
    for entry in proto.metadata_props:
        if entry.key == modelfile.CARD_KEY:
            entry.value = json.dumps(json.loads(entry.value) | changes)
    onnx.save(proto, out)
    return out


@pytest.mark.parametrize(
    "changes",
    [
        {"frame_hop": 640},
        {"frame_hop": 1_281},
        {"frame_offset": -1_000},
        {"receptive_field": 3_260},
        {"receptive_field": 3_300},
        {"receptive_field": 4_000},
        {"context_frames": 0},
    ],
)
def test_a_card_whose_frames_are_others_is_found(tmp_path: Path, changes: dict[str, int]) -> None:
    file = changed(modelfile.DEFAULT_MODEL, tmp_path / "edited.onnx", **changes)
    with pytest.raises(ModelFileError, match="golden vector|card"):
        Encoder.open(file).self_test()


def test_a_card_whose_vectors_are_pooled_otherwise_is_found(tmp_path: Path) -> None:
    card = modelfile.open_session(modelfile.DEFAULT_MODEL)[1]
    parts = [part.model_dump() for part in card.statistics]
    edits: list[dict[str, object]] = [
        {"statistics": [*parts[:3], parts[3] | {"kind": "max"}, *parts[4:]]},
        {"statistics": [parts[0] | {"kind": "mean"}, *parts[1:]]},
        {"statistics": [parts[0] | {"first": 1}, *parts[1:]]},
        {"statistics": [*parts[:4], parts[4] | {"within": 1601}, *parts[5:]]},
        {"statistics": [*parts[:6], parts[6] | {"first": 1729}]},
        {"statistics": parts[:-1]},
        {"statistics": [*parts[:4], parts[4] | {"within": None}, *parts[5:]]},
        {"readout": json.loads(card.readout.model_dump_json()) | {"unit_length": False}},
        {"readout": json.loads(card.readout.model_dump_json()) | {"pooled_dim": 7}},
    ]
    unfound = []
    for edit in edits:
        file = changed(modelfile.DEFAULT_MODEL, tmp_path / "edited.onnx", **edit)
        try:
            Encoder.open(file).self_test()
        except ModelFileError:
            continue
        unfound.append(edit)
    assert not unfound
