"""The socket that a process answers at."""

import errno
import socket

from service.settings import SettingsError


def listen(host: str, port: int) -> socket.socket:
    """The socket to serve on, taken before anything that takes time.

    Raises:
        SettingsError: it cannot be had, and what to do about it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol by name: else asyncio leaves Nagle's algorithm on, and answers wait 40 ms
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise SettingsError(_why_not(host, port, error)) from error
    return listening


def _why_not(host: str, port: int, error: OSError) -> str:
    """Why it cannot listen there, and the remedy."""
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} of {host} is taken by another process: end it, or choose another port "
            "with --port or VIOLA_PORT"
        )
    if error.errno == errno.EACCES:
        return f"port {port} may not be used by this user: choose one above 1023 with --port"
    return (
        f"it cannot listen on {host}, port {port}: {error.strerror or error}; --host (VIOLA_HOST) "
        "takes a name or an address of this machine, and 0.0.0.0 or :: for all of its addresses"
    )
