"""Where a request's time went: the `Server-Timing` header."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter


class Timing:
    """Seconds by stage, in the order in which the stages began."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time inside towards `name`."""
        started = perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + perf_counter() - started

    def header(self) -> str:
        """The header's value, in milliseconds as it wants them."""
        return ", ".join(f"{name};dur={s * 1000:.1f}" for name, s in self.seconds.items())
