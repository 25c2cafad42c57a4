"""One process at a time writes to a folder."""

import errno
import fcntl
from pathlib import Path

import pytest

from models.lock import locked


def fail_while_holding(path: Path) -> None:
    with locked(path, RuntimeError("busy")):
        with pytest.raises(RuntimeError, match="busy"), locked(path, RuntimeError("busy")):
            pass
        raise KeyError


def test_it_is_held_by_one_and_free_again_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with pytest.raises(KeyError):
        fail_while_holding(path)
    with locked(path, RuntimeError("busy")):
        assert path.read_bytes() == b""


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EIO])
def test_a_file_system_without_locks_is_no_obstacle_but_a_broken_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(file: int, operation: int) -> None:
        raise OSError(number, "no lock")

    monkeypatch.setattr(fcntl, "flock", flock)
    if number == errno.ENOLCK:
        with locked(tmp_path / "lock", RuntimeError()):
            pass
    else:
        with pytest.raises(OSError, match="no lock"), locked(tmp_path / "lock", RuntimeError()):
            pass
