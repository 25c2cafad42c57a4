"""Decoders here have fork servers of their own."""

from collections.abc import Iterator

import pytest

from service.audio import decoder
from service.audio.forks import ForkServer


@pytest.fixture(scope="module", autouse=True)
def _fork_servers_of_their_own() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder, "ForkServer", ForkServer)
        yield
