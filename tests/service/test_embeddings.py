import base64
import io

import httpx
import numpy as np
import pyarrow
import pyarrow.ipc
import pytest
from numpy.typing import NDArray

from models.runtime import Encoder
from service.formats.vectors import vector
from service.outputs import arrow
from service.problems import Problem
from service.schemas import EmbeddingList
from tests.service.conftest import EMBED_DIM, FRAME_HOP, encoded, tone

URL = "/v1/audio/embeddings"
WAV = {"Content-Type": "audio/wav"}


def form(*files: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("file", (f"{index}.wav", data)) for index, data in enumerate(files)]


def unpacked(text: str) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text), "<f4")


def array(answer: httpx.Response) -> NDArray[np.float32]:
    return np.load(io.BytesIO(answer.content), allow_pickle=False)


def test_a_file_posted_as_the_body_gets_the_vector_that_the_encoder_computes(
    client: httpx.Client, encoder: Encoder
) -> None:
    samples = tone(1.5)
    answer = client.post(URL, content=encoded(samples), headers=WAV)
    assert answer.status_code == 200
    body = answer.json()
    EmbeddingList.model_validate(body)
    assert (body["object"], body["model"], body["space_id"]) == ("list", "tiny", "space-of-tiny")
    (item,) = body["data"]
    assert (item["object"], item["index"], item["duration_s"]) == ("embedding", 0, 1.5)
    assert "file" not in item
    assert "windows" not in item
    expected = encoder.embed(samples)
    np.testing.assert_allclose(item["embedding"], expected, atol=1e-4)  # 16-bit WAV
    assert body["usage"] == {"audio_seconds": 1.5, "windows": 0}


def test_files_of_a_form_keep_their_order_and_get_what_each_gets_alone(
    client: httpx.Client,
) -> None:
    files = [encoded(tone(seconds, hz=hz)) for seconds, hz in ((0.4, 200), (12.0, 500), (0.4, 900))]
    together = client.post(URL, files=form(*files)).json()["data"]
    alone = [client.post(URL, files=form(file)).json()["data"][0] for file in files]
    assert [item["index"] for item in together] == [0, 1, 2]
    assert [item["file"] for item in together] == ["0.wav", "1.wav", "2.wav"]
    for one, many in zip(alone, together, strict=True):
        np.testing.assert_allclose(many["embedding"], one["embedding"], atol=1e-6)


@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
@pytest.mark.parametrize(
    "media_type", ["audio/wav", "audio/mpeg", "application/octet-stream", "AUDIO/X; rate=1", None]
)
def test_the_bytes_and_not_the_content_type_tell_the_format(
    client: httpx.Client, kind: str, media_type: str | None
) -> None:
    headers = {"Content-Type": media_type} if media_type else {}
    answer = client.post(URL, content=encoded(tone(), kind=kind), headers=headers)
    assert answer.status_code == 200


def test_other_rates_and_channels_are_brought_to_16_khz_mono(client: httpx.Client) -> None:
    samples = tone(1.0, rate=44_100)
    stereo = encoded(np.stack([samples, samples], axis=1), rate=44_100)
    (item,) = client.post(URL, content=stereo, headers=WAV).json()["data"]
    assert item["duration_s"] == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("in_form", [False, True])
def test_windows_come_with_their_times_beside_the_whole(
    client: httpx.Client, encoder: Encoder, in_form: bool
) -> None:
    asked = {"window_s": "0.5", "hop_s": "0.25"}
    wav = encoded(tone(2.0))
    answer = (
        client.post(URL, files=form(wav), data=asked)
        if in_form
        else client.post(URL, content=wav, params=asked, headers=WAV)
    )
    body = answer.json()
    EmbeddingList.model_validate(body)
    (item,) = body["data"]
    assert len(item["embedding"]) == EMBED_DIM
    assert [w["start_s"] for w in item["windows"]] == pytest.approx(np.arange(7) * 0.25)
    assert [w["end_s"] for w in item["windows"]] == pytest.approx(np.arange(7) * 0.25 + 0.5)
    assert all(len(w["embedding"]) == EMBED_DIM for w in item["windows"])
    assert body["usage"]["windows"] == 7


def test_base64_holds_the_same_numbers(client: httpx.Client) -> None:
    wav, asked = encoded(tone()), {"window_s": 0.5}
    numbers = client.post(URL, content=wav, params=asked, headers=WAV).json()["data"][0]
    packed = client.post(URL, content=wav, params=asked | {"output": "base64"}, headers=WAV).json()[
        "data"
    ][0]
    np.testing.assert_array_equal(unpacked(packed["embedding"]), np.float32(numbers["embedding"]))
    for one, other in zip(packed["windows"], numbers["windows"], strict=True):
        np.testing.assert_array_equal(unpacked(one["embedding"]), np.float32(other["embedding"]))


def test_npy_has_a_row_for_each_file(client: httpx.Client) -> None:
    files = form(encoded(tone(0.5)), encoded(tone(1.0, hz=100)))
    answer = client.post(URL, files=files, params={"output": "npy"})
    assert answer.headers["Content-Type"] == "application/x-npy"
    assert answer.headers["Viola-Space-Id"] == "space-of-tiny"
    assert answer.headers["Viola-Model"] == "tiny"
    assert float(answer.headers["Viola-Audio-Seconds"]) == 1.5
    data = client.post(URL, files=files).json()["data"]
    rows = array(answer)
    assert rows.dtype == np.dtype("<f4")
    np.testing.assert_array_equal(rows, np.float32([item["embedding"] for item in data]))


def test_npy_of_one_file_with_windows_has_a_row_for_each_window(client: httpx.Client) -> None:
    asked = {"output": "npy", "window_s": "0.5", "hop_s": "0.25"}
    answer = client.post(URL, content=encoded(tone(2.0)), params=asked, headers=WAV)
    assert array(answer).shape == (7, EMBED_DIM)
    assert float(answer.headers["Viola-Window-S"]) == 0.5
    assert float(answer.headers["Viola-Hop-S"]) == 0.25


def test_the_forms_fields_win_over_the_query_and_empty_ones_do_not_count(
    client: httpx.Client,
) -> None:
    answer = client.post(
        URL,
        files=form(encoded(tone())),
        data={"output": "base64", "window_s": ""},
        params={"output": "npy", "window_s": "0.5"},
    )
    (item,) = answer.json()["data"]
    assert isinstance(item["embedding"], str)
    assert len(item["windows"]) == 2


def test_a_broken_file_is_reported_in_its_place_and_stops_no_other(client: httpx.Client) -> None:
    files = form(encoded(tone()), b"no audio at all", encoded(tone(0.5)), b"")
    answer = client.post(URL, files=files)
    assert answer.status_code == 200
    body = answer.json()
    EmbeddingList.model_validate(body)
    good, unknown, short, empty = body["data"]
    assert len(good["embedding"]) == len(short["embedding"]) == EMBED_DIM
    assert "embedding" not in unknown
    assert (unknown["index"], unknown["file"]) == (1, "1.wav")
    assert unknown["error"]["type"] == "/problems/unsupported-format"
    assert unknown["error"]["status"] == 415
    assert empty["error"]["type"] == "/problems/empty"
    assert body["usage"]["audio_seconds"] == 1.5


def test_a_file_name_is_echoed_printable_and_short(client: httpx.Client) -> None:
    name = "../../etc/\u202epasswd\x07" + "x" * 300
    answer = client.post(URL, files={"file": (name, encoded(tone()))})
    shown = answer.json()["data"][0]["file"]
    assert shown.startswith("../../etc/\ufffdpasswd")
    assert len(shown) == 128
    assert shown.isprintable()


def test_the_answer_says_where_the_time_went(client: httpx.Client) -> None:
    answer = client.post(URL, content=encoded(tone()), headers=WAV)
    stages = [stage.partition(";dur=") for stage in answer.headers["Server-Timing"].split(", ")]
    assert [name for name, _, _ in stages] == ["receive", "decode", "infer", "render", "total"]
    assert all(float(ms) >= 0 for _, _, ms in stages)


def test_the_shortest_clip_is_25_ms(client: httpx.Client) -> None:
    assert client.post(URL, content=encoded(tone(0.025)), headers=WAV).status_code == 200


def test_a_window_may_be_one_frame_and_longer_than_the_recording(client: httpx.Client) -> None:
    frame_s = FRAME_HOP / 16_000
    for window_s, count in ((frame_s, 20), (3600, 1)):
        answer = client.post(
            URL, content=encoded(tone(0.2)), params={"window_s": window_s}, headers=WAV
        )
        item = answer.json()["data"][0]
        assert len(item["windows"]) == count
        if count == 1:  # and has the recording's vector
            assert item["windows"][0]["embedding"] == item["embedding"]
            assert item["windows"][0]["end_s"] == pytest.approx(0.2)


def test_half_precision_is_base64_of_float16(client: httpx.Client) -> None:
    wav = encoded(tone())
    full = client.post(URL, content=wav, headers=WAV).json()["data"][0]["embedding"]
    asked = {"output": "base64-f16"}
    item = client.post(URL, content=wav, params=asked, headers=WAV).json()["data"][0]
    half = np.frombuffer(base64.b64decode(item["embedding"]), "<f2")
    np.testing.assert_array_equal(half, np.float16(full))


def test_half_precision_refuses_what_it_cannot_hold() -> None:
    with pytest.raises(Problem) as caught:
        vector(np.full(EMBED_DIM, 70_000, np.float32), "base64-f16")
    assert (caught.value.status_code, caught.value.extensions["limit"]) == (400, 65_504)


@pytest.mark.parametrize("window_s", [None, 0.5])
def test_arrow_has_a_row_for_each_file_or_each_window(
    client: httpx.Client, window_s: float | None
) -> None:
    files = form(encoded(tone(0.5)), encoded(tone(1.0, hz=100)))
    asked = {"window_s": window_s} if window_s else {}
    answer = client.post(URL, files=files, params={"output": "arrow"} | asked)
    assert answer.headers["Content-Type"] == "application/vnd.apache.arrow.stream"
    assert answer.headers["Viola-Space-Id"] == "space-of-tiny"
    assert answer.headers["Viola-Audio-Seconds"] == "1.500000"
    table = pyarrow.ipc.open_stream(answer.content).read_all()
    assert table.schema.metadata[b"space_id"] == b"space-of-tiny"
    data = client.post(URL, files=files, params=asked).json()["data"]
    rows = [(item, w) for item in data for w in item.get("windows", [item])]
    assert table["index"].to_pylist() == [item["index"] for item, _ in rows]
    assert table["file"].to_pylist() == [item["file"] for item, _ in rows]
    assert table["end_s"].to_pylist() == [w.get("end_s", w.get("duration_s")) for _, w in rows]
    found = np.stack(table["embedding"].to_numpy())
    np.testing.assert_array_equal(found, np.float32([w["embedding"] for _, w in rows]))


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("application/x-npy", "application/x-npy"),
        ("text/html, application/vnd.apache.arrow.stream;q=0.9", arrow.FORMAT.media_type),
        ("application/json, application/x-npy", "application/json"),
        ("application/json;q=0.5, application/x-npy", "application/x-npy"),
        ("application/x-ndjson;q=0.1, application/json", "application/json"),
        ("*/*", "application/json"),
        ("image/png", "application/json"),
    ],
)
def test_accept_chooses_the_output_unless_a_parameter_does(
    client: httpx.Client, accept: str, media_type: str
) -> None:
    headers = WAV | {"Accept": accept}
    answer = client.post(URL, content=encoded(tone()), headers=headers)
    assert answer.headers["Content-Type"] == media_type
    asked = {"output": "base64"}
    answer = client.post(URL, content=encoded(tone()), headers=headers, params=asked)
    assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("query", ["", "&window_s=0.5"])
def test_vectors_are_shortened_in_every_output(client: httpx.Client, query: str) -> None:
    def post(more: str) -> httpx.Response:
        return client.post(f"{URL}?dimensions=2{query}{more}", content=encoded(tone(1.0)))

    whole = client.post(f"{URL}?{query}", content=encoded(tone(1.0))).json()["data"][0]
    items = whole.get("windows", [whole])
    cut = np.array([item["embedding"] for item in items], np.float32)[:, :2]
    expected = cut / np.linalg.norm(cut, axis=1, keepdims=True)
    body = post("").json()
    (found,) = body["data"]
    short = [item["embedding"] for item in found.get("windows", [found])]
    np.testing.assert_allclose(short, expected, rtol=1e-6)
    assert body["space_id"] == "space-of-tiny"
    np.testing.assert_allclose(array(post("&output=npy")), expected, rtol=1e-6)
    table = pyarrow.ipc.open_stream(post("&output=arrow").content).read_all()
    np.testing.assert_allclose(np.stack(table["embedding"].to_pylist()), expected, rtol=1e-6)
    lines = post("&stream=true").text.splitlines()
    assert any("embedding" in line for line in lines)


def test_more_dimensions_than_the_model_has_are_refused(client: httpx.Client) -> None:
    answer = client.post(f"{URL}?dimensions={EMBED_DIM + 1}", content=encoded(tone(1.0)))
    assert answer.status_code == 400
    assert (answer.json()["param"], answer.json()["limit"]) == ("dimensions", EMBED_DIM)
