"""A collection as a file: Parquet, NumPy, CSV."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet
import pytest
from typer.testing import CliRunner, Result

import viola
from service.collections.records import Collection, Vectors
from service.collections.store import open_store
from service.collections.windows import Windows
from service.formats import exports
from service.streams import exporting
from tests.service.conftest import Serve, encoded, tone
from tests.service.test_collections import TONES, add
from tests.service.traffic.test_refusals import refused

URL = "/v1/collections/tones/vectors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def client(serve: Serve, folder: Path) -> Iterator[httpx.Client]:
    with serve(data=folder) as client:
        client.put("/v1/collections/tones", json={"window_s": 1.0})
        add(client, "tones", TONES | {"long-7": encoded(tone(7.5, hz=500))})
        client.put("/v1/collections/none")
        yield client


def stored(folder: Path) -> tuple[list[str], np.ndarray]:
    """Ids and vectors of all windows."""
    store = open_store(folder)
    collection = store.collections.get("", "tones")
    windows = store.windows.all(collection)
    items = store.items.by_key(collection, windows.items.tolist())
    store.close()
    return [items[key].id for key in windows.items.tolist()], windows.vectors


@pytest.mark.parametrize("rows", [3, 1024])
def test_parquet_holds_every_window_and_goes_into_another_collection(
    client: httpx.Client,
    folder: Path,
    tmp_path: Path,
    model_file: Path,
    rows: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exports, "ROWS", rows)
    answer = client.get(URL)
    assert answer.headers["Content-Type"] == "application/vnd.apache.parquet"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="tones.parquet"'
    assert answer.headers["Viola-Space-Id"] == "space-of-tiny"
    path = tmp_path / "tones.parquet"
    path.write_bytes(answer.content)
    table = pyarrow.parquet.read_table(path)
    ids, vectors = stored(folder)
    assert table["id"].to_pylist() == ids
    np.testing.assert_array_equal(np.array(table["embedding"].to_pylist(), np.float32), vectors)
    assert table["metadata"][0].as_py() == '{"hz": 110}'
    assert (table["file"][0].as_py(), table["start_s"][1].as_py()) == ("tone-110.wav", 1.0)
    command = ["index", str(path), "-o", str(tmp_path / "data"), "--window-s", "1"]
    done = CliRunner().invoke(viola.build(), [*command, "--model", str(model_file)])
    assert f"holds 7 recordings, {len(ids)} windows" in done.output, done.output


@pytest.fixture
def same_names(serve: Serve, tmp_path: Path) -> Path:
    """A folder with a collection whose files are all called the same, or not at all."""
    with serve(data=tmp_path / "data") as client:
        client.put("/v1/collections/tones", json={"window_s": 1.0})
        for hz in (200, 300, 400):
            wav = encoded(tone(2.0, hz=hz))
            about = {"id": f"at-{hz}", "metadata": f'{{"hz": {hz}, "day": true, "who": "é"}}'}
            sent: Any = {"files": {"file": ("a.wav", wav)}, "data": about}
            assert client.post("/v1/collections/tones/items", **sent).status_code == 201
        bare: Any = {"content": encoded(tone(1.1)), "headers": {"Content-Type": "audio/wav"}}
        assert client.post("/v1/collections/tones/items", **bare).status_code == 201
        (tmp_path / "tones.parquet").write_bytes(client.get(URL).content)
    return tmp_path


def contents(folder: Path) -> list[tuple[Any, ...]]:
    """What is told of the items of the only collection, and their windows."""
    store = open_store(folder)
    (collection,) = store.collections.all()
    windows = store.windows.all(collection)
    found = [
        (
            item.id,
            item.sha256,
            item.file,
            item.duration_s,
            dict(item.metadata),
            windows.vectors[windows.items == item.key].tobytes(),
        )
        for item in store.items.every(collection)
    ]
    store.close()
    return found


def index(path: Path, data: Path, model_file: Path) -> Result:
    words = ["index", path, "-o", data, "--window-s", 1, "--model", model_file]
    return CliRunner().invoke(viola.build(), list(map(str, words)))


def test_an_export_makes_the_same_items_again(same_names: Path, model_file: Path) -> None:
    exported, other = same_names / "tones.parquet", same_names / "other"
    done = index(exported, other, model_file)
    assert "holds 4 recordings, 7 windows; 4 added" in done.output, done.output
    assert contents(other) == contents(same_names / "data")
    again = index(exported, other, model_file)
    assert (again.exit_code, "0 added, 4 there already, 0 failed" in again.output) == (0, True)


def test_an_export_of_before_it_told_digests_has_the_same_ids(
    same_names: Path, model_file: Path
) -> None:
    table = pyarrow.parquet.read_table(same_names / "tones.parquet")
    pyarrow.parquet.write_table(table.drop_columns("sha256"), same_names / "old.parquet")
    done = index(same_names / "old.parquet", same_names / "other", model_file)
    assert "4 added" in done.output, done.output
    told = [(id, *rest) for id, _, *rest in contents(same_names / "other")]
    assert told == [(id, *rest) for id, _, *rest in contents(same_names / "data")]


@pytest.mark.parametrize("told", [None, float("nan"), 0.5])
def test_a_recording_lasts_to_its_last_window_at_least(
    same_names: Path, model_file: Path, told: float | None
) -> None:
    table = pyarrow.parquet.read_table(same_names / "tones.parquet")
    at = table.column_names.index("duration_s")
    without = table.remove_column(at)
    if told is not None:
        without = without.append_column("duration_s", [[told] * len(table)])
    pyarrow.parquet.write_table(without, same_names / "old.parquet")
    done = index(same_names / "old.parquet", same_names / "other", model_file)
    if told is not None and np.isnan(told):
        assert done.exit_code == 2
        assert "lasts nan s; expected its seconds" in " ".join(done.output.split())
        return
    assert "4 added" in done.output, done.output
    lasts = [item[3] for item in contents(same_names / "other")]
    assert lasts == pytest.approx([2.0, 2.0, 2.0, 1.0], abs=0.05)


def test_another_item_of_the_same_id_stays_and_the_new_one_is_told_of(
    same_names: Path, model_file: Path
) -> None:
    table = pyarrow.parquet.read_table(same_names / "tones.parquet")
    changed = pyarrow.array(["0" * 64] * 2 + table["sha256"].to_pylist()[2:])
    table = table.set_column(table.column_names.index("sha256"), "sha256", changed)
    pyarrow.parquet.write_table(table, same_names / "changed.parquet")
    before = index(same_names / "tones.parquet", same_names / "other", model_file)
    assert before.exit_code == 0
    done = index(same_names / "changed.parquet", same_names / "other", model_file)
    assert (done.exit_code, "0 added, 3 there already, 1 failed" in done.output) == (1, True)
    assert "at-200" in done.output
    assert contents(same_names / "other") == contents(same_names / "data")


@pytest.mark.parametrize("suffix", ["parquet", "npz", "jsonl"])
def test_a_table_of_a_collection_keeps_its_recordings_apart(
    same_names: Path, model_file: Path, suffix: str
) -> None:
    out = same_names / f"all.{suffix}"
    words = ["vectors", "--data", same_names / "data", "--collection", "tones", "-o", out]
    words += ["--model", model_file]
    done = CliRunner().invoke(viola.build(), list(map(str, words)))
    assert done.exit_code == 0, done.output
    done = index(out, same_names / "other", model_file)
    assert "holds 4 recordings, 7 windows" in done.output, done.output
    came, were = contents(same_names / "other"), contents(same_names / "data")
    if suffix == "parquet":  # an export
        assert came == were
    else:
        assert {item[2] for item in came} >= {"at-200", "at-300", "at-400"}


def test_a_file_that_was_embedded_twice_is_one_recording(
    same_names: Path, model_file: Path
) -> None:
    rec, out = same_names / "rec.wav", same_names / "twice.npz"
    rec.write_bytes(encoded(tone(2.0)))
    words = ["embed", rec, rec, "-o", out, "--model", model_file]
    done = CliRunner().invoke(viola.build(), list(map(str, words)))
    assert "2 files embedded" in done.output, done.output
    assert "1 window; 1 added" in index(out, same_names / "other", model_file).output
    lines = out.with_suffix(".jsonl")
    row = {"file": "rec.wav", "start_s": 0, "end_s": 1, "space_id": "space-of-tiny"}
    rows = [row | {"embedding": vector} for vector in ([1, 2, 3, 4], [4, 3, 2, 1])]
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = index(lines, same_names / "another", model_file)
    assert (done.exit_code, "several recordings" in done.output) == (2, True)


def test_nothing_comes_of_an_export_of_nothing(
    client: httpx.Client, tmp_path: Path, model_file: Path
) -> None:
    path = tmp_path / "none.parquet"
    path.write_bytes(client.get("/v1/collections/none/vectors").content)
    done = index(path, tmp_path / "data", model_file)
    assert (done.exit_code, "nothing came into sounds; 0 added" in done.output) == (0, True)


def test_an_array_and_a_listing_have_the_same_rows(client: httpx.Client, folder: Path) -> None:
    ids, vectors = stored(folder)
    array = np.load(io.BytesIO(client.get(URL, params={"output": "npy"}).content))
    np.testing.assert_array_equal(array, vectors)
    answer = client.get(URL, params={"output": "csv"})
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["id"] for row in rows] == ids
    assert rows[0]["metadata"] == '{"hz": 110}'


def test_no_cell_is_a_formula(serve: Serve, tmp_path: Path) -> None:
    with serve(data=tmp_path) as client:
        client.put("/v1/collections/tones")
        files = {"file": ("=1+1.wav", encoded(tone()))}
        assert client.post(f"{URL[:-8]}/items", files=files, data={"id": "-1"}).status_code == 201
        (row,) = csv.DictReader(io.StringIO(client.get(URL, params={"output": "csv"}).text))
    assert (row["id"], row["file"]) == ("'-1", "'=1+1.wav")


def test_an_empty_collection_is_an_empty_file(client: httpx.Client) -> None:
    path = "/v1/collections/none/vectors"
    table = pyarrow.parquet.read_table(io.BytesIO(client.get(path).content))
    assert table.num_rows == 0
    assert np.load(io.BytesIO(client.get(path, params={"output": "npy"}).content)).shape == (0, 4)
    assert client.get(path, params={"output": "csv"}).text.count("\n") == 1


@pytest.mark.parametrize("output", ["parquet", "csv"])
def test_an_export_that_ends_before_its_collection_was_read_is_no_file(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    reading = Windows.page
    monkeypatch.setattr(exports, "ROWS", 1)
    with serve(data=tmp_path) as client:
        client.put("/v1/collections/tones")
        add(client, "tones", TONES)

        def read(self: Windows, collection: Collection, last: int, limit: int) -> Vectors:
            if last:
                client.delete("/v1/collections/tones")
            return reading(self, collection, last, limit)

        monkeypatch.setattr(Windows, "page", read)
        with pytest.raises(httpx.RemoteProtocolError):
            client.get(URL, params={"output": output})


def test_what_makes_no_sense_is_refused(client: httpx.Client) -> None:
    refused(client.get(URL, params={"output": "xlsx"}), "invalid-parameter")
    refused(client.get("/v1/collections/nobodys/vectors"), "collection-not-found")


def test_an_array_that_is_larger_than_the_memory_is_refused(
    serve: Serve, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "COPIES", 1 << 20)
    monkeypatch.setattr(exporting, "ROWS", 1)
    with serve(data=folder) as client:
        refused(client.get(URL, params={"output": "npy"}), "too-much-memory")
        assert client.get(URL).status_code == 200
