from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile as sf
from onnx import numpy_helper
from typer.testing import CliRunner, Result

import viola
from models import modelfile
from models.modelfile import ModelFileError, open_session
from models.runtime import Encoder
from tests.signals import noise
from tests.training.stores import write_noise
from training.data.corpus import CorpusError
from training.quantization.calibration import draw
from training.quantization.quantize import QuantizationError, quantize

LAYERS = {
    "AudioNTT2020": ["Conv 16x16x3x3", "Conv 16x16x3x3", "MatMul 128x32", "MatMul 32x32"],
    "AudioNTT2022": ["Conv 64x64x3x3", "MatMul 1024x32", "MatMul 32x32"],
    "StridedConv": ["Conv 32x16x3x3", "Conv 64x32x3x3", "MatMul 512x32", "MatMul 32x32"],
}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(viola.build(), [str(argument) for argument in arguments])


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_the_heavy_layers_compute_in_integers(quantized_path: Path, tmp_path: Path) -> None:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(quantized_path, options, providers=["CPUExecutionProvider"])
    operators = [node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node]
    card = open_session(quantized_path)[1]
    convolutions = sum(layer.startswith("Conv") for layer in card.quantization.layers)
    assert operators.count("QLinearConv") == convolutions
    assert operators.count("MatMulIntegerToFloat") == 2


def test_the_vectors_are_nearly_those_of_the_original(
    quantized_path: Path, model_path: Path
) -> None:
    before, after = Encoder.open(model_path), Encoder.open(quantized_path)
    for seconds, level in ((0.05, 0.1), (0.7, 0.01), (2.0, 0.3), (11.0, 0.1)):
        samples = noise(seconds, seed=7, level=level)
        assert cosine(before.embed(samples), after.embed(samples)) > 0.999


def test_no_weight_may_overflow_the_sums_of_older_processors(quantized_path: Path) -> None:
    weights = [
        numpy_helper.to_array(tensor)
        for tensor in onnx.load(quantized_path).graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and tensor.dims[1:]
    ]
    assert weights
    for values in weights:
        assert 60 <= np.abs(values.astype(int)).max() <= 63  # 2 * 255 * 63 < 2^15


def test_the_card_says_what_was_done(
    quantized_path: Path, model_path: Path, encoder_name: str, calibration_audio: Path
) -> None:
    before, after = open_session(model_path)[1], open_session(quantized_path)[1]
    made = after.quantization
    assert before.quantization is None
    assert made is not None
    assert (made.of, made.space_id) == (before.name, before.space_id)
    assert made.layers == LAYERS[encoder_name]
    assert (made.weight_bits, made.clips, made.held_out) == (7, 18, 6)
    assert made.sources == {calibration_audio.name: 18}
    assert made.seconds == pytest.approx(27.0)
    assert 0.999 < made.cosine_min <= made.cosine_mean <= 1
    assert after.name == quantized_path.stem
    assert after.training == before.training
    assert after.space_id.startswith("va1-")
    assert after.space_id != before.space_id
    assert quantized_path.stat().st_size < model_path.stat().st_size


def test_the_golden_vector_is_that_of_eight_bits(quantized_path: Path, model_path: Path) -> None:
    encoder = Encoder.open(quantized_path)
    assert encoder.self_test() < 1e-6
    original = open_session(model_path)[1].golden.vector()
    assert np.abs(encoder.card.golden.vector() - original).max() > 1e-4


@pytest.mark.parametrize(("factor", "fits"), [(1.005, True), (1.02, False)])
def test_eight_bits_may_be_a_step_off_the_golden_vector_and_no_more(
    quantized_path: Path, factor: float, fits: bool
) -> None:
    card = open_session(quantized_path)[1]
    vector = card.golden.vector() * np.float32(factor)
    if fits:
        assert modelfile.golden_error(card, vector) == pytest.approx(factor - 1, rel=0.01)
    else:
        with pytest.raises(ModelFileError, match=r"at most 0\.01 is allowed"):
            modelfile.golden_error(card, vector)


def test_the_space_follows_the_ranges_and_the_weights_alone(
    model_path: Path, calibration_audio: Path, tmp_path: Path
) -> None:
    def space(name: str, **options: int) -> str:
        return quantize(model_path, [calibration_audio], tmp_path / name, **options).space_id

    assert space("one.onnx") == space("same.onnx")
    others = {space("seed.onnx", n_clips=8), space("bits.onnx", weight_bits=8)}
    assert len(others | {space("one.onnx")}) == 3


def test_what_changes_too_much_is_refused_and_not_written(
    model_path: Path, calibration_audio: Path, tmp_path: Path
) -> None:
    out = tmp_path / "q.onnx"
    with pytest.raises(QuantizationError, match=r"cosine of 0\.9999\d; at least 1 is asked for"):
        quantize(model_path, [calibration_audio], out, least_cosine=1)
    assert list(tmp_path.iterdir()) == []


def test_a_quantised_file_is_not_quantised_again(
    quantized_path: Path, calibration_audio: Path, tmp_path: Path
) -> None:
    with pytest.raises(QuantizationError, match="quantise that file instead"):
        quantize(quantized_path, [calibration_audio], tmp_path / "q.onnx")


def test_one_clip_is_too_few(model_path: Path, tmp_path: Path) -> None:
    sf.write(tmp_path / "one.wav", noise(1.0), 16_000)
    with pytest.raises(QuantizationError, match="1 clips were found; at least 2"):
        quantize(model_path, [tmp_path], tmp_path / "q.onnx")


def test_sources_take_turns_and_broken_files_are_passed_over(tmp_path: Path) -> None:
    for source, n_clips in (("many", 20), ("few", 3)):
        (tmp_path / source).mkdir()
        for number in range(n_clips):
            sf.write(tmp_path / source / f"{number}.wav", noise(0.1, number), 16_000)
    (tmp_path / "few" / "broken.wav").write_bytes(b"RIFF")
    sources = [tmp_path / "many", tmp_path / "few"]
    drawn = draw(sources, 8, np.random.default_rng(0))
    assert sorted(clip.source for clip in drawn) == ["few"] * 3 + ["many"] * 5
    again = draw(sources, 8, np.random.default_rng(0))
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(drawn, again, strict=True))


def test_clips_longer_than_a_tile_are_cut(tmp_path: Path) -> None:
    sf.write(tmp_path / "long.wav", noise(30.0), 16_000)
    (clip,) = draw([tmp_path], 4, np.random.default_rng(0))
    assert len(clip.samples) == 163_840


def test_a_store_is_named_alone(store: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="name it alone"):
        draw([store, tmp_path], 4, np.random.default_rng(0))


def test_the_command_writes_a_file_that_embeds(model_path: Path, tmp_path: Path) -> None:
    store, out = write_noise(tmp_path, n_clips=6), tmp_path / "small-int8.onnx"
    arguments = ("quantize", model_path, "--audio", store, "-o", out, "--probe", "birds=0.5")
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert "layers in eight bits" in result.output
    assert "on 2 clips held out" in result.output
    encoder = Encoder.open(out)
    assert encoder.card.probes == {"birds": 0.5}
    assert encoder.card.quantization.sources == {"clips": 4}
    assert encoder.embed(noise(1.0)).shape == (encoder.card.embed_dim,)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("gone.onnx", "--audio", "."), 1, "no model file at gone.onnx"),
        (("MODEL", "--audio", "gone"), 1, "gone is neither a folder nor a file"),
        (("MODEL", "--audio", "AUDIO", "--least-cosine", 1), 1, "at least 1 is asked for"),
        (("MODEL", "--audio", "AUDIO", "--weight-bits", 4), 2, "weight-bits"),
        (("MODEL",), 2, "--audio"),
    ],
)
def test_what_a_person_can_put_right_is_one_line(
    arguments: tuple, code: int, message: str, model_path: Path, calibration_audio: Path, tmp_path
) -> None:
    places = {"MODEL": model_path, "AUDIO": calibration_audio}
    result = run("quantize", *(places.get(a, a) for a in arguments), "-o", tmp_path / "q.onnx")
    assert result.exit_code == code
    assert message in result.output
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_ships_is_quantized_by_its_name(
    calibration_audio: Path, tmp_path: Path
) -> None:
    card = quantize(Path("default"), [calibration_audio], tmp_path / "q.onnx", least_cosine=0)
    assert card.quantization.of == "default"
