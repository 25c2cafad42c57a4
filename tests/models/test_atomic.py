import errno
import os
from pathlib import Path

import pytest

from models.atomic import replacing


def test_the_new_content_takes_the_place_of_the_old(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_of_the_disk_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(OSError, match=rf"No space left on device: '{path}'$"), replacing(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as writing raises it
    missing = tmp_path / "missing" / "file"
    with (
        pytest.raises(FileNotFoundError, match=f"'{missing}'$"),
        replacing(missing) as temporary,
    ):
        temporary.write_text("new")
    with pytest.raises(OSError, match=f"^{path} cannot be written whole: 9 req"), replacing(path):
        raise OSError("9 requested and 2 written")  # as NumPy does
    with pytest.raises(ConnectionResetError, match=r"reset$"), replacing(path):
        raise ConnectionResetError(errno.ECONNRESET, "reset")  # which is not the file's
