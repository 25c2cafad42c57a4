from pathlib import Path

import pytest

from models import shipped
from models.modelfile import ModelFileError


def test_a_bare_name_is_that_of_a_file_that_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.shipped.PRETRAINED", tmp_path)
    (tmp_path / "pitch.onnx").touch()
    assert shipped.names() == ["pitch"]
    assert shipped.find("pitch") == tmp_path / "pitch.onnx"
    with pytest.raises(ModelFileError, match="no model is called pitsch; there are pitch"):
        shipped.find("pitsch")


def test_a_path_is_never_taken_for_a_name(tmp_path: Path) -> None:
    for path in (tmp_path / "default", Path("default.onnx"), tmp_path):
        with pytest.raises(ModelFileError, match="no model file at"):
            shipped.find(path)


def test_a_file_comes_before_a_name_and_a_folder_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("default").mkdir()
    assert shipped.find("default").is_file()
    Path("sounds-10").touch()
    assert shipped.find("sounds-10") == Path("sounds-10")
