"""A real redis-server for tests, on a Unix socket of its own."""

import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

START_S = 20.0


class RedisServer:
    """A server that may be stopped and started again; it keeps nothing on disk."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        options = ["--port", "0", "--unixsocket", str(self.socket), "--save", "", "--daemonize"]
        self._process = subprocess.Popen(
            [str(shutil.which("redis-server")), *options, "no"],
            stdout=subprocess.DEVNULL,
            cwd=self.socket.parent,
        )
        deadline = time.monotonic() + START_S
        while not self.socket.exists():
            assert time.monotonic() < deadline, "redis-server does not start"
            time.sleep(0.01)

    def stop(self) -> None:
        """Kill it, and all it knew."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self.socket.unlink(missing_ok=True)
            self._process = None

    def freeze(self) -> None:
        """Let it accept connections and answer nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


def started_server() -> RedisServer:
    """A server that runs; the test is skipped where there is none."""
    pytest.importorskip("redis", reason="needs the redis extra")
    if shutil.which("redis-server") is None:
        pytest.skip("there is no redis-server: apt-get install redis-server")
    server = RedisServer(Path(tempfile.mkdtemp(prefix="viola-redis-")))  # paths are 107 bytes long
    server.start()
    return server
