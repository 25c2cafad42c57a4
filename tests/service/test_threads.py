"""Calls in threads."""

import asyncio

import pytest

from service.threads import in_thread


def test_a_call_that_runs_out_of_values_is_an_error_and_not_waited_for_for_ever() -> None:
    async def run() -> None:
        await asyncio.wait_for(in_thread(next, iter(())), 5)

    with pytest.raises(RuntimeError, match="ran out"):
        asyncio.run(run())
