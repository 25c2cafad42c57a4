"""Where an answer is written: on the event loop if it is short, else in a thread."""

import asyncio
import threading

import pytest
from fastapi import Response

from service.exchange import FEW_VECTORS, rendered
from service.telemetry.timing import Timing


@pytest.mark.parametrize(
    ("n_vectors", "is_here"), [(0, True), (FEW_VECTORS, True), (FEW_VECTORS + 1, False)]
)
def test_few_vectors_are_written_without_a_thread(n_vectors: int, is_here: bool) -> None:
    wrote: list[threading.Thread] = []

    def write(text: str) -> Response:
        wrote.append(threading.current_thread())
        return Response(text)

    timing = Timing()
    response = asyncio.run(rendered(timing, n_vectors, write, "the answer"))

    assert response.body == b"the answer"
    assert (wrote == [threading.current_thread()]) == is_here
    assert list(timing.seconds) == ["render"]
