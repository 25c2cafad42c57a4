"""The health check of the image, which has nothing but the standard library."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent.parent / "docker" / "healthcheck.py"


def checked(port: int) -> int:
    command = [sys.executable, "-IS", SCRIPT]
    return subprocess.run(command, env=os.environ | {"VIOLA_PORT": str(port)}).returncode


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", 0),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", 1),
        (b"", 1),
    ],
)
def test_only_a_service_that_is_ready_is_healthy(answer: bytes, code: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        asked: list[bytes] = []

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                asked.append(connection.recv(4096))
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert checked(server.getsockname()[1]) == code
        thread.join()
    assert asked[0].startswith(b"GET /readyz HTTP/1.1\r\n")


def test_where_nobody_listens_it_is_not_healthy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert checked(port) == 1
