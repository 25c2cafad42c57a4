import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from structlog.testing import capture_logs

from models.audio import SAMPLE_RATE
from models.classifier import Classifier
from models.runtime import Encoder
from service.formats.teaching_answers import ClassifierList
from service.schemas import AnalysisList, ClassificationList
from service.settings import Settings
from tests.heads import GRAPH, LABELS, NOVEL_FROM, write_head
from tests.service.conftest import Serve, encoded, serving, tone, write_model

URL = "/v1/audio/classifications"
ANALYZE = "/v1/audio/analyze"
WAV = {"Content-Type": "audio/wav"}
PITCHES = {"low": 100, "middle": 200, "high": 400}  # Hz of the tiny encoder's filters


@pytest.fixture(scope="module")
def folder(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder, another one of its own space, and heads: two of the first, one of the other."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copy(model_file, folder / "tiny.onnx")
    write_model(folder / "wide.onnx", "wide")
    write_head(folder / "pitch.onnx")
    write_head(folder / "chord.onnx", "chord", multi_label=True)
    write_head(folder / "apart.onnx", "apart", space_id="space-of-wide")
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    settings = Settings(models=folder, default_model="tiny", default_head="pitch", threads=1)
    with serving(settings) as client:
        yield client


def chime(seconds: float, hz: float, level: float = 0.5) -> NDArray[np.float32]:
    """A cosine, as the tiny encoder's filters are, (S,)."""
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (level * np.cos(2 * np.pi * hz * t)).astype(np.float32)


def post(client: httpx.Client, samples: np.ndarray, url: str = URL, **asked: Any) -> dict[str, Any]:
    answer = client.post(url, content=encoded(samples), params=asked, headers=WAV)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


@pytest.mark.parametrize("label", LABELS)
def test_a_file_gets_labels_best_first(client: httpx.Client, label: str) -> None:
    body = post(client, chime(1.0, PITCHES[label]))
    ClassificationList.model_validate(body)
    assert (body["model"], body["head"]) == ("tiny", "pitch")
    assert body["space_id"] == "space-of-tiny"
    assert body["usage"] == {"audio_seconds": 1.0, "windows": 0}
    (item,) = body["data"]
    assert (item["object"], item["index"], item["duration_s"]) == ("classification", 0, 1.0)
    assert "windows" not in item
    scores = [p["score"] for p in item["predictions"]]
    assert item["predictions"][0]["label"] == label
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1, abs=1e-5)
    assert "is_present" not in item["predictions"][0]


def test_scores_are_those_of_the_classifier_on_the_encoders_vector(
    client: httpx.Client, encoder: Encoder, folder: Path
) -> None:
    samples = chime(1.5, 200, 0.1)
    found = Classifier.open(folder / "pitch.onnx").predict(encoder.embed(samples)[None])
    (item,) = post(client, samples)["data"]
    for prediction in item["predictions"]:
        expected = found.probabilities[0, LABELS.index(prediction["label"])]
        assert prediction["score"] == pytest.approx(expected, abs=1e-3)  # 16-bit WAV
    assert item["novelty"]["score"] == pytest.approx(found.novelty[0], abs=1e-3)


def test_a_novel_input_is_marked(client: httpx.Client) -> None:
    for level, is_novel in ((0.1, False), (0.9, True)):
        novelty = post(client, chime(1.0, 100, level))["data"][0]["novelty"]
        assert novelty["threshold"] == NOVEL_FROM
        assert novelty["is_novel"] == (novelty["score"] > NOVEL_FROM) == is_novel


def test_top_k_and_threshold_leave_labels_out(client: httpx.Client) -> None:
    samples = chime(1.0, 100, 0.05)
    whole = post(client, samples)["data"][0]["predictions"]
    assert post(client, samples, top_k=2)["data"][0]["predictions"] == whole[:2]
    kept = post(client, samples, threshold=whole[0]["score"])["data"][0]["predictions"]
    assert kept == whole[:1]
    assert post(client, samples, threshold=1.5)["data"][0]["predictions"] == []


def test_functions_apply_to_the_calibrated_logits(client: httpx.Client) -> None:
    samples = chime(1.0, 200, 0.05)
    scores = {
        name: {p["label"]: p["score"] for p in predictions}
        for name in ("none", "softmax", "sigmoid")
        for predictions in [post(client, samples, function_to_apply=name)["data"][0]["predictions"]]
    }
    logits = np.array([scores["none"][label] for label in LABELS])
    softmax = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose([scores["softmax"][k] for k in LABELS], softmax, atol=1e-6)
    sigmoid = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose([scores["sigmoid"][k] for k in LABELS], sigmoid, atol=1e-6)
    usual = {p["label"]: p["score"] for p in post(client, samples)["data"][0]["predictions"]}
    assert usual == pytest.approx(scores["softmax"], abs=1e-6)


def test_a_multi_label_head_says_which_labels_hold(client: httpx.Client) -> None:
    (item,) = post(client, chime(1.0, 200, 0.1), head="chord")["data"]
    thresholds = dict(zip(LABELS, (0.25, 0.5, 0.75), strict=True))
    for prediction in item["predictions"]:
        above = prediction["score"] >= thresholds[prediction["label"]]
        assert prediction["is_present"] == above


@pytest.mark.parametrize("in_form", [False, True])
def test_windows_have_their_own_labels_beside_the_whole(
    client: httpx.Client, in_form: bool
) -> None:
    wav = encoded(np.concatenate([chime(1.0, 100), chime(1.0, 400)]))
    asked = {"granularity": "window", "window_s": "0.5", "hop_s": "0.25", "top_k": "1"}
    answer = (
        client.post(URL, files={"file": ("a.wav", wav)}, data=asked)
        if in_form
        else client.post(URL, content=wav, params=asked, headers=WAV)
    )
    body = answer.json()
    ClassificationList.model_validate(body)
    (item,) = body["data"]
    assert body["usage"]["windows"] == len(item["windows"]) == 7
    best = [window["predictions"][0]["label"] for window in item["windows"]]
    assert (best[:3], best[4:]) == (["low"] * 3, ["high"] * 3)
    assert [w["start_s"] for w in item["windows"]] == pytest.approx(np.arange(7) * 0.25)
    assert all("is_novel" in window["novelty"] for window in item["windows"])
    assert len(item["predictions"]) == 1


def test_windows_are_as_long_as_the_training_clips_unless_asked(client: httpx.Client) -> None:
    (item,) = post(client, tone(2.0), granularity="window")["data"]
    assert [w["end_s"] - w["start_s"] for w in item["windows"]] == pytest.approx([0.5] * 4)


def test_a_broken_file_is_reported_in_its_place(client: httpx.Client) -> None:
    files = [("file", (f"{i}.wav", data)) for i, data in enumerate((encoded(tone()), b"no audio"))]
    for url, key in ((URL, "predictions"), (ANALYZE, "embedding")):
        body = client.post(url, files=files).json()
        assert key in body["data"][0]
        assert key not in body["data"][1]
        assert body["data"][1]["error"]["type"] == "/problems/unsupported-format"
        alone = client.post(url, files=files[1:])
        assert (alone.status_code, alone.json()["file"]) == (415, "1.wav")


def test_an_analysis_is_the_embedding_and_what_every_fitting_head_says(
    client: httpx.Client,
) -> None:
    samples, windows = chime(1.0, 100), {"window_s": 0.5}
    body = post(client, samples, ANALYZE, **windows)
    AnalysisList.model_validate(body)
    (item,) = body["data"]
    (embedded,) = post(client, samples, "/v1/audio/embeddings", **windows)["data"]
    assert item["embedding"] == embedded["embedding"]
    assert [c["head"] for c in item["classifications"]] == ["chord", "pitch"]
    (labelled,) = post(client, samples, granularity="window", **windows)["data"]
    assert item["classifications"][1]["predictions"] == labelled["predictions"]
    for window, vector, labels in zip(
        item["windows"], embedded["windows"], labelled["windows"], strict=True
    ):
        assert window["embedding"] == vector["embedding"]
        assert window["classifications"][1]["predictions"] == labels["predictions"]
        assert window["classifications"][1]["novelty"] == labels["novelty"]


def test_an_analysis_by_one_head_packs_vectors_on_request(client: httpx.Client) -> None:
    (item,) = post(client, tone(), ANALYZE, head="apart", output="base64")["data"]
    assert [c["head"] for c in item["classifications"]] == ["apart"]
    assert isinstance(item["embedding"], str)


def test_a_named_head_brings_its_model(client: httpx.Client) -> None:
    body = post(client, tone(), head="apart")
    assert (body["model"], body["space_id"]) == ("wide", "space-of-wide")
    assert post(client, tone(), model="wide")["head"] == "apart"


@pytest.mark.parametrize("url", [URL, ANALYZE])
@pytest.mark.parametrize(
    ("asked", "status", "slug", "words"),
    [
        ({"head": "smell"}, 404, "classifier-not-found", "there is: apart, chord, pitch"),
        ({"model": "huge"}, 404, "model-not-found", "there is: tiny, wide"),
        ({"model": "wide", "head": "pitch"}, 409, "space-mismatch", "space-of-wide"),
        ({"top_k": 0}, 400, "invalid-parameter", "top_k = 0"),
        ({"top_k": 101}, 400, "invalid-parameter", "top_k = 101"),
        ({"threshold": "nan"}, 400, "invalid-parameter", "threshold"),
        ({"function_to_apply": "tanh"}, 400, "invalid-parameter", "function_to_apply"),
        ({"output": "npy"}, 400, "invalid-parameter", "output"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    client: httpx.Client, url: str, asked: dict[str, Any], status: int, slug: str, words: str
) -> None:
    answer = client.post(url, content=encoded(tone()), params=asked, headers=WAV)
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{slug}")
    assert words in answer.json()["detail"]


def test_windows_need_their_granularity(client: httpx.Client) -> None:
    for name in ("window_s", "hop_s"):
        answer = client.post(URL, content=encoded(tone()), params={name: 1}, headers=WAV)
        assert answer.status_code == 400
        assert "granularity=window" in answer.json()["detail"]


def test_the_answer_says_where_the_time_went(client: httpx.Client) -> None:
    for url in (URL, ANALYZE):
        answer = client.post(url, content=encoded(tone()), headers=WAV)
        stages = [stage.partition(";")[0] for stage in answer.headers["Server-Timing"].split(", ")]
        assert stages == ["receive", "decode", "infer", "classify", "render", "total"]


def test_classifiers_are_listed_with_their_cards(client: httpx.Client) -> None:
    listed = client.get("/v1/classifiers").json()
    ClassifierList.model_validate(listed)
    entries = {entry["id"]: entry for entry in listed["data"]}
    assert list(entries) == ["apart", "chord", "pitch"]
    assert {name: entry["default"] for name, entry in entries.items()} == {
        "apart": True,
        "chord": False,
        "pitch": True,
    }
    assert entries["pitch"]["models"] == ["tiny"]
    assert entries["pitch"]["card"]["labels"] == LABELS
    assert "logits" not in entries["pitch"]["card"]["golden"]
    assert client.get("/v1/classifiers/pitch").json() == entries["pitch"]
    missing = client.get("/v1/classifiers/smell")
    assert missing.json()["type"] == "/problems/classifier-not-found"


def test_heads_that_fail_are_reported_and_the_rest_serves(
    serve: Serve, model_file: Path, tmp_path: Path
) -> None:
    shutil.copy(model_file, tmp_path / "tiny.onnx")
    write_head(tmp_path / "pitch.onnx")
    write_head(tmp_path / "foreign.onnx", "foreign", space_id="va1-elsewhere")
    write_head(tmp_path / "off.onnx", "off", golden_scale=1.01)
    with capture_logs() as logs, serve(models=tmp_path) as client:
        answer = client.get("/readyz")
        listed = client.get("/v1/classifiers").json()["data"]
        assert client.post(URL, content=encoded(tone()), headers=WAV).status_code == 200
    assert answer.status_code == 200
    assert [model["name"] for model in answer.json()["models"]] == ["tiny"]
    status = {c.get("name") or c["file"]: c for c in answer.json()["classifiers"]}
    assert set(status) == {"pitch", "foreign.onnx", "off.onnx"}
    assert status["pitch"]["golden_error"] < 1e-5
    assert "va1-elsewhere" in status["foreign.onnx"]["reason"]
    assert "tiny space-of-tiny" in status["foreign.onnx"]["reason"]
    assert "golden" in status["off.onnx"]["reason"]
    assert [head["id"] for head in listed] == ["pitch"]
    assert sum(entry["event"] == "model refused" for entry in logs) == 2


def test_a_default_head_that_is_not_there_is_reported(serve: Serve, folder: Path) -> None:
    with serve(models=folder, default_model="tiny", default_head="smell") as client:
        (missing,) = (c for c in client.get("/readyz").json()["classifiers"] if "reason" in c)
        assert (missing["file"], missing["status"]) == ("smell", "refused")
        assert post(client, tone())["head"] == "chord"


def test_without_a_head_there_is_no_classification(serve: Serve) -> None:
    with serve() as client:
        answer = client.post(URL, content=encoded(tone()), headers=WAV)
        assert answer.json()["type"] == "/problems/classifier-not-found"
        assert "tiny, space space-of-tiny" in answer.json()["detail"]
        assert client.get("/v1/classifiers").json() == {"object": "list", "data": []}
        assert post(client, tone(), ANALYZE)["data"][0]["classifications"] == []


def test_a_head_alone_is_no_model(serve: Serve, tmp_path: Path) -> None:
    with serve(models=write_head(tmp_path / "pitch.onnx")) as client:
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert "there is: none" in ready.json()["classifiers"][0]["reason"]


def test_scores_that_are_no_numbers_never_leave(
    serve: Serve, model_file: Path, tmp_path: Path
) -> None:
    shutil.copy(model_file, tmp_path / "tiny.onnx")
    root = "product = MatMul (embedding, weights) sum = Add (product, three) logits = Sqrt (sum)"
    graph = GRAPH.replace("logits = MatMul (embedding, weights)", root)
    write_head(tmp_path / "pitch.onnx", graph=graph.replace("{1}>", "{1}, float three = {3.0}>"))
    turned_over = -chime(1.0, 100)  # each frame's product with its filter is far below -3
    files = [("file", (name, encoded(s))) for name, s in (("a", turned_over), ("b", -turned_over))]
    with serve(models=tmp_path) as client:
        assert client.post(URL, files=files[:1]).json()["type"] == "/problems/internal"
        first, second = client.post(URL, files=files).json()["data"]
    assert first["error"]["type"] == "/problems/internal"
    assert "predictions" in second


def test_predictions_leave_in_lines_as_one_answer_would_hold_them(client: httpx.Client) -> None:
    wav = encoded(np.concatenate([chime(12.0, hz) for hz in PITCHES.values()]))
    asked = {"granularity": "window", "window_s": 4.0, "top_k": 2}
    (whole,) = client.post(URL, content=wav, params=asked).json()["data"]
    answer = client.post(URL, content=wav, params=asked | {"stream": True})
    _, *windows, last, done = (json.loads(line) for line in answer.text.splitlines())
    assert (last["object"], last["head"]) == ("classification", "pitch")
    assert last["predictions"] == whole["predictions"]
    assert last["novelty"] == whole["novelty"]
    for one, other in zip(windows, whole["windows"], strict=True):
        assert {name: one[name] for name in other} == other
    assert done["usage"]["windows"] == 9


def test_several_classifiers_in_one_pass_say_what_each_says_alone(client: httpx.Client) -> None:
    samples = np.concatenate([chime(1.0, 100, 0.1), chime(1.0, 400, 0.1)])
    asked = {"granularity": "window", "window_s": 0.5}
    alone = {name: post(client, samples, head=name, **asked)["data"][0] for name in LISTED}
    for names in (["pitch,chord"], LISTED):
        body = post(client, samples, classifier=names, **asked)
        ClassificationList.model_validate(body)
        assert body["heads"] == LISTED
        assert "head" not in body
        (item,) = body["data"]
        assert "predictions" not in item
        for place, name in enumerate(LISTED):
            single = alone[name]
            for several, one in zip(
                [item, *item["windows"]], [single, *single["windows"]], strict=True
            ):
                found = several["classifications"][place]
                assert found == {
                    "head": name,
                    "predictions": one["predictions"],
                    "novelty": one["novelty"],
                }


LISTED = ["pitch", "chord"]


def test_classifiers_may_be_fields_of_the_form(client: httpx.Client) -> None:
    files = {"file": ("a.wav", encoded(tone()))}
    for given in ({"classifier": LISTED}, {"classifier": "pitch, chord"}):
        assert client.post(URL, files=files, data=given).json()["heads"] == LISTED
    assert client.post(URL, files=files, data={"classifier": "chord"}).json()["head"] == "chord"


def test_several_classifiers_label_lines_too(client: httpx.Client) -> None:
    asked = {"classifier": LISTED, "stream": True, "granularity": "window"}
    answer = client.post(URL, content=encoded(tone(2.0)), params=asked, headers=WAV)
    lines = [json.loads(line) for line in answer.text.splitlines()]
    windows = [line for line in lines if line["object"] == "window"]
    assert len(windows) == 4
    for line in [*windows, lines[-2]]:
        assert [one["head"] for one in line["classifications"]] == LISTED


def test_an_analysis_may_name_its_classifiers(client: httpx.Client) -> None:
    (item,) = post(client, tone(), ANALYZE, classifier="pitch,chord")["data"]
    assert sorted(c["head"] for c in item["classifications"]) == sorted(LISTED)


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ({"classifier": "pitch,apart"}, 409, "takes vectors of space space-of-wide"),
        ({"classifier": "pitch,nobody"}, 404, "no classifier 'nobody'"),
        ({"classifier": "pitch", "head": "chord"}, 400, "head names one already"),
        ({"classifier": ",".join(f"c{i}" for i in range(17))}, 400, "at most 16"),
        ({"classifier": ","}, 400, "at least 1"),
    ],
)
def test_classifiers_that_do_not_go_together_are_refused(
    client: httpx.Client, asked: dict[str, str], status: int, words: str
) -> None:
    answer = client.post(URL, content=encoded(tone()), params=asked, headers=WAV)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["detail"]


def of_vectors(client: httpx.Client, **members: Any) -> httpx.Response:
    return client.post(URL, json={"space_id": "space-of-tiny", **members})


def test_vectors_are_labelled_as_their_audio_is(client: httpx.Client) -> None:
    samples = np.concatenate([chime(1.0, 100, 0.1), chime(1.0, 400, 0.1)])
    asked = {"window_s": 0.5, "output": "base64"}
    (embedded,) = post(client, samples, "/v1/audio/embeddings", **asked)["data"]
    (plain,) = post(client, samples, "/v1/audio/embeddings", window_s=0.5)["data"]
    (labelled,) = post(client, samples, granularity="window", window_s=0.5)["data"]
    for given in (embedded["embedding"], plain["embedding"]):
        answer = of_vectors(client, embedding=given)
        assert answer.status_code == 200, answer.text
        ClassificationList.model_validate(answer.json())
        (item,) = answer.json()["data"]
        assert item["predictions"] == labelled["predictions"]
        assert item["novelty"] == labelled["novelty"]
    rows = [window["embedding"] for window in embedded["windows"]]
    body = of_vectors(client, embeddings=rows, top_k=2, classifier=LISTED).json()
    assert (body["model"], body["heads"], body["usage"]["audio_seconds"]) == ("tiny", LISTED, 0)
    assert len(body["data"]) == 4
    for item, window in zip(body["data"], labelled["windows"], strict=True):
        assert item["classifications"][0]["predictions"] == window["predictions"][:2]


def test_vectors_choose_the_model_of_their_space(client: httpx.Client) -> None:
    answer = client.post(URL, json={"space_id": "space-of-wide", "embedding": [0.1, 0, 0, 0]})
    assert (answer.json()["model"], answer.json()["head"]) == ("wide", "apart")


@pytest.mark.parametrize(
    ("members", "status", "words"),
    [
        ({"embedding": [0.1] * 3}, 400, "has 3 values; vectors of this space have 4"),
        ({"embedding": [0.1, 0.2, 0.3, 1e39]}, 400, "not finite"),
        ({"embedding": [0.1, 0.2, 0.3, -1e38]}, 400, "a value of 1e+38; at most 1e+06"),
        ({"embedding": [0.1, 0.2, 0.3, "x"]}, 400, "expected numbers"),
        ({"embedding": [0.1, 0.2, 0.3, True]}, 400, "expected numbers"),
        ({"embedding": "AAAA"}, 400, "not base64 of float32"),
        ({"embedding": "AADAfwAAwH8AAMB/AADAfw=="}, 400, "not finite"),
        ({"embeddings": [[0.1] * 4, [0.1] * 5]}, 400, "embeddings[1] has 5 values"),
        ({"embeddings": []}, 400, "a vector at least"),
        ({"embeddings": [[0.0] * 4] * 5000}, 413, "at most 4096"),
        ({}, 400, "Send `embedding`"),
        ({"embedding": [0.1] * 4, "embeddings": [[0.1] * 4]}, 400, "Send `embedding`"),
        ({"embedding": [0.1] * 4, "window_s": 1}, 400, "window_s means nothing for vectors"),
        ({"embedding": [0.1] * 4, "space_id": "elsewhere"}, 409, "No model here computes"),
        ({"embedding": [0.1] * 4, "head": "apart"}, 409, "takes those of space space-of-wide"),
        ({"embedding": [0.1] * 4, "top_k": 0}, 400, "top_k"),
        ({"embedding": [0.1] * 4, "space_id": None}, 400, "space_id is missing"),
        ({"embedding": [0.1] * 4, "space_id": 7}, 400, "space_id is a number"),
    ],
)
def test_vectors_that_cannot_be_labelled_are_refused(
    client: httpx.Client, members: dict[str, Any], status: int, words: str
) -> None:
    answer = of_vectors(client, **members)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["detail"]
