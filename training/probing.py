"""Asking the probe about the encoder of a run: between two steps, or on a GPU beside them."""

import copy
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from models.nn.model import WaveformEncoder

Scores = dict[str, float]


@dataclass(frozen=True)
class Answer:
    """The probe's accuracies of the encoder as it was after a step."""

    step: int
    scores: Scores


class Prober:
    """Asks the probe, one question at a time.

    On a GPU the steps go on meanwhile: a copy of the encoder is asked about, in a thread and a
    stream of its own. On a CPU, where both would share the cores, the answer is there at once.
    """

    def __init__(self, probe: Callable[[WaveformEncoder], Scores], device: torch.device) -> None:
        self._probe = probe
        self.is_beside = device.type == "cuda"
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="probe")
        self._asked: list[tuple[int, Future[Scores]]] = []

    def ask(self, step: int, encoder: WaveformEncoder) -> None:
        """Ask about an encoder, which may go on changing once this returns."""
        if not self.is_beside:
            answered: Future[Scores] = Future()
            answered.set_result(self._probe(encoder))
            self._asked.append((step, answered))
            return
        copied, device = copy.deepcopy(encoder), next(encoder.parameters()).device
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(device))
        self._asked.append((step, self._worker.submit(self._in_stream, copied, stream)))

    def _in_stream(self, encoder: WaveformEncoder, stream: torch.cuda.Stream) -> Scores:
        torch.cuda.set_device(stream.device)  # of this thread
        with torch.cuda.stream(stream):
            return self._probe(encoder)

    @property
    def is_busy(self) -> bool:
        """Whether a question has no answer yet."""
        return any(not future.done() for _, future in self._asked)

    def answers(self, *, wait: bool = False) -> list[Answer]:
        """The answers that are there and were not given out yet, all of them with `wait`."""
        ready = [(step, each) for step, each in self._asked if wait or each.done()]
        self._asked = [asked for asked in self._asked if asked not in ready]
        return [Answer(step, future.result()) for step, future in ready]

    def close(self) -> None:
        """Stop asking."""
        self._worker.shutdown(cancel_futures=True)
