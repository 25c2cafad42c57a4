"""Whether the service in this container is ready: exit code 0 or 1. Standard library alone.

Run as `python3 -IS healthcheck.py`, every few seconds: it starts in a few hundredths of a second.
"""

import os
import socket
import sys

TIMEOUT_S = 4
REQUEST = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def is_ready(port: int) -> bool:
    """Ask `/readyz`; the status line says it."""
    try:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
            connection.sendall(REQUEST)
            return connection.makefile("rb").readline().split()[1:2] == [b"200"]
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(not is_ready(int(os.environ.get("VIOLA_PORT", "8000"))))
