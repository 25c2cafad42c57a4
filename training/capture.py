"""A training step as one CUDA graph: some thousand kernel launches become one."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

WARM_UP = 3  # runs before the capture: lazy allocations, choice of algorithms, compilation
Inputs = tuple[Tensor, ...]
Result = TypeVar("Result")


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
        # detached: a clone with a gradient would tie the parameters to this stream
        before = {id(tensor): tensor.detach().clone() for tensor in state()}
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                step(self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        self._graph.register_generator_state(generator)
        with torch.cuda.graph(self._graph):
            self._result = step(self._inputs)
        with torch.no_grad():
            for tensor in state():
                if id(tensor) in before:
                    tensor.copy_(before[id(tensor)])
                else:
                    tensor.zero_()

    def __call__(self, inputs: Inputs) -> Result:
        """Replay; the result's tensors are the same ones each time, with new values."""
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given, non_blocking=True)
        self._graph.replay()
        return self._result
