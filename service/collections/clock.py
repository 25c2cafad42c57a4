"""The clock of the PostgreSQL server, which all processes that share it go by.

Timestamps tell when a worker was last heard of. Were each machine to write its own, one whose clock
is minutes ahead would take the jobs of workers that are alive, and one that is behind would leave
those of dead ones.
"""

from time import monotonic

from sqlalchemy import text

from service.collections.database import Database

_NOW = text("SELECT extract(epoch FROM clock_timestamp())")


class SharedClock:
    """Seconds since 1970 by the database, which is asked now and then.

    In between, time passes by this machine's monotonic clock.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.ask()

    def __call__(self) -> float:
        """The time now."""
        return monotonic() + self._ahead_s

    def ask(self) -> None:
        """Ask the database.

        Raises:
            StoreError: it cannot be asked now.
        """
        with self._database.read() as connection:
            began = monotonic()
            now = float(connection.execute(_NOW).scalar_one())
            self._ahead_s = now - (began + monotonic()) / 2
