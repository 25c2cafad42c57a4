"""The service in a process whose limits are lowered while it runs, and raised again."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from service import footprint
from service.audio import decode_child
from service.settings import Settings
from tests.service.conftest import encoded, tone, until
from tests.service.test_lifecycle import URL, Running, running

LINES = {"stream": "true"}

pytestmark = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux")


@contextmanager
def limited(pid: int, which: int, soft: int) -> Iterator[None]:
    before = resource.prlimit(pid, which)
    resource.prlimit(pid, which, (soft, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, which, before)


def shortages(it: Running, n: int) -> list[str]:
    until(lambda: len(it.events("out of resources")) >= n)
    return [line["problem"] for line in it.events("out of resources")]


@pytest.mark.parametrize("is_form", [False, True])
def test_a_file_that_may_not_grow_is_a_full_store(
    model_file: Path, port: int, is_form: bool
) -> None:
    wav = encoded(tone(60.0))
    sent: dict[str, Any] = {"files": {"file": wav}} if is_form else {"content": wav}
    with running(port, models=model_file) as it:
        with limited(it.process.pid, resource.RLIMIT_FSIZE, 64 << 10):
            answer = it.client.post(URL, params=LINES, **sent)
            assert it.client.post(URL, content=wav).status_code == 200  # needs no disk
        assert (answer.status_code, answer.json()["type"]) == (507, "/problems/storage-full")
        assert answer.headers["Retry-After"]
        assert "TMPDIR" in answer.json()["detail"]
        assert shortages(it, 1) == ["storage-full"]
        assert it.client.post(URL, params=LINES, **sent).status_code == 200


def test_a_process_that_may_open_no_more_files_says_so(model_file: Path, port: int) -> None:
    wav = encoded(tone(5.0))
    with running(port, models=model_file) as it:
        assert it.client.post(URL, params=LINES, content=wav).status_code == 200
        highest = max(int(fd.name) for fd in Path(f"/proc/{it.process.pid}/fd").iterdir())
        n_open = len(list(Path(f"/proc/{it.process.pid}/fd").iterdir()))
        with limited(it.process.pid, resource.RLIMIT_NOFILE, min(n_open, highest + 1)):
            answer = it.client.post(URL, params=LINES, content=wav)
            assert it.client.post(URL, content=wav).status_code == 200  # opens nothing
        assert (answer.status_code, answer.json()["type"]) == (
            503,
            "/problems/resources-exhausted",
        )
        assert answer.headers["Retry-After"]
        assert shortages(it, 1) == ["resources-exhausted"]
        assert it.client.post(URL, params=LINES, content=wav).status_code == 200


def test_without_proc_it_is_told_that_nothing_limits_the_memory_of_decoders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_child, "STATM", tmp_path / "none")
    with capture_logs() as logs:
        footprint.prepare(Settings())
    assert [line["event"] for line in logs] == ["decoders may take any memory"]
    assert logs[0]["remedy"] == "on Linux, mount /proc"


@pytest.mark.parametrize(
    ("more", "needed_mib"),
    [
        ({}, 160),
        ({"data": Path("x")}, 160 + 1024 + 512),
        ({"data": Path("x"), "max_fits": 2}, 160 + 2048 + 512),
        ({"database_url": SecretStr("postgresql://x")}, 160 + 1024),
    ],
)
def test_less_memory_than_the_settings_may_take_is_told_with_what_to_lower(
    more: dict[str, Any], needed_mib: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_child, "STATM", tmp_path / "statm")
    (tmp_path / "statm").write_text(f"9 {(100 << 20) // resource.getpagesize()} 9 9 9 9 9")
    settings = Settings(**more)
    for allowed_mib, is_told in ((100 + needed_mib, False), (99 + needed_mib, True)):
        monkeypatch.setattr(footprint, "available_memory", lambda: allowed_mib << 20)  # noqa: B023
        with capture_logs() as logs:
            footprint.warn_of_memory(settings)
        assert [line["event"] for line in logs] == ["the memory may not suffice"] * is_told
    assert f"take {100 + needed_mib} MiB, and {99 + needed_mib} MiB" in logs[0]["reason"]
    assert "VIOLA_MEMORY_BYTES" in logs[0]["remedy"]
