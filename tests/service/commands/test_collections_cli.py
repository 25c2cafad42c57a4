"""`viola index` and `viola search` on the same files as the service."""

import json
import os
import re
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import soundfile as sf
from rich.console import Console
from typer.testing import CliRunner, Result

import viola
from service.collections.search import Found, Hit, Query, Searcher
from service.collections.store import open_store
from service.commands import collections_cli, indexing
from service.commands.bulk import Failure, embed_files
from service.commands.progress import show_failure
from tests.service.conftest import write_model
from tests.signals import noise, tone

# A collection holds vectors, and knows nothing of the network that made them
of_one_encoder = pytest.mark.parametrize("encoder_name", ["StridedConv"], indirect=True)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(viola.build(), list(map(str, arguments)), env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sounds")
    paths = []
    for name, samples in (
        ("noise-1", noise(2.0, 1)),
        ("noise-2", noise(2.0, 2)),
        ("tone-1", tone(440, 2.0)),
        ("long", noise(12.0, 3)),
    ):
        paths.append(folder / f"{name}.wav")
        sf.write(paths[-1], samples, 16_000)
    return paths


@of_one_encoder
def test_files_are_indexed_once_and_found(
    sounds: list[Path], model_path: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    model = ("--model", model_path, "--threads", 1)
    made = run("index", *sounds, "-o", data, *model)
    assert made.exit_code == 0, made.output
    assert "holds 4 recordings, 6 windows; 4 added, 0 there already, 0 failed" in made.output
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no audio")
    again = run("index", *sounds, broken, tmp_path / "none.wav", "-o", data, *model)
    assert again.exit_code == 1
    assert "0 added, 4 there already, 2 failed" in again.output
    found = run("search", sounds[2], "--data", data, "--top-k", 2, *model)
    assert found.exit_code == 0, found.output
    lines = found.output.splitlines()
    assert "score" in lines[0]
    assert "tone-1.wav" in lines[1]
    assert len(lines) == 3
    store = open_store(data)
    collection = store.collections.get("", "sounds")
    (item,) = [item for item in store.items.page(collection) if "noise-1" in (item.file or "")]
    store.close()
    like = run("search", "--like", item.id, "--data", data, "--windows", *model)
    assert "noise-1.wav" not in like.output
    assert "long.wav" in like.output


def test_a_narrow_terminal_shows_each_hit_and_no_name_moves_its_cursor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    name = "\x1b]0;owned\x07\nowl.wav"
    item: Any = SimpleNamespace(id="f" * 32, file=name)
    collections_cli._print(Found([Hit(item, 0.0, 5.0, 0.987, 99.0)], True))
    show_failure(Console(), Failure(name, "it is no sound"))
    shown = capsys.readouterr().out
    assert re.search("0.987.*99.0.*\ufffd]0;owned", shown)
    assert "\x1b]" not in shown
    assert "\x07" not in shown
    assert "owned\ufffd\ufffdowl.wav: it is no" in shown


@of_one_encoder
def test_where_every_file_fails_no_collection_is_left(model_path: Path, tmp_path: Path) -> None:
    data, broken = tmp_path / "data", tmp_path / "broken.wav"
    broken.write_bytes(b"no audio")
    ended = run("index", broken, "-o", data, "--model", model_path, "--threads", 1)
    assert ended.exit_code == 1
    assert "nothing came into sounds; 0 added, 0 there already, 1 failed" in ended.output
    store = open_store(data)
    assert store.collections.all() == []
    store.close()


@pytest.mark.parametrize("suffix", [".npz", ".parquet", ".jsonl"])
@of_one_encoder
def test_tables_of_vectors_go_in_and_out(
    sounds: list[Path], model_path: Path, tmp_path: Path, suffix: str
) -> None:
    data, table, out = tmp_path / "data", tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    model = ("--model", model_path)
    windows = ("--window-s", 5)
    assert run("embed", *sounds, "-o", table, *windows, *model, "--threads", 1).exit_code == 0
    made = run("index", table, "-o", data, *model)
    assert made.exit_code == 0, made.output
    assert "holds 4 recordings" in made.output
    assert "0 added, 4 there already" in run("index", table, "-o", data, *model).output
    written = run("vectors", "--data", data, "-o", out, *model)
    assert written.exit_code == 0, written.output
    other = run("index", out, "-o", data, "--collection", "other", *model)
    assert "4 added" in other.output
    store = open_store(data)
    one, same = (store.windows.all(store.collections.get("", n)) for n in ("sounds", "other"))
    np.testing.assert_array_equal(one.vectors, same.vectors)
    np.testing.assert_array_equal(one.end_s, same.end_s)
    store.close()
    table.write_bytes(b"no table")
    broken = run("index", table, "-o", data, *model)
    assert (broken.exit_code, "is no table of vectors" in broken.output) == (2, True)


@of_one_encoder
def test_a_window_that_was_found_is_an_example(
    sounds: list[Path], model_path: Path, tmp_path: Path
) -> None:
    model = ("--model", model_path, "--threads", 1)
    terms = ("--window-s", 2, "--hop-s", 1)
    assert run("index", *sounds, "-o", tmp_path, *terms, *model).exit_code == 0
    with closing(open_store(tmp_path)) as store:
        there = store.collections.get("", "sounds")
        long = max(store.items.page(there), key=lambda item: item.n_windows)
        windows = store.windows.of(there, [long.key])
        window = f"{long.id}#t={windows.start_s[4]:.4f},{windows.end_s[4]:.4f}"
        query = Query(windows.vectors[4][None], without=[long.key], top_k=3, by_item=False)
        expected = [hit.score for hit in Searcher(store).find(there, query).hits]
    command = ("search", "--data", tmp_path, "--windows", "--top-k", 3, *model)
    found = run(*command, "--like", window)
    scores = [line.split()[0] for line in found.output.splitlines()[1:]]
    assert scores == [f"{score:.3f}" for score in expected]
    other = run(*command, "--like", long.id)
    assert other.output != found.output
    unlike = run(*command, "--like", long.id, "--unlike", window)
    assert unlike.exit_code == 0


@of_one_encoder
def test_a_filter_finds_texts_numbers_and_truth_values(
    sounds: list[Path], model_path: Path, tmp_path: Path
) -> None:
    model = ("--model", model_path, "--threads", 1)
    assert run("index", *sounds, "-o", tmp_path / "first", *model).exit_code == 0
    out = ("-o", tmp_path / "t.parquet", "--data", tmp_path / "first")
    assert run("vectors", *out, "--model", model_path).exit_code == 0
    table = pyarrow.parquet.read_table(tmp_path / "t.parquet")
    ids = table["id"].to_pylist()
    numbers = list(map(sorted(set(ids)).index, ids))
    about = [json.dumps({"wet": n == 0, "n": n}) for n in numbers]
    at = table.column_names.index("metadata")
    pyarrow.parquet.write_table(table.set_column(at, "metadata", [about]), tmp_path / "t.parquet")
    assert run("index", tmp_path / "t.parquet", "-o", tmp_path, *model).exit_code == 0
    for where, n_found in (("wet=true", 1), ("wet=false", 3), ("n=1", 1), ("n=x", 0)):
        found = run("search", sounds[0], "--data", tmp_path, "--where", where, *model)
        assert found.output.count(".wav") == n_found, where
    broken = table.set_column(at, "metadata", [['{"n": [1]}'] * len(table)])
    pyarrow.parquet.write_table(broken, tmp_path / "t.parquet")
    refused = run("index", tmp_path / "t.parquet", "-o", tmp_path / "other", *model)
    assert refused.exit_code == 2
    said = " ".join(refused.output.split())
    assert "metadata.n: expected a text, a number, true or false" in said
    assert "pydantic" not in said


@of_one_encoder
def test_what_cannot_be_searched_is_said_in_a_sentence(
    sounds: list[Path], model_path: Path, tmp_path: Path
) -> None:
    model = ("--model", model_path, "--threads", 1)
    nothing = run("search", sounds[0], "--data", tmp_path, *model)
    assert nothing.exit_code == 2
    assert "holds no collections: viola index FILES -o" in nothing.output
    assert run("index", sounds[0], "-o", tmp_path, *model).exit_code == 0
    other = run("search", sounds[0], "--data", tmp_path, "--collection", "x", *model)
    assert (other.exit_code, "There is no collection 'x'" in other.output) == (2, True)
    labelled = run("search", sounds[0], "--data", tmp_path, "--label", "owl", *model)
    assert (labelled.exit_code, labelled.output) == (0, "nothing was found\n")
    no_text = run("search", sounds[0], "--data", tmp_path, "--label", "\udcff", *model)
    assert (no_text.exit_code, "is not UTF-8" in no_text.output) == (2, True)
    many = run("search", sounds[0], "--data", tmp_path, "--model", model_path, "--threads", 10**8)
    said = "".join(many.output.split()).replace("│", "")
    assert (many.exit_code, "1024" in said) == (2, True)
    item = run("search", "--like", "nobody", "--data", tmp_path, *model)
    assert (item.exit_code, "has no item 'nobody'" in item.output) == (2, True)
    for said in ("a#t=5", "a#t=5,x", "a#t=6,5", "a#t=-1,5", "a#t=5,inf", "a#t=5,6,7"):
        stretch = run("search", "--like", said, "--data", tmp_path, *model)
        assert stretch.exit_code == 2
        assert f"{said}: expected ID, or ID#t=START,END in seconds" in stretch.output
    where = run("search", sounds[0], "--where", "site", "--data", tmp_path, *model)
    assert (where.exit_code, "expected KEY=VALUE" in where.output) == (2, True)
    assert run("search", "--data", tmp_path, *model).exit_code == 2
    windows = run("index", sounds[0], "-o", tmp_path, "--window-s", 2, *model)
    assert (windows.exit_code, "is there with window_s = 5.0" in windows.output) == (2, True)


@of_one_encoder
def test_folders_and_tars_are_indexed_by_the_files_in_them(
    sounds: list[Path], model_path: Path, tmp_path: Path
) -> None:
    packed = tmp_path / "more.tar"
    with tarfile.open(packed, "w") as tar:
        tar.add(sounds[0], "again.wav")  # of the same content as a file of the folder
        sf.write(tmp_path / "new.wav", noise(1.0, 9), 16_000)
        tar.add(tmp_path / "new.wav", "new.wav")
        sf.write(tmp_path / "new.wav", noise(1.0, 10), 16_000)
        tar.add(tmp_path / "new.wav", "new.wav")  # another recording of that name
    model = ("--model", model_path, "--threads", 1)
    made = run("index", sounds[0].parent, packed, "-o", tmp_path / "data", *model)
    assert made.exit_code == 0, made.output
    assert "holds 6 recordings, 8 windows; 6 added, 1 there already, 0 failed" in made.output


def test_a_file_that_changes_or_goes_while_it_is_read_fails_alone(
    sounds: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, changed, gone = (tmp_path / f"{name}.wav" for name in ("kept", "changed", "gone"))
    for path, sound in zip((kept, changed, gone), sounds, strict=False):
        path.write_bytes(sound.read_bytes())

    def late(*arguments: Any, **options: Any) -> Iterator[Any]:
        rows = list(embed_files(*arguments, **options))
        changed.write_bytes(kept.read_bytes())
        gone.unlink()
        yield from rows

    monkeypatch.setattr(indexing, "embed_files", late)
    model = write_model(tmp_path / "tiny.onnx")
    asked = ("index", changed, gone, kept, "-o", tmp_path / "data", "--keep-audio")
    made = run(*asked, "--model", model)
    assert made.exit_code == 1
    assert "changed.wav: it was changed while it was read" in made.output
    assert "gone.wav: No such file or directory" in made.output
    assert "1 added, 0 there already, 2 failed" in made.output


def test_what_can_be_read_only_once_is_not_indexed_as_nothing(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.wav"
    os.mkfifo(pipe)
    model = write_model(tmp_path / "tiny.onnx")
    made = run("index", pipe, "-", "-o", tmp_path / "data", "--model", model)
    assert made.exit_code == 1
    assert made.output.count("it can be read only once") == 2


def test_a_folder_without_collections_is_left_as_it_is(tmp_path: Path) -> None:
    taught = run("teach", "kinds", "--data", tmp_path)
    assert taught.exit_code == 2
    assert "holds no collections" in taught.output
    assert list(tmp_path.iterdir()) == []


@of_one_encoder
def test_a_collection_of_a_group_is_named_as_over_http(
    sounds: list[Path], model_path: Path, tmp_path: Path
) -> None:
    model = ("--model", model_path, "--threads", 1)
    named = ("--data", tmp_path, "--collection", "birds:sounds", *model)
    assert run("index", sounds[2], *named).exit_code == 0
    for asked in ((), ("--approximate",)):
        assert "tone-1.wav" in run("search", sounds[2], *named, *asked).output
    store = open_store(tmp_path)
    assert store.collections.get("birds:", "birds:sounds").n_items == 1
    store.close()
    assert run("index", sounds[2], "--data", tmp_path, "--collection", "a b").exit_code == 2


def test_a_table_is_no_folder_of_collections(tmp_path: Path) -> None:
    made = CliRunner().invoke(viola.build(), ["index", "a.wav", "-o", str(tmp_path / "v.npz")])
    assert made.exit_code == 2
    told = "".join(made.output.replace("│", "").split())  # out of its box
    assert "v.npznamesatable" in told
    assert not list(tmp_path.iterdir())
