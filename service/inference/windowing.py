"""The windows that a request asks for, on the grid of a model's frames."""

from dataclasses import dataclass

from models.audio import SAMPLE_RATE
from models.card import Card
from models.runtime import Encoder
from models.windows import Grid, Timeline
from service.exceptions import ServiceError

MAX_OVERLAP = 16  # windows that may cover one instant: it multiplies the work of a request


@dataclass(frozen=True)
class Windowing:
    """Windows of `window_s` that start every `hop_s`, of the frames of a model."""

    window_s: float
    hop_s: float
    grid: Grid

    @classmethod
    def of(cls, window_s: float | None, hop_s: float | None, card: Card) -> "Windowing | None":
        """Check a request's two parameters; without `hop_s` the windows do not overlap.

        Raises:
            ServiceError: for a combination that makes no sense.
        """
        if window_s is None:
            if hop_s is not None:
                reason = "hop_s needs window_s: it is the step from one window to the next."
                raise _invalid("hop_s", reason, hop_s)
            return None
        hop_s = window_s if hop_s is None else hop_s
        frame_s = card.frame_hop / SAMPLE_RATE
        for name, value in (("window_s", window_s), ("hop_s", hop_s)):
            if value < frame_s:
                reason = (
                    f"{name} = {value:g} is below one frame of {card.name}: at least {frame_s:g}."
                )
                raise _invalid(name, reason, value, frame_s)
        if hop_s > window_s:
            reason = f"hop_s = {hop_s:g} would skip audio: at most window_s = {window_s:g}."
            raise _invalid("hop_s", reason, hop_s, window_s)
        if hop_s * MAX_OVERLAP < window_s:
            shortest = window_s / MAX_OVERLAP
            reason = (
                f"hop_s = {hop_s:g} is too short: at least window_s / {MAX_OVERLAP} = {shortest:g}."
            )
            raise _invalid("hop_s", reason, hop_s, shortest)
        return cls(window_s, hop_s, Grid.of(window_s, hop_s, card))

    def in_frames(self) -> "Windowing":
        """The nearest windows of whole frames, so that tiles can end where windows do."""
        card = self.grid.card
        frame_s = card.frame_hop / SAMPLE_RATE
        frames = (round(self.window_s / frame_s), round(self.hop_s / frame_s))
        window_s, hop_s = (n * frame_s for n in frames)
        return Windowing(window_s, hop_s, Grid.of(window_s, hop_s, card))

    def timeline(self, encoder: Encoder) -> Timeline:
        """The timeline that turns the frames of a recording into these windows."""
        return Timeline(self.grid, encoder.pooling)

    def only(self, encoder: Encoder, n_samples: int) -> tuple[float, float] | None:
        """Start and end of a clip's window if it has only one; see `Encoder.only_window`."""
        return encoder.only_window_of(self.grid, n_samples)

    def count(self, n_samples: int) -> int:
        """How many windows a recording has."""
        return self.grid.count(n_samples)


def _invalid(name: str, reason: str, value: float, limit: float | None = None) -> ServiceError:
    return ServiceError("invalid-parameter", reason, param=name, value=value, limit=limit)
