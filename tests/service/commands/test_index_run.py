"""Tables with a row a file into a collection: as if its files had been indexed one by one."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import soundfile as sf
from typer.testing import CliRunner

import viola
from models.runtime import Encoder
from service.collections.records import Collection
from service.collections.store import Store, open_shared_store, open_store
from service.commands.bulk import Tally
from service.commands.index_run import add_rows
from service.commands.indexing import UNBOUNDED, index_files, terms_of
from service.commands.job import Job
from service.commands.one_row_a_file import FileWorker
from service.commands.tables import TableError
from tests.signals import noise

WINDOW_S = 1.0


@pytest.fixture
def sounds(tmp_path: Path) -> list[Path]:
    """Three lengths, a copy of the first, and a broken one."""
    paths = [tmp_path / "sounds" / f"{number}.wav" for number in range(5)]
    paths[0].parent.mkdir()
    for number, path in enumerate(paths[:3]):
        sf.write(path, noise(0.5 + 1.3 * number, seed=number), 16_000)
    paths[3].write_bytes(paths[0].read_bytes())
    paths[4].write_bytes(b"RIFF and nothing more")
    return paths


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "data")


@pytest.fixture
def table(model_file: Path, sounds: list[Path]) -> pa.Table:
    worker = FileWorker(Job(str(model_file), window_s=WINDOW_S, digests=True))
    found = worker(pa.table({"file": list(map(str, sounds))}))
    worker.close()
    return found


def made(store: Store, encoder: Encoder, name: str) -> Collection:
    return store.collections.put("", name, terms_of(encoder, WINDOW_S, None), UNBOUNDED)[0]


def windows(store: Store, collection: Collection) -> dict[tuple[str, float], np.ndarray]:
    found = {}
    for some in store.windows.after(collection, 0):
        items = store.items.by_key(collection, np.unique(some.items).tolist())
        for key, start_s, vector in zip(
            some.items.tolist(), some.start_s.tolist(), some.vectors, strict=True
        ):
            found[items[key].file or "", start_s] = vector
    return found


def test_a_table_adds_what_indexing_adds_and_twice_nothing_more(
    store: Store, encoder: Encoder, sounds: list[Path], table: pa.Table
) -> None:
    one, other = made(store, encoder, "one"), made(store, encoder, "other")
    index_files(store, one, encoder, sounds, Tally())
    added = add_rows(store, other, table.to_batches(2))
    assert (added.new, added.known, len(added.failures)) == (3, 1, 1)
    assert added.failures[0].file == str(sounds[4])
    expected, found = windows(store, one), windows(store, other)
    assert found.keys() == expected.keys()
    for key, vector in expected.items():
        np.testing.assert_allclose(found[key], vector, atol=1e-5)
    again = add_rows(store, other, table.to_batches())
    assert (again.new, again.known) == (0, 4)
    assert index_files(store, other, encoder, sounds, Tally()).known == 4
    store.close()


def test_rows_that_were_sliced_keep_their_windows(
    store: Store, encoder: Encoder, table: pa.Table
) -> None:
    whole, parts = made(store, encoder, "whole"), made(store, encoder, "parts")
    add_rows(store, whole, table.to_batches())
    for row in (2, 0, 1):
        add_rows(store, parts, table.slice(row, 1).to_batches())
    expected, found = windows(store, whole), windows(store, parts)
    assert found.keys() == expected.keys()
    for key, vector in expected.items():
        np.testing.assert_array_equal(found[key], vector)
    store.close()


def test_rows_that_all_failed_and_vectors_of_another_length(
    store: Store, encoder: Encoder, table: pa.Table, model_file: Path
) -> None:
    one = made(store, encoder, "one")
    failed = table.filter(pc.is_valid(table["error"]))  # there is no window in all of it
    added = add_rows(store, one, failed.to_batches())
    assert (added.new, len(added.failures)) == (0, 1)
    worker = FileWorker(Job(str(model_file), window_s=WINDOW_S, dimensions=2))
    shorter = worker(table.select(["file"]))
    worker.close()
    with pytest.raises(TableError, match=f"2 values.*expects {encoder.card.embed_dim}"):
        add_rows(store, one, shorter.to_batches())
    store.close()


def test_vectors_of_another_space_are_refused(
    store: Store, encoder: Encoder, table: pa.Table
) -> None:
    other = table.set_column(3, "space_id", pa.array(["elsewhere"] * len(table)))
    with pytest.raises(TableError, match="space elsewhere"):
        add_rows(store, made(store, encoder, "one"), other.to_batches())
    store.close()


@pytest.mark.parametrize("with_digests", [True, False])
def test_the_command_takes_tables_of_ray(
    model_file: Path, table: pa.Table, tmp_path: Path, with_digests: bool
) -> None:
    path = tmp_path / "vectors.parquet"
    pq.write_table(table if with_digests else table.drop(["sha256"]), path)
    words = ["index", path, "-o", tmp_path / "fresh", "--model", model_file]
    words += ["--window-s", WINDOW_S]
    for n_added in (3 if with_digests else 4, 0):
        result = CliRunner().invoke(viola.build(), list(map(str, words)))
        assert result.exit_code == 0, result.output
        assert f"{n_added} added" in result.output.replace("\n", " ")


def test_a_shared_database_is_a_place_for_collections_too(
    postgres: str, model_file: Path, table: pa.Table, tmp_path: Path
) -> None:
    path = tmp_path / "vectors.parquet"
    pq.write_table(table, path)
    words = ["index", path, "-o", postgres, "--model", model_file, "--window-s", WINDOW_S]
    result = CliRunner().invoke(viola.build(), list(map(str, words)))
    assert result.exit_code == 0, result.output
    assert "sounds holds 3 recordings" in result.output.replace("\n", " ")


def test_what_was_indexed_into_a_shared_database_is_used_there(
    postgres: str, model_file: Path, table: pa.Table, tmp_path: Path
) -> None:
    path, labels, back = (tmp_path / name for name in ("all.parquet", "labels.csv", "back.csv"))
    pq.write_table(table, path)
    address = postgres.replace(":@", ":secret@", 1)  # which the server does not ask for
    at = ["--data", address, "--collection", "shared"]
    model = ["--model", model_file]

    def run(*words: object) -> str:
        result = CliRunner().invoke(viola.build(), [*map(str, words)], env={"COLUMNS": "200"})
        assert result.exit_code == 0, result.output
        assert "secret" not in result.output
        return " ".join(result.output.split())

    done = run("index", path, *at, *model, "--window-s", WINDOW_S)
    assert "postgres:***@" in done
    store = open_shared_store(postgres)
    first = store.items.page(store.collections.get("", "shared"))[0]
    store.close()
    assert first.id not in run("search", "--like", first.id, *at, *model)
    labels.write_text(f"file,label\n{first.id},frog\n")
    assert "1 label added" in run("teach", *at, "--labels", labels)
    assert "1 label written" in run("teach", *at, "--export", back)
    assert "vectors" in run("vectors", *at, *model, "-o", tmp_path / "out.parquet")
    assert "shared is of" in run("reembed", *at, *model)
