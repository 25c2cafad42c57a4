"""Names in tables and names of files: the same letters in another form, and rows of nothing."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from models.labelled import clips, labels, tasks

LETTERS = "Zürich/Café"


def write(root: Path, form: str, n: int = 4) -> None:
    for index in range(n):
        path = root / unicodedata.normalize(form, f"{LETTERS}_{index}.wav")
        path.parent.mkdir(exist_ok=True)
        sf.write(path, np.full(1_600, 0.1 * index), 16_000)


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_table", ["NFC", "NFD"])
def test_names_are_compared_in_one_normal_form(tmp_path: Path, on_disk: str, in_table: str) -> None:
    write(tmp_path, on_disk)
    names = [unicodedata.normalize(in_table, f"{LETTERS}_{i}.wav") for i in range(4)]
    found = clips.locate(tmp_path, names)
    assert [item and item.name for item in found] == names
    assert all(item is not None and Path(item.path).is_file() for item in found)
    assert clips.locate(tmp_path, ["Zurich/Cafe_0.wav"]) == [None]


def test_rows_of_commas_are_no_clips(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("file_name,label,fold\na.wav,dog,1\n,,\n\n , ,\nb.wav,cat,2\n,,,,\n")
    assert [row.file_name for row in labels.of_table(path)] == ["a.wav", "b.wav"]


def test_labels_are_compared_in_one_form(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("file_name,label\na.wav,u\u0308ben\nb.wav,\u00fcben\n")
    assert {row.label for row in labels.of_table(path)} == {"\u00fcben"}


def test_a_row_that_lacks_its_label_is_still_an_error(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("file_name,label\na.wav,dog\nb.wav,\n")
    with pytest.raises(labels.LabelError, match=r"no label: b\.wav"):
        labels.one_hot(labels.of_table(path), None)


def test_samples_beyond_full_scale_are_those_that_are_embedded(tmp_path: Path) -> None:
    wave = (6 * np.sin(np.arange(1_600) / 10)).astype(np.float32)
    for index in range(20):
        path = tmp_path / "ab"[index % 2] / f"{index}.wav"
        path.parent.mkdir(exist_ok=True)
        sf.write(path, wave * (1 + index / 20), 16_000, subtype="FLOAT")
    task = tasks.load(tmp_path, 0.1)
    _, samples = next(task.decode())
    np.testing.assert_allclose(samples, wave * (1 + 0 / 20), rtol=1e-6)
    assert task.units().max() > 6
