"""Who has used how much since the process started: requests and seconds of audio, by key.

It is the sum that bills and dashboards want; what may still be used is `quotas.py`. Each process
counts for itself: over several of them Prometheus adds up.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from service.traffic.quotas import Caller


@dataclass
class Used:
    """What one key has used."""

    requests: int = 0
    audio_s: float = 0.0


class Usage:
    """The sums by the names of keys; those of an open service stand under None."""

    def __init__(self) -> None:
        self.since = datetime.now(UTC)
        self.by_key: dict[str | None, Used] = {}

    def know(self, keys: Iterable[str]) -> None:
        """Start the sums of these keys at 0."""
        for key in keys:
            self._of(key)

    def asked(self, caller: Caller) -> None:
        """A request of this caller is over."""
        self._of(caller.key).requests += 1

    def heard(self, caller: Caller, audio_s: float) -> None:
        """So many seconds of audio were decoded for this caller."""
        caller.meter.audio_s += audio_s
        self._of(caller.key).audio_s += audio_s

    def _of(self, key: str | None) -> Used:
        return self.by_key.setdefault(key, Used())
