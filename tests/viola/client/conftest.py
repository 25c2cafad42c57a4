"""The server of `moody`, as a fixture."""

import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer

import pytest

from tests.service.conftest import one_fork_server  # noqa: F401, of services that answer clients
from tests.viola.client.moody import Moody


@pytest.fixture
def moody() -> Iterator[tuple[str, type[Moody]]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Moody)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    Moody.moods, Moody.bodies = [], []
    yield f"http://127.0.0.1:{server.server_port}", Moody
    server.shutdown()
    thread.join()
    server.server_close()
