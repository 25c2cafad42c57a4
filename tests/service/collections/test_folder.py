"""A folder whose database was lost is not taken for a new one."""

import subprocess
import sys
from pathlib import Path

import pytest

from service.collections.folder import FILE, INDEXES, LOG, QUEUE
from service.collections.records import StoreError
from service.collections.store import open_store
from service.queues.local import LocalQueue
from tests.service.collections.conftest import QUOTA, TERMS
from tests.users import AS_NO_SUPERUSER, CAN_BE_REFUSED

OPENING = """
import sys
from pathlib import Path
from service.collections.store import open_store
open_store(Path(sys.argv[1]))
"""


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def used(folder: Path) -> Path:
    """A folder with a collection and the queue of a service; its database."""
    store = open_store(folder)
    store.collections.put("", "c", TERMS, QUOTA)
    LocalQueue(folder, 30.0).close()
    store.close()
    return folder / FILE


@pytest.mark.parametrize("lose", [emptied, Path.unlink])
def test_a_database_that_is_lost_is_refused_with_what_is_left_of_it(
    tmp_path: Path, lose: object
) -> None:
    assert callable(lose)
    file = used(tmp_path)
    lose(file)
    state = "empty" if file.exists() else "missing"
    with pytest.raises(StoreError, match=rf"{FILE} is {state}.*queue beside it was.*begin"):
        open_store(tmp_path)
    assert not file.exists() or not file.stat().st_size


@pytest.mark.parametrize("name", [LOG, f"{INDEXES}/1.clusters", f"{QUEUE}/localqueue.db"])
def test_whatever_is_left_is_named_and_stays(tmp_path: Path, name: str) -> None:
    left = tmp_path / name
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"all that is left")
    with pytest.raises(StoreError, match=f"remove {name.split('/')[0]}, to begin"):
        open_store(tmp_path)
    assert left.read_bytes() == b"all that is left"


def test_one_that_is_put_back_or_begun_anew_is_served(tmp_path: Path) -> None:
    file = used(tmp_path)
    content = file.read_bytes()
    emptied(file)
    file.write_bytes(content)
    store = open_store(tmp_path)
    assert len(store.collections.page("")) == 1
    store.close()


def test_a_start_that_was_killed_before_it_wrote_anything_is_no_loss(tmp_path: Path) -> None:
    emptied(tmp_path / FILE)
    (tmp_path / QUEUE).mkdir()
    open_store(tmp_path).close()
    assert (tmp_path / FILE).stat().st_size


@pytest.mark.skipif(not CAN_BE_REFUSED, reason="needs users, and setpriv where root runs it")
@pytest.mark.parametrize("name", [".", FILE, QUEUE])
def test_what_this_user_cannot_write_is_named_with_the_remedy(tmp_path: Path, name: str) -> None:
    used(tmp_path)
    refused = tmp_path / name
    mode = refused.stat().st_mode
    refused.chmod(mode & ~0o222)
    command = [*AS_NO_SUPERUSER, sys.executable, "-c", OPENING, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    refused.chmod(mode)
    last = done.stderr.splitlines()[-1]
    assert f"{refused} cannot be read and written by user" in last
    assert "give it to that user" in last
    open_store(tmp_path).close()  # nothing was lost
