"""A training step as one CUDA graph: some thousand kernel launches become one."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

WARM_UP = 3  # runs before the capture: lazy allocations, choice of algorithms, compilation
Inputs = tuple[Tensor, ...]
Result = TypeVar("Result")


class Kept:
    """The values that tensors have now, to be given back after steps that do not count."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        # detached: a clone with a gradient would tie the parameters to this stream
        self._values = {id(tensor): tensor.detach().clone() for tensor in tensors}

    @torch.no_grad()
    def give_back(self, tensors: Sequence[Tensor]) -> None:
        """Put the values into the tensors; those that were not there before become zero."""
        for tensor in tensors:
            if id(tensor) in self._values:
                tensor.copy_(self._values[id(tensor)])
            else:
                tensor.zero_()


class Captured(Generic[Result]):
    """`step(inputs)` recorded once and replayed on new inputs of the same shapes.

    The runs before the capture would move the weights: the tensors of `state` get their values
    back, so that every step of a run is a replay and a resumed run repeats them exactly.

    Args:
        step: what to record; reads `inputs` and the tensors that it closes over.
        inputs: an example on the device.
        state: lists the tensors that a step changes; asked again after the first run, which may
            add to them (an optimiser makes its moments then); those are zeroed.
        generator: random numbers that the step draws besides the default generator's.
    """

    def __init__(
        self,
        step: Callable[[Inputs], Result],
        inputs: Inputs,
        state: Callable[[], Sequence[Tensor]],
        generator: torch.Generator,
    ) -> None:
        self._inputs = tuple(tensor.clone() for tensor in inputs)
        kept = Kept(state())
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                step(self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        self._graph.register_generator_state(generator)
        with (
            _stream_and_memory_given_back() as pool,
            # thread_local: other threads pin memory and read from the device meanwhile
            torch.cuda.graph(self._graph, pool, capture_error_mode="thread_local"),
        ):
            self._result = step(self._inputs)
        kept.give_back(state())

    def __call__(self, inputs: Inputs) -> Result:
        """Replay; the result's tensors are the same ones each time, with new values."""
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given, non_blocking=True)
        self._graph.replay()
        return self._result


@contextmanager
def _stream_and_memory_given_back() -> Iterator[Any]:
    """A pool for the memory of a graph.

    Where the capture fails, `torch.cuda.graph` ends before it has left its stream and has told the
    allocator that nothing is being captured any more: until then the allocator keeps the pool, and
    cannot give back memory that is cached when it runs short of it.
    """
    pool, stream = torch.cuda.graph_pool_handle(), torch.cuda.current_stream()
    try:
        yield pool
    except BaseException:
        torch.cuda.set_stream(stream)
        with suppress(RuntimeError):  # the allocator knows it already
            torch._C._cuda_endAllocateToPool(stream.device_index, pool)
            torch._C._cuda_releasePool(stream.device_index, pool)
        raise


def recover(device: torch.device) -> None:
    """Reset the random generator, which a capture that failed leaves in recording mode.

    Raises:
        RuntimeError: the device no longer answers.
    """
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        fresh = torch.Generator(device)
        torch.cuda.default_generators[index].graphsafe_set_state(fresh.graphsafe_get_state())
        torch.cuda.synchronize(device)
