"""A collection as a file: Parquet, NumPy, CSV."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pyarrow.parquet
import pytest
from typer.testing import CliRunner, Result

import viola
from service.collections.store import open_store
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
    assert table["metadata"][0].as_py() == '{"hz": 110.0}'
    assert (table["file"][0].as_py(), table["start_s"][1].as_py()) == ("tone-110.wav", 1.0)
    command = ["index", str(path), "-o", str(tmp_path / "data"), "--window-s", "1"]
    done = CliRunner().invoke(viola.build(), [*command, "--model", str(model_file)])
    assert f"holds 7 recordings, {len(ids)} windows" in done.output, done.output


def test_recordings_of_one_name_come_back_with_their_ids_and_metadata(
    serve: Serve, tmp_path: Path, model_file: Path
) -> None:
    (tmp_path / "rec.wav").write_bytes(encoded(tone(2.0)))

    def run(*arguments: object) -> Result:
        model = ("--model", model_file)
        return CliRunner().invoke(viola.build(), [*map(str, arguments), *map(str, model)])

    with serve(data=tmp_path / "data") as client:
        client.put("/v1/collections/wood", json={"window_s": 1.0})
        for id, hz in (("north", 300), ("south", 500)):
            file = {"file": ("rec.wav", encoded(tone(2.0, hz=hz)))}
            given = {"id": id, "metadata": f'{{"hz": {hz}}}'}
            assert client.post("/v1/collections/wood/items", files=file, data=given).is_success
        downloaded = tmp_path / "http.parquet"
        downloaded.write_bytes(client.get("/v1/collections/wood/vectors").content)
    for suffix in (".parquet", ".npz"):
        asked = ("vectors", "--data", tmp_path / "data", "--collection", "wood")
        written = run(*asked, "-o", tmp_path / f"cli{suffix}")
        assert (written.exit_code, "4 vectors" in written.output) == (0, True), written.output
    for name in ("http", "cli"):
        into = run("index", tmp_path / f"{name}.parquet", "-o", tmp_path / name)
        assert "2 added" in into.output
        store = open_store(tmp_path / name)
        collection = store.collections.get("", "sounds")
        north, south = store.items.named(collection, ["north", "south"])
        assert (north.metadata, south.metadata) == ({"hz": 300}, {"hz": 500})
        assert (north.file, north.n_windows, south.n_windows) == ("rec.wav", 2, 2)
        store.close()
    wood = ("--collection", "wood", "--window-s", 1)
    taken = run("index", downloaded, "-o", tmp_path / "data", *wood)
    assert (taken.exit_code, "'north' is here already" in taken.output) == (2, True)
    twice = run("embed", rec := tmp_path / "rec.wav", rec, "-o", tmp_path / "twice.npz")
    assert "2 files embedded" in twice.output
    assert "1 windows; 1 added" in run("index", tmp_path / "twice.npz", "-o", tmp_path / "t").output
    unclear = run("index", tmp_path / "cli.npz", "-o", tmp_path / "npz")
    assert (unclear.exit_code, "several recordings" in unclear.output) == (2, True)


def test_an_array_and_a_listing_have_the_same_rows(client: httpx.Client, folder: Path) -> None:
    ids, vectors = stored(folder)
    array = np.load(io.BytesIO(client.get(URL, params={"output": "npy"}).content))
    np.testing.assert_array_equal(array, vectors)
    answer = client.get(URL, params={"output": "csv"})
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["id"] for row in rows] == ids
    assert rows[0]["metadata"] == '{"hz": 110.0}'


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
