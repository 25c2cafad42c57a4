"""The process that decoders are forked from: what it says of them, and what happens without it."""

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from models import audio
from models.limits import Limits
from service import children as children_of_ours
from service.audio import decoder as decoders
from service.audio import fork_server, recordings
from service.audio import forks as fork_servers
from service.audio.decode_child import ResourceLimits
from service.audio.decode_process import DecoderProcess
from service.audio.decoder import Decoder
from service.audio.forks import ForkServer
from service.exceptions import ServiceError
from tests.service.audio.test_decoder import children
from tests.service.conftest import Serve, encoded, tone, until

ROOT = Path(__file__).parents[3]


@pytest.fixture
def forks() -> Iterator[ForkServer]:
    server = ForkServer()
    server.wait(20)
    yield server
    server.close()


def files_of(pid: int | None) -> list[str]:
    return sorted(os.listdir(f"/proc/{pid or os.getpid()}/fd"))


def test_a_child_ends_with_its_input_and_its_end_is_told(forks: ForkServer) -> None:
    ends, killed = forks.fork(), forks.fork()
    assert ends.poll() is None
    ends.stdin.close()
    os.kill(killed.pid, signal.SIGSEGV)
    assert (ends.wait(10), killed.wait(10)) == (0, -signal.SIGSEGV)
    for child in (ends, killed):
        child.close()


def test_a_recording_is_read_where_no_path_leads_to_it(forks: ForkServer) -> None:
    """As to any file where there is no /proc: no path ever leads to a socket."""
    wav = encoded(tone())
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(wav)
        ours.shutdown(socket.SHUT_WR)
        process = DecoderProcess(forks, Limits(), ResourceLimits(), theirs.fileno())
        samples = np.concatenate(list(process.stream(None)))
        process.close()
    np.testing.assert_array_equal(samples, audio.decode(wav))


def test_the_files_of_a_child_are_its_alone_before_it_is_told_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a server that stands still there would keep them open when the child has died."""
    pipes = [os.pipe() for _ in range(fork_server.N_FILES)]
    given = [write for _, write in pipes]
    open_then: list[int] = []

    def tell(_fd: int, _data: bytes) -> None:
        open_then.extend(fd for fd in given if os.path.exists(f"/proc/self/fd/{fd}"))

    with monkeypatch.context() as patch:
        patch.setattr(fork_server.os, "fork", lambda: 12_345)
        patch.setattr(fork_server.os, "write", tell)
        fork_server._fork(list(given), told := {}, lambda: None)
    assert open_then == [given[-1]] == list(told.values())
    for fd in [*(read for read, _ in pipes), *told.values()]:
        os.close(fd)


def test_a_child_has_its_own_files_and_no_others(forks: ForkServer, tmp_path: Path) -> None:
    before = files_of(None), files_of(forks.pid)
    (tmp_path / "recording").write_text("x")
    with (tmp_path / "recording").open("rb") as recording:
        first, second = forks.fork(), forks.fork(recording.fileno())
    until(lambda: len(files_of(first.pid)) == 5)  # 0, 1, 2, and two that it makes of them
    until(lambda: len(files_of(second.pid)) == 6)
    opened = [os.readlink(f"/proc/{second.pid}/fd/{fd}") for fd in files_of(second.pid)]
    assert str(tmp_path / "recording") in opened
    assert os.getpriority(os.PRIO_PROCESS, first.pid) > os.getpriority(os.PRIO_PROCESS, 0)
    first.close()
    second.close()
    until(lambda: (files_of(None), files_of(forks.pid)) == before)


def test_what_forks_has_one_thread(forks: ForkServer) -> None:
    """A lock that another thread holds would stay locked in the child."""
    assert len(os.listdir(f"/proc/{forks.pid}/task")) == 1


def test_a_server_without_room_for_files_refuses_and_goes_on(forks: ForkServer) -> None:
    assert forks.pid is not None
    before = files_of(None), files_of(forks.pid)
    limits = resource.prlimit(forks.pid, resource.RLIMIT_NOFILE)
    outcomes = []
    for room in range(3, 3 + len(before[1]) + 4):
        resource.prlimit(forks.pid, resource.RLIMIT_NOFILE, (room, limits[1]))
        try:
            forks.fork().close()
            outcomes.append("forked")
        except ConnectionError as error:
            outcomes.append(str(error.strerror))
    resource.prlimit(forks.pid, resource.RLIMIT_NOFILE, limits)
    assert len(set(outcomes)) == 2
    assert outcomes[0] == "the fork server has ended, or has no files left"
    assert outcomes[-1] == "forked"
    until(lambda: (files_of(None), files_of(forks.pid)) == before)
    child = forks.fork()
    assert child.poll() is None
    child.close()


def test_where_the_server_is_killed_another_one_forks(serve: Serve) -> None:
    others = set(children())  # of a service that other tests share
    with serve(decode_workers=2) as client:
        url, wav = "/v1/audio/embeddings", encoded(tone())
        before = client.post(url, content=wav).json()
        old = set(children()) - others
        assert len(old) == 3  # one is a spare
        for pid in {parent_of(pid) for pid in old}:
            os.kill(pid, signal.SIGKILL)
        for _ in range(3):
            answer = client.post(url, content=wav)
            assert answer.status_code == 200
            assert answer.json()["data"] == before["data"]
        streamed = client.post(url, params={"stream": "true"}, content=wav)
        assert '"object":"done"' in streamed.text
        until(lambda: not old & alive() and len(set(children()) - others) == 3, 10)


def test_a_python_that_is_not_there_any_more_is_no_failure_of_streams(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Say it is replaced while the service runs."""
    others = set(children())
    url, wav = "/v1/audio/embeddings", encoded(tone())
    with serve(decode_workers=1) as client, capture_logs() as logs:
        monkeypatch.setattr(recordings, "WAIT_S", 0.3)
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        for pid in {parent_of(pid) for pid in set(children()) - others}:
            os.kill(pid, signal.SIGKILL)
        until(lambda: any(line["event"] == "decoder not started" for line in logs), 10)
        answer = client.post(url, params={"stream": "true"}, content=wav)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert answer.json()["type"] == "/problems/decoder-unavailable"
        reasons = [line["reason"] for line in logs if line["event"] == "decoder not started"]
        assert all("/nowhere/python" in reason for reason in reasons)
        monkeypatch.undo()
        assert client.post(url, params={"stream": "true"}, content=wav).status_code == 200


def test_what_asks_all_processes_to_end_ends_no_decoding() -> None:
    """As systemd does, and a terminal that is closed: the service finishes what it has in hand."""

    async def run() -> None:
        pool = Decoder(Limits(), 1)
        await pool.start()
        assert pool.forks.pid is not None
        pids = [pool.forks.pid, *pool.pids]
        for pid in pids:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(pid, number)
        await asyncio.sleep(0.2)
        assert len((await pool.read(encoded(tone()))).samples) == 16_000
        assert not pool.restarts
        assert [pool.forks.pid, *pool.pids] == pids
        pool.close()

    asyncio.run(run())


def test_a_file_in_hand_is_read_to_its_end_without_the_server() -> None:
    async def run() -> None:
        pool = Decoder(Limits(), 1)
        await pool.read(encoded(tone()))
        (pid,) = pool.pids
        os.kill(pid, signal.SIGSTOP)
        reading = asyncio.create_task(pool.read(encoded(tone(20.0))))
        while not pool._asked:
            await asyncio.sleep(0.01)
        assert pool.forks.pid is not None
        os.kill(pool.forks.pid, signal.SIGKILL)
        os.kill(pid, signal.SIGCONT)
        assert len((await reading).samples) == 20 * 16_000
        assert not pool.restarts
        pool.close()
        until(lambda: pid not in alive())

    asyncio.run(run())


def test_a_server_that_hangs_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork_servers, "ANSWER_S", 0.2)

    async def run() -> None:
        pool = Decoder(Limits(), 1)
        await pool.read(encoded(tone()))
        assert pool.forks.pid is not None
        os.kill(pool.forks.pid, signal.SIGSTOP)
        hung = pool.forks.pid
        os.kill(pool.pids[0], signal.SIGKILL)
        assert len((await pool.read(encoded(tone()))).samples) == 16_000
        assert hung not in alive()
        pool.close()

    with capture_logs() as logs:
        asyncio.run(run())
    assert [line["event"] for line in logs].count("decoder not started") == 1


def test_a_server_that_cannot_load_is_tried_less_and_less_often(monkeypatch) -> None:
    """Say an installation that is being replaced; what it said is in the log."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": "/nowhere", "HOME": "/nowhere"}
    with ExitStack() as held:
        with monkeypatch.context() as patch, capture_logs() as logs:
            patch.setattr(decoders, "WAIT_S", 3.0)
            patch.setattr(children_of_ours, "child_environment", lambda: environment)
            patch.setattr(children_of_ours.sys, "executable", sys._base_executable)  # type: ignore[attr-defined]
            patch.chdir("/")
            pool = held.enter_context(closing(Decoder(Limits(), 1)))
            with pytest.raises(ServiceError) as problem:
                asyncio.run(pool.read(encoded(tone())))
        assert problem.value.reason == "decoder-unavailable"
        ended = [line for line in logs if line["event"] == "fork server ended"]
        assert "service" in ended[0]["notes"]
        pauses = [line["again_in_s"] for line in logs if line["event"] == "decoder not started"]
        assert 2 <= len(pauses) < 6
        assert pauses == sorted(pauses)
        monkeypatch.setattr(decoders, "WAIT_S", 60.0)  # a busy machine takes long to load it
        assert len(asyncio.run(until_read(pool)).samples) == 16_000


async def until_read(pool: Decoder) -> decoders.Decoded:
    await asyncio.sleep(pool._pause_s)
    return await pool.read(encoded(tone()))


def test_nothing_stays_of_a_service_that_is_killed() -> None:
    program = (
        "import sys, time\n"
        "from models.audio import Limits\n"
        "from service.audio.decoder import Decoder\n"
        "pool = Decoder(Limits(), 2)\n"
        "pool.forks.wait(20)\n"
        "pool._mend()\n"
        "print(pool.forks.pid, *pool.pids, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=-1) as service:
        assert service.stdout is not None
        pids = {int(pid) for pid in service.stdout.readline().split()}
        assert len(pids & alive()) == 3
        service.kill()
    until(lambda: not pids & alive(), 10)


def alive() -> set[int]:
    """Numbers of the processes that run, those that wait to be looked at left out."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if path.read_text().rpartition(")")[2].split()[0] != "Z":
                found.add(int(path.parent.name))
        except OSError:
            continue
    return found


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
