from pathlib import Path

import pytest

from models import spreadsheet
from models.labelled.labels import LabelError, Row, of_table
from models.spreadsheet import SpreadsheetError
from service.collections.records import NewLabel
from service.commands.label_files import read

ROWS = [Row("été, 1.wav", "low"), Row('a "b".wav', "high,low")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_task_is_read_as_any_spreadsheet_writes_it(
    tmp_path: Path, separator: str, ending: str, encoding: str
) -> None:
    lines = (
        ("file_name", "label"),
        ('"été, 1.wav"', "low"),
        ('"a ""b"".wav"', '"high,low"'),
    )
    text = "".join(separator.join(line) + ending for line in lines)
    path = tmp_path / "task.csv"
    path.write_bytes(text.encode(encoding))
    assert of_table(path) == ROWS


@pytest.mark.parametrize("separator", [";", "\t"])
def test_where_commas_are_no_separators_times_may_hold_them(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "labels.csv"
    head, line = ("file", "start_s", "end_s", "label"), ("dawn.wav", "0,5", "1.25", "frog")
    path.write_text("".join(separator.join(cells) + "\n" for cells in (head, line)))
    assert read(path) == [NewLabel("dawn.wav", "frog", "positive", 0.5, 1.25)]


@pytest.mark.parametrize(
    ("encoding", "text", "message"),
    [
        ("latin-1", "file_name,label\nété.wav,low\n", "line 2, is not text in UTF-8; save it"),
        ("utf-16-le", "file_name,label\na.wav,low\n", "bytes of 0, as UTF-16"),
    ],
)
def test_an_encoding_that_cannot_be_told_is_refused_with_the_remedy(
    tmp_path: Path, encoding: str, text: str, message: str
) -> None:
    path = tmp_path / "task.csv"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(SpreadsheetError, match=message):
        spreadsheet.text_of(path)
    with pytest.raises(LabelError, match=message):
        of_table(path)
