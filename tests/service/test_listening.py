import asyncio
import socket

import pytest

from service.listening import listen
from service.settings import SettingsError


def test_answers_do_not_wait_for_acknowledgements() -> None:
    """asyncio switches Nagle's algorithm off for sockets whose protocol is named alone.

    With it every second answer of a connection waits up to 40 ms for the client's acknowledgement.
    """

    async def accepted() -> int:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection: socket.socket = writer.get_extra_info("socket")
            found.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listening = listen("127.0.0.1", 0)
        async with await asyncio.start_server(note, sock=listening):
            _, writer = await asyncio.open_connection(*listening.getsockname())
            try:
                return await found
            finally:
                writer.close()

    assert asyncio.run(accepted()) != 0


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1", "[::1]"])
def test_an_address_that_is_not_this_machines_is_refused_with_what_is_expected(host: str) -> None:
    with pytest.raises(SettingsError, match=r"--host .* takes .* an address of this machine"):
        listen(host, 1024)
