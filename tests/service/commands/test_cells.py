"""Tables of commands: no cell is a formula, and what is no table is told so."""

import csv
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.collections.records import Label
from service.collections.store import open_store
from service.commands.label_files import read, write
from service.commands.tables import TableError
from service.commands.vector_tables import add_table
from service.untrusted import cell, text_of
from tests.service.collections.conftest import DIMENSIONS, QUOTA, TERMS

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "=cmd|' /C calc'!A0"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_text_that_a_spreadsheet_would_compute_is_none_in_a_cell(text: str) -> None:
    assert not cell(text).startswith(("=", "+", "-", "@", "\t"))
    assert text_of(cell(text)) == text


@pytest.mark.parametrize("text", ["a", "", "-", "a=1", "'", "'a'", "'twas"])
def test_other_texts_stand_as_they_are(text: str) -> None:
    assert cell(text) == text_of(text) == text


def test_labels_that_look_like_formulas_come_back_from_a_table_as_they_were(tmp_path: Path) -> None:
    path, said = tmp_path / "labels.csv", "=1+1"
    write(path, [Label(1, 1, "-a.wav", said, "positive", None, None, "@ann", 0.0)], {})
    with path.open(newline="") as file:
        (row,) = list(csv.reader(file))[1:]
    assert (row[0], row[3], row[5]) == ("'-a.wav", "'=1+1", "'@ann")
    (label,) = read(path)
    assert (label.item_id, label.label) == ("-a.wav", said)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "file,label\n" + "x" * 200_000 + ",frog\n"),
        ("a.csv", "file,label\na\x00b,frog\0\n"),
        ("a.selections.txt", "Selection\tEnd Time (s)\tLabel\n1\t2.0\tfrog\n"),
        ("a.txt", "0\t1\tfr\x07og\n"),
    ],
)
def test_a_file_of_labels_that_is_none_is_told_so(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(TableError, match=name):
        read(path)


def line(**members: Any) -> str:
    row: dict[str, Any] = {
        "file": "a.wav",
        "start_s": 0.0,
        "end_s": 1.0,
        "space_id": TERMS.space_id,
    }
    return json.dumps(row | {"embedding": [1.0] * DIMENSIONS} | members) + "\n"


def jsonl(*lines: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / "t.jsonl"
        path.write_text("".join(lines))
        return path

    return make


def archive(**arrays: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / "t.npz"
        with zipfile.ZipFile(path, "w") as out:
            for name, array in arrays.items():
                content = io.BytesIO()
                np.lib.format.write_array(content, np.asarray(array))
                out.writestr(f"{name}.npy", content.getvalue())
        return path

    return make


def content(name: str, held: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(held)
        return path

    return make


ONE = {"file": ["a"], "start_s": [0.0], "end_s": [1.0], "space_id": TERMS.space_id}


@pytest.mark.parametrize(
    "make",
    [
        jsonl("[1]\n"),
        jsonl("5\n"),
        jsonl("[" * 100_000 + "\n"),
        jsonl(line(start_s=float("nan"))),
        jsonl(line(end_s=float("inf"))),
        jsonl(line(end_s=None)),
        jsonl(line(end_s=0.0)),
        jsonl(line(start_s=-1.0)),
        jsonl(line(embedding=1.0)),
        jsonl(line(embedding=["a"])),
        jsonl(line(embedding=[float("nan")] * DIMENSIONS)),
        jsonl(line(), line(embedding=[1.0])),
        jsonl(line(embedding=[1.0])),
        archive(**ONE, embedding=np.ones(DIMENSIONS)),
        archive(**ONE, embedding=np.ones((2, DIMENSIONS))),
        archive(**ONE),
        content("t.npz", b"PK\x03\x04 and nothing else"),
        content("t.npz", b""),
        content("t.parquet", b"PAR1"),
    ],
)
def test_what_is_no_table_of_vectors_is_told_so_and_nothing_is_added(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    store = open_store(tmp_path / "data")
    collection, _ = store.collections.put("", "c", TERMS, QUOTA)
    with pytest.raises(TableError, match=r"t\."):
        add_table(store, collection, make(tmp_path))
    assert store.collections.get("", "c").n_items == 0
    store.close()
